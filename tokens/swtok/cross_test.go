package swtok

import (
	"bytes"
	"crypto"
	"math/big"
	"sync"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// copyKey is the same key as another object, to be parsed by another provider.
func copyKey(t *testing.T, o *tokens.Object) *tokens.Object {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return tokentest.Object(t, a.Clone())
}

// What one library makes, the other takes: every pair of providers, the keys
// made by the first.
func TestProvidersAgree(t *testing.T) {
	all := providers(t)
	if len(all) < 2 {
		t.Skip("one provider only")
	}
	for _, first := range all {
		for _, second := range all {
			if first != second {
				t.Run(first.Name()+" to "+second.Name(), func(t *testing.T) {
					agree(t, NewCrypto(first, nil), NewCrypto(second, nil))
				})
			}
		}
	}
}

func agree(t *testing.T, a, b *Crypto) {
	pub, priv := generatedRSA(t, a, 1030) // no whole number of bytes
	pubB, privB := copyKey(t, pub), copyKey(t, priv)
	data := []byte("from one library to the other")
	digest := bytes.Repeat([]byte{0x5a}, 32)
	for _, test := range []struct {
		m    p11.Mechanism
		data []byte
	}{
		{p11.Mechanism{Type: p11.CKM_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_MD5_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_SHA224_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_SHA384_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_SHA512_RSA_PKCS}, data},
		{p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, digest},
		{p11.Mechanism{Type: p11.CKM_SHA224_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA224, 1)}, data},
		{p11.Mechanism{Type: p11.CKM_SHA512_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA512, 63)}, data},
		{p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA_1, 0)}, data},
		{p11.Mechanism{Type: p11.CKM_SHA384_RSA_PKCS_PSS, Param: &p11.PSSParams{Hash: p11.CKM_SHA384, MGF: p11.CKG_MGF1_SHA1, SaltLen: 20}}, data},
	} {
		t.Run(test.m.Type.Short(), func(t *testing.T) {
			sig, err := signAll(a, test.m, priv, test.data)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []struct {
				c   *Crypto
				pub *tokens.Object
			}{{a, pub}, {b, pubB}} {
				if err := verifyAll(v.c, test.m, v.pub, test.data, sig); err != nil {
					t.Errorf("%s: %v", v.c.provider.Name(), err)
				}
			}
		})
	}
	for _, m := range []p11.Mechanism{
		{Type: p11.CKM_RSA_PKCS},
		{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.CKG_MGF1_SHA1}},
		{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA384, Label: data}},
	} {
		t.Run("encrypt "+m.Type.Short(), func(t *testing.T) {
			for _, msg := range [][]byte{nil, {0}, data} {
				ct, err := encryptAll(a, m, pub, msg)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := decryptAll(b, m, privB, ct); err != nil || !bytes.Equal(got, msg) {
					t.Errorf("%q became %q, %v", msg, got, err)
				}
			}
		})
	}
	for _, curve := range testCurves() {
		t.Run(curve.NIST, func(t *testing.T) {
			pub, priv := generatedEC(t, a, curve)
			m := p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}
			sig, err := signAll(a, m, priv, data)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(b, m, copyKey(t, pub), data, sig); err != nil {
				t.Error(err)
			}
			peer, _ := generatedEC(t, b, curve)
			p := &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point(t, peer)}
			var z [2][]byte
			for i, s := range []struct {
				c   *Crypto
				key *tokens.Object
			}{{a, priv}, {b, copyKey(t, priv)}} {
				out, err := s.c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: p}, s.key, secretTemplate(p11.CKK_GENERIC_SECRET, 0))
				if err != nil {
					t.Fatal(err)
				}
				z[i] = value(t, out, p11.CKA_VALUE)
			}
			if !bytes.Equal(z[0], z[1]) {
				t.Errorf("two shared secrets")
			}
		})
	}
}

// OAEP goes from one library to the other with every hash that a row of the table of
// hashes can have.
func TestOAEPHashes(t *testing.T) {
	n, err := GoProvider().GenerateRSA(t.Context(), 2048, big.NewInt(defaultExponent))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []crypto.Hash{
		crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512,
		crypto.SHA3_224, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512,
	} {
		t.Run(h.String(), func(t *testing.T) {
			for _, from := range providers(t) {
				for _, to := range providers(t) {
					pub, err := from.NewRSAPublicKey(n.N, n.E)
					if err != nil {
						t.Fatal(err)
					}
					priv, err := to.NewRSAPrivateKey(n)
					if err != nil {
						t.Fatal(err)
					}
					ct, err := pub.EncryptOAEP(h, h, []byte("message"), []byte("label"))
					if err != nil {
						t.Fatalf("%s: %v", from.Name(), err)
					}
					if got, err := priv.DecryptOAEP(h, h, ct, []byte("label")); err != nil || string(got) != "message" {
						t.Errorf("%s to %s: %q, %v", from.Name(), to.Name(), got, err)
					}
				}
			}
		})
	}
}

func TestSignaturePadding(t *testing.T) {
	for _, test := range []struct {
		name string
		em   string
		ok   bool
	}{
		{"good", "0001ffffffffffffffff00414243", true},
		{"short", "0001ffffffffffffff0041424344", false},
		{"type 2", "0002ffffffffffffffff00414243", false},
		{"other padding", "0001fffffffffffffffe00414243", false},
		{"no end", "0001ffffffffffffffffffffffff", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			em := tokentest.Hex(t, test.em)
			data, ok := unpadSignature(em)
			if ok != test.ok {
				t.Fatalf("got %x, %v", data, ok)
			}
			if ok && !bytes.Equal(padSignature(data, len(em)), em) {
				t.Errorf("does not pad back")
			}
		})
	}
}

// Keys are shared by operations that run at once.
func TestConcurrentUse(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				data := bytes.Repeat([]byte{byte(i)}, 100)
				for range 5 {
					for _, test := range []struct {
						m         p11.Mechanism
						priv, pub *tokens.Object
					}{
						{p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPriv, r.rsaPub},
						{p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, r.ecPriv, r.ecPub},
						{p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, r.secret, r.secret},
					} {
						sig, err := signAll(c, test.m, test.priv, data)
						if err != nil {
							t.Error(err)
							continue
						}
						if err := verifyAll(c, test.m, test.pub, data, sig); err != nil {
							t.Error(err)
						}
					}
					m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: data[:12], TagBits: 128}}
					ct, err := encryptAll(c, m, r.aes, data)
					if err != nil {
						t.Error(err)
						continue
					}
					if got, err := decryptAll(c, m, r.aes, ct); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%x, %v", got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

// A wiped object's parsed key is closed.
func TestMemoCloses(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		_, made := generatedRSA(t, c, 1024)
		a, err := made.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		o := tokens.NewObject(tokens.NewHandle(), "", a.Clone())
		made.Release()
		held, err := c.hold(o)
		if err != nil {
			t.Fatal(err)
		}
		k := held.(*rsaPrivate)
		o.Drop()
		if k.key == nil {
			t.Error("closed while it is held")
		}
		o.Release()
		if k.key != nil {
			t.Error("not closed")
		}
	})
}
