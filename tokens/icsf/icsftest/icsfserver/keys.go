package icsfserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/icsf/icsfwire"
)

func numberOf(a p11.Attributes, t p11.AttributeType) *big.Int {
	b, _ := a.Get(t)
	return new(big.Int).SetBytes(b)
}

// check says whether a key can be used: that it parses.
func (o *object) check() error {
	class, _ := o.attrs.Class()
	kt, _ := o.attrs.KeyType()
	var err error
	switch {
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_RSA:
		_, err = o.rsaPublic()
	case class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_RSA:
		_, err = o.rsaPrivate()
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_EC:
		_, err = o.ecPublic()
	case class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_EC:
		_, err = o.ecPrivate()
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_DSA:
		_, err = o.dsaPublic()
	case class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_DSA:
		_, err = o.dsaPrivate()
	case kt == p11.CKK_DH && (class == p11.CKO_PUBLIC_KEY || class == p11.CKO_PRIVATE_KEY):
		err = o.has(p11.CKA_PRIME, p11.CKA_BASE, p11.CKA_VALUE)
	case class == p11.CKO_SECRET_KEY:
		if err = o.has(p11.CKA_VALUE); err == nil {
			value, _ := o.attrs.Get(p11.CKA_VALUE)
			if !p11.FitsKey(kt, uint64(len(value))) {
				err = refused(badValue)
			}
		}
	}
	return err
}

// has says whether an object has all attributes of a list.
func (o *object) has(list ...p11.AttributeType) error {
	for _, t := range list {
		if !o.attrs.Has(t) {
			return refused(incomplete)
		}
	}
	return nil
}

func (o *object) is(class p11.ObjectClass, kt p11.KeyType) error {
	c, _ := o.attrs.Class()
	k, _ := o.attrs.KeyType()
	if c != class || k != kt {
		return refused(wrongType)
	}
	return nil
}

func (o *object) rsaPublic() (*rsa.PublicKey, error) {
	if err := o.is(p11.CKO_PUBLIC_KEY, p11.CKK_RSA); err != nil {
		return nil, err
	}
	k := &rsa.PublicKey{N: numberOf(o.attrs, p11.CKA_MODULUS), E: int(numberOf(o.attrs, p11.CKA_PUBLIC_EXPONENT).Int64())}
	if k.N.BitLen() < 512 || k.E < 3 {
		return nil, refused(incomplete)
	}
	return k, nil
}

func (o *object) rsaPrivate() (*rsa.PrivateKey, error) {
	if err := o.is(p11.CKO_PRIVATE_KEY, p11.CKK_RSA); err != nil {
		return nil, err
	}
	if err := o.has(p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2); err != nil {
		return nil, err
	}
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: numberOf(o.attrs, p11.CKA_MODULUS), E: int(numberOf(o.attrs, p11.CKA_PUBLIC_EXPONENT).Int64())},
		D:         numberOf(o.attrs, p11.CKA_PRIVATE_EXPONENT),
		Primes:    []*big.Int{numberOf(o.attrs, p11.CKA_PRIME_1), numberOf(o.attrs, p11.CKA_PRIME_2)},
	}
	if err := k.Validate(); err != nil {
		return nil, refused(badValue)
	}
	k.Precompute()
	return k, nil
}

func (o *object) curve() (elliptic.Curve, error) {
	params, _ := o.attrs.Get(p11.CKA_EC_PARAMS)
	c, err := pkix.CurveOf(params)
	if err != nil || c.Elliptic == nil {
		return nil, refused(badValue)
	}
	return c.Elliptic, nil
}

func (o *object) ecPublic() (*ecdsa.PublicKey, error) {
	if err := o.is(p11.CKO_PUBLIC_KEY, p11.CKK_EC); err != nil {
		return nil, err
	}
	c, err := o.curve()
	if err != nil {
		return nil, err
	}
	point, _ := o.attrs.Get(p11.CKA_EC_POINT)
	if in, inner := cryptobyte.String(point), (cryptobyte.String)(nil); in.ReadASN1(&inner, asn1.OCTET_STRING) && in.Empty() {
		point = inner
	}
	k, err := ecdsa.ParseUncompressedPublicKey(c, point)
	if err != nil {
		return nil, refused(badValue)
	}
	return k, nil
}

func (o *object) ecPrivate() (*ecdsa.PrivateKey, error) {
	if err := o.is(p11.CKO_PRIVATE_KEY, p11.CKK_EC); err != nil {
		return nil, err
	}
	c, err := o.curve()
	if err != nil {
		return nil, err
	}
	value, _ := o.attrs.Get(p11.CKA_VALUE)
	k, err := ecdsa.ParseRawPrivateKey(c, new(big.Int).SetBytes(value).FillBytes(make([]byte, (c.Params().N.BitLen()+7)/8)))
	if err != nil {
		return nil, refused(badValue)
	}
	return k, nil
}

// secretLength is how many bytes a secret key of a template has.
func secretLength(a p11.Attributes) (int, error) {
	kt, _ := a.KeyType()
	n, given := a.Ulong(p11.CKA_VALUE_LEN)
	switch lengths := p11.KeyLengths(kt); {
	case len(lengths) == 1:
		return int(lengths[0]), nil
	case !given:
		return 0, refused(incomplete)
	case n == 0 || n > 256:
		return 0, refused(badValue)
	}
	return int(n), nil
}

