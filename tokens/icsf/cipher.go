package icsf

import (
	"bytes"
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
)

// A cipherRule is what a cipher in a mode is to the server. Padding is done here.
type cipherRule struct {
	cipher, mode string
	block        int
	pad          bool
}

// cipherOf is that of a mechanism.
func cipherOf(t p11.MechanismType) (r cipherRule, ok bool) {
	r, ok = map[p11.MechanismType]cipherRule{
		p11.CKM_AES_ECB: {"AES", "ECB", 16, false}, p11.CKM_AES_CBC: {"AES", "CBC", 16, false}, p11.CKM_AES_CBC_PAD: {"AES", "CBC", 16, true},
		p11.CKM_DES_ECB: {"DES", "ECB", 8, false}, p11.CKM_DES_CBC: {"DES", "CBC", 8, false}, p11.CKM_DES_CBC_PAD: {"DES", "CBC", 8, true},
		p11.CKM_DES3_ECB: {"DES3", "ECB", 8, false}, p11.CKM_DES3_CBC: {"DES3", "CBC", 8, false}, p11.CKM_DES3_CBC_PAD: {"DES3", "CBC", 8, true},
	}[t]
	return r, ok
}

// A stream encrypts or decrypts. Each call to the server is one whole message to it, which in
// CBC is chained to the one before by its initialisation vector: so a call that was lost is
// asked for again, and nothing of a message is on the server between its parts.
type stream struct {
	s       *objects
	key     *tokens.Object
	handle  icsfwire.Handle
	rule    cipherRule
	decrypt bool

	iv   []byte // of the next block; none with ECB
	kept []byte // what is no block yet, or the block that may be the padding
	done bool
}

var (
	_ tokens.Operation = (*stream)(nil)
	_ tokens.Sizer     = (*stream)(nil)
	_ tokens.Placer    = (*stream)(nil)
)

// newStream begins one with a key that is held, which is its own from then on.
func newStream(s *objects, key *tokens.Object, h icsfwire.Handle, rule cipherRule, p p11.Param, decrypt bool) (tokens.Operation, error) {
	iv, ok := p.(p11.IV)
	if rule.mode != "ECB" && (!ok || len(iv) != rule.block) {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "iv= has %d bytes", rule.block)
	}
	return &stream{s: s, key: key, handle: h, rule: rule, decrypt: decrypt, iv: bytes.Clone(iv)}, nil
}

// UpdateSize is tokens.Sizer.
func (c *stream) UpdateSize(n int) int {
	n += len(c.kept)
	whole := n - n%c.rule.block
	if c.rule.pad && c.decrypt && whole == n {
		whole -= c.rule.block
	}
	return max(whole, 0)
}

// Update is tokens.Operation. After an error all is as it was.
func (c *stream) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	n := c.UpdateSize(len(part))
	if n == 0 {
		c.kept = secret.Append(c.kept, part)
		return nil, nil
	}
	all := slices.Concat(c.kept, part)
	defer secret.Wipe(all)
	out, err := c.crypt(ctx, all[:n])
	if err != nil {
		return nil, err
	}
	secret.Wipe(c.kept)
	c.kept = append(c.kept[:0], all[n:]...)
	return out, nil
}

// partSize is how much of a message one call has: whole blocks of each cipher.
const partSize = 1 << 14

// crypt has the server do whole blocks.
func (c *stream) crypt(ctx context.Context, in []byte) (out []byte, err error) {
	iv := c.iv
	for part := range slices.Chunk(in, partSize) {
		var done []byte
		if done, err = c.call(ctx, iv, part); err != nil {
			secret.Wipe(out)
			return nil, err
		}
		out = secret.Append(out, done)
		secret.Wipe(done)
		last := out
		if c.decrypt {
			last = part
		}
		if c.rule.mode != "ECB" {
			iv = bytes.Clone(last[len(last)-c.rule.block:])
		}
	}
	c.iv = iv
	return out, nil
}

// call is one call of the server.
func (c *stream) call(ctx context.Context, iv, in []byte) (out []byte, err error) {
	chain := make([]byte, icsfwire.ChainSize)
	r := &icsfwire.Request{Handle: c.s.uses.now(c.handle), Rules: []string{c.rule.cipher, c.rule.mode, "ONLY"}}
	if c.decrypt {
		var d icsfwire.Decrypted
		r.Data = &icsfwire.Decrypt{IV: iv, Chain: chain, Text: in, Room: len(in)}
		_, err = c.s.conn.Call(ctx, r, &d)
		out = d.Text
	} else {
		var e icsfwire.Encrypted
		r.Data = &icsfwire.Encrypt{IV: iv, Chain: chain, Text: in, Room: len(in)}
		_, err = c.s.conn.Call(ctx, r, &e)
		out = e.Text
	}
	if err == nil && len(out) != len(in) {
		secret.Wipe(out)
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is not as long as what was asked for")
	}
	return out, err
}

// Final is tokens.Operation.
func (c *stream) Final(ctx context.Context, _ []byte) ([]byte, error) {
	return c.end(ctx, c.kept)
}

// end is the result of a message of which this is left.
func (c *stream) end(ctx context.Context, in []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	wrong := p11.CKR_DATA_LEN_RANGE
	if c.decrypt {
		wrong = p11.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	if c.rule.pad && !c.decrypt {
		in = swtok.Pad7(in, c.rule.block)
		defer secret.Wipe(in)
	}
	switch {
	case len(in)%c.rule.block != 0 || c.rule.pad && len(in) == 0:
		return nil, p11.Errorf(wrong, "the data is not a multiple of %d bytes", c.rule.block)
	case len(in) == 0:
		return nil, nil
	}
	out, err := c.crypt(ctx, in)
	if err != nil || !c.rule.pad || !c.decrypt {
		return out, err
	}
	return swtok.Unpad7(out, c.rule.block)
}

// UpdateInto is tokens.Placer.
func (c *stream) UpdateInto(ctx context.Context, _, part []byte) ([]byte, error) {
	return c.Update(ctx, part)
}

// FinalInto is tokens.Placer.
func (c *stream) FinalInto(ctx context.Context, _, _ []byte) ([]byte, error) {
	return c.Final(ctx, nil)
}

// FinalSize is tokens.Placer.
func (c *stream) FinalSize() int {
	switch {
	case !c.rule.pad:
		return 0
	case c.decrypt:
		return -1
	}
	return c.rule.block
}

// WholeInto is tokens.Placer: it takes one call, unless it is long.
func (c *stream) WholeInto(ctx context.Context, _, message, _ []byte) ([]byte, error) {
	return c.end(ctx, message)
}

// Size is tokens.Operation.
func (c *stream) Size() int { return 0 }

// Close is tokens.Operation.
func (c *stream) Close() {
	if c.done {
		return
	}
	c.done = true
	secret.Wipe(c.kept)
	c.key.Release()
}
