package cca

import (
	"bytes"
	"encoding/binary"
)

// The longest key of HMAC, and of its token.
const (
	MaxHMACBits = 2048
	maxVariable = 1024
)

// Where a Variable has what. The payload is behind the key's attributes, which have
// their own length.
const (
	versionVariable = 0x05

	varLength, varVersion, varState, varKind = 2, 4, 8, 9
	varPattern, varWrapping, varHash         = 10, 26, 27
	varData, varDataLength                   = 30, 32
	varBits, varAlgorithm, varType           = 38, 41, 42
	varUsages, varUsage, varManagements      = 44, 45, 49
	varComplete, varEnd                      = 52, 56

	stateNone, stateWrapped = 0x00, 0x03
	partsSuffice            = 0x40
	algorithmHMAC, typeMAC  = 3, 2
	mayGenerate             = 0xc000 // and verify
	headLength              = 30     // of what is before the associated data
)

// A Variable is the token of an HMAC key that generates and verifies, or a skeleton for
// one.
type Variable struct {
	Key     bool
	Partial bool // parts of it are there, and nobody has said that they are all
	Pattern Pattern
	Payload []byte // the key under the master key; none without Key
}

// ParseVariable reads a token at the beginning of b: behind it there may be more, since
// programs give the whole of their buffer.
func ParseVariable(b []byte) (v Variable, err error) {
	if len(b) < varEnd || b[0] != internal || b[varVersion] != versionVariable {
		return v, ErrToken
	}
	n := int(binary.BigEndian.Uint16(b[varLength:]))
	bits := int(binary.BigEndian.Uint16(b[varBits:]))
	if n < varEnd || n > len(b) || n > maxVariable || bits != 8*(n-varEnd) {
		return v, ErrToken
	}
	copy(v.Pattern[:], b[varPattern:])
	v.Key, v.Partial = b[varState] == stateWrapped, b[varComplete] == partsSuffice
	if v.Key == (bits == 0) {
		return v, ErrToken
	}
	v.Payload = bytes.Clone(b[varEnd:n])
	if !bytes.Equal(v.Bytes(), b[:n]) { // what else there may be in a token, ours do not have
		return v, ErrToken
	}
	return v, nil
}

// Bytes is the token.
func (v Variable) Bytes() []byte {
	b := append(v.Bound(), v.Payload...)
	binary.BigEndian.PutUint16(b[varLength:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[varBits:], uint16(8*len(v.Payload)))
	return b
}

// Bound is what is before the payload, but for the lengths, which follow from it.
func (v Variable) Bound() []byte {
	b := make([]byte, varEnd)
	b[0], b[varVersion], b[varState] = internal, versionVariable, stateNone
	if v.Key {
		b[varState], b[varKind] = stateWrapped, 1
		copy(b[varPattern:], v.Pattern[:])
		b[varWrapping], b[varHash] = 2, 2
	}
	b[varData] = 1
	binary.BigEndian.PutUint16(b[varDataLength:], varEnd-headLength)
	b[varAlgorithm] = algorithmHMAC
	binary.BigEndian.PutUint16(b[varType:], typeMAC)
	b[varUsages] = 2
	binary.BigEndian.PutUint16(b[varUsage:], mayGenerate)
	b[varManagements] = 3
	if v.Partial {
		b[varComplete] = partsSuffice
	}
	return b
}
