package swtok

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/binary"
	"fmt"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// ecPublic and ecPrivate are the halves of an EC key.
type ecPublic struct {
	curve p11.Curve
	key   ECPublicKey
}

type ecPrivate struct {
	curve p11.Curve
	key   ECPrivateKey
}

// Close forgets the key; the provider's memory is the collector's.
func (k *ecPrivate) Close() { k.key = nil }

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
	return &ecPublic{curve, key}, nil
}

func (c *Crypto) parseECPrivate(a p11.Attributes) (*ecPrivate, error) {
	curve, err := c.attributeCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_VALUE)
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
	if err != nil {
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
			return begin().signing(2*k.curve.Size(), k.sign)
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

// An ecAgreer is a private key that agrees on secrets with another's public key, which
// comes as CKA_EC_POINT or bare. An error is about that.
type ecAgreer interface {
	agree(p Provider, public []byte) (secret []byte, err error)
}

func (k *ecPrivate) agree(p Provider, public []byte) ([]byte, error) {
	point, err := pkix.ECPublic(p, k.curve, public)
	if err != nil {
		return nil, err
	}
	z, err := k.key.ECDH(point)
	if err != nil {
		return nil, fmt.Errorf("no point of %s", k.curve.Name)
	}
	return z, nil
}

// ecdh1 is the family of CKM_ECDH1_DERIVE (PKCS#11 v3.1 §6.3.17). With cofactor 1,
// which all curves here have, CKM_ECDH1_COFACTOR_DERIVE is the same.
func ecdh1() family {
	return family{derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
		p, err := param[*p11.ECDH1Params](u)
		if err != nil {
			return nil, err
		}
		h, _ := p11.HashOf(p.KDF.HashOf())
		if p.KDF != p11.CKD_NULL && h.Go == 0 {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the key derivation function %s is not supported", p.KDF)
		}
		k, err := keyOf[ecAgreer](base)
		if err != nil {
			return nil, err
		}
		z, err := k.agree(u.provider, p.PublicData)
		if err != nil {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public: %v", err)
		}
		defer wipe(z)
		return stretch(z, h.Go, p.KDF == h.SP800, p.SharedData, n, kt)
	}}
}

// stretch makes the key of n bytes, or of the natural length if n is negative,
// from the shared secret: without a hash by removing bytes from its leading
// end, with one by ANSI X9.63 (SEC 1 §3.6.1), or, with the counter in front, by the
// one-step derivation of NIST SP 800-56C rev. 2 §4.
func stretch(z []byte, h crypto.Hash, counterFirst bool, shared []byte, n int, kt p11.KeyType) ([]byte, error) {
	natural := len(z)
	if h != 0 {
		natural = h.Size()
	}
	if n < 0 {
		if !p11.FitsKey(kt, uint64(natural)) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len")
		}
		n = natural
	}
	if h == 0 {
		if n > len(z) {
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the shared secret has %d bytes, fewer than value-len", len(z))
		}
		return bytes.Clone(z[len(z)-n:]), nil
	}
	out := make([]byte, 0, n+h.Size())
	d := h.New()
	var counter [4]byte
	for i := uint32(1); len(out) < n; i++ {
		d.Reset()
		binary.BigEndian.PutUint32(counter[:], i)
		if counterFirst {
			d.Write(counter[:])
		}
		d.Write(z)
		if !counterFirst {
			d.Write(counter[:])
		}
		d.Write(shared)
		out = d.Sum(out)
	}
	wipe(out[n:])
	return out[:n:n], nil
}
