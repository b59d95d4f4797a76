package store

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"p11fs/p11"
)

// A hexText is bytes that the manifest spells in hexadecimal.
type hexText []byte

func (h *hexText) UnmarshalJSON(b []byte) (err error) {
	var s string
	if err = json.Unmarshal(b, &s); err == nil {
		*h, err = hex.DecodeString(s)
	}
	return err
}

// manifest says what the stock programs put into the archives of testdata.
type manifest struct {
	SWTok struct {
		SOPIN     string   `json:"so_pin"`
		UserPIN   string   `json:"user_pin"`
		Label     string   `json:"token_label"`
		MasterKey hexText  `json:"master_key"`
		Flags     uint64   `json:"token_info_flags"`
		Next      string   `json:"next_token_object_name"`
		Index     []string `json:"obj_idx"`
		Objects   []goldenObject
	}
	Pristine struct {
		SOPIN     string  `json:"so_pin"`
		MasterKey hexText `json:"master_key"`
		Flags     uint64  `json:"token_info_flags"`
	} `json:"swtok_pristine"`
	CCATok struct {
		UserPIN string  `json:"user_pin"`
		Master  hexText `json:"master_key_64"`
		Objects map[string]struct {
			Private bool
			Label   string
			Value   hexText
		}
	}
	TPM struct {
		Key     hexText `json:"object_key"`
		IV      hexText `json:"object_iv"`
		Objects map[string]struct {
			Label string
			Value hexText
		}
	}
	LoginFlags [][2]any `json:"login_flag_sequence"`
}

type goldenObject struct {
	Name       string
	Private    bool
	Size       int `json:"file_size"`
	Label      string
	ID         hexText
	Class      uint64
	Attributes []struct {
		Type   uint64
		Stored int `json:"stored_len"`
		Value  hexText
	} `json:"attributes_in_file_order"`
}

func (g goldenObject) attributes() (a p11.Attributes) {
	for _, x := range g.Attributes {
		a = append(a, p11.Attribute{Type: p11.AttributeType(x.Type), Value: x.Value})
	}
	return a
}

func readManifest(t testing.TB) (m manifest) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, "testdata", "manifest.json"), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.SWTok.Objects) != 24 || len(m.LoginFlags) != 5 {
		t.Fatalf("the manifest has %d objects", len(m.SWTok.Objects))
	}
	return m
}

