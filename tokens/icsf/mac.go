package icsf

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsfwire"
)

// A caller is the Call of a Conn or of a Link.
type caller func(context.Context, *icsfwire.Request, icsfwire.Data) (icsfwire.Handle, error)

// A macRule is what a MAC is to the server: a hash, and the bytes of it.
type macRule struct {
	hash string
	size int
}

// macOf is that of a mechanism.
func macOf(t p11.MechanismType) (r macRule, ok bool) {
	r, ok = map[p11.MechanismType]macRule{
		p11.CKM_MD5_HMAC: {"MD5", 16}, p11.CKM_SHA_1_HMAC: {"SHA-1", 20}, p11.CKM_SHA256_HMAC: {"SHA-256", 32}, p11.CKM_SHA384_HMAC: {"SHA-384", 48}, p11.CKM_SHA512_HMAC: {"SHA-512", 64},
		p11.CKM_SSL3_MD5_MAC: {"SSL3-MD5", 16}, p11.CKM_SSL3_SHA1_MAC: {"SSL3-SHA", 20},
	}[t]
	return r, ok
}

// A mac is a MAC that is made or checked. What it gets is kept until it is much, and then
// sent in parts on one connection.
type mac struct {
	s      *objects
	key    *tokens.Object
	handle icsfwire.Handle
	rule   macRule
	size   int // of what is given: the first bytes of the whole
	verify bool

	kept  []byte
	link  *icsfconn.Link // of a message that is sent in parts
	chain []byte
	done  bool
}

var _ tokens.Operation = (*mac)(nil)

// newMAC begins one with a key that is held, which is its own from then on.
func newMAC(s *objects, key *tokens.Object, h icsfwire.Handle, rule macRule, p p11.Param, verify bool) (tokens.Operation, error) {
	size := rule.size
	if n, ok := p.(p11.MACLength); ok {
		if n == 0 || uint64(n) > uint64(size) {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "mac= is 1 to %d, not %d", size, uint64(n))
		}
		size = int(n)
	}
	return &mac{s: s, key: key, handle: h, rule: rule, size: size, verify: verify}, nil
}

// maxKept is how much of a message is kept before it is sent: whole blocks of every hash.
const maxKept = 1 << 16

// Update is tokens.Operation.
func (m *mac) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	m.kept = secret.Append(m.kept, part)
	for len(m.kept) > maxKept {
		step := "MIDDLE"
		if m.link == nil {
			var err error
			if m.link, err = m.s.conn.Link(ctx); err != nil {
				return nil, err
			}
			step = "FIRST"
		}
		if _, err := m.call(ctx, m.link.Call, step, m.kept[:maxKept], nil); err != nil {
			return nil, icsfconn.Lost(err)
		}
		left := copy(m.kept, m.kept[maxKept:])
		secret.Wipe(m.kept[left:])
		m.kept = m.kept[:left]
	}
	return nil, nil
}

// call sends a part.
func (m *mac) call(ctx context.Context, call caller, step string, text, signature []byte) ([]byte, error) {
	chain := m.chain
	if chain == nil {
		chain = make([]byte, icsfwire.ChainSize)
	}
	r := &icsfwire.Request{Handle: m.s.uses.now(m.handle), Rules: []string{m.rule.hash, step}}
	if m.verify {
		var out icsfwire.VerifyMACResult
		r.Data = &icsfwire.VerifyMAC{Text: text, Chain: chain, MAC: signature}
		_, err := call(ctx, r, &out)
		m.chain = out.Chain
		return nil, err
	}
	var out icsfwire.MACResult
	r.Data = &icsfwire.MAC{Text: text, Chain: chain, Room: m.rule.size}
	_, err := call(ctx, r, &out)
	m.chain = out.Chain
	return out.MAC, err
}

// Final is tokens.Operation.
func (m *mac) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	if m.verify && len(signature) != m.size {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(signature), m.size)
	}
	call, step := caller(m.s.conn.Call), "ONLY"
	if m.link != nil {
		call, step = m.link.Call, "LAST"
	}
	out, err := m.call(ctx, call, step, m.kept, signature)
	if err == nil && !m.verify && len(out) != m.rule.size {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is no MAC")
	}
	if err != nil {
		return nil, icsfconn.Lost(err)
	}
	if m.verify {
		return nil, nil
	}
	return slices.Clone(out[:m.size]), nil
}

// Size is tokens.Operation.
func (m *mac) Size() int { return m.size }

// Close is tokens.Operation.
func (m *mac) Close() {
	if m.done {
		return
	}
	m.done = true
	secret.Wipe(m.kept)
	m.key.Release()
}
