// Package wycheproof reads the test vectors of Project Wycheproof
// (https://github.com/C2SP/wycheproof, Apache License 2.0) as calls of PKCS#11, for each
// door to put to a token. Its sample has of each file a few vectors of every kind of flag
// and result, cut down to the fields that are read here; the whole set is a fixture
// (tokentest.Fixture).
package wycheproof

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/tokentest"
)

// A Case is a vector as it is put to a token: a key is made, the call is made, and what
// it gives is compared. A verification gives nothing.
type Case struct {
	ID      string
	Comment string
	Flags   []string
	Result  string // valid, invalid, or acceptable: as one likes

	Key  p11.Attributes // of a session object; none for what is made of a password
	M    p11.Mechanism
	Use  p11.Flags // CKF_VERIFY, CKF_DECRYPT, CKF_SIGN, CKF_DERIVE or CKF_GENERATE
	Data []byte    // the message or the ciphertext
	// Signature is what is verified.
	Signature []byte
	// Want is what the call gives, of a key that is made its value.
	Want []byte
	Size uint64 // of the key that is made, in bytes

	// Random says that a ciphertext that is none may decrypt to what depends on it and
	// the key alone, against Bleichenbacher's attack.
	Random bool
	// Refused says why there is no such key to make a call with: what reads keys of
	// files has found out.
	Refused error
}

// String names the case in what a test says of it.
func (c *Case) String() string {
	return fmt.Sprintf("test %s (%s, %v) is %s", c.ID, c.Comment, c.Flags, c.Result)
}

// Has says whether the case has one of the flags.
func (c *Case) Has(flags ...string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return slices.Contains(c.Flags, f) })
}

// A Group has the cases of one key or length.
type Group []Case

// A File is one of Wycheproof's.
type File struct {
	Name   string // without _test.json
	Groups []Group
}

//go:embed sample/*.json
var sample embed.FS

