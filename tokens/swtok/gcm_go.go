package swtok

import (
	"crypto/cipher"
	"encoding/binary"
	"hash"
	"math"
)

// Go's library has GCM of whole messages only: cipher.AEAD. What it has that runs in
// parts is counter mode. The authentication beside it is made here out of the AEAD's own
// (see ghash), so that the bulk of the work is the library's assembly, and a part costs
// few multiplications in the field, which Go does not give out. Without this an encryption
// would hold its message, and give all of it at the end.

// A goGCM is GCM in parts, with Go's library.
type goGCM struct {
	block   cipher.Block
	encrypt bool
	stream  ctr32
	at      uint64   // bytes that the stream has had, or was put behind
	j0      block128 // the counter block before the first
	hash    ghash
	mask    block128 // E(J0)
	aad, n  uint64   // bytes of each
}

func (b *goBlockCipher) GCM(iv, aad []byte, encrypt bool) (GCM, error) {
	base, err := b.ghash()
	if err != nil {
		return nil, err
	}
	g := &goGCM{block: b.block, encrypt: encrypt, hash: *base, aad: uint64(len(aad))}
	var j0, mask [16]byte
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
	g.stream, g.j0 = newCTR32(b.block, j0), load128(j0[:])
	g.hash.write(aad)
	g.hash.pad()
	return g, nil
}

// Crypt encrypts what it can in one pass: whole blocks, with room for a tag behind them.
// Else it goes over as much as the caches hold, twice.
func (g *goGCM) Crypt(dst, part []byte) error {
	for len(part) > 0 {
		n := min(len(part), ghashPart)
		whole := min(n, cap(dst)-aesBlock) &^ (aesBlock - 1)
		if begun := int(g.n % aesBlock); begun > 0 {
			n, whole = min(n, aesBlock-begun), 0
		}
		if g.encrypt && whole >= leastSeal {
			n = whole
			g.seal(dst[:cap(dst)], part[:n])
		} else {
			g.twice(dst[:n], part[:n])
		}
		g.n += uint64(n)
		dst, part = dst[n:], part[n:]
	}
	return nil
}

// leastSeal is from how many bytes on one pass takes less time than two: it has to compute
// a nonce.
const leastSeal = 1 << 10

func (g *goGCM) seal(dst, part []byte) {
	j := g.j0
	j.lo = j.lo&^math.MaxUint32 | (j.lo+g.n/aesBlock)&math.MaxUint32
	var mask [aesBlock]byte
	j.store(mask[:])
	g.block.Encrypt(mask[:], mask[:])
	g.hash.seal(dst, part, j, load128(mask[:]))
}

func (g *goGCM) twice(dst, part []byte) {
	if g.at != g.n { // there were blocks in one pass
		g.stream.begin(uint32(g.j0.lo) + 1 + uint32(g.n/aesBlock))
	}
	if !g.encrypt {
		g.hash.write(part)
	}
	g.stream.xor(dst, part)
	if g.encrypt {
		g.hash.write(dst)
	}
	g.at = g.n + uint64(len(part))
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
	g.stream, g.j0 = ctr32{}, block128{}
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
	counter [16]byte      // of the stream's first block, or the one before
	stream  cipher.Stream // nil if it has not begun
	left    uint64        // bytes of the stream until the low 32 bits are 0 again
}

// newCTR32 returns the stream that begins after j0.
func newCTR32(b cipher.Block, j0 [16]byte) ctr32 {
	return ctr32{block: b, counter: j0}
}

func (c *ctr32) begin(low uint32) {
	binary.BigEndian.PutUint32(c.counter[12:], low)
	c.stream = cipher.NewCTR(c.block, c.counter[:])
	c.left = (1<<32 - uint64(low)) * aesBlock
}

func (c *ctr32) xor(dst, src []byte) {
	if c.stream == nil { // many a message of GCM needs none
		c.begin(binary.BigEndian.Uint32(c.counter[12:]) + 1)
	}
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
