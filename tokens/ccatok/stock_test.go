package ccatok

import (
	"encoding/hex"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/store/storetest"
	"p11fs/tokens/tokentest"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// TestStock opens directories that stock's CCA token of openCryptoki 3.8.1 made: on amd64 with
// data objects, and on s390x with keys of another card than that of the test, which are listed
// and of no use here.
func TestStock(t *testing.T) {
	t.Parallel()
	for _, golden := range []struct {
		name string
		keys int
	}{{"ccatok", 0}, {"ccatok-be", 8}} {
		t.Run(golden.name, func(t *testing.T) {
			t.Parallel()
			p := place(t, t.TempDir())
			p.Dir, p.Create = storetest.Untar(t, golden.name), false
			tok := open(t, p, newCards(t)).(*token)
			defer func() {
				if err := tok.Close(); err != nil {
					t.Error(err)
				}
			}()
			l, err := tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, storetest.UserPIN))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}()
			if damaged := tok.Damaged(); len(damaged) > 0 {
				t.Errorf("damaged: %v", damaged)
			}
			list, err := tok.Find(t.Context(), nil, true)
			if err != nil || len(list) < 2 {
				t.Fatalf("%d objects, %v", len(list), err)
			}
			keys := 0
			for _, o := range list {
				a, err := o.Acquire()
				if err != nil {
					t.Fatal(err)
				}
				if _, isKey := a.KeyType(); isKey {
					keys++
				}
				if class, _ := a.Class(); class == p11.CKO_SECRET_KEY && a.Has(p11.CKA_VALUE) {
					t.Errorf("%s has a value", a.Label())
				}
				blob, ok := a.Get(p11.CKA_IBM_OPAQUE)
				if moved, err := tok.moved(t.Context(), toCurrent, blob); ok && err == nil && moved != nil {
					t.Errorf("another card's key %s is one of this card", a.Label())
				}
				o.Release()
			}
			if keys < golden.keys {
				t.Errorf("%d keys", keys)
			}
		})
	}
}
