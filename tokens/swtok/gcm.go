package swtok

import (
	"sync"

	"p11fs/p11"
)

// A gcmCipher is AES-GCM in parts (PKCS#11 v3.1 §6.13, NIST SP 800-38D), with
// any length of IV and any whole number of bytes of tag. It encrypts in constant
// memory. A ciphertext is kept until its tag is there: nobody gets any plaintext, nor is
// there any, before that, and it is made where it goes to. So there is no encryption either
// of what is too long for that.
type gcmCipher struct {
	begin   func() (GCM, error)
	mode    GCM // of the next result; nil if it is to begin
	decrypt bool
	tagLen  int
	n       int    // encrypting: bytes of text that the mode has had
	held    pieces // decrypting: the message
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
	g := &gcmCipher{decrypt: decrypt, tagLen: int(p.TagBits / 8), held: pieces{free: &u.free}}
	g.begin = func() (GCM, error) { return k.GCM(p.IV, p.AAD, !decrypt) }
	if g.mode, err = g.begin(); err != nil {
		return nil, failure(err)
	}
	return g, nil
}

func (g *gcmCipher) update(into, part []byte) ([]byte, error) {
	if err := g.room(len(part)); err != nil || len(part) == 0 {
		return nil, err
	}
	if g.decrypt {
		g.held.add(part)
		return nil, nil
	}
	g.n += len(part)
	out := roomIn(into, len(part))
	return out, failure(g.mode.Crypt(out, part))
}

// room refuses n bytes more than there may be.
func (g *gcmCipher) room(n int) error {
	most := maxHeld
	if g.decrypt {
		most += g.tagLen
	}
	if n > most-g.n-g.held.n {
		return p11.Advise(p11.Errorf(p11.CKR_DATA_LEN_RANGE, "AES-GCM is decrypted whole, so a message has at most %d MiB", maxHeld>>20),
			"what is longer is for encrypt:stream (CKM_P11FS_STREAM, p11fs encrypt), and what that gives for decrypt:stream")
	}
	return nil
}

func (g *gcmCipher) kept() int {
	if !g.decrypt {
		return -1
	}
	return g.held.n
}

func (g *gcmCipher) updateSize(n int) int {
	if g.decrypt {
		return 0
	}
	return n
}

// finalSize is known, unless the message is none.
func (g *gcmCipher) finalSize() int {
	if !g.decrypt {
		return g.tagLen
	}
	return max(g.held.n-g.tagLen, -1)
}

func (g *gcmCipher) result([]byte) ([]byte, error) {
	if g.decrypt {
		return g.open(nil, g.held.list)
	}
	tag := make([]byte, g.tagLen)
	return tag, failure(g.mode.TagSoFar(tag))
}

func (g *gcmCipher) final(into []byte) ([]byte, error) {
	if g.decrypt {
		return g.open(into, g.held.list)
	}
	tag := roomIn(into, g.tagLen)
	return tag, failure(g.mode.Tag(tag))
}

func (g *gcmCipher) whole(into, message []byte) ([]byte, error) {
	if err := g.room(len(message)); err != nil {
		return nil, err
	}
	if g.decrypt {
		return g.open(into, [][]byte{message})
	}
	out := roomIn(into, len(message)+g.tagLen)
	text, tag := out[:len(message)], out[len(message):]
	if err := g.mode.Crypt(text, message); err != nil {
		return nil, failure(err)
	}
	return out, failure(g.mode.Tag(tag))
}

// open decrypts a message, with its tag.
func (g *gcmCipher) open(into []byte, message [][]byte) ([]byte, error) {
	left := -g.tagLen // of the text
	for _, b := range message {
		left += len(b)
	}
	if left < 0 {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data is shorter than its tag")
	}
	mode := g.mode
	if g.mode = nil; mode == nil {
		var err error
		if mode, err = g.begin(); err != nil {
			return nil, failure(err)
		}
	}
	defer mode.Close()
	out, tag := roomIn(into, left), make([]byte, 0, aesBlock)
	at := 0
	for _, b := range message {
		n := min(left, len(b))
		if err := mode.Crypt(out[at:], b[:n]); err != nil {
			wipe(out)
			return nil, failure(err)
		}
		at += n
		left -= n
		tag = append(tag, b[n:]...)
	}
	if !mode.Fits(tag) {
		wipe(out)
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the authentication tag is wrong")
	}
	return out, nil
}

func (g *gcmCipher) close() {
	g.held.release()
	if g.mode != nil {
		g.mode.Close()
	}
}

// pieces are bytes that are no secret, and are not moved when there are more of them. The
// memory of long ones comes from free, and goes back there.
type pieces struct {
	free *freePieces
	list [][]byte
	n    int
}

// freePieces are pieces of two lengths, by which a part of a usual length needs no new one.
type freePieces struct{ short, long sync.Pool }

type (
	shortPiece [16 << 10]byte
	longPiece  [64 << 10]byte
)

// add takes no more than twice the memory of what is added, or was.
func (p *pieces) add(b []byte) {
	for len(b) > 0 {
		if len(p.list) == 0 || len(p.list[len(p.list)-1]) == cap(p.list[len(p.list)-1]) {
			p.list = append(p.list, p.memory(max(len(b), p.n)))
		}
		last := &p.list[len(p.list)-1]
		n := min(len(b), cap(*last)-len(*last))
		*last = append(*last, b[:n]...)
		p.n += n
		b = b[n:]
	}
}

func (p *pieces) memory(n int) []byte {
	switch {
	case n >= len(longPiece{}):
		if b, ok := p.free.long.Get().(*longPiece); ok {
			return b[:0]
		}
		return new(longPiece)[:0]
	case n >= len(shortPiece{}):
		if b, ok := p.free.short.Get().(*shortPiece); ok {
			return b[:0]
		}
		return new(shortPiece)[:0]
	}
	return make([]byte, 0, n)
}

func (p *pieces) release() {
	for _, b := range p.list {
		switch cap(b) {
		case len(longPiece{}):
			p.free.long.Put((*longPiece)(b[:cap(b)]))
		case len(shortPiece{}):
			p.free.short.Put((*shortPiece)(b[:cap(b)]))
		}
	}
	p.list, p.n = nil, 0
}
