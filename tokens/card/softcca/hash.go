package softcca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"encoding"
	"hash"
	"io"

	"p11fs/secret"
	"p11fs/tokens/card/cca"
)

// chainSize is the length of a chaining vector.
const chainSize = 128

// hashOf is the hash of a keyword.
func hashOf(r cca.Rules) (crypto.Hash, string, error) {
	hashes := map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
	word, err := r.One("SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512")
	return hashes[word], word, err
}

// A part is a piece of a message, by keyword.
type part struct{ first, last bool }

func partOf(r cca.Rules) (part, string, error) {
	word, err := r.One("ONLY", "FIRST", "MIDDLE", "LAST")
	return part{word == "ONLY" || word == "FIRST", word == "ONLY" || word == "LAST"}, word, err
}

// The state of a hash of Go's library is what it began with, the chaining value, a block
// that is not full, and a count of 8 bytes. After whole blocks there is nothing in the
// block, and it is left out of a chaining vector.
const countSize = 8

// freeze is the state of a hash that has had whole blocks.
func freeze(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, cca.ErrKeyword
	}
	b, err := m.MarshalBinary()
	if err != nil || len(b) < h.BlockSize()+countSize {
		return nil, cca.ErrData
	}
	at := len(b) - countSize - h.BlockSize()
	return append(b[:at:at], b[len(b)-countSize:]...), nil
}

// thaw is the hash again.
func thaw(kind crypto.Hash, state []byte) (hash.Hash, error) {
	h := kind.New()
	if fresh, err := freeze(h); err != nil || len(state) != len(fresh) {
		return nil, cca.ErrData
	}
	at := len(state) - countSize
	b := append(bytes.Clone(state[:at]), make([]byte, h.BlockSize())...)
	b = append(b, state[at:]...)
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok || u.UnmarshalBinary(b) != nil {
		return nil, cca.ErrData
	}
	return h, nil
}

// chained makes a chaining vector of a state.
func chained(state []byte) []byte {
	b := make([]byte, chainSize)
	b[0] = byte(len(state))
	copy(b[1:], state)
	return b
}

// unchained is the state in one.
func unchained(chain []byte) ([]byte, error) {
	if len(chain) != chainSize || int(chain[0]) > chainSize-1 {
		return nil, cca.ErrData
	}
	return chain[1 : 1+chain[0]], nil
}

