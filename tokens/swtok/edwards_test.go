package swtok

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// octetKeys is the pair of a private key, with the point as it is.
func octetKeys(t *testing.T, curve p11.Curve, private, public []byte) (pub, priv *tokens.Object) {
	t.Helper()
	params := p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}
	return tokentest.Key(t, p11.CKO_PUBLIC_KEY, curve.KeyType, params, p11.Attribute{Type: p11.CKA_EC_POINT, Value: public}),
		tokentest.Key(t, p11.CKO_PRIVATE_KEY, curve.KeyType, params, tokentest.Value(private))
}

func generatedOctet(t testing.TB, c *Crypto, name string) (pub, priv *tokens.Object) {
	t.Helper()
	curve, ok := p11.CurveNamed(name)
	if !ok {
		t.Fatalf("no curve %s", name)
	}
	m := map[p11.KeyType]p11.MechanismType{
		p11.CKK_EC_EDWARDS: p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKK_EC_MONTGOMERY: p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
	}[curve.KeyType]
	return generatedPair(t, c, m, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
}

func TestRFC8032(t *testing.T) {
	b, err := os.ReadFile("testdata/rfc8032.txt")
	if err != nil {
		t.Fatal(err)
	}
	schemes := make(map[string]int)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		for i := range f {
			f[i] = strings.TrimPrefix(f[i], "-")
		}
		schemes[fmt.Sprint(f[0], f[1], f[2] != "")]++
		msg, sig := tokentest.Hex(t, f[5]), tokentest.Hex(t, f[6])
		pub, priv := octetKeys(t, curveNamed(t, f[0]), tokentest.Hex(t, f[3]), tokentest.Hex(t, f[4]))
		m := p11.Mechanism{Type: p11.CKM_EDDSA}
		if f[1] == "ph" || f[2] != "" {
			m.Param = &p11.EdDSAParams{Prehash: f[1] == "ph", Context: tokentest.Hex(t, f[2])}
		}
		eachProvider(t, func(t *testing.T, c *Crypto) {
			got, err := signAll(c, m, copyKey(t, priv), msg)
			if err := same(got, sig, err); err != nil {
				t.Errorf("%s: %v", line, err)
			}
			if err := verifyAll(c, m, copyKey(t, pub), msg, sig); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		})
	}
	if len(schemes) != 7 {
		t.Errorf("the file has %v", schemes)
	}
}

// The test vectors of RFC 7748 §6: two private keys with their public keys, and what
// they share.
func TestRFC7748(t *testing.T) {
	for name, v := range map[string][5]string{
		"x25519": {
			"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
			"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
			"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
		},
		"x448": {
			"9a8f4925d1519f5775cf46b04b5800d4ee9ee8bae8bc5565d498c28dd9c9baf574a9419744897391006382a6f127ab1d9ac2d8c0a598726b",
			"9b08f7cc31b7e3e67d22d5aea121074a273bd2b83de09c63faa73d2c22c5d9bbc836647241d953d40c5b12da88120d53177f80e532c41fa0",
			"1c306a7ac2a0e2e0990b294470cba339e6453772b075811d8fad0d1d6927c120bb5ee8972b0d3e21374c9c921b09d1b0366f10b65173992d",
			"3eb7a829b0cd20f5bcfc0b599b6feccf6da4627107bdb0d4f345b43027d8b972fc3e34fb4232a13ca706dcb57aec3dae07bdc1c67bf33609",
			"07fff4181ac6cc95ec1c16a94a0f74d12da232ce40a77552281d282bb60c0b56fd2464c335543936521c24403085d59a449a5037514a879d",
		},
	} {
		var b [5][]byte
		for i := range v {
			b[i] = tokentest.Hex(t, v[i])
		}
		curve := curveNamed(t, name)
		for _, pair := range [][2][]byte{{b[0], b[1]}, {b[2], b[3]}} {
			if got, err := pkix.OctetPublic(curve, pair[0]); err != nil || !bytes.Equal(got, pair[1]) {
				t.Errorf("%s: the public key is %x, %v", name, got, err)
			}
		}
		_, priv := octetKeys(t, curve, b[0], b[1])
		eachProvider(t, func(t *testing.T, c *Crypto) {
			// As PKCS#11 has had it: bare, in an OCTET STRING, in a BIT STRING.
			bits := append([]byte{3, byte(len(b[3]) + 1), 0}, b[3]...)
			for _, public := range [][]byte{b[3], pkix.DERPoint(b[3]), bits} {
				out, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{
					KDF: p11.CKD_NULL, PublicData: public,
				}}, copyKey(t, priv), secretTemplate(p11.CKK_GENERIC_SECRET, 0))
				if err != nil {
					t.Fatal(err)
				}
				if got := value(t, out, p11.CKA_VALUE); !bytes.Equal(got, b[4]) {
					t.Errorf("%s: shared is %x", name, got)
				}
			}
		})
	}
}

