package swtok

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"

	"github.com/cloudflare/circl/dh/x448"
	"github.com/cloudflare/circl/sign/ed448"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// The curves of RFC 7748 and RFC 8032 are Go's and circl's with both providers: see the
// README.

// An edwardsPublic is a public key of EdDSA.
type edwardsPublic struct {
	curve p11.Curve
	point []byte
}

// An edwardsPrivate is a private key of EdDSA: the seed and the point, as both libraries
// have it.
type edwardsPrivate struct {
	curve p11.Curve
	key   []byte
}

// Close wipes the key.
func (k *edwardsPrivate) Close() { wipe(k.key) }

// A montgomeryPublic is a public key of X25519 or X448.
type montgomeryPublic struct {
	curve p11.Curve
	point []byte
}

// A montgomeryPrivate is a private key of X25519 or X448.
type montgomeryPrivate struct {
	curve p11.Curve
	value []byte // the object's own memory, which lives as long as the memo
}

// Close forgets the value.
func (k *montgomeryPrivate) Close() { k.value = nil }

// parseOctet makes the key of type kt of an object's attributes.
func parseOctet(kt p11.KeyType, public bool, a p11.Attributes) (any, error) {
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	c, err := pkix.OctetCurve(kt, params)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	if public {
		value, _ := a.Get(p11.CKA_EC_POINT)
		point, err := pkix.OctetPoint(c, value)
		switch {
		case err != nil:
			return nil, keyDamaged("%v", err)
		case kt == p11.CKK_EC_MONTGOMERY:
			return &montgomeryPublic{c, bytes.Clone(point)}, nil
		}
		return &edwardsPublic{c, bytes.Clone(point)}, nil
	}
	value, _ := a.Get(p11.CKA_VALUE)
	point, err := pkix.OctetPublic(c, value)
	switch {
	case err != nil:
		return nil, keyDamaged("%v", err)
	case kt == p11.CKK_EC_MONTGOMERY:
		return &montgomeryPrivate{c, value}, nil
	}
	key := make([]byte, 0, len(value)+len(point))
	return &edwardsPrivate{c, append(append(key, value...), point...)}, nil
}

// generateOctet is the family of CKM_EC_EDWARDS_KEY_PAIR_GEN and
// CKM_EC_MONTGOMERY_KEY_PAIR_GEN: a private key is random bytes (RFC 8032 §5.1.5, §5.2.5;
// RFC 7748 §6).
func generateOctet(kt p11.KeyType) family {
	return family{makes: kt, generatePair: func(_ context.Context, _ call, public, private *p11.Attributes) error {
		params, ok := public.Get(p11.CKA_EC_PARAMS)
		if !ok {
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
		}
		c, err := pkix.OctetCurve(kt, params)
		if err != nil {
			return err
		}
		value := make([]byte, c.KeySize())
		if _, err := rand.Read(value); err != nil {
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an EC key: %v", err)
		}
		point, err := pkix.OctetPublic(c, value)
		if err != nil {
			wipe(value)
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an EC key: %v", err)
		}
		public.Set(p11.CKA_EC_PARAMS, c.Params())
		public.Set(p11.CKA_EC_POINT, pkix.DERPoint(point))
		private.Set(p11.CKA_EC_PARAMS, c.Params())
		private.Set(p11.CKA_VALUE, value)
		return nil
	}}
}

// eddsa is the family of CKM_EDDSA (PKCS#11 v3.1 §6.3.14).
func eddsa() family {
	return family{uses: uses{
		p11.CKF_SIGN: with(func(u call, k *edwardsPrivate) (part, error) {
			s, err := schemeOf(u, k.curve)
			if err != nil {
				return nil, err
			}
			return s.message().signing(2*k.curve.KeySize(), func(data []byte) ([]byte, error) { return s.sign(k.key, data) })
		}),
		p11.CKF_VERIFY: with(func(u call, k *edwardsPublic) (part, error) {
			s, err := schemeOf(u, k.curve)
			if err != nil {
				return nil, err
			}
			return s.message().verifying(2*k.curve.KeySize(), func(data, sig []byte) bool { return s.verify(k.point, data, sig) })
		}),
	}}
}

