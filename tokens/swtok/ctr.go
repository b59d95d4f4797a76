package swtok

import (
	"encoding/binary"
	"math"
	"math/bits"

	"p11fs/p11"
)

// A ctrCipher is AES-CTR in parts (PKCS#11 v3.1 §6.11). Encryption and
// decryption are the same, and the library counts in all 128 bits.
type ctrCipher struct {
	streamPart
	decrypt bool
	left    uint64 // bytes until the counter would start anew
}

// aesCTR is the family of CKM_AES_CTR.
func aesCTR() family {
	return family{uses: cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
		p, err := param[*p11.CTRParams](u)
		if err != nil {
			return nil, err
		}
		s, err := k.Mode("CTR", p.Counter[:], true, ModeOptions{})
		if err != nil {
			return nil, failure(err)
		}
		return &ctrCipher{streamPart{s}, decrypt, ctrBytes(p.Counter, p.CounterBits)}, nil
	})}
}

// ctrBytes is how much a counter of the low n bits serves before it would run
// over, which the standard answers with CKR_DATA_LEN_RANGE. What 64 bits cannot
// count is as good as endless.
func ctrBytes(counter [aesBlock]byte, n uint64) uint64 {
	// The blocks that are left are the counter's negative, modulo 2^n, or all of them.
	high, low := binary.BigEndian.Uint64(counter[:]), binary.BigEndian.Uint64(counter[8:])
	low, borrow := bits.Sub64(0, low, 0)
	high, _ = bits.Sub64(0, high, borrow)
	low &= 1<<n - 1
	if high &= 1<<(max(n, 64)-64) - 1; high|low == 0 && n < 60 {
		low = 1 << n
	}
	if high != 0 || low == 0 || low > math.MaxUint64/aesBlock {
		return math.MaxUint64
	}
	return low * aesBlock
}

func (c *ctrCipher) update(into, part []byte) ([]byte, error) {
	if uint64(len(part)) > c.left {
		return nil, p11.Errorf(lenRange(c.decrypt), "the data is longer than the counter counts")
	}
	c.left -= uint64(len(part))
	return c.streamPart.update(into, part)
}
