package pkix

import (
	"bytes"
	"crypto/rsa"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

const oidRSA = "1.2.840.113549.1.1.1"

// rsaType is RSA keys (RFC 8017 §A.1).
func rsaType() keyType {
	return keyType{
		kt: p11.CKK_RSA, oid: oidRSA, complete: completeRSA, writePrivate: writeRSAPrivate, info: rsaInfo,
		readPublic: func(_ algorithm, bits []byte) (p11.Attributes, error) {
			n, e, err := readRSAPublic(bits)
			if err != nil {
				return nil, err
			}
			return rsaPublicAttributes(n, e), nil
		},
		readPrivate: func(_ algorithm, key []byte) (priv, pub p11.Attributes, err error) {
			priv, err = readRSAPrivate(key)
			if err != nil {
				return nil, nil, err
			}
			n, e, err := RSAPublic(priv)
			if err != nil {
				priv.Wipe()
				return nil, nil, err
			}
			return priv, rsaPublicAttributes(n, e), nil
		},
		golang: func(_ algorithm, bits []byte) (any, error) {
			n, e, err := readRSAPublic(bits)
			if err != nil {
				return nil, err
			}
			if e.BitLen() > maxGoExponentBits {
				return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "no such form for a key whose public exponent has more than 31 bits")
			}
			return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
		},
	}
}

func rsaPublicAttributes(n, e *big.Int) (pub p11.Attributes) {
	pub.Set(p11.CKA_MODULUS, n.Bytes())
	pub.Set(p11.CKA_PUBLIC_EXPONENT, e.Bytes())
	return pub
}

// rsaInfo is the SubjectPublicKeyInfo of a key that tells its public half.
func rsaInfo(attrs p11.Attributes) ([]byte, error) {
	n, okN := attrs.Get(p11.CKA_MODULUS)
	e, okE := attrs.Get(p11.CKA_PUBLIC_EXPONENT)
	if !okN || !okE || len(n) == 0 || len(e) == 0 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its modulus and public exponent")
	}
	return rsaSPKI(new(big.Int).SetBytes(n), new(big.Int).SetBytes(e))
}

// rsaSPKI is the SubjectPublicKeyInfo of an RSA key.
func rsaSPKI(n, e *big.Int) ([]byte, error) {
	return buildSPKI(algorithm{oidRSA, null()}, rsaPublicDER(n, e))
}

// completeRSA returns CKA_PUBLIC_KEY_INFO. Other programs on the same token
// directory count on the primes of a private key and on what belongs to them.
func completeRSA(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
	n, e, err := RSAPublic(*attrs)
	if err != nil {
		return nil, err
	}
	if class == p11.CKO_PRIVATE_KEY {
		if !attrs.Has(p11.CKA_PRIVATE_EXPONENT) {
			return nil, missing(p11.CKA_PRIVATE_EXPONENT)
		}
		k, err := RSAPrivate(*attrs)
		if err != nil {
			return nil, err
		}
		defer k.Wipe()
		if err := k.Put(attrs); err != nil {
			return nil, err
		}
		return rsaSPKI(n, e)
	}
	// Whether a public key of that size is of use is the token's to say when it
	// is used: other tokens keep any, and programs count on it.
	bits := uint64(n.BitLen())
	if given, ok := attrs.Ulong(p11.CKA_MODULUS_BITS); ok && given != bits {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "modulus-bits: is %d, but the modulus has %d bits", given, bits)
	}
	attrs.SetUlong(p11.CKA_MODULUS_BITS, bits)
	return rsaSPKI(n, e)
}

// RSANumbers are the numbers of an RSA key with two primes (RFC 8017 §3.2).
type RSANumbers struct {
	N, E, D, P, Q, DP, DQ, QInv *big.Int
}

