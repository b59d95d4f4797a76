package swtok

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// vectors is one file of Wycheproof.
type vectors struct {
	Algorithm  string        `json:"algorithm"`
	TestGroups []vectorGroup `json:"testGroups"`
}

type vectorGroup struct {
	Curve      string            `json:"curve"`
	Encoding   string            `json:"encoding"`
	KeySize    int               `json:"keySize"`
	SHA        string            `json:"sha"`
	MGFSHA     string            `json:"mgfSha"`
	SaltLen    uint64            `json:"sLen"`
	TagSize    uint64            `json:"tagSize"`
	PublicKey  map[string]any    `json:"publicKey"`
	PrivateKey map[string]string `json:"privateKey"`
	Tests      []vector          `json:"tests"`
}

type vector struct {
	TcID    any      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Key     string   `json:"key"`
	IV      string   `json:"iv"`
	AAD     string   `json:"aad"`
	Msg     string   `json:"msg"`
	CT      string   `json:"ct"`
	Tag     string   `json:"tag"`
	Sig     string   `json:"sig"`
	Label   string   `json:"label"`
	Public  string   `json:"public"`
	Private string   `json:"private"`
	Shared  string   `json:"shared"`

	IKM        string `json:"ikm"`
	Salt       string `json:"salt"`
	Info       string `json:"info"`
	Size       uint64 `json:"size"`
	OKM        string `json:"okm"`
	Password   string `json:"password"`
	Iterations uint64 `json:"iterationCount"`
	DKLen      uint64 `json:"dkLen"`
	DK         string `json:"dk"`

	Result string `json:"result"`
}

// check compares the outcome of one vector with its result. "Acceptable" may go
// either way.
func (v *vector) check(t *testing.T, err error) {
	t.Helper()
	if v.Result == "acceptable" || (err == nil) == (v.Result == "valid") {
		return
	}
	t.Errorf("test %v (%s, %v) is %s: %v", v.TcID, v.Comment, v.Flags, v.Result, err)
}

var errDiffers = errors.New("the result differs")

func same(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		return errDiffers
	}
	return err
}

func TestWycheproofSample(t *testing.T) {
	files := 0
	err := fs.WalkDir(os.DirFS("testdata"), "wycheproof", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".json") {
			return err
		}
		b, err := os.ReadFile(path.Join("testdata", p))
		if err != nil {
			return err
		}
		if !runVectors(t, path.Base(p), b, 1) {
			t.Errorf("no test for the sample %s", p)
		}
		files++
		return nil
	})
	if err != nil || files < 10 {
		t.Fatalf("the sample has %d files: %v", files, err)
	}
}

