package icsfserver

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"hash"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// hashOf is the hash of a rule.
func hashOf(rule string) (crypto.Hash, error) {
	hashes := map[string]crypto.Hash{"MD5": crypto.MD5, "SHA-1": crypto.SHA1, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
	h, ok := hashes[rule]
	if !ok {
		return 0, refused(badValue)
	}
	return h, nil
}

// stateSize is how many bytes of chain data name a running state.
const stateSize = 16

// state is the running state of a chain, which begins with the first part.
func (c *conn) state(step string, chain []byte, begin func() hash.Hash) (hash.Hash, error) {
	if step == "FIRST" || step == "ONLY" {
		return begin(), nil
	}
	if len(chain) < stateSize {
		return nil, refused(badValue)
	}
	name := string(chain[:stateSize])
	h, ok := c.chains[name].(hash.Hash)
	if !ok {
		return nil, refused(badValue)
	}
	delete(c.chains, name)
	return h, nil
}

// keep keeps a running state, and is its chain data.
func (c *conn) keep(h hash.Hash) ([]byte, error) {
	if len(c.chains) >= maxChains {
		return nil, refused(badValue)
	}
	name := make([]byte, stateSize)
	_, _ = rand.Read(name) // which never fails
	c.chains[string(name)] = h
	return chainOf(name), nil
}

// macOf begins the MAC of a rule.
func macOf(rule string, key []byte) (func() hash.Hash, error) {
	switch rule {
	case "SSL3-MD5":
		return func() hash.Hash { return newSSL3(md5.New, key, 48) }, nil
	case "SSL3-SHA":
		return func() hash.Hash { return newSSL3(sha1.New, key, 40) }, nil
	}
	kind, err := hashOf(rule)
	return func() hash.Hash { return hmac.New(kind.New, key) }, err
}

// An ssl3 is the MAC of SSL 3 (RFC 6101 §5.2.3.1): an inner hash, and an outer one of its sum.
type ssl3 struct {
	hash.Hash // the inner one
	outer     func(inner []byte) []byte
}

func newSSL3(kind func() hash.Hash, key []byte, pad int) hash.Hash {
	m := ssl3{kind(), func(inner []byte) []byte {
		h := kind()
		h.Write(slices.Concat(key, bytes.Repeat([]byte{0x5c}, pad), inner))
		return h.Sum(nil)
	}}
	m.Write(slices.Concat(key, bytes.Repeat([]byte{0x36}, pad)))
	return m
}

// Sum is hash.Hash.
func (m ssl3) Sum(b []byte) []byte { return append(b, m.outer(m.Hash.Sum(nil))...) }

// short says whether a rule is of a MAC of which the first bytes may count alone.
func short(rule string) bool { return strings.HasPrefix(rule, "SSL3") }

// running takes a part of a MAC, and says whether it was the last.
func (c *conn) running(r *icsfwire.Request, use p11.AttributeType, text, chain []byte) (h hash.Hash, end bool, err error) {
	o, err := c.key(r.Handle, use)
	if err != nil {
		return nil, false, err
	}
	if len(r.Rules) != 2 {
		return nil, false, refused(badValue)
	}
	if err := o.is(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET); err != nil {
		return nil, false, err
	}
	value, _ := o.attrs.Get(p11.CKA_VALUE)
	begin, err := macOf(r.Rules[0], value)
	if err != nil {
		return nil, false, err
	}
	if h, err = c.state(r.Rules[1], chain, begin); err != nil {
		return nil, false, err
	}
	h.Write(text)
	return h, r.Rules[1] == "LAST" || r.Rules[1] == "ONLY", nil
}

func (c *conn) mac(r *icsfwire.Request, d *icsfwire.MAC) (icsfwire.Data, error) {
	h, end, err := c.running(r, p11.CKA_SIGN, d.Text, d.Chain)
	if err != nil {
		return &icsfwire.MACResult{}, err
	}
	if !end {
		chain, err := c.keep(h)
		return &icsfwire.MACResult{Chain: chain}, err
	}
	out := h.Sum(nil)
	if short(r.Rules[0]) {
		out = out[:max(0, min(len(out), d.Room))]
	}
	text, err := fits(out, d.Room, nil)
	return &icsfwire.MACResult{Chain: chainOf(nil), MAC: text, Length: len(out)}, err
}

func (c *conn) verifyMAC(r *icsfwire.Request, d *icsfwire.VerifyMAC) (icsfwire.Data, error) {
	h, end, err := c.running(r, p11.CKA_VERIFY, d.Text, d.Chain)
	if err != nil {
		return &icsfwire.VerifyMACResult{Chain: chainOf(nil)}, err
	}
	if !end {
		chain, err := c.keep(h)
		return &icsfwire.VerifyMACResult{Chain: chain}, err
	}
	want := h.Sum(nil)
	if short(r.Rules[0]) && len(d.MAC) > 0 {
		want = want[:min(len(want), len(d.MAC))]
	}
	if !hmac.Equal(want, d.MAC) {
		err = wrongMAC()
	}
	return &icsfwire.VerifyMACResult{Chain: chainOf(nil)}, err
}
