package swtok

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// ibmForms are the attributes that openCryptoki's form of a private key can be made of.
func ibmForms(t *testing.T, c *Crypto, priv *tokens.Object) (kt p11.KeyType, forms map[string]p11.Attributes) {
	t.Helper()
	std, err := priv.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer priv.Release()
	kt = p11.CKK_IBM_ML_DSA
	if was, _ := std.KeyType(); was == p11.CKK_ML_KEM {
		kt = p11.CKK_IBM_ML_KEM
	}
	der, err := pkix.EncodePrivateKey(std)
	if err != nil {
		t.Fatal(err)
	}
	head := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(uint64(kt))}}
	whole, err := c.Adopt(t.Context(), head.With(p11.CKA_VALUE, der))
	if err != nil {
		t.Fatal(err)
	}
	set := head.With(p11.CKA_IBM_PARAMETER_SET, value(t, whole, p11.CKA_IBM_PARAMETER_SET))
	parts, seed := set.Clone(), set.Clone()
	for _, a := range whole {
		switch {
		case a.Type == p11.CKA_IBM_ML_DSA_PRIVATE_SEED || a.Type == p11.CKA_IBM_ML_KEM_PRIVATE_SEED:
			seed.Set(a.Type, bytes.Clone(a.Value))
		case a.Type >= p11.CKA_IBM_ML_DSA_RHO && a.Type <= p11.CKA_IBM_ML_KEM_SK:
			parts.Set(a.Type, bytes.Clone(a.Value))
		}
	}
	return kt, map[string]p11.Attributes{"whole": whole, "parts": parts, "seed": seed}
}

// Keys of openCryptoki's own types are those of the standard, whichever attributes they come
// in: signatures without random numbers are the same, and so are secrets.
func TestIBMKeys(t *testing.T) {
	lengths := map[string][]int{ // usr/lib/common/pqc_supported.c of openCryptoki: s1, s2, t0, t1
		"ml-dsa-44": {384, 384, 1664, 1280}, "ml-dsa-65": {640, 768, 2496, 1920}, "ml-dsa-87": {672, 768, 3328, 2560},
	}
	c := NewCrypto(GoProvider(), nil)
	data := []byte("data")
	for _, name := range []string{"ml-dsa-44", "ml-dsa-65", "ml-dsa-87", "ml-kem-512", "ml-kem-768", "ml-kem-1024"} {
		pub, priv := pqcPair(t, c, name)
		kt, forms := ibmForms(t, c, priv)
		for form, given := range forms {
			a, err := c.Adopt(t.Context(), given.Clone())
			if err != nil {
				t.Fatalf("%s, %s: %v", name, form, err)
			}
			key := tokentest.Object(t, a)
			if kt == p11.CKK_IBM_ML_KEM {
				ciphertext, one, err := c.EncapsulateKey(t.Context(), p11.Mechanism{Type: p11.CKM_ML_KEM}, pub, secretTemplate(p11.CKK_AES, 32))
				if err != nil {
					t.Fatal(err)
				}
				two := kemDerive(t, c, key, &p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_DECAPSULATE, KDF: p11.CKD_NULL, Ciphertext: ciphertext}, 32, nil)
				if !bytes.Equal(value(t, one, p11.CKA_VALUE), two) {
					t.Errorf("%s, %s: another secret", name, form)
				}
				continue
			}
			for i, at := range []p11.AttributeType{p11.CKA_IBM_ML_DSA_S1, p11.CKA_IBM_ML_DSA_S2, p11.CKA_IBM_ML_DSA_T0, p11.CKA_IBM_ML_DSA_T1} {
				if n := len(value(t, a, at)); n != lengths[name][i] {
					t.Errorf("%s, %s: %s has %d bytes", name, form, at.Short(), n)
				}
			}
			sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_IBM_ML_DSA, Param: &p11.IBMSignContext{Hedge: p11.CKH_IBM_DETERMINISTIC_REQUIRED, Context: []byte("x")}}, key, data)
			if err != nil {
				t.Fatal(err)
			}
			want, err := signAll(c, p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.SignContext{Hedge: p11.CKH_DETERMINISTIC_REQUIRED, Context: []byte("x")}}, priv, data)
			if err != nil || !bytes.Equal(sig, want) {
				t.Errorf("%s, %s: another signature, %v", name, form, err)
			}
			sig, err = signAll(c, p11.Mechanism{Type: p11.CKM_IBM_ML_DSA}, key, data)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(c, p11.Mechanism{Type: p11.CKM_ML_DSA}, pub, data, sig); err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
			}
		}
	}
}

