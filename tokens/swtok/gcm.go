package swtok

import (
	"bytes"
	"sync"

	"p11fs/p11"
)

// A gcmCipher is AES-GCM in parts (PKCS#11 v3.1 §6.13, NIST SP 800-38D), with
// any length of IV and any whole number of bytes of tag. It encrypts in constant
// memory. What is decrypted is held, and nobody gets any of it before the tag has been
// checked. So there is no encryption either of what is too long for that.
type gcmCipher struct {
	mode    GCM
	decrypt bool
	tagLen  int
	n       int    // bytes of text that the mode has had
	held    pieces // decrypting: the plaintext
	tail    []byte // decrypting: the last bytes that came, at most tagLen, which may be the tag
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
	mode, err := k.GCM(p.IV, p.AAD, !decrypt)
	if err != nil {
		return nil, failure(err)
	}
	return &gcmCipher{mode: mode, decrypt: decrypt, tagLen: int(p.TagBits / 8), held: pieces{free: &u.free}}, nil
}

func (g *gcmCipher) update(into, part []byte) ([]byte, error) {
	most := maxHeld
	if g.decrypt {
		most += g.tagLen
	}
	switch {
	case len(part) == 0:
		return nil, nil
	case len(part) > most-g.n-len(g.tail):
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE,
			"AES-GCM is decrypted whole, so a message has at most %d MiB: for more there is encrypt:stream (CKM_P11FS_STREAM)", maxHeld>>20)
	case g.decrypt:
		return nil, g.hold(part)
	}
	out := roomIn(into, len(part))
	return out, g.crypt(out, part)
}

// hold decrypts all but the bytes that may be the tag.
func (g *gcmCipher) hold(part []byte) error {
	text := len(g.tail) + len(part) - g.tagLen
	if text <= 0 {
		g.tail = append(g.tail, part...)
		return nil
	}
	n := min(text, len(g.tail))
	if err := g.keep(g.tail[:n]); err != nil {
		return err
	}
	if err := g.keep(part[:text-n]); err != nil {
		return err
	}
	g.tail = append(g.tail[:copy(g.tail, g.tail[n:])], part[text-n:]...)
	return nil
}

func (g *gcmCipher) keep(ciphertext []byte) error {
	for len(ciphertext) > 0 {
		to := g.held.more(len(ciphertext))
		if err := g.crypt(to, ciphertext[:len(to)]); err != nil {
			return err
		}
		ciphertext = ciphertext[len(to):]
	}
	return nil
}

func (g *gcmCipher) crypt(dst, src []byte) error {
	g.n += len(src)
	return failure(g.mode.Crypt(dst, src))
}

func (g *gcmCipher) kept() int {
	if !g.decrypt {
		return -1
	}
	return g.n + len(g.tail)
}

func (g *gcmCipher) updateSize(n int) int {
	if g.decrypt {
		return 0
	}
	return n
}

func (g *gcmCipher) result([]byte) ([]byte, error) {
	switch {
	case !g.decrypt:
		tag, err := g.mode.Tag(g.tagLen)
		return tag, failure(err)
	case len(g.tail) < g.tagLen:
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data is shorter than its tag")
	case !g.mode.Fits(g.tail):
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the authentication tag is wrong")
	}
	return g.held.joined(), nil
}

func (g *gcmCipher) close() {
	g.held.wipe()
	g.mode.Close()
}

// pieces are bytes that are not moved when there are more of them. The memory of more
// than half a piece comes from free, and is wiped when it goes back there.
type pieces struct {
	free *sync.Pool
	list [][]byte
	n    int
}

type piece64K [64 << 10]byte

// more adds up to n bytes, at least one, and returns where they are. It takes no more
// than twice the memory of what is added, or was.
func (p *pieces) more(n int) []byte {
	if len(p.list) == 0 || len(p.list[len(p.list)-1]) == cap(p.list[len(p.list)-1]) {
		p.list = append(p.list, p.memory(max(n, p.n)))
	}
	last := &p.list[len(p.list)-1]
	at := len(*last)
	*last = (*last)[:at+min(n, cap(*last)-at)]
	p.n += len(*last) - at
	return (*last)[at:]
}

func (p *pieces) memory(n int) []byte {
	if n <= len(piece64K{})/2 {
		return make([]byte, 0, n)
	}
	if b, ok := p.free.Get().(*piece64K); ok {
		return b[:0]
	}
	return new(piece64K)[:0]
}

// joined is a copy in one.
func (p *pieces) joined() []byte { return bytes.Join(p.list, nil) }

func (p *pieces) wipe() {
	wipe(p.list...)
	for _, b := range p.list {
		if cap(b) == len(piece64K{}) {
			p.free.Put((*piece64K)(b[:cap(b)]))
		}
	}
	p.list, p.n = nil, 0
}
