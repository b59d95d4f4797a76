package swtok

import (
	"bytes"
	"cmp"
	"context"
	"crypto"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// ecPublic and ecPrivate are the halves of an EC key.
type ecPublic struct {
	curve p11.Curve
	point []byte // uncompressed
	key   ECPublicKey
}

type ecPrivate struct {
	curve p11.Curve
	key   ECPrivateKey
}

// Close forgets the key; the provider's memory is the collector's.
func (k *ecPrivate) Close() {
	if c, ok := k.key.(interface{ Close() }); ok {
		c.Close()
	}
	k.key = nil
}

// curveOf finds the curve that CKA_EC_PARAMS names, which must be one that the provider
// has. A key on another stays where it is: with libcrypto it can be used.
func (c *Crypto) curveOf(params []byte) (p11.Curve, error) {
	curve, err := pkix.CurveOf(params)
	switch {
	case err == nil && curve.KeyType == p11.CKK_EC && c.provider.HasCurve(curve):
		return curve, nil
	case err == nil:
		err = p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %s is not supported by the provider %s", cmp.Or(curve.Name, curve.OID), c.provider.Name())
	}
	return curve, err
}

func (c *Crypto) attributeCurve(a p11.Attributes) (p11.Curve, error) {
	params, ok := a.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return p11.Curve{}, keyDamaged("it has no EC parameters")
	}
	return c.curveOf(params)
}

// curveSizes are the shortest and the longest of the curves that p has, in bits.
func curveSizes(p Provider) (least, most uint64) {
	for _, c := range p11.Curves() {
		if c.KeyType == p11.CKK_EC && p.HasCurve(c) {
			most = max(most, uint64(c.Bits))
			least = min(cmp.Or(least, most), uint64(c.Bits))
		}
	}
	return least, most
}

// completeEC checks a new key on a curve that is unknown to pkix.Complete, and adds its
// point.
func (c *Crypto) completeEC(a *p11.Attributes) error {
	params, ok := a.Get(p11.CKA_EC_PARAMS)
	curve, err := pkix.CurveOf(params)
	if !ok || err != nil || curve.KeyType != p11.CKK_EC || (pkix.GoArithmetic{}).HasCurve(curve) {
		return nil // pkix.Complete has more to say
	}
	var point []byte
	if given, ok := a.Get(p11.CKA_EC_POINT); ok && len(given) > 0 {
		if point, err = pkix.ECPublic(c.provider, curve, given); err != nil {
			return err
		}
	}
	if value, ok := a.Get(p11.CKA_VALUE); ok {
		scalar, own, err := pkix.ECPrivate(c.provider, curve, value)
		if err != nil {
			return err
		}
		wipe(scalar)
		if point != nil && !bytes.Equal(point, own) {
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: does not belong to the value")
		}
		point = own
	}
	if point != nil {
		a.Set(p11.CKA_EC_POINT, pkix.DERPoint(point))
	}
	return nil
}

func (c *Crypto) parseECPublic(a p11.Attributes) (*ecPublic, error) {
	curve, err := c.attributeCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_EC_POINT)
	point, err := pkix.ECPublic(c.provider, curve, value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	key, err := c.provider.NewECPublicKey(curve, point)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &ecPublic{curve, point, key}, nil
}

func (c *Crypto) parseECPrivate(a p11.Attributes) (*ecPrivate, error) {
	curve, err := c.attributeCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_VALUE)
	if c.holder != nil && c.holder.Holds(a) {
		key, err := c.holder.EC(a, curve)
		if err != nil {
			return nil, err
		}
		return &ecPrivate{curve, key}, nil
	}
	scalar, point, err := pkix.ECPrivate(c.provider, curve, value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	defer wipe(scalar)
	key, err := c.provider.NewECPrivateKey(curve, scalar, point)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &ecPrivate{curve, key}, nil
}

// sign returns r and s of the curve's size each.
func (k *ecPrivate) sign(digest []byte) (sig []byte, err error) {
	der, err := k.key.Sign(digest)
	if err == nil {
		sig, err = pkix.ECDSADERToRaw(der, 2*k.curve.Size())
	}
	switch {
	case held(err):
		return nil, err
	case err != nil:
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "ecdsa: %v", err)
	}
	return sig, nil
}

// verify checks what sign returns.
func (k *ecPublic) verify(digest, sig []byte) bool {
	der, err := pkix.ECDSARawToDER(sig)
	return err == nil && k.key.Verify(digest, der)
}

// maxDigest is the longest input of CKM_ECDSA, which is a digest: longer
// data would be cut to the leading bits of the curve's size and the rest left
// unsigned, so it is refused (PKCS#11 v3.1 §6.3.12 leaves the limit open).
const maxDigest = 66

// ecdsaOf is the family of ECDSA over data, or, if h is 0, over a digest as given.
func ecdsaOf(h crypto.Hash) family {
	begin := func() message {
		if h != 0 {
			return hashed(h)
		}
		return given(1, maxDigest, "ecdsa signs a digest of 1 to 66 bytes; ecdsa-sha256 signs data of any length")
	}
	return family{uses: uses{
		p11.CKF_SIGN: with(func(_ call, k *ecPrivate) (part, error) {
			return begin().signingSlowly(2*k.curve.Size(), func(ctx context.Context, digest []byte) ([]byte, error) {
				return k.within(ctx).sign(digest)
			})
		}),
		p11.CKF_VERIFY: with(func(_ call, k *ecPublic) (part, error) {
			n := k.curve.Size()
			return begin().verifyingForm(2*n, func(sig []byte) ([]byte, bool) { return ecdsaWhole(sig, n) }, k.verify)
		}),
	}}
}

// ecdsaWhole is a signature with r and s of n bytes each. PKCS#11 v3.1 §6.3.1: both
// may come without zeros in front, in the same length.
func ecdsaWhole(sig []byte, n int) ([]byte, bool) {
	half := len(sig) / 2
	if half == 0 || half > n || len(sig) != 2*half {
		return nil, false
	}
	return append(leftPad(sig[:half], n), leftPad(sig[half:], n)...), true
}
