package swtok

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"

	"filippo.io/bigmod"

	"p11fs/p11/pkix"
)

// longestGoRSA is the longest modulus, in bits, that Go's library makes: it cannot be
// stopped.
const longestGoRSA = 4096

// MaxExponentBits: crypto/rsa has the exponent as an int.
func (goProvider) MaxExponentBits(int) int { return 31 }

// GenerateRSA: crypto/rsa knows one public exponent. With another the primes are found
// here.
func (goProvider) GenerateRSA(ctx context.Context, bits int, e *big.Int) (*pkix.RSANumbers, error) {
	if bits > longestGoRSA || e.Cmp(big.NewInt(defaultExponent)) != 0 {
		return findRSA(ctx, bits, e)
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	return &pkix.RSANumbers{
		N: k.N, E: big.NewInt(int64(k.E)), D: k.D, P: k.Primes[0], Q: k.Primes[1],
		DP: k.Precomputed.Dp, DQ: k.Precomputed.Dq, QInv: k.Precomputed.Qinv,
	}, nil
}

// findRSA makes a key of random probable primes (FIPS 186-5 §A.1.3).
func findRSA(ctx context.Context, bits int, e *big.Int) (*pkix.RSANumbers, error) {
	for {
		p, err := findPrime(ctx, (bits+1)/2, e)
		if err != nil {
			return nil, err
		}
		q, err := findPrime(ctx, bits/2, e)
		if err != nil {
			return nil, err
		}
		n := new(big.Int).Mul(p, q)
		// The primes are not near each other.
		if n.BitLen() != bits || new(big.Int).Sub(p, q).BitLen() <= bits/2-100 {
			continue
		}
		k := &pkix.RSANumbers{N: n, E: new(big.Int).Set(e), P: p, Q: q}
		if p.Cmp(q) < 0 {
			k.P, k.Q = q, p
		}
		if err := k.Complete(); err != nil {
			continue
		}
		return k, nil
	}
}

// findPrime finds a prime of n bits, the first two of which are set, that is not 1
// modulo a factor of e. rand.Prime cannot be stopped.
func findPrime(ctx context.Context, n int, e *big.Int) (*big.Int, error) {
	one := big.NewInt(1)
	random := make([]byte, bytesOf(n))
	defer wipe(random)
	p, less := new(big.Int), new(big.Int)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
		p.SetBytes(random).Rsh(p, uint(8*len(random)-n))
		p.SetBit(p, n-1, 1).SetBit(p, n-2, 1).SetBit(p, 0, 1)
		if less.GCD(nil, nil, less.Sub(p, one), e).Cmp(one) == 0 && p.ProbablyPrime(20) {
			return p, nil
		}
	}
}

func newGoRSA(n, e *big.Int) rsa.PublicKey {
	return rsa.PublicKey{N: new(big.Int).Set(n), E: int(e.Int64())}
}

func (goProvider) NewRSAPublicKey(n, e *big.Int) (RSAPublicKey, error) {
	return &goRSAPublic{key: newGoRSA(n, e), e: new(big.Int).Set(e)}, nil
}

func (goProvider) NewRSAPrivateKey(k *pkix.RSANumbers) (RSAPrivateKey, error) {
	key := &rsa.PrivateKey{
		PublicKey: newGoRSA(k.N, k.E),
		D:         new(big.Int).Set(k.D),
		Primes:    []*big.Int{new(big.Int).Set(k.P), new(big.Int).Set(k.Q)},
	}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, err
	}
	raw, err := newRawRSA(k)
	if err != nil {
		return nil, err
	}
	return &goRSAPrivate{key, raw}, nil
}

type goRSAPublic struct {
	key rsa.PublicKey
	e   *big.Int
}

func (k *goRSAPublic) Raw(in []byte) ([]byte, error) {
	x := new(big.Int).SetBytes(in)
	if x.Cmp(k.key.N) >= 0 {
		return nil, errNotBelow
	}
	return x.Exp(x, k.e, k.key.N).FillBytes(make([]byte, k.key.Size())), nil
}

