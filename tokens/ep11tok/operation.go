package ep11tok

import (
	"context"
	"math/big"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// An operation is one at a card. Its state is here, and goes to the card with each call, so
// that a call which failed on its way has changed nothing. What comes as a whole is one call.
type operation struct {
	t      *token
	use    p11.Flags
	m      p11.Mechanism
	key    *tokens.Object // held until Close; nil for a digest
	attrs  p11.Attributes // of key
	size   int
	block  int  // of a cipher whose output goes by blocks; 0: there is none
	back   bool // decrypts padded blocks, of which the last is held back
	gather bool // of data that cannot come in parts, all is kept

	state   []byte
	data    []byte // that was gathered
	pending int    // bytes that the card has, and has not encrypted
	err     error  // that ended it
	closed  bool
}

var (
	_ tokens.Operation   = (*operation)(nil)
	_ tokens.Resumer     = (*operation)(nil)
	_ tokens.Sizer       = (*operation)(nil)
	_ tokens.Placer      = (*operation)(nil)
	_ tokens.Keeper      = (*operation)(nil)
	_ tokens.Duplicator  = (*operation)(nil)
	_ tokens.KeyDigester = digestOperation{}
)

// maxGathered bounds the data of a mechanism that cannot have it in parts: no key signs or
// encrypts more.
const maxGathered = 4096

// maxMessage bounds a message that the card must have at once.
const maxMessage = 8 << 20

// gathers is how much data goes to the card at once.
func (o *operation) gathers() int {
	if kt, _ := o.attrs.KeyType(); kt == p11.CKK_EC_EDWARDS {
		return maxMessage
	}
	return maxGathered
}

// maxPart is what goes to the card in one call.
const maxPart = 64 << 10

// Begin is tokens.Crypto.
func (t *token) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := t.cards.May(); err != nil {
		return nil, err
	}
	if err := t.cards.learn(ctx, false); err != nil {
		return nil, err
	}
	info, err := t.cards.info(m.Type, use)
	if err != nil {
		return nil, err
	}
	facts, _ := p11.MechanismFacts(m.Type)
	o := &operation{t: t, use: use, m: m}
	if key == nil {
		o.size, o.m.Type = int(p11.HashSize(m.Type)), numbered(m.Type)
		return digestOperation{o}, nil
	}
	if o.attrs, err = key.Acquire(); err != nil {
		return nil, err
	}
	o.key = key
	if err := o.prepare(info, facts); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// prepare looks at the key.
func (o *operation) prepare(info p11.MechanismInfo, facts p11.Facts) error {
	class, _ := o.attrs.Class()
	kt, _ := o.attrs.KeyType()
	secretKey := class == p11.CKO_SECRET_KEY
	switch o.use {
	case p11.CKF_SIGN, p11.CKF_DECRYPT:
		if class != p11.CKO_PRIVATE_KEY && !secretKey {
			return p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%s wants a private key for this", o.m.Type.Short())
		}
	default:
		if class != p11.CKO_PUBLIC_KEY && !secretKey {
			return p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%s wants a public key for this", o.m.Type.Short())
		}
	}
	if blob, err := keyBlob(o.attrs); err != nil || len(blob) == 0 {
		return p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key has no blob of a card")
	}
	if bits := bitsOf(o.attrs); bits > 0 && class == p11.CKO_PRIVATE_KEY && (uint64(bits) < info.MinKeySize || uint64(bits) > info.MaxKeySize) {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%s takes keys of %d to %d bits, not %d", o.m.Type.Short(), info.MinKeySize, info.MaxKeySize, bits)
	}
	var err error
	if o.m, err = translated(o.m, o.attrs); err != nil {
		return err
	}
	encrypts := o.use == p11.CKF_ENCRYPT || o.use == p11.CKF_DECRYPT
	o.gather = facts.SinglePart || !secretKey && (encrypts || facts.Hash == 0)
	if !encrypts {
		o.size = o.signatureSize(facts)
		return nil
	}
	if secretKey {
		o.block = 8
		if kt == p11.CKK_AES {
			o.block = 16
		}
		o.back = o.use == p11.CKF_DECRYPT && (o.m.Type == p11.CKM_AES_CBC_PAD || o.m.Type == p11.CKM_DES3_CBC_PAD)
	}
	return nil
}

// bitsOf is the size of a public or private key, 0 for one that does not say it.
func bitsOf(a p11.Attributes) int {
	if n, ok := a.Get(p11.CKA_MODULUS); ok {
		return lengthIn(n)
	}
	if p, ok := a.Get(p11.CKA_PRIME); ok {
		return lengthIn(p)
	}
	if params, ok := a.Get(p11.CKA_EC_PARAMS); ok {
		if c, err := pkix.CurveOf(params); err == nil {
			return c.Bits
		}
	}
	return 0
}

// lengthIn is how many bits a number has.
func lengthIn(n []byte) int { return new(big.Int).SetBytes(n).BitLen() }

// maxSignature is the longest signature of a key that does not say how long it is.
const maxSignature = 512

// signatureSize is how long a signature or MAC is at most.
func (o *operation) signatureSize(facts p11.Facts) int {
	kt, _ := o.attrs.KeyType()
	bits := bitsOf(o.attrs)
	switch {
	case kt == p11.CKK_DSA && o.attrs.Has(p11.CKA_SUBPRIME): // which one of stock has alone
		q, _ := o.attrs.Get(p11.CKA_SUBPRIME)
		return 2 * ((lengthIn(q) + 7) / 8)
	case facts.Hash != 0 && kt != p11.CKK_DSA && kt != p11.CKK_RSA && kt != p11.CKK_EC && kt != p11.CKK_EC_EDWARDS:
		return int(p11.HashSize(facts.Hash))
	case kt == p11.CKK_AES:
		return 16
	case kt == p11.CKK_DES2 || kt == p11.CKK_DES3:
		return 8
	case bits == 0:
		return maxSignature
	case kt == p11.CKK_RSA:
		return (bits + 7) / 8
	case kt == p11.CKK_EC_EDWARDS:
		return 2 * (bits/8 + 1)
	}
	return 2 * ((bits + 7) / 8)
}

// usable says whether the operation goes on.
func (o *operation) usable(ctx context.Context) error {
	switch {
	case o.closed:
		return p11.CKR_OPERATION_NOT_INITIALIZED
	case o.err != nil:
		return o.err
	}
	return ctx.Err()
}

// call makes a call of the card with the operation's key. An error other than that of ctx
// ends the operation.
func (o *operation) call(ctx context.Context, f func(via card.Transport, target card.Target, blob []byte) error) error {
	var err error
	if o.key == nil {
		err = failed(o.t.cards.ask(ctx, func() error { return f(o.t.cards.via, o.t.cards.of(nil), nil) }), nil)
	} else {
		err = o.t.withKey(ctx, o.attrs, func(target card.Target, blob []byte) error { return f(o.t.cards.via, target, blob) })
	}
	return err
}

// ends has an error end the operation, but one of a ctx.
func (o *operation) ends(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		o.err = err
	}
	return err
}

