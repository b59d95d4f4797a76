package integration

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok"
)

// A wycheGroup is a group of Wycheproof's vectors, of which all have one key or length.
type wycheGroup struct {
	Curve      string         `json:"curve"`
	Encoding   string         `json:"encoding"`
	SHA        string         `json:"sha"`
	MGFSHA     string         `json:"mgfSha"`
	SaltLen    uint64         `json:"sLen"`
	TagSize    uint64         `json:"tagSize"`
	PublicKey  map[string]any `json:"publicKey"`
	PrivateKey map[string]any `json:"privateKey"`
	Tests      []wycheVector  `json:"tests"`

	hash p11.Hash // of the file's name, where the group has none
}

type wycheVector struct {
	TcID    any      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"`

	Key, IV, AAD, Msg, CT, Tag, Sig, Label, Public, Private, Shared string
	IKM, Salt, Info, OKM, Password, DK                              string
	Size, DKLen                                                     uint64
	Iterations                                                      uint64 `json:"iterationCount"`
}

// A wycheCase is a vector as it is put to a door: a key is made, the call is made, and
// what it gives is compared. A verification gives nothing.
type wycheCase struct {
	key  p11.Attributes // none for what is made of a password
	m    p11.Mechanism
	call string // verify, decrypt, sign, derive, deriveby, generate
	data string // what goes in: the message, the ciphertext, the point
	sig  string
	want string
	size uint64 // of the key that is made

	// random says that a ciphertext that is none may decrypt to what depends on it and
	// the key alone, as libcrypto has it against Bleichenbacher's attack.
	random bool
}

// wycheHashes are the hashes by their names in the vectors.
var wycheHashes = map[string]p11.MechanismType{
	"SHA-1": p11.CKM_SHA_1, "SHA-224": p11.CKM_SHA224, "SHA-256": p11.CKM_SHA256, "SHA-384": p11.CKM_SHA384, "SHA-512": p11.CKM_SHA512,
	"sha1": p11.CKM_SHA_1, "sha256": p11.CKM_SHA256, "sha384": p11.CKM_SHA384, "sha512": p11.CKM_SHA512,
}

// TestWycheproofDoors puts some vectors of each file of the sample, valid and invalid
// ones, to the mount and to libp11fs.so: the key comes in as an application brings it, the
// parameters as a file's name or as C structs. The verdict is the vector's. All of the
// sample, and the full set, run in the package swtok.
func TestWycheproofDoors(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	d := startDaemon(t, daemonConfig{args: []string{"--open-token"}})
	r := &rig{t: t, so: soPIN, errnos: docErrnos(t), met: map[string]bool{}}
	r.a = &application{r, newOrders(t, d, "p11io", "conformance", d.path())}
	r.b = &application{r, newOrders(t, d, "sh", "-c", moduleApplication, "sh", ownModule(t))}
	r.reset()
	mount, module := r.a.opened(), r.b.opened()
	pair := mount.call("pair", mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN), words("token=false modulus-bits=2048 public-exponent=0x010001"), words("token=false unwrap=true")).must()
	transport := &rsa.PublicKey{N: new(big.Int).SetBytes(unhex(t, mount.get(pair.values[0], p11.CKA_MODULUS).one())), E: 0x10001}

	provider := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	files, err := filepath.Glob("../tokens/swtok/testdata/wycheproof/*.json")
	if err != nil || len(files) < 50 {
		t.Fatalf("the sample has %d files: %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), "_test.json")
		t.Run(name, func(t *testing.T) {
			vectors, cases := wycheSample(t, path, name)
			for _, door := range []struct {
				name   string
				s      *handle
				create func(t *testing.T, key p11.Attributes) answer
			}{
				{"mount", mount, func(t *testing.T, key p11.Attributes) answer {
					value, _ := key.Get(p11.CKA_VALUE)
					if class, _ := key.Class(); class != p11.CKO_SECRET_KEY {
						return mount.call("create", encode(withPoint(t, provider, key)))
					}
					// No file takes the value of a secret key as it is.
					wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, transport, value) //nolint:staticcheck // OAEP has no room for the longest
					if err != nil {
						t.Fatal(err)
					}
					rest := key.Clone()
					rest.Delete(p11.CKA_VALUE)
					return mount.call("unwrap", pair.values[1], mech(p11.CKM_RSA_PKCS), fmt.Sprintf("%x", wrapped), encode(rest))
				}},
				{"libp11fs", module, func(t *testing.T, key p11.Attributes) answer { return module.call("create", encode(key)) }},
			} {
				t.Run(door.name, func(t *testing.T) {
					r.t = t
					ran := map[string]int{}
					for i, c := range cases {
						v := vectors[i]
						if door.name == "mount" && c.noFile() {
							continue
						}
						ran[v.Result]++
						got, want := c.run(t, door.s, door.create), v.Result == "valid"
						if !want && c.random && got.rv == p11.CKR_OK && got.values[0] != c.want {
							continue
						}
						if got.kernel != "" || (got.rv == p11.CKR_OK) != want || !want && !wycheRefusal(got.rv) {
							t.Errorf("test %v (%s, %v) is %s: %s", v.TcID, v.Comment, v.Flags, v.Result, got)
						} else if want && c.want != "" && got.values[0] != c.want {
							t.Errorf("test %v (%s, %v): %s, want %s", v.TcID, v.Comment, v.Flags, got.values[0], c.want)
						}
					}
					if ran["valid"] == 0 {
						t.Errorf("no valid vector has run: %v", ran)
					}
				})
			}
		})
	}
}