func TestWycheproof(t *testing.T) {
	f, err := os.Open(tokentest.Fixture(t, "wycheproof.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(z)
	var other []string
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if !runVectors(t, path.Base(h.Name), b, archiveStride) {
			other = append(other, path.Base(h.Name))
		}
	}
	// No mechanism is about whether a number is a prime.
	if !slices.Equal(other, []string{"primality_test.json"}) {
		t.Errorf("no test is for %q", other)
	}
}

// runVectors runs every stride-th vector of a file with every provider, and says
// whether there is a mechanism for it.
func runVectors(t *testing.T, name string, b []byte, stride int) bool {
	tests := []struct {
		prefix, not string
		run         func(*testing.T, *Crypto, *vectorGroup)
	}{
		{"aes_cbc_pkcs5", "", runCBCPad},
		{"aes_gcm", "", runGCM},
		{"aes_ccm", "", runCCM},
		{"chacha20_poly1305", "", runChaChaPoly},
		{"xchacha20_poly1305", "", runChaChaPoly},
		{"aes_cmac", "", runCMAC},
		{"aes_gmac", "", runGMAC},
		{"hkdf_", "", runHKDF},
		{"pbkdf2_", "", runPBKDF2},
		{"aes_wrap", "", runKW},
		{"aes_kwp", "", runKWP},
		{"hmac_", "", runHMAC},
		{"ecdsa_", "", runECDSA},
		{"dsa_", "", runDSA},
		{"ecdh_", "", runECDH},
		{"ed25519_", "", runEdDSA},
		{"ed448_", "", runEdDSA},
		{"x25519_", "", runXDH},
		{"x448_", "", runXDH},
		{"rsa_oaep_", "", runOAEP},
		{"rsa_pkcs1_", "sig_gen", runPKCS1Decrypt},
		{"rsa_pkcs1_", "", runPKCS1Sign},
		{"rsa_signature_", "", runPKCS1Verify},
		{"rsa_pss_", "", runPSSVerify},
	}
	for _, test := range tests {
		if !strings.HasPrefix(name, test.prefix) || test.not != "" && strings.Contains(name, test.not) {
			continue
		}
		var v vectors
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n := 0
		for i := range v.TestGroups {
			g := &v.TestGroups[i]
			kept := g.Tests[:0]
			for _, test := range g.Tests {
				if g.KeySize <= maxRSABits && n%stride == 0 {
					kept = append(kept, test)
				}
				n++
			}
			g.Tests = kept
		}
		if n == 0 {
			t.Errorf("%s: no vectors", name)
		}
		for _, p := range providers(t) {
			t.Run(p.Name()+"/"+strings.TrimSuffix(name, "_test.json"), func(t *testing.T) {
				c := NewCrypto(p, nil)
				for i := range v.TestGroups {
					if len(v.TestGroups[i].Tests) > 0 {
						test.run(t, c, &v.TestGroups[i])
					}
				}
			})
		}
		return true
	}
	return false
}

// cipherBoth checks that the key encrypts msg to ct, when the vector is valid,
// and decrypts ct to msg.
func cipherBoth(t *testing.T, c *Crypto, v *vector, m p11.Mechanism, key *tokens.Object, msg, ct []byte) {
	t.Helper()
	encrypt, decrypt := encryptAll, decryptAll
	if p, ok := m.Param.(*p11.GCMParams); ok && len(p.IV) > 256 {
		// The engine refuses what is longer than in PKCS#11 v3.1 §6.13.3.
		encrypt, decrypt = unchecked(p11.CKF_ENCRYPT), unchecked(p11.CKF_DECRYPT)
	}
	if v.Result == "valid" {
		got, err := encrypt(c, m, key, msg)
		if err := same(got, ct, err); err != nil {
			t.Errorf("test %v (%s): encrypt: %v", v.TcID, v.Comment, err)
		}
	}
	got, err := decrypt(c, m, key, ct)
	v.check(t, same(got, msg, err))
}

// unchecked runs a cipher that the engine would refuse.
func unchecked(use p11.Flags) func(*Crypto, p11.Mechanism, *tokens.Object, []byte) ([]byte, error) {
	return func(c *Crypto, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
		o, err := c.Begin(context.Background(), use, m, key)
		if err != nil {
			return nil, err
		}
		return cryptAll(tokentest.Cipher{Operation: o}, data)
	}
}

func runCBCPad(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(tokentest.Hex(t, v.IV))}
		cipherBoth(t, c, v, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.CT))
	}
}

func runGCM(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{
			IV: tokentest.Hex(t, v.IV), AAD: tokentest.Hex(t, v.AAD), TagBits: g.TagSize,
		}}
		cipherBoth(t, c, v, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.CT+v.Tag))
	}
}

func runCCM(t *testing.T, c *Crypto, g *vectorGroup) {
	if lacks(c, p11.CKM_AES_CCM) {
		return
	}
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: p11.CKM_AES_CCM, Param: &p11.CCMParams{
			Nonce: tokentest.Hex(t, v.IV), AAD: tokentest.Hex(t, v.AAD), MACLen: g.TagSize / 8,
		}}
		cipherBoth(t, c, v, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.CT+v.Tag))
	}
}

func runChaChaPoly(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_CHACHA20, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: p11.CKM_CHACHA20_POLY1305, Param: &p11.ChaCha20Poly1305Params{
			Nonce: tokentest.Hex(t, v.IV), AAD: tokentest.Hex(t, v.AAD),
		}}
		cipherBoth(t, c, v, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.CT+v.Tag))
	}
}

func runCMAC(t *testing.T, c *Crypto, g *vectorGroup) {
	if lacks(c, p11.CKM_AES_CMAC) {
		return
	}
	for i := range g.Tests {
		v := &g.Tests[i]
		value := tokentest.Hex(t, v.Key)
		if !p11.FitsKey(p11.CKK_AES, uint64(len(value))) {
			continue
		}
		m := p11.Mechanism{Type: p11.CKM_AES_CMAC_GENERAL, Param: p11.MACLength(g.TagSize / 8)}
		v.check(t, verifyAll(c, m, tokentest.Secret(t, p11.CKK_AES, value), tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Tag)))
	}
}

