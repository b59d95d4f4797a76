package soft

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// A state is an operation between two calls.
type state struct {
	use  p11.Flags
	mech p11.Mechanism
	blob ep11.Blob // of its key; nil for a digest
	hash []byte    // a hash in Go's encoding
	iv   []byte    // the chaining value of a cipher
	held []byte    // data that waits for more, or for the end
}

func (s *state) wipe() {
	for _, b := range [][]byte{s.hash, s.iv, s.held} {
		secret.Wipe(b)
	}
}

const (
	nonceLen = 12
	tagLen   = 16
	// maxHeld is how much data an operation that must see all of it takes in parts.
	maxHeld = 1024
	// maxHash is more than the state of any hash.
	maxHash = 416
)

// sealState makes the bytes of a state: as many at each time for one mechanism and key.
func (w wrappingKey) sealState(s *state) ([]byte, error) {
	mech, err := card.AppendMechanism(nil, s.mech)
	if err != nil {
		return nil, err
	}
	size := 4 + 5*4 + len(mech) + len(s.blob) + maxHash + aes.BlockSize
	if s.use != p11.CKF_DIGEST {
		size += maxHeld
	}
	if len(s.held) > maxHeld || len(s.hash) > maxHash || len(s.iv) > aes.BlockSize {
		return nil, ep11.TransportLimit // what does not fit would be copied elsewhere
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, size), uint32(s.use))
	for _, part := range [][]byte{mech, s.blob, s.hash, s.iv, s.held} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	defer secret.Wipe(b)
	if len(b) > size {
		return nil, ep11.TransportLimit
	}
	out := append(make([]byte, 0, ep11.WKIDLen+nonceLen+size+tagLen), w.id()...)
	nonce := make([]byte, nonceLen)
	rand.Read(nonce)
	out = append(out, nonce...)
	return w.stateCipher().Seal(out, nonce, b[:size], nil), nil
}

func (w wrappingKey) stateCipher() cipher.AEAD {
	k := w.derive("state", nil)
	defer secret.Wipe(k)
	block, err := aes.NewCipher(k)
	if err == nil {
		var a cipher.AEAD
		if a, err = cipher.NewGCM(block); err == nil {
			return a
		}
	}
	panic("soft: " + err.Error()) // the length is right
}

// openState opens the state of a use. It is the caller's to wipe.
func (w wrappingKey) openState(b []byte, use p11.Flags) (*state, error) {
	if len(b) < ep11.WKIDLen+nonceLen+tagLen {
		return nil, ep11.BlobError
	}
	if string(b[:ep11.WKIDLen]) != string(w.id()) {
		return nil, ep11.WKIDMismatch
	}
	record, err := w.stateCipher().Open(nil, b[ep11.WKIDLen:][:nonceLen], b[ep11.WKIDLen+nonceLen:], nil)
	if err != nil {
		return nil, ep11.BlobError
	}
	defer secret.Wipe(record)
	s := &state{use: p11.Flags(binary.BigEndian.Uint32(record))}
	rest := record[4:]
	var parts [5][]byte
	for i := range parts { // as they were sealed, so none is cut
		n := binary.BigEndian.Uint32(rest)
		parts[i], rest = rest[4:4+n:4+n], rest[4+n:]
	}
	for i := range parts {
		parts[i] = bytes.Clone(parts[i])
	}
	s.blob, s.hash, s.iv, s.held = parts[1], parts[2], parts[3], parts[4]
	if s.mech, err = card.ReadMechanism(parts[0]); err != nil || s.use != use {
		s.wipe()
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	return s, nil
}
