package icsfserver

import (
	"crypto/dsa" //nolint:staticcheck // what ICSF does
	"crypto/rand"
	"math/big"

	"p11fs/p11"
)

func (o *object) dsaPublic() (*dsa.PublicKey, error) {
	if err := o.is(p11.CKO_PUBLIC_KEY, p11.CKK_DSA); err != nil {
		return nil, err
	}
	return o.dsaOf()
}

// dsaOf is the group of a key and its value.
func (o *object) dsaOf() (*dsa.PublicKey, error) {
	if err := o.has(p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_VALUE); err != nil {
		return nil, err
	}
	k := &dsa.PublicKey{Parameters: dsa.Parameters{P: numberOf(o.attrs, p11.CKA_PRIME), Q: numberOf(o.attrs, p11.CKA_SUBPRIME), G: numberOf(o.attrs, p11.CKA_BASE)}, Y: numberOf(o.attrs, p11.CKA_VALUE)}
	if n := k.P.BitLen(); n < 512 || n > 2048 || k.Q.BitLen()%8 != 0 || k.Q.BitLen() < 160 || k.G.Sign() == 0 || k.Y.Sign() == 0 {
		return nil, refused(badValue)
	}
	return k, nil
}

func (o *object) dsaPrivate() (*dsa.PrivateKey, error) {
	if err := o.is(p11.CKO_PRIVATE_KEY, p11.CKK_DSA); err != nil {
		return nil, err
	}
	k, err := o.dsaOf()
	if err != nil {
		return nil, err
	}
	x := k.Y
	if x.Cmp(k.Q) >= 0 {
		return nil, refused(badValue)
	}
	return &dsa.PrivateKey{PublicKey: dsa.PublicKey{Parameters: k.Parameters, Y: new(big.Int).Exp(k.G, x, k.P)}, X: x}, nil
}

func newDSA(public, private *p11.Attributes) error {
	public.Set(p11.CKA_VALUE, []byte{1}) // until there is one
	o := &object{attrs: *public}
	k, err := o.dsaOf()
	if err != nil {
		return err
	}
	made := &dsa.PrivateKey{PublicKey: *k}
	if err := dsa.GenerateKey(made, rand.Reader); err != nil {
		return refused(badValue)
	}
	putDSA(private, made)
	public.Set(p11.CKA_VALUE, made.Y.Bytes())
	return nil
}

func putDSA(private *p11.Attributes, k *dsa.PrivateKey) {
	for t, v := range map[p11.AttributeType]*big.Int{p11.CKA_PRIME: k.P, p11.CKA_SUBPRIME: k.Q, p11.CKA_BASE: k.G, p11.CKA_VALUE: k.X} {
		private.Set(t, v.Bytes())
	}
}

// leftmost are the bits of a digest that count (FIPS 186-4 §4.6).
func leftmost(digest []byte, q *big.Int) []byte { return digest[:min(len(digest), q.BitLen()/8)] }

func (o *object) signDSA(digest []byte) ([]byte, error) {
	k, err := o.dsaPrivate()
	if err != nil {
		return nil, err
	}
	r, s, err := dsa.Sign(rand.Reader, k, leftmost(digest, k.Q))
	if err != nil {
		return nil, refused(badValue)
	}
	n := k.Q.BitLen() / 8
	return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), nil
}

func (o *object) verifyDSA(digest, signature []byte) error {
	k, err := o.dsaPublic()
	if err != nil {
		return err
	}
	n := k.Q.BitLen() / 8
	if len(signature) != 2*n || !dsa.Verify(k, leftmost(digest, k.Q), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])) {
		return wrongSignature()
	}
	return nil
}
