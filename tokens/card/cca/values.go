package cca

import (
	"bytes"
	"encoding/binary"
	"math/big"

	"p11fs/p11"
	"p11fs/secret"
)

func bitsOf(n []byte) int { return new(big.Int).SetBytes(n).BitLen() }

// A Skeleton is what CSNDPKB makes of the values of a key: what CSNDPKG and CSNDPKI make
// a key of. It has private numbers in the clear where the values had them.
type Skeleton struct {
	Rules  Rules
	Values []byte
}

// Bytes is the skeleton token.
func (s Skeleton) Bytes() []byte {
	r := s.Rules.Bytes()
	b := section{sectionSkeleton, 0, 0, 0, byte(len(s.Rules))}
	b = secret.Append(append(b, r...), s.Values)
	defer secret.Wipe(b)
	return join(pkaExternal, b)
}

// ParseSkeleton reads it. Behind it there may be more.
func ParseSkeleton(b []byte) (s Skeleton, err error) {
	list, err := split(b)
	if err != nil || len(list) != 1 || b[0] != pkaExternal || list[0][0] != sectionSkeleton || len(list[0]) < sectionHead+1 {
		return s, ErrToken
	}
	in := list[0]
	head, err := in.cut(sectionHead+1, KeywordSize*int(in[sectionHead]))
	if err != nil {
		return s, err
	}
	if s.Rules, err = ParseRules(head); err != nil {
		return s, err
	}
	s.Values = bytes.Clone(in[sectionHead+1+len(head):])
	return s, nil
}

// RSAValues are the values of an RSA key. To make one it has Bits, and E or nil; to bring
// one in all of the numbers; for a public key N and E.
type RSAValues struct {
	Bits                  int
	N, E                  []byte
	P, Q, DP, DQ, Inverse []byte
}

const (
	rsaNumbers  = 18 // where those of a private key begin
	rsaPublics  = 8  // and those of a public one
	maxExponent = 24 // bytes, of a key to be made
)

// ParseRSAValues reads the values with the lengths and places of a private key; behind them
// there may be zeros.
func ParseRSAValues(b []byte) (v RSAValues, err error) {
	if len(b) < rsaNumbers {
		return v, ErrValues
	}
	v.Bits = section(b).u16(0)
	at := rsaNumbers
	for i, part := range []*[]byte{&v.N, &v.E, nil, &v.P, &v.Q, &v.DP, &v.DQ, &v.Inverse} {
		n := section(b).u16(2 + 2*i)
		if part == nil {
			if n != 0 {
				return v, ErrValues
			}
			continue
		}
		if *part, err = section(b).cut(at, n); err != nil {
			return v, ErrValues
		}
		at += n
	}
	return v, v.check()
}

// ParseRSAPublicValues is ParseRSAValues for those of a public key.
func ParseRSAPublicValues(b []byte) (v RSAValues, err error) {
	if len(b) < rsaPublics {
		return v, ErrValues
	}
	v.Bits = section(b).u16(0)
	n, e := section(b).u16(2), section(b).u16(4)
	if v.N, err = section(b).cut(rsaPublics, n); err == nil {
		v.E, err = section(b).cut(rsaPublics+n, e)
	}
	if err == nil {
		err = v.check()
	}
	if err != nil || len(v.N) == 0 || len(v.E) == 0 {
		return v, ErrValues
	}
	return v, nil
}

// check takes the numbers' zeros in front away, and compares their length with Bits.
func (v *RSAValues) check() error {
	for _, part := range []*[]byte{&v.N, &v.E, &v.P, &v.Q, &v.DP, &v.DQ, &v.Inverse} {
		*part = bytes.TrimLeft(*part, "\x00")
	}
	if v.Bits < 8*leastModulus || v.Bits > 8*mostModulus || len(v.N) > 0 && bitsOf(v.N) != v.Bits || len(v.E) > len(v.N) && len(v.E) > maxExponent {
		return ErrValues
	}
	return nil
}

// Bytes are the values as those of a private key.
func (v RSAValues) Bytes() []byte {
	b := make([]byte, rsaNumbers)
	binary.BigEndian.PutUint16(b, uint16(v.Bits))
	for i, part := range [][]byte{v.N, v.E, nil, v.P, v.Q, v.DP, v.DQ, v.Inverse} {
		binary.BigEndian.PutUint16(b[2+2*i:], uint16(len(part)))
		b = secret.Append(b, part)
	}
	return b
}

// Wipe wipes what is private.
func (v *RSAValues) Wipe() {
	for _, b := range [][]byte{v.P, v.Q, v.DP, v.DQ, v.Inverse} {
		secret.Wipe(b)
	}
}

// PublicBytes are those of a public key.
func (v RSAValues) PublicBytes() []byte {
	b := make([]byte, rsaPublics)
	binary.BigEndian.PutUint16(b, uint16(v.Bits))
	binary.BigEndian.PutUint16(b[2:], uint16(len(v.N)))
	binary.BigEndian.PutUint16(b[4:], uint16(len(v.E)))
	return append(append(b, v.N...), v.E...)
}

// ECValues are those of an EC key: to make one the curve, to bring one in its scalar and
// point too.
type ECValues struct {
	Curve         p11.Curve
	Scalar, Point []byte
}

const ecNumbers, ecPublics = 8, 6 // where the numbers begin

// ParseECValues reads the values; behind them there may be zeros.
func ParseECValues(b []byte) (v ECValues, err error) {
	if len(b) < ecNumbers {
		return v, ErrValues
	}
	if v.Curve, err = CurveOf(b[0], section(b).u16(2)); err != nil {
		return v, err
	}
	d, q := section(b).u16(4), section(b).u16(6)
	if v.Scalar, err = section(b).cut(ecNumbers, d); err == nil {
		v.Point, err = section(b).cut(ecNumbers+d, q)
	}
	if err != nil || d > max(v.Curve.Size(), v.Curve.KeySize()) || (d == 0) != (q == 0) {
		return v, ErrValues
	}
	return v, nil
}

// ParseECPublicValues is ParseECValues for those of a public key, which has no length of a
// scalar.
func ParseECPublicValues(b []byte) (v ECValues, err error) {
	if len(b) < ecPublics {
		return v, ErrValues
	}
	if v.Curve, err = CurveOf(b[0], section(b).u16(2)); err != nil {
		return v, err
	}
	if v.Point, err = section(b).cut(ecPublics, section(b).u16(4)); err != nil || !pointOf(v.Curve, v.Point) {
		return v, ErrValues
	}
	return v, nil
}

// PublicBytes are those of a public key.
func (v ECValues) PublicBytes() []byte {
	b := v.Bytes()[:ecPublics]
	binary.BigEndian.PutUint16(b[4:], uint16(len(v.Point)))
	return append(b, v.Point...)
}

// Bytes are the values.
func (v ECValues) Bytes() []byte {
	b := make([]byte, ecNumbers)
	b[0] = curveKind(v.Curve)
	binary.BigEndian.PutUint16(b[2:], uint16(v.Curve.Bits))
	binary.BigEndian.PutUint16(b[4:], uint16(len(v.Scalar)))
	binary.BigEndian.PutUint16(b[6:], uint16(len(v.Point)))
	return append(secret.Append(b, v.Scalar), v.Point...)
}

// Wipe wipes what is private.
func (v *ECValues) Wipe() { secret.Wipe(v.Scalar) }
