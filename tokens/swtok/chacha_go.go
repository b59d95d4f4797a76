package swtok

import (
	"encoding/binary"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	"p11fs/secret"
)

// The modes of a key of ChaCha20, by libcrypto's names. The iv of the stream is libcrypto's
// too: a counter of 64 bits, the lowest byte first, and a nonce of 8 bytes; or of 32 bits,
// and 12 bytes.
const (
	chachaStream = "ChaCha20"
	chachaAEAD   = "ChaCha20-Poly1305"
)

// goChaCha is a key of ChaCha20 with x/crypto. It has no Block.
type goChaCha struct {
	goBlockCipher
	key []byte // the caller's
}

func (c *goChaCha) Mode(mode string, iv []byte, encrypt bool, o ModeOptions) (Stream, error) {
	switch mode {
	case chachaStream:
		s := &goChaChaStream{key: c.key, iv: append([]byte{}, iv...)}
		return s, s.begin()
	case chachaAEAD:
		return &goPolyStream{c.key, append([]byte{}, iv...), encrypt, o, nil, nil}, nil
	}
	return nil, errNoMode
}

// goChaChaStream is ChaCha20 with a counter of 64 bits: that of x/crypto has 32, and is
// begun anew where they run over, with the rest of the counter in its nonce.
type goChaChaStream struct {
	key, iv []byte
	cipher  *chacha20.Cipher
	left    uint64 // bytes until the low 32 bits are 0 again
}

func (s *goChaChaStream) begin() (err error) {
	if s.cipher, err = chacha20.NewUnauthenticatedCipher(s.key, s.iv[4:]); err != nil {
		return err
	}
	low := binary.LittleEndian.Uint32(s.iv)
	s.cipher.SetCounter(low)
	s.left = (1<<32 - uint64(low)) * chachaBlock
	return nil
}

func (s *goChaChaStream) Update(dst, part []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, part...)
	for out := dst[at:]; len(out) > 0; {
		if s.left == 0 {
			binary.LittleEndian.PutUint64(s.iv, uint64(binary.LittleEndian.Uint32(s.iv[4:])+1)<<32)
			if err := s.begin(); err != nil {
				return dst[:at], err
			}
		}
		n := min(uint64(len(out)), s.left)
		s.cipher.XORKeyStream(out[:n], out[:n])
		out = out[n:]
		s.left -= n
	}
	return dst, nil
}

func (s *goChaChaStream) Final(dst []byte) ([]byte, error) { return dst, nil }
func (s *goChaChaStream) Tag(int) ([]byte, error)          { return nil, errNoMode }
func (s *goChaChaStream) Close()                           { s.key, s.cipher = nil, nil }

// goPolyStream is a message of ChaCha20-Poly1305, which x/crypto has whole.
type goPolyStream struct {
	key, nonce []byte
	encrypt    bool
	o          ModeOptions
	data, tag  []byte
}

func (s *goPolyStream) Update(dst, part []byte) ([]byte, error) {
	s.data = secret.Append(s.data, part)
	return dst, nil
}

func (s *goPolyStream) Final(dst []byte) ([]byte, error) {
	a, err := chacha20poly1305.New(s.key)
	if err != nil {
		return dst, err
	}
	if !s.encrypt {
		return a.Open(dst, s.nonce, append(s.data, s.o.Tag...), s.o.AAD)
	}
	out := a.Seal(dst, s.nonce, s.data, s.o.AAD)
	end := len(out) - a.Overhead()
	s.tag = out[end:]
	return out[:end:end], nil
}

func (s *goPolyStream) Tag(n int) ([]byte, error) { return s.tag[:n], nil }
func (s *goPolyStream) Close()                    { wipe(s.data) }
