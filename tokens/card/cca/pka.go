package cca

import (
	"bytes"
	"encoding/binary"
	"slices"

	"p11fs/p11"
)

// MaxPKA is the longest token of an RSA or EC key, or of the numbers of one: the room that
// openCryptoki has for it since keys of RSA have 8192 bits.
const MaxPKA = 8000

const (
	pkaInternal, pkaExternal = 0x1f, 0x1e
	pkaHead, sectionHead     = 8, 4

	sectionRSAPublic = 0x04
	sectionRSAME     = 0x30
	sectionRSACRT    = 0x31
	sectionECPrivate = 0x20
	sectionECPublic  = 0x21
	sectionSealed    = 0xe0 // ours: the private numbers of an RSA key, under the master key
	sectionSkeleton  = 0xe1 // ours: keywords and values of which a key is to be made

	rsaExponentLength, rsaPublicBits, rsaModulusLength, rsaExponent = 6, 8, 10, 12

	// Of the private section of an RSA key: openCryptoki 3.8 has the modulus at the end and its
	// length at 64, whatever section it is; 3.27 at places for each section.
	oldModulusLength                       = 64
	meModulusLength, mePattern, meModulus  = 52, 104, 122
	crtModulusLength, crtPattern, crtStart = 62, 116, 134

	ecWrapping, ecKind, ecFormat, ecPrivateBits, ecPattern, ecSealed = 4, 9, 10, 12, 16, 24
	ecPublicKind, ecPublicBits, ecPointLength, ecPoint               = 8, 10, 12, 14
	wrappedAES, formatInternal                                       = 1, 8

	kindPrime, kindBrainpool, kindEdwards, kindKoblitz = 0, 1, 2, 3 // of curves
	leastModulus                                       = 64         // bytes; 512 bits
	mostModulus                                        = 1024       // bytes; 8192 bits
)

// A PKA is the token of an RSA or EC key, or of its public half alone.
type PKA struct {
	Private bool
	// N and E are the numbers of an RSA key, without zeros in front; nil of an EC key.
	N, E []byte
	// Curve and Point, uncompressed, are those of an EC key. On an Edwards curve the point is
	// the bytes of RFC 8032.
	Curve p11.Curve
	Point []byte
	// Pattern and Sealed are the private half: which master key, and what is under it. Of a
	// token that another card made Sealed is nil: where it has what is not known.
	Pattern Pattern
	Sealed  []byte
}

// A section is one part of a token.
type section []byte

func (s section) u16(at int) int { return int(binary.BigEndian.Uint16(s[at:])) }

// cut is n bytes at a place of the section.
func (s section) cut(at, n int) ([]byte, error) {
	if at < 0 || n < 0 || at+n > len(s) {
		return nil, ErrToken
	}
	return bytes.Clone(s[at : at+n]), nil
}

// split takes a token apart. It ends where it says it ends.
func split(b []byte) (list []section, err error) {
	if len(b) < pkaHead || b[0] != pkaInternal && b[0] != pkaExternal {
		return nil, ErrToken
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b) || n > MaxPKA || n < pkaHead {
		return nil, ErrToken
	}
	for rest := b[pkaHead:n]; len(rest) > 0; {
		if len(rest) < sectionHead {
			return nil, ErrToken
		}
		k := section(rest).u16(2)
		if k < sectionHead || k > len(rest) {
			return nil, ErrToken
		}
		list, rest = append(list, section(rest[:k])), rest[k:]
	}
	return list, nil
}

