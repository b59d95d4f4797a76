package ccatok

import (
	"bytes"
	"context"
	"crypto/hmac"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
	"p11fs/tokens/swtok"
)

// maxPart is what goes to the card in one call.
const maxPart = 64 << 10

// A way is what an operation does with whole blocks, and at the end. It has a state of its
// own, which changes only where a call was good.
type way interface {
	// blocks takes whole blocks.
	blocks(ctx context.Context, o *operation, in []byte) ([]byte, error)
	// last takes what is left, and leaves the state as it is.
	last(ctx context.Context, o *operation, in []byte) ([]byte, error)
	// keeps is how much of n bytes stays for last.
	keeps(n, block int) int
	clone() way
}

// An operation is one with a secret key of the card. The card keeps nothing of it.
type operation struct {
	link   *link
	use    p11.Flags
	key    *tokens.Object // held until Close
	attrs  p11.Attributes // of key
	block  int
	most   int // bytes of a message that goes to the card at once; 0 for any
	size   int // of a MAC
	way    way
	rest   []byte // that came and did not go to the card yet
	err    error  // that ended it
	closed bool
}

var (
	_ tokens.Operation  = (*operation)(nil)
	_ tokens.Resumer    = (*operation)(nil)
	_ tokens.Sizer      = (*operation)(nil)
	_ tokens.Duplicator = (*operation)(nil)
)

// Begin is tokens.Crypto: operations with secret keys of the card are here, and signatures
// of EdDSA; the others are swtok's.
func (t *token) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	if key == nil {
		return t.Crypto.Begin(ctx, use, m, key)
	}
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	class, _ := a.Class()
	if kt, _ := a.KeyType(); !securekey.Secured(a) || class != p11.CKO_SECRET_KEY && kt != p11.CKK_EC_EDWARDS {
		key.Release()
		return t.Crypto.Begin(ctx, use, m, key)
	}
	o := &operation{link: t.link, use: use, key: key, attrs: a}
	if err := t.prepare(o, m); err != nil {
		key.Release()
		return nil, err
	}
	return o, nil
}

func (t *token) prepare(o *operation, m p11.Mechanism) error {
	if !slices.ContainsFunc(t.Mechanisms(), func(info p11.MechanismInfo) bool { return info.Type == m.Type && info.Flags&o.use != 0 }) {
		return p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token has no mechanism %s for this", m.Type.Short())
	}
	if err := t.link.May(); err != nil {
		return err
	}
	switch m.Type {
	case p11.CKM_AES_GCM:
		o.most = maxWhole
		w, err := newGCM(m, o.use == p11.CKF_DECRYPT)
		o.way = w
		return err
	case p11.CKM_EDDSA:
		params, _ := o.attrs.Get(p11.CKA_EC_PARAMS)
		c, err := pkix.OctetCurve(p11.CKK_EC_EDWARDS, params)
		if err != nil {
			return err
		}
		o.most, o.size = maxWhole, 2*c.KeySize()
		o.way, err = newEdDSA(m)
		return err
	}
	if h, word, general, ok := macOf(m.Type); ok {
		o.block, o.size = h.Go.New().BlockSize(), int(p11.HashSize(h.Type))
		if n, isLength := m.Param.(p11.MACLength); general && isLength {
			o.size = int(n)
		} else if general {
			return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", m.Type.Short())
		}
		o.way = &mac{hash: word, size: o.size}
		return nil
	}
	iv, _ := m.Param.(p11.IV)
	c := &blocks{decrypt: o.use == p11.CKF_DECRYPT, iv: bytes.Clone(iv)}
	o.block = 8
	switch m.Type {
	case p11.CKM_AES_ECB:
		c.aes, c.ecb, o.block = true, true, 16
	case p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD:
		c.aes, o.block = true, 16
	}
	c.pad = m.Type == p11.CKM_AES_CBC_PAD || m.Type == p11.CKM_DES_CBC_PAD || m.Type == p11.CKM_DES3_CBC_PAD
	if !c.ecb && len(c.iv) != o.block {
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s takes an initialisation vector of %d bytes", m.Type.Short(), o.block)
	}
	o.way = c
	return nil
}

func (o *operation) usable(ctx context.Context) error {
	switch {
	case o.closed:
		return p11.CKR_OPERATION_NOT_INITIALIZED
	case o.err != nil:
		return o.err
	}
	return ctx.Err()
}

// Update is tokens.Operation.
func (o *operation) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	have := len(o.rest) + len(part)
	if o.most > 0 && have > o.most {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the card takes such a message at once, and at most %d MiB of it", o.most>>20)
	}
	n := have - o.way.keeps(have, o.block)
	if n == 0 {
		o.rest = secret.Append(o.rest, part)
		return nil, nil
	}
	in := secret.Append(bytes.Clone(o.rest), part)
	defer secret.Wipe(in)
	var out []byte
	for i, chunk := range slices.Collect(slices.Chunk(in[:n], maxPart)) {
		if i > 0 {
			ctx = context.WithoutCancel(ctx) // begun is done
		}
		x, err := o.way.blocks(ctx, o, chunk)
		if err != nil {
			secret.Wipe(out)
			if i > 0 || ctx.Err() == nil {
				o.err = err
			}
			return nil, err
		}
		out = append(out, x...)
	}
	secret.Wipe(o.rest)
	o.rest = append(o.rest[:0], in[n:]...)
	return out, nil
}

// Final is tokens.Operation.
func (o *operation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	return o.Result(ctx, signature)
}