// withPoint gives a private EC key its point: the file of one of a curve that Go has not
// must tell it, as those of openssl(1) do.
func withPoint(t *testing.T, p swtok.Provider, key p11.Attributes) p11.Attributes {
	t.Helper()
	class, _ := key.Class()
	params, ok := key.Get(p11.CKA_EC_PARAMS)
	if class != p11.CKO_PRIVATE_KEY || !ok {
		return key
	}
	c, err := pkix.CurveOf(params)
	if err != nil || c.KeyType != p11.CKK_EC {
		return key
	}
	value, _ := key.Get(p11.CKA_VALUE)
	_, point, err := pkix.ECPrivate(p, c, value)
	if err != nil {
		t.Fatal(err)
	}
	return key.With(p11.CKA_EC_POINT, pkix.DERPoint(point))
}

// wycheRefusal says whether an answer is about the data of a vector, and not about how
// the test asks.
func wycheRefusal(rv p11.RV) bool {
	return slices.Contains([]p11.RV{
		p11.CKR_SIGNATURE_INVALID, p11.CKR_SIGNATURE_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		p11.CKR_AEAD_DECRYPT_FAILED, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_KEY_SIZE_RANGE,
	}, rv)
}

// noFile says whether a case cannot be put as files: nobody reads who writes nothing, and
// a name has 255 bytes.
func (c *wycheCase) noFile() bool {
	name := len(c.m.String())
	switch c.call {
	case "generate":
		return false
	case "deriveby": // with a template behind the mechanism
		return name > 150
	}
	return c.data+c.sig == "" || name > 240
}

// run makes the key and the call.
func (c *wycheCase) run(t *testing.T, s *handle, create func(*testing.T, p11.Attributes) answer) answer {
	t.Helper()
	made := template(fmt.Sprintf("class=secret-key key-type=generic-secret value-len=%d token=false private=false sensitive=false extractable=true", c.size))
	m := mechanismWord(c.m)
	var key string
	if c.key != nil {
		key = create(t, c.key).one()
	}
	data, sig := c.data, c.sig
	if data == "" {
		data = "-"
	}
	if sig == "" {
		sig = "-"
	}
	var got answer
	switch c.call {
	case "verify":
		return s.call("verify", key, m, data, sig)
	case "decrypt", "sign":
		got = s.operate("one", c.call, key, m, data)
	case "derive":
		got = s.call("derive", key, data, encode(made))
	case "deriveby":
		got = s.call("deriveby", key, m, encode(made))
	case "generate":
		got = s.call("generate", m, encode(made))
	}
	if got.kernel == "" && got.rv == p11.CKR_OK && c.size != 0 {
		got = s.get(got.one(), p11.CKA_VALUE)
	}
	return got
}

// A fieldWriter writes a parameter as the applications take it.
type fieldWriter struct {
	fields []string
}

func (w *fieldWriter) put(kind string, value any) {
	w.fields = append(w.fields, fmt.Sprintf(kind, value))
}

