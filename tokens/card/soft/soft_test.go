package soft

import (
	"bytes"

	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/big"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/swtok"
)

// bench is a card and a way to call it.
type bench struct {
	testing.TB
	set *Set
	via card.Transport
}

// newBench makes a set of cards with two domains.
func newBench(t testing.TB, p swtok.Provider) bench {
	t.Helper()
	dir := t.TempDir()
	if err := MakeSet(dir, "ep11", []card.APQN{{Adapter: 0, Domain: 1}, {Adapter: 2, Domain: 3}}, []string{WK}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEP11(s, p, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return bench{t, s, e}
}

// switchPoint switches a control point on or off.
func (b bench) switchPoint(t testing.TB, n int, on bool) {
	t.Helper()
	if err := b.set.SetControlPoints(map[int]bool{n: on}); err != nil {
		t.Fatal(err)
	}
}

// eachProvider runs f with each provider.
func eachProvider(t *testing.T, f func(*testing.T, bench)) {
	for _, p := range []swtok.Provider{swtok.GoProvider(), swtok.LoadProvider(slog.New(slog.DiscardHandler))} {
		t.Run(p.Name(), func(t *testing.T) { f(t, newBench(t, p)) })
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func template(t *testing.T, text string) p11.Attributes {
	t.Helper()
	return must[p11.Attributes](t)(p11.ParseTemplate(text))
}

func mech(t *testing.T, text string) p11.Mechanism {
	t.Helper()
	return must[p11.Mechanism](t)(p11.ParseMechanism(text))
}

// secretKey generates a key.
func (b bench) secretKey(t *testing.T, m, text string) ep11.Blob {
	t.Helper()
	key, check, err := ep11.GenerateKey(t.Context(), b.via, nil, mech(t, m), template(t, text), nil)
	if err != nil {
		t.Fatalf("%s: %v", m, err)
	}
	if len(check) != 7 {
		t.Errorf("%s: a checksum of %d bytes", m, len(check))
	}
	return key
}

// pair generates a key pair.
func (b bench) pair(t *testing.T, m, public, private string) (key, spki ep11.Blob) {
	t.Helper()
	k, s, err := ep11.GenerateKeyPair(t.Context(), b.via, nil, mech(t, m), template(t, public), template(t, private), nil)
	if err != nil {
		t.Fatalf("%s: %v", m, err)
	}
	return k, s
}

// inParts is an operation with parts of odd lengths: no state changes but the one that each
// call returns.
func inParts(t *testing.T, data []byte, init func() ([]byte, error), update func(state, part []byte) ([]byte, []byte, error), final func(state []byte) ([]byte, error)) []byte {
	t.Helper()
	state := must[[]byte](t)(init())
	var all []byte
	for part := range slices.Chunk(data, 7) {
		before := bytes.Clone(state)
		next, out, err := update(state, part)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, state) || len(next) != len(state) {
			t.Fatalf("a state of %d bytes became one of %d", len(state), len(next))
		}
		state, all = next, append(all, out...)
	}
	first, second := must[[]byte](t)(final(state)), must[[]byte](t)(final(state))
	if len(first) != len(second) {
		t.Errorf("the end of one state has %d bytes and then %d", len(first), len(second))
	}
	return append(all, first...)
}

func noOutput(newState []byte, err error) ([]byte, []byte, error) { return newState, nil, err }

func TestDigests(t *testing.T) {
	data := bytes.Repeat([]byte("abc"), 100)
	eachProvider(t, func(t *testing.T, b bench) {
		for mt, h := range map[p11.MechanismType]crypto.Hash{
			p11.CKM_SHA_1: crypto.SHA1, p11.CKM_SHA224: crypto.SHA224, p11.CKM_SHA256: crypto.SHA256, p11.CKM_SHA384: crypto.SHA384, p11.CKM_SHA512: crypto.SHA512,
			p11.CKM_IBM_SHA3_224: crypto.SHA3_224, p11.CKM_IBM_SHA3_256: crypto.SHA3_256, p11.CKM_IBM_SHA3_384: crypto.SHA3_384, p11.CKM_IBM_SHA3_512: crypto.SHA3_512,
		} {
			m := p11.Mechanism{Type: mt}
			x := h.New()
			x.Write(data)
			want := x.Sum(nil)
			if got, err := ep11.DigestSingle(t.Context(), b.via, nil, m, data); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %x, %v", m.Type, got, err)
			}
			init := func() ([]byte, error) { return ep11.DigestInit(t.Context(), b.via, nil, m) }
			got := inParts(t, data, init, func(s, part []byte) ([]byte, []byte, error) {
				return noOutput(ep11.DigestUpdate(t.Context(), b.via, nil, s, part))
			}, func(s []byte) ([]byte, error) { return ep11.DigestFinal(t.Context(), b.via, nil, s) })
			if !bytes.Equal(got, want) {
				t.Errorf("%v in parts: %x", m.Type, got)
			}
			state := must[[]byte](t)(init())
			if len(state) > 1024 {
				t.Errorf("%v: a state of %d bytes", m.Type, len(state))
			}
			if got, err := ep11.Digest(t.Context(), b.via, nil, state, data); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: m_Digest %x, %v", m.Type, got, err)
			}
		}
	})
}

// importKey has the card take a value in, as tokens do: encrypted and unwrapped.
func (b bench) importKey(t *testing.T, value []byte, text string) ep11.Blob {
	t.Helper()
	kek := b.secretKey(t, "aes-key-gen", "value-len=16 wrap=true unwrap=true encrypt=true decrypt=true extractable=true token=true")
	m := mech(t, "aes-cbc-pad iv=0x31323334353637383132333435363738")
	wrapped := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, kek, m, value))
	key, _, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, m, template(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCiphers(t *testing.T) {
	value, iv := bytes.Repeat([]byte{0x42}, 32), make([]byte, 16)
	data := bytes.Repeat([]byte("0123456789abcdef"), 5)
	block, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(data))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, data)
	eachProvider(t, func(t *testing.T, b bench) {
		aesKey := b.importKey(t, value, "class=secret-key key-type=aes encrypt=true decrypt=true")
		des3 := b.secretKey(t, "des3-key-gen", "encrypt=true decrypt=true")
		for _, c := range []struct {
			mech string
			key  ep11.Blob
			data []byte
		}{
			{"aes-ecb", aesKey, data}, {"aes-cbc iv=0x00000000000000000000000000000000", aesKey, data},
			{"aes-cbc-pad iv=0x00000000000000000000000000000000", aesKey, data[:70]}, {"aes-cbc-pad iv=0x00000000000000000000000000000000", aesKey, data},
			{"aes-cbc-pad iv=0x00000000000000000000000000000000", aesKey, nil},
			{"des3-ecb", des3, data}, {"des3-cbc iv=0x0102030405060708", des3, data}, {"des3-cbc-pad iv=0x0102030405060708", des3, data[:9]},
		} {
			m := mech(t, c.mech)
			single := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, c.key, m, c.data))
			if m.Type == p11.CKM_AES_CBC && !bytes.Equal(single, want) {
				t.Errorf("%s: %x, not %x", c.mech, single, want)
			}
			parts := inParts(t, c.data, func() ([]byte, error) { return ep11.EncryptInit(t.Context(), b.via, nil, m, c.key) },
				func(s, part []byte) ([]byte, []byte, error) {
					return ep11.EncryptUpdate(t.Context(), b.via, nil, s, part)
				},
				func(s []byte) ([]byte, error) { return ep11.EncryptFinal(t.Context(), b.via, nil, s) })
			if !bytes.Equal(parts, single) {
				t.Errorf("%s in parts: %x, not %x", c.mech, parts, single)
			}
			plain := inParts(t, single, func() ([]byte, error) { return ep11.DecryptInit(t.Context(), b.via, nil, m, c.key) },
				func(s, part []byte) ([]byte, []byte, error) {
					return ep11.DecryptUpdate(t.Context(), b.via, nil, s, part)
				},
				func(s []byte) ([]byte, error) { return ep11.DecryptFinal(t.Context(), b.via, nil, s) })
			if !bytes.Equal(plain, c.data) {
				t.Errorf("%s decrypted in parts: %x", c.mech, plain)
			}
			state := must[[]byte](t)(ep11.DecryptInit(t.Context(), b.via, nil, m, c.key))
			if plain, err := ep11.Decrypt(t.Context(), b.via, nil, state, single); err != nil || !bytes.Equal(plain, c.data) {
				t.Errorf("%s: m_Decrypt %x, %v", c.mech, plain, err)
			}
		}
		again := must[[]byte](t)(ep11.ReencryptSingle(t.Context(), b.via, nil, aesKey, des3, mech(t, "aes-ecb"), mech(t, "des3-ecb"),
			must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, aesKey, mech(t, "aes-ecb"), data))))
		if got, err := ep11.DecryptSingle(t.Context(), b.via, nil, des3, mech(t, "des3-ecb"), again); err != nil || !bytes.Equal(got, data) {
			t.Errorf("m_ReencryptSingle: %x, %v", got, err)
		}
	})
}

