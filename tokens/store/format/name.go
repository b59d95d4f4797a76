package format

import (
	"strings"

	"p11fs/p11"
)

// A Name is the name of an object file: 8 letters and digits.
//
// The names that p11fs and stock programs up to 3.17 make are numbers, with 8
// digits of base 36, the least significant first: they are given out in ascending
// order and never twice. Later stock programs make OB and 6 random letters and
// digits, in directories of this format too.
type Name [8]byte

const (
	digits  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters = digits + "abcdefghijklmnopqrstuvwxyz"
	numbers = 36 * 36 * 36 * 36 * 36 * 36 * 36 * 36
)

// firstName returns the name of the first object of a token.
func firstName() Name { return Name([]byte("00000000")) }

// ParseName returns the name that s spells, and false if it spells none.
func ParseName[T string | []byte](s T) (n Name, ok bool) {
	if len(s) != len(n) {
		return Name{}, false
	}
	copy(n[:], s)
	return n, n.madeOf(letters)
}

func (n Name) madeOf(letters string) bool {
	for _, c := range n {
		if strings.IndexByte(letters, c) < 0 {
			return false
		}
	}
	return true
}

func (n Name) isNumber() bool { return n.madeOf(digits) }

func (n Name) String() string { return string(n[:]) }

// next is the name after n, which is a number. After ZZZZZZZZ comes 10000000, as
// in stock.
func (n Name) next() Name {
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

// number is the number that n stands for, or of a name that is no number one
// behind all numbers.
func (n Name) number() uint64 {
	if n.isNumber() {
		return n.inBase(digits)
	}
	return numbers + n.inBase(letters)
}

func (n Name) inBase(digits string) (v uint64) {
	for i := len(n) - 1; i >= 0; i-- {
		v = v*uint64(len(digits)) + uint64(strings.IndexByte(digits, n[i]))
	}
	return v
}

// next is the name of the next object.
func (d *TokenData) next() Name {
	if n := Name(d.b[offNext : offNext+8]); n != (Name{}) {
		return n
	}
	return firstName()
}

// checkNext refuses data in which the name of the next object is none: it becomes the name
// of a file. Stock from 3.18 on leaves it NUL.
func (d *TokenData) checkNext() error {
	if !d.next().isNumber() {
		return p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT holds no valid name for the next object")
	}
	return nil
}

func (d *TokenData) setNext(n Name) { copy(d.b[offNext:], n[:]) }

// numbered gives objects names that are numbers, in both formats. Stock takes any.
type numbered struct{}

// Place is Format.
func (numbered) Place(n Name) uint64 { return n.number() }

// NewNames is Data: a run of names that the data has passed then. Its next name
// can go back, since a stock process that starts copies an old NVTOK.DAT over the
// shared state; so names that are taken are passed over.
func (numbered) NewNames(d TokenData, count int, taken func(Name) (bool, error)) (names []Name, _ TokenData, err error) {
	n := d.next()
	for range max(count, 1) {
		for used := true; used; n = n.next() {
			if used, err = taken(n); err != nil {
				return nil, d, err
			}
			if !used {
				names = append(names, n)
			}
		}
	}
	d.setNext(n)
	return names, d, nil
}

// KeepNames is Data.
func (numbered) KeepNames(d, old TokenData) TokenData {
	if o := old.next(); d.next().number() < o.number() {
		d.setNext(o)
	}
	return d
}