func TestEdDSARules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		_, ed25519 := generatedOctet(t, c, "ed25519")
		ed448Pub, ed448 := generatedOctet(t, c, "ed448")
		_, x25519 := generatedOctet(t, c, "x25519")
		_, ec := generatedEC(t, c, testCurves()[0])
		ctx := func(ph bool, n int) *p11.EdDSAParams { return &p11.EdDSAParams{Prehash: ph, Context: make([]byte, n)} }
		for _, test := range []struct {
			name  string
			param p11.Param
			key   *tokens.Object
			data  int
			want  p11.RV
		}{
			{"nothing", nil, ed25519, 0, p11.CKR_OK},
			{"no context", ctx(false, 0), ed25519, 9, p11.CKR_OK},
			{"a context of 255 bytes", ctx(false, 255), ed25519, 9, p11.CKR_OK},
			{"a context of 256 bytes", ctx(false, 256), ed448, 9, p11.CKR_MECHANISM_PARAM_INVALID},
			{"the most", nil, ed448, maxHeld, p11.CKR_OK},
			{"more", nil, ed448, maxHeld + 1, p11.CKR_DATA_LEN_RANGE},
			{"more, prehashed", ctx(true, 0), ed25519, maxHeld + 1, p11.CKR_OK},
			{"a parameter of bytes", p11.RawParam("abc"), ed25519, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"a parameter of another type", p11.IV("abc"), ed25519, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"a public key", nil, ed448Pub, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"a key of X25519", nil, x25519, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"a key of P-256", nil, ec, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
		} {
			t.Run(test.name, func(t *testing.T) {
				if test.data >= maxHeld && testing.Short() {
					t.Skip("long data")
				}
				m := p11.Mechanism{Type: p11.CKM_EDDSA, Param: test.param}
				err := m.Validate() // as the engine does
				var sig []byte
				if err == nil {
					var s tokentest.Signature
					if s, err = c.Sign(t.Context(), m, test.key); err == nil {
						defer s.Close()
						if err = s.Update(make([]byte, test.data)); err == nil {
							sig, err = s.Final()
						}
					}
				}
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
				if err == nil && len(sig) != 64 && len(sig) != 114 {
					t.Errorf("%d bytes", len(sig))
				}
			})
		}
	})
}

// The five schemes, and each context, are different ones.
func TestEdDSASchemes(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, curve := range []string{"ed25519", "ed448"} {
		pub, priv := generatedOctet(t, c, curve)
		var params []p11.Param
		for _, ph := range []bool{false, true} {
			for _, context := range []string{"", "a", "b"} {
				params = append(params, &p11.EdDSAParams{Prehash: ph, Context: []byte(context)})
			}
		}
		for i, p := range params {
			sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_EDDSA, Param: p}, priv, []byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			for j, q := range append(params, nil) {
				pure := i == 0 && j == len(params)
				if err := verifyAll(c, p11.Mechanism{Type: p11.CKM_EDDSA, Param: q}, pub, []byte("message"), sig); (err == nil) != (i == j || pure) {
					t.Errorf("%s: signed with %+v, verified with %+v: %v", curve, p, q, err)
				}
			}
		}
	}
}

