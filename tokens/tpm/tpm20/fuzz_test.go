package tpm20

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
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

// everything has a TPM do one of all there is to do, and goes on after errors.
func everything(w *worker, p Parent, seal Seal, pin *PIN) {
	for _, f := range []func(*worker) error{
		func(w *worker) error { _, err := w.askFacts(); return err },
		func(w *worker) error { _, err := w.indexes(); return err },
		func(w *worker) error { _, err := w.parent(p); return err },
		func(w *worker) error {
			_, err := w.create(w.storage, sealTemplate(nil), []byte("auth"), []byte("data"))
			return err
		},
		func(w *worker) error {
			l, err := w.load(w.storage, seal.Blob)
			if err == nil {
				err = w.authorize(w.storage, l, pin.seal, true)
			}
			if err == nil {
				_, err = w.unseal(l, l.session)
			}
			return err
		},
		func(w *worker) error {
			l, err := w.load(w.storage, seal.Blob)
			if err == nil {
				_, err = w.unsealBehind(w.storage, l, firstIndex, []byte("auth"), []byte("auth"))
			}
			return err
		},
		func(w *worker) error { w.lost.names = map[string]bool{"": true}; return w.reclaim() },
	} {
		_ = w.guarded(f)
	}
	w.flush()
}

// fuzzSeal is a seal that is loaded only.
func fuzzSeal(t testing.TB) (Seal, *PIN) {
	pin := quick(t, "pin")
	return Seal{Blob: Blob{[]byte("public"), []byte("private")}}, pin
}

// TestRecord has a TPM answer, and records that for FuzzResponses.
func TestRecord(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	pin := quick(t, "pin")
	seal := sealed(t, c, p, pin, false)
	heard := must[[]byte](t)(do(t.Context(), c, func(w *worker) ([]byte, error) {
		w.flush()
		r := &recorder{}
		r.Link = w.Use(r)
		everything(w, p, seal, pin)
		w.Use(r.Link)
		return r.heard.Bytes(), nil
	}))
	if len(heard) < 1000 {
		t.Errorf("%s answered with %d bytes", tpm.Device(), len(heard))
	}
	if *update {
		noError(t, os.WriteFile("testdata/responses.bin", heard, 0o644))
	}
}

// FuzzResponses is a TPM that answers nonsense. Nobody waits for ever, and nothing panics
// but what go-tpm does, which becomes an error.
func FuzzResponses(f *testing.F) {
	if len(responses) == 0 {
		f.Fatal("there are no recorded responses")
	}
	f.Add(responses)
	f.Add(responses[:len(responses)/2])
	longer := bytes.Clone(responses)
	binary.BigEndian.PutUint32(longer[2:], uint32(len(responses)))
	f.Add(longer)
	seal, pin := fuzzSeal(f)
	f.Fuzz(func(t *testing.T, answers []byte) {
		w := newWorker(&Chip{}, "/dev/null")
		w.room = 1
		w.Use(&script{answers})
		begun := time.Now()
		// A storage key of the script's, whatever its name is.
		everything(w, Parent{Template: P256, Handle: commonHandle, Name: scriptName(answers)}, seal, pin)
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
