package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A CipherOp is an encryption or decryption in progress. Whoever began it calls
// Close.
type CipherOp struct {
	operation
	token tokens.Cipher
	bound int // at least what Final may give beyond what went in
}

func encrypting() keyUse {
	return keyUse{p11.CKA_ENCRYPT, p11.CKF_ENCRYPT, "encrypt", p11.CKR_KEY_HANDLE_INVALID}
}

func decrypting() keyUse {
	return keyUse{p11.CKA_DECRYPT, p11.CKF_DECRYPT, "decrypt", p11.CKR_KEY_HANDLE_INVALID}
}

// NewEncrypt begins an encryption with the public or secret key h.
func (s *Session) NewEncrypt(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle) (*CipherOp, error) {
	return s.newCipher(ctx, m, h, encrypting(), "encryption", tokens.Token.Encrypt)
}

// NewDecrypt begins a decryption with the private or secret key h.
func (s *Session) NewDecrypt(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle) (*CipherOp, error) {
	return s.newCipher(ctx, m, h, decrypting(), "decryption", tokens.Token.Decrypt)
}

type makeCipher func(tokens.Token, context.Context, p11.Mechanism, *tokens.Object) (tokens.Cipher, error)

func (s *Session) newCipher(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle, use keyUse, what string, newCipher makeCipher) (*CipherOp, error) {
	e, err := s.key(ctx, m, h, use)
	if err != nil {
		return nil, err
	}
	defer e.release()
	t, err := newCipher(s.standing.slot.token, ctx, m, e.object)
	if err != nil {
		return nil, err
	}
	// Two cipher blocks hold padding or a tag; RSA gives a modulus at most.
	modulus, _ := e.attrs.Get(p11.CKA_MODULUS)
	o := &CipherOp{token: t, bound: max(32, len(modulus))}
	if err := o.begin(s, e, what, t); err != nil {
		return nil, err
	}
	return o, nil
}

// Update takes the next part of the data and returns what can be given of the
// result, which is the caller's. An error ends the operation.
func (o *CipherOp) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	o.parts = true
	out, err := o.token.Update(part)
	o.in, o.out = o.in+len(part), o.out+len(out)
	return out, o.returned(err)
}

// Result returns the rest of the result of the data so far. The operation goes
// on, also after an error, and what Update gives next does not follow this rest:
// the next Result, or Final, is of all the data. What tokens.Cipher says of two
// tags is the caller's to heed, and one authentication
// (CKA_ALWAYS_AUTHENTICATE) serves the whole message.
func (o *CipherOp) Result(ctx context.Context) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	out, err := o.token.Final()
	return out, o.answered(err)
}

// Final returns the rest of the result and ends the operation.
func (o *CipherOp) Final(ctx context.Context) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	defer o.stop.Store(true)
	out, err := o.token.Final()
	return out, o.returned(err)
}

// finish takes the last data and returns the rest of the result.
func (o *CipherOp) finish(ctx context.Context, data []byte) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	defer o.stop.Store(true)
	out, err := o.token.Update(data)
	if err != nil {
		return nil, o.returned(err)
	}
	rest, err := o.token.Final()
	if err != nil {
		return nil, o.returned(err)
	}
	_ = o.returned(nil)
	if len(out) == 0 {
		return rest, nil
	}
	return append(out, rest...), nil
}

// Size returns a bound of what n more bytes and Final can give together.
func (o *CipherOp) Size(n int) int {
	o.mu.Lock()
	defer o.unlock()
	return o.in - o.out + n + o.bound
}
