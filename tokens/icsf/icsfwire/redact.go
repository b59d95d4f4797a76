package icsfwire

import (
	"bytes"

	"p11fs/p11"
)

// Redact is a copy of a request or a response for people to read, with zeros in the place of
// data and of attributes that are secret. Names, lengths, codes and all other attributes stay.
// What is neither is zeros throughout.
func Redact(value []byte) []byte {
	b := bytes.Clone(value)
	e := elements(b)
	in, err := e.want(tagSequence)
	if err != nil {
		clear(b)
		return b
	}
	clear(e) // what follows is nothing that is known
	for e = in; len(e) > 0; {
		tag, body, err := e.next()
		if err != nil {
			clear(e)
			break
		}
		if tag&contextual != 0 && Service(tag&0x1f) != TRL { // whose lists are names
			redact(tag, body, maxNesting)
		}
	}
	return b
}

// maxNesting is more than the elements of any service lie in each other.
const maxNesting = 16

// redact clears an element of data, but for lists and the attributes in them, and all that
// lies deeper than nesting.
func redact(tag byte, body elements, nesting int) {
	if nesting == 0 {
		clear(body)
		return
	}
	if tag&constructed == 0 {
		if tag != tagInteger && tag != tagBoolean {
			clear(body)
		}
		return
	}
	if t, ok := attributeOf(tag, body); ok && !p11.SecretValue(t) {
		return
	}
	for len(body) > 0 {
		tag, in, err := body.next()
		if err != nil {
			clear(body)
			return
		}
		redact(tag, in, nesting-1)
	}
}

// attributeOf is the type of an element that is an attribute. The value of a data object is one
// of a secret, for all that is known here.
func attributeOf(tag byte, body elements) (p11.AttributeType, bool) {
	if tag != tagSequence || body.peek() != tagInteger {
		return 0, false
	}
	t, err := body.number(tagInteger)
	return p11.AttributeType(uint32(t)), err == nil && (body.peek() == valueOctets || body.peek() == valueNumber)
}