func TestGenerateOctet(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		named := func(s string) []byte { return append([]byte{0x13, byte(len(s))}, s...) }
		for _, test := range []struct {
			name   string
			m      p11.MechanismType
			params []byte
			want   p11.RV
			curve  string
		}{
			{"Ed25519", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, []byte("\x06\x03\x2b\x65\x70"), p11.CKR_OK, "ed25519"},
			{"Ed448", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, []byte("\x06\x03\x2b\x65\x71"), p11.CKR_OK, "ed448"},
			{"X25519", p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, []byte("\x06\x03\x2b\x65\x6e"), p11.CKR_OK, "x25519"},
			{"X448", p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, []byte("\x06\x03\x2b\x65\x6f"), p11.CKR_OK, "x448"},
			{"Ed25519 by name", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, named("edwards25519"), p11.CKR_OK, "ed25519"},
			{"Ed448 by name", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, named("edwards448"), p11.CKR_OK, "ed448"},
			{"X25519 by name", p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, named("curve25519"), p11.CKR_OK, "x25519"},
			{"X448 by name", p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, named("curve448"), p11.CKR_OK, "x448"},
			{"X25519 for signing", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, named("curve25519"), p11.CKR_DOMAIN_PARAMS_INVALID, ""},
			{"P-256", p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, testCurves()[0].Params(), p11.CKR_DOMAIN_PARAMS_INVALID, ""},
			{"Ed25519 for ECDSA", p11.CKM_EC_KEY_PAIR_GEN, named("edwards25519"), p11.CKR_CURVE_NOT_SUPPORTED, ""},
			{"an unknown OID", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, []byte("\x06\x03\x2b\x65\x72"), p11.CKR_CURVE_NOT_SUPPORTED, ""},
			{"an unknown name", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, named("edwards"), p11.CKR_CURVE_NOT_SUPPORTED, ""},
			{"nothing", p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, nil, p11.CKR_TEMPLATE_INCOMPLETE, ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				var template p11.Attributes
				if test.params != nil {
					template.Set(p11.CKA_EC_PARAMS, test.params)
				}
				a, b, err := c.GenerateKeyPair(t.Context(), p11.Mechanism{Type: test.m}, template, nil)
				if got := p11.RVOf(err); got != test.want {
					t.Fatalf("got %v (%v), want %v", got, err, test.want)
				}
				if err != nil {
					return
				}
				curve := curveNamed(t, test.curve)
				point, err := pkix.OctetPublic(curve, value(t, b, p11.CKA_VALUE))
				if err != nil || !bytes.Equal(pkix.DERPoint(point), value(t, a, p11.CKA_EC_POINT)) {
					t.Errorf("the keys are no pair: %v", err)
				}
				if !bytes.Equal(value(t, a, p11.CKA_EC_PARAMS), curve.Params()) {
					t.Errorf("the curve is %x", value(t, a, p11.CKA_EC_PARAMS))
				}
			})
		}
	})
}

// What one provider signs, the others sign likewise and verify, whatever its length; so
// does the openssl program, for which a message costs two processes, with a part of them.
func TestEdDSAAgainstOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl")
	}
	const each = 25
	count := 500 // for each curve
	if testing.Short() {
		count = 2 * each
	}
	dir := t.TempDir()
	write := func(name string, b []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	openssl := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v, %s", strings.Join(args, " "), err, out)
		}
	}
	m := p11.Mechanism{Type: p11.CKM_EDDSA}
	var all []*Crypto
	for _, p := range providers(t) {
		all = append(all, NewCrypto(p, nil))
	}
	for g, generator := range all {
		for _, curve := range []string{"ed25519", "ed448"} {
			pub, priv := generatedOctet(t, generator, curve)
			pubPEM, err := pkix.PublicPEM(attributes(t, pub))
			pubFile := write("pub", pubPEM, err)
			der, err := pkix.EncodePrivateKey(attributes(t, priv))
			keyFile := write("key", der, err)
			for i := g; i < count; i += len(all) {
				msg := bytes.Repeat([]byte{byte(i)}, i+1) // it signs no empty file
				ours, err := signedAlike(all, m, pub, priv, msg)
				if err != nil {
					t.Errorf("%s: %d bytes: %v", curve, len(msg), err)
				}
				if i%each >= len(all) {
					continue
				}
				sigFile, msgFile := write("sig", ours, nil), write("msg", msg, nil)
				openssl("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", pubFile, "-in", msgFile, "-sigfile", sigFile)
				openssl("pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", keyFile, "-in", msgFile, "-out", sigFile)
				theirs, err := os.ReadFile(sigFile)
				if err != nil || !bytes.Equal(theirs, ours) {
					t.Errorf("%s: openssl signs otherwise: %v", curve, err)
				}
			}
		}
	}
}

// signedAlike is the signature of a message that all make and verify, or how they differ.
func signedAlike(all []*Crypto, m p11.Mechanism, pub, priv *tokens.Object, msg []byte) (ours []byte, failed error) {
	for _, c := range all {
		sig, err := signAll(c, m, priv, msg)
		if ours == nil {
			ours = sig
		}
		failed = errors.Join(failed, same(sig, ours, err), verifyAll(c, m, pub, msg, ours))
	}
	return ours, failed
}

// attributes are a copy of an object's.
func attributes(t *testing.T, o *tokens.Object) p11.Attributes {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return a.Clone()
}
