package tpm20

import (
	"bytes"
	"testing"
	"time"

	"p11fs/tokens/tpm/desk"
)

// A liar stands between us and the TPM, and gives a key of its own for the storage key.
type liar struct {
	desk.Link
	theirs, own []byte // points
	lies        int
}

// Exchange is desk.Link's.
func (l *liar) Exchange(command []byte, patience time.Duration) ([]byte, error) {
	answer, err := l.Link.Exchange(command, patience)
	if i := bytes.Index(answer, l.theirs); i >= 0 {
		copy(answer[i:], l.own)
		l.lies++
	}
	return answer, err
}

// TestAnotherStorageKey: no session is salted with a key that has the storage key's name
// and is another one.
func TestAnotherStorageKey(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	pin := quick(t, "1234")
	s := sealed(t, c, p, pin, true)
	for _, persistent := range []bool{false, true} {
		if persistent {
			c.Close()
			tpm.Persist(t)
			c = chip(t, tpm)
			p = must[Parent](t)(c.FindParent(t.Context()))
		}
		opens(t, c, p, pin, s)
		l := &liar{}
		must[struct{}](t)(do(t.Context(), c, func(w *worker) (none struct{}, err error) {
			at, err := w.parent(p)
			if err != nil {
				return none, err
			}
			unique, err := at.public.Unique.ECC()
			if err != nil {
				return none, err
			}
			l.theirs, l.own = unique.Y.Buffer, bytes.Repeat([]byte{1}, len(unique.Y.Buffer))
			w.flush()
			l.Link = w.Use(l)
			return none, nil
		}))
		wantIs(t, "another storage key", c.Knows(t.Context(), p), ErrOther)
		refuses(t, c, p, pin, s, ErrOther)
		if l.lies == 0 {
			t.Error("nobody has lied")
		}
	}
}