func (k *goRSAPublic) EncryptPKCS1(msg []byte) ([]byte, error) {
	return rsa.EncryptPKCS1v15(rand.Reader, &k.key, msg) //nolint:staticcheck // CKM_RSA_PKCS is this, and its users choose it
}

func (k *goRSAPublic) EncryptOAEP(hash, mgf crypto.Hash, msg, label []byte) ([]byte, error) {
	return rsa.EncryptOAEPWithOptions(rand.Reader, &k.key, msg, &rsa.OAEPOptions{Hash: hash, MGFHash: mgf, Label: label})
}

type goRSAPrivate struct {
	key *rsa.PrivateKey
	raw *rawRSA
}

// Close wipes the numbers; what the library derived from them is the garbage
// collector's.
func (k *goRSAPrivate) Close() {
	more := k.key.Precomputed
	(&pkix.RSANumbers{D: k.key.D, P: k.key.Primes[0], Q: k.key.Primes[1], DP: more.Dp, DQ: more.Dq, QInv: more.Qinv}).Wipe()
	wipe(k.raw.dp, k.raw.dq)
}

func (k *goRSAPrivate) Raw(in []byte) ([]byte, error) { return k.raw.power(in) }

func (k *goRSAPrivate) SignPKCS1(tbs []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(nil, k.key, crypto.Hash(0), tbs)
}

func (k *goRSAPrivate) SignPSS(hash crypto.Hash, digest []byte, saltLen int) ([]byte, error) {
	return rsa.SignPSS(rand.Reader, k.key, hash, digest, &rsa.PSSOptions{SaltLength: saltLen})
}

func (k *goRSAPrivate) DecryptOAEP(hash, mgf crypto.Hash, ct, label []byte) ([]byte, error) {
	return k.key.Decrypt(nil, ct, &rsa.OAEPOptions{Hash: hash, MGFHash: mgf, Label: label})
}

// rawRSA is the bare private operation, which crypto/rsa has and does not give out, by
// the arithmetic that it is made of.
type rawRSA struct {
	n, p, q *bigmod.Modulus
	dp, dq  []byte
	qInv    *bigmod.Nat // modulo p
	e       []byte
}

var (
	errNotBelow = errors.New("number not below the modulus")
	errFault    = errors.New("the result of the private operation is wrong")
)

func newRawRSA(k *pkix.RSANumbers) (*rawRSA, error) {
	r := &rawRSA{dp: k.DP.Bytes(), dq: k.DQ.Bytes(), e: k.E.Bytes()}
	var err error
	for _, m := range []struct {
		of   *big.Int
		into **bigmod.Modulus
	}{{k.N, &r.n}, {k.P, &r.p}, {k.Q, &r.q}} {
		b := m.of.Bytes()
		*m.into, err = bigmod.NewModulus(b)
		wipe(b)
		if err != nil {
			return nil, err
		}
	}
	b := k.QInv.Bytes()
	defer wipe(b)
	r.qInv, err = bigmod.NewNat().SetBytes(b, r.p)
	return r, err
}

// power is in^d mod n by way of the primes (RFC 8017 §5.1.2). A result that a fault of
// the machine has made wrong would give the primes away, and stays here.
func (r *rawRSA) power(in []byte) ([]byte, error) {
	c, err := bigmod.NewNat().SetBytes(in, r.n)
	if err != nil {
		return nil, errNotBelow
	}
	part := bigmod.NewNat()
	m := bigmod.NewNat().Exp(part.Mod(c, r.p), r.dp, r.p)
	mq := bigmod.NewNat().Exp(part.Mod(c, r.q), r.dq, r.q)
	m.Sub(part.Mod(mq, r.p), r.p).Mul(r.qInv, r.p).ExpandFor(r.n)
	m.Mul(part.Mod(r.q.Nat(), r.n), r.n).Add(mq.ExpandFor(r.n), r.n)
	if bigmod.NewNat().Exp(m, r.e, r.n).Equal(c) != 1 {
		return nil, errFault
	}
	return m.Bytes(r.n), nil
}
