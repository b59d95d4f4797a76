package pkix

import (
	"hash"
	"unicode/utf8"

	"p11fs/secret"
)

// What pkcs12KDF derives (RFC 7292 §B.3).
const (
	kdfKey = 1
	kdfIV  = 2
	kdfMAC = 3
)

// pkcs12KDF derives n bytes by RFC 7292 §B.2. Every block of output hashes the
// purpose, the salt and the pass phrase, each stretched to whole input blocks of
// the hash; the stretched salt and pass phrase then move on by a number that
// depends on the block.
func pkcs12KDF(newHash func() hash.Hash, purpose byte, pass, salt []byte, rounds, n int) []byte {
	h := newHash()
	v := h.BlockSize()
	diversifier := make([]byte, v)
	for i := range diversifier {
		diversifier[i] = purpose
	}
	input := append(stretch(salt, v), stretch(pass, v)...)
	defer secret.Wipe(input)
	out := make([]byte, 0, n+h.Size())
	for {
		h.Reset()
		h.Write(diversifier)
		h.Write(input)
		block := h.Sum(nil)
		for range rounds - 1 {
			h.Reset()
			h.Write(block)
			block = h.Sum(block[:0])
		}
		out = append(out, block...)
		if len(out) >= n {
			secret.Wipe(block)
			return out[:n]
		}
		step := stretch(block, v)[:v]
		for i := 0; i < len(input); i += v {
			addPlusOne(input[i:i+v], step)
		}
	}
}

// stretch repeats b to fill whole blocks of size v; nothing stays nothing.
func stretch(b []byte, v int) []byte {
	out := make([]byte, (len(b)+v-1)/v*v)
	for i := range out {
		out[i] = b[i%len(b)]
	}
	return out
}

// addPlusOne sets the big-endian number a to a+b+1, dropping the carry out.
func addPlusOne(a, b []byte) {
	carry := 1
	for i := len(a) - 1; i >= 0; i-- {
		carry += int(a[i]) + int(b[i])
		a[i] = byte(carry)
		carry >>= 8
	}
}

// bmpString is the pass phrase as PKCS#12 hashes it: UTF-16, big-endian, with a
// terminator (RFC 7292 §B.1). The caller wipes it.
func (p *parser) bmpString(pass []byte) []byte {
	if len(pass) == 0 && p.bareEmpty {
		return nil
	}
	out := make([]byte, 0, 2*len(pass)+2) // never grows: no copy is left behind
	for len(pass) > 0 {
		r, n := utf8.DecodeRune(pass)
		pass = pass[n:]
		if r > 0xffff { // 4 bytes of UTF-8 become 4 of UTF-16
			r -= 0x10000
			hi, lo := 0xd800+r>>10, 0xdc00+r&0x3ff
			out = append(out, byte(hi>>8), byte(hi), byte(lo>>8), byte(lo))
			continue
		}
		out = append(out, byte(r>>8), byte(r))
	}
	return append(out, 0, 0)
}
