package tpm

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/desk"
	"p11fs/tokens/tpm/stocktpm"
	"p11fs/tokens/tpm/tpm12"
	"p11fs/tokens/tpm/tpm20"
)

// Kind is the name of the kind of token that this package is.
const Kind = "tpm"

// NewKind is the kind of token whose master key and private keys a TPM 2.0 has. p does the
// cryptography around them. device is the TPM of tokens for which nothing else says one;
// empty is that of the machine.
func NewKind(p swtok.Provider, device string) tokens.Kind {
	k := &kind{provider: p, device: device}
	return tokens.Kind{
		Name: Kind, Library: "libpkcs11_tpm", Files: []string{"NVTOK.DAT", "MK_SO", "MK_USER", chipFile},
		Open: k.open, Check: k.check, Weak: k.weak, Vacant: vacant, Lacking: swtok.Lacking(p),
		Unshared: func(p tokens.Place) bool { return !isOld(p.Dir) }, Settings: []string{"device", "protection", "user", "cost", "aes"},
		OwnFormat: func(dir string) p11.Version {
			if isOld(dir) {
				return p11.Version{}
			}
			return p11.Version{Major: 3, Minor: 12}
		},
		Owner: owner,
		Protection: func(p tokens.Place) tokens.Protection {
			if isOld(p.Dir) {
				return stocktpm.Protection()
			}
			return tokens.Protection{Mechanisms: []p11.MechanismType{p11.CKM_AES_KEY_GEN, p11.CKM_AES_GCM}, Bits: 128}
		},
		NoBackup: errNoBackup,
	}
}

// errNoBackup says why there is no tokens.Upkeep: what it would save is of no use.
var errNoBackup = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "its keys are in this machine's TPM, and a copy of its directory opens with that TPM only"),
	"stop p11fs and copy the directory with cp -a, after each change of a PIN anew, and keep what must outlive the TPM elsewhere too")

// A kind has the TPMs that are open: tokens share them.
type kind struct {
	provider swtok.Provider
	device   string

	chips desk.Pool[*tpm20.Chip]
	old   desk.Pool[*tpm12.TPM]
}

// take returns the TPM 2.0 of a device, and what gives it back.
func (k *kind) take(device string) (*tpm20.Chip, func(), error) {
	return k.chips.Take(device, func() (*tpm20.Chip, error) { return tpm20.Open(tpm20.Device(device)) })
}

// settings are the lines of a kind's own configuration file.
type settings struct {
	device, protection, user string
	cost                     int  // of PINs that are set; 0: none is said
	aes                      bool // keys of AES are the TPM's
}

// maxLine bounds a line of it.
const maxLine = 1 << 12

// readSettings reads lines of "device = unix:/PATH", "protection = da", "cost = 15" and "aes = tpm".
func readSettings(file string) (s settings, err error) {
	if file == "" {
		return s, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return s, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the TPM's configuration: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		number, _ := strconv.Atoi(value)
		switch name = strings.TrimSpace(name); {
		case name == "device" && tpm20.Device(value).Check() == nil:
			s.device = value
		case name == "protection" && (value == DA || value == PINFail):
			s.protection = value
		case name == "user" && stocktpm.UserName(value):
			s.user = value
		case name == "cost" && tpm20.MinCost <= number && number <= tpm20.MaxCost:
			s.cost = number
		case name == "aes" && value == "tpm":
			s.aes = true
		default:
			return s, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s, line %d: it is device = /dev/tpmrm0 (or unix:/PATH, tcp:HOST:PORT), protection = da (or pinfail), user = NAME, cost = %d to %d or aes = tpm", file, n, tpm20.MinCost, tpm20.MaxCost)
		}
	}
	if err := lines.Err(); err != nil {
		return s, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %w", file, err)
	}
	return s, nil
}

// deviceOf is the TPM of a token: that of its own files, of its configuration, of the
// kind, or of the machine. One that others may have written into its files is its TPM only
// if something else says so too: it gets what was made of the PINs, and the next master key.
func (k *kind) deviceOf(r *record, s settings) (string, error) {
	if r.device != "" && r.shared && r.device != s.device && r.device != k.device {
		return "", p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s says that the token's TPM is %s, and others may have written that", chipFile, r.device),
			"if it is, write device = "+r.device+" into the token's configuration (confname)")
	}
	for _, d := range []string{r.device, s.device, k.device} {
		if d != "" {
			return d, nil
		}
	}
	for _, d := range usual() {
		if _, err := os.Stat(d); err == nil {
			return d, nil
		}
	}
	return usual()[0], nil
}

// usual are where the kernel has the TPM of a machine: several programs share the first.
func usual() []string { return []string{"/dev/tpmrm0", "/dev/tpm0"} }