// What is missing, and what contradicts the rest, makes no key.
func TestIBMKeyRefused(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, name := range []string{"ml-dsa-44", "ml-kem-512"} {
		_, priv := pqcPair(t, c, name)
		_, other := pqcPair(t, c, map[string]string{"ml-dsa-44": "ml-dsa-65", "ml-kem-512": "ml-kem-768"}[name])
		_, forms := ibmForms(t, c, priv)
		_, others := ibmForms(t, c, other)
		refused := func(what string, a p11.Attributes, rv p11.RV) {
			t.Helper()
			if _, err := c.Adopt(t.Context(), a); p11.RVOf(err) != rv {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		for _, a := range forms["parts"] {
			without := forms["parts"].Clone()
			without.Delete(a.Type)
			public := a.Type == p11.CKA_IBM_ML_DSA_T1 || a.Type == p11.CKA_IBM_ML_KEM_PK // which follows
			if a.Type != p11.CKA_CLASS && a.Type != p11.CKA_KEY_TYPE && !public {
				refused("without "+a.Type.Short(), without, p11.CKR_TEMPLATE_INCOMPLETE)
			}
			if a.Type >= p11.CKA_IBM_ML_DSA_RHO {
				refused("a short "+a.Type.Short(), forms["parts"].With(a.Type, a.Value[1:]), p11.CKR_ATTRIBUTE_VALUE_INVALID)
				refused("the other's "+a.Type.Short(), forms["whole"].With(a.Type, value(t, others["whole"], a.Type)), p11.CKR_ATTRIBUTE_VALUE_INVALID)
				changed := bytes.Clone(a.Value)
				changed[len(changed)/2] ^= 1
				refused("another "+a.Type.Short(), forms["whole"].With(a.Type, changed), p11.CKR_ATTRIBUTE_VALUE_INVALID)
			}
		}
		refused("the other's set", forms["whole"].With(p11.CKA_IBM_PARAMETER_SET, p11.Ulong[uint64](2)), p11.CKR_ATTRIBUTE_VALUE_INVALID)
		refused("no such set", forms["seed"].With(p11.CKA_IBM_PARAMETER_SET, p11.Ulong[uint64](4)), p11.CKR_PARAMETER_SET_NOT_SUPPORTED)
		refused("the seed of another set", forms["seed"].With(p11.CKA_IBM_ML_KEM_PRIVATE_SEED, nil).With(p11.CKA_IBM_ML_DSA_PRIVATE_SEED, []byte{1}), map[string]p11.RV{
			"ml-dsa-44": p11.CKR_ATTRIBUTE_VALUE_INVALID, "ml-kem-512": p11.CKR_TEMPLATE_INCOMPLETE}[name])
		kind := pqc.Standard(map[string]p11.KeyType{"ml-dsa-44": p11.CKK_IBM_ML_KEM, "ml-kem-512": p11.CKK_IBM_ML_DSA}[name])
		refused("the value of a "+kind.Short(), forms["whole"].With(p11.CKA_KEY_TYPE, p11.Ulong(map[string]p11.KeyType{
			"ml-dsa-44": p11.CKK_IBM_ML_KEM, "ml-kem-512": p11.CKK_IBM_ML_DSA}[name])), p11.CKR_ATTRIBUTE_VALUE_INVALID)
	}
}

// kemDerive is the value of a derived key of n bytes.
func kemDerive(t *testing.T, c *Crypto, base *tokens.Object, p p11.Param, n uint64, other *tokens.Object) []byte {
	t.Helper()
	value, _ := kemBoth(t, c, base, p, n, other)
	return value
}

// kemBoth is kemDerive with what comes beside the key.
func kemBoth(t *testing.T, c *Crypto, base *tokens.Object, p p11.Param, n uint64, other *tokens.Object) (derived, out []byte) {
	t.Helper()
	m := p11.Mechanism{Type: p11.CKM_IBM_ML_KEM, Param: p}
	if _, ok := p.(*p11.IBMMLKEMECDHParams); ok {
		m.Type = p11.CKM_IBM_ML_KEM_WITH_ECDH
	}
	made, out, err := c.JoinKeys(t.Context(), m, []*tokens.Object{base, other}, []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, n)})
	if err != nil {
		t.Fatal(err)
	}
	return value(t, made[0], p11.CKA_VALUE), out
}