func (w *fieldWriter) Ulong(n *uint64)            { w.put("u%x", *n) }
func (w *fieldWriter) Handle(h *p11.ObjectHandle) { w.put("u%x", uint64(*h)) }
func (w *fieldWriter) Bytes(b *[]byte)            { w.put("b%x", *b) }
func (w *fieldWriter) Array([]byte)               { panic("no array in these parameters") }
func (w *fieldWriter) Template(*p11.Attributes)   { panic("no template in these parameters") }
func (w *fieldWriter) Refuse(error)               {}
func (w *fieldWriter) Bool(b *bool) {
	w.put("c%d", map[bool]int{true: 1}[*b])
}

// mechanismWord is a mechanism as the applications take it, with what its C struct has
// and with its text.
func mechanismWord(m p11.Mechanism) string {
	switch p := m.Param.(type) {
	case nil:
		return mech(m.Type)
	case p11.IV:
		return mech(m.Type, p...)
	}
	var w fieldWriter
	m.Param.Code(&w)
	text := m.String()
	if p, ok := m.Param.(*p11.PBKD2Params); ok {
		text += fmt.Sprintf(",password=0x%x", p.Password) // which a printed mechanism keeps to itself
	}
	return mech(m.Type) + "=" + strings.Join(w.fields, ",") + "=" + text
}

// wycheSample takes up to three valid and three invalid vectors of a file, and of a group
// that is not the only one up to two.
func wycheSample(t *testing.T, path, name string) (vectors []*wycheVector, cases []*wycheCase) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []*wycheGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	const most = 3
	each := 2
	if len(file.TestGroups) == 1 {
		each = most
	}
	taken := map[string]int{}
	for _, g := range file.TestGroups {
		for suffix, h := range wycheHashes {
			if g.SHA == suffix || g.SHA == "" && strings.HasSuffix(name, suffix) {
				g.hash, _ = p11.HashOf(h)
			}
		}
		here := map[string]int{}
		for i := range g.Tests {
			v := &g.Tests[i]
			if slices.Contains(v.Flags, "ZeroSharedSecret") {
				v.Result = "invalid" // as RFC 7748 §6 lets one choose
			}
			// How short r and s may be, a rule of the conformance suite says.
			if v.Result == "acceptable" || slices.Contains(v.Flags, "SignatureSize") || taken[v.Result] == most || here[v.Result] == each {
				continue
			}
			if c := g.wycheCase(t, name, v); c != nil {
				taken[v.Result]++
				here[v.Result]++
				vectors, cases = append(vectors, v), append(cases, c)
			}
		}
	}
	return vectors, cases
}

// secretKey is a secret key with a use, that lasts as long as the session.
func secretKey(t *testing.T, kt p11.KeyType, value, usage string) p11.Attributes {
	t.Helper()
	return template("class=secret-key token=false private=false "+usage+"=true").
		With(p11.CKA_KEY_TYPE, p11.Ulong(kt)).With(p11.CKA_VALUE, unhex(t, value))
}

// keyOf is a key of the numbers that a group has of it.
func keyOf(t *testing.T, kt p11.KeyType, usage string, from map[string]any, numbers map[string]p11.AttributeType) p11.Attributes {
	t.Helper()
	key := template("token=false "+usage+"=true").With(p11.CKA_KEY_TYPE, p11.Ulong(kt))
	for name, at := range numbers {
		if s, ok := from[name].(string); ok {
			b := unhex(t, strings.Repeat("0", len(s)%2)+s)
			key = key.With(at, new(big.Int).SetBytes(b).Bytes())
		}
	}
	return key
}

var rsaNumbers = map[string]p11.AttributeType{
	"modulus": p11.CKA_MODULUS, "publicExponent": p11.CKA_PUBLIC_EXPONENT, "privateExponent": p11.CKA_PRIVATE_EXPONENT,
	"prime1": p11.CKA_PRIME_1, "prime2": p11.CKA_PRIME_2, "exponent1": p11.CKA_EXPONENT_1, "exponent2": p11.CKA_EXPONENT_2, "coefficient": p11.CKA_COEFFICIENT,
}

func (g *wycheGroup) rsaKey(t *testing.T, usage string) p11.Attributes {
	t.Helper()
	if usage == "verify" {
		return keyOf(t, p11.CKK_RSA, usage, g.PublicKey, rsaNumbers).With(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY))
	}
	return keyOf(t, p11.CKK_RSA, usage, g.PrivateKey, rsaNumbers).With(p11.CKA_CLASS, p11.Ulong(p11.CKO_PRIVATE_KEY))
}

