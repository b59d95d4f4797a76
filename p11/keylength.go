package p11

import "slices"

// FitsKey tells whether a secret key of the type can have that length in bytes.
func FitsKey(t KeyType, length uint64) bool {
	lengths := KeyLengths(t)
	if lengths == nil {
		return length > 0
	}
	return slices.Contains(lengths, length)
}
