package swtok

import (
	"context"
	"crypto/dsa" //nolint:staticcheck // for what is signed so
	"crypto/rand"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// MakesGroups: Go's library makes those of DSA.
func (goProvider) MakesGroups(kt p11.KeyType) bool { return kt == p11.CKK_DSA }

// GenerateGroup: it cannot be stopped, and takes seconds.
func (goProvider) GenerateGroup(_ context.Context, kt p11.KeyType, bits, subprime int) (pkix.Group, error) {
	sizes := map[[2]int]dsa.ParameterSizes{
		{1024, 160}: dsa.L1024N160, {2048, 224}: dsa.L2048N224, {2048, 256}: dsa.L2048N256, {3072, 256}: dsa.L3072N256,
	}
	size, ok := sizes[[2]int{bits, subprime}]
	if !ok || kt != p11.CKK_DSA {
		return pkix.Group{}, errors.New("groups of DSA that Go's library makes have 1024, 2048 or 3072 bits")
	}
	var p dsa.Parameters
	err := dsa.GenerateParameters(&p, rand.Reader, size)
	return pkix.Group{P: p.P, Q: p.Q, G: p.G}, err
}

func (goProvider) NewDHPrivateKey(g pkix.Group, private *big.Int) (DHPrivateKey, error) {
	return &goDH{g, private.Bytes()}, nil
}

type goDH struct {
	group   pkix.Group
	private []byte
}

// Close wipes the private value.
func (k *goDH) Close() { wipe(k.private) }

func (k *goDH) Agree(public *big.Int) ([]byte, error) {
	z, err := k.group.Power(public, k.private)
	if err != nil {
		return nil, err
	}
	if n := new(big.Int).SetBytes(z); n.Cmp(big.NewInt(1)) <= 0 {
		return nil, errors.New("the public value is of a group of few")
	}
	return z, nil
}

type goDSAPublic struct{ key dsa.PublicKey }

func goDSA(g pkix.Group, public *big.Int) goDSAPublic {
	return goDSAPublic{dsa.PublicKey{Parameters: dsa.Parameters{P: g.P, Q: g.Q, G: g.G}, Y: public}}
}

func (goProvider) NewDSAPublicKey(g pkix.Group, public *big.Int) (DSAPublicKey, error) {
	return goDSA(g, public), nil
}

// Verify has der cut to the digest's leading bits, as many as the subprime has (FIPS 186-4
// §4.7).
func (k goDSAPublic) Verify(digest, der []byte) bool {
	var r, s big.Int
	in := cryptobyte.String(der)
	if !in.ReadASN1(&in, asn1.SEQUENCE) || !in.ReadASN1Integer(&r) || !in.ReadASN1Integer(&s) {
		return false
	}
	return dsa.Verify(&k.key, digest[:min(len(digest), bytesOf(k.key.Q.BitLen()))], &r, &s)
}

type goDSAPrivate struct{ key dsa.PrivateKey }

func (goProvider) NewDSAPrivateKey(g pkix.Group, private *big.Int) (DSAPrivateKey, error) {
	return &goDSAPrivate{dsa.PrivateKey{PublicKey: goDSA(g, nil).key, X: new(big.Int).Set(private)}}, nil
}

// Close wipes the private value.
func (k *goDSAPrivate) Close() { clear(k.key.X.Bits()) }

// Sign is not constant in time: Go's library has no other.
func (k *goDSAPrivate) Sign(digest []byte) ([]byte, error) {
	r, s, err := dsa.Sign(rand.Reader, &k.key, digest[:min(len(digest), bytesOf(k.key.Q.BitLen()))])
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}

// randomBelow is a number from 1 to below end, of at most bits.
func randomBelow(end *big.Int, bits int) (*big.Int, error) {
	one := big.NewInt(1)
	if limit := new(big.Int).Lsh(one, uint(bits)); limit.Cmp(end) < 0 {
		end = limit
	}
	x, err := rand.Int(rand.Reader, new(big.Int).Sub(end, one))
	if err != nil {
		return nil, err
	}
	return x.Add(x, one), nil
}

// wipeInt overwrites a number.
func wipeInt(x *big.Int) {
	b := x.Bits()
	clear(b)
	x.SetInt64(0)
}
