package swtok

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

func point(t *testing.T, pub *tokens.Object) []byte {
	t.Helper()
	a, err := pub.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Release()
	return bytes.Clone(value(t, a, p11.CKA_EC_POINT))
}

// The vector of ANSI X9.63 with SHA-256 in NIST's CAVS 12.0 files.
func TestX963(t *testing.T) {
	got, err := stretcher{hash: crypto.SHA256}.key(tokentest.Hex(t, "96c05619d56c328ab95fe84b18264b08725b85e33fd34f08"), 16, p11.CKK_GENERIC_SECRET)
	if err != nil || fmt.Sprintf("%x", got) != "443024c3dae66b95e6f5670601558f71" {
		t.Errorf("%x, %v", got, err)
	}
}

// oneStep is a key derivation of ANSI X9.63 or NIST SP 800-56C, as a sum of sums.
func oneStep(h crypto.Hash, counterFirst bool, z, shared []byte, n int) (out []byte) {
	for i := byte(1); len(out) < n; i++ {
		count := []byte{0, 0, 0, i}
		in := slices.Concat(z, count, shared)
		if counterFirst {
			in = slices.Concat(count, z, shared)
		}
		out = append(out, sumOf(h, string(in))...)
	}
	return out[:n]
}

// TestKDFsOfOpenSSL compares what stretches a shared secret with openssl(1).
func TestKDFsOfOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	compared := 0
	for _, h := range p11.Hashes() {
		for _, kdf := range []p11.KDF{h.KDF, h.SP800} {
			if kdf == 0 || h.Go == 0 {
				continue
			}
			name := "X963KDF"
			if kdf == h.SP800 {
				name = "SSKDF"
			}
			z, shared := []byte("a shared secret"), []byte("and data")
			digest := strings.Replace(h.Go.String(), "SHA-", "SHA", 1)
			out, err := exec.Command(program, "kdf", "-binary", "-keylen", "150", "-kdfopt", "digest:"+digest,
				"-kdfopt", fmt.Sprintf("hexkey:%x", z), "-kdfopt", fmt.Sprintf("hexinfo:%x", shared), name).Output()
			if err != nil {
				t.Fatalf("openssl %s with %s: %v", name, digest, err)
			}
			got, err := stretcher{h.Go, kdf == h.SP800, shared}.key(z, 150, p11.CKK_GENERIC_SECRET)
			if err != nil || !bytes.Equal(got, out) {
				t.Errorf("%s: %x, want %x, %v", kdf, got, out, err)
			}
			compared++
		}
	}
	if compared < 18 {
		t.Errorf("only %d functions", compared)
	}
}

func TestDerive(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			t.Run(curve.Name, func(t *testing.T) {
				pubA, privA := generatedEC(t, c, curve)
				pubB, privB := generatedEC(t, c, curve)
				derive := func(base *tokens.Object, m p11.MechanismType, p *p11.ECDH1Params, template p11.Attributes) []byte {
					t.Helper()
					a, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: m, Param: p}, base, template)
					if err != nil {
						t.Fatal(err)
					}
					v := value(t, a, p11.CKA_VALUE)
					if n, _ := a.Ulong(p11.CKA_VALUE_LEN); n != uint64(len(v)) {
						t.Errorf("value-len %d of %d bytes", n, len(v))
					}
					return v
				}
				whole := secretTemplate(p11.CKK_GENERIC_SECRET, 0)
				toB, toA := &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point(t, pubB)}, &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point(t, pubA)}
				z := derive(privA, p11.CKM_ECDH1_DERIVE, toB, whole)
				if len(z) != curve.Size() {
					t.Errorf("the secret has %d bytes", len(z))
				}
				if got := derive(privB, p11.CKM_ECDH1_COFACTOR_DERIVE, toA, whole); !bytes.Equal(got, z) {
					t.Errorf("the two sides differ")
				}
				raw, _ := pkix.ECPublic(c.provider, curve, point(t, pubB))
				if got := derive(privA, p11.CKM_ECDH1_DERIVE, &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: raw}, whole); !bytes.Equal(got, z) {
					t.Errorf("a bare point gives another secret")
				}
				if got := derive(privA, p11.CKM_ECDH1_DERIVE, toB, secretTemplate(p11.CKK_AES, 16)); !bytes.Equal(got, z[len(z)-16:]) {
					t.Errorf("not the trailing bytes")
				}
				for _, h := range p11.Hashes() {
					for _, kdf := range []p11.KDF{h.KDF, h.SP800} {
						if kdf == 0 || h.Go == 0 {
							continue
						}
						p := &p11.ECDH1Params{KDF: kdf, SharedData: []byte("shared by both"), PublicData: point(t, pubB)}
						got := derive(privA, p11.CKM_ECDH1_DERIVE, p, secretTemplate(p11.CKK_GENERIC_SECRET, 200))
						if want := oneStep(h.Go, kdf == h.SP800, z, p.SharedData, 200); !bytes.Equal(got, want) {
							t.Errorf("%s differs", kdf)
						}
						if got := derive(privA, p11.CKM_ECDH1_COFACTOR_DERIVE, p, secretTemplate(p11.CKK_GENERIC_SECRET, 0)); len(got) != int(h.Size) {
							t.Errorf("%s: %d bytes", kdf, len(got))
						}
					}
				}
			})
		}
	})
}

func TestDeriveRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		other, _ := generatedEC(t, c, testCurves()[1])
		good := point(t, r.ecPub)
		off := bytes.Clone(good)
		off[len(off)-1] ^= 1
		whole := secretTemplate(p11.CKK_GENERIC_SECRET, 0)
		for _, test := range []struct {
			name     string
			p        p11.Param
			base     *tokens.Object
			template p11.Attributes
			want     p11.RV
		}{
			{"no parameters", nil, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"unknown KDF", &p11.ECDH1Params{KDF: 99, PublicData: good}, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"shared data without KDF", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good, SharedData: []byte{1}}, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"no point", &p11.ECDH1Params{KDF: p11.CKD_NULL}, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"point off the curve", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: off}, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"point of another curve", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point(t, other)}, r.ecPriv, whole, p11.CKR_MECHANISM_PARAM_INVALID},
			{"public key", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.ecPub, whole, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"RSA key", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.rsaPriv, whole, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"empty template", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.ecPriv, nil, p11.CKR_TEMPLATE_INCOMPLETE},
			{"private key", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.ecPriv, privateTemplate(p11.CKK_EC), p11.CKR_TEMPLATE_INCONSISTENT},
			{"longer than the secret", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.ecPriv, secretTemplate(p11.CKK_GENERIC_SECRET, 33), p11.CKR_KEY_SIZE_RANGE},
			{"AES of no length, no natural one", &p11.ECDH1Params{KDF: p11.CKD_SHA1_KDF, PublicData: good}, r.ecPriv, secretTemplate(p11.CKK_AES, 0), p11.CKR_TEMPLATE_INCOMPLETE},
			{"AES of natural length", &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: good}, r.ecPriv, secretTemplate(p11.CKK_AES, 0), p11.CKR_OK},
			{"absurd length", &p11.ECDH1Params{KDF: p11.CKD_SHA256_KDF, PublicData: good}, r.ecPriv, secretTemplate(p11.CKK_GENERIC_SECRET, 1<<40), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		} {
			t.Run(test.name, func(t *testing.T) {
				m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: test.p}
				err := m.Validate() // as the engine does
				if err == nil {
					_, err = c.DeriveKey(t.Context(), m, test.base, test.template)
				}
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
	})
}

// TestPBKDF2IsBounded: the iterations of a long key are those of each of its parts.
func TestPBKDF2IsBounded(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, tt := range []struct {
		iterations, n uint64
		want          p11.RV
	}{{1000, 64, p11.CKR_OK}, {5_000_000, 64, p11.CKR_MECHANISM_PARAM_INVALID}, {10_000_000, 64 << 10, p11.CKR_MECHANISM_PARAM_INVALID}} {
		m := p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: &p11.PBKD2Params{
			Salt: []byte("salt"), Iterations: tt.iterations, PRF: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, Password: []byte("password"),
		}}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		_, err := c.GenerateKey(t.Context(), m, secretTemplate(p11.CKK_GENERIC_SECRET, tt.n))
		if got := p11.RVOf(err); got != tt.want {
			t.Errorf("%d iterations for %d bytes: %v, want %v", tt.iterations, tt.n, err, tt.want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	m := p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: &p11.PBKD2Params{
		Salt: []byte("salt"), Iterations: 1_000_000, PRF: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, Password: []byte("password"),
	}}
	if _, err := c.GenerateKey(ctx, m, secretTemplate(p11.CKK_GENERIC_SECRET, 20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that nobody waits for: %v", err)
	}
}