// CSNBOWH hashes.
func (d *domain) CSNBOWH(_ context.Context, rules, text, chain []byte) (newChain, digest []byte, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, nil, err
	}
	kind, name, err := hashOf(r)
	if err != nil {
		return nil, nil, err
	}
	p, word, err := partOf(r)
	if err != nil || r.Only(name, word) != nil {
		return nil, nil, cca.ErrKeyword
	}
	h := kind.New()
	if !p.first {
		state, err := unchained(chain)
		if err == nil {
			h, err = thaw(kind, state)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if !p.last && len(text)%h.BlockSize() != 0 {
		return nil, nil, cca.ErrData
	}
	h.Write(text)
	if p.last {
		return make([]byte, len(chain)), h.Sum(nil), nil
	}
	state, err := freeze(h)
	if err != nil || len(chain) != chainSize {
		return nil, nil, cca.ErrData
	}
	return chained(state), nil, nil
}

// An hmacCall is one call of CSNBHMG or CSNBHMV.
type hmacCall struct {
	part
	kind crypto.Hash
	key  []byte
	// seals the state between calls, which so is bound to key and hash.
	master []byte
	bound  []byte
}

func (d *domain) beginHMAC(rules, key []byte) (c *hmacCall, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	c = &hmacCall{}
	var name, word string
	if c.kind, name, err = hashOf(r); err != nil {
		return nil, err
	}
	if c.part, word, err = partOf(r); err != nil || !r.Has("HMAC") || r.Only("HMAC", name, word) != nil {
		return nil, cca.ErrKeyword
	}
	v, w, err := d.openVariable(key)
	if err != nil {
		return nil, err
	}
	c.key = w.key
	if v.Partial || !usable(w.at) {
		c.close()
		return nil, cca.ErrToken
	}
	if c.master, _, err = d.in(AES, w.at); err != nil {
		c.close()
		return nil, err
	}
	c.bound = append([]byte(name), v.Bytes()...)
	return c, nil
}

func (c *hmacCall) close() {
	secret.Wipe(c.key)
	secret.Wipe(c.master)
}

// pad is the key, as long as a block, with each byte changed by x (RFC 2104 §2). Libraries
// keep their HMAC's state to themselves, and a card's goes out with each part: so the two
// hashes are put together here.
func (c *hmacCall) pad(x byte) []byte {
	b := make([]byte, c.kind.New().BlockSize())
	if len(c.key) > len(b) {
		h := c.kind.New()
		h.Write(c.key)
		copy(b, h.Sum(nil))
	} else {
		copy(b, c.key)
	}
	for i := range b {
		b[i] ^= x
	}
	return b
}

// step takes a part of the message. It gives the next chaining vector, or the MAC.
func (c *hmacCall) step(text, chain []byte) (next, mac []byte, err error) {
	if c.first && c.last { // what a library does
		h := hmac.New(c.kind.New, c.key)
		h.Write(text)
		return make([]byte, len(chain)), h.Sum(nil), nil
	}
	inner := c.kind.New()
	if c.first {
		ipad := c.pad(0x36)
		inner.Write(ipad)
		secret.Wipe(ipad)
	} else {
		var state []byte
		if state, err = unchained(chain); err != nil {
			return nil, nil, err
		}
		if state, err = unseal(c.master, forChain, state, c.bound); err != nil {
			return nil, nil, cca.ErrData
		}
		if inner, err = thaw(c.kind, state); err != nil {
			return nil, nil, err
		}
	}
	if !c.last && len(text)%inner.BlockSize() != 0 {
		return nil, nil, cca.ErrData
	}
	inner.Write(text)
	if c.last {
		opad := c.pad(0x5c)
		defer secret.Wipe(opad)
		outer := c.kind.New()
		outer.Write(opad)
		outer.Write(inner.Sum(nil))
		return make([]byte, len(chain)), outer.Sum(nil), nil
	}
	state, err := freeze(inner)
	if err != nil || len(chain) != chainSize {
		return nil, nil, cca.ErrData
	}
	if state, err = seal(c.master, forChain, state, c.bound); err != nil {
		return nil, nil, err
	}
	return chained(state), nil, nil
}

// CSNBHMG makes an HMAC.
func (d *domain) CSNBHMG(_ context.Context, rules, key, text, chain []byte) (newChain, mac []byte, err error) {
	c, err := d.beginHMAC(rules, key)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	return c.step(text, chain)
}

// CSNBHMV checks one. What is given is the leftmost part of it, of four bytes or more.
func (d *domain) CSNBHMV(_ context.Context, rules, key, text, mac, chain []byte) (newChain []byte, err error) {
	c, err := d.beginHMAC(rules, key)
	if err != nil {
		return nil, err
	}
	defer c.close()
	next, own, err := c.step(text, chain)
	switch {
	case err != nil:
		return nil, err
	case c.last && (len(mac) < 4 || len(mac) > len(own) || !hmac.Equal(mac, own[:len(mac)])):
		return nil, cca.ErrSignature
	}
	return next, nil
}

// CSNBKTB2 builds a skeleton for an HMAC key.
func (d *domain) CSNBKTB2(_ context.Context, rules []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil || !r.Has("INTERNAL") || !r.Has("HMAC") || !r.Has("MAC") || !r.Has("GENERATE") || r.Only("INTERNAL", "NO-KEY", "HMAC", "MAC", "GENERATE") != nil {
		return nil, cca.ErrKeyword
	}
	return cca.Variable{}.Bytes(), nil
}

func skeleton(token []byte) error {
	v, err := cca.ParseVariable(token)
	if err != nil || v.Key {
		return cca.ErrToken
	}
	return nil
}

// hmacBytes is the length of a key in bytes.
func hmacBytes(bits uint64) (int, error) {
	if bits < minHMACBits || bits > cca.MaxHMACBits || bits%8 != 0 {
		return 0, cca.ErrValues
	}
	return int(bits / 8), nil
}

const minHMACBits = 80

// CSNBKGN2 generates an HMAC key for a skeleton.
func (d *domain) CSNBKGN2(_ context.Context, rules []byte, bits uint64, type1, type2, token []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil || !r.Has("HMAC") || !r.Has("OP") || r.Only("HMAC", "OP") != nil || cca.Keyword(type1) != "TOKEN" || cca.Keyword(type2) != "" {
		return nil, cca.ErrKeyword
	}
	if err := skeleton(token); err != nil {
		return nil, err
	}
	n, err := hmacBytes(bits)
	if err != nil {
		return nil, err
	}
	key := make([]byte, n)
	defer secret.Wipe(key)
	if _, err := io.ReadFull(d.random, key); err != nil {
		return nil, cca.ErrData
	}
	return d.sealVariable(key, false, Current)
}

// CSNBKPI2 takes the first part of an HMAC key, or ends with those that there are. More
// parts than one are not taken.
func (d *domain) CSNBKPI2(_ context.Context, rules []byte, bits uint64, value, token []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	word, err := r.One("FIRST", "COMPLETE")
	if err != nil || !r.Has("HMAC") || r.Only("HMAC", word, "MIN1PART") != nil {
		return nil, cca.ErrKeyword
	}
	if word == "FIRST" {
		if err := skeleton(token); err != nil {
			return nil, err
		}
		if n, err := hmacBytes(bits); err != nil || n != len(value) {
			return nil, cca.ErrValues
		}
		return d.sealVariable(value, true, Current)
	}
	v, w, err := d.openVariable(token)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(w.key)
	if !v.Partial || bits != 0 {
		return nil, cca.ErrToken
	}
	return d.sealVariable(w.key, false, w.at)
}
