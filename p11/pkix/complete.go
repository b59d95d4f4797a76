package pkix

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/sha1"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
)

// Complete checks that the attributes of a key belong together, and adds those
// that follow from others: an RSA key's primes and what belongs to them, an
// elliptic curve key's point, CKA_PUBLIC_KEY_INFO, lengths, the check value of a
// secret key or certificate. Other objects stay as they are. It is for tokens whose keys have
// their values in attributes. Errors wrap CKR_ATTRIBUTE_VALUE_INVALID,
// CKR_TEMPLATE_INCOMPLETE or CKR_TEMPLATE_INCONSISTENT.
func Complete(attrs *p11.Attributes) error {
	switch class, _ := attrs.Class(); class {
	case p11.CKO_SECRET_KEY:
		return completeSecret(attrs)
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
		return completePair(attrs, class)
	case p11.CKO_CERTIFICATE:
		if der, _ := attrs.Get(p11.CKA_VALUE); len(der) > 0 { // PKCS#11 v3.1 §4.6.2
			return completeCheck(attrs, sha1Check(der))
		}
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
	if err := p11.CheckKeyLength(p11.CKA_VALUE, kt, uint64(len(value))); err != nil {
		return err
	}
	attrs.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	return completeCheck(attrs, checkValue(kt, value))
}

// completeCheck adds the check value, or checks the one that was given. An empty one
// says that none is wanted (PKCS#11 v3.1 §4.10.1).
func completeCheck(attrs *p11.Attributes, want []byte) error {
	given, ok := attrs.Get(p11.CKA_CHECK_VALUE)
	switch {
	case ok && len(given) == 0:
		attrs.Delete(p11.CKA_CHECK_VALUE)
	case ok && !bytes.Equal(given, want):
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "check-value: is not that of the object's value")
	default:
		attrs.Set(p11.CKA_CHECK_VALUE, want)
	}
	return nil
}

// checkValue is the key check value of PKCS#11 v3.1 §4.10.1: three bytes of a zero
// block encrypted, or of SHA-1 over a key that is no block cipher's. Three bytes
// narrow down a value that can be guessed: whoever keeps such a secret asks for none.
func checkValue(t p11.KeyType, value []byte) []byte {
	var b cipher.Block
	var err error
	switch t {
	case p11.CKK_AES:
		b, err = aes.NewCipher(value)
	case p11.CKK_DES:
		b, err = des.NewCipher(value)
	case p11.CKK_DES2, p11.CKK_DES3:
		twice := slices.Concat(value, value) // K1, K2, K1 of a DES2 key
		defer secret.Wipe(twice)
		whole := twice[:24]
		b, err = des.NewTripleDESCipher(whole)
	}
	if b == nil || err != nil {
		return sha1Check(value)
	}
	out := make([]byte, b.BlockSize())
	b.Encrypt(out, out)
	return out[:3:3]
}

// sha1Check is the first three bytes of the SHA-1 of b.
func sha1Check(b []byte) []byte {
	sum := sha1.Sum(b)
	return sum[:3:3]
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
