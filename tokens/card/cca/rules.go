package cca

import (
	"slices"
	"strings"
)

// Rules is a rule array: keywords without the blanks behind them.
type Rules []string

// ParseRules reads a rule array, of 8 bytes for each keyword.
func ParseRules(b []byte) (Rules, error) {
	if len(b)%KeywordSize != 0 || len(b)/KeywordSize > maxRules {
		return nil, ErrKeyword
	}
	var r Rules
	for k := range slices.Chunk(b, KeywordSize) {
		r = append(r, Keyword(k))
	}
	return r, nil
}

// Keyword is one keyword without its blanks.
func Keyword(b []byte) string { return strings.TrimRight(string(b), " ") }

// Bytes is the rule array again. A keyword has at most 8 bytes.
func (r Rules) Bytes() []byte {
	var b []byte
	for _, k := range r {
		b = append(b, (k + "        ")[:KeywordSize]...)
	}
	return b
}

// Has says whether k is one of them.
func (r Rules) Has(k string) bool { return slices.Contains(r, k) }

// One is the keyword of list that the array has. It must have one of them, and no other.
func (r Rules) One(list ...string) (string, error) {
	var found string
	for _, k := range list {
		switch {
		case !r.Has(k):
		case found != "":
			return "", ErrKeyword
		default:
			found = k
		}
	}
	if found == "" {
		return "", ErrKeyword
	}
	return found, nil
}

// Only says whether the array has no keywords but those of list, and none twice.
func (r Rules) Only(list ...string) error {
	for i, k := range r {
		if !slices.Contains(list, k) || slices.Contains(r[:i], k) {
			return ErrKeyword
		}
	}
	return nil
}
