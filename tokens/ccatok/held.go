package ccatok

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
	"p11fs/tokens/swtok"
)

// A holder is swtok's view of the private keys of the card.
type holder struct{ link *link }

// Listed is swtok.Holder.
func (h *holder) Listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	if info, ok := listed(m); ok && info.Flags&(p11.CKF_EC_F_P) != 0 {
		info.MinKeySize, info.MaxKeySize = max(info.MinKeySize, 160), min(info.MaxKeySize, 521)
		return info, true
	}
	return listed(m)
}

// Holds is swtok.Holder.
func (h *holder) Holds(a p11.Attributes) bool { return securekey.Secured(a) }

// tokensOf are the key tokens of an object, in the order in which they are tried: that of
// the key, and that which a change of the master key has put beside it.
func tokensOf(a p11.Attributes) (list [][]byte, err error) {
	for _, t := range []p11.AttributeType{p11.CKA_IBM_OPAQUE, p11.CKA_IBM_OPAQUE_REENC} {
		if v, ok := a.Get(t); ok && len(v) > 0 {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key has no key token of a card")
	}
	return list, nil
}

// withKey makes a call with a key token of an object.
func (l *link) withKey(ctx context.Context, a p11.Attributes, f func(via card.Transport, key []byte) error) error {
	list, err := tokensOf(a)
	if err != nil {
		return err
	}
	for _, one := range list {
		err = l.call(ctx, func(via card.Transport) error { return f(via, one) })
		if !errors.Is(err, cca.ErrToken) {
			break
		}
	}
	return err
}

// Rejecter is swtok.Holder.
func (h *holder) Rejecter(a p11.Attributes) []byte {
	blob, _ := securekey.Blob(a)
	m := hmac.New(sha256.New, blob)
	m.Write([]byte("what stands for messages that are none"))
	return m.Sum(nil)
}

// RSA is swtok.Holder.
func (h *holder) RSA(a p11.Attributes) (swtok.HeldRSA, error) {
	return &heldRSA{link: h.link, attrs: a.Clone()}, nil
}

// EC is swtok.Holder.
func (h *holder) EC(a p11.Attributes, _ p11.Curve) (swtok.ECPrivateKey, error) {
	return &heldEC{link: h.link, attrs: a.Clone()}, nil
}

// held gives an error of the card to the caller as it is.
func held(err error) error {
	if err == nil {
		return nil
	}
	return &swtok.HeldError{Err: err}
}

func within(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// A heldRSA is an RSA key; ctx is nil until Within.
type heldRSA struct {
	link  *link
	attrs p11.Attributes
	ctx   context.Context // of one call
}

// Within gives the key to a call.
func (k *heldRSA) Within(ctx context.Context) swtok.HeldRSA { return &heldRSA{k.link, k.attrs, ctx} }

// Close forgets the key.
func (k *heldRSA) Close() { k.attrs.Wipe() }

// Raw is swtok.HeldRSA.
func (k *heldRSA) Raw(in []byte) (out []byte, err error) {
	ctx := within(k.ctx)
	err = k.link.withKey(ctx, k.attrs, func(via card.Transport, key []byte) (err error) {
		out, err = cca.CSNDPKD(ctx, via, nil, cca.Rules{"ZERO-PAD"}.Bytes(), in, key)
		return err
	})
	if err == nil && len(out) != len(in) {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card gives %d bytes, not %d", len(out), len(in))
	}
	return out, held(err)
}

// SignPKCS1 is swtok.HeldRSA.
func (k *heldRSA) SignPKCS1(tbs []byte) (out []byte, err error) {
	ctx := within(k.ctx)
	err = k.link.withKey(ctx, k.attrs, func(via card.Transport, key []byte) (err error) {
		out, err = cca.CSNDDSG(ctx, via, nil, cca.Rules{"PKCS-1.1"}.Bytes(), key, tbs)
		return err
	})
	return out, held(err)
}

// A heldEC is a key on a curve.
type heldEC struct {
	link  *link
	attrs p11.Attributes
	ctx   context.Context // of one call
}

// Within gives the key to a call.
func (k *heldEC) Within(ctx context.Context) swtok.ECPrivateKey {
	return &heldEC{k.link, k.attrs, ctx}
}

// Close forgets the key.
func (k *heldEC) Close() { k.attrs.Wipe() }

// Sign is swtok.ECPrivateKey.
func (k *heldEC) Sign(digest []byte) (der []byte, err error) {
	ctx := within(k.ctx)
	var raw []byte
	err = k.link.withKey(ctx, k.attrs, func(via card.Transport, key []byte) (err error) {
		raw, err = cca.CSNDDSG(ctx, via, nil, cca.Rules{"ECDSA"}.Bytes(), key, digest)
		return err
	})
	if err != nil {
		return nil, held(err)
	}
	if der, err = pkix.ECDSARawToDER(raw); err != nil {
		return nil, held(p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's signature is none"))
	}
	return der, nil
}

// ECDH is swtok.ECPrivateKey: the card gives nobody a secret that is no key.
func (k *heldEC) ECDH([]byte) ([]byte, error) {
	return nil, held(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the card agrees on keys alone"))
}