// parts are the numbers with their attributes, in the order of RSAPrivateKey
// (RFC 8017 §A.1.2).
func (k *RSANumbers) parts() []rsaPart {
	return []rsaPart{
		{p11.CKA_MODULUS, &k.N}, {p11.CKA_PUBLIC_EXPONENT, &k.E}, {p11.CKA_PRIVATE_EXPONENT, &k.D},
		{p11.CKA_PRIME_1, &k.P}, {p11.CKA_PRIME_2, &k.Q},
		{p11.CKA_EXPONENT_1, &k.DP}, {p11.CKA_EXPONENT_2, &k.DQ}, {p11.CKA_COEFFICIENT, &k.QInv},
	}
}

type rsaPart struct {
	attr  p11.AttributeType
	value **big.Int
}

// Wipe overwrites the secret numbers.
func (k *RSANumbers) Wipe() { wipeInts(k.D, k.P, k.Q, k.DP, k.DQ, k.QInv) }

func wipeInts(list ...*big.Int) {
	for _, x := range list {
		if x != nil {
			clear(x.Bits())
			x.SetInt64(0)
		}
	}
}

// Put sets the key's attributes, or finds them there with the same value.
func (k *RSANumbers) Put(attrs *p11.Attributes) error {
	for _, part := range k.parts() {
		given, ok := attrs.Get(part.attr)
		if !ok || len(given) == 0 {
			attrs.Set(part.attr, (*part.value).Bytes())
			continue
		}
		x := new(big.Int).SetBytes(given)
		same := x.Cmp(*part.value) == 0
		wipeInts(x)
		if !same {
			return invalidRSA(part.attr, "does not belong to the key")
		}
	}
	return nil
}

func invalidRSA(t p11.AttributeType, why string) error {
	return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: %s", t.Short(), why)
}

// RSAPublic reads the modulus and exponent of an RSA key, and checks what an RSA
// key of any size has.
func RSAPublic(attrs p11.Attributes) (n, e *big.Int, err error) {
	if n, err = positive(attrs, p11.CKA_MODULUS); err != nil {
		return nil, nil, err
	}
	if e, err = positive(attrs, p11.CKA_PUBLIC_EXPONENT); err != nil {
		return nil, nil, err
	}
	return n, e, checkRSA(n, e)
}

// checkRSA checks numbers above zero.
func checkRSA(n, e *big.Int) error {
	switch {
	case n.Bit(0) == 0:
		return invalidRSA(p11.CKA_MODULUS, "is even")
	case e.Bit(0) == 0 || e.BitLen() < 2:
		return invalidRSA(p11.CKA_PUBLIC_EXPONENT, "is even or 1")
	case e.BitLen() > maxExponentBits:
		return invalidRSA(p11.CKA_PUBLIC_EXPONENT, "has more than 256 bits")
	}
	return nil
}

// positive reads a big integer that must not be zero.
func positive(attrs p11.Attributes, t p11.AttributeType) (*big.Int, error) {
	b, ok := attrs.Get(t)
	switch {
	case !ok:
		return nil, missing(t)
	case len(b) > 4096:
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: has %d bytes", t.Short(), len(b))
	}
	n := new(big.Int).SetBytes(b)
	if n.Sign() == 0 {
		return nil, invalidRSA(t, "is zero")
	}
	return n, nil
}

