package swtok

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// keyring is one key of each type, for the tests of rules.
type keyring struct {
	rsaPub, rsaPriv *tokens.Object // 1024 bits
	ecPub, ecPriv   *tokens.Object // P-256
	aes, secret     *tokens.Object
}

func newKeyring(t *testing.T, c *Crypto) keyring {
	t.Helper()
	var r keyring
	r.rsaPub, r.rsaPriv = generatedRSA(t, c, 1024)
	r.ecPub, r.ecPriv = generatedEC(t, c, testCurves()[0])
	r.aes = tokentest.Secret(t, p11.CKK_AES, bytes.Repeat([]byte{7}, 16))
	r.secret = tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("a secret of some bytes"))
	return r
}

func pssParam(h p11.MechanismType, salt uint64) *p11.PSSParams {
	return &p11.PSSParams{Hash: h, MGF: p11.MGFOf(h), SaltLen: salt}
}

func TestSignRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		iv := p11.IV(make([]byte, 16))
		tests := []struct {
			name string
			m    p11.Mechanism
			key  *tokens.Object
			data int
			want p11.RV
		}{
			{"absent mechanism", p11.Mechanism{Type: p11.CKM_RSA_9796}, r.rsaPriv, 1, p11.CKR_MECHANISM_INVALID},
			{"mechanism of another function", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.aes, 1, p11.CKR_MECHANISM_INVALID},
			{"public key", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPub, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"EC key for RSA", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.ecPriv, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"RSA key for EC", p11.Mechanism{Type: p11.CKM_ECDSA}, r.rsaPriv, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"AES key for HMAC", p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, r.aes, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"unwanted parameter", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS, Param: iv}, r.rsaPriv, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"empty raw parameter", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS, Param: p11.RawParam{}}, r.rsaPriv, 1, p11.CKR_OK},
			{"PKCS#1 full", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, 117, p11.CKR_OK},
			{"PKCS#1 too long", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, 118, p11.CKR_DATA_LEN_RANGE},
			{"PKCS#1 empty", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, 0, p11.CKR_OK},
			{"PSS without parameters", p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS}, r.rsaPriv, 32, p11.CKR_MECHANISM_PARAM_INVALID},
			{"PSS of a digest", p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, r.rsaPriv, 32, p11.CKR_OK},
			{"PSS of half a digest", p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, r.rsaPriv, 16, p11.CKR_DATA_LEN_RANGE},
			{"PSS of too much", p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, r.rsaPriv, 33, p11.CKR_DATA_LEN_RANGE},
			{"PSS of another hash", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA384, 32)}, r.rsaPriv, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"PSS of an unknown hash", p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_MD2, 16)}, r.rsaPriv, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"PSS longest salt", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 94)}, r.rsaPriv, 1, p11.CKR_OK},
			{"PSS salt too long", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 95)}, r.rsaPriv, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"PSS salt absurd", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 1<<63)}, r.rsaPriv, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"PSS key too short", p11.Mechanism{Type: p11.CKM_SHA512_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA512, 64)}, r.rsaPriv, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"ECDSA of nothing", p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPriv, 0, p11.CKR_DATA_LEN_RANGE},
			{"ECDSA of a byte", p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPriv, 1, p11.CKR_OK},
			{"ECDSA of a long digest", p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPriv, 64, p11.CKR_OK},
			{"ECDSA of a file", p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPriv, 1000, p11.CKR_DATA_LEN_RANGE},
			{"ECDSA-SHA256 of nothing", p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, r.ecPriv, 0, p11.CKR_OK},
			{"HMAC general without length", p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL}, r.secret, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"HMAC general of nothing", p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL, Param: p11.MACLength(0)}, r.secret, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"HMAC general", p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL, Param: p11.MACLength(32)}, r.secret, 1, p11.CKR_OK},
			{"HMAC general too long", p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL, Param: p11.MACLength(33)}, r.secret, 1, p11.CKR_MECHANISM_PARAM_INVALID},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				_, err := signAll(c, test.m, test.key, make([]byte, test.data))
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
	})
}

func TestVerifyRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		tests := []struct {
			name      string
			m         p11.Mechanism
			priv, pub *tokens.Object
			size      int
		}{
			{"RSA", p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPriv, r.rsaPub, 128},
			{"RSA MD5", p11.Mechanism{Type: p11.CKM_MD5_RSA_PKCS}, r.rsaPriv, r.rsaPub, 128},
			{"RSA raw", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, r.rsaPub, 128},
			{"PSS", p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA_1, 20)}, r.rsaPriv, r.rsaPub, 128},
			{"ECDSA", p11.Mechanism{Type: p11.CKM_ECDSA_SHA384}, r.ecPriv, r.ecPub, 64},
			{"HMAC", p11.Mechanism{Type: p11.CKM_SHA512_256_HMAC}, r.secret, r.secret, 32},
			{"HMAC general", p11.Mechanism{Type: p11.CKM_SHA224_HMAC_GENERAL, Param: p11.MACLength(5)}, r.secret, r.secret, 5},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				data := []byte("some data, longer than a part")
				sig, err := signAll(c, test.m, test.priv, data)
				if err != nil || len(sig) != test.size {
					t.Fatalf("signature of %d bytes: %v", len(sig), err)
				}
				if err := verifyAll(c, test.m, test.pub, data, sig); err != nil {
					t.Errorf("own signature: %v", err)
				}
				other := append([]byte(nil), data...)
				other[len(other)-1]++
				flipped := append([]byte(nil), sig...)
				flipped[0] ^= 1
				for _, bad := range []struct {
					name      string
					data, sig []byte
					want      p11.RV
				}{
					{"other data", other, sig, p11.CKR_SIGNATURE_INVALID},
					{"other signature", data, flipped, p11.CKR_SIGNATURE_INVALID},
					{"zeros", data, make([]byte, test.size), p11.CKR_SIGNATURE_INVALID},
					{"ones", data, bytes.Repeat([]byte{0xff}, test.size), p11.CKR_SIGNATURE_INVALID},
					{"short", data, sig[1:], p11.CKR_SIGNATURE_LEN_RANGE},
					{"long", data, append(sig[:len(sig):len(sig)], 0), p11.CKR_SIGNATURE_LEN_RANGE},
					{"empty", data, nil, p11.CKR_SIGNATURE_LEN_RANGE},
				} {
					if got := p11.RVOf(verifyAll(c, test.m, test.pub, bad.data, bad.sig)); got != bad.want {
						t.Errorf("%s: got %v, want %v", bad.name, got, bad.want)
					}
				}
			})
		}
	})
}

// Data that no signature can be of is said to be that, not a wrong signature.
func TestVerifyDataLength(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		for _, test := range []struct {
			m    p11.Mechanism
			key  *tokens.Object
			size int
			data int
		}{
			{p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, r.rsaPub, 128, 31},
			{p11.Mechanism{Type: p11.CKM_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA256, 32)}, r.rsaPub, 128, 33},
			{p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, 128, 118},
			{p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPub, 64, 0},
			{p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPub, 64, 67},
		} {
			err := verifyAll(c, test.m, test.key, make([]byte, test.data), make([]byte, test.size))
			if !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
				t.Errorf("%s of %d bytes: %v", test.m.Type.Short(), test.data, err)
			}
		}
	})
}

func TestCipherRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		iv := p11.IV(make([]byte, 16))
		gcm := func(iv int, bits uint64) *p11.GCMParams {
			return &p11.GCMParams{IV: make([]byte, iv), TagBits: bits}
		}
		oaep := &p11.OAEPParams{Hash: p11.CKM_SHA256, MGF: p11.CKG_MGF1_SHA256}
		tests := []struct {
			name    string
			m       p11.Mechanism
			key     *tokens.Object
			decrypt bool
			data    int
			want    p11.RV
		}{
			{"CBC without iv", p11.Mechanism{Type: p11.CKM_AES_CBC}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"CBC short iv", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv[:12]}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"CBC with an RSA key", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.rsaPriv, false, 16, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"CBC with a generic secret", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.secret, false, 16, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"CBC of nothing", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.aes, false, 0, p11.CKR_OK},
			{"CBC of part of a block", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.aes, false, 47, p11.CKR_DATA_LEN_RANGE},
			{"CBC back of part of a block", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}, r.aes, true, 47, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"ECB with iv", p11.Mechanism{Type: p11.CKM_AES_ECB, Param: iv}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"ECB of part of a block", p11.Mechanism{Type: p11.CKM_AES_ECB}, r.aes, false, 17, p11.CKR_DATA_LEN_RANGE},
			{"CBC-PAD back of nothing", p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: iv}, r.aes, true, 0, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"CBC-PAD back of part of a block", p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: iv}, r.aes, true, 31, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"CBC-PAD back of anything", p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: iv}, r.aes, true, 48, p11.CKR_ENCRYPTED_DATA_INVALID},
			{"CTR without parameters", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: iv}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"CTR of no bits", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{}}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"CTR of too many bits", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 129}}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"CTR to the end", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 3}}, r.aes, false, 128, p11.CKR_OK},
			{"CTR beyond", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 3}}, r.aes, false, 129, p11.CKR_DATA_LEN_RANGE},
			{"CTR back beyond", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 3}}, r.aes, true, 129, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"GCM without iv", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(0, 128)}, r.aes, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"GCM without parameters", p11.Mechanism{Type: p11.CKM_AES_GCM}, r.aes, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"GCM tag of 7 bits", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(12, 7)}, r.aes, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"GCM tag of 136 bits", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(12, 136)}, r.aes, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"GCM tag absent", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(12, 0)}, r.aes, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"GCM back of less than a tag", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(12, 128)}, r.aes, true, 15, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"GCM back of a wrong tag", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: gcm(12, 128)}, r.aes, true, 40, p11.CKR_ENCRYPTED_DATA_INVALID},
			{"key wrap of 9 bytes", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}, r.aes, false, 9, p11.CKR_DATA_LEN_RANGE},
			{"key wrap of 8 bytes", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}, r.aes, false, 8, p11.CKR_DATA_LEN_RANGE},
			{"key wrap of nothing, padded", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, r.aes, false, 0, p11.CKR_DATA_LEN_RANGE},
			{"key wrap iv", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP, Param: iv[:4]}, r.aes, false, 16, p11.CKR_MECHANISM_PARAM_INVALID},
			{"key wrap back of 20 bytes", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}, r.aes, true, 20, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"key wrap back of anything", p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}, r.aes, true, 24, p11.CKR_ENCRYPTED_DATA_INVALID},
			{"RSA full", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, false, 117, p11.CKR_OK},
			{"RSA too long", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, false, 118, p11.CKR_DATA_LEN_RANGE},
			{"RSA by the private key", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, false, 1, p11.CKR_KEY_TYPE_INCONSISTENT},
			{"RSA back short", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, true, 127, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"RSA back long", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, true, 129, p11.CKR_ENCRYPTED_DATA_LEN_RANGE},
			{"RSA back of anything", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, true, 128, p11.CKR_OK},
			{"OAEP without parameters", p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP}, r.rsaPub, false, 1, p11.CKR_MECHANISM_PARAM_INVALID},
			{"OAEP full", p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: oaep}, r.rsaPub, false, 62, p11.CKR_OK},
			{"OAEP too long", p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: oaep}, r.rsaPub, false, 63, p11.CKR_DATA_LEN_RANGE},
			{"OAEP key too short", p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA512, MGF: p11.CKG_MGF1_SHA1}}, r.rsaPub, false, 1, p11.CKR_KEY_SIZE_RANGE},
			{"OAEP back of anything", p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: oaep}, r.rsaPriv, true, 128, p11.CKR_ENCRYPTED_DATA_INVALID},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				crypt := encryptAll
				if test.decrypt {
					crypt = decryptAll
				}
				_, err := crypt(c, test.m, test.key, make([]byte, test.data))
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
	})
}

func TestRawRSA(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		m := p11.Mechanism{Type: p11.CKM_RSA_X_509}
		sig, err := signAll(c, m, r.rsaPriv, []byte("raw"))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAll(c, m, r.rsaPub, []byte("raw"), sig); err != nil {
			t.Errorf("verify: %v", err)
		}
		want := leftPad([]byte("raw"), 128)
		if got, err := c.VerifyRecover(t.Context(), m, r.rsaPub, sig); err != nil || !bytes.Equal(got, want) {
			t.Errorf("recovered %x, %v", got, err)
		}
		ct, err := encryptAll(c, m, r.rsaPub, []byte("raw"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decryptAll(c, m, r.rsaPriv, ct); err != nil || !bytes.Equal(got, want) {
			t.Errorf("decrypted %x, %v", got, err)
		}
		big := bytes.Repeat([]byte{0xff}, 128)
		if _, err := signAll(c, m, r.rsaPriv, big); !errors.Is(err, p11.CKR_DATA_INVALID) {
			t.Errorf("sign of a number above the modulus: %v", err)
		}
		if _, err := encryptAll(c, m, r.rsaPub, big); !errors.Is(err, p11.CKR_DATA_INVALID) {
			t.Errorf("encryption of a number above the modulus: %v", err)
		}
		if _, err := decryptAll(c, m, r.rsaPriv, big); !errors.Is(err, p11.CKR_ENCRYPTED_DATA_INVALID) {
			t.Errorf("decryption of a number above the modulus: %v", err)
		}
	})
}

