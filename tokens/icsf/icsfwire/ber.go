package icsfwire

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The tags of BER that are used.
const (
	tagBoolean    byte = 0x01
	tagInteger    byte = 0x02
	tagOctets     byte = 0x04
	tagEnumerated byte = 0x0a
	tagSequence   byte = 0x30
	tagSet        byte = 0x31

	contextual  byte = 0x80 // [n]
	constructed byte = 0x20
	application byte = 0x40
)

// errBER is wrapped by all errors about what was read.
var errBER = errors.New("no message of the services of ICSF")

func bad(what string) error { return fmt.Errorf("%w: %s", errBER, what) }

// elements are BER elements, back to back, that are still to be read.
type elements []byte

// next takes the next element.
func (e *elements) next() (tag byte, body []byte, err error) {
	b := *e
	if len(b) < 2 {
		return 0, nil, bad("an element is missing")
	}
	tag, n, b := b[0], int(b[1]), b[2:]
	if tag&0x1f == 0x1f {
		return 0, nil, bad("a tag has more than one byte")
	}
	if n >= 0x80 {
		count := n & 0x7f
		if count == 0 || count > 4 || count > len(b) {
			return 0, nil, bad("a length is indefinite, too long or cut off")
		}
		n = 0
		for _, x := range b[:count] {
			n = n<<8 | int(x)
		}
		b = b[count:]
	}
	if n < 0 || n > len(b) {
		return 0, nil, bad("an element is longer than what is around it")
	}
	*e = b[n:]
	return tag, b[:n], nil
}

// want takes the next element, which has that tag.
func (e *elements) want(tag byte) ([]byte, error) {
	got, body, err := e.next()
	if err == nil && got != tag {
		err = bad(fmt.Sprintf("there is an element with the tag %#x in place of %#x", got, tag))
	}
	return body, err
}

// peek is the tag of the next element, 0 where there is none.
func (e elements) peek() byte {
	if len(e) == 0 {
		return 0
	}
	return e[0]
}

// number takes the next element, which is a number with that tag.
func (e *elements) number(tag byte) (int, error) {
	body, err := e.want(tag)
	if err != nil {
		return 0, err
	}
	return numberOf(body)
}

// numberOf is the number in an INTEGER, of 32 bits and a sign, or of 32 bits without one.
func numberOf(body []byte) (int, error) {
	if len(body) == 0 || len(body) > 8 {
		return 0, bad("a number has no length that there is")
	}
	n := int64(int8(body[0]))
	for _, x := range body[1:] {
		n = n<<8 | int64(x)
	}
	if n < -1<<31 || n > 1<<32-1 {
		return 0, bad("a number is too large")
	}
	return int(n), nil
}

// tagged is the tag as cryptobyte has it.
func tagged(tag byte) asn1.Tag { return asn1.Tag(tag) }

func addBytes(b *cryptobyte.Builder, tag byte, body []byte) {
	b.AddASN1(tagged(tag), func(b *cryptobyte.Builder) { b.AddBytes(body) })
}

func addNumber(b *cryptobyte.Builder, tag byte, n int) {
	b.AddASN1Int64WithTag(int64(n), tagged(tag))
}
