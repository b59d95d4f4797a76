package swtok

import (
	"crypto/cipher"
	"encoding/binary"
	"hash"
)

// Go's library has GCM of whole messages only: cipher.AEAD. What it has that runs in
// parts is counter mode. The authentication beside it is made here out of the AEAD's own,
// without plaintext (see ghash), so that the bulk of the work is the library's assembly,
// and a part costs one multiplication in the field, which Go does not give out. Without
// this an encryption would hold its message, and give all of it at the end.

// A goGCM is GCM in parts, with Go's library.
type goGCM struct {
	encrypt bool
	stream  ctr32
	hash    ghash
	mask    block128 // E(J0)
	aad, n  uint64   // bytes of each
}

func (b *goBlockCipher) GCM(iv, aad []byte, encrypt bool) (GCM, error) {
	base, err := b.ghash()
	if err != nil {
		return nil, err
	}
	g := &goGCM{encrypt: encrypt, hash: *base, aad: uint64(len(aad))}
	var j0, mask [16]byte // the counter block before the first
	if len(iv) == 12 {
		copy(j0[:], iv)
		j0[15] = 1
	} else {
		h := *base
		h.write(iv)
		h.sum(0, uint64(len(iv))*8).store(j0[:])
	}
	b.block.Encrypt(mask[:], j0[:])
	g.mask = load128(mask[:])
	g.stream = newCTR32(b.block, j0)
	g.hash.write(aad)
	g.hash.pad()
	return g, nil
}

// Crypt goes over as much as the caches hold, twice.
func (g *goGCM) Crypt(dst, part []byte) error {
	g.n += uint64(len(part))
	for len(part) > 0 {
		n := min(len(part), ghashPart)
		if !g.encrypt {
			g.hash.write(part[:n])
		}
		g.stream.xor(dst[:n], part[:n])
		if g.encrypt {
			g.hash.write(dst[:n])
		}
		dst, part = dst[n:], part[n:]
	}
	return nil
}

func (g *goGCM) Tag(tag []byte) error {
	t := g.tag()
	copy(tag, t[:])
	return nil
}

func (g *goGCM) TagSoFar(tag []byte) error {
	end := *g
	defer end.hash.wipe()
	return end.Tag(tag)
}

func (g *goGCM) tag() (tag [aesBlock]byte) {
	g.hash.sum(g.aad*8, g.n*8).xor(g.mask).store(tag[:])
	return tag
}

func (g *goGCM) Fits(tag []byte) bool {
	t := g.tag()
	return equal(t[:len(tag)], tag)
}

func (g *goGCM) Close() {
	g.stream = ctr32{}
	g.hash.wipe()
}

func (b *goBlockCipher) GMAC(iv []byte) (hash.Hash, error) {
	g, err := b.GCM(iv, nil, true)
	if err != nil {
		return nil, err
	}
	return goGMAC{g.(*goGCM)}, nil
}

// goGMAC is a goGCM as a hash of what it authenticates and does not encrypt.
type goGMAC struct{ *goGCM }

func (g goGMAC) Write(b []byte) (int, error) {
	g.hash.write(b)
	g.aad += uint64(len(b))
	return len(b), nil
}

func (g goGMAC) Sum(b []byte) []byte {
	var tag [aesBlock]byte
	_ = g.TagSoFar(tag[:]) // it has no reason to fail
	return append(b, tag[:]...)
}

func (g goGMAC) Reset()       { g.Close() }
func (goGMAC) Size() int      { return aesBlock }
func (goGMAC) BlockSize() int { return aesBlock }

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
