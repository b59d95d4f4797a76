package swtok

import "p11fs/p11"

// maxSecret is the longest secret key, in bytes, that a template may ask for.
const maxSecret = 64 << 10

// fixedLength is the length in bytes of all keys of a type, 0 if there are several.
func fixedLength(kt p11.KeyType) int {
	if lengths := p11.KeyLengths(kt); len(lengths) == 1 {
		return int(lengths[0])
	}
	return 0
}

// secretLength is the length of the key that a template describes: by its type
// or by CKA_VALUE_LEN; -1 if it says neither.
func secretLength(a p11.Attributes, kt p11.KeyType) (int, error) {
	if n := fixedLength(kt); n != 0 {
		return n, nil
	}
	n, ok := a.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return -1, nil
	case n > maxSecret || !p11.FitsKey(kt, n):
		return 0, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value-len %d does not suit the key type", n)
	}
	return int(n), nil
}

// withValue adds the value of a secret key to its template.
func withValue(a p11.Attributes, kt p11.KeyType, value []byte) p11.Attributes {
	out := a.Clone()
	out.Set(p11.CKA_VALUE, value)
	if fixedLength(kt) == 0 {
		out.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	}
	return out
}
