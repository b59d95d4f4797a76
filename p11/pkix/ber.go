package pkix

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/secret"
)

// maxBER is how deep elements may be in others.
const maxBER = 32

// toDER gives data in the forms of DER that BER leaves open (X.690 §8.1.3, §8.7.3): a
// length is definite and as short as it can be, and a string is in one piece. NSS and
// Java write PKCS#12 in the other forms. Nothing else is changed or checked: what is in DER
// stays as it is. The result is the caller's to wipe. Its size, and the work, are
// bounded by those of data and by maxBER.
func toDER(data []byte) (der []byte, ok bool) {
	der, rest, ok := berFirst(data)
	return der, ok && len(rest) == 0
}

// berFirst is toDER of the first element of data, and what comes after it.
func berFirst(data []byte) (der, rest []byte, ok bool) {
	in := cryptobyte.String(data)
	der, ok = berElement(&in, 0)
	return der, in, ok
}

const constructed = 0x20

// berElement reads one element.
func berElement(in *cryptobyte.String, depth int) ([]byte, bool) {
	tag, size, ok := berHead(in)
	indefinite := size < 0
	if !ok || depth > maxBER || indefinite && tag[0]&constructed == 0 {
		return nil, false
	}
	var body []byte
	if !indefinite && !in.ReadBytes(&body, size) {
		return nil, false
	}
	if tag[0]&constructed == 0 {
		return derElement(tag, body), true
	}
	inner := cryptobyte.String(body)
	if indefinite {
		inner = *in
	}
	var contents []byte
	defer func() { secret.Wipe(contents) }()
	for !indefinite && !inner.Empty() || indefinite && !endOfContents(&inner) {
		piece, ok := berElement(&inner, depth+1)
		if !ok {
			return nil, false
		}
		if isString(tag[0]) {
			ok = joinString(&contents, tag[0], piece)
		} else {
			contents = secret.Append(contents, piece)
		}
		secret.Wipe(piece)
		if !ok {
			return nil, false
		}
	}
	if indefinite {
		*in = inner
	}
	if isString(tag[0]) {
		tag = []byte{tag[0] &^ constructed}
	}
	return derElement(tag, contents), true
}

// berHead reads the tag of an element, and the length of its contents, -1 if the end
// is marked.
func berHead(in *cryptobyte.String) (tag []byte, size int, ok bool) {
	whole := *in
	var b, first byte
	if !in.ReadUint8(&first) {
		return nil, 0, false
	}
	for more := first&0x1f == 0x1f; more; more = b&0x80 != 0 {
		if len(whole)-len(*in) > 4 || !in.ReadUint8(&b) {
			return nil, 0, false
		}
	}
	tag = whole[:len(whole)-len(*in)]
	if !in.ReadUint8(&b) {
		return nil, 0, false
	}
	switch {
	case b < 0x80:
		return tag, int(b), true
	case b == 0x80:
		return tag, -1, true
	}
	for range b & 0x7f {
		var digit byte
		if !in.ReadUint8(&digit) || size > MaxSize {
			return nil, 0, false
		}
		size = size<<8 | int(digit)
	}
	return tag, size, true
}

// endOfContents takes the mark of the end, if it is there.
func endOfContents(in *cryptobyte.String) bool {
	if len(*in) < 2 || (*in)[0] != 0 || (*in)[1] != 0 {
		return false
	}
	return in.Skip(2)
}

// isString says whether a constructed element is a string in pieces.
func isString(tag byte) bool {
	switch t := asn1.Tag(tag &^ constructed); {
	case tag&constructed == 0:
		return false
	case t == asn1.BIT_STRING, t == asn1.OCTET_STRING, t == asn1.UTF8String:
		return true
	default:
		return t >= 18 && t <= 30 && t != asn1.UTCTime && t != asn1.GeneralizedTime
	}
}

// joinString adds a piece of a string, which is a string itself.
func joinString(contents *[]byte, tag byte, piece []byte) bool {
	var part cryptobyte.String
	var t asn1.Tag
	in := cryptobyte.String(piece)
	if !in.ReadAnyASN1(&part, &t) || t != asn1.OCTET_STRING && t != asn1.Tag(tag&^constructed) {
		return false
	}
	if asn1.Tag(tag&^constructed) == asn1.BIT_STRING && len(*contents) > 0 {
		// Each piece begins with how many bits of its last byte do not count: those of
		// the last piece alone may be any.
		if len(part) == 0 || (*contents)[0] != 0 {
			return false
		}
		(*contents)[0] = part[0]
		part = part[1:]
	}
	*contents = secret.Append(*contents, part)
	return true
}

// derElement is an element with a definite length.
func derElement(tag, contents []byte) []byte {
	size := []byte{byte(len(contents))}
	if len(contents) >= 0x80 {
		size = nil
		for n := len(contents); n > 0; n >>= 8 {
			size = append([]byte{byte(n)}, size...)
		}
		size = append([]byte{0x80 | byte(len(size))}, size...)
	}
	out := make([]byte, 0, len(tag)+len(size)+len(contents))
	return append(append(append(out, tag...), size...), contents...)
}