func wycheCurve(t *testing.T, name any) p11.Curve {
	t.Helper()
	c, ok := p11.CurveNamed(fmt.Sprint(name))
	if !ok {
		t.Fatalf("no curve %v", name)
	}
	return c
}

// wycheCase is a vector as a case, nil for one that asks nothing of a door.
func (g *wycheGroup) wycheCase(t *testing.T, name string, v *wycheVector) *wycheCase {
	t.Helper()
	iv, aad := unhex(t, v.IV), unhex(t, v.AAD)
	sealed := func(kt p11.KeyType, mt p11.MechanismType, p p11.Param) *wycheCase {
		return &wycheCase{key: secretKey(t, kt, v.Key, "decrypt"), m: p11.Mechanism{Type: mt, Param: p}, call: "decrypt", data: v.CT + v.Tag, want: wordOf(v.Msg)}
	}
	signed := func(key p11.Attributes, mt p11.MechanismType, p p11.Param) *wycheCase {
		return &wycheCase{key: key, m: p11.Mechanism{Type: mt, Param: p}, call: "verify", data: v.Msg, sig: v.Sig + v.Tag}
	}
	family, _, _ := strings.Cut(name, "_")
	switch family {
	case "aes":
		switch strings.Split(name, "_")[1] {
		case "cbc":
			return sealed(p11.CKK_AES, p11.CKM_AES_CBC_PAD, p11.IV(iv))
		case "gcm":
			return sealed(p11.CKK_AES, p11.CKM_AES_GCM, &p11.GCMParams{IV: iv, AAD: aad, TagBits: g.TagSize})
		case "ccm":
			return sealed(p11.CKK_AES, p11.CKM_AES_CCM, &p11.CCMParams{DataLen: uint64(len(v.CT) / 2), Nonce: iv, AAD: aad, MACLen: g.TagSize / 8})
		case "wrap":
			return sealed(p11.CKK_AES, p11.CKM_AES_KEY_WRAP, nil)
		case "kwp":
			return sealed(p11.CKK_AES, p11.CKM_AES_KEY_WRAP_KWP, nil)
		case "gmac":
			return signed(secretKey(t, p11.CKK_AES, v.Key, "verify"), p11.CKM_AES_GMAC, p11.IV(iv))
		case "cmac":
			if !p11.FitsKey(p11.CKK_AES, uint64(len(v.Key)/2)) {
				return nil
			}
			return signed(secretKey(t, p11.CKK_AES, v.Key, "verify"), p11.CKM_AES_CMAC_GENERAL, p11.MACLength(g.TagSize/8))
		}
	case "chacha20", "xchacha20":
		return sealed(p11.CKK_CHACHA20, p11.CKM_CHACHA20_POLY1305, &p11.ChaCha20Poly1305Params{Nonce: iv, AAD: aad})
	case "hmac":
		return signed(secretKey(t, p11.CKK_GENERIC_SECRET, v.Key, "verify"), g.hash.HMACGeneral, p11.MACLength(g.TagSize/8))
	case "ecdsa":
		c := wycheCurve(t, g.PublicKey["curve"])
		point, _ := g.PublicKey["uncompressed"].(string)
		key := template("class=public-key key-type=ec token=false verify=true").With(p11.CKA_EC_PARAMS, c.Params()).With(p11.CKA_EC_POINT, pkix.DERPoint(unhex(t, point)))
		return signed(key, g.hash.ECDSA, nil)
	case "ed25519", "ed448":
		c := wycheCurve(t, g.PublicKey["curve"])
		point, _ := g.PublicKey["pk"].(string)
		key := template("class=public-key key-type=ec-edwards token=false verify=true").With(p11.CKA_EC_PARAMS, c.Params()).With(p11.CKA_EC_POINT, unhex(t, point))
		return signed(key, p11.CKM_EDDSA, nil)
	case "dsa":
		numbers := map[string]p11.AttributeType{"p": p11.CKA_PRIME, "q": p11.CKA_SUBPRIME, "g": p11.CKA_BASE, "y": p11.CKA_VALUE}
		return signed(keyOf(t, p11.CKK_DSA, "verify", g.PublicKey, numbers).With(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY)), g.hash.DSA, nil)
	case "ecdh":
		return g.agreement(t, v, p11.CKK_EC)
	case "x25519", "x448":
		return g.agreement(t, v, p11.CKK_EC_MONTGOMERY)
	case "hkdf":
		p := &p11.HKDFParams{Extract: true, Expand: true, Hash: g.hash.Type, Salt: unhex(t, v.Salt), Info: unhex(t, v.Info), SaltType: uint64(p11.CKF_HKDF_SALT_DATA)}
		return &wycheCase{key: secretKey(t, p11.CKK_HKDF, v.IKM, "derive"), m: p11.Mechanism{Type: p11.CKM_HKDF_DERIVE, Param: p}, call: "deriveby", want: v.OKM, size: v.Size}
	case "pbkdf2":
		prf := map[p11.MechanismType]p11.PBKDF2PRF{p11.CKM_SHA_1: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, p11.CKM_SHA256: p11.CKP_PKCS5_PBKD2_HMAC_SHA256, p11.CKM_SHA512: p11.CKP_PKCS5_PBKD2_HMAC_SHA512}[g.hash.Type]
		p := &p11.PBKD2Params{Salt: unhex(t, v.Salt), Iterations: v.Iterations, PRF: prf, Password: unhex(t, v.Password)}
		return &wycheCase{m: p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: p}, call: "generate", want: v.DK, size: v.DKLen}
	case "rsa":
		return g.rsaCase(t, name, v, signed)
	}
	t.Fatalf("no test for %s", name)
	return nil
}

