package swtok

import (
	"crypto/cipher"
	"encoding/binary"

	"p11fs/p11"
)

// A gcmCipher is AES-GCM in parts (PKCS#11 v3.1 §6.13, NIST SP 800-38D), with
// any length of IV and any whole number of bytes of tag. The standard library's
// AEAD takes whole messages only; this one encrypts in constant memory.
// Decryption holds the ciphertext, and there is no plaintext at all before the tag
// has been checked. So there is no encryption either of what is too long for that.
type gcmCipher struct {
	decrypt bool
	block   cipher.Block
	j0      [16]byte // the counter block before the first
	stream  ctr32    // encrypting
	hash    ghash
	tagMask block128 // E(J0)
	tagLen  int
	aadLen  uint64
	n       uint64 // bytes of text; encrypting
	held    []byte // decrypting: the ciphertext, and the tag behind it
}

// aesGCM is the family of CKM_AES_GCM.
func aesGCM() family {
	return family{wraps: wrapping{private: true}, uses: cipherModes(newGCMCipher)}
}

func newGCMCipher(u call, k *cipherKey, decrypt bool) (part, error) {
	p, err := param[*p11.GCMParams](u)
	if err != nil {
		return nil, err
	}
	base, err := k.gcm()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "gcm: %v", err)
	}
	g := &gcmCipher{
		decrypt: decrypt, block: k.Block(), hash: *base,
		tagLen: int(p.TagBits / 8), aadLen: uint64(len(p.AAD)),
	}
	if len(p.IV) == 12 {
		copy(g.j0[:], p.IV)
		g.j0[15] = 1
	} else {
		iv := *base
		iv.write(p.IV)
		iv.sum(0, uint64(len(p.IV))*8).store(g.j0[:])
	}
	var mask [16]byte
	g.block.Encrypt(mask[:], g.j0[:])
	g.tagMask = load128(mask[:])
	if !decrypt {
		g.stream = newCTR32(g.block, g.j0)
	}
	g.hash.write(p.AAD)
	g.hash.pad()
	return g, nil
}

func (g *gcmCipher) update(part []byte) ([]byte, error) {
	switch {
	case len(part) == 0:
		return nil, nil
	case g.decrypt && len(part) > maxHeld+g.tagLen-len(g.held), !g.decrypt && uint64(len(part)) > maxHeld-g.n:
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE,
			"AES-GCM is decrypted whole, so a message has at most %d MiB: for more there is encrypt:stream (CKM_P11FS_STREAM)", maxHeld>>20)
	case g.decrypt:
		g.held = append(g.held, part...)
		return nil, nil
	}
	out := make([]byte, len(part))
	g.stream.xor(out, part)
	g.hash.write(out)
	g.n += uint64(len(part))
	return out, nil
}

func (g *gcmCipher) kept() int {
	if !g.decrypt {
		return -1
	}
	return len(g.held)
}

func (g *gcmCipher) updateSize(n int) int {
	if g.decrypt {
		return 0
	}
	return n
}

func (g *gcmCipher) result([]byte) ([]byte, error) {
	if g.decrypt && len(g.held) < g.tagLen {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data is shorter than its tag")
	}
	h := g.hash // a copy, for the message may go on
	defer h.wipe()
	if !g.decrypt {
		return g.tag(&h, g.n), nil
	}
	text, tag := g.held[:len(g.held)-g.tagLen], g.held[len(g.held)-g.tagLen:]
	h.write(text)
	if !equal(g.tag(&h, uint64(len(text))), tag) {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the authentication tag is wrong")
	}
	plain := make([]byte, len(text))
	stream := newCTR32(g.block, g.j0)
	stream.xor(plain, text)
	return plain, nil
}

// tag is the tag of a message of n bytes whose hash is h, which it ends.
func (g *gcmCipher) tag(h *ghash, n uint64) []byte {
	tag := make([]byte, 16)
	h.sum(g.aadLen*8, n*8).xor(g.tagMask).store(tag)
	return tag[:g.tagLen]
}

func (g *gcmCipher) close() {
	g.held, g.stream = nil, ctr32{}
	g.hash.wipe()
}

// ctr32 is counter mode where only the low 32 bits count, modulo 2^32, as GCM
// has it: the standard library's, which counts in all 128, begun anew where
// they differ.
type ctr32 struct {
	block   cipher.Block
	counter [16]byte // of the stream's first block
	stream  cipher.Stream
	left    uint64 // bytes of the stream until the low 32 bits are 0 again
}

// newCTR32 returns the stream that begins after j0.
func newCTR32(b cipher.Block, j0 [16]byte) ctr32 {
	c := ctr32{block: b, counter: j0}
	low := binary.BigEndian.Uint32(j0[12:]) + 1
	c.begin(low)
	return c
}

func (c *ctr32) begin(low uint32) {
	binary.BigEndian.PutUint32(c.counter[12:], low)
	c.stream = cipher.NewCTR(c.block, c.counter[:])
	c.left = (1<<32 - uint64(low)) * aesBlock
}

func (c *ctr32) xor(dst, src []byte) {
	for len(src) > 0 {
		if c.left == 0 {
			c.begin(0)
		}
		n := min(uint64(len(src)), c.left)
		c.stream.XORKeyStream(dst[:n], src[:n])
		dst, src = dst[n:], src[n:]
		c.left -= n
	}
}