// verifies asks Go's library.
func verifies(pub any, m p11.MechanismType, h crypto.Hash, data, sig []byte) bool {
	digest := data
	if h != 0 {
		x := h.New()
		x.Write(data)
		digest = x.Sum(nil)
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if m == p11.CKM_SHA256_RSA_PKCS_PSS {
			return rsa.VerifyPSS(k, h, digest, sig, nil) == nil
		}
		return rsa.VerifyPKCS1v15(k, h, digest, sig) == nil
	case *ecdsa.PublicKey:
		n := len(sig) / 2
		return ecdsa.Verify(k, digest, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
	}
	return false
}

func TestSignatures(t *testing.T) {
	data := []byte("what is signed, in one part and in many")
	eachProvider(t, func(t *testing.T, b bench) {
		rsaKey, rsaPub := b.pair(t, "rsa-pkcs-key-pair-gen", "modulus-bits=2048 public-exponent=0x010001 verify=true encrypt=true", "sign=true decrypt=true")
		ecKey, ecPub := b.pair(t, "ec-key-pair-gen", "ec-params=secp384r1 verify=true", "sign=true")
		generic := b.secretKey(t, "generic-secret-key-gen", "key-type=generic-secret value-len=200 sign=true verify=true")
		for _, c := range []struct {
			mech      string
			hash      crypto.Hash
			key, with ep11.Blob
		}{
			{"rsa-pkcs", 0, rsaKey, rsaPub}, {"sha256-rsa-pkcs", crypto.SHA256, rsaKey, rsaPub}, {"sha1-rsa-pkcs", crypto.SHA1, rsaKey, rsaPub},
			{"sha256-rsa-pkcs-pss", crypto.SHA256, rsaKey, rsaPub},
			{"ecdsa", 0, ecKey, ecPub}, {"ecdsa-sha512", crypto.SHA512, ecKey, ecPub}, {"ecdsa-sha224", crypto.SHA224, ecKey, ecPub},
			{"sha256-hmac", 0, generic, generic}, {"sha512-hmac", 0, generic, generic}, {"sha-1-hmac", 0, generic, generic},
			{"ibm-sha3-224-hmac", 0, generic, generic}, {"ibm-sha3-512-hmac", 0, generic, generic},
		} {
			m := mech(t, c.mech)
			single := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, c.key, m, data))
			parts := inParts(t, data, func() ([]byte, error) { return ep11.SignInit(t.Context(), b.via, nil, m, c.key) },
				func(s, part []byte) ([]byte, []byte, error) {
					return noOutput(ep11.SignUpdate(t.Context(), b.via, nil, s, part))
				},
				func(s []byte) ([]byte, error) { return ep11.SignFinal(t.Context(), b.via, nil, s) })
			for _, sig := range [][]byte{single, parts} {
				if c.with.IsSPKI() {
					pub, err := x509.ParsePKIXPublicKey(c.with.SPKI())
					if err != nil {
						t.Fatal(err)
					}
					if !verifies(pub, m.Type, c.hash, data, sig) {
						t.Errorf("%s: Go's library refuses %x", c.mech, sig)
					}
				}
				if err := ep11.VerifySingle(t.Context(), b.via, nil, c.with, m, data, sig); err != nil {
					t.Errorf("%s: %v", c.mech, err)
				}
				state := must[[]byte](t)(ep11.VerifyInit(t.Context(), b.via, nil, m, c.with))
				if err := ep11.Verify(t.Context(), b.via, nil, state, data, sig); err != nil {
					t.Errorf("%s: m_Verify %v", c.mech, err)
				}
				state = must[[]byte](t)(ep11.VerifyUpdate(t.Context(), b.via, nil, state, data))
				if err := ep11.VerifyFinal(t.Context(), b.via, nil, state, sig); err != nil {
					t.Errorf("%s: m_VerifyFinal %v", c.mech, err)
				}
				sig[len(sig)-1] ^= 1
				if err := ep11.VerifyFinal(t.Context(), b.via, nil, state, sig); !errors.Is(err, p11.CKR_SIGNATURE_INVALID) {
					t.Errorf("%s: a wrong signature gives %v", c.mech, err)
				}
			}
			if len(parts) != len(single) {
				t.Errorf("%s: %d bytes in parts, %d in one", c.mech, len(parts), len(single))
			}
		}
		for name, h := range map[string]crypto.Hash{
			"sha256-hmac": crypto.SHA256, "ibm-sha3-224-hmac": crypto.SHA3_224, "ibm-sha3-256-hmac": crypto.SHA3_256,
			"ibm-sha3-384-hmac": crypto.SHA3_384, "ibm-sha3-512-hmac": crypto.SHA3_512,
		} {
			value := bytes.Repeat([]byte{7}, 20)
			key := b.importKey(t, value, "class=secret-key key-type=generic-secret sign=true")
			x := hmac.New(h.New, value)
			x.Write(data)
			if got, err := ep11.SignSingle(t.Context(), b.via, nil, key, mech(t, name), data); err != nil || !bytes.Equal(got, x.Sum(nil)) {
				t.Errorf("%s: %x, %v", name, got, err)
			}
		}
	})
}