func TestRecover(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		m := p11.Mechanism{Type: p11.CKM_RSA_PKCS}
		sig, err := c.SignRecover(t.Context(), m, r.rsaPriv, []byte("to be read back"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.VerifyRecover(t.Context(), m, r.rsaPub, sig); err != nil || string(got) != "to be read back" {
			t.Errorf("got %q, %v", got, err)
		}
		sig[5] ^= 1
		if _, err := c.VerifyRecover(t.Context(), m, r.rsaPub, sig); !errors.Is(err, p11.CKR_SIGNATURE_INVALID) {
			t.Errorf("flipped: %v", err)
		}
		if _, err := c.VerifyRecover(t.Context(), m, r.rsaPub, sig[1:]); !errors.Is(err, p11.CKR_SIGNATURE_LEN_RANGE) {
			t.Errorf("short: %v", err)
		}
		if _, err := c.SignRecover(t.Context(), p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPriv, nil); !errors.Is(err, p11.CKR_MECHANISM_INVALID) {
			t.Errorf("hashed: %v", err)
		}
	})
}

func TestBadKeys(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		attr := func(t p11.AttributeType, b []byte) p11.Attribute { return p11.Attribute{Type: t, Value: b} }
		n := append([]byte{0x80}, make([]byte, 127)...)
		n[127] = 1
		point := pkix.DERPoint(append([]byte{4}, make([]byte, 64)...))
		tests := []struct {
			name string
			m    p11.MechanismType
			key  *tokens.Object
			want p11.RV
		}{
			{"RSA without numbers", p11.CKM_SHA256_RSA_PKCS, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA), p11.CKR_FUNCTION_FAILED},
			{"RSA numbers that do not fit", p11.CKM_SHA256_RSA_PKCS, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA,
				attr(p11.CKA_MODULUS, n), attr(p11.CKA_PUBLIC_EXPONENT, []byte{3}), attr(p11.CKA_PRIVATE_EXPONENT, []byte{5})), p11.CKR_FUNCTION_FAILED},
			{"RSA modulus too long", p11.CKM_SHA256_RSA_PKCS, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA,
				attr(p11.CKA_MODULUS, bytes.Repeat([]byte{255}, 2049)), attr(p11.CKA_PRIVATE_EXPONENT, []byte{5})), p11.CKR_KEY_SIZE_RANGE},
			{"RSA modulus too short", p11.CKM_SHA256_RSA_PKCS, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA,
				attr(p11.CKA_MODULUS, []byte{33}), attr(p11.CKA_PRIVATE_EXPONENT, []byte{5})), p11.CKR_KEY_SIZE_RANGE},
			{"EC without curve", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_EC, tokentest.Value([]byte{1})), p11.CKR_FUNCTION_FAILED},
			{"EC of another curve", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_EC,
				attr(p11.CKA_EC_PARAMS, []byte{6, 5, 0x2b, 0x81, 4, 0, 1}), tokentest.Value([]byte{1})), p11.CKR_CURVE_NOT_SUPPORTED},
			{"EC of explicit parameters", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_EC,
				attr(p11.CKA_EC_PARAMS, []byte{0x30, 0}), tokentest.Value([]byte{1})), p11.CKR_DOMAIN_PARAMS_INVALID},
			{"EC scalar 0", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_EC,
				attr(p11.CKA_EC_PARAMS, testCurves()[0].Params()), tokentest.Value(make([]byte, 32))), p11.CKR_FUNCTION_FAILED},
			{"EC scalar too long", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_EC,
				attr(p11.CKA_EC_PARAMS, testCurves()[0].Params()), tokentest.Value(bytes.Repeat([]byte{1}, 33))), p11.CKR_FUNCTION_FAILED},
			{"a certificate", p11.CKM_ECDSA, tokentest.Object(t, p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_CERTIFICATE)}}), p11.CKR_KEY_HANDLE_INVALID},
			{"a DSA key", p11.CKM_ECDSA, tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_DSA), p11.CKR_KEY_TYPE_INCONSISTENT},
			{"a secret without value", p11.CKM_SHA256_HMAC, tokentest.Key(t, p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET), p11.CKR_FUNCTION_FAILED},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				_, err := signAll(c, p11.Mechanism{Type: test.m}, test.key, []byte{1})
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
		t.Run("AES of 17 bytes", func(t *testing.T) {
			_, err := encryptAll(c, p11.Mechanism{Type: p11.CKM_AES_ECB}, tokentest.Secret(t, p11.CKK_AES, make([]byte, 17)), nil)
			if !errors.Is(err, p11.CKR_KEY_SIZE_RANGE) {
				t.Errorf("got %v", err)
			}
		})
		t.Run("a point off the curve", func(t *testing.T) {
			key := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_EC, attr(p11.CKA_EC_PARAMS, testCurves()[0].Params()), attr(p11.CKA_EC_POINT, point))
			if err := verifyAll(c, p11.Mechanism{Type: p11.CKM_ECDSA}, key, []byte{1}, make([]byte, 64)); !errors.Is(err, p11.CKR_FUNCTION_FAILED) {
				t.Errorf("got %v", err)
			}
		})
		t.Run("a bare point", func(t *testing.T) {
			pub, priv := generatedEC(t, c, testCurves()[1])
			a, _ := pub.Acquire()
			raw, _ := pkix.ECPublic(pkix.GoArithmetic{}, testCurves()[1], func() []byte { b, _ := a.Get(p11.CKA_EC_POINT); return b }())
			bare := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_EC, attr(p11.CKA_EC_PARAMS, testCurves()[1].Params()), attr(p11.CKA_EC_POINT, raw))
			pub.Release()
			m := p11.Mechanism{Type: p11.CKM_ECDSA_SHA384}
			sig, err := signAll(c, m, priv, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(c, m, bare, []byte("x"), sig); err != nil {
				t.Error(err)
			}
		})
		t.Run("a dropped object", func(t *testing.T) {
			o := tokens.NewObject(tokens.NewHandle(), "", secretTemplate(p11.CKK_GENERIC_SECRET, 0))
			o.Drop()
			if _, err := c.Sign(t.Context(), p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o); !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// An operation that has failed stays failed, and one that is closed does
// nothing and holds nothing.
func TestAfterFailureAndClose(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	r := newKeyring(t, c)
	s, err := c.Sign(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(make([]byte, 200)); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
		t.Errorf("Update: %v", err)
	}
	if _, err := s.Final(); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
		t.Errorf("Final after a failed Update: %v", err)
	}
	s.Close()
	s.Close()
	if err := s.Update(nil); !errors.Is(err, p11.CKR_OPERATION_NOT_INITIALIZED) {
		t.Errorf("Update after Close: %v", err)
	}
	for _, m := range []p11.Mechanism{
		{Type: p11.CKM_AES_ECB}, {Type: p11.CKM_AES_KEY_WRAP},
		{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 64}},
		{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), TagBits: 96}},
	} {
		op, err := c.Decrypt(t.Context(), m, r.aes)
		if err != nil {
			t.Fatal(err)
		}
		op.Close()
		op.Close()
		if _, err := op.Update([]byte{1}); !errors.Is(err, p11.CKR_OPERATION_NOT_INITIALIZED) {
			t.Errorf("%s: Update after Close: %v", m.Type, err)
		}
		if _, err := op.Final(); !errors.Is(err, p11.CKR_OPERATION_NOT_INITIALIZED) {
			t.Errorf("%s: Final after Close: %v", m.Type, err)
		}
	}
}

