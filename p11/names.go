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
func parseName[T named](s, prefix, words string, lookup func(string) (T, bool), all func() []T) (T, error) {
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
	if near := nearest(s, all()); near != "" {
		return 0, badName(prefix, "unknown %s %s; did you mean %s?", words, quoteWord(s), near)
	}
	return 0, badName(prefix, "unknown %s %s", words, quoteWord(s))
}

// named is any of the named types.
type named interface {
	~uint64
	Short() string
}

// nearest returns the short name that differs from s by a slip or two of the
// finger, or "".
func nearest[T named](s string, all []T) string {
	s = strings.ToLower(strings.ReplaceAll(s, "_", "-"))
	if len(s) < 3 || len(s) > 40 {
		return ""
	}
	best, least := "", min(3, (len(s)+2)/3)
	for _, v := range all {
		name := v.Short()
		if d := distance(s, name, least); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with the next
// that make b of a. It may return any number of at least most instead.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, prev, row = prev, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
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