// begin is the card's Init, once.
func (o *operation) begin(ctx context.Context) error {
	if o.state != nil {
		return nil
	}
	return o.call(ctx, func(via card.Transport, target card.Target, blob []byte) (err error) {
		switch o.use {
		case p11.CKF_DIGEST:
			o.state, err = ep11.DigestInit(ctx, via, target, o.m)
		case p11.CKF_SIGN:
			o.state, err = ep11.SignInit(ctx, via, target, o.m, blob)
		case p11.CKF_VERIFY:
			o.state, err = ep11.VerifyInit(ctx, via, target, o.m, blob)
		case p11.CKF_ENCRYPT:
			o.state, err = ep11.EncryptInit(ctx, via, target, o.m, blob)
		default:
			o.state, err = ep11.DecryptInit(ctx, via, target, o.m, blob)
		}
		return err
	})
}

// Update is tokens.Operation.
func (o *operation) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	if len(part) == 0 {
		return nil, nil // which cards refuse
	}
	if o.gather {
		if len(o.data)+len(part) > o.gathers() {
			return nil, o.ends(ctx, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the data is longer than any key of %s takes", o.m.Type.Short()))
		}
		o.data = secret.Append(o.data, part)
		return nil, nil
	}
	if err := o.begin(ctx); err != nil {
		return nil, o.ends(ctx, err)
	}
	var out []byte
	for len(part) > 0 {
		n := min(len(part), maxPart)
		x, err := o.update(ctx, part[:n])
		if err != nil {
			secret.Wipe(out)
			return nil, o.ends(ctx, err)
		}
		if out = append(out, x...); len(part) > n {
			ctx = context.WithoutCancel(ctx) // begun is done
		}
		part = part[n:]
	}
	return out, nil
}

