package swtok

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math"

	"p11fs/p11"
)

// A streamCipher is CKM_P11FS_STREAM: a message of any length, in segments of
// which each is authenticated, with its place and whether it is the last. It is the
// AES-GCM-HKDF streaming encryption of Google's Tink, with the parameters of its key
// templates AES128_GCM_HKDF_1MB and AES256_GCM_HKDF_1MB, and no associated data:
//
//	header   its length, a salt as long as the key, 7 bytes of the nonces
//	segment  AES-GCM with the key HKDF-SHA256(key, salt) and the nonce: those 7
//	         bytes, the segment's number in 4, and 1 in the last segment, else 0
//
// Each segment but the last fills streamSegment bytes, the first together with the
// header. Decryption gives a segment once it is checked.
type streamCipher struct {
	u       call
	key     *cipherKey
	decrypt bool
	aead    cipher.AEAD       // of the message's key; decrypting nil before the header is there
	nonce   [streamNonce]byte // its beginning is the message's
	number  uint32            // of the segment in held
	held    []byte            // what is to be a segment; the first has the header in front
}

const (
	streamSegment = 1 << 20
	streamPrefix  = 7
	streamNonce   = streamPrefix + 4 + 1
	streamTag     = 16
)

// aesStream is the family of CKM_P11FS_STREAM.
func aesStream() family { return family{uses: cipherModes(newStreamCipher)} }

func newStreamCipher(u call, k *cipherKey, decrypt bool) (part, error) {
	if len(k.value) == 24 {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%s takes AES keys of 16 or 32 bytes", u.m.Type.Short())
	}
	s := &streamCipher{u: u, key: k, decrypt: decrypt}
	if decrypt {
		return s, nil
	}
	s.held = make([]byte, s.headerLen())
	s.held[0] = byte(len(s.held))
	if _, err := io.ReadFull(u.rand, s.held[1:]); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "random bytes: %v", err)
	}
	return s, s.derive(s.held)
}

func (s *streamCipher) headerLen() int { return 1 + len(s.key.value) + streamPrefix }

// derive makes the key of the message with this header.
func (s *streamCipher) derive(header []byte) error {
	salt := header[1 : len(header)-streamPrefix]
	value, err := hkdf.Key(sha256.New, s.key.value, salt, "", len(salt))
	if err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "hkdf: %v", err)
	}
	defer wipe(value)
	aes, err := s.u.provider.NewBlockCipher(p11.CKK_AES, value)
	if err != nil {
		return keyDamaged("%v", err)
	}
	copy(s.nonce[:], header[len(header)-streamPrefix:])
	if s.aead, err = cipher.NewGCM(aes.Block()); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "gcm: %v", err)
	}
	return nil
}

// room is how many bytes fill held.
func (s *streamCipher) room() int {
	if s.decrypt {
		return streamSegment
	}
	return streamSegment - streamTag
}

// update ends a segment when there is more than fills it: so it is not the last.
func (s *streamCipher) update(_, part []byte) ([]byte, error) {
	var out []byte
	if size := s.updateSize(len(part)); size > streamSegment {
		out = make([]byte, 0, size)
	}
	for len(part) > s.room()-len(s.held) {
		n := s.room() - len(s.held)
		s.hold(part[:n])
		part = part[n:]
		done, err := s.segment(s.held, false)
		if err == nil && s.number == math.MaxUint32 {
			err = p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the message is longer than its format can number")
		}
		if err != nil {
			wipe(out)
			return nil, err
		}
		if out == nil {
			out = done
		} else {
			out = append(out, done...)
			wipe(done)
		}
		s.number++
		if s.held = s.held[:0]; !s.decrypt {
			s.held = nil // it is in out
		}
	}
	s.hold(part)
	return out, nil
}

func (s *streamCipher) hold(part []byte) {
	if len(part) > 0 && cap(s.held) < streamSegment {
		s.held = append(make([]byte, 0, streamSegment), s.held...)
	}
	s.held = append(s.held, part...)
}

func (s *streamCipher) kept() int { return cap(s.held) }

func (s *streamCipher) updateSize(n int) int {
	segments := 0
	if n += len(s.held); n > 0 {
		segments = (n - 1) / s.room()
	}
	size := segments * streamSegment
	if s.decrypt && segments > 0 {
		size -= segments * streamTag
		if s.number == 0 {
			size -= s.headerLen()
		}
	}
	return size
}

func (s *streamCipher) result([]byte) ([]byte, error) {
	// The message may go on, and its last segment then be another.
	return s.segment(append(make([]byte, 0, len(s.held)+streamTag), s.held...), true)
}

// segment is what held becomes in the output. A plaintext is overwritten with it.
func (s *streamCipher) segment(held []byte, last bool) ([]byte, error) {
	header := 0
	if s.number == 0 {
		header = s.headerLen()
	}
	switch {
	case !s.decrypt:
		return s.aead.Seal(held[:header], s.nonceOf(last), held[header:], nil), nil
	case header > 0 && len(held) > 0 && int(held[0]) != header:
		return nil, p11.Advise(notStream("this was not encrypted as a stream by a key of %d bytes", len(s.key.value)),
			"what the file encrypt has given is for the file decrypt (p11fs decrypt --mechanism '')")
	case len(held) < header+streamTag:
		return nil, notStream("the stream was cut off, within segment %d", s.number)
	case header > 0:
		if err := s.derive(held[:header]); err != nil {
			return nil, err
		}
	}
	plain, err := s.aead.Open(nil, s.nonceOf(last), held[header:], nil)
	if err == nil {
		return plain, nil
	}
	other, err := s.aead.Open(nil, s.nonceOf(!last), held[header:], nil)
	wipe(other)
	switch {
	case err == nil && last:
		return nil, notStream("the stream was cut off, behind segment %d, which is not its last", s.number)
	case err == nil:
		return nil, notStream("there is more data behind the end of the stream, which is segment %d", s.number)
	case header > 0:
		return nil, notStream("segment 0 is not authentic: another key encrypted it, or it is damaged or cut off")
	case last:
		return nil, notStream("segment %d is damaged, or the stream was cut off within it", s.number)
	}
	return nil, notStream("segment %d is damaged", s.number)
}

func notStream(format string, args ...any) error {
	return p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, format, args...)
}

// nonceOf is the nonce of the segment in held.
func (s *streamCipher) nonceOf(last bool) []byte {
	nonce := s.nonce
	binary.BigEndian.PutUint32(nonce[streamPrefix:], s.number)
	if last {
		nonce[streamNonce-1] = 1
	}
	return nonce[:]
}

func (s *streamCipher) close() {
	wipe(s.held)
	s.held, s.aead, s.key = nil, nil, nil
}
