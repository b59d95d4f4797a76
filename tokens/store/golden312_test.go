package store

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"p11fs/p11"
	"p11fs/tokens/store/storetest"
)

// TestGoldenDecoded opens directories that current stock programs made, in both
// formats, and finds what an independent decoder found.
func TestGoldenDecoded(t *testing.T) {
	for name, want := range storetest.ReadDecoded(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, storetest.Untar(t, name))
			if name != "swold" {
				cfg.Format = v312(t)
			}
			before := tree(t, cfg.Dir)
			s := openStore(t, cfg)
			if i := info(t, s); i.Label != want.Label || uint64(i.Flags) != want.Flags {
				t.Errorf("label %q, flags %#x, want %q, %#x", i.Label, uint64(i.Flags), want.Label, want.Flags)
			}
			for role, text := range map[p11.UserType]string{p11.CKU_SO: storetest.SOPIN, p11.CKU_USER: storetest.UserPIN} {
				l := login(t, s, role, text)
				s.logins.KeyLocked(role).Use(func(b []byte) {
					if !bytes.Equal(b, want.Master) {
						t.Errorf("the key of %v is another", role)
					}
				})
				if role == p11.CKU_SO {
					_ = l.Close()
				}
			}
			if d := damaged(s); len(d) != 0 {
				t.Errorf("damaged: %v", d)
			}
			if public, private := s.Counts(); public+private != len(want.Objects) {
				t.Errorf("%d public and %d private objects, want %d in all", public, private, len(want.Objects))
			}
			for _, g := range want.Objects {
				o, err := s.ByName(ShownName(s.nameKey, g.File))
				if err != nil {
					t.Errorf("%s: %v", g.File, err)
					continue
				}
				if d := cmp.Diff(g.Attrs(), attributesOf(t, o), cmpopts.EquateEmpty()); d != "" || o.Private != g.Private {
					t.Errorf("%s, private %v: %s", g.File, o.Private, d)
				}
			}
			if after := tree(t, cfg.Dir); after != before {
				t.Errorf("the directory changed: %s", cmp.Diff(before, after))
			}
		})
	}
}
