package store

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"p11fs/p11"
	"p11fs/tokens/store/format"
	"p11fs/tokens/store/storetest"
)

func TestGoldenToken(t *testing.T) {
	m := storetest.ReadManifest(t)
	s := openStore(t, config(t, storetest.Untar(t, "swtok")))
	if i := info(t, s); i.Label != m.SWTok.Label || uint64(i.Flags) != m.SWTok.Flags || rawData(readFile(t, s.cfg.Dir, dataFile)).next().String() != m.SWTok.Next {
		t.Errorf("info %+v", i)
	}
	pub, priv := s.Counts()
	if pub != 12 || priv != 0 {
		t.Errorf("before login: %d public, %d private", pub, priv)
	}
	so := login(t, s, p11.CKU_SO, m.SWTok.SOPIN)
	s.logins.KeyLocked(p11.CKU_SO).Use(func(b []byte) {
		if !bytes.Equal(b, m.SWTok.MasterKey) {
			t.Error("MK_SO holds another key")
		}
	})
	if err := so.Close(); err != nil {
		t.Error(err)
	}
	user := login(t, s, p11.CKU_USER, m.SWTok.UserPIN)
	s.logins.KeyLocked(p11.CKU_USER).Use(func(b []byte) {
		if !bytes.Equal(b, m.SWTok.MasterKey) {
			t.Error("MK_USER holds another key")
		}
	})
	if pub, priv := s.Counts(); pub != 12 || priv != 12 {
		t.Errorf("after login: %d public, %d private", pub, priv)
	}
	if d := damaged(s); len(d) != 0 {
		t.Errorf("damaged: %v", d)
	}
	var names []string
	os, err := s.Find(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range os {
		names = append(names, o.Stored)
	}
	if d := cmp.Diff(m.SWTok.Index, names); d != "" {
		t.Errorf("objects: %s", d)
	}
	for _, g := range m.SWTok.Objects {
		t.Run(g.Name+" "+g.Label, func(t *testing.T) {
			o, err := s.ByName(ShownName(s.nameKey, g.Name))
			if err != nil {
				t.Fatal(err)
			}
			a := attributesOf(t, o)
			if d := cmp.Diff(g.Attrs(), a, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
			if o.Private != g.Private || a.Label() != g.Label {
				t.Errorf("private %v, label %q", o.Private, a.Label())
			}
			if again, err := s.ByHandle(o.Handle); err != nil || again != o {
				t.Error("not found by its handle")
			}
			// What is written of it is what stock wrote.
			n := parseName(t, g.Name)
			b, err := s.seal(n, a, nil)
			if err != nil {
				t.Fatal(err)
			}
			if stock := readFile(t, s.cfg.Dir, objectsDir, g.Name); !bytes.Equal(b, stock) || len(b) != g.Size {
				t.Errorf("written as\n%x\nstock wrote\n%x", b, stock)
			}
		})
	}
	if err := user.Close(); err != nil {
		t.Error(err)
	}
	if pub, priv := s.Counts(); pub != 12 || priv != 0 {
		t.Errorf("after logout: %d public, %d private", pub, priv)
	}
	for _, o := range os {
		if _, err := o.Acquire(); (err != nil) != o.Private {
			t.Errorf("%s, private %v: %v", o.Stored, o.Private, err)
		}
	}
}

// TestGoldenNothingWritten opens, logs in and searches without a byte changing.
func TestGoldenNothingWritten(t *testing.T) {
	m := storetest.ReadManifest(t)
	dir := storetest.Untar(t, "swtok")
	before := tree(t, dir)
	s := openStore(t, config(t, dir))
	_ = login(t, s, p11.CKU_USER, m.SWTok.UserPIN).Close()
	_ = login(t, s, p11.CKU_SO, m.SWTok.SOPIN).Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after := tree(t, dir); after != before {
		t.Error("the directory changed")
	}
}

// TestGoldenPristine compares a token that we make with one that stock made: but
// for the random master key they are the same.
func TestGoldenPristine(t *testing.T) {
	dir := storetest.Untar(t, "swtok-pristine")
	cfg := config(t, filepath.Join(t.TempDir(), "swtok"))
	kind, _ := format.KindOf("swtok")
	// In the byte order of that directory, whatever this machine's is.
	f, err := format.V38(kind, bytes.NewReader(storetest.ReadManifest(t).Pristine.MasterKey)).Recognize(readFile(t, dir, dataFile))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Format = f
	openStore(t, cfg)
	if d := cmp.Diff(tree(t, dir), tree(t, cfg.Dir)); d != "" {
		t.Error(d)
	}
}

func TestGoldenCCA(t *testing.T) {
	m := storetest.ReadManifest(t)
	cfg := config(t, storetest.Untar(t, "ccatok"))
	cfg.Format = v38(t, "ccatok")
	s := openStore(t, cfg)
	login(t, s, p11.CKU_USER, m.CCATok.UserPIN)
	s.logins.KeyLocked(p11.CKU_USER).Use(func(b []byte) {
		if !bytes.Equal(b, m.CCATok.Master) {
			t.Error("another master key")
		}
	})
	for n, g := range m.CCATok.Objects {
		o, err := s.ByName(ShownName(s.nameKey, n))
		if err != nil {
			t.Fatal(err)
		}
		a := attributesOf(t, o)
		if v, _ := a.Get(p11.CKA_VALUE); a.Label() != g.Label || o.Private != g.Private || !bytes.Equal(v, g.Value) {
			t.Errorf("%s: %q = %q, private %v", n, a.Label(), v, o.Private)
		}
	}
}

// TestGoldenLoginFlags replays the wrong logins that stock was tried with.
func TestGoldenLoginFlags(t *testing.T) {
	m := storetest.ReadManifest(t)
	cfg := config(t, storetest.Untar(t, "swtok"))
	s := openStore(t, cfg)
	for i, step := range m.LoginFlags {
		text, flags := step[0].(string), uint32(step[1].(float64))
		wrong := "00000000"
		want := p11.CKR_PIN_INCORRECT
		switch {
		case i == 0:
			continue
		case strings.Contains(text, "longer"):
			wrong = "123456789"
		case strings.HasSuffix(text, "CKR_PIN_LOCKED"):
			wrong, want = m.SWTok.UserPIN, p11.CKR_PIN_LOCKED
		}
		_, err := s.Login(t.Context(), p11.CKU_USER, pin(t, wrong))
		wantRV(t, text, err, want)
		d, err := s.format.ParseFile(readFile(t, cfg.Dir, dataFile))
		if err != nil || d.Flags() != p11.Flags(flags) {
			t.Errorf("%s: flags %#x, want %#x (%v)", text, uint64(d.Flags()), flags, err)
		}
	}
	// The SO sets a new PIN, and all is well again.
	so := login(t, s, p11.CKU_SO, m.SWTok.SOPIN)
	if err := s.InitPIN(t.Context(), so, pin(t, "12345678")); err != nil {
		t.Fatal(err)
	}
	login(t, s, p11.CKU_USER, "12345678")
	if _, priv := s.Counts(); priv != 12 {
		t.Errorf("%d private objects", priv)
	}
}
