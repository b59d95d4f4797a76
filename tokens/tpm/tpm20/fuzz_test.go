package tpm20

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tpm/desk"
)

var update = flag.Bool("update", false, "record testdata/responses.bin")

// What a TPM answered to everything, one response behind the other: TestRecord writes it.
//
//go:embed testdata/responses.bin
var responses []byte

// A script is a link to a TPM that answers with what it was given, whatever it is asked.
type script struct{ left []byte }

func (s *script) Exchange([]byte, time.Duration) ([]byte, error) {
	if len(s.left) < desk.HeaderSize {
		return nil, errors.New("that was all")
	}
	n, err := desk.ResponseSize(s.left)
	if err != nil {
		return nil, err
	}
	answer := make([]byte, n)
	copy(answer, s.left)
	s.left = s.left[min(n, len(s.left)):]
	return answer, nil
}

func (s *script) Close() {}

// A recorder is a link that keeps what comes over it.
type recorder struct {
	desk.Link
	heard bytes.Buffer
}

func (r *recorder) Exchange(command []byte, patience time.Duration) ([]byte, error) {
	answer, err := r.Link.Exchange(command, patience)
	r.heard.Write(answer)
	return answer, err
}

// everything has a TPM do one of all there is to do, and goes on after errors. Nobody else
// uses the chip.
func everything(t testing.TB, c *Chip, p Parent) {
	ctx, p256 := t.Context(), curve(t, "P-256")
	pin, auth := &PIN{}, &secret.Bytes{}
	defer pin.Close()
	for _, to := range []**secret.Bytes{&pin.seal, &pin.index, &auth} {
		*to, _ = NewAuth()
	}
	defer auth.Close()
	own, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	scalar, _ := own.Bytes()
	point, _ := own.PublicKey.Bytes()
	try := func(b Blob, err error) *Key {
		if err != nil {
			b = Blob{[]byte("public"), []byte("private")}
		}
		return &Key{c, p, b, auth}
	}
	_, _ = do(ctx, c, func(w *worker) (*Facts, error) { return w.askFacts() })
	_, _ = c.FindParent(ctx)
	_, _ = c.Guard(ctx)
	_ = c.Random(ctx, make([]byte, 100))
	if index, err := c.FreeIndex(ctx); err == nil {
		_ = c.DefineIndex(ctx, p, index, pin, 3)
		seal, _ := c.Seal(ctx, p, pin, index, auth)
		_, _ = c.Unseal(ctx, p, pin, seal)
		_, _, _ = c.Failures(ctx, index)
		_ = c.RemoveIndex(ctx, index)
	}
	seal, _ := c.Seal(ctx, p, pin, 0, auth)
	_, _ = c.Unseal(ctx, p, pin, seal)
	for _, k := range []*Key{try(c.CreateEC(ctx, p, p256, auth)), try(c.ImportEC(ctx, p, p256, scalar, point, auth)), try(c.CreateRSA(ctx, p, 1024, auth))} {
		_, _, _ = k.SignECDSA(ctx, p256, make([]byte, 32))
		_, _ = k.ECDH(ctx, p256, point)
		_, _ = k.SignPKCS1(ctx, crypto.SHA256, make([]byte, 32))
		_, _ = k.Raw(ctx, make([]byte, 128))
	}
	_, _ = do(ctx, c, func(w *worker) (struct{}, error) {
		w.lose()
		err := w.reclaim()
		w.flush()
		return struct{}{}, err
	})
}

// TestRecord has a TPM answer, and records that for FuzzResponses.
func TestRecord(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	r := &recorder{}
	must[struct{}](t)(do(t.Context(), c, func(w *worker) (struct{}, error) {
		w.flush()
		r.Link = w.Use(r)
		return struct{}{}, nil
	}))
	everything(t, c, p)
	c.Close()
	heard := r.heard.Bytes()
	if n := len(split(heard)); n < 80 {
		t.Errorf("%s answered %d times, with %d bytes", tpm.Device(), n, len(heard))
	}
	if *update {
		noError(t, os.WriteFile("testdata/responses.bin", heard, 0o644))
	}
}

