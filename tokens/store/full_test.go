package store

import (
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
)

// A full disk takes no new file, and gives room when one is removed, if gives.
type full struct {
	linux
	on, gives bool
}

func (k *full) Create(dir int, name string, mode uint32, group int) (int, error) {
	if k.on {
		return -1, unix.ENOSPC
	}
	return k.linux.Create(dir, name, mode, group)
}

func (k *full) Unlink(dir int, name string) error {
	err := k.linux.Unlink(dir, name)
	if err == nil && k.gives {
		k.on = false
	}
	return err
}

// TestDestroyOnAFullDisk: objects can be destroyed where nothing can be written.
func TestDestroyOnAFullDisk(t *testing.T) {
	for name, tt := range map[string]struct{ shared, gives bool }{
		"alone":                       {},
		"shared, the file makes room": {shared: true, gives: true},
		"shared, it does not":         {shared: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := freshConfig(t)
			if tt.shared {
				cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
			}
			k := &full{gives: tt.gives}
			cfg.kernel = k
			s := openStore(t, cfg)
			var handles []p11.ObjectHandle
			for _, label := range []string{"a", "b"} {
				attrs := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.ObjectClass(p11.CKO_DATA))}, {Type: p11.CKA_LABEL, Value: []byte(label)}}
				o, err := s.Create(t.Context(), attrs)
				if err != nil {
					t.Fatal(err)
				}
				handles = append(handles, o.Handle)
			}
			k.on = true
			if err := s.Destroy(t.Context(), handles[0], func(p11.Attributes) error { return nil }); err != nil {
				t.Fatal(err)
			}
			checkOnly := func(s *Store, label string) {
				t.Helper()
				found, err := s.Find(t.Context(), nil, true)
				if err != nil || len(found) != 1 || labelOf(t, found[0]) != label {
					t.Errorf("objects %v (%v), want only %s", found, err, label)
				}
			}
			refresh(t, s)
			checkOnly(s, "b")
			k.on = false
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, cfg)
			checkOnly(s, "b")
		})
	}
}

func labelOf(t *testing.T, o *tokens.Object) string {
	t.Helper()
	attrs, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return attrs.Label()
}

// TestPINOnAFullDisk: where nothing can be written the right PIN opens the token after
// wrong ones, and not more wrong ones are tried than elsewhere: they are counted on the disk.
func TestPINOnAFullDisk(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(map[bool]string{true: "full after a wrong PIN", false: "full before"}[before], func(t *testing.T) {
			k := &full{}
			cfg := freshConfig(t)
			cfg.kernel = k
			s := openStore(t, cfg)
			k.on = !before
			wantRV(t, "a wrong PIN", tryLogin(t, s, p11.CKU_SO, "wrong"), p11.CKR_PIN_INCORRECT)
			k.on = true
			if err := tryLogin(t, s, p11.CKU_SO, tokens.DefaultSOPIN); err != nil {
				t.Fatalf("the right PIN: %v", err)
			}
			for range 3 {
				if err := tryLogin(t, s, p11.CKU_SO, "wrong"); p11.RVOf(err) != p11.CKR_PIN_INCORRECT && p11.RVOf(err) != p11.CKR_PIN_LOCKED {
					t.Errorf("a wrong PIN: %v", err)
				}
			}
			wantRV(t, "the right PIN after three wrong ones", tryLogin(t, s, p11.CKU_SO, tokens.DefaultSOPIN), p11.CKR_PIN_LOCKED)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			wantRV(t, "the same after a restart", tryLogin(t, openStore(t, cfg), p11.CKU_SO, tokens.DefaultSOPIN), p11.CKR_PIN_LOCKED)
		})
	}
}
