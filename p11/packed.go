package p11

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Packed is the attributes of an object in one piece of memory, a quarter of what they take
// as Attributes: the number of them; then for each its type, the length of its value, and
// the value. Numbers are as binary.AppendUvarint has them.
type Packed []byte

// Pack returns a copy of the attributes.
func (a Attributes) Pack() Packed {
	size := binary.MaxVarintLen16
	for _, x := range a {
		size += uvarintLen(uint64(x.Type)) + uvarintLen(uint64(len(x.Value))) + len(x.Value)
	}
	p := binary.AppendUvarint(make(Packed, 0, size), uint64(len(a)))
	for _, x := range a {
		p = binary.AppendUvarint(p, uint64(x.Type))
		p = binary.AppendUvarint(p, uint64(len(x.Value)))
		p = append(p, x.Value...)
	}
	return p
}

func uvarintLen(n uint64) (l int) {
	for l = 1; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

// Unpack returns the attributes, whose values are in p: they are wiped with it.
func (p Packed) Unpack() Attributes {
	n, p := p.number()
	a := make(Attributes, n)
	for i := range a {
		a[i], p = p.next()
	}
	return a
}

// All yields the attributes in their order, without memory for a list of them. Their values
// are in p.
func (p Packed) All() iter.Seq[Attribute] {
	return func(yield func(Attribute) bool) {
		n, p := p.number()
		for ; n > 0; n-- {
			var x Attribute
			if x, p = p.next(); !yield(x) {
				return
			}
		}
	}
}

// Match is Attributes.Match.
func (p Packed) Match(template Attributes) bool {
	left := len(template)
	for x := range p.All() {
		if left == 0 {
			break
		}
		for _, t := range template {
			if t.Type != x.Type {
				continue
			}
			if !bytes.Equal(t.Value, x.Value) {
				return false
			}
			left--
		}
	}
	return left == 0
}

func (p Packed) number() (uint64, Packed) {
	n, size := binary.Uvarint(p)
	return n, p[size:]
}

func (p Packed) next() (Attribute, Packed) {
	t, p := p.number()
	n, p := p.number()
	return Attribute{AttributeType(t), p[:n:n]}, p[n:]
}
