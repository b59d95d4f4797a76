package swtok

import (
	"bytes"
	"crypto/cipher"
)

// A segmentCFB is CFB with segments that are shorter than a block (NIST SP 800-38A §6.3),
// of whole bytes, which Go's library has not, nor libcrypto those of 64 bits.
type segmentCFB struct {
	block    cipher.Block
	encrypt  bool
	register []byte // the last block of ciphertext
	key      []byte // what the segment is under
	segment  []byte // the ciphertext of the segment so far
	used     int
}

func newSegmentCFB(b cipher.Block, iv []byte, segment int, encrypt bool) *segmentCFB {
	return &segmentCFB{block: b, encrypt: encrypt, register: bytes.Clone(iv), key: make([]byte, b.BlockSize()), segment: make([]byte, segment)}
}

// XORKeyStream is cipher.Stream.
func (c *segmentCFB) XORKeyStream(dst, src []byte) {
	for i, in := range src {
		if c.used == 0 {
			c.block.Encrypt(c.key, c.register)
		}
		dst[i] = in ^ c.key[c.used]
		c.segment[c.used] = in
		if c.encrypt {
			c.segment[c.used] = dst[i]
		}
		if c.used++; c.used == len(c.segment) {
			copy(c.register, c.register[c.used:])
			copy(c.register[len(c.register)-c.used:], c.segment)
			c.used = 0
		}
	}
}