func (k *kind) open(ctx context.Context, place tokens.Place) (_ tokens.Token, err error) {
	place = random(place)
	conf, err := readSettings(place.Config)
	if err != nil {
		return nil, err
	}
	r, err := readRecord(place.Dir)
	missing := errors.Is(err, os.ErrNotExist)
	if missing && stocktpm.Found(place.Dir) {
		return k.openOld(ctx, place, conf)
	}
	if missing {
		err = mayMake(place)
		r = &record{}
	}
	if err != nil {
		return nil, err
	}
	device, err := k.deviceOf(r, conf)
	if err != nil {
		return nil, err
	}
	chip, release, err := k.take(device)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	if missing {
		r, err = makeRecord(ctx, chip, conf, place)
		if errors.Is(err, tpm20.ErrVersion) {
			release()
			release = func() {}
			return k.openOld(ctx, place, conf)
		}
		if err != nil {
			return nil, err
		}
	}
	facts := format.Kind{Name: Kind, Label: "TPM", Manufacturer: "p11fs", Model: "TPM 2.0", MasterKeyLen: 32}
	keep := &keeper{Format: format.V312(facts, place.Rand, 1), chip: chip, dir: place.Dir, group: place.Group, cost: conf.cost, warm: newWarm(), record: *r}
	var s *store.Store
	open := func() error {
		s, err = store.Open(ctx, store.Config{
			Dir: place.Dir, Format: keep, Lock: place.Lock, Create: place.Create, Group: place.Group, Room: place.Room, Log: place.Log, Now: place.Now,
			Ended: keep.warm.ended,
		})
		return err
	}
	if _, serr := os.Stat(filepath.Join(place.Dir, "NVTOK.DAT")); serr != nil {
		err = keep.changing(ctx, open)
	} else {
		err = open()
	}
	if err != nil {
		return nil, err
	}
	h := &holder{chip: chip, k: keep, can: r.abilities()}
	return &token{
		Store: s, Crypto: swtok.NewHeldCrypto(k.provider, place.Rand, h), name: place.Name, k: keep, holder: h, release: release,
		test: swtok.NewCrypto(k.provider, place.Rand).SelfTest,
	}, nil
}

// mayMake says whether a directory without chipFile may become a token.
func mayMake(place tokens.Place) error {
	_, err := os.Lstat(filepath.Join(place.Dir, "NVTOK.DAT"))
	switch {
	case err == nil:
		return p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s has no file %s, and an NVTOK.DAT that is not that of a token of a TPM 1.2", place.Dir, chipFile)
	case !place.Create:
		return p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token: %w", err)
	}
	mode := os.FileMode(0o700)
	if place.Group != locks.NoGroup {
		mode = 0o770
	}
	return failed(locks.MakeDirectory(place.Dir, mode, place.Group))
}

// makeRecord asks the TPM what it is, for a new token.
func makeRecord(ctx context.Context, chip *tpm20.Chip, s settings, place tokens.Place) (*record, error) {
	facts, err := chip.Facts(ctx)
	if err != nil {
		return nil, err
	}
	r := &record{protection: s.protection, bits: facts.RSABits, vendor: fmt.Sprintf("%s %s %s", facts.Manufacturer, facts.Vendor, facts.Firmware)}
	for _, c := range facts.Curves {
		r.curves = append(r.curves, c.Elliptic.Params().Name)
	}
	if s.aes {
		if len(facts.AESBits) == 0 || !slices.Contains(facts.AESModes, checkMode) {
			return nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the TPM does not encrypt for programs: make the token without aes = tpm")
		}
		r.aes, r.modes = facts.AESBits, facts.AESModes
	}
	if r.parent, err = chip.FindParent(ctx); err != nil {
		return nil, err
	}
	guard, err := chip.Guard(ctx)
	switch can := facts.PINFail && !guard.OwnerAuth; {
	case err != nil:
		return nil, err
	case r.protection == PINFail && !can:
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the TPM has no indexes that count wrong PINs, or its owner has a password, so that none can be made"), "take the protection da")
	case r.protection == "" && can:
		r.protection = PINFail
	case r.protection == "":
		r.protection = DA
	}
	if r.raw, err = doesRaw(ctx, chip, r); err != nil {
		return nil, err
	}
	if device := string(chip.Device()); !slices.Contains(usual(), device) {
		r.device = device
	}
	return r, r.write(place.Dir, place.Group)
}

// doesRaw tries whether the TPM does RSA without padding, with a key that nobody has a
// use for.
func doesRaw(ctx context.Context, chip *tpm20.Chip, r *record) (bool, error) {
	if len(r.bits) == 0 {
		return false, nil
	}
	key, err := rsa.GenerateKey(rand.Reader, r.bits[0])
	if err != nil {
		return false, failed(err)
	}
	none, err := secret.New(nil)
	if err != nil {
		return false, err
	}
	defer none.Close()
	blob, err := chip.ImportRSA(ctx, r.parent, key.N, key.Primes[0], none)
	var out []byte
	in := big.NewInt(2)
	if err == nil {
		out, err = (&tpm20.Key{Chip: chip, Parent: r.parent, Blob: blob, Auth: none}).Raw(ctx, in.FillBytes(make([]byte, key.Size())))
	}
	if err != nil {
		if offline := chip.Offline(); offline != nil || ctx.Err() != nil {
			return false, err
		}
		return false, nil
	}
	return new(big.Int).Exp(in, key.D, key.N).Cmp(new(big.Int).SetBytes(out)) == 0, nil
}
