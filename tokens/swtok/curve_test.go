package swtok

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

var curveSignatures = flag.Int("signatures", 0, "make this many signatures with each curve in TestCurveSignatures, also under -short or the race detector")

// TestCurveSignatures signs with every curve and has another library check it: Go's
// library, where it has the curve, and libcrypto, for r and s of all lengths; and a few
// with the program openssl. There are 2,000 signatures with each curve, 100 under -short
// or the race detector, or as many as -signatures says.
func TestCurveSignatures(t *testing.T) {
	signatures := 2000
	if *curveSignatures > 0 {
		signatures = *curveSignatures
	} else if testing.Short() || archiveStride > 1 {
		signatures = 100
	}
	checkers := providers(t)
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			t.Run(curve.Name, func(t *testing.T) {
				pub, priv := generatedEC(t, c, curve)
				var public []ECPublicKey
				for _, p := range checkers {
					if p.HasCurve(curve) {
						encoded, _ := pkix.ECPublic(p, curve, point(t, pub))
						k, err := p.NewECPublicKey(curve, encoded)
						if err != nil {
							t.Fatal(err)
						}
						public = append(public, k)
					}
				}
				var short [2]int // r and s that begin with a zero
				n := curve.Size()
				// r or s is not short in one of 2,000 tests: then some more are made.
				for i := 0; i < signatures || signatures >= 2000 && min(short[0], short[1]) == 0 && i < 10*signatures; i++ {
					digest := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
					sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_ECDSA}, priv, digest[:])
					if err != nil || len(sig) != 2*n {
						t.Fatalf("%x, %v", sig, err)
					}
					for half, at := range []int{0, n} {
						if sig[at] == 0 {
							short[half]++
						}
					}
					der, err := pkix.ECDSARawToDER(sig)
					for _, k := range public {
						if err != nil || !k.Verify(digest[:], der) {
							t.Fatalf("signature %x: %v", sig, err)
						}
					}
					if i < 3 {
						opensslVerifies(t, pub, digest[:], der)
					}
				}
				if signatures >= 2000 && (short[0] == 0 || short[1] == 0) {
					t.Errorf("r began with a zero %d times, s %d times", short[0], short[1])
				}
			})
		}
	})
}

// opensslVerifies has openssl(1) check the signature of a digest.
func opensslVerifies(t *testing.T, pub *tokens.Object, digest, der []byte) {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	a, err := pub.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := pkix.PublicPEM(a)
	pub.Release()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"key": pem, "digest": digest, "sig": der} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-sigfile", "sig", "-in", "digest")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
}

// TestCurveHashes signs data with each hash on each curve, and checks the signature over
// the digest, of which the leftmost bits count (FIPS 186-5 §6.4).
func TestCurveHashes(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			pub, priv := generatedEC(t, c, curve)
			for _, h := range p11.Hashes() {
				if h.Go == 0 || h.ECDSA == 0 {
					continue
				}
				sig, err := signAll(c, p11.Mechanism{Type: h.ECDSA}, priv, []byte("data"))
				if err != nil {
					t.Fatalf("%s on %s: %v", h.ECDSA.Short(), curve.Name, err)
				}
				for _, use := range []struct {
					m    p11.MechanismType
					data []byte
				}{{h.ECDSA, []byte("data")}, {p11.CKM_ECDSA, sumOf(h.Go, "data")}} {
					if err := verifyAll(c, p11.Mechanism{Type: use.m}, pub, use.data, sig); err != nil {
						t.Errorf("%s on %s: %s: %v", h.ECDSA.Short(), curve.Name, use.m.Short(), err)
					}
				}
				if err := verifyAll(c, p11.Mechanism{Type: h.ECDSA}, pub, []byte("date"), sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
					t.Errorf("%s on %s: other data: %v", h.ECDSA.Short(), curve.Name, err)
				}
			}
		}
	})
}

func sumOf(h crypto.Hash, data string) []byte {
	d := h.New()
	d.Write([]byte(data))
	return d.Sum(nil)
}

