package cca

import "encoding/binary"

// SymmetricSize is the length of the token of a DES or AES key.
const SymmetricSize = 64

// A Pattern tells which master key a token is encrypted under.
type Pattern [8]byte

// Where a Symmetric has what.
const (
	internal    = 0x01 // first byte of an internal token of a symmetric key
	versionDES  = 0x00 // one key, or two by the control vector
	versionDES3 = 0x01 // two or three keys, by byte 59
	versionAES  = 0x04
	keyPresent  = 0x80 // flag

	symVersion, symFlags, symPattern, symKey, symVector = 4, 6, 8, 16, 32
	symThird, symAESVector, symBits, symBytes           = 48, 48, 56, 58
	symKeys, symCheck                                   = 59, 60

	formByte, formMask = symVector + 5, 0xe0 // of a control vector: the key has a second half
)

// A Symmetric is the token of a DES or AES key, or a skeleton for one.
type Symmetric struct {
	AES     bool
	Size    int // of the key in bytes: 8, 16 or 24 of DES; 16, 24 or 32 of AES
	Key     bool
	Pattern Pattern
	// Wrapped is the key under the master key: 32 bytes of AES, 24 of DES; nil without Key.
	Wrapped []byte
	Check   [4]byte // validation value
}

// ParseSymmetric reads a token of 64 bytes.
func ParseSymmetric(b []byte) (s Symmetric, err error) {
	if len(b) != SymmetricSize || b[0] != internal {
		return s, ErrToken
	}
	s.Key = b[symFlags]&keyPresent != 0
	copy(s.Pattern[:], b[symPattern:])
	copy(s.Check[:], b[symCheck:])
	switch b[symVersion] {
	case versionAES:
		s.AES = true
		s.Size = int(binary.BigEndian.Uint16(b[symBits:])) / 8
		if s.Size != 16 && s.Size != 24 && s.Size != 32 || binary.BigEndian.Uint16(b[symBits:])%8 != 0 {
			return s, ErrToken
		}
	case versionDES:
		if s.Size = 8; b[formByte]&formMask != 0 {
			s.Size = 16
		}
	case versionDES3:
		switch b[symKeys] {
		case 0x10:
			s.Size = 16
		case 0x20:
			s.Size = 24
		default:
			return s, ErrToken
		}
	default:
		return s, ErrToken
	}
	switch {
	case !s.Key:
	case s.AES:
		s.Wrapped = append(s.Wrapped, b[symKey:symAESVector]...)
	default:
		s.Wrapped = append(append(s.Wrapped, b[symKey:symVector]...), b[symThird:symBits]...)
	}
	return s, nil
}

// Bytes is the token.
func (s Symmetric) Bytes() []byte {
	b := make([]byte, SymmetricSize)
	b[0] = internal
	copy(b[symPattern:], s.Pattern[:])
	copy(b[symCheck:], s.Check[:])
	if s.Key {
		b[symFlags] = keyPresent
	}
	if s.AES {
		b[symVersion] = versionAES
		copy(b[symKey:symAESVector], s.Wrapped)
		binary.BigEndian.PutUint16(b[symBits:], uint16(8*s.Size))
		if s.Key {
			binary.BigEndian.PutUint16(b[symBytes:], 32)
		}
		return b
	}
	if s.Size > 8 {
		b[symVersion], b[symKeys] = versionDES3, byte(s.Size/8-1)<<4
	}
	if s.Key {
		copy(b[symKey:symVector], s.Wrapped[:16])
		copy(b[symThird:symBits], s.Wrapped[16:])
	}
	return b
}

// Bound is what the validation value is made of: all that is before it.
func (s Symmetric) Bound() []byte { return s.Bytes()[:symCheck] }
