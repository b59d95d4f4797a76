package integration

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/wycheproof"
)

// TestWycheproofDoors puts some vectors of each file of the sample, valid and invalid
// ones, to the mount and to libp11fs.so: the key comes in as an application brings it, the
// parameters as a file's name or as C structs. The verdict is the vector's. All of the
// sample, and the full set, run in the package engine.
func TestWycheproofDoors(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	d := startDaemon(t, daemonConfig{binary: plainBinary(t), args: []string{"--open-token"}})
	r := &rig{t: t, so: soPIN, errnos: docErrnos(t), met: map[string]bool{}}
	r.a = &application{r, newOrders(t, d, "p11io", "conformance", d.path())}
	r.b = &application{r, newOrders(t, d, "sh", "-c", moduleApplication, "sh", ownModule(t))}
	r.reset()
	mount, module := r.a.opened(), r.b.opened()
	pair := mount.call("pair", mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN), words("token=false modulus-bits=2048 public-exponent=0x010001"), words("token=false unwrap=true")).must()
	transport := &rsa.PublicKey{N: new(big.Int).SetBytes(unhex(t, mount.get(pair.values[0], p11.CKA_MODULUS).one())), E: 0x10001}

	provider := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	for _, file := range wycheproof.Sample(t) {
		t.Run(file.Name, func(t *testing.T) {
			cases := wycheSample(file)
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
					for _, c := range cases {
						if door.name == "mount" && noFile(c) {
							continue
						}
						ran[c.Result]++
						got, want := runCase(t, c, door.s, door.create), c.Result == "valid"
						if !want && c.Random && got.rv == p11.CKR_OK && got.values[0] != wordOf(c.Want) {
							continue
						}
						if got.kernel != "" || (got.rv == p11.CKR_OK) != want || !want && !wycheRefusal(got.rv) {
							t.Errorf("%s: %s", c, got)
						} else if want && c.Use != p11.CKF_VERIFY && got.values[0] != wordOf(c.Want) {
							t.Errorf("%s: %s, want %x", c, got.values[0], c.Want)
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
func noFile(c *wycheproof.Case) bool {
	name := len(c.M.String())
	switch c.Use {
	case p11.CKF_GENERATE:
		return false
	case p11.CKF_DERIVE:
		if p, ok := c.M.Param.(*p11.ECDH1Params); ok {
			return len(p.PublicData) == 0
		}
		return name > 150 // with a template behind it
	}
	return len(c.Data)+len(c.Signature) == 0 || name > 240
}

// runCase makes the key and the call.
func runCase(t *testing.T, c *wycheproof.Case, s *handle, create func(*testing.T, p11.Attributes) answer) answer {
	t.Helper()
	made := encode(template(fmt.Sprintf("class=secret-key key-type=generic-secret value-len=%d token=false private=false sensitive=false extractable=true", c.Size)))
	m, data := mechanismWord(c.M), wordOf(c.Data)
	var key string
	if c.Key != nil {
		key = create(t, c.Key).one()
	}
	var got answer
	switch c.Use {
	case p11.CKF_VERIFY:
		return s.call("verify", key, m, data, wordOf(c.Signature))
	case p11.CKF_DECRYPT:
		return s.operate("one", "decrypt", key, m, data)
	case p11.CKF_SIGN:
		return s.operate("one", "sign", key, m, data)
	case p11.CKF_DERIVE:
		if p, ok := c.M.Param.(*p11.ECDH1Params); ok {
			got = s.call("derive", key, wordOf(p.PublicData), made)
		} else {
			got = s.call("deriveby", key, m, made)
		}
	case p11.CKF_GENERATE:
		got = s.call("generate", m, made)
	}
	if got.kernel == "" && got.rv == p11.CKR_OK {
		got = s.get(got.one(), p11.CKA_VALUE)
	}
	return got
}

// A fieldWriter writes a parameter as the applications take it.
type fieldWriter struct {
	fields      []string
	lengthFirst bool // the length of bytes is before their pointer
}

func (w *fieldWriter) put(kind string, value any) {
	w.fields = append(w.fields, fmt.Sprintf(kind, value))
}

func (w *fieldWriter) Ulong(n *uint64)            { w.put("u%x", *n) }
func (w *fieldWriter) Handle(h *p11.ObjectHandle) { w.put("u%x", uint64(*h)) }
func (w *fieldWriter) Array(b []byte)             { w.put("a%x", b) }
func (w *fieldWriter) Template(*p11.Attributes)   { panic("no template in these parameters") }
func (w *fieldWriter) Refuse(error)               {}
func (w *fieldWriter) Bytes(b *[]byte) {
	w.put(map[bool]string{false: "b%x", true: "l%x"}[w.lengthFirst], *b)
}
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
	case p11.RawParam:
		return mech(m.Type, p...)
	case p11.TLSVersion:
		return mech(m.Type, p...)
	}
	var w fieldWriter
	version := "v0000" // which is written there, but for keys of Diffie-Hellman
	if strings.HasSuffix(m.Type.Short(), "-dh") {
		version = "v"
	}
	switch p := m.Param.(type) {
	case *p11.ECDH1Params, *p11.ECDHAESKeyWrapParams, *p11.EdDSAParams:
		w.lengthFirst = true
		m.Param.Code(&w)
	case *p11.RSAAESKeyWrapParams:
		var inner fieldWriter
		p.OAEP.Code(&inner)
		w.fields = []string{fmt.Sprintf("u%x", p.AESKeyBits), "p(" + strings.Join(inner.fields, ",") + ")"}
	case *p11.CBCDataParams:
		w.fields = []string{fmt.Sprintf("a%x", p.IV), fmt.Sprintf("b%x", p.Data)}
	case *p11.ChaCha20Params: // whose lengths are in bits
		w.fields = []string{fmt.Sprintf("w%x", p.Counter), fmt.Sprintf("w%x", p.Nonce)}
	case *p11.SSL3MasterParams:
		p.Random.Code(&w)
		w.fields = append(w.fields, version)
	case *p11.TLS12MasterParams:
		p.Random.Code(&w)
		w.fields = append(w.fields, version, fmt.Sprintf("u%x", uint64(p.Hash)))
	case *p11.ExtendedMasterParams:
		w.fields = []string{fmt.Sprintf("u%x", uint64(p.Hash)), fmt.Sprintf("b%x", p.SessionHash), version}
	default:
		m.Param.Code(&w)
	}
	text := m.String()
	if p, ok := m.Param.(*p11.PBKD2Params); ok {
		text += fmt.Sprintf(",password=0x%x", p.Password) // which a printed mechanism keeps to itself
	}
	return mech(m.Type) + "=" + strings.Join(w.fields, ",") + "=" + text
}

// wycheSample takes up to three valid and three invalid vectors of a file, and of a group
// that is not the only one up to two: those that a door can be asked, a key that is none
// being refused before.
func wycheSample(f wycheproof.File) (cases []*wycheproof.Case) {
	const most = 3
	each := 2
	if len(f.Groups) == 1 {
		each = most
	}
	taken := map[string]int{}
	for _, g := range f.Groups {
		here := map[string]int{}
		for i := range g {
			c := &g[i]
			if c.Has("ZeroSharedSecret") {
				c.Result = "invalid" // as RFC 7748 §6 lets one choose
			}
			// How short r and s may be, a rule of the conformance suite says.
			if c.Result == "acceptable" || c.Refused != nil || c.Has("SignatureSize") || taken[c.Result] == most || here[c.Result] == each {
				continue
			}
			kt, _ := c.Key.KeyType()
			if value, ok := c.Key.Get(p11.CKA_VALUE); ok && kt == p11.CKK_AES && !p11.FitsKey(kt, uint64(len(value))) {
				continue
			}
			taken[c.Result]++
			here[c.Result]++
			cases = append(cases, c)
		}
	}
	return cases
}

func wycheCurve(t *testing.T, name string) p11.Curve {
	t.Helper()
	c, ok := p11.CurveNamed(name)
	if !ok {
		t.Fatalf("no curve %s", name)
	}
	return c
}

// wordOf is bytes as the applications have them.
func wordOf(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return fmt.Sprintf("%x", b)
}
