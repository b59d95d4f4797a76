package p11

import (
	"slices"
	"strconv"
	"strings"
)

// FitsKey tells whether a secret key of the type can have that length in bytes.
func FitsKey(t KeyType, length uint64) bool {
	lengths := KeyLengths(t)
	if lengths == nil {
		return length > 0
	}
	return slices.Contains(lengths, length)
}

// CheckKeyLength refuses, by the name of the attribute that says it, a length in bytes that no
// secret key of the type can have.
func CheckKeyLength(attribute AttributeType, t KeyType, length uint64) error {
	if FitsKey(t, length) {
		return nil
	}
	err := Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "%s: %d bytes are no %s key", attribute.Short(), length, t.Short())
	var fit []string
	for _, n := range KeyLengths(t) {
		fit = append(fit, strconv.FormatUint(n, 10))
	}
	if fit == nil {
		return Advise(err, "give one byte at least")
	}
	return Advise(err, "give a key of "+strings.Join(fit, " or ")+" bytes")
}