func (c *conn) generateKey(r *icsfwire.Request, d *icsfwire.GenerateKey) (icsfwire.Handle, error) {
	a := d.Attributes
	n := preMasterSize
	if len(r.Rules) > 0 && r.Rules[0] == "KEY" {
		var err error
		if n, err = secretLength(a); err != nil {
			return "", err
		}
	}
	value := make([]byte, n)
	_, _ = rand.Read(value) // which never fails
	if n == preMasterSize && len(d.Parameters) == 2 {
		copy(value, d.Parameters)
	}
	a.Set(p11.CKA_VALUE, value)
	return c.add(r.Handle, a, true)
}

// preMasterSize is the length of the secret from which SSL and TLS begin.
const preMasterSize = 48

func (c *conn) generatePair(h icsfwire.Handle, d *icsfwire.GeneratePair) (icsfwire.Handle, icsfwire.Data, error) {
	public, private := d.Public, d.Private
	kt, _ := public.KeyType()
	var err error
	switch kt {
	case p11.CKK_RSA:
		err = newRSA(&public, &private)
	case p11.CKK_EC:
		err = newEC(&public, &private)
	case p11.CKK_DH:
		err = newDH(&public, &private)
	case p11.CKK_DSA:
		err = newDSA(&public, &private)
	default:
		err = refused(badValue)
	}
	if err != nil {
		return h, nil, err
	}
	first, err := c.add(h, public, true)
	if err != nil {
		return h, nil, err
	}
	second, err := c.add(h, private, true)
	if err != nil {
		return h, nil, err
	}
	return first, &icsfwire.PrivateHandle{Handle: second.Print()}, nil
}

func newRSA(public, private *p11.Attributes) error {
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	switch e := numberOf(*public, p11.CKA_PUBLIC_EXPONENT); {
	case !ok:
		return refused(incomplete)
	case bits < 512 || bits > 4096 || bits%8 != 0:
		return refused(badValue)
	case e.Sign() != 0 && e.Int64() != 65537:
		return refused(badValue)
	}
	k, err := rsa.GenerateKey(rand.Reader, int(bits))
	if err != nil {
		return err
	}
	public.Delete(p11.CKA_MODULUS_BITS)
	public.SetUlong(p11.CKA_MODULUS_BITS, bits)
	for _, a := range []*p11.Attributes{public, private} {
		a.Set(p11.CKA_MODULUS, k.N.Bytes())
		a.Set(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E)).Bytes())
	}
	putRSA(private, k)
	return nil
}

func putRSA(private *p11.Attributes, k *rsa.PrivateKey) {
	k.Precompute()
	for t, v := range map[p11.AttributeType]*big.Int{
		p11.CKA_MODULUS: k.N, p11.CKA_PUBLIC_EXPONENT: big.NewInt(int64(k.E)),
		p11.CKA_PRIVATE_EXPONENT: k.D, p11.CKA_PRIME_1: k.Primes[0], p11.CKA_PRIME_2: k.Primes[1],
		p11.CKA_EXPONENT_1: k.Precomputed.Dp, p11.CKA_EXPONENT_2: k.Precomputed.Dq, p11.CKA_COEFFICIENT: k.Precomputed.Qinv,
	} {
		private.Set(t, v.Bytes())
	}
}

func newEC(public, private *p11.Attributes) error {
	o := &object{attrs: *public}
	curve, err := o.curve()
	if err != nil {
		return err
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return err
	}
	params, _ := public.Get(p11.CKA_EC_PARAMS)
	return putEC(public, private, params, k)
}

func putEC(public, private *p11.Attributes, params []byte, k *ecdsa.PrivateKey) error {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		return err
	}
	value, err := k.Bytes()
	if err != nil {
		return err
	}
	public.Set(p11.CKA_EC_POINT, pkix.DERPoint(point))
	private.Set(p11.CKA_EC_PARAMS, params)
	private.Set(p11.CKA_VALUE, value)
	return nil
}

func newDH(public, private *p11.Attributes) error {
	p, g := numberOf(*public, p11.CKA_PRIME), numberOf(*public, p11.CKA_BASE)
	if p.BitLen() < 512 || p.BitLen() > 2048 || g.Sign() == 0 {
		return refused(incomplete)
	}
	x, err := rand.Int(rand.Reader, new(big.Int).Sub(p, big.NewInt(2)))
	if err != nil {
		return err
	}
	x.Add(x, big.NewInt(1))
	private.Set(p11.CKA_PRIME, p.Bytes())
	private.Set(p11.CKA_BASE, g.Bytes())
	private.Set(p11.CKA_VALUE, x.Bytes())
	public.Set(p11.CKA_VALUE, new(big.Int).Exp(g, x, p).Bytes())
	return nil
}

// agree is the key of an agreement.
func (c *conn) agree(h icsfwire.Handle, d *icsfwire.Agree) (icsfwire.Handle, error) {
	o, err := c.key(h, p11.CKA_DERIVE)
	if err != nil {
		return "", err
	}
	if err := o.is(p11.CKO_PRIVATE_KEY, p11.CKK_DH); err != nil {
		return "", err
	}
	p, y := numberOf(o.attrs, p11.CKA_PRIME), new(big.Int).SetBytes(d.Public)
	if y.Cmp(big.NewInt(1)) <= 0 || y.Cmp(new(big.Int).Sub(p, big.NewInt(1))) >= 0 {
		return "", refused(badValue)
	}
	z := new(big.Int).Exp(y, numberOf(o.attrs, p11.CKA_VALUE), p).FillBytes(make([]byte, (p.BitLen()+7)/8))
	n, err := secretLength(d.Attributes)
	if err != nil {
		n = len(z)
	}
	if n > len(z) {
		return "", refused(badValue)
	}
	a := d.Attributes
	a.Set(p11.CKA_VALUE, z[len(z)-n:])
	return c.add(h, a, false)
}