// lacks says whether Go's library has nothing for a mechanism, so that it is not listed.
func lacks(c *Crypto, m p11.MechanismType) bool { return c.rows[m] == nil && c.provider.Name() == "go" }

func runWrap(t *testing.T, c *Crypto, g *vectorGroup, mt p11.MechanismType) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, v.Key))
		cipherBoth(t, c, v, p11.Mechanism{Type: mt}, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.CT))
	}
}

func runKW(t *testing.T, c *Crypto, g *vectorGroup) { runWrap(t, c, g, p11.CKM_AES_KEY_WRAP) }

func runKWP(t *testing.T, c *Crypto, g *vectorGroup) { runWrap(t, c, g, p11.CKM_AES_KEY_WRAP_KWP) }

func runHMAC(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: hmacType(t), Param: p11.MACLength(g.TagSize / 8)}
		v.check(t, verifyAll(c, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Tag)))
	}
}

// hmacType finds the mechanism by the name of the running test, as the groups
// do not say which hash they are for.
func hmacType(t *testing.T) p11.MechanismType {
	for name, m := range map[string]p11.MechanismType{
		"sha1": p11.CKM_SHA_1_HMAC_GENERAL, "sha256": p11.CKM_SHA256_HMAC_GENERAL,
		"sha384": p11.CKM_SHA384_HMAC_GENERAL, "sha512": p11.CKM_SHA512_HMAC_GENERAL,
	} {
		if strings.HasSuffix(t.Name(), "_"+name) {
			return m
		}
	}
	t.Fatalf("no HMAC for %s", t.Name())
	return 0
}

func text(m map[string]any, k string) string { s, _ := m[k].(string); return s }

func curveNamed(t *testing.T, name string) p11.Curve {
	c, ok := p11.CurveNamed(name)
	if !ok {
		t.Fatalf("no curve %s", name)
	}
	return c
}

func runECDSA(t *testing.T, c *Crypto, g *vectorGroup) {
	curve := curveNamed(t, text(g.PublicKey, "curve"))
	point := tokentest.Hex(t, text(g.PublicKey, "uncompressed"))
	if !c.provider.HasCurve(curve) && c.provider.Name() == "go" {
		return
	}
	public, err := c.provider.NewECPublicKey(curve, point)
	if err != nil {
		t.Fatal(err)
	}
	key := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_EC,
		p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()},
		p11.Attribute{Type: p11.CKA_EC_POINT, Value: pkix.DERPoint(point)})
	h, _ := p11.HashOf(hashNamed(t, g.SHA))
	for i := range g.Tests {
		v := &g.Tests[i]
		sig := tokentest.Hex(t, v.Sig)
		if slices.Contains(v.Flags, "SignatureSize") && len(sig)%2 == 0 && len(sig) <= 2*curve.Size() {
			// r and s may come without zeros in front (PKCS#11 v3.1 §6.3.1): the
			// library says whether they are a signature in its own form.
			der, err := pkix.ECDSARawToDER(sig)
			if err == nil && public.Verify(sumOf(h.Go, string(tokentest.Hex(t, v.Msg))), der) {
				v.Result = "valid"
			}
		}
		v.check(t, verifyAll(c, p11.Mechanism{Type: h.ECDSA}, key, tokentest.Hex(t, v.Msg), sig))
	}
}

func runEdDSA(t *testing.T, c *Crypto, g *vectorGroup) {
	key := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_EC_EDWARDS,
		p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curveNamed(t, text(g.PublicKey, "curve")).Params()},
		p11.Attribute{Type: p11.CKA_EC_POINT, Value: tokentest.Hex(t, text(g.PublicKey, "pk"))})
	for i := range g.Tests {
		v := &g.Tests[i]
		v.check(t, verifyAll(c, p11.Mechanism{Type: p11.CKM_EDDSA}, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Sig)))
	}
}

func runXDH(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		if slices.Contains(g.Tests[i].Flags, "ZeroSharedSecret") {
			g.Tests[i].Result = "invalid" // as RFC 7748 §6 lets one choose
		} else if g.Tests[i].Result == "acceptable" {
			g.Tests[i].Result = "valid"
		}
	}
	runAgreement(t, c, g, p11.CKK_EC_MONTGOMERY)
}

