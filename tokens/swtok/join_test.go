package swtok

import (
	"bytes"
	"fmt"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// joining derives with a base key and those that the parameter names.
type joining struct {
	name   string
	m      p11.Mechanism
	kt     p11.KeyType // of the base key, and of the new one
	base   string
	others []string // "" for none
	n      uint64   // 0 for the natural length
	want   string
	rv     p11.RV
}

func (j joining) run(t *testing.T, c *Crypto) {
	t.Helper()
	keys := []*tokens.Object{tokentest.Secret(t, j.kt, tokentest.Hex(t, j.base))}
	for _, o := range j.others {
		if o == "" {
			keys = append(keys, nil)
		} else {
			keys = append(keys, tokentest.Secret(t, p11.CKK_GENERIC_SECRET, tokentest.Hex(t, o)))
		}
	}
	err := j.m.Validate()
	a := []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, j.n)}
	if err == nil {
		a, _, err = c.JoinKeys(t.Context(), j.m, keys, a)
	}
	var got []byte
	if err == nil {
		got, _ = a[0].Get(p11.CKA_VALUE)
	}
	if p11.RVOf(err) != j.rv || fmt.Sprintf("%x", got) != j.want {
		t.Errorf("%s: %x, %v; want %s, %v", j.name, got, err, j.want, j.rv)
	}
}

// Values that were computed with Python's integers and hashlib, and with openssl enc.
func TestJoinedKeys(t *testing.T) {
	const (
		base    = "0102030405060708090a0b0c0d0e0f10"
		iv      = "000102030405060708090a0b0c0d0e0f"
		generic = p11.CKK_GENERIC_SECRET
	)
	text := []byte("data of 32 bytes for the cipher.")
	other := p11.Mechanism{Type: p11.CKM_CONCATENATE_BASE_AND_KEY, Param: p11.OtherKey(1)}
	with := func(m p11.MechanismType) p11.Mechanism {
		return p11.Mechanism{Type: m, Param: &p11.StringDataParams{Data: []byte{0xa0, 0xa1, 0xa2}}}
	}
	bit := func(n uint64) p11.Mechanism {
		return p11.Mechanism{Type: p11.CKM_EXTRACT_KEY_FROM_KEY, Param: p11.ExtractBit(n)}
	}
	encrypted := func(m p11.MechanismType) p11.Mechanism {
		return p11.Mechanism{Type: m, Param: &p11.StringDataParams{Data: text}}
	}
	chained := func(m p11.MechanismType, n int) p11.Mechanism {
		return p11.Mechanism{Type: m, Param: &p11.CBCDataParams{IV: tokentest.Hex(t, iv)[:n], Data: text}}
	}
	shake128 := p11.Mechanism{Type: p11.CKM_SHAKE_128_KEY_DERIVATION}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, j := range []joining{
			{name: "two keys", m: other, kt: generic, base: "0102", others: []string{"0304"}, want: "01020304"},
			{name: "cut", m: other, kt: generic, base: "0102", others: []string{"0304"}, n: 3, want: "010203"},
			{name: "too long", m: other, kt: generic, base: "0102", others: []string{"0304"}, n: 5, rv: p11.CKR_KEY_SIZE_RANGE},
			{name: "data behind", m: with(p11.CKM_CONCATENATE_BASE_AND_DATA), kt: generic, base: "0102", want: "0102a0a1a2"},
			{name: "data in front", m: with(p11.CKM_CONCATENATE_DATA_AND_BASE), kt: generic, base: "0102", want: "a0a1a20102"},
			{name: "xor", m: with(p11.CKM_XOR_BASE_AND_DATA), kt: generic, base: "0102", want: "a1a3"},
			{name: "xor of less", m: with(p11.CKM_XOR_BASE_AND_DATA), kt: generic, base: "01020304", want: "a1a3a1"},
			{name: "xor for more", m: with(p11.CKM_XOR_BASE_AND_DATA), kt: generic, base: "01020304", n: 4, rv: p11.CKR_KEY_SIZE_RANGE},
			{name: "first bits", m: bit(0), kt: generic, base: base, n: 4, want: "01020304"},
			{name: "between bytes", m: bit(21), kt: generic, base: base, n: 4, want: "6080a0c0"},
			{name: "round", m: bit(120), kt: generic, base: base, n: 8, want: "1001020304050607"},
			{name: "last bit", m: bit(127), kt: generic, base: base, n: 16, want: "00810182028303840485058606870788"},
			{name: "beyond", m: bit(128), kt: generic, base: base, n: 1, rv: p11.CKR_MECHANISM_PARAM_INVALID},
			{name: "no length", m: bit(0), kt: generic, base: base, rv: p11.CKR_TEMPLATE_INCOMPLETE},
			{name: "longer", m: bit(0), kt: generic, base: base, n: 17, rv: p11.CKR_KEY_SIZE_RANGE},
			{name: "shake128", m: shake128, kt: generic, base: base, n: 24, want: "4c10b77a45b4ba974c1e82b356d91b4b9504c135c0fa40af"},
			{name: "shake256", m: p11.Mechanism{Type: p11.CKM_SHAKE_256_KEY_DERIVATION}, kt: generic, base: base, n: 24, want: "99aa50c37f60c16db90edb15dad722cc13208e913ed11c11"},
			{name: "shake of no length", m: shake128, kt: generic, base: base, rv: p11.CKR_TEMPLATE_INCOMPLETE},
			{name: "aes-ecb", m: encrypted(p11.CKM_AES_ECB_ENCRYPT_DATA), kt: p11.CKK_AES, base: base, want: "5e0c3ed628847a6825e5c93981f264d3c57b87112b6a9ac9de0e02eaed2c2790"},
			{name: "aes-cbc", m: chained(p11.CKM_AES_CBC_ENCRYPT_DATA, 16), kt: p11.CKK_AES, base: base, n: 20, want: "76b6ca2235ef3c4042c449b97bacfc4c457f6d14"},
			{name: "des3-cbc", m: chained(p11.CKM_DES3_CBC_ENCRYPT_DATA, 8), kt: p11.CKK_DES3, base: base + "0102030405060708", n: 16, want: "4f37b96a8baca53819735f81c1d80824"},
			{name: "no whole blocks", m: with(p11.CKM_AES_ECB_ENCRYPT_DATA), kt: p11.CKK_AES, base: base, rv: p11.CKR_MECHANISM_PARAM_INVALID},
			{name: "another key", m: encrypted(p11.CKM_AES_ECB_ENCRYPT_DATA), kt: generic, base: base, rv: p11.CKR_KEY_TYPE_INCONSISTENT},
		} {
			j.run(t, c)
		}
	})
}

