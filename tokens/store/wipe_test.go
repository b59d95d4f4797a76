package store

import (
	"bytes"
	"testing"

	"p11fs/p11"
)

// TestFailedCreateWipes has a Create fail at every step, and for other reasons: the
// attributes are the token's then too, and no clear value stays in memory.
func TestFailedCreateWipes(t *testing.T) {
	value := func(private bool) (p11.Attributes, []byte) {
		v := []byte("a clear key")
		a := dataObject("x", "", private)
		a.Set(p11.CKA_VALUE, v)
		return a, v
	}
	fails := func(what string, s *Store, a p11.Attributes, v []byte) bool {
		t.Helper()
		_, err := s.Create(t.Context(), a)
		if err != nil && !bytes.Equal(v, make([]byte, len(v))) {
			t.Errorf("%s: the value is still there: %q", what, v)
		}
		return err != nil
	}
	k := &failOnce{}
	cfg := freshConfig(t)
	cfg.kernel = k
	s := openStore(t, cfg)
	a, v := value(true)
	if !fails("no login", s, a, v) {
		t.Error("a private object without a login")
	}
	a, v = value(false)
	a.Set(p11.CKA_CLASS, []byte{1})
	if !fails("bad class", s, a, v) {
		t.Error("a class of one byte")
	}
	failed := 0
	for ; ; failed++ {
		k.at = k.n + failed + 1
		a, v = value(false)
		if !fails("full disk", s, a, v) && k.n < k.at {
			break
		}
	}
	if failed < 8 {
		t.Errorf("%d steps failed", failed)
	}
	_ = s.Close()
	a, v = value(false)
	if !fails("closed", s, a, v) {
		t.Error("a closed store takes objects")
	}
}
