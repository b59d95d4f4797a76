package p11

//go:generate go run ./gen

import (
	"strconv"
	"strings"
)

// longName and shortName are what the String and Short of every named type
// return.
func longName(known string, v uint64) string {
	if known == "" {
		return hexNumber(v)
	}
	return known
}

func shortName(known, prefix string, v uint64) string {
	if known == "" {
		return hexNumber(v)
	}
	return strings.ToLower(strings.ReplaceAll(known[len(prefix):], "_", "-"))
}

func hexNumber(v uint64) string { return "0x" + strconv.FormatUint(v, 16) }

// String returns the number in hexadecimal: what the bits mean depends on the
// structure; SlotNames, TokenNames, SessionNames and MechanismNames say it.
func (v Flags) String() string { return hexNumber(uint64(v)) }

// parseName reads a name with or without its prefix, in any case, with hyphens
// or underscores, or a number in hexadecimal.
func parseName[T ~uint64](s, prefix, words string, lookup func(string) (T, bool)) (T, error) {
	if hex, ok := cutHexPrefix(s); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return 0, badName(prefix, "%s %s is not a hexadecimal number of 64 bits", words, quoteWord(s))
		}
		return T(n), nil
	}
	u := strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	if v, ok := lookup(strings.TrimPrefix(u, prefix)); ok {
		return v, nil
	}
	return 0, badName(prefix, "unknown %s %s", words, quoteWord(s))
}

// badName wraps the return value that fits names with the prefix.
func badName(prefix, format string, args ...any) error {
	rv := CKR_ATTRIBUTE_VALUE_INVALID
	switch prefix {
	case "CKM_":
		rv = CKR_MECHANISM_INVALID
	case "CKA_":
		rv = CKR_ATTRIBUTE_TYPE_INVALID
	}
	return Errorf(rv, format, args...)
}

func cutHexPrefix(s string) (string, bool) {
	if len(s) >= 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return s[2:], true
	}
	return s, false
}

// quoteWord quotes a word of input for a message, shortened, on one line.
func quoteWord(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
