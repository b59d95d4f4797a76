package swtok

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// rejections are ciphertexts of PKCS#1 v1.5, most of them with wrong padding, and what
// OpenSSL makes of them.
type rejections []struct {
	PKCS8 string `json:"pkcs8"`
	Tests []struct{ Name, CT, Msg string }
}

func readRejections(t testing.TB) rejections {
	t.Helper()
	b, err := os.ReadFile("testdata/pkcs1_rejection.json")
	if err != nil {
		t.Fatal(err)
	}
	var r rejections
	if err := json.Unmarshal(b, &r); err != nil || len(r) == 0 {
		t.Fatal(err)
	}
	return r
}

// privateOf is the private key of a PrivateKeyInfo.
func privateOf(t testing.TB, der string) *tokens.Object {
	t.Helper()
	a, err := pkix.DecodePrivateKey(tokentest.Hex(t, der))
	if err != nil {
		t.Fatal(err)
	}
	return tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA, a...)
}

// Wrong padding gives the message that OpenSSL makes up.
func TestImplicitRejection(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, r := range readRejections(t) {
			key := privateOf(t, r.PKCS8)
			for _, test := range r.Tests {
				got, err := decryptAll(c, p11.Mechanism{Type: p11.CKM_RSA_PKCS}, key, tokentest.Hex(t, test.CT))
				if err := same(got, tokentest.Hex(t, test.Msg), err); err != nil {
					t.Errorf("%s: %x, %v", test.Name, got, err)
				}
			}
		}
	})
}

// Unwrapping never says what was wrapped: a wrong padding, or a key of another length,
// gives a key of the length that was asked for, and always the same one.
func TestUnwrapHides(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedRSA(t, c, 1024)
		encrypted := func(m p11.MechanismType, data []byte) []byte {
			ct, err := encryptAll(c, p11.Mechanism{Type: m}, pub, data)
			if err != nil {
				t.Fatal(err)
			}
			return ct
		}
		secret := bytes.Repeat([]byte{7}, 16)
		for _, test := range []struct {
			name     string
			m        p11.MechanismType
			wrapped  []byte
			template p11.Attributes
			lengths  []int
			real     bool
		}{
			{"right", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_PKCS, secret), secretTemplate(p11.CKK_AES, 0), []int{16}, true},
			{"right, with length", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_PKCS, secret), secretTemplate(p11.CKK_AES, 16), []int{16}, true},
			{"no padding", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_X_509, secret), secretTemplate(p11.CKK_AES, 0), []int{16, 24, 32}, false},
			{"no padding, with length", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_X_509, secret), secretTemplate(p11.CKK_AES, 16), []int{16}, false},
			{"another length", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_PKCS, secret), secretTemplate(p11.CKK_AES, 32), []int{32}, false},
			{"a length of no AES key", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_PKCS, secret[:15]), secretTemplate(p11.CKK_AES, 0), []int{16, 24, 32}, false},
			{"nothing, for a DES3 key", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_PKCS, nil), secretTemplate(p11.CKK_DES3, 0), []int{24}, false},
			{"no padding, for a generic secret", p11.CKM_RSA_PKCS, encrypted(p11.CKM_RSA_X_509, secret), secretTemplate(p11.CKK_GENERIC_SECRET, 0), nil, false},
			{"raw", p11.CKM_RSA_X_509, encrypted(p11.CKM_RSA_X_509, secret), secretTemplate(p11.CKK_AES, 16), []int{16}, true},
			{"raw, of zeros", p11.CKM_RSA_X_509, encrypted(p11.CKM_RSA_X_509, secret), secretTemplate(p11.CKK_AES, 32), []int{32}, true},
			{"raw, longer", p11.CKM_RSA_X_509, encrypted(p11.CKM_RSA_X_509, slices.Repeat(secret, 3)), secretTemplate(p11.CKK_AES, 16), []int{16}, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				var first []byte
				for range 2 {
					a, err := c.UnwrapKey(t.Context(), p11.Mechanism{Type: test.m}, priv, test.wrapped, test.template)
					if err != nil {
						t.Fatal(err)
					}
					got := value(t, a, p11.CKA_VALUE)
					if test.lengths != nil && !slices.Contains(test.lengths, len(got)) || len(got) == 0 {
						t.Errorf("a key of %d bytes", len(got))
					}
					if n := min(len(got), len(secret)); bytes.Equal(got[len(got)-n:], secret[:n]) != test.real {
						t.Errorf("the key is %x", got)
					}
					if first != nil && !bytes.Equal(got, first) {
						t.Errorf("the second time it is %x, not %x", got, first)
					}
					first = got
				}
			})
		}
		for _, test := range []struct {
			name     string
			m        p11.MechanismType
			wrapped  []byte
			template p11.Attributes
			want     p11.RV
		}{
			{"too short", p11.CKM_RSA_PKCS, make([]byte, 127), secretTemplate(p11.CKK_AES, 0), p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"above the modulus", p11.CKM_RSA_PKCS, bytes.Repeat([]byte{0xff}, 128), secretTemplate(p11.CKK_AES, 0), p11.CKR_WRAPPED_KEY_INVALID},
			{"no room", p11.CKM_RSA_PKCS, make([]byte, 128), secretTemplate(p11.CKK_GENERIC_SECRET, 118), p11.CKR_TEMPLATE_INCONSISTENT},
			{"raw, no room", p11.CKM_RSA_X_509, make([]byte, 128), secretTemplate(p11.CKK_GENERIC_SECRET, 129), p11.CKR_TEMPLATE_INCONSISTENT},
			{"raw, no length", p11.CKM_RSA_X_509, make([]byte, 128), secretTemplate(p11.CKK_AES, 0), p11.CKR_TEMPLATE_INCOMPLETE},
		} {
			t.Run(test.name, func(t *testing.T) {
				if _, err := c.UnwrapKey(t.Context(), p11.Mechanism{Type: test.m}, priv, test.wrapped, test.template); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
		}
	})
}

// BenchmarkRejection has the times of PKCS#1 v1.5 with right and with wrong padding, one
// after the other so that the machine's moods meet both: what their medians differ by is
// to be as small as what those of two right ones do.
func BenchmarkRejection(b *testing.B) {
	for _, p := range providers(b) {
		b.Run(p.Name(), func(b *testing.B) {
			c := NewCrypto(p, nil)
			pub, priv := generatedRSA(b, c, 2048)
			secret := bytes.Repeat([]byte{7}, 32)
			var cts [3][]byte
			for i, m := range []p11.MechanismType{p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS, p11.CKM_RSA_X_509} {
				var err error
				if cts[i], err = encryptAll(c, p11.Mechanism{Type: m}, pub, secret); err != nil {
					b.Fatal(err)
				}
			}
			m, template := p11.Mechanism{Type: p11.CKM_RSA_PKCS}, secretTemplate(p11.CKK_AES, 32)
			var times [3][]time.Duration
			for b.Loop() {
				for i, ct := range cts {
					start := time.Now()
					if _, err := c.UnwrapKey(b.Context(), m, priv, ct, template); err != nil {
						b.Fatal(err)
					}
					times[i] = append(times[i], time.Since(start))
				}
			}
			median := func(i int) float64 {
				slices.Sort(times[i])
				return float64(times[i][len(times[i])/2].Nanoseconds())
			}
			right, again, wrong := median(0), median(1), median(2)
			b.ReportMetric(right, "right-ns")
			b.ReportMetric(again-right, "right-right-ns")
			b.ReportMetric(wrong-right, "wrong-right-ns")
		})
	}
}