// TestFewBytesOfAKey: what is made of a key that is not to be read has so much of it that
// nobody finds it by trying all values.
func TestFewBytesOfAKey(t *testing.T) {
	value := make([]byte, 32)
	keyOf := func(sensitive, extractable bool) *tokens.Object {
		a := secretTemplate(p11.CKK_GENERIC_SECRET, 0)
		a.Set(p11.CKA_VALUE, bytes.Clone(value))
		a.SetBool(p11.CKA_SENSITIVE, sensitive)
		a.SetBool(p11.CKA_EXTRACTABLE, extractable)
		return tokentest.Object(t, a)
	}
	open, closed, unextractable := keyOf(false, true), keyOf(true, true), keyOf(false, false)
	data := func(m p11.MechanismType, n int) p11.Mechanism {
		return p11.Mechanism{Type: m, Param: &p11.StringDataParams{Data: make([]byte, n)}}
	}
	bit := p11.Mechanism{Type: p11.CKM_EXTRACT_KEY_FROM_KEY, Param: p11.ExtractBit(3)}
	other := p11.Mechanism{Type: p11.CKM_CONCATENATE_BASE_AND_KEY, Param: p11.OtherKey(1)}
	// Of IKE a key that is long enough is the base key itself.
	itself := p11.Mechanism{Type: p11.CKM_IKE1_EXTENDED_DERIVE, Param: &p11.IKE1ExtendedParams{PRF: p11.CKM_SHA512_HMAC}}
	for _, m := range []p11.Mechanism{bit, other, itself, data(p11.CKM_XOR_BASE_AND_DATA, 1)} {
		if facts, _ := p11.MechanismFacts(m.Type); !facts.Keeps {
			t.Errorf("what %s makes need not be as safe as the base key", m.Type.Short())
		}
	}
	c := NewCrypto(GoProvider(), nil)
	for _, tt := range []struct {
		name string
		m    p11.Mechanism
		keys []*tokens.Object
		n    uint64 // 0 for the natural length
		want p11.RV
	}{
		{"bits of an open key", bit, []*tokens.Object{open}, 1, p11.CKR_OK},
		{"few bits", bit, []*tokens.Object{closed}, 15, p11.CKR_KEY_SIZE_RANGE},
		{"few bits of one that is unextractable", bit, []*tokens.Object{unextractable}, 15, p11.CKR_KEY_SIZE_RANGE},
		{"many bits", bit, []*tokens.Object{closed}, 16, p11.CKR_OK},
		{"the beginning", data(p11.CKM_CONCATENATE_BASE_AND_DATA, 8), []*tokens.Object{closed}, 1, p11.CKR_KEY_SIZE_RANGE},
		{"all, and data", data(p11.CKM_CONCATENATE_BASE_AND_DATA, 8), []*tokens.Object{closed}, 0, p11.CKR_OK},
		{"half, and no data", data(p11.CKM_CONCATENATE_BASE_AND_DATA, 8), []*tokens.Object{closed}, 16, p11.CKR_OK},
		{"data, and a byte", data(p11.CKM_CONCATENATE_DATA_AND_BASE, 31), []*tokens.Object{closed}, 32, p11.CKR_KEY_SIZE_RANGE},
		{"data, and all", data(p11.CKM_CONCATENATE_DATA_AND_BASE, 31), []*tokens.Object{closed}, 63, p11.CKR_OK},
		{"a byte under known data", data(p11.CKM_XOR_BASE_AND_DATA, 1), []*tokens.Object{closed}, 0, p11.CKR_KEY_SIZE_RANGE},
		{"all under known data", data(p11.CKM_XOR_BASE_AND_DATA, 40), []*tokens.Object{closed}, 0, p11.CKR_OK},
		{"behind a known key, a byte", other, []*tokens.Object{open, closed}, 33, p11.CKR_KEY_SIZE_RANGE},
		{"behind a known key, all", other, []*tokens.Object{open, closed}, 64, p11.CKR_OK},
		{"in front of a known key", other, []*tokens.Object{closed, open}, 33, p11.CKR_OK},
		{"a byte of itself", itself, []*tokens.Object{closed}, 1, p11.CKR_KEY_SIZE_RANGE},
		{"itself", itself, []*tokens.Object{closed}, 32, p11.CKR_OK},
		{"both", other, []*tokens.Object{closed, closed}, 40, p11.CKR_KEY_SIZE_RANGE},
	} {
		_, _, err := c.JoinKeys(t.Context(), tt.m, tt.keys, []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, tt.n)})
		if got := p11.RVOf(err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// RFC 5869 §A.1: extraction and expansion each by itself, and together.
func TestHKDFParts(t *testing.T) {
	const (
		ikm  = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"
		salt = "000102030405060708090a0b0c"
		prk  = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
		okm  = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
	)
	hkdf := func(p p11.HKDFParams) p11.Mechanism {
		p.Hash, p.Info = p11.CKM_SHA256, tokentest.Hex(t, "f0f1f2f3f4f5f6f7f8f9")
		return p11.Mechanism{Type: p11.CKM_HKDF_DERIVE, Param: &p}
	}
	data, key := tokentest.Hex(t, salt), uint64(p11.CKF_HKDF_SALT_KEY)
	md2 := p11.Mechanism{Type: p11.CKM_HKDF_DERIVE, Param: &p11.HKDFParams{Expand: true, Hash: p11.CKM_MD2}}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, j := range []joining{
			{name: "both", m: hkdf(p11.HKDFParams{Extract: true, Expand: true, Salt: data}), base: ikm, n: 42, want: okm},
			{name: "extract", m: hkdf(p11.HKDFParams{Extract: true, Salt: data}), base: ikm, want: prk},
			{name: "expand", m: hkdf(p11.HKDFParams{Expand: true}), base: prk, n: 42, want: okm},
			{name: "a key as salt", m: hkdf(p11.HKDFParams{Extract: true, SaltType: key, SaltKey: 7}), base: ikm, others: []string{salt}, want: prk},
			{name: "data, and a key that does not count", m: hkdf(p11.HKDFParams{Extract: true, SaltType: uint64(p11.CKF_HKDF_SALT_DATA), Salt: data, SaltKey: 7}), base: ikm, others: []string{"00"}, want: prk},
			{name: "no salt though there is one", m: hkdf(p11.HKDFParams{Extract: true, SaltType: uint64(p11.CKF_HKDF_SALT_NULL), Salt: data}), base: ikm, want: extractZeros},
			{name: "no key as salt", m: hkdf(p11.HKDFParams{Extract: true, SaltType: key}), base: ikm, others: []string{""}, rv: p11.CKR_MECHANISM_PARAM_INVALID},
			{name: "another salt", m: hkdf(p11.HKDFParams{Extract: true, SaltType: 9}), base: ikm, rv: p11.CKR_MECHANISM_PARAM_INVALID},
			{name: "neither", m: hkdf(p11.HKDFParams{}), base: ikm, n: 16, rv: p11.CKR_MECHANISM_PARAM_INVALID},
			{name: "no length", m: hkdf(p11.HKDFParams{Expand: true}), base: prk, rv: p11.CKR_TEMPLATE_INCOMPLETE},
			{name: "too long", m: hkdf(p11.HKDFParams{Expand: true}), base: prk, n: 255*32 + 1, rv: p11.CKR_KEY_SIZE_RANGE},
			{name: "extracts too little", m: hkdf(p11.HKDFParams{Extract: true}), base: ikm, n: 33, rv: p11.CKR_KEY_SIZE_RANGE},
			{name: "a hash that is not served", m: md2, base: prk, n: 16, rv: p11.CKR_MECHANISM_PARAM_INVALID},
		} {
			j.kt = p11.CKK_HKDF
			j.run(t, c)
		}
	})
}

