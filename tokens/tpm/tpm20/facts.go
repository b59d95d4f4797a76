package tpm20

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
)

// Facts are what a TPM is and can do.
type Facts struct {
	Manufacturer string // of four letters
	Vendor       string // the manufacturer's own text
	Firmware     string
	Hashes       []tpm2.TPMAlgID
	Curves       []p11.Curve
	P256         bool
	RSABits      []int // of which keys can be made
	PINFail      bool  // has indexes that count wrong PINs themselves
	AESBits      []int // of keys that it encrypts with
	AESModes     []string
}

// Most says how long the longest RSA key is, 0 if there is none, and Least the shortest.
func (f *Facts) Most() int { return last(f.RSABits) }

// Least is the other end.
func (f *Facts) Least() int {
	if len(f.RSABits) == 0 {
		return 0
	}
	return f.RSABits[0]
}

func last(list []int) int {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

// Facts asks the TPM, once.
func (c *Chip) Facts(ctx context.Context) (*Facts, error) {
	c.mu.Lock()
	known := c.facts
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	return do(ctx, c, func(*worker) (*Facts, error) { // which is asked by connect
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.facts, nil
	})
}

// look asks what the TPM is, the first time, or else whether it is there.
func (w *worker) look() error {
	w.chip.mu.Lock()
	known := w.chip.facts != nil
	w.chip.mu.Unlock()
	if known {
		_, err := w.property(tpm2.TPMPTManufacturer)
		return err
	}
	f, err := w.askFacts()
	if err != nil {
		return err
	}
	w.chip.mu.Lock()
	defer w.chip.mu.Unlock()
	w.chip.facts = f
	return nil
}

// askFacts asks for everything.
func (w *worker) askFacts() (*Facts, error) {
	f := &Facts{}
	maker, err := w.property(tpm2.TPMPTManufacturer)
	if err != nil {
		if rc, ok := code(err); ok && rc <= rcMost12 {
			return nil, ErrVersion
		}
		return nil, err
	}
	f.Manufacturer = letters(maker)
	for p := tpm2.TPMPTVendorString1; p <= tpm2.TPMPTVendorString4; p++ {
		n, err := w.property(p)
		if err != nil {
			return nil, err
		}
		f.Vendor += letters(n)
	}
	one, err := w.property(tpm2.TPMPTFirmwareVersion1)
	if err != nil {
		return nil, err
	}
	two, err := w.property(tpm2.TPMPTFirmwareVersion2)
	if err != nil {
		return nil, err
	}
	f.Firmware = fmt.Sprintf("%x.%x", one, two)
	revision, err := w.property(tpm2.TPMPTRevision)
	if err != nil {
		return nil, err
	}
	f.PINFail = revision >= 138
	return f, w.askAlgorithms(f)
}

// rcMost12 bounds the codes that are those of TPM 1.2 (TPM 2.0 Library, Part 2, §6.6.2):
// one says to a command of version 2.0 that its tag or its number is bad.
const rcMost12 tpm2.TPMRC = 0x07f

// letters are the printable characters of a property.
func letters(n uint32) string {
	b := binary.BigEndian.AppendUint32(nil, n)
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b)))
}

func (w *worker) askAlgorithms(f *Facts) error {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapAlgs, PropertyCount: 256}.Execute(w)
	if err != nil {
		return err
	}
	algs, err := r.CapabilityData.Data.Algorithms()
	if err != nil {
		return err
	}
	has := make(map[tpm2.TPMAlgID]bool)
	for _, a := range algs.AlgProperties {
		has[a.Alg] = true
		if _, err := a.Alg.Hash(); err == nil {
			f.Hashes = append(f.Hashes, a.Alg)
		}
	}
	if has[tpm2.TPMAlgECC] {
		if err := w.askCurves(f); err != nil {
			return err
		}
	}
	for _, bits := range []int{1024, 2048, 3072, 4096} {
		ok, err := w.takes(tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(bits)}))
		if err != nil {
			return err
		}
		if ok && has[tpm2.TPMAlgRSA] {
			f.RSABits = append(f.RSABits, bits)
		}
	}
	return w.askAES(f, has)
}