// RSAPrivate reads the numbers of a private key. PKCS#11 asks only for the modulus
// and the private exponent (v3.1 §6.1.3), while computing fast needs the primes and
// checking a result needs the public exponent: what is not there is computed. The
// arithmetic is not constant in time; it is done once a key, and out of reach of a
// caller who could repeat and measure it.
func RSAPrivate(attrs p11.Attributes) (*RSANumbers, error) {
	k := new(RSANumbers)
	for _, part := range k.parts()[:5] {
		if b, ok := attrs.Get(part.attr); !ok || len(b) == 0 {
			continue
		}
		n, err := positive(attrs, part.attr)
		if err != nil {
			k.Wipe()
			return nil, err
		}
		*part.value = n
	}
	if err := k.Complete(); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

// Complete checks the numbers, and computes those that are nil.
func (k *RSANumbers) Complete() error {
	if k.N == nil {
		return missing(p11.CKA_MODULUS)
	}
	if n := k.N.BitLen(); n < 16 || n > maxRSABits {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: has %d bits", p11.CKA_MODULUS.Short(), n)
	}
	for _, part := range k.parts()[1:5] {
		if x := *part.value; x != nil && x.Cmp(k.N) >= 0 {
			return invalidRSA(part.attr, "is larger than the modulus")
		}
	}
	if err := k.findPrimes(); err != nil {
		return err
	}
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(k.P, one), new(big.Int).Sub(k.Q, one)
	order := new(big.Int).Mul(p1, q1)
	order.Div(order, new(big.Int).GCD(nil, nil, p1, q1))
	check := new(big.Int)
	defer wipeInts(p1, q1, order, check)
	switch {
	case k.D == nil && k.E == nil:
		return missing(p11.CKA_PRIVATE_EXPONENT)
	case k.D == nil:
		k.D = new(big.Int).ModInverse(k.E, order)
	case k.E == nil:
		k.E = new(big.Int).ModInverse(new(big.Int).Mod(k.D, order), order)
	}
	if k.D == nil || k.E == nil {
		return invalidRSA(p11.CKA_PRIVATE_EXPONENT, "is no exponent for the primes")
	}
	if err := checkRSA(k.N, k.E); err != nil {
		return err
	}
	k.DP, k.DQ = new(big.Int).Mod(k.D, p1), new(big.Int).Mod(k.D, q1)
	if check.Mul(k.DP, k.E).Mod(check, p1).Cmp(one) != 0 || check.Mul(k.DQ, k.E).Mod(check, q1).Cmp(one) != 0 {
		return invalidRSA(p11.CKA_PRIVATE_EXPONENT, "does not belong to the public exponent")
	}
	if k.QInv = new(big.Int).ModInverse(k.Q, k.P); k.QInv == nil {
		return invalidRSA(p11.CKA_PRIME_1, "is no prime")
	}
	return nil
}

// findPrimes checks the primes, and computes them where one is not there.
func (k *RSANumbers) findPrimes() error {
	if k.P == nil || k.Q == nil {
		p, q := k.P, k.Q
		switch {
		case k.D == nil:
			return missing(p11.CKA_PRIVATE_EXPONENT)
		case k.E == nil && !k.guessExponent():
			return missing(p11.CKA_PUBLIC_EXPONENT)
		case !k.factor():
			return invalidRSA(p11.CKA_PRIVATE_EXPONENT, "does not belong to the modulus")
		}
		// One that was given stays the first or the second.
		if p != nil && p.Cmp(k.Q) == 0 || q != nil && q.Cmp(k.P) == 0 {
			k.P, k.Q = k.Q, k.P
		}
	}
	if k.P.BitLen() < 2 || k.Q.BitLen() < 2 || new(big.Int).Mul(k.P, k.Q).Cmp(k.N) != 0 {
		return invalidRSA(p11.CKA_PRIME_1, "p * q is not the modulus")
	}
	return nil
}

// guessExponent finds the public exponent of n and d among those in use, and the primes
// with it.
func (k *RSANumbers) guessExponent() bool {
	for _, e := range [...]int64{65537, 3, 17, 35, 257} {
		k.E = big.NewInt(e)
		if k.factor() {
			return true
		}
	}
	k.E = nil
	return false
}

// factor finds the primes, knowing both exponents (NIST SP 800-56B rev. 2 §C.2): a
// multiple of the order of the group that is hardly larger than a small multiple of n
// gives p + q. It raises nothing to a power, which would take minutes for the numbers
// that a hostile caller makes up.
func (k *RSANumbers) factor() bool {
	one := big.NewInt(1)
	a, sum, rest, root, twice := new(big.Int), new(big.Int), new(big.Int), new(big.Int), new(big.Int)
	defer wipeInts(a, sum, rest, root, twice)
	if a.Sub(a.Mul(k.D, k.E), one).Sign() <= 0 {
		return false
	}
	a.Mul(a, new(big.Int).GCD(nil, nil, new(big.Int).Sub(k.N, one), a))
	a.DivMod(a, k.N, rest) // now how many times the order is in it, less one
	sum.DivMod(rest.Sub(k.N, rest), a.Add(a, one), root)
	if root.Sign() != 0 {
		return false
	}
	sum.Add(sum, one)
	rest.Sub(rest.Mul(sum, sum), root.Lsh(k.N, 2))
	if rest.Sign() <= 0 || a.Mul(root.Sqrt(rest), root).Cmp(rest) != 0 {
		return false
	}
	k.P = new(big.Int).Rsh(twice.Add(sum, root), 1)
	k.Q = new(big.Int).Rsh(twice.Sub(sum, root), 1)
	return k.Q.Sign() > 0
}

// writeRSAPrivate returns the PrivateKeyInfo of a key.
func writeRSAPrivate(attrs p11.Attributes) ([]byte, error) {
	k, err := RSAPrivate(attrs)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	return buildPKCS8(algorithm{oidRSA, null()}, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		for _, part := range k.parts() {
			b.AddASN1BigInt(*part.value)
		}
	})
}