// What is signed or encrypted streams: memory does not grow with the data.
func TestConstantMemory(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	r := newKeyring(t, c)
	part := make([]byte, 128<<10)
	const n = 512
	s, err := c.Sign(t.Context(), p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPriv)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := c.Encrypt(t.Context(), p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), TagBits: 128}}, r.aes)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		if err := s.Update(part); err != nil {
			t.Fatal(err)
		}
		out, err := g.Update(part)
		if err != nil || len(out) != len(part) {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d MiB of data left %d KiB in memory", n*len(part)>>20, grown>>10)
	}
	if _, err := s.Final(); err != nil {
		t.Error(err)
	}
}

// An authenticated decryption holds its input, so it is bounded.
func TestGCMBound(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	key := tokentest.Secret(t, p11.CKK_AES, make([]byte, 16))
	m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), TagBits: 128}}
	op, err := c.Decrypt(t.Context(), m, key)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	part := make([]byte, 1<<20)
	for range maxHeld >> 20 {
		if out, err := op.Update(part); err != nil || len(out) != 0 {
			t.Fatalf("%d bytes before the tag, %v", len(out), err)
		}
	}
	if _, err := op.Update(make([]byte, 16)); err != nil {
		t.Fatalf("the tag: %v", err)
	}
	if _, err := op.Update([]byte{0}); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
		t.Errorf("one byte more: %v", err)
	}
	if _, err := op.Final(); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
		t.Errorf("Final: %v", err)
	}
}

// No error says what a secret is.
func TestErrorsHideSecrets(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	value := bytes.Repeat([]byte("SECRET"), 4)[:17]
	_, err := encryptAll(c, p11.Mechanism{Type: p11.CKM_AES_ECB}, tokentest.Secret(t, p11.CKK_AES, value), nil)
	if err == nil || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "534543") {
		t.Errorf("%v", err)
	}
}