func runDSA(t *testing.T, c *Crypto, g *vectorGroup) {
	part := func(at p11.AttributeType, name string) p11.Attribute {
		hex := text(g.PublicKey, name)
		return p11.Attribute{Type: at, Value: tokentest.Hex(t, strings.Repeat("0", len(hex)%2)+hex)}
	}
	key := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_DSA,
		part(p11.CKA_PRIME, "p"), part(p11.CKA_SUBPRIME, "q"), part(p11.CKA_BASE, "g"), part(p11.CKA_VALUE, "y"))
	h, _ := p11.HashOf(hashNamed(t, g.SHA))
	for i := range g.Tests {
		v := &g.Tests[i]
		v.check(t, verifyAll(c, p11.Mechanism{Type: h.DSA}, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Sig)))
	}
}

func runECDH(t *testing.T, c *Crypto, g *vectorGroup) {
	if curve := curveNamed(t, g.Curve); !c.provider.HasCurve(curve) && c.provider.Name() == "go" {
		return
	}
	if g.Encoding != "asn" {
		runAgreement(t, c, g, p11.CKK_EC)
		return
	}
	// The public keys are whole SubjectPublicKeyInfo: of another curve, or of none, there
	// is nothing to derive with. One of the numbers of a curve that has no name here may
	// be refused, too, though it fits.
	for i := range g.Tests {
		v := &g.Tests[i]
		public, err := pkix.PublicAttributes(tokentest.Hex(t, v.Public))
		if err == nil {
			var curve p11.Curve
			params, _ := public.Get(p11.CKA_EC_PARAMS)
			if curve, err = pkix.CurveOf(params); err == nil && curve.Name != strings.ToLower(g.Curve) {
				err = errDiffers
			}
		}
		if err != nil {
			if !slices.Contains(v.Flags, "UnnamedCurve") {
				v.check(t, err)
			}
			continue
		}
		point, _ := public.Get(p11.CKA_EC_POINT)
		v.Public = fmt.Sprintf("%x", point)
		runAgreement(t, c, &vectorGroup{Curve: g.Curve, Tests: []vector{*v}}, p11.CKK_EC)
	}
}

func runAgreement(t *testing.T, c *Crypto, g *vectorGroup, kt p11.KeyType) {
	curve := curveNamed(t, g.Curve)
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Key(t, p11.CKO_PRIVATE_KEY, kt,
			p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}, tokentest.Value(tokentest.Hex(t, v.Private)))
		out, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{
			KDF: p11.CKD_NULL, PublicData: tokentest.Hex(t, v.Public),
		}}, key, secretTemplate(p11.CKK_GENERIC_SECRET, 0))
		var got []byte
		if err == nil {
			got, _ = out.Get(p11.CKA_VALUE)
		}
		v.check(t, same(got, tokentest.Hex(t, v.Shared), err))
	}
}

// hashNamed is a hash by its name in the vectors.
func hashNamed(t *testing.T, name string) p11.MechanismType {
	switch name {
	case "SHA-1":
		return p11.CKM_SHA_1
	case "SHA-224":
		return p11.CKM_SHA224
	case "SHA-256":
		return p11.CKM_SHA256
	case "SHA-384":
		return p11.CKM_SHA384
	case "SHA-512":
		return p11.CKM_SHA512
	}
	t.Skipf("no hash %s", name)
	return 0
}

// rsaPrivateKey makes the group's private key, from all of its numbers or, to
// try how it is completed, from the modulus and the exponents.
func (g *vectorGroup) rsaPrivateKey(t *testing.T, all bool) *tokens.Object {
	types := map[string]p11.AttributeType{
		"modulus": p11.CKA_MODULUS, "publicExponent": p11.CKA_PUBLIC_EXPONENT, "privateExponent": p11.CKA_PRIVATE_EXPONENT,
	}
	if all {
		types["prime1"], types["prime2"] = p11.CKA_PRIME_1, p11.CKA_PRIME_2
	}
	var attrs []p11.Attribute
	for name, at := range types {
		if s, ok := g.PrivateKey[name]; ok {
			attrs = append(attrs, p11.Attribute{Type: at, Value: tokentest.Hex(t, s)})
		}
	}
	return tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA, attrs...)
}