// An edwardsScheme is one of the five of RFC 8032.
type edwardsScheme struct {
	ed448   bool
	prehash bool
	context string
}

// schemeOf is the scheme that the parameter and the curve name. A parameter without a
// prehash and a context is none: of Ed25519ctx with an empty context RFC 8032 §5.1 says
// that nobody should use it, and libraries do not.
func schemeOf(u call, c p11.Curve) (edwardsScheme, error) {
	s := edwardsScheme{ed448: c.Name == "ed448"}
	if u.m.Param != nil {
		p, err := param[*p11.EdDSAParams](u)
		if err != nil {
			return s, err
		}
		s.prehash, s.context = p.Prehash, string(p.Context)
	}
	return s, nil
}

// message is what is signed: EdDSA goes over it twice, so that it is kept whole, but for
// Ed25519ph. The prehash of Ed448 is in the library.
func (s edwardsScheme) message() message {
	if s.prehash && !s.ed448 {
		return hashed(crypto.SHA512)
	}
	return given(0, maxHeld, "eddsa signs at most 64 MiB; ed25519 with ph=true signs data of any length")
}

// options are those of crypto/ed25519.
func (s edwardsScheme) options() *ed25519.Options {
	o := &ed25519.Options{Context: s.context}
	if s.prehash {
		o.Hash = crypto.SHA512
	}
	return o
}

func (s edwardsScheme) sign(key, data []byte) ([]byte, error) {
	switch {
	case !s.ed448:
		sig, err := ed25519.PrivateKey(key).Sign(nil, data, s.options())
		if err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "eddsa: %v", err)
		}
		return sig, nil
	case s.prehash:
		return ed448.SignPh(key, data, s.context), nil
	}
	return ed448.Sign(key, data, s.context), nil
}

func (s edwardsScheme) verify(point, data, sig []byte) bool {
	switch {
	case !s.ed448:
		return ed25519.VerifyWithOptions(point, data, sig, s.options()) == nil
	case s.prehash:
		return ed448.VerifyPh(point, data, sig, s.context)
	}
	return ed448.Verify(point, data, sig, s.context)
}

// agree is ecAgreer. A shared secret of zeros, which the other side could force whatever
// the key, is refused (RFC 7748 §6.1, §6.2).
func (k *montgomeryPrivate) agree(_ Provider, public []byte) ([]byte, error) {
	point, err := pkix.OctetPoint(k.curve, public)
	if err != nil {
		return nil, err
	}
	if k.curve.Name == "x448" {
		var z, scalar, other x448.Key
		copy(scalar[:], k.value)
		copy(other[:], point)
		defer wipe(scalar[:])
		if !x448.Shared(&z, &scalar, &other) {
			return nil, errLowOrder
		}
		return z[:], nil
	}
	private, err := ecdh.X25519().NewPrivateKey(k.value)
	if err != nil {
		return nil, err
	}
	other, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return private.ECDH(other)
}

// pointSize is ecAgreer.
func (k *montgomeryPrivate) pointSize([]byte) int { return k.curve.KeySize() }

// meet is ecPeer.
func (k *montgomeryPublic) meet(p Provider) (point, secret []byte, err error) {
	once := &montgomeryPrivate{k.curve, make([]byte, k.curve.KeySize())}
	defer wipe(once.value)
	if _, err := rand.Read(once.value); err != nil {
		return nil, nil, err
	}
	if point, err = pkix.OctetPublic(k.curve, once.value); err != nil {
		return nil, nil, err
	}
	secret, err = once.agree(p, k.point)
	return point, secret, err
}

var errLowOrder = errors.New("a point of low order")