// update gives the card one part.
func (o *operation) update(ctx context.Context, part []byte) (out []byte, err error) {
	var state []byte
	err = o.call(ctx, func(via card.Transport, target card.Target, _ []byte) (err error) {
		switch o.use {
		case p11.CKF_DIGEST:
			state, err = ep11.DigestUpdate(ctx, via, target, o.state, part)
		case p11.CKF_SIGN:
			state, err = ep11.SignUpdate(ctx, via, target, o.state, part)
		case p11.CKF_VERIFY:
			state, err = ep11.VerifyUpdate(ctx, via, target, o.state, part)
		case p11.CKF_ENCRYPT:
			state, out, err = ep11.EncryptUpdate(ctx, via, target, o.state, part)
		default:
			state, out, err = ep11.DecryptUpdate(ctx, via, target, o.state, part)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	o.state = state
	if o.block > 0 {
		o.pending += len(part) - len(out)
	}
	return out, nil
}

// Final is tokens.Operation.
func (o *operation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	return o.Result(ctx, signature)
}

// Result is tokens.Resumer: a card's Final leaves the state as it is.
func (o *operation) Result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	if o.state == nil {
		return o.single(ctx, o.data, signature)
	}
	return o.last(ctx, signature)
}

// last is the card's Final.
func (o *operation) last(ctx context.Context, signature []byte) (out []byte, err error) {
	err = o.call(ctx, func(via card.Transport, target card.Target, _ []byte) (err error) {
		switch o.use {
		case p11.CKF_DIGEST:
			out, err = ep11.DigestFinal(ctx, via, target, o.state)
		case p11.CKF_SIGN:
			out, err = ep11.SignFinal(ctx, via, target, o.state)
		case p11.CKF_VERIFY:
			if signature, err = o.fit(signature); err == nil {
				err = ep11.VerifyFinal(ctx, via, target, o.state, signature)
			}
		case p11.CKF_ENCRYPT:
			out, err = ep11.EncryptFinal(ctx, via, target, o.state)
		default:
			out, err = ep11.DecryptFinal(ctx, via, target, o.state)
		}
		return err
	})
	return out, err
}

// single is the whole operation in one call.
func (o *operation) single(ctx context.Context, data, signature []byte) (out []byte, err error) {
	err = o.call(ctx, func(via card.Transport, target card.Target, blob []byte) (err error) {
		switch o.use {
		case p11.CKF_DIGEST:
			out, err = ep11.DigestSingle(ctx, via, target, o.m, notNil(data))
		case p11.CKF_SIGN:
			out, err = ep11.SignSingle(ctx, via, target, blob, o.m, notNil(data))
		case p11.CKF_VERIFY:
			if signature, err = o.fit(signature); err == nil {
				err = ep11.VerifySingle(ctx, via, target, blob, o.m, notNil(data), signature)
			}
		case p11.CKF_ENCRYPT:
			out, err = ep11.EncryptSingle(ctx, via, target, blob, o.m, notNil(data))
		default:
			out, err = ep11.DecryptSingle(ctx, via, target, blob, o.m, notNil(data))
		}
		return err
	})
	return out, err
}

// fit refuses a signature of another length than the key's, which cards tell in several
// ways. The halves of one of ECDSA may be shorter (PKCS#11 v3.1 §6.3.1), and cards want the
// whole.
func (o *operation) fit(signature []byte) ([]byte, error) {
	n := len(signature)
	kt, _ := o.attrs.KeyType()
	switch {
	case n == o.size || bitsOf(o.attrs) == 0 && o.size == maxSignature:
		return signature, nil
	case kt == p11.CKK_EC && n > 0 && n < o.size && n%2 == 0:
		whole := make([]byte, o.size)
		copy(whole[(o.size-n)/2:], signature[:n/2])
		copy(whole[o.size-n/2:], signature[n/2:])
		return whole, nil
	}
	return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", n, o.size)
}

// notNil is data that is not a null pointer.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// UpdateInto is tokens.Placer.
func (o *operation) UpdateInto(ctx context.Context, _, part []byte) ([]byte, error) {
	return o.Update(ctx, part)
}

// FinalInto is tokens.Placer.
func (o *operation) FinalInto(ctx context.Context, _, signature []byte) ([]byte, error) {
	return o.Result(ctx, signature)
}

// FinalSize is tokens.Placer.
func (o *operation) FinalSize() int { return -1 }

// WholeInto is tokens.Placer: one call of the card, where it takes the data at once.
func (o *operation) WholeInto(ctx context.Context, _, message, signature []byte) ([]byte, error) {
	if err := o.usable(ctx); err != nil {
		return nil, err
	}
	if len(message) <= maxPart && o.state == nil && len(o.data) == 0 {
		return o.single(ctx, message, signature)
	}
	out, err := o.Update(ctx, message)
	if err != nil {
		return nil, err
	}
	rest, err := o.Result(ctx, signature)
	if err != nil {
		secret.Wipe(out)
		return nil, err
	}
	return append(out, rest...), nil
}

// UpdateSize is tokens.Sizer.
func (o *operation) UpdateSize(n int) int {
	if o.block == 0 {
		return 0
	}
	have := o.pending + n
	if o.back && n > 0 && have > 0 {
		have--
	}
	return have / o.block * o.block
}

// Size is tokens.Operation.
func (o *operation) Size() int { return o.size }

// Kept is tokens.Keeper.
func (o *operation) Kept() int {
	if !o.gather {
		return -1
	}
	return len(o.data)
}

// MayDuplicate is tokens.Duplicator.
func (o *operation) MayDuplicate() bool { return !o.closed && o.err == nil }

// Duplicate is tokens.Duplicator.
func (o *operation) Duplicate() (tokens.Operation, error) {
	d, err := o.another()
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (o *operation) another() (*operation, error) {
	if !o.MayDuplicate() {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	if o.key != nil {
		if _, err := o.key.Acquire(); err != nil {
			return nil, err
		}
	}
	d := *o
	d.state, d.data = slices.Clone(o.state), slices.Clone(o.data)
	return &d, nil
}

// Close is tokens.Operation.
func (o *operation) Close() {
	if o.closed {
		return
	}
	o.closed = true
	secret.Wipe(o.state)
	secret.Wipe(o.data)
	if o.key != nil {
		o.key.Release()
	}
}