// Result is tokens.Resumer.
func (o *operation) Result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	if o.use == p11.CKF_VERIFY && len(signature) != o.size {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(signature), o.size)
	}
	out, err := o.way.last(ctx, o, o.rest)
	switch {
	case err != nil:
		return nil, err
	case o.use != p11.CKF_VERIFY:
		return out, nil
	case !hmac.Equal(out, signature):
		return nil, p11.CKR_SIGNATURE_INVALID
	}
	return nil, nil
}

// UpdateSize is tokens.Sizer.
func (o *operation) UpdateSize(n int) int {
	if o.size > 0 {
		return 0
	}
	have := len(o.rest) + n
	return have - o.way.keeps(have, o.block)
}

// Size is tokens.Operation.
func (o *operation) Size() int { return o.size }

// MayDuplicate is tokens.Duplicator.
func (o *operation) MayDuplicate() bool { return !o.closed && o.err == nil }

// Duplicate is tokens.Duplicator.
func (o *operation) Duplicate() (tokens.Operation, error) {
	if !o.MayDuplicate() {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	if _, err := o.key.Acquire(); err != nil {
		return nil, err
	}
	d := *o
	d.rest, d.way = bytes.Clone(o.rest), o.way.clone()
	return &d, nil
}

// Close is tokens.Operation.
func (o *operation) Close() {
	if o.closed {
		return
	}
	o.closed = true
	secret.Wipe(o.rest)
	o.key.Release()
}

// blocks is a cipher of whole blocks. The next iv is the last block of ciphertext.
type blocks struct {
	aes, ecb, pad, decrypt bool
	iv                     []byte
}

func (c *blocks) clone() way {
	d := *c
	d.iv = bytes.Clone(c.iv)
	return &d
}

// keeps a block that is not whole; decrypting padded blocks, the last one.
func (c *blocks) keeps(n, block int) int {
	rest := n % block
	if c.pad && c.decrypt && rest == 0 && n > 0 {
		rest = block
	}
	return rest
}

func (c *blocks) crypt(ctx context.Context, o *operation, in []byte) (out []byte, err error) {
	err = o.link.withKey(ctx, o.attrs, func(via card.Transport, key []byte) (err error) {
		rules := cca.Rules{"AES", "KEYIDENT", "INITIAL"}
		if c.ecb {
			rules = cca.Rules{"AES", "ECB", "KEYIDENT", "INITIAL"}
		}
		switch {
		case c.aes && c.decrypt:
			out, err = cca.CSNBSAD(ctx, via, nil, rules.Bytes(), key, nil, c.iv, in, nil)
		case c.aes:
			_, out, err = cca.CSNBSAE(ctx, via, nil, rules.Bytes(), key, 0, c.iv, in, nil)
		case c.decrypt:
			out, err = cca.CSNBDEC(ctx, via, nil, key, in, c.iv, cca.Rules{"CBC"}.Bytes())
		default:
			out, err = cca.CSNBENC(ctx, via, nil, key, in, c.iv, cca.Rules{"CBC"}.Bytes())
		}
		return err
	})
	if err == nil && len(out) != len(in) {
		secret.Wipe(out)
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card gives %d bytes, not %d", len(out), len(in))
	}
	return out, err
}

func (c *blocks) blocks(ctx context.Context, o *operation, in []byte) ([]byte, error) {
	out, err := c.crypt(ctx, o, in)
	if err != nil || c.ecb {
		return out, err
	}
	last := out
	if c.decrypt {
		last = in
	}
	c.iv = bytes.Clone(last[len(last)-o.block:])
	return out, nil
}

func (c *blocks) last(ctx context.Context, o *operation, in []byte) ([]byte, error) {
	length := p11.CKR_DATA_LEN_RANGE
	if c.decrypt {
		length = p11.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	switch {
	case !c.pad && len(in) == 0:
		return nil, nil
	case !c.pad || c.decrypt && len(in) != o.block:
		return nil, p11.Errorf(length, "the data is not a multiple of %d bytes", o.block)
	case c.decrypt:
		out, err := c.crypt(ctx, o, in)
		if err != nil {
			return nil, err
		}
		return swtok.Unpad7(out, o.block)
	}
	padded := swtok.Pad7(in, o.block)
	defer secret.Wipe(padded)
	return c.crypt(ctx, o, padded)
}

// mac is an HMAC, whose state goes to the card and back in a chaining vector.
type mac struct {
	hash  string
	size  int
	chain []byte // nil before the first part
}

// chainSize is the length of a chaining vector.
const chainSize = 128

func (c *mac) clone() way {
	d := *c
	d.chain = bytes.Clone(c.chain)
	return &d
}

func (c *mac) keeps(n, block int) int { return n % block }

func (c *mac) step(ctx context.Context, o *operation, first, other string, in []byte) (next, out []byte, err error) {
	word, chain := other, c.chain
	if chain == nil {
		word, chain = first, make([]byte, chainSize)
	}
	err = o.link.withKey(ctx, o.attrs, func(via card.Transport, key []byte) (err error) {
		next, out, err = cca.CSNBHMG(ctx, via, nil, cca.Rules{"HMAC", c.hash, word}.Bytes(), key, in, chain)
		return err
	})
	return next, out, err
}

func (c *mac) blocks(ctx context.Context, o *operation, in []byte) ([]byte, error) {
	next, _, err := c.step(ctx, o, "FIRST", "MIDDLE", in)
	if err == nil {
		c.chain = next
	}
	return nil, err
}

func (c *mac) last(ctx context.Context, o *operation, in []byte) ([]byte, error) {
	_, out, err := c.step(ctx, o, "ONLY", "LAST", in)
	if err == nil && (len(out) < c.size || c.size == 0) {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's MAC has %d bytes", len(out))
	}
	if err != nil {
		return nil, err
	}
	return out[:c.size], nil
}
