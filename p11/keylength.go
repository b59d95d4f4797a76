package p11

import "slices"

// KeyLengths returns the lengths in bytes that a secret key of the type can
// have; nil is any.
func KeyLengths(t KeyType) []uint64 {
	switch t {
	case CKK_AES:
		return []uint64{16, 24, 32}
	case CKK_AES_XTS:
		return []uint64{32, 64}
	case CKK_DES:
		return []uint64{8}
	case CKK_DES2:
		return []uint64{16}
	case CKK_DES3:
		return []uint64{24}
	case CKK_CHACHA20:
		return []uint64{32}
	}
	return nil
}

// FitsKey tells whether a secret key of the type can have that length in bytes.
func FitsKey(t KeyType, length uint64) bool {
	lengths := KeyLengths(t)
	if lengths == nil {
		return length > 0
	}
	return slices.Contains(lengths, length)
}