// TestKeys wraps, unwraps and derives.
func TestKeys(t *testing.T) {
	eachProvider(t, func(t *testing.T, b bench) {
		kek := b.secretKey(t, "aes-key-gen", "value-len=32 wrap=true unwrap=true encrypt=true")
		pad := mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000001")
		key, spki := b.pair(t, "ec-key-pair-gen", "ec-params=secp256r1 verify=true", "sign=true derive=true")
		wrapped := must[[]byte](t)(ep11.WrapKey(t.Context(), b.via, nil, key, kek, nil, pad))
		again, check, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, pad, template(t, "class=private-key key-type=ec sign=true derive=true"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ep11.Blob(check).SPKI(), spki.SPKI()) {
			t.Errorf("the public half is %x, not %x", ep11.Blob(check).SPKI(), spki.SPKI())
		}
		sig := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, again, mech(t, "ecdsa-sha256"), []byte("x")))
		if err := ep11.VerifySingle(t.Context(), b.via, nil, spki, mech(t, "ecdsa-sha256"), []byte("x"), sig); err != nil {
			t.Error(err)
		}

		other, otherPub := b.pair(t, "ec-key-pair-gen", "ec-params=secp256r1 verify=true", "derive=true")
		derive := func(base, peer ep11.Blob) []byte {
			attrs := must[p11.Attributes](t)(publicOf(peer))
			point, _ := attrs.Get(p11.CKA_EC_POINT)
			m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point}}
			k, _, err := ep11.DeriveKey(t.Context(), b.via, nil, m, template(t, "class=secret-key key-type=aes value-len=32 encrypt=true"), base, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			return must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, k, mech(t, "aes-ecb"), make([]byte, 16)))
		}
		if !bytes.Equal(derive(key, otherPub), derive(other, spki)) {
			t.Error("the two sides derive different keys")
		}

		rsaKey, rsaPub := b.pair(t, "rsa-pkcs-key-pair-gen", "modulus-bits=2048 encrypt=true wrap=true", "decrypt=true unwrap=true")
		for _, m := range []string{"rsa-pkcs", "rsa-pkcs-oaep hash=sha256"} {
			c := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, rsaPub, mech(t, m), []byte("for the card")))
			if p, err := ep11.DecryptSingle(t.Context(), b.via, nil, rsaKey, mech(t, m), c); err != nil || string(p) != "for the card" {
				t.Errorf("%s: %q, %v", m, p, err)
			}
		}
		wrapped = must[[]byte](t)(ep11.WrapKey(t.Context(), b.via, nil, kek, rsaPub, nil, mech(t, "rsa-pkcs")))
		same, sum, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, rsaKey, nil, nil, mech(t, "rsa-pkcs"), template(t, "class=secret-key key-type=aes encrypt=true value-len=32"))
		if err != nil {
			t.Fatal(err)
		}
		ecb := func(k ep11.Blob) []byte {
			return must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, k, mech(t, "aes-ecb"), make([]byte, 16)))
		}
		if !bytes.Equal(ecb(same), ecb(kek)) || !bytes.Equal(sum[:3], ecb(kek)[:3]) || binary.BigEndian.Uint32(sum[3:]) != 256 {
			t.Errorf("the unwrapped key is another one, or its checksum %x", sum)
		}
	})
}