// split takes responses apart.
func split(b []byte) (list [][]byte) {
	for len(b) >= desk.HeaderSize {
		n := min(int(binary.BigEndian.Uint32(b[2:])), len(b))
		list = append(list, b[:n:n])
		b = b[n:]
	}
	return list
}

// spoils are ways of a response to be wrong, while its header says how long it is.
func spoils() map[string]func([]byte) []byte {
	const count = desk.HeaderSize + 5 // in what GetCapability answers
	return map[string]func([]byte) []byte{
		"cut":        func(b []byte) []byte { return b[:desk.HeaderSize+(len(b)-desk.HeaderSize)/2] },
		"lengthened": func(b []byte) []byte { return append(b, make([]byte, 7)...) },
		"a count of too many": func(b []byte) []byte {
			if len(b) >= count+4 {
				binary.BigEndian.PutUint32(b[count:], 1<<31)
			}
			return b
		},
		"sizes of too much": func(b []byte) []byte {
			if len(b) >= desk.HeaderSize+6 {
				binary.BigEndian.PutUint16(b[desk.HeaderSize:], 0xffff)
				binary.BigEndian.PutUint16(b[desk.HeaderSize+4:], 0xffff)
			}
			return b
		},
		"no success": func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[6:], uint32(rcObjectMemory))
			return b
		},
	}
}

// FuzzResponses is a TPM that answers nonsense. Nobody waits for ever, and nothing panics
// but what go-tpm does, which becomes an error.
func FuzzResponses(f *testing.F) {
	whole := split(responses)
	if len(whole) == 0 {
		f.Fatal("there are no recorded responses")
	}
	f.Add(responses)
	f.Add(responses[:len(responses)/2])
	seen := map[int]bool{} // of each length one
	for i, one := range whole {
		if seen[len(one)] {
			continue
		}
		seen[len(one)] = true
		for _, spoil := range spoils() {
			bad := spoil(bytes.Clone(one))
			binary.BigEndian.PutUint32(bad[2:], uint32(len(bad)))
			f.Add(slices.Concat(slices.Concat(whole[:i]...), bad, slices.Concat(whole[i+1:]...)))
		}
	}
	f.Fuzz(func(t *testing.T, answers []byte) {
		c := &Chip{facts: &Facts{Hashes: []tpm2.TPMAlgID{tpm2.TPMAlgSHA256}, P256: true}}
		w := newWorker(c, "/dev/null")
		w.room = 1
		w.Use(&script{answers})
		c.line, c.desk = w.Line, desk.Open("script", w)
		defer c.Close()
		begun := time.Now()
		// A storage key of the script's, whatever its name is.
		everything(t, c, Parent{Template: P256, Handle: commonHandle, Name: scriptName(answers)})
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// scriptName is the name in the first response that has one.
func scriptName(answers []byte) []byte {
	if i := bytes.Index(answers, []byte{0, 34, 0, 11}); i >= 0 && len(answers) >= i+36 {
		return answers[i+2 : i+36]
	}
	return nil
}

// FuzzPublic takes the public half of a blob apart.
func FuzzPublic(f *testing.F) {
	for _, name := range []string{"P-256", "P-384"} {
		c := curve(f, name)
		id, _ := curveID(c)
		public := ecTemplate(true, id)
		f.Add(marshalPublic(public))
	}
	f.Add(marshalPublic(rsaTemplate(true, 2048)))
	f.Fuzz(func(t *testing.T, public []byte) {
		n, c, point, err := PublicOf(Blob{Public: public})
		if err == nil && n == nil && len(point) != 1+2*c.Size() {
			t.Errorf("a point of %d bytes on %s", len(point), c.Name)
		}
	})
}

// TestNonsense is what a fuzzer finds at once.
func TestNonsense(t *testing.T) {
	c := must[*Chip](t)(Open("/dev/null"))
	defer c.Close()
	_, err := c.Facts(t.Context())
	wantRV(t, "a device that is no TPM", err, p11.CKR_DEVICE_REMOVED)
}

func marshalPublic(p tpm2.TPMTPublic) []byte { return tpm2.Marshal(p) }