// join makes a token of sections, whose lengths it fills in.
func join(first byte, list ...section) []byte {
	b := make([]byte, pkaHead)
	b[0] = first
	for _, s := range list {
		binary.BigEndian.PutUint16(s[2:], uint16(len(s)))
		b = append(b, s...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// ParsePKA reads the token of a key. Behind it there may be more.
func ParsePKA(b []byte) (k PKA, err error) {
	list, err := split(b)
	if err != nil {
		return k, err
	}
	k.Private = b[0] == pkaInternal
	for i, s := range list {
		switch s[0] {
		case sectionRSAPublic:
			err = k.rsaPublic(s)
		case sectionECPublic:
			err = k.ecPublic(s)
		case sectionECPrivate:
			err = k.ecPrivate(s)
		case sectionSealed:
			k.Sealed = bytes.Clone(s[sectionHead:])
		default:
			if i == 0 && k.Private {
				err = k.rsaPrivate(s)
			}
		}
		if err != nil {
			return k, err
		}
	}
	rsa, ec := k.N != nil && k.E != nil, k.Point != nil
	if rsa == ec || ec && k.N != nil {
		return k, ErrToken
	}
	return k, nil
}

func (k *PKA) rsaPublic(s section) (err error) {
	if len(s) < rsaExponent {
		return ErrToken
	}
	e, n := s.u16(rsaExponentLength), s.u16(rsaModulusLength)
	if k.E, err = s.cut(rsaExponent, e); err != nil || !number(k.E, 1) {
		return ErrToken
	}
	if n > 0 && k.N == nil {
		k.N, err = s.cut(rsaExponent+e, n)
	}
	if err != nil || !number(k.N, leastModulus) || len(k.N) > mostModulus || len(k.E) > len(k.N) {
		return ErrToken
	}
	return nil
}

// number says whether b is a number of at least n bytes without zeros in front.
func number(b []byte, n int) bool { return len(b) >= n && b[0] != 0 }

func (k *PKA) rsaPrivate(s section) (err error) {
	length, start, pattern := oldModulusLength, -1, -1
	switch s[0] {
	case sectionRSAME:
		length, start, pattern = meModulusLength, meModulus, mePattern
	case sectionRSACRT:
		length, start, pattern = crtModulusLength, crtStart, crtPattern
	}
	if len(s) < max(length, pattern+6)+2 {
		return ErrToken
	}
	n := s.u16(length)
	if start < 0 {
		start = len(s) - n
	}
	if pattern > 0 {
		copy(k.Pattern[:], s[pattern:])
	}
	k.N, err = s.cut(start, n)
	return err
}

func (k *PKA) ecPublic(s section) (err error) {
	if len(s) < ecPoint {
		return ErrToken
	}
	if k.Curve, err = CurveOf(s[ecPublicKind], s.u16(ecPublicBits)); err != nil {
		return err
	}
	k.Point, err = s.cut(ecPoint, s.u16(ecPointLength))
	if err != nil || !pointOf(k.Curve, k.Point) {
		return ErrToken
	}
	return nil
}

// pointOf says whether b is as long as a point of the curve, and begins as one: those of
// Edwards curves are bytes, and the others uncompressed.
func pointOf(c p11.Curve, b []byte) bool {
	if n := c.KeySize(); n > 0 {
		return len(b) == n
	}
	return len(b) == 1+2*c.Size() && b[0] == 4
}

func (k *PKA) ecPrivate(s section) error {
	if !k.Private || len(s) < ecSealed || s[ecWrapping] != wrappedAES || s[ecFormat] != formatInternal {
		return ErrToken
	}
	copy(k.Pattern[:], s[ecPattern:])
	k.Sealed = bytes.Clone(s[ecSealed:])
	return nil
}

// Bytes is the token: an internal one if Private, else an external one.
func (k PKA) Bytes() []byte {
	switch {
	case k.N == nil && k.Private:
		return join(pkaInternal, append(section(k.ecHead()), k.Sealed...), k.ecSection())
	case k.N == nil:
		return join(pkaExternal, k.ecSection())
	case k.Private:
		return join(pkaInternal, k.rsaHead(), k.rsaSection(nil), append(section{sectionSealed, 0, 0, 0}, k.Sealed...))
	}
	return join(pkaExternal, k.rsaSection(k.N))
}

// Public is the external token of the public half.
func (k PKA) Public() []byte {
	k.Private = false
	return k.Bytes()
}

// Bound is what a private half is bound to: the token without it.
func (k PKA) Bound() []byte {
	k.Sealed = nil
	return k.Bytes()
}

func (k PKA) rsaHead() section {
	s := make(section, crtStart, crtStart+len(k.N))
	s[0] = sectionRSACRT
	binary.BigEndian.PutUint16(s[crtModulusLength:], uint16(len(k.N)))
	binary.BigEndian.PutUint16(s[oldModulusLength:], uint16(len(k.N)))
	copy(s[crtPattern:], k.Pattern[:])
	return append(s, k.N...)
}

func (k PKA) rsaSection(n []byte) section {
	s := make(section, rsaExponent)
	s[0] = sectionRSAPublic
	binary.BigEndian.PutUint16(s[rsaExponentLength:], uint16(len(k.E)))
	binary.BigEndian.PutUint16(s[rsaPublicBits:], uint16(bitsOf(k.N)))
	binary.BigEndian.PutUint16(s[rsaModulusLength:], uint16(len(n)))
	return append(append(s, k.E...), n...)
}

func (k PKA) ecHead() []byte {
	s := make([]byte, ecSealed)
	s[0], s[ecWrapping], s[ecFormat] = sectionECPrivate, wrappedAES, formatInternal
	s[ecKind] = curveKind(k.Curve)
	binary.BigEndian.PutUint16(s[ecPrivateBits:], uint16(k.Curve.Bits))
	copy(s[ecPattern:], k.Pattern[:])
	return s
}

func (k PKA) ecSection() section {
	s := make(section, ecPoint)
	s[0], s[ecPublicKind] = sectionECPublic, curveKind(k.Curve)
	binary.BigEndian.PutUint16(s[ecPublicBits:], uint16(k.Curve.Bits))
	binary.BigEndian.PutUint16(s[ecPointLength:], uint16(len(k.Point)))
	return append(s, k.Point...)
}

// Names of curves by their kind. CCA tells them by the bits besides.
func curveNames(kind byte) []string {
	switch kind {
	case kindPrime:
		return []string{"secp192r1", "secp224r1", "secp256r1", "secp384r1", "secp521r1"}
	case kindBrainpool:
		return []string{"brainpoolp160r1", "brainpoolp192r1", "brainpoolp224r1", "brainpoolp256r1", "brainpoolp320r1", "brainpoolp384r1", "brainpoolp512r1"}
	case kindEdwards:
		return []string{"ed25519", "ed448"}
	case kindKoblitz:
		return []string{"secp256k1"}
	}
	return nil
}

// CurveOf is the curve of a kind and its bits: 0 is of NIST, 1 of Brainpool, 2 of Edwards,
// and 3 of Koblitz.
func CurveOf(kind byte, bits int) (p11.Curve, error) {
	for _, c := range p11.Curves() {
		if c.Bits == bits && slices.Contains(curveNames(kind), c.Name) {
			return c, nil
		}
	}
	return p11.Curve{}, ErrValues
}

// HasCurve says whether CCA has a way to name the curve.
func HasCurve(c p11.Curve) bool { return slices.Contains(curveNames(curveKind(c)), c.Name) }

func curveKind(c p11.Curve) byte {
	for kind := byte(kindKoblitz); kind > kindPrime; kind-- {
		if slices.Contains(curveNames(kind), c.Name) {
			return kind
		}
	}
	return kindPrime
}
