package swtok

import (
	"crypto/cipher"
	"encoding/binary"
	"math/bits"

	"p11fs/p11"
	"p11fs/tokens"
)

// A ctrCipher is AES-CTR in parts (PKCS#11 v3.1 §6.11). Encryption and
// decryption are the same.
type ctrCipher struct {
	key     *tokens.Object // held; nil after Close
	stream  cipher.Stream
	decrypt bool
	left    uint64 // bytes until the counter would start anew
	err     error
}

func newCTRCipher(m p11.Mechanism, key *tokens.Object, k *secretKey, decrypt bool) (*ctrCipher, error) {
	p, ok := m.Param.(*p11.CTRParams)
	if !ok || p == nil || p.CounterBits < 1 || p.CounterBits > 128 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s needs a counter block of 16 bytes and counter bits of 1 to 128", m.Type.Short())
	}
	counter := p.Counter
	return &ctrCipher{
		key:     key,
		stream:  cipher.NewCTR(k.aes.Block(), counter[:]),
		decrypt: decrypt,
		left:    ctrBytes(counter, p.CounterBits),
	}, nil
}

// ctrBytes is how much a counter of the low n bits serves before it would run
// over, which the standard answers with CKR_DATA_LEN_RANGE. What 64 bits cannot
// count is as good as endless.
func ctrBytes(counter [16]byte, n uint64) uint64 {
	hi, lo := binary.BigEndian.Uint64(counter[:8]), binary.BigEndian.Uint64(counter[8:])
	// 2^n - counter mod 2^n, where 2^128 - 0 does not fit and is endless.
	if n < 64 {
		return mulBlocks(1<<n - lo&(1<<n-1))
	}
	if n < 128 {
		hi &= 1<<(n-64) - 1
	}
	if hi == 0 && lo == 0 {
		return ^uint64(0)
	}
	top := uint64(0)
	if n < 128 {
		top = 1 << (n - 64)
	}
	lo, borrow := bits.Sub64(0, lo, 0)
	hi, _ = bits.Sub64(top, hi, borrow)
	if hi != 0 {
		return ^uint64(0)
	}
	return mulBlocks(lo)
}

func mulBlocks(n uint64) uint64 {
	if n > ^uint64(0)/aesBlock {
		return ^uint64(0)
	}
	return n * aesBlock
}

func (c *ctrCipher) update(part []byte) ([]byte, error) {
	switch {
	case c.key == nil:
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	case c.err != nil:
		return nil, c.err
	case uint64(len(part)) > c.left:
		c.err = p11.Errorf(lenRange(c.decrypt), "the data is longer than the counter counts")
		return nil, c.err
	case len(part) == 0:
		return nil, nil
	}
	c.left -= uint64(len(part))
	out := make([]byte, len(part))
	c.stream.XORKeyStream(out, part)
	return out, nil
}

func (c *ctrCipher) result([]byte) ([]byte, error) {
	if c.key == nil {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	return nil, c.err
}

func (c *ctrCipher) size() int { return 0 }

func (c *ctrCipher) close() {
	if c.key == nil {
		return
	}
	c.key.Release()
	c.key, c.stream = nil, nil
}
