package swtok

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"math/big"

	"filippo.io/bigmod"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// A modulus is what both halves of an RSA key know: a modulus of k bytes.
type modulus struct {
	bits, k int
	n       *big.Int
}

func newModulus(n *big.Int) modulus { return modulus{n.BitLen(), bytesOf(n.BitLen()), n} }

// bytesOf is how many bytes hold bits.
func bytesOf(bits int) int { return (bits + 7) / 8 }

func (m modulus) size() int { return m.bits }

// below says whether b, of k bytes, is a number below the modulus. The number is
// the caller's own, and what is compared is its order to the public modulus.
func (m modulus) below(b []byte) bool {
	return bytes.Compare(b, m.n.FillBytes(make([]byte, m.k))) < 0
}

// number is data as a number of k bytes below the modulus.
func (m modulus) number(data []byte) ([]byte, error) {
	b := leftPad(data, m.k)
	if !m.below(b) {
		wipe(b)
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "the data is a number not below the modulus")
	}
	return b, nil
}

// raw is the bare operation f on data as a number of k bytes below the modulus.
func (m modulus) raw(data []byte, f func([]byte) ([]byte, error)) ([]byte, error) {
	in, err := m.number(data)
	if err != nil {
		return nil, err
	}
	defer wipe(in)
	return rsaResult(f(in))
}

type rsaPublic struct {
	modulus
	key RSAPublicKey
}

type rsaPrivate struct {
	modulus
	key      RSAPrivateKey
	rejecter []byte // the key of what stands for messages that are none: see pkcs1.go
}

// Close forgets the key. libcrypto wipes its copy when the collector finds it
// unused.
func (k *rsaPrivate) Close() {
	if c, ok := k.key.(interface{ Close() }); ok {
		c.Close()
	}
	wipe(k.rejecter)
	k.key, k.rejecter = nil, nil
}

// checkRSASize refuses numbers that cannot be worked with, before the work.
func (c *Crypto) checkRSASize(a p11.Attributes) error {
	length := func(t p11.AttributeType) int {
		b, _ := a.Get(t)
		return new(big.Int).SetBytes(b).BitLen()
	}
	bits := length(p11.CKA_MODULUS)
	if bits != 0 && (bits < minRSABits || bits > maxRSABits) {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key of %d bits; %d to %d can be used", bits, minRSABits, maxRSABits)
	}
	if e, most := length(p11.CKA_PUBLIC_EXPONENT), c.provider.MaxExponentBits(bits); e > most {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "public-exponent: has %d bits; with this modulus the library takes %d", e, most)
	}
	return nil
}

func (c *Crypto) parseRSAPublic(a p11.Attributes) (*rsaPublic, error) {
	if err := c.checkRSASize(a); err != nil {
		return nil, err
	}
	n, e, err := pkix.RSAPublic(a)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	if e.Cmp(n) >= 0 {
		return nil, keyDamaged("its public exponent is larger than the modulus")
	}
	key, err := c.provider.NewRSAPublicKey(n, e)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &rsaPublic{newModulus(n), key}, nil
}

func (c *Crypto) parseRSAPrivate(a p11.Attributes) (*rsaPrivate, error) {
	if err := c.checkRSASize(a); err != nil {
		return nil, err
	}
	if c.holder != nil && c.holder.Holds(a) {
		return c.heldRSA(a)
	}
	k, err := pkix.RSAPrivate(a)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	defer k.Wipe()
	key, err := c.provider.NewRSAPrivateKey(k)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	m := newModulus(k.N)
	return &rsaPrivate{m, key, newRejecter(k.D, m.k)}, nil
}

// open is sig^e mod n, for a sig of k bytes.
func (k *rsaPublic) open(sig []byte) ([]byte, bool) {
	if !k.below(sig) {
		return nil, false
	}
	em, err := k.key.Raw(sig)
	return em, err == nil
}

// opens says whether sig^e mod n is em: the encoding is built and compared, not
// taken apart, so that there is one signature for one message.
func (k *rsaPublic) opens(sig, em []byte) bool {
	got, ok := k.open(sig)
	return ok && equal(got, em)
}

// A RawRSA is the bare private operation of an RSA key, done elsewhere.
type RawRSA interface {
	// Raw is RSAPrivateKey's.
	Raw(in []byte) ([]byte, error)
	// Close wipes the key.
	Close()
}

// ByRaw is a key whose bare operation is raw's, as are signatures. OAEP stays key's, and
// so does what raw fails at, or has a wrong result for, which would give the primes away.
func ByRaw(key RSAPrivateKey, k *pkix.RSANumbers, raw RawRSA) (RSAPrivateKey, error) {
	n, err := bigmod.NewModulus(k.N.Bytes())
	if err != nil {
		return nil, err
	}
	return &byRaw{key, newModulus(new(big.Int).Set(k.N)), n, k.E.Bytes(), raw}, nil
}

type byRaw struct {
	RSAPrivateKey
	modulus
	m   *bigmod.Modulus
	e   []byte
	raw RawRSA
}

func (k *byRaw) Close() {
	k.raw.Close()
	if c, ok := k.RSAPrivateKey.(interface{ Close() }); ok {
		c.Close()
	}
}

func (k *byRaw) Raw(in []byte) ([]byte, error) {
	c, err := bigmod.NewNat().SetBytes(in, k.m)
	if err != nil {
		return nil, errNotBelow
	}
	if out, err := k.raw.Raw(in); err == nil {
		if r, err := bigmod.NewNat().SetBytes(out, k.m); err == nil && bigmod.NewNat().Exp(r, k.e, k.m).Equal(c) == 1 {
			return out, nil
		}
		wipe(out)
	}
	return k.RSAPrivateKey.Raw(in)
}

func (k *byRaw) SignPKCS1(tbs []byte) ([]byte, error) { return k.Raw(padSignature(tbs, k.k)) }

func (k *byRaw) SignPSS(hash crypto.Hash, digest []byte, saltLen int) ([]byte, error) {
	salt := make([]byte, saltLen)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	em, err := pssEncode(hash, hash, digest, salt, k.bits-1)
	if err != nil {
		return nil, err
	}
	return k.Raw(leftPad(em, k.k))
}