// extractZeros is HMAC-SHA-256 of that key under 32 zeros, which Python's hmac computed.
const extractZeros = "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"

// A DES key that is derived has the parity of one, and AES keys their length.
func TestDerivedTypes(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		base := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, bytes.Repeat([]byte{2, 1}, 16))
		m := p11.Mechanism{Type: p11.CKM_CONCATENATE_BASE_AND_DATA, Param: &p11.StringDataParams{Data: []byte{0}}}
		a, err := c.DeriveKey(t.Context(), m, base, secretTemplate(p11.CKK_DES3, 0))
		if got, _ := a.Get(p11.CKA_VALUE); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{2, 1}, 12)) {
			t.Errorf("%x, %v", got, err)
		}
		p := &p11.PBKD2Params{Salt: []byte("salt"), Iterations: 1, PRF: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, Password: []byte("password")}
		made, err := c.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: p}, secretTemplate(p11.CKK_AES, 16))
		if got, _ := made.Get(p11.CKA_VALUE); err != nil || fmt.Sprintf("%x", got) != "0c60c80f961f0e71f3a9b524af601206" { // RFC 6070
			t.Errorf("%x, %v", got, err)
		}
		for name, bad := range map[string]struct {
			prf      p11.PBKDF2PRF
			template p11.Attributes
			want     p11.RV
		}{
			"no length":  {p11.CKP_PKCS5_PBKD2_HMAC_SHA1, secretTemplate(p11.CKK_AES, 0), p11.CKR_TEMPLATE_INCOMPLETE},
			"bad length": {p11.CKP_PKCS5_PBKD2_HMAC_SHA1, secretTemplate(p11.CKK_AES, 17), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			"no such":    {p11.CKP_PKCS5_PBKD2_HMAC_GOSTR3411, secretTemplate(p11.CKK_AES, 16), p11.CKR_MECHANISM_PARAM_INVALID},
		} {
			p := &p11.PBKD2Params{Salt: []byte("salt"), Iterations: 1, PRF: bad.prf, Password: []byte("password")}
			_, err := c.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: p}, bad.template)
			if p11.RVOf(err) != bad.want {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