// takes says whether the TPM takes keys of these parameters.
func (w *worker) takes(t tpm2.TPMAlgID, parms tpm2.TPMUPublicParms) (bool, error) {
	_, err := tpm2.TestParms{Parameters: tpm2.TPMTPublicParms{Type: t, Parameters: parms}}.Execute(w)
	if _, ok := code(err); err != nil && !ok {
		return false, err
	}
	return err == nil, nil
}

func (w *worker) askCurves(f *Facts) error {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapECCCurves, PropertyCount: 256}.Execute(w)
	if err != nil {
		return err
	}
	curves, err := r.CapabilityData.Data.ECCCurves()
	if err != nil {
		return err
	}
	for _, c := range p11.Curves() {
		if id, ok := curveID(c); ok && slices.Contains(curves.ECCCurves, id) {
			f.Curves = append(f.Curves, c)
			f.P256 = f.P256 || id == tpm2.TPMECCNistP256
		}
	}
	return nil
}

// curveID is the TPM's number of a curve.
func curveID(c p11.Curve) (tpm2.TPMECCCurve, bool) {
	if c.Elliptic == nil {
		return 0, false
	}
	id, ok := map[string]tpm2.TPMECCCurve{
		"P-224": tpm2.TPMECCNistP224, "P-256": tpm2.TPMECCNistP256, "P-384": tpm2.TPMECCNistP384, "P-521": tpm2.TPMECCNistP521,
	}[c.Elliptic.Params().Name]
	return id, ok
}

// property asks for one number; one that the TPM does not have is 0.
func (w *worker) property(p tpm2.TPMPT) (uint32, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(w)
	if err != nil {
		return 0, err
	}
	list, err := r.CapabilityData.Data.TPMProperties()
	if err != nil || len(list.TPMProperty) == 0 || list.TPMProperty[0].Property != p {
		return 0, err
	}
	return list.TPMProperty[0].Value, nil
}

// Guard is how the TPM guards itself against guessing.
type Guard struct {
	OwnerAuth   bool // the owner has a password
	LockoutAuth bool // resetting the count of failures wants one
	Locked      bool
	Failures    uint32
	Most        uint32 // failures
	// Interval is in how many seconds one failure is forgotten.
	Interval uint32
}

// Guard asks the TPM.
func (c *Chip) Guard(ctx context.Context) (Guard, error) {
	return do(ctx, c, func(w *worker) (g Guard, err error) {
		var permanent uint32
		for p, to := range map[tpm2.TPMPT]*uint32{
			tpm2.TPMPTPermanent: &permanent, tpm2.TPMPTLockoutCounter: &g.Failures,
			tpm2.TPMPTMaxAuthFail: &g.Most, tpm2.TPMPTLockoutInterval: &g.Interval,
		} {
			if *to, err = w.property(p); err != nil {
				return g, err
			}
		}
		g.OwnerAuth, g.LockoutAuth, g.Locked = permanent&1 != 0, permanent&4 != 0, permanent&(1<<9) != 0
		return g, nil
	})
}

// Random fills b from the TPM's generator.
func (c *Chip) Random(ctx context.Context, b []byte) error {
	got, err := do(ctx, c, func(w *worker) ([]byte, error) {
		out := make([]byte, 0, len(b))
		for len(out) < len(b) {
			r, err := tpm2.GetRandom{BytesRequested: uint16(min(len(b)-len(out), 48))}.Execute(w)
			if err != nil {
				return nil, err
			}
			if n := len(r.RandomBytes.Buffer); n == 0 || n > len(b)-len(out) {
				return nil, fmt.Errorf("%d random bytes", n)
			}
			out = append(out, r.RandomBytes.Buffer...)
		}
		return out, nil
	})
	copy(b, got)
	clear(got)
	return err
}