func publicOf(b ep11.Blob) (p11.Attributes, error) {
	k, err := wrappingKey{}.openPublic(b.SPKI())
	if err != nil {
		return nil, err
	}
	return k.attrs, nil
}

// TestLists asks for the list and the information of each mechanism.
func TestLists(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	list := must[[]uint64](t)(ep11.GetMechanismList(t.Context(), b.via, nil, 0))
	if len(list) < 32 {
		t.Errorf("%d mechanisms", len(list))
	}
	for _, m := range list {
		info, err := ep11.GetMechanismInfo(t.Context(), b.via, nil, 0, m)
		if err != nil || len(info) != 3 || p11.Flags(info[2])&p11.CKF_HW == 0 {
			t.Errorf("%v: %v, %v", p11.MechanismType(m), info, err)
		}
	}
	if _, err := ep11.GetMechanismInfo(t.Context(), b.via, nil, 0, uint64(p11.CKM_MD5)); !errors.Is(err, p11.CKR_MECHANISM_INVALID) {
		t.Errorf("MD5: %v", err)
	}
	if r := must[[]byte](t)(ep11.GenerateRandom(t.Context(), b.via, nil, 24)); len(r) != 24 || bytes.Equal(r, make([]byte, 24)) {
		t.Errorf("random bytes %x", r)
	}
	if err := ep11.SeedRandom(t.Context(), b.via, nil, []byte("seed")); err != nil {
		t.Error(err)
	}
	m, err := ep11.Module(t.Context(), b.via, nil)
	if err != nil || string(m.Serial[:]) == "" || !bytes.HasPrefix(m.FirmwareHash[:], []byte("p11fs software card")) {
		t.Errorf("%+v, %v", m, err)
	}
}