func (g *vectorGroup) rsaPublicKey(t *testing.T) *tokens.Object {
	return tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_RSA,
		p11.Attribute{Type: p11.CKA_MODULUS, Value: tokentest.Hex(t, text(g.PublicKey, "modulus"))},
		p11.Attribute{Type: p11.CKA_PUBLIC_EXPONENT, Value: tokentest.Hex(t, text(g.PublicKey, "publicExponent"))})
}

func runOAEP(t *testing.T, c *Crypto, g *vectorGroup) {
	key := g.rsaPrivateKey(t, true)
	for i := range g.Tests {
		v := &g.Tests[i]
		m := p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{
			Hash: hashNamed(t, g.SHA), MGF: p11.MGFOf(hashNamed(t, g.MGFSHA)), Label: tokentest.Hex(t, v.Label),
		}}
		got, err := decryptAll(c, m, key, tokentest.Hex(t, v.CT))
		v.check(t, same(got, tokentest.Hex(t, v.Msg), err))
	}
}

func runPKCS1Decrypt(t *testing.T, c *Crypto, g *vectorGroup) {
	key := g.rsaPrivateKey(t, false)
	for i := range g.Tests {
		v := &g.Tests[i]
		got, err := decryptAll(c, p11.Mechanism{Type: p11.CKM_RSA_PKCS}, key, tokentest.Hex(t, v.CT))
		v.check(t, same(got, tokentest.Hex(t, v.Msg), err))
	}
}

// rsaTypes are the PKCS#1 v1.5 signature mechanisms by hash.
func rsaTypes(hash p11.MechanismType) p11.MechanismType {
	return map[p11.MechanismType]p11.MechanismType{
		p11.CKM_SHA_1: p11.CKM_SHA1_RSA_PKCS, p11.CKM_SHA224: p11.CKM_SHA224_RSA_PKCS, p11.CKM_SHA256: p11.CKM_SHA256_RSA_PKCS,
		p11.CKM_SHA384: p11.CKM_SHA384_RSA_PKCS, p11.CKM_SHA512: p11.CKM_SHA512_RSA_PKCS,
	}[hash]
}

func runPKCS1Sign(t *testing.T, c *Crypto, g *vectorGroup) {
	key := g.rsaPrivateKey(t, true)
	m := p11.Mechanism{Type: rsaTypes(hashNamed(t, g.SHA))}
	for i := range g.Tests {
		v := &g.Tests[i]
		got, err := signAll(c, m, key, tokentest.Hex(t, v.Msg))
		v.check(t, same(got, tokentest.Hex(t, v.Sig), err))
	}
}

func runPKCS1Verify(t *testing.T, c *Crypto, g *vectorGroup) {
	key := g.rsaPublicKey(t)
	m := p11.Mechanism{Type: rsaTypes(hashNamed(t, g.SHA))}
	for i := range g.Tests {
		v := &g.Tests[i]
		v.check(t, verifyAll(c, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Sig)))
	}
}

func pssType(hash p11.MechanismType) p11.MechanismType {
	return map[p11.MechanismType]p11.MechanismType{
		p11.CKM_SHA_1: p11.CKM_SHA1_RSA_PKCS_PSS, p11.CKM_SHA224: p11.CKM_SHA224_RSA_PKCS_PSS, p11.CKM_SHA256: p11.CKM_SHA256_RSA_PKCS_PSS,
		p11.CKM_SHA384: p11.CKM_SHA384_RSA_PKCS_PSS, p11.CKM_SHA512: p11.CKM_SHA512_RSA_PKCS_PSS,
	}[hash]
}

func runPSSVerify(t *testing.T, c *Crypto, g *vectorGroup) {
	h := hashNamed(t, g.SHA)
	key := g.rsaPublicKey(t)
	m := p11.Mechanism{Type: pssType(h), Param: &p11.PSSParams{Hash: h, MGF: p11.MGFOf(hashNamed(t, g.MGFSHA)), SaltLen: g.SaltLen}}
	for i := range g.Tests {
		v := &g.Tests[i]
		v.check(t, verifyAll(c, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Sig)))
	}
}

// secretTemplate describes a secret key; a length of 0 is left out.
func secretTemplate(kt p11.KeyType, length uint64) p11.Attributes {
	a := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}
	if length != 0 {
		a.SetUlong(p11.CKA_VALUE_LEN, length)
	}
	return a
}
