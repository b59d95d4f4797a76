package p11

import (
	"strconv"
	"strings"
)

// unavailableWord stands for CK_UNAVAILABLE_INFORMATION.
const unavailableWord = "unavailable"

// formatUlong prints the value of a CK_ULONG attribute by its name.
func formatUlong(kind Kind, v uint64) string {
	if v == CK_UNAVAILABLE_INFORMATION {
		return unavailableWord
	}
	if name := kind.nameOf(v); name != "" {
		return name
	}
	return strconv.FormatUint(v, 10)
}

// parseUlong reads what formatUlong prints.
func parseUlong(kind Kind, s string) (uint64, error) {
	switch {
	case s == unavailableWord:
		return CK_UNAVAILABLE_INFORMATION, nil
	case kind == KindParameterSet:
		return parseParameterSet(s)
	case s != "" && strings.Trim(s, "0123456789") == "":
		return parseNumber(s)
	}
	return kind.parse(s)
}

// parseNumber reads a number in decimal, or in hexadecimal with 0x.
func parseNumber(s string) (uint64, error) {
	digits, base := s, 10
	if hex, ok := cutHexPrefix(s); ok {
		digits, base = hex, 16
	}
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "wants a number, not %s", quoteWord(s))
	}
	return v, nil
}