// Both sides have one secret, which with another key and a key derivation function is what
// ANSI X9.63 says, and the secret of the standard's mechanism is in it.
func TestIBMDerive(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedPair(t, c, p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_IBM_PARAMETER_SET, Value: p11.Ulong(uint64(p11.CKP_ML_KEM_768))}})
		a, err := priv.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		twin, err := pkix.StandardPQC(a)
		priv.Release()
		if err != nil {
			t.Fatal(err)
		}
		std := tokentest.Object(t, twin)
		more := []byte("the value of another key")
		other := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, more)
		curve, _ := p11.CurveNamed("secp256r1")
		ecPub, ecPriv := generatedEC(t, c, curve)
		point := func() []byte {
			a, err := ecPub.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			defer ecPub.Release()
			return bytes.Clone(value(t, a, p11.CKA_EC_POINT))
		}()
		z, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point}}, ecPriv, secretTemplate(p11.CKK_GENERIC_SECRET, 32))
		if err != nil {
			t.Fatal(err)
		}
		ecdh := value(t, z, p11.CKA_VALUE)
		x963 := func(z, shared []byte) []byte {
			one := sha256.Sum256(slices.Concat(z, []byte{0, 0, 0, 1}, shared))
			two := sha256.Sum256(slices.Concat(z, []byte{0, 0, 0, 2}, shared))
			return slices.Concat(one[:], two[:])
		}
		for name, test := range map[string]struct {
			p     p11.Param
			other *tokens.Object
			want  func(t []byte) []byte // of the secret of ML-KEM
			n     uint64
		}{
			"alone":        {&p11.IBMMLKEMParams{KDF: p11.CKD_NULL}, nil, func(t []byte) []byte { return t }, 32},
			"its begin":    {&p11.IBMMLKEMParams{KDF: p11.CKD_IBM_HYBRID_NULL}, nil, func(t []byte) []byte { return t }, 16},
			"behind":       {&p11.IBMMLKEMParams{KDF: p11.CKD_NULL, Secret: 1}, other, func(t []byte) []byte { return slices.Concat(more, t) }, uint64(len(more) + 32)},
			"before":       {&p11.IBMMLKEMParams{KDF: p11.CKD_NULL, Secret: 1, Prepend: true}, other, func(t []byte) []byte { return slices.Concat(t, more) }, uint64(len(more) + 32)},
			"a function":   {&p11.IBMMLKEMParams{KDF: p11.CKD_SHA256_KDF, SharedData: []byte("shared")}, nil, func(t []byte) []byte { return x963(t, []byte("shared")) }, 50},
			"of both":      {&p11.IBMMLKEMParams{KDF: p11.CKD_IBM_HYBRID_SHA256_KDF, Secret: 1}, other, func(t []byte) []byte { return x963(slices.Concat(more, t), nil) }, 64},
			"ecdh":         {&p11.IBMMLKEMECDHParams{KDF: p11.CKD_NULL, PublicData: point}, ecPriv, func(t []byte) []byte { return slices.Concat(ecdh, t) }, 64},
			"ecdh, hashed": {&p11.IBMMLKEMECDHParams{KDF: p11.CKD_SHA256_KDF, SharedData: []byte("s"), PublicData: point}, ecPriv, func(t []byte) []byte { return x963(slices.Concat(ecdh, t), []byte("s")) }, 33},
		} {
			set := func(mode p11.IBMKEMMode, ciphertext []byte) {
				switch p := test.p.(type) {
				case *p11.IBMMLKEMParams:
					p.Mode, p.Ciphertext = mode, ciphertext
				case *p11.IBMMLKEMECDHParams:
					p.Mode, p.Ciphertext = mode, ciphertext
				}
			}
			set(p11.CK_IBM_ML_KEM_ENCAPSULATE, nil)
			one, ciphertext := kemBoth(t, c, pub, test.p, test.n, test.other)
			set(p11.CK_IBM_ML_KEM_DECAPSULATE, ciphertext)
			two := kemDerive(t, c, priv, test.p, test.n, test.other)
			a, err := c.DecapsulateKey(t.Context(), p11.Mechanism{Type: p11.CKM_ML_KEM}, std, ciphertext, secretTemplate(p11.CKK_GENERIC_SECRET, 32))
			if err != nil {
				t.Fatal(err)
			}
			want := test.want(value(t, a, p11.CKA_VALUE))[:test.n]
			if !bytes.Equal(one, two) || !bytes.Equal(one, want) {
				t.Errorf("%s: %x and %x, want %x", name, one, two, want)
			}
		}
		for name, test := range map[string]struct {
			p    p11.Param
			base *tokens.Object
			rv   p11.RV
		}{
			"encapsulate with a private key": {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_NULL}, priv, p11.CKR_KEY_TYPE_INCONSISTENT},
			"decapsulate with a public key":  {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_DECAPSULATE, KDF: p11.CKD_NULL, Ciphertext: make([]byte, 1088)}, pub, p11.CKR_KEY_TYPE_INCONSISTENT},
			"of the standard's type":         {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_DECAPSULATE, KDF: p11.CKD_NULL, Ciphertext: make([]byte, 1088)}, std, p11.CKR_KEY_TYPE_INCONSISTENT},
			"no ciphertext":                  {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_DECAPSULATE, KDF: p11.CKD_NULL}, priv, p11.CKR_MECHANISM_PARAM_INVALID},
			"more than there is":             {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_NULL}, pub, p11.CKR_KEY_SIZE_RANGE},
			"shared data of no function":     {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_IBM_HYBRID_NULL, SharedData: []byte{1}}, pub, p11.CKR_MECHANISM_PARAM_INVALID},
			"a function that is none here":   {&p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_SHA1_KDF_ASN1}, pub, p11.CKR_MECHANISM_PARAM_INVALID},
			"a key that agrees on nothing":   {&p11.IBMMLKEMECDHParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_NULL, PublicData: point}, pub, p11.CKR_KEY_TYPE_INCONSISTENT},
		} {
			m := p11.Mechanism{Type: p11.CKM_IBM_ML_KEM, Param: test.p}
			keys := []*tokens.Object{test.base, nil}
			if _, ok := test.p.(*p11.IBMMLKEMECDHParams); ok {
				m.Type, keys[1] = p11.CKM_IBM_ML_KEM_WITH_ECDH, other
			}
			if _, _, err := c.JoinKeys(t.Context(), m, keys, []p11.Attributes{secretTemplate(p11.CKK_GENERIC_SECRET, 33)}); p11.RVOf(err) != test.rv {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Keys of openCryptoki's types are wrapped as those of the standard, and come back as either.
// Their public half is of their type.
func TestIBMWrap(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	m := p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}
	under := tokentest.Secret(t, p11.CKK_AES, make([]byte, 32))
	for _, name := range []string{"ml-dsa-65", "ml-kem-512"} {
		_, std := pqcPair(t, c, name)
		kt, forms := ibmForms(t, c, std)
		a, err := c.Adopt(t.Context(), forms["seed"])
		if err != nil {
			t.Fatal(err)
		}
		priv := tokentest.Object(t, a.Clone())
		wrapped, err := c.WrapKey(t.Context(), m, under, priv)
		if err != nil {
			t.Fatal(err)
		}
		for _, as := range []p11.KeyType{kt, pqc.Standard(kt)} {
			back, err := c.UnwrapKey(t.Context(), m, under, wrapped, privateTemplate(as))
			if err == nil {
				back, err = c.Adopt(t.Context(), back)
			}
			if err != nil {
				t.Fatalf("%s as %s: %v", name, as.Short(), err)
			}
			if as != kt {
				if back, err = pkix.StandardPQC(a); err != nil {
					t.Fatal(err)
				}
			}
			for _, at := range []p11.AttributeType{p11.CKA_VALUE, p11.CKA_IBM_ML_DSA_S1, p11.CKA_IBM_ML_KEM_SK, p11.CKA_IBM_ML_DSA_PRIVATE_SEED} {
				if as == kt && a.Has(at) && !bytes.Equal(value(t, back, at), value(t, a, at)) {
					t.Errorf("%s: another %s", name, at.Short())
				}
			}
		}
		other := p11.KeyType(p11.CKK_IBM_ML_DSA)
		if kt == other {
			other = p11.CKK_IBM_ML_KEM
		}
		if _, err := c.UnwrapKey(t.Context(), m, under, wrapped, privateTemplate(other)); p11.RVOf(err) != p11.CKR_WRAPPED_KEY_INVALID {
			t.Errorf("%s as %s: %v", name, other.Short(), err)
		}
		half, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_PUB_KEY_FROM_PRIV_KEY}, priv, p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)}})
		if err == nil {
			half, err = c.Adopt(t.Context(), half)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := half.KeyType(); got != kt || !bytes.Equal(value(t, half, p11.CKA_VALUE), value(t, a, p11.CKA_PUBLIC_KEY_INFO)) {
			t.Errorf("%s: the public half is another, of type %s", name, got.Short())
		}
	}
}