// TestAdoptCurve is the creation of keys on every curve: what belongs to a key is checked
// and added, whether Go's library has the curve or not.
func TestAdoptCurve(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			pub, priv := generatedEC(t, c, curve)
			other, _ := generatedEC(t, c, curve)
			whole, scalar := point(t, pub), attributeOf(t, priv, p11.CKA_VALUE)
			raw := whole[len(whole)-1-2*curve.Size():]
			compressed := slices.Concat([]byte{2 + raw[len(raw)-1]&1}, raw[1:1+curve.Size()])
			off := bytes.Clone(whole)
			off[len(off)-1] ^= 1
			key := func(class p11.ObjectClass, more ...p11.Attribute) p11.Attributes {
				return append(p11.Attributes{
					{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_EC)},
					{Type: p11.CKA_EC_PARAMS, Value: curve.Params()},
				}, more...)
			}
			at := func(b []byte) p11.Attribute { return p11.Attribute{Type: p11.CKA_EC_POINT, Value: b} }
			for _, test := range []struct {
				name string
				key  p11.Attributes
				want p11.RV
			}{
				{"public", key(p11.CKO_PUBLIC_KEY, at(whole)), p11.CKR_OK},
				{"bare point", key(p11.CKO_PUBLIC_KEY, at(raw)), p11.CKR_OK},
				{"compressed point", key(p11.CKO_PUBLIC_KEY, at(pkix.DERPoint(compressed))), p11.CKR_OK},
				{"bare compressed point", key(p11.CKO_PUBLIC_KEY, at(compressed)), p11.CKR_OK},
				{"private", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar)), p11.CKR_OK},
				{"zeros in front", key(p11.CKO_PRIVATE_KEY, tokentest.Value(slices.Concat([]byte{0, 0}, scalar))), p11.CKR_OK},
				{"private with its point", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar), at(raw)), p11.CKR_OK},
				{"point off the curve", key(p11.CKO_PUBLIC_KEY, at(off)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"point at infinity", key(p11.CKO_PUBLIC_KEY, at([]byte{4, 1, 0})), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"private with another's point", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar), at(point(t, other))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"no key", key(p11.CKO_PRIVATE_KEY, tokentest.Value(make([]byte, curve.Size()))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"above the order", key(p11.CKO_PRIVATE_KEY, tokentest.Value(bytes.Repeat([]byte{255}, curve.Size()))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"too long", key(p11.CKO_PRIVATE_KEY, tokentest.Value(slices.Concat([]byte{1}, scalar))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			} {
				a, err := c.Adopt(t.Context(), test.key)
				if p11.RVOf(err) != test.want {
					t.Errorf("%s, %s: %v, want %v", curve.Name, test.name, err, test.want)
				}
				if err != nil {
					continue
				}
				if got, _ := a.Get(p11.CKA_EC_POINT); !bytes.Equal(got, whole) {
					t.Errorf("%s, %s: the point is %x, want %x", curve.Name, test.name, got, whole)
				}
				if !a.Has(p11.CKA_PUBLIC_KEY_INFO) {
					t.Errorf("%s, %s: no public key info", curve.Name, test.name)
				}
			}
		}
	})
}

// attributeOf is a copy of an attribute of an object.
func attributeOf(t *testing.T, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return bytes.Clone(value(t, a, at))
}

// TestCurvePEM imports the keys that openssl makes, and wraps and unwraps them.
func TestCurvePEM(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			group := map[string]string{"secp192r1": "prime192v1", "secp256r1": "prime256v1"}[curve.Name]
			if group == "" {
				group = curve.Name
			}
			file, err := exec.Command(program, "genpkey", "-algorithm", "EC", "-pkeyopt", "group:"+group).Output()
			if err != nil {
				t.Fatalf("%s: %v", group, err)
			}
			keys, err := pkix.Parse(pkix.Auto, file, pkix.Options{})
			if err != nil || len(keys) != 2 {
				t.Fatalf("%s: %d keys, %v", group, len(keys), err)
			}
			var objects []*tokens.Object
			for _, a := range keys {
				whole, err := c.Adopt(t.Context(), a.Clone())
				if err != nil {
					t.Fatalf("%s: %v", group, err)
				}
				objects = append(objects, tokentest.Object(t, whole))
			}
			sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, objects[0], []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(c, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, objects[1], []byte("data"), sig); err != nil {
				t.Errorf("%s: %v", group, err)
			}
			kek := tokentest.Secret(t, p11.CKK_AES, make([]byte, 32))
			wrapped, err := c.WrapKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, kek, objects[0])
			if err != nil {
				t.Fatal(err)
			}
			back, err := c.UnwrapKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, kek, wrapped, privateTemplate(p11.CKK_EC))
			if err != nil || !bytes.Equal(value(t, back, p11.CKA_VALUE), attributeOf(t, objects[0], p11.CKA_VALUE)) {
				t.Errorf("%s: unwrapped: %v", group, err)
			}
		}
	})
}
