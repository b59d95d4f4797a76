package swtok

import (
	"bytes"
	"context"
	"crypto"
	"crypto/subtle"
	"errors"
	"io"
	"math/big"

	"p11fs/p11"
)

// A Holder has private keys whose numbers are nobody's to see, as a chip does. The
// cryptography around them is that of any other key: padding, hashes and derivations.
type Holder interface {
	// Listed returns the row of the mechanism list as the token has it, or false for a
	// mechanism that it has not.
	Listed(p11.MechanismInfo) (p11.MechanismInfo, bool)
	// Holds says whether a private key of attributes is the holder's.
	Holds(a p11.Attributes) bool
	// RSA returns the key of attributes that the holder has. It may have a method Within.
	RSA(a p11.Attributes) (HeldRSA, error)
	// EC is RSA for a key on a curve.
	EC(a p11.Attributes, c p11.Curve) (ECPrivateKey, error)
	// Rejecter is a secret of such a key, for what stands for messages that are none.
	Rejecter(a p11.Attributes) []byte
}

// A DSAHolder is a Holder that has keys of DSA too, which then have no CKA_VALUE.
type DSAHolder interface {
	Holder
	// DSA returns the key of attributes without a value. It may have a method Within.
	DSA(a p11.Attributes) (DSAPrivateKey, error)
}

// HeldRSA is what is wanted of an RSA key: the paddings but one are made here.
type HeldRSA interface {
	// Raw and SignPKCS1 are those of RSAPrivateKey.
	Raw(in []byte) ([]byte, error)
	SignPKCS1(tbs []byte) ([]byte, error)
}

// heldKey makes an RSAPrivateKey of a held one.
type heldKey struct{ HeldRSA }

var errHeld = errors.New("the padding of a held key is made elsewhere")

func (heldKey) SignPSS(crypto.Hash, []byte, int) ([]byte, error) { return nil, errHeld }

func (heldKey) DecryptOAEP(_, _ crypto.Hash, _, _ []byte) ([]byte, error) { return nil, errHeld }

// Within gives the key up with ctx, if that can be done.
func (k heldKey) Within(ctx context.Context) RSAPrivateKey {
	if w, ok := k.HeldRSA.(interface {
		Within(ctx context.Context) HeldRSA
	}); ok {
		return heldKey{w.Within(ctx)}
	}
	return k
}

// Close forgets the key.
func (k heldKey) Close() {
	if c, ok := k.HeldRSA.(interface{ Close() }); ok {
		c.Close()
	}
}

// held says whether Raw and SignPKCS1 are all that the key has.
func (k *rsaPrivate) held() bool {
	_, ok := k.key.(heldKey)
	return ok
}

// openOAEP is RSAES-OAEP (RFC 8017 §7.1.2) over Raw, for which libraries want the key.
// That there is no message is all that is told, in a time that does not depend on why.
func (k *rsaPrivate) openOAEP(h, mgf crypto.Hash, ct, label []byte) ([]byte, error) {
	em, err := k.key.Raw(ct)
	if err != nil {
		return nil, err
	}
	defer wipe(em)
	size := h.Size()
	if len(em) < 2*size+2 {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	seed, db := em[1:1+size], em[1+size:]
	mgf1XOR(seed, mgf.New(), db)
	mgf1XOR(db, mgf.New(), seed)
	d := h.New()
	d.Write(label)
	good := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeCompare(db[:size], d.Sum(nil))
	looking, end := 1, 0
	for i, b := range db[size:] {
		one, zero := subtle.ConstantTimeByteEq(b, 1), subtle.ConstantTimeByteEq(b, 0)
		end = subtle.ConstantTimeSelect(looking&one, i, end)
		good &= 1 ^ looking&^(one|zero)
		looking &= zero
	}
	if good&^looking != 1 {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return bytes.Clone(db[size+end+1:]), nil
}

// NewHeldCrypto is NewCrypto for a token whose private keys h has.
func NewHeldCrypto(p Provider, random io.Reader, h Holder) *Crypto {
	c := NewCrypto(p, random)
	c.holder = h
	var list []p11.MechanismInfo
	for _, m := range c.list {
		info, ok := h.Listed(m)
		if !ok {
			delete(c.rows, m.Type)
			continue
		}
		c.rows[m.Type].MechanismInfo = info
		list = append(list, info)
	}
	c.list = list
	return c
}

// A HeldError is why a held key was not used: it has nothing to do with the data, and
// goes to the caller as it is.
type HeldError struct{ Err error }

func (e *HeldError) Error() string { return e.Err.Error() }

// Unwrap is for package errors.
func (e *HeldError) Unwrap() error { return e.Err }

// held says whether err is a HeldError.
func held(err error) bool {
	var h *HeldError
	return errors.As(err, &h)
}

// within returns a key whose use ends with ctx, if it is a held one.
func within(ctx context.Context, key any) any {
	switch k := key.(type) {
	case *rsaPrivate:
		return k.within(ctx)
	case *ecPrivate:
		return k.within(ctx)
	}
	return key
}

func (k *rsaPrivate) within(ctx context.Context) *rsaPrivate {
	w, ok := k.key.(interface {
		Within(ctx context.Context) RSAPrivateKey
	})
	if !ok {
		return k
	}
	bound := *k
	bound.key = w.Within(ctx)
	return &bound
}

func (k *ecPrivate) within(ctx context.Context) *ecPrivate {
	w, ok := k.key.(interface {
		Within(ctx context.Context) ECPrivateKey
	})
	if !ok {
		return k
	}
	return &ecPrivate{k.curve, w.Within(ctx)}
}

func (k *dsaPrivate) within(ctx context.Context) *dsaPrivate {
	w, ok := k.key.(interface {
		Within(ctx context.Context) DSAPrivateKey
	})
	if !ok {
		return k
	}
	return &dsaPrivate{k.group, w.Within(ctx)}
}

// heldRSA is the key of attributes that have no private numbers.
func (c *Crypto) heldRSA(a p11.Attributes) (*rsaPrivate, error) {
	key, err := c.holder.RSA(a)
	if err != nil {
		return nil, err
	}
	n, _ := a.Get(p11.CKA_MODULUS)
	return &rsaPrivate{newModulus(new(big.Int).SetBytes(n)), heldKey{key}, c.holder.Rejecter(a)}, nil
}