// Sample returns the files of the sample.
func Sample(t testing.TB) []File {
	t.Helper()
	entries, err := sample.ReadDir("sample")
	if err != nil || len(entries) < 50 {
		t.Fatalf("the sample has %d files: %v", len(entries), err)
	}
	var files []File
	for _, e := range entries {
		b, err := sample.ReadFile("sample/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, read(t, e.Name(), b))
	}
	return files
}

// Whole returns the files of the whole set, and skips the test where it is not here.
func Whole(t testing.TB) []File {
	t.Helper()
	f, err := os.Open(tokentest.Fixture(t, "wycheproof.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var files []File
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		// No mechanism is about whether a number is a prime.
		if name := path.Base(h.Name); name != "primality_test.json" {
			var b bytes.Buffer
			if _, err := b.ReadFrom(archive); err != nil {
				t.Fatal(err)
			}
			files = append(files, read(t, name, b.Bytes()))
		}
	}
}

// hashOf is a hash by its name in a group, or at the end of a file's name.
func hashOf(name string) p11.Hash {
	for _, h := range []p11.MechanismType{p11.CKM_SHA_1, p11.CKM_SHA224, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512} {
		short := strings.ReplaceAll(h.Short(), "-", "") // sha1
		if strings.HasSuffix(strings.ToLower(strings.ReplaceAll(name, "-", "")), short) {
			found, _ := p11.HashOf(h)
			return found
		}
	}
	return p11.Hash{}
}

// A group is one of Wycheproof's, of which all have one key or length.
type group struct {
	Curve      string         `json:"curve"`
	Encoding   string         `json:"encoding"`
	SHA        string         `json:"sha"`
	MGFSHA     string         `json:"mgfSha"`
	SaltLen    uint64         `json:"sLen"`
	TagSize    uint64         `json:"tagSize"`
	PublicKey  map[string]any `json:"publicKey"`
	PrivateKey map[string]any `json:"privateKey"`
	Tests      []vector       `json:"tests"`

	t    testing.TB
	name string   // of the file
	hash p11.Hash // of the file's name, where the group has none
}

// hexed is bytes, which some vectors write with an odd number of digits.
type hexed []byte

// UnmarshalText is encoding.TextUnmarshaler.
func (h *hexed) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(strings.Repeat("0", len(text)%2) + string(text))
	*h = b
	return err
}

type vector struct {
	TcID    any      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"`

	Key, IV, AAD, Msg, CT, Tag, Sig, Label, Public, Private, Shared hexed
	IKM, Salt, Info, OKM, Password, DK                              hexed
	Size, DKLen                                                     uint64
	Iterations                                                      uint64 `json:"iterationCount"`
}

// read reads a file.
func read(t testing.TB, name string, b []byte) File {
	t.Helper()
	f := File{Name: strings.TrimSuffix(name, "_test.json")}
	var content struct {
		TestGroups []*group `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &content); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n := 0
	for _, g := range content.TestGroups {
		g.t, g.name = t, f.Name
		if g.hash = hashOf(g.SHA); g.SHA == "" {
			g.hash = hashOf(g.name)
		}
		var cases Group
		for i := range g.Tests {
			v := &g.Tests[i]
			c := g.make(v)
			c.ID, c.Comment, c.Flags, c.Result = fmt.Sprint(v.TcID), v.Comment, v.Flags, v.Result
			cases = append(cases, c)
		}
		f.Groups = append(f.Groups, cases)
		n += len(cases)
	}
	if n == 0 {
		t.Fatalf("%s: no vectors", name)
	}
	return f
}

// secretKey is a secret key with a use, that lasts as long as the session.
func secretKey(kt p11.KeyType, value []byte, use p11.AttributeType) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
		{Type: use, Value: p11.Bool(true)}, {Type: p11.CKA_VALUE, Value: value},
	}
}

// pairKey is one half of a pair, of whose attributes more are told.
func pairKey(class p11.ObjectClass, kt p11.KeyType, use p11.AttributeType, more ...p11.Attribute) p11.Attributes {
	return append(p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}, {Type: use, Value: p11.Bool(true)},
	}, more...)
}

// numbers are attributes of the numbers that a group has of a key, by their names there.
func (g *group) numbers(from map[string]any, names map[string]p11.AttributeType) (list []p11.Attribute) {
	for name, at := range names {
		if s, ok := from[name].(string); ok {
			list = append(list, p11.Attribute{Type: at, Value: new(big.Int).SetBytes(g.bytes(s)).Bytes()})
		}
	}
	slices.SortFunc(list, func(a, b p11.Attribute) int { return cmp.Compare(a.Type, b.Type) })
	return list
}

func (g *group) bytes(s string) (h hexed) {
	if err := h.UnmarshalText([]byte(s)); err != nil {
		g.t.Fatalf("%s: %v", g.name, err)
	}
	return h
}

func (g *group) curve(name any) p11.Curve {
	c, ok := p11.CurveNamed(fmt.Sprint(name))
	if !ok {
		g.t.Fatalf("%s: no curve %v", g.name, name)
	}
	return c
}

// make is a vector as a case.
func (g *group) make(v *vector) Case {
	sealed := func(kt p11.KeyType, mt p11.MechanismType, p p11.Param) Case {
		return Case{Key: secretKey(kt, v.Key, p11.CKA_DECRYPT), M: p11.Mechanism{Type: mt, Param: p}, Use: p11.CKF_DECRYPT, Data: slices.Concat(v.CT, v.Tag), Want: v.Msg}
	}
	signed := func(key p11.Attributes, mt p11.MechanismType, p p11.Param) Case {
		return Case{Key: key, M: p11.Mechanism{Type: mt, Param: p}, Use: p11.CKF_VERIFY, Data: v.Msg, Signature: slices.Concat(v.Sig, v.Tag)}
	}
	mac := func(kt p11.KeyType, mt p11.MechanismType, p p11.Param) Case {
		return signed(secretKey(kt, v.Key, p11.CKA_VERIFY), mt, p)
	}
	words := strings.Split(g.name, "_")
	switch words[0] {
	case "aes":
		switch words[1] {
		case "cbc":
			return sealed(p11.CKK_AES, p11.CKM_AES_CBC_PAD, p11.IV(v.IV))
		case "gcm":
			return sealed(p11.CKK_AES, p11.CKM_AES_GCM, &p11.GCMParams{IV: v.IV, AAD: v.AAD, TagBits: g.TagSize})
		case "ccm":
			return sealed(p11.CKK_AES, p11.CKM_AES_CCM, &p11.CCMParams{DataLen: uint64(len(v.CT)), Nonce: v.IV, AAD: v.AAD, MACLen: g.TagSize / 8})
		case "wrap":
			return sealed(p11.CKK_AES, p11.CKM_AES_KEY_WRAP, nil)
		case "kwp":
			return sealed(p11.CKK_AES, p11.CKM_AES_KEY_WRAP_KWP, nil)
		case "gmac":
			return mac(p11.CKK_AES, p11.CKM_AES_GMAC, p11.IV(v.IV))
		case "cmac":
			return mac(p11.CKK_AES, p11.CKM_AES_CMAC_GENERAL, p11.MACLength(g.TagSize/8))
		}
	case "chacha20", "xchacha20":
		return sealed(p11.CKK_CHACHA20, p11.CKM_CHACHA20_POLY1305, &p11.ChaCha20Poly1305Params{Nonce: v.IV, AAD: v.AAD})
	case "hmac":
		return mac(p11.CKK_GENERIC_SECRET, g.hash.HMACGeneral, p11.MACLength(g.TagSize/8))
	case "ecdsa":
		point, _ := g.PublicKey["uncompressed"].(string)
		return signed(g.ecKey(p11.CKO_PUBLIC_KEY, p11.CKK_EC, p11.CKA_VERIFY, g.PublicKey["curve"], p11.Attribute{Type: p11.CKA_EC_POINT, Value: pkix.DERPoint(g.bytes(point))}), g.hash.ECDSA, nil)
	case "ed25519", "ed448":
		point, _ := g.PublicKey["pk"].(string)
		return signed(g.ecKey(p11.CKO_PUBLIC_KEY, p11.CKK_EC_EDWARDS, p11.CKA_VERIFY, g.PublicKey["curve"], p11.Attribute{Type: p11.CKA_EC_POINT, Value: g.bytes(point)}), p11.CKM_EDDSA, nil)
	case "dsa":
		names := map[string]p11.AttributeType{"p": p11.CKA_PRIME, "q": p11.CKA_SUBPRIME, "g": p11.CKA_BASE, "y": p11.CKA_VALUE}
		return signed(pairKey(p11.CKO_PUBLIC_KEY, p11.CKK_DSA, p11.CKA_VERIFY, g.numbers(g.PublicKey, names)...), g.hash.DSA, nil)
	case "ecdh":
		return g.agreement(v, p11.CKK_EC)
	case "x25519", "x448":
		return g.agreement(v, p11.CKK_EC_MONTGOMERY)
	case "hkdf":
		p := &p11.HKDFParams{Extract: true, Expand: true, Hash: g.hash.Type, Salt: v.Salt, Info: v.Info, SaltType: uint64(p11.CKF_HKDF_SALT_DATA)}
		return Case{Key: secretKey(p11.CKK_HKDF, v.IKM, p11.CKA_DERIVE), M: p11.Mechanism{Type: p11.CKM_HKDF_DERIVE, Param: p}, Use: p11.CKF_DERIVE, Want: v.OKM, Size: v.Size}
	case "pbkdf2":
		prf := map[p11.MechanismType]p11.PBKDF2PRF{
			p11.CKM_SHA_1: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, p11.CKM_SHA224: p11.CKP_PKCS5_PBKD2_HMAC_SHA224, p11.CKM_SHA256: p11.CKP_PKCS5_PBKD2_HMAC_SHA256,
			p11.CKM_SHA384: p11.CKP_PKCS5_PBKD2_HMAC_SHA384, p11.CKM_SHA512: p11.CKP_PKCS5_PBKD2_HMAC_SHA512,
		}[g.hash.Type]
		p := &p11.PBKD2Params{Salt: v.Salt, Iterations: v.Iterations, PRF: prf, Password: v.Password}
		return Case{M: p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: p}, Use: p11.CKF_GENERATE, Want: v.DK, Size: v.DKLen}
	case "rsa":
		return g.rsa(v, signed)
	}
	g.t.Fatalf("nothing is known of %s", g.name)
	return Case{}
}

func (g *group) rsa(v *vector, signed func(p11.Attributes, p11.MechanismType, p11.Param) Case) Case {
	names := map[string]p11.AttributeType{
		"modulus": p11.CKA_MODULUS, "publicExponent": p11.CKA_PUBLIC_EXPONENT, "privateExponent": p11.CKA_PRIVATE_EXPONENT,
		"prime1": p11.CKA_PRIME_1, "prime2": p11.CKA_PRIME_2, "exponent1": p11.CKA_EXPONENT_1, "exponent2": p11.CKA_EXPONENT_2, "coefficient": p11.CKA_COEFFICIENT,
	}
	public := func() p11.Attributes {
		return pairKey(p11.CKO_PUBLIC_KEY, p11.CKK_RSA, p11.CKA_VERIFY, g.numbers(g.PublicKey, names)...)
	}
	private := func(use p11.AttributeType) p11.Attributes {
		return pairKey(p11.CKO_PRIVATE_KEY, p11.CKK_RSA, use, g.numbers(g.PrivateKey, names)...)
	}
	switch mgf := hashOf(g.MGFSHA).MGF; {
	case strings.HasPrefix(g.name, "rsa_signature"):
		return signed(public(), g.hash.PKCS1, nil)
	case strings.HasPrefix(g.name, "rsa_pss"):
		return signed(public(), g.hash.PSS, &p11.PSSParams{Hash: g.hash.Type, MGF: mgf, SaltLen: g.SaltLen})
	case strings.HasPrefix(g.name, "rsa_oaep"):
		p := &p11.OAEPParams{Hash: g.hash.Type, MGF: mgf, Label: v.Label}
		return Case{Key: private(p11.CKA_DECRYPT), M: p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: p}, Use: p11.CKF_DECRYPT, Data: v.CT, Want: v.Msg}
	case strings.HasSuffix(g.name, "sig_gen"):
		return Case{Key: private(p11.CKA_SIGN), M: p11.Mechanism{Type: g.hash.PKCS1}, Use: p11.CKF_SIGN, Data: v.Msg, Want: v.Sig}
	}
	return Case{Key: private(p11.CKA_DECRYPT), M: p11.Mechanism{Type: p11.CKM_RSA_PKCS}, Use: p11.CKF_DECRYPT, Data: v.CT, Want: v.Msg, Random: true}
}

func (g *group) ecKey(class p11.ObjectClass, kt p11.KeyType, use p11.AttributeType, curve any, more p11.Attribute) p11.Attributes {
	return pairKey(class, kt, use, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: g.curve(curve).Params()}, more)
}

// agreement derives the secret of two points. Where a public key is a whole
// SubjectPublicKeyInfo, a door gets its point, if it is one of the curve.
func (g *group) agreement(v *vector, kt p11.KeyType) Case {
	curve, point := g.curve(g.Curve), []byte(v.Public)
	var refused error
	if g.Encoding == "asn" {
		public, err := pkix.PublicAttributes(v.Public)
		if err == nil {
			var of p11.Curve
			params, _ := public.Get(p11.CKA_EC_PARAMS)
			if of, err = pkix.CurveOf(params); err == nil && of.Name != curve.Name {
				err = fmt.Errorf("a key of %s, not of %s", of.Name, curve.Name)
			}
		}
		refused = err
		point, _ = public.Get(p11.CKA_EC_POINT)
	}
	return Case{
		Key: g.ecKey(p11.CKO_PRIVATE_KEY, kt, p11.CKA_DERIVE, g.Curve, p11.Attribute{Type: p11.CKA_VALUE, Value: v.Private}),
		M:   p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point}},
		Use: p11.CKF_DERIVE, Want: v.Shared, Size: uint64(curve.Size()), Refused: refused,
	}
}
