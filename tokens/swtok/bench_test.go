package swtok

import (
	"crypto"
	"fmt"
	"math/big"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

func benchSign(b *testing.B, c *Crypto, m p11.Mechanism, key *tokens.Object) {
	data := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Begin(b.Context(), p11.CKF_SIGN, m, key)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Update(b.Context(), data); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Final(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

func BenchmarkSign(b *testing.B) {
	for _, p := range providers(b) {
		c := NewCrypto(p, nil)
		for _, bits := range []int{2048, 3072} {
			b.Run(fmt.Sprintf("%s/rsa-%d", p.Name(), bits), func(b *testing.B) {
				_, key := generatedRSA(b, c, bits)
				benchSign(b, c, p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, key)
			})
		}
		b.Run(p.Name()+"/p256", func(b *testing.B) {
			_, key := generatedEC(b, c, testCurves()[0])
			benchSign(b, c, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, key)
		})
	}
}

// BenchmarkRawSign is what the library alone takes for BenchmarkSign's
// RSA-2048 and P-256.
func BenchmarkRawSign(b *testing.B) {
	for _, p := range providers(b) {
		digest := make([]byte, crypto.SHA256.Size())
		b.Run(p.Name()+"/rsa-2048", func(b *testing.B) {
			n, err := p.GenerateRSA(b.Context(), 2048, big.NewInt(defaultExponent))
			if err != nil {
				b.Fatal(err)
			}
			k, err := p.NewRSAPrivateKey(n)
			if err != nil {
				b.Fatal(err)
			}
			sha256, _ := p11.HashOf(p11.CKM_SHA256)
			tbs := append(pkix.DigestInfoPrefix(sha256), digest...)
			for b.Loop() {
				if _, err := k.SignPKCS1(tbs); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(p.Name()+"/p256", func(b *testing.B) {
			d, q, err := p.GenerateEC(testCurves()[0])
			if err != nil {
				b.Fatal(err)
			}
			k, err := p.NewECPrivateKey(testCurves()[0], d, q)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := k.Sign(digest); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCipher(b *testing.B) {
	for _, p := range providers(b) {
		c := NewCrypto(p, nil)
		for _, mode := range []struct {
			name string
			m    p11.Mechanism
		}{
			{"gcm", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), TagBits: 128}}},
			{"cbc-pad", p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}},
			{"stream", streamMechanism()},
			{"ctr", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 128}}},
		} {
			for _, size := range []int{16, 4 << 10, 128 << 10, 8 << 20} {
				b.Run(fmt.Sprintf("%s/%s/%d", p.Name(), mode.name, size), func(b *testing.B) {
					key := tokentest.Secret(b, p11.CKK_AES, make([]byte, 32))
					data := make([]byte, size)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						op, err := c.Begin(b.Context(), p11.CKF_ENCRYPT, mode.m, key)
						if err != nil {
							b.Fatal(err)
						}
						if _, err := op.Update(b.Context(), data); err != nil {
							b.Fatal(err)
						}
						if _, err := op.Final(b.Context(), nil); err != nil {
							b.Fatal(err)
						}
						op.Close()
					}
				})
			}
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	c := NewCrypto(GoProvider(), nil)
	data := make([]byte, 128<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		d, err := c.Begin(b.Context(), p11.CKF_DIGEST, p11.Mechanism{Type: p11.CKM_SHA256}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Update(b.Context(), data); err != nil {
			b.Fatal(err)
		}
		if _, err := d.Final(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		d.Close()
	}
}
