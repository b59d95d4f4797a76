package pkix

import (
	"bytes"
	"crypto/aes"
	"crypto/des"
	"crypto/sha1"

	"p11fs/p11"
)

// Complete checks that the attributes of a key belong together, and adds those
// that follow from others: an RSA key's primes and what belongs to them, an
// elliptic curve key's point, CKA_PUBLIC_KEY_INFO, lengths, the check value of a
// secret key. Other objects stay as they are. It is for tokens whose keys have
// their values in attributes. Errors wrap CKR_ATTRIBUTE_VALUE_INVALID,
// CKR_TEMPLATE_INCOMPLETE or CKR_TEMPLATE_INCONSISTENT.
func Complete(attrs *p11.Attributes) error {
	switch class, _ := attrs.Class(); class {
	case p11.CKO_SECRET_KEY:
		return completeSecret(attrs)
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
		return completePair(attrs, class)
	}
	return nil
}

func missing(t p11.AttributeType) error {
	return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "%s is missing", t.Short())
}

// completeSecret completes a secret key.
func completeSecret(attrs *p11.Attributes) error {
	value, ok := attrs.Get(p11.CKA_VALUE)
	if !ok {
		return missing(p11.CKA_VALUE)
	}
	kt, _ := attrs.KeyType()
	if !p11.FitsKey(kt, uint64(len(value))) {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: %d bytes are no %s key", len(value), kt.Short())
	}
	attrs.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
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

// completePair completes a public or private key.
func completePair(attrs *p11.Attributes, class p11.ObjectClass) error {
	kt, _ := attrs.KeyType()
	t := keyTypeOf(kt)
	if t.complete == nil {
		return nil
	}
	info, err := t.complete(attrs, class)
	if err != nil || info == nil {
		return err
	}
	if given, ok := attrs.Get(p11.CKA_PUBLIC_KEY_INFO); ok && len(given) > 0 && !bytes.Equal(given, info) {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public-key-info: is not that of the key")
	}
	attrs.Set(p11.CKA_PUBLIC_KEY_INFO, info)
	return nil
}
