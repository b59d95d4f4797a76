package tpm12

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/format"
)

// A golden is a store that stock's token made over a TPM 1.2 (testdata/manifest.json).
type golden struct {
	SOPIN      string `json:"so_pin"`
	UserPIN    string `json:"user_pin"`
	SOAuth     string `json:"so_auth"`
	UserAuth   string `json:"user_auth"`
	MasterKey  string `json:"mk_private_plain"`
	Usage      string `json:"gen_priv_usage_auth"`
	Signatures map[string]string
	files      map[string][]byte         // of the token directory
	objects    map[string]p11.Attributes // by the names of their files
}

func readGolden(t testing.TB) golden {
	t.Helper()
	var g golden
	text, err := os.ReadFile("testdata/manifest.json")
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("testdata/tpm12.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	g.files, g.objects = map[string][]byte{}, map[string]p11.Attributes{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		g.files[path.Clean(h.Name)] = b
	}
	like, err := format.V38(format.TPM(), rand.Reader).Recognize(g.files["tpm/NVTOK.DAT"])
	if err != nil {
		t.Fatal(err)
	}
	objects, err := like.Objects(pin(t, "any"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range g.files {
		if path.Dir(name) != "tpm/TOK_OBJ" {
			continue
		}
		n, ok := format.ParseName(path.Base(name))
		if !ok {
			continue
		}
		_, attrs, err := objects.Open(n, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		g.objects[path.Base(name)] = attrs
	}
	if len(g.objects) != 21 {
		t.Fatalf("%d objects", len(g.objects))
	}
	return g
}

func pin(t testing.TB, text string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// blob is the key of an object.
func (g golden) blob(t testing.TB, object string) Key {
	t.Helper()
	b, _ := g.objects[object].Get(p11.CKA_IBM_OPAQUE)
	k, err := ParseKey(b)
	if err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	if !bytes.Equal(k.Print(), b) {
		t.Errorf("%s prints otherwise", object)
	}
	return k
}

// open unwraps the key of an object.
func (g golden) open(t testing.TB, object string, parent *rsa.PrivateKey) (*rsa.PrivateKey, Secret) {
	t.Helper()
	k := g.blob(t, object)
	s, err := k.Unwrap(parent)
	if err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	key, err := k.PrivateKey(s)
	if err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	return key, s
}

func (g golden) root(t testing.TB, file, text string) *rsa.PrivateKey {
	t.Helper()
	root, err := ParseRoot(g.files["tpm/root/"+file], pin(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestGolden goes down both hierarchies of stock's store, from the files of the root
// keys, and signs what stock signed.
func TestGolden(t *testing.T) {
	g := readGolden(t)
	public, private := g.root(t, PublicRootFile, g.SOPIN), g.root(t, PrivateRootFile, g.UserPIN)
	for object, root := range map[string]*rsa.PrivateKey{"10000000": public, "50000000": private} {
		k := g.blob(t, object)
		n, err := k.RSA()
		if err != nil || !n.Equal(&root.PublicKey) || k.Usage != Storage || k.Auth != 0 || k.Flags != migratable {
			t.Errorf("%s is %+v, %v", object, k, err)
		}
	}
	_, so := g.open(t, "30000000", public)
	leaf, user := g.open(t, "70000000", private)
	for _, c := range []struct {
		got  Auth
		want string
		pin  string
	}{{so.Usage, g.SOAuth, g.SOPIN}, {user.Usage, g.UserAuth, g.UserPIN}} {
		if hex.EncodeToString(c.got[:]) != c.want || PINAuth(pin(t, c.pin)) != c.got {
			t.Errorf("the secret of a leaf key is not that of %s", c.pin)
		}
	}
	mk, err := UnBind(leaf, g.files["tpm/root/"+MasterKeyFile])
	if err != nil || hex.EncodeToString(mk) != g.MasterKey {
		t.Errorf("%s: %v", MasterKeyFile, err)
	}
	bound, _ := g.objects["90000000"].Get(p11.CKA_ENC_AUTHDATA)
	usage, err := UnBind(leaf, bound)
	if err != nil || hex.EncodeToString(usage) != g.Usage {
		t.Errorf("the secret of gen-priv: %v", err)
	}

	digest := sha1.Sum([]byte("hello"))
	for name, c := range map[string]struct {
		object string
		parent *rsa.PrivateKey
	}{
		"gen-priv": {"90000000", private}, "gen-pub": {"B0000000", private},
		"ext-priv": {"C0000000", private}, "gen-nologin": {"K0000000", public},
	} {
		key, s := g.open(t, c.object, c.parent)
		sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA1, digest[:])
		if err != nil || hex.EncodeToString(sig) != g.Signatures[name] {
			t.Errorf("%s signs otherwise than the TPM did: %v", name, err)
		}
		if name == "gen-priv" && !bytes.Equal(s.Usage[:], usage) {
			t.Error("the secret of gen-priv is not what is bound beside it")
		}
		k := g.blob(t, c.object)
		if _, err := k.Unwrap(map[bool]*rsa.PrivateKey{true: public, false: private}[c.parent == private]); err == nil {
			t.Errorf("%s opens under the other root", name)
		}
	}
	// The blob of a public key has no private part.
	if k := g.blob(t, "D0000000"); len(k.Private) != 0 || k.Encryption != EncryptOAEP || k.Signature != SignSHA1 {
		t.Errorf("the public key is %+v", k)
	}
}

// TestWrap: a key that is wrapped here has the form of stock's, and opens.
func TestWrap(t *testing.T) {
	g := readGolden(t)
	private := g.root(t, PrivateRootFile, g.UserPIN)
	key, s := g.open(t, "90000000", private)
	k := NewKey(Legacy, 2048, true)
	k.Modulus = key.N.Bytes()
	k, err := k.Wrap(&private.PublicKey, s)
	if err != nil {
		t.Fatal(err)
	}
	stock := g.blob(t, "90000000")
	if !bytes.Equal(k.public(), stock.public()) {
		t.Errorf("%x, stock has %x", k.public(), stock.public())
	}
	again, err := ParseKey(k.Print())
	if err != nil {
		t.Fatal(err)
	}
	if back, err := again.Unwrap(private); err != nil || back.Usage != s.Usage || back.Migration != s.Migration || !bytes.Equal(back.Prime, s.Prime) {
		t.Errorf("it opens as something else: %v", err)
	}
	// The private part belongs to the public one.
	again.Usage = Binding
	if _, err := again.Unwrap(private); err == nil {
		t.Error("a key of another usage opens")
	}
	if root, err := RootKey(private, &key.PublicKey); err != nil || !bytes.Equal(root.public(), g.blob(t, "50000000").public()) {
		t.Errorf("the root key for another TPM is %+v, %v", root, err)
	} else if back, err := root.Unwrap(key); err != nil || back.Usage != (Auth{}) {
		t.Errorf("it opens as something else: %v", err)
	}
	leaf, _ := g.open(t, "70000000", private)
	bound, err := Bind(&leaf.PublicKey, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := UnBind(leaf, bound); err != nil || string(data) != "data" {
		t.Errorf("bound data is %q, %v", data, err)
	}
	if _, err := UnBind(private, bound); err == nil {
		t.Error("another key unbinds it")
	}
	if _, err := UnBind(private, stock.Private); err == nil {
		t.Error("a private part is taken for bound data")
	}
	s.Wipe()
	if !bytes.Equal(s.Prime, make([]byte, 128)) || s.Usage != (Auth{}) {
		t.Error("not wiped")
	}
}

func TestRootFile(t *testing.T) {
	g := readGolden(t)
	root := g.root(t, PrivateRootFile, g.UserPIN)
	file, err := PrintRoot(root, pin(t, "another PIN"))
	if err != nil {
		t.Fatal(err)
	}
	if len(file) != len(g.files["tpm/root/"+PrivateRootFile]) {
		t.Errorf("%d bytes, stock has %d", len(file), len(g.files["tpm/root/"+PrivateRootFile]))
	}
	if back, err := ParseRoot(file, pin(t, "another PIN")); err != nil || !back.Equal(root) {
		t.Errorf("it reads back as something else: %v", err)
	}
	if _, err := ParseRoot(file, pin(t, g.UserPIN)); !errors.Is(err, p11.CKR_PIN_INCORRECT) {
		t.Errorf("a wrong PIN: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "too much": make([]byte, MaxRootFile+1),
		"not encrypted": []byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
		"cut":           file[:len(file)/2],
	} {
		if _, err := ParseRoot(b, pin(t, "x")); err == nil || errors.Is(err, p11.CKR_PIN_INCORRECT) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSRKAuth(t *testing.T) {
	const empty = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	for _, c := range []struct {
		mode, text string // "-" is unset
		want       string // empty is an error
	}{
		{"-", "-", empty},
		{"-", "x", ""},
		{"TSS_SECRET_MODE_PLAIN", "-", ""},
		{"TSS_SECRET_MODE_PLAIN", "", empty},
		{"TSS_SECRET_MODE_P", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
		{"TSS_SECRET_MODE_SHA1", empty, empty},
		{"TSS_SECRET_MODE_SHA1", "0000000000000000000000000000000000000000", "0000000000000000000000000000000000000000"},
		{"TSS_SECRET_MODE_SHA1", "00", ""},
		{"TSS_SECRET_MODE_SHA1", empty + "00", ""},
		{"TSS_SECRET_MODE_SHA1", "zz" + empty[2:], ""},
		{"TSS_SECRET_MODE_POPUP", empty, ""},
		{"", empty, ""},
	} {
		got, err := SRKAuth(func(name string) (string, bool) {
			v := map[string]string{"OCK_SRK_MODE": c.mode, "OCK_SRK_SECRET": c.text}[name]
			return v, v != "-"
		})
		if (err == nil) != (c.want != "") || err == nil && hex.EncodeToString(got[:]) != c.want {
			t.Errorf("%q %q: %x, %v", c.mode, c.text, got[:], err)
		}
	}
}

// TestHostile: what is no key is refused.
func TestHostile(t *testing.T) {
	g := readGolden(t)
	good := g.blob(t, "90000000").Print()
	for i := range good {
		if _, err := ParseKey(good[:i]); err == nil {
			t.Fatalf("%d of %d bytes are a key", i, len(good))
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"bytes behind it":   func(b []byte) []byte { return append(b, 0) },
		"another version":   func(b []byte) []byte { b[0] = 2; return b },
		"a key of TPM 1.2":  func(b []byte) []byte { b[0], b[1] = 0, 0x28; return b },
		"another algorithm": func(b []byte) []byte { b[14] = 2; return b },
		"three primes":      func(b []byte) []byte { b[30] = 3; return b },
		"an endless number": func(b []byte) []byte { b[39] = 0xff; return b },
		"other bits":        func(b []byte) []byte { b[26] = 1; return b },
		"longer parameters": func(b []byte) []byte { b[22] = 13; return b },
	} {
		if _, err := ParseKey(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	k := g.blob(t, "90000000")
	for name, change := range map[string]func(*Key){
		"no modulus":       func(k *Key) { k.Modulus = nil },
		"a short modulus":  func(k *Key) { k.Modulus = make([]byte, 256) },
		"an even exponent": func(k *Key) { k.Exponent = []byte{2} },
		"the exponent 1":   func(k *Key) { k.Exponent = []byte{1} },
		"a long exponent":  func(k *Key) { k.Exponent = []byte{0xff, 0xff, 0xff, 0xff} },
	} {
		k := k
		change(&k)
		if _, err := k.RSA(); err == nil {
			t.Errorf("%s is taken", name)
		}
		if _, err := k.PrivateKey(Secret{Prime: []byte{3}}); err == nil {
			t.Errorf("%s makes a private key", name)
		}
	}
	for name, prime := range map[string][]byte{"none": nil, "zero": {0}, "one": {1}, "no factor": {5}, "the modulus": k.Modulus} {
		if _, err := k.PrivateKey(Secret{Prime: prime}); err == nil {
			t.Errorf("the prime %s is taken", name)
		}
	}
}

// FuzzKey: what parses prints back the same.
func FuzzKey(f *testing.F) {
	g := readGolden(f)
	for _, object := range []string{"10000000", "70000000", "90000000", "B0000000", "D0000000"} {
		f.Add(g.blob(f, object).Print())
	}
	f.Add(NewKey(Storage, 2048, false).Print())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err != nil {
			return
		}
		if !bytes.Equal(k.Print(), b) {
			t.Errorf("%x prints as %x", b, k.Print())
		}
		if n, err := k.RSA(); err == nil && n.N.BitLen() != int(k.Bits) {
			t.Errorf("%d bits are %d", k.Bits, n.N.BitLen())
		}
	})
}

// FuzzRoot: what opens is a key.
func FuzzRoot(f *testing.F) {
	g := readGolden(f)
	f.Add(g.files["tpm/root/"+PrivateRootFile], g.UserPIN)
	f.Add(g.files["tpm/root/"+PublicRootFile], g.UserPIN)
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if text == "" {
			return // no secret is empty
		}
		key, err := ParseRoot(b, pin(t, text))
		if err == nil && (key.Validate() != nil || len(key.Primes) != 2) {
			t.Error("the key is none")
		}
	})
}
