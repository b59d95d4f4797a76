package swtok

import (
	"crypto/cipher"
	"encoding/binary"
)

// ghash computes GHASH (NIST SP 800-38D §6.4) in parts, at the speed of the
// standard library's GCM, which offers no parts: a GMAC over one part P of m
// blocks is
//
//	tag = (Y(P) ⊕ len)·H ⊕ E(J0)
//
// where Y(P) = P₁·Hᵐ ⊕ … ⊕ Pₘ·H, so that what has gone before moves up by Hᵐ:
// with z = Y·H, z' = z·Hᵐ ⊕ tag ⊕ len·H ⊕ E(J0). It costs one multiplication a
// part here, and one GMAC there. The tags of this nonce never leave the type.
//
// A part that is encrypted whole comes with its GMAC, if its counters are those that follow
// from a nonce: they are J(N) = (N·H ⊕ len)·H for a nonce N of one block, which can be solved
// for N.
type ghash struct {
	gmac  cipher.AEAD
	whole cipher.AEAD // with nonces of a block
	// squares are H^(2^i), which the messages of a key share.
	squares *[maxSquare + 1]block128
	back    block128 // H^-2
	shift   block128 // len·H^-1
	h       block128
	mask    block128 // E(J0) for the nonce of 12 zeros
	z       block128 // Y·H
	power   block128 // H^m of the last part's m
	m       uint64
	held    [16]byte // the begun block
	nheld   int
	tag     [16]byte
}

// block128 is an element of GF(2^128) in GCM's order: bit 0 is the highest bit
// of hi.
type block128 struct{ hi, lo uint64 }

func load128(b []byte) block128 {
	return block128{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (x block128) store(b []byte) {
	binary.BigEndian.PutUint64(b, x.hi)
	binary.BigEndian.PutUint64(b[8:], x.lo)
}

func (x block128) xor(y block128) block128 { return block128{x.hi ^ y.hi, x.lo ^ y.lo} }

// mul multiplies in a time that depends on neither factor (SP 800-38D §6.3).
func (x block128) mul(y block128) block128 {
	var z block128
	v := y
	step := func(w uint64) {
		for i := 63; i >= 0; i-- {
			mask := -(w >> uint(i) & 1)
			z.hi ^= v.hi & mask
			z.lo ^= v.lo & mask
			carry := -(v.lo & 1)
			v.lo = v.lo>>1 | v.hi<<63
			v.hi = v.hi>>1 ^ carry&(0xe1<<56)
		}
	}
	step(x.hi)
	step(x.lo)
	return z
}

// raised is H to the m-th power, m at least 1. m is a length, not a secret.
func (g *ghash) raised(m uint64) block128 {
	var r *block128
	for i := range g.squares {
		switch {
		case m>>i&1 == 0:
		case r == nil:
			first := g.squares[i]
			r = &first
		default:
			*r = r.mul(g.squares[i])
		}
	}
	return *r
}

func newGHASH(b cipher.Block) (*ghash, error) {
	gmac, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	g := &ghash{gmac: gmac}
	var in, out [16]byte
	b.Encrypt(out[:], in[:])
	g.h = load128(out[:])
	in[15] = 1
	b.Encrypt(out[:], in[:])
	g.mask = load128(out[:])
	if g.whole, err = cipher.NewGCMWithNonceSize(b, aesBlock); err != nil {
		return nil, err
	}
	g.squares = &[...]block128{maxSquare: {}}
	for i, x := 0, g.h; i < len(g.squares); i, x = i+1, x.mul(x) {
		g.squares[i] = x
	}
	inverse := g.h.inverse()
	g.back, g.shift = inverse.mul(inverse), block128{lo: 8 * aesBlock}.mul(inverse)
	return g, nil
}

// inverse is x^(2^128-2).
func (x block128) inverse() block128 {
	square := x.mul(x)
	r := square
	for range 126 {
		square = square.mul(square)
		r = r.mul(square)
	}
	return r
}

// seal encrypts whole blocks, at most ghashPart bytes, with the counters behind j, whose
// encryption is mask, and mixes them in. What is behind them in dst, where there is room for
// a block, is as before.
func (g *ghash) seal(dst, src []byte, j, mask block128) {
	var nonce, behind [aesBlock]byte
	j.mul(g.back).xor(g.shift).store(nonce[:])
	n := len(src)
	over := dst[n : n+aesBlock]
	copy(behind[:], over)
	tag := load128(g.whole.Seal(dst[:0], nonce[:], src, nil)[n:])
	copy(over, behind[:])
	g.mix(tag, n, block128{lo: uint64(n) * 8}, mask)
}

// mix has z go on over n bytes whose GMAC is tag.
func (g *ghash) mix(tag block128, n int, length, mask block128) {
	if g.z != (block128{}) { // as it is at the beginning
		if m := uint64(n / aesBlock); m != g.m {
			g.power, g.m = g.raised(m), m
		}
		g.z = g.z.mul(g.power)
	}
	g.z = g.z.xor(tag).xor(length.mul(g.h)).xor(mask)
}

// write mixes in b, continuing a begun block.
func (g *ghash) write(b []byte) {
	if g.nheld > 0 {
		n := copy(g.held[g.nheld:], b)
		g.nheld += n
		b = b[n:]
		if g.nheld < 16 {
			return
		}
		g.blocks(g.held[:])
		g.nheld = 0
	}
	whole := len(b) &^ 15
	g.blocks(b[:whole])
	g.nheld = copy(g.held[:], b[whole:])
}

// pad fills the begun block with zeros.
func (g *ghash) pad() {
	if g.nheld > 0 {
		clear(g.held[g.nheld:])
		g.nheld = 0
		g.blocks(g.held[:])
	}
}

// ghashPart is the longest part of one GMAC; its length in bits stays far below
// what the length block holds, and powers of H repeat.
const ghashPart = aesBlock << maxSquare

const maxSquare = 12

func (g *ghash) blocks(b []byte) {
	for len(b) > 0 {
		part := b[:min(len(b), ghashPart)]
		b = b[len(part):]
		var nonce [12]byte
		tag := g.gmac.Seal(g.tag[:0], nonce[:], nil, part)
		g.mix(load128(tag), len(part), block128{hi: uint64(len(part)) * 8}, g.mask)
	}
}

// sum returns GHASH of all written, padded, and the lengths in bits.
func (g *ghash) sum(aadBits, textBits uint64) block128 {
	g.pad()
	return g.z.xor(block128{aadBits, textBits}.mul(g.h))
}

// wipe forgets the hash key.
func (g *ghash) wipe() {
	g.h, g.mask, g.z, g.power, g.m = block128{}, block128{}, block128{}, block128{}, 0
	g.back, g.shift = block128{}, block128{}
	clear(g.held[:])
}