// readRSAPrivate reads an RSAPrivateKey (RFC 8017 §A.1.2) into attributes.
func readRSAPrivate(der []byte) (p11.Attributes, error) {
	if len(der) > maxKeyDER {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the RSA key is longer than %d bits", maxRSABits)
	}
	var s cryptobyte.String
	var version int64
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, asn1.SEQUENCE) || !in.Empty() || !s.ReadASN1Integer(&version) || version < 0 || version > 1 {
		return nil, invalid(formPKCS1Private)
	}
	if version == 1 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key of more than two primes is not supported")
	}
	var a p11.Attributes
	for _, part := range new(RSANumbers).parts() {
		var x []byte // not negative, without zeros in front
		if !s.ReadASN1Integer(&x) || len(x) == 0 {
			a.Wipe()
			return nil, invalid(formPKCS1Private)
		}
		a.Set(part.attr, bytes.Clone(x))
	}
	err := invalid(formPKCS1Private)
	if s.Empty() {
		err = checkRSAPrivate(&a)
	}
	if err != nil {
		a.Wipe()
		return nil, err
	}
	return a, nil
}

// checkRSAPrivate checks the numbers of a file.
func checkRSAPrivate(a *p11.Attributes) error {
	if n, _ := a.Get(p11.CKA_MODULUS); len(n) > maxRSABits/8 {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the RSA key is longer than %d bits", maxRSABits)
	}
	k, err := RSAPrivate(*a)
	if err == nil {
		defer k.Wipe()
		err = k.Put(a)
	}
	if err != nil {
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formPKCS1Private, err)
	}
	return nil
}

// rsaPublicDER is an RSAPublicKey.
func rsaPublicDER(n, e *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(n)
		b.AddASN1BigInt(e)
	})
	return b.BytesOrPanic() // two integers always fit
}

// readRSAPublic reads an RSAPublicKey (RFC 8017 §A.1.1).
func readRSAPublic(der []byte) (n, e *big.Int, err error) {
	var s cryptobyte.String
	n, e = new(big.Int), new(big.Int)
	in := cryptobyte.String(der)
	tooLong := len(der) > maxKeyDER
	if !tooLong && (!in.ReadASN1(&s, asn1.SEQUENCE) || !in.Empty() ||
		!s.ReadASN1Integer(n) || !s.ReadASN1Integer(e) || !s.Empty()) {
		return nil, nil, invalid(formPKCS1Public)
	}
	switch {
	case tooLong || n.BitLen() > maxRSABits:
		return nil, nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the RSA key is longer than %d bits", maxRSABits)
	case n.Sign() <= 0 || e.Sign() <= 0:
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the RSA public key has an impossible modulus or exponent")
	}
	if err := checkRSA(n, e); err != nil {
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formPKCS1Public, err)
	}
	return n, e, nil
}
