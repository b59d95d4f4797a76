package store

import "strings"

// A name is the name of an object file: 8 digits of base 36, the least
// significant first. Names are given out in ascending order and never twice.
type name [8]byte

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// firstName returns the name of the first object of a token.
func firstName() name { return name([]byte("00000000")) }

// parseName returns the name that s spells, and false if it spells none.
func parseName(s string) (n name, ok bool) {
	if len(s) != len(n) {
		return name{}, false
	}
	for i := range len(s) {
		if strings.IndexByte(digits, s[i]) < 0 {
			return name{}, false
		}
	}
	return name([]byte(s)), true
}

func (n name) String() string { return string(n[:]) }

// next is the name after n. After ZZZZZZZZ comes 10000000, as in stock.
func (n name) next() name {
	for i, c := range n {
		if d := strings.IndexByte(digits, c) + 1; d < len(digits) {
			n[i] = digits[d]
			return n
		}
		n[i] = '0'
	}
	n[0] = '1'
	return n
}

// number is n's place in the order of names.
func (n name) number() (v uint64) {
	for i := len(n) - 1; i >= 0; i-- {
		v = v*uint64(len(digits)) + uint64(max(0, strings.IndexByte(digits, n[i])))
	}
	return v
}