func TestGoldenToken(t *testing.T) {
	m := readManifest(t)
	s := openStore(t, config(t, untar(t, "swtok")))
	if i := s.Info(); i.Label != m.SWTok.Label || uint64(i.Flags) != m.SWTok.Flags || s.data.next().String() != m.SWTok.Next {
		t.Errorf("info %+v, next %s", i, s.data.next())
	}
	pub, priv := s.Counts()
	if pub != 12 || priv != 0 {
		t.Errorf("before login: %d public, %d private", pub, priv)
	}
	so := login(t, s, p11.CKU_SO, m.SWTok.SOPIN)
	s.roles[roleSO].key.Use(func(b []byte) {
		if !bytes.Equal(b, m.SWTok.MasterKey) {
			t.Error("MK_SO holds another key")
		}
	})
	if err := so.Close(); err != nil {
		t.Error(err)
	}
	user := login(t, s, p11.CKU_USER, m.SWTok.UserPIN)
	s.roles[roleUser].key.Use(func(b []byte) {
		if !bytes.Equal(b, m.SWTok.MasterKey) {
			t.Error("MK_USER holds another key")
		}
	})
	if pub, priv := s.Counts(); pub != 12 || priv != 12 {
		t.Errorf("after login: %d public, %d private", pub, priv)
	}
	if d := s.Damaged(); len(d) != 0 {
		t.Errorf("damaged: %v", d)
	}
	var names []string
	os, err := s.Find(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range os {
		names = append(names, o.Name)
	}
	if d := cmp.Diff(m.SWTok.Index, names); d != "" {
		t.Errorf("objects: %s", d)
	}
	for _, g := range m.SWTok.Objects {
		t.Run(g.Name+" "+g.Label, func(t *testing.T) {
			o, err := s.ByName(g.Name)
			if err != nil {
				t.Fatal(err)
			}
			a := attributesOf(t, o)
			if d := cmp.Diff(g.attributes(), a, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
			if o.Private != g.Private || a.Label() != g.Label {
				t.Errorf("private %v, label %q", o.Private, a.Label())
			}
			if again, err := s.ByHandle(o.Handle); err != nil || again != o {
				t.Error("not found by its handle")
			}
			// What is written of it is what stock wrote.
			n, _ := parseName(g.Name)
			b, err := s.encode(n, o.Private, a)
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
			t.Errorf("%s, private %v: %v", o.Name, o.Private, err)
		}
	}
}

// TestGoldenNothingWritten opens, logs in and searches without a byte changing.
func TestGoldenNothingWritten(t *testing.T) {
	m := readManifest(t)
	dir := untar(t, "swtok")
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

// TestGoldenKeyFiles wraps the keys as stock did, byte for byte.
func TestGoldenKeyFiles(t *testing.T) {
	m := readManifest(t)
	for _, tt := range []struct{ kind, archive, file, pin string }{
		{"swtok", "swtok", soKeyFile, m.SWTok.SOPIN},
		{"swtok", "swtok", userKeyFile, m.SWTok.UserPIN},
		{"swtok", "swtok-pristine", soKeyFile, m.Pristine.SOPIN},
		{"ccatok", "ccatok", userKeyFile, m.CCATok.UserPIN},
	} {
		t.Run(tt.archive+" "+tt.file, func(t *testing.T) {
			k, _ := KindOf(tt.kind)
			stock := readFile(t, untar(t, tt.archive), tt.file)
			key, err := k.unwrap(stock, pin(t, tt.pin))
			if err != nil || key == nil {
				t.Fatalf("not opened: %v", err)
			}
			defer key.Close()
			b, err := k.wrap(key, pin(t, tt.pin))
			if err != nil || !bytes.Equal(b, stock) {
				t.Errorf("wrapped as %x, stock %x (%v)", b, stock, err)
			}
			if wrong, err := k.unwrap(stock, pin(t, "wrong")); wrong != nil || err != nil {
				t.Error("a wrong PIN opens it")
			}
		})
	}
}

// TestGoldenPristine compares a token that we make with one that stock made: but
// for the random master key they are the same.
func TestGoldenPristine(t *testing.T) {
	dir := untar(t, "swtok-pristine")
	cfg := config(t, filepath.Join(t.TempDir(), "swtok"))
	cfg.Rand = bytes.NewReader(readManifest(t).Pristine.MasterKey)
	openStore(t, cfg)
	if d := cmp.Diff(tree(t, dir), tree(t, cfg.Dir)); d != "" {
		t.Error(d)
	}
}

func TestGoldenCCA(t *testing.T) {
	m := readManifest(t)
	cfg := config(t, untar(t, "ccatok"))
	cfg.Kind, _ = KindOf("ccatok")
	s := openStore(t, cfg)
	login(t, s, p11.CKU_USER, m.CCATok.UserPIN)
	s.roles[roleUser].key.Use(func(b []byte) {
		if !bytes.Equal(b, m.CCATok.Master) {
			t.Error("another master key")
		}
	})
	for n, g := range m.CCATok.Objects {
		o, err := s.ByName(n)
		if err != nil {
			t.Fatal(err)
		}
		a := attributesOf(t, o)
		if v, _ := a.Get(p11.CKA_VALUE); a.Label() != g.Label || o.Private != g.Private || !bytes.Equal(v, g.Value) {
			t.Errorf("%s: %q = %q, private %v", n, a.Label(), v, o.Private)
		}
	}
}

// TestGoldenTPM reads a private object of the tpm token, which has AES in place
// of 3DES.
func TestGoldenTPM(t *testing.T) {
	m := readManifest(t)
	block, err := aes.NewCipher(m.TPM.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir := untar(t, "tpm")
	for text, g := range m.TPM.Objects {
		n, _ := parseName(text)
		stock := readFile(t, dir, objectsDir, text)
		c := objectCipher{block, string(m.TPM.IV)}
		a, err := decodeObject(n, stock, c)
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := a.Get(p11.CKA_VALUE); a.Label() != g.Label || !bytes.Equal(v, g.Value) {
			t.Errorf("%q = %q", a.Label(), v)
		}
		if b, err := encodeObject(n, true, a, c); err != nil || !bytes.Equal(b, stock) {
			t.Errorf("written as %x, stock %x (%v)", b, stock, err)
		}
	}
}

// TestGoldenLoginFlags replays the wrong logins that stock was tried with.
func TestGoldenLoginFlags(t *testing.T) {
	m := readManifest(t)
	cfg := config(t, untar(t, "swtok"))
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
		d, err := parseTokenData(readFile(t, cfg.Dir, dataFile))
		if err != nil || d.uint32(offFlags) != flags {
			t.Errorf("%s: flags %#x, want %#x (%v)", text, d.uint32(offFlags), flags, err)
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
