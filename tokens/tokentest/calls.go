package tokentest

import (
	"context"
	"fmt"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// Calls puts the operations of a token's cryptography into the forms that tests
// read best. They hold no context: tests have no use for one.
type Calls struct{ tokens.Crypto }

// begin is Begin after the checks of Check, if the token has the mechanism for the
// use.
func (c Calls) begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	for _, info := range c.Mechanisms() {
		if info.Type != m.Type || info.Flags&use == 0 {
			continue
		}
		if err := Check(m, key); err != nil {
			return nil, err
		}
	}
	return c.Begin(ctx, use, m, key)
}

// Check checks what the engine checks before it asks a token's Crypto: the
// parameter, and the type of the key, if there is one.
func Check(m p11.Mechanism, key *tokens.Object) error {
	if key != nil {
		attrs, err := key.Acquire()
		if err != nil {
			return err
		}
		defer key.Release()
		facts, _ := p11.MechanismFacts(m.Type)
		if kt, ok := attrs.KeyType(); ok && facts.KeyTypes != nil && !slices.Contains(facts.KeyTypes, kt) {
			return p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%s takes no %s key", m.Type.Short(), kt.Short())
		}
	}
	return m.Validate()
}

// A Digest is a digest in progress.
type Digest struct{ tokens.Operation }

// A Signature is a signature or MAC in progress.
type Signature struct{ tokens.Operation }

// A Verification is the check of one.
type Verification struct{ tokens.Operation }

// A Cipher is an encryption or decryption in progress.
type Cipher struct{ tokens.Operation }

// Digest begins a digest.
func (c Calls) Digest(ctx context.Context, m p11.Mechanism) (Digest, error) {
	o, err := c.begin(ctx, p11.CKF_DIGEST, m, nil)
	return Digest{o}, err
}

// Sign begins a signature.
func (c Calls) Sign(ctx context.Context, m p11.Mechanism, key *tokens.Object) (Signature, error) {
	o, err := c.begin(ctx, p11.CKF_SIGN, m, key)
	return Signature{o}, err
}

// Verify begins the check of a signature.
func (c Calls) Verify(ctx context.Context, m p11.Mechanism, key *tokens.Object) (Verification, error) {
	o, err := c.begin(ctx, p11.CKF_VERIFY, m, key)
	return Verification{o}, err
}

// Encrypt begins an encryption.
func (c Calls) Encrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (Cipher, error) {
	o, err := c.begin(ctx, p11.CKF_ENCRYPT, m, key)
	return Cipher{o}, err
}

// Decrypt begins a decryption.
func (c Calls) Decrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (Cipher, error) {
	o, err := c.begin(ctx, p11.CKF_DECRYPT, m, key)
	return Cipher{o}, err
}

// SignRecover signs data so that the signature holds it.
func (c Calls) SignRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	return c.recover(ctx, p11.CKF_SIGN_RECOVER, m, key, data)
}

// VerifyRecover returns the data that a signature holds.
func (c Calls) VerifyRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, signature []byte) ([]byte, error) {
	return c.recover(ctx, p11.CKF_VERIFY_RECOVER, m, key, signature)
}

func (c Calls) recover(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	o, err := c.begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if _, err := o.Update(ctx, data); err != nil {
		return nil, err
	}
	return o.Final(ctx, nil)
}

// Update takes the next part of the data.
func (d Digest) Update(part []byte) error { return update(d.Operation, part) }

// DigestKey takes a key's value as the next part.
func (d Digest) DigestKey(key *tokens.Object) error {
	return d.Operation.(tokens.KeyDigester).DigestKey(context.Background(), key)
}

// Update takes the next part of the data.
func (s Signature) Update(part []byte) error { return update(s.Operation, part) }

// Update takes the next part of the data.
func (v Verification) Update(part []byte) error { return update(v.Operation, part) }

func update(o tokens.Operation, part []byte) error {
	_, err := o.Update(context.Background(), part)
	return err
}

// Update takes the next part of the data and returns the output.
func (c Cipher) Update(part []byte) ([]byte, error) {
	z, sizes := c.Operation.(tokens.Sizer)
	said := 0
	if sizes {
		said = z.UpdateSize(len(part))
	}
	out, err := c.Operation.Update(context.Background(), part)
	if err == nil && sizes && len(out) != said {
		return nil, fmt.Errorf("Update of %d bytes gives %d, and UpdateSize said %d", len(part), len(out), said)
	}
	return out, err
}

// Final returns the digest, and leaves a digest that can go on as it was.
func (d Digest) Final() ([]byte, error) { return result(d.Operation, nil) }

// Final returns the signature, and leaves one that can go on as it was.
func (s Signature) Final() ([]byte, error) { return result(s.Operation, nil) }

// Final checks a signature, and leaves a check that can go on as it was.
func (v Verification) Final(signature []byte) error {
	_, err := result(v.Operation, signature)
	return err
}

// Final returns the rest of the output, and leaves a cipher that can go on as it
// was.
func (c Cipher) Final() ([]byte, error) { return result(c.Operation, nil) }

func result(o tokens.Operation, signature []byte) ([]byte, error) {
	if r, ok := o.(tokens.Resumer); ok {
		return r.Result(context.Background(), signature)
	}
	return o.Final(context.Background(), signature)
}

// goesOn tells whether an operation gives a result and goes on.
func goesOn(o tokens.Operation) bool {
	_, ok := o.(tokens.Resumer)
	return ok
}
