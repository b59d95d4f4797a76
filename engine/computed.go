package engine

import (
	"bytes"
	"crypto/aes"
	"crypto/des"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"math/big"

	"p11fs/p11"
)

// finish adds what the token computes for a new object: where it comes from, its
// history, and what follows from the key. m made it, or is 0 with any other
// origin than generated; base is the key it was derived from.
func finish(attrs *p11.Attributes, o origin, m p11.MechanismType, base p11.Attributes) error {
	if err := setUniqueID(attrs); err != nil {
		return err
	}
	class, _ := attrs.Class()
	if isKey(class) || class == p11.CKO_DOMAIN_PARAMETERS {
		attrs.SetBool(p11.CKA_LOCAL, o == generated)
	}
	if isKey(class) {
		made := p11.Unavailable
		if o == generated {
			made = uint64(m)
		}
		attrs.SetUlong(p11.CKA_KEY_GEN_MECHANISM, made)
	}
	if isSecretClass(class) {
		sensitive, extract := attrs.Bool(p11.CKA_SENSITIVE), attrs.Bool(p11.CKA_EXTRACTABLE)
		switch o {
		case created, unwrapped: // it has been outside
			sensitive, extract = false, true
		case derived:
			sensitive = sensitive && base.Bool(p11.CKA_ALWAYS_SENSITIVE)
			extract = extract || !base.Bool(p11.CKA_NEVER_EXTRACTABLE)
		}
		attrs.SetBool(p11.CKA_ALWAYS_SENSITIVE, sensitive)
		attrs.SetBool(p11.CKA_NEVER_EXTRACTABLE, !extract)
	}
	switch class {
	case p11.CKO_SECRET_KEY:
		return finishSecret(attrs)
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
		return finishPair(attrs, class)
	}
	return nil
}

// setUniqueID gives the object a CKA_UNIQUE_ID (PKCS#11 v3.1 §4.4.1).
func setUniqueID(attrs *p11.Attributes) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
	}
	attrs.Set(p11.CKA_UNIQUE_ID, []byte(hex.EncodeToString(id[:])))
	return nil
}

func finishSecret(attrs *p11.Attributes) error {
	if err := consistent(*attrs); err != nil {
		return err
	}
	value, ok := attrs.Get(p11.CKA_VALUE)
	if !ok {
		return incomplete(p11.CKA_VALUE)
	}
	attrs.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	kt, _ := attrs.KeyType()
	want := checkValue(kt, value)
	given, ok := attrs.Get(p11.CKA_CHECK_VALUE)
	switch {
	case ok && len(given) == 0:
		attrs.Delete(p11.CKA_CHECK_VALUE) // not wanted (PKCS#11 v3.1 §4.10.1)
	case ok && want != nil && !bytes.Equal(given, want):
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "check-value: is not that of the key")
	case !ok && want != nil && kt != p11.CKK_GENERIC_SECRET:
		// A generic secret may be guessable, and its check value would then
		// tell it: it has one only when asked.
		attrs.Set(p11.CKA_CHECK_VALUE, want)
	}
	return nil
}

// checkValue is the key check value of PKCS#11 v3.1 §4.10.1: three bytes of a
// zero block encrypted, or of SHA-1 over a generic secret; nil if the type has
// none here.
func checkValue(t p11.KeyType, value []byte) []byte {
	switch t {
	case p11.CKK_AES:
		if b, err := aes.NewCipher(value); err == nil {
			out := make([]byte, b.BlockSize())
			b.Encrypt(out, out)
			return out[:3:3]
		}
	case p11.CKK_DES3:
		if b, err := des.NewTripleDESCipher(value); err == nil {
			out := make([]byte, b.BlockSize())
			b.Encrypt(out, out)
			return out[:3:3]
		}
	case p11.CKK_GENERIC_SECRET:
		sum := sha1.Sum(value)
		return sum[:3:3]
	}
	return nil
}

func finishPair(attrs *p11.Attributes, class p11.ObjectClass) error {
	kt, _ := attrs.KeyType()
	var info []byte
	var err error
	switch kt {
	case p11.CKK_RSA:
		if err = finishRSA(attrs, class); err == nil {
			info, err = rsaPublicKeyInfo(*attrs)
		}
	case p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY:
		info, err = finishEC(attrs, kt)
	}
	if err != nil || info == nil {
		return err
	}
	if given, ok := attrs.Get(p11.CKA_PUBLIC_KEY_INFO); ok && len(given) > 0 && !bytes.Equal(given, info) {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public-key-info: is not that of the key")
	}
	attrs.Set(p11.CKA_PUBLIC_KEY_INFO, info)
	return nil
}

func finishRSA(attrs *p11.Attributes, class p11.ObjectClass) error {
	n, err := positive(*attrs, p11.CKA_MODULUS)
	if err != nil {
		return err
	}
	e, err := positive(*attrs, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return err
	}
	if n.Bit(0) == 0 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "modulus: is even")
	}
	if e.Bit(0) == 0 || e.BitLen() < 2 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public-exponent: is even or 1")
	}
	if class == p11.CKO_PRIVATE_KEY {
		return completeRSA(attrs, n, e)
	}
	// Whether a public key of that size is of use is the token's to say when it
	// is used: other tokens keep any, and programs count on it.
	bits := uint64(n.BitLen())
	if given, ok := attrs.Ulong(p11.CKA_MODULUS_BITS); ok && given != bits {
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "modulus-bits: is %d, but the modulus has %d bits", given, bits)
	}
	attrs.SetUlong(p11.CKA_MODULUS_BITS, bits)
	return nil
}

// positive reads a big integer that must not be zero.
func positive(attrs p11.Attributes, t p11.AttributeType) (*big.Int, error) {
	b, ok := attrs.Get(t)
	if !ok {
		return nil, incomplete(t)
	}
	if len(b) > 4096 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: has %d bytes", t.Short(), len(b))
	}
	n := new(big.Int).SetBytes(b)
	if n.Sign() == 0 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: is zero", t.Short())
	}
	return n, nil
}