func (g *wycheGroup) rsaCase(t *testing.T, name string, v *wycheVector, signed func(p11.Attributes, p11.MechanismType, p11.Param) *wycheCase) *wycheCase {
	t.Helper()
	switch mgf := p11.MGFOf(wycheHashes[g.MGFSHA]); {
	case strings.HasPrefix(name, "rsa_signature"):
		return signed(g.rsaKey(t, "verify"), g.hash.PKCS1, nil)
	case strings.HasPrefix(name, "rsa_pss"):
		return signed(g.rsaKey(t, "verify"), g.hash.PSS, &p11.PSSParams{Hash: g.hash.Type, MGF: mgf, SaltLen: g.SaltLen})
	case strings.HasPrefix(name, "rsa_oaep"):
		p := &p11.OAEPParams{Hash: g.hash.Type, MGF: mgf, Label: unhex(t, v.Label)}
		return &wycheCase{key: g.rsaKey(t, "decrypt"), m: p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: p}, call: "decrypt", data: v.CT, want: wordOf(v.Msg)}
	case strings.HasSuffix(name, "sig_gen"):
		return &wycheCase{key: g.rsaKey(t, "sign"), m: p11.Mechanism{Type: g.hash.PKCS1}, call: "sign", data: v.Msg, want: v.Sig}
	}
	return &wycheCase{key: g.rsaKey(t, "decrypt"), m: p11.Mechanism{Type: p11.CKM_RSA_PKCS}, call: "decrypt", data: v.CT, want: wordOf(v.Msg), random: true}
}

// agreement derives the secret of two points; a whole SubjectPublicKeyInfo that is none
// of the curve asks nothing.
func (g *wycheGroup) agreement(t *testing.T, v *wycheVector, kt p11.KeyType) *wycheCase {
	t.Helper()
	c, point := wycheCurve(t, g.Curve), v.Public
	if g.Encoding == "asn" {
		public, err := pkix.PublicAttributes(unhex(t, v.Public))
		if err != nil {
			return nil
		}
		params, _ := public.Get(p11.CKA_EC_PARAMS)
		if of, err := pkix.CurveOf(params); err != nil || of.Name != c.Name {
			return nil
		}
		b, _ := public.Get(p11.CKA_EC_POINT)
		point = fmt.Sprintf("%x", b)
	}
	value := unhex(t, strings.Repeat("0", len(v.Private)%2)+v.Private)
	key := template("class=private-key token=false derive=true").With(p11.CKA_KEY_TYPE, p11.Ulong(kt)).With(p11.CKA_EC_PARAMS, c.Params()).With(p11.CKA_VALUE, value)
	return &wycheCase{key: key, m: p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE}, call: "derive", data: point, want: v.Shared, size: uint64(c.Size())}
}

// wordOf is bytes in hexadecimal as an answer has them.
func wordOf(hexed string) string {
	if hexed == "" {
		return "-"
	}
	return hexed
}
