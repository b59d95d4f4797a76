package pkix

import (
	"math/big"
	"sync"

	"filippo.io/bigmod"

	"p11fs/p11"
)

// A Group is the domain parameters of Diffie-Hellman and DSA keys (PKCS#11 v3.1 §6.4,
// §6.2).
type Group struct {
	P *big.Int // CKA_PRIME
	Q *big.Int // CKA_SUBPRIME: of DSA, else nil
	G *big.Int // CKA_BASE
}

// Bounds of a group, in bits: of its prime, and of the subprime of DSA, which has one of
// three lengths (FIPS 186-4 §4.2).
const (
	MinGroupBits = 512
	MaxDHBits    = 8192
	MaxDSABits   = 3072
)

// SubprimeFits says whether the subprime of DSA may have so many bits.
func SubprimeFits(bits int) bool { return bits == 160 || bits == 224 || bits == 256 }

// groupAttributes are those that a key of type kt has of its group.
func groupAttributes(kt p11.KeyType) []p11.AttributeType {
	if kt == p11.CKK_DSA {
		return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE}
	}
	return []p11.AttributeType{p11.CKA_PRIME, p11.CKA_BASE}
}

// numbers are the group's, in the order of groupAttributes.
func (g Group) numbers() []*big.Int {
	if g.Q != nil {
		return []*big.Int{g.P, g.Q, g.G}
	}
	return []*big.Int{g.P, g.G}
}

// Put sets the group's attributes.
func (g Group) Put(attrs *p11.Attributes) {
	kt := p11.KeyType(p11.CKK_DH)
	if g.Q != nil {
		kt = p11.CKK_DSA
	}
	for i, t := range groupAttributes(kt) {
		attrs.Set(t, g.numbers()[i].Bytes())
	}
}

// Equal says whether two groups are one.
func (g Group) Equal(o Group) bool {
	return g.P.Cmp(o.P) == 0 && g.G.Cmp(o.G) == 0 && (g.Q == nil) == (o.Q == nil) && (g.Q == nil || g.Q.Cmp(o.Q) == 0)
}

// GroupOf reads the group of a key of type CKK_DH or CKK_DSA, and checks all but whether
// its primes are some, which takes long. Errors wrap CKR_TEMPLATE_INCOMPLETE or
// CKR_ATTRIBUTE_VALUE_INVALID.
func GroupOf(kt p11.KeyType, attrs p11.Attributes) (g Group, err error) {
	var read [3]*big.Int
	for i, t := range groupAttributes(kt) {
		if read[i], err = positive(attrs, t); err != nil {
			return g, err
		}
	}
	g = Group{P: read[0], G: read[1]}
	most := MaxDHBits
	if kt == p11.CKK_DSA {
		g, most = Group{read[0], read[1], read[2]}, MaxDSABits
	}
	one := big.NewInt(1)
	less := new(big.Int).Sub(g.P, one)
	switch n := g.P.BitLen(); {
	case n < MinGroupBits || n > most:
		return g, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "prime: has %d bits; %d to %d can be used", n, MinGroupBits, most)
	case g.P.Bit(0) == 0:
		return g, badGroup(p11.CKA_PRIME, "is even")
	case g.G.Cmp(one) <= 0 || g.G.Cmp(less) >= 0:
		return g, badGroup(p11.CKA_BASE, "is not between 1 and the prime less 1")
	case g.Q == nil:
		return g, nil
	case !SubprimeFits(g.Q.BitLen()):
		return g, badGroup(p11.CKA_SUBPRIME, "has another length than 160, 224 or 256 bits")
	case g.Q.Bit(0) == 0 || new(big.Int).Mod(less, g.Q).Sign() != 0:
		return g, badGroup(p11.CKA_SUBPRIME, "does not divide the prime less 1")
	case new(big.Int).Exp(g.G, g.Q, g.P).Cmp(one) != 0:
		return g, badGroup(p11.CKA_BASE, "does not make a group of the subprime's size")
	}
	return g, nil
}

func badGroup(t p11.AttributeType, why string) error {
	return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: %s", t.Short(), why)
}

// CheckPrimes refuses numbers that are no primes, and so no group. For the longest that
// takes a few seconds, once for a key.
func (g Group) CheckPrimes() error {
	if g.Q == nil && g.known() {
		return nil
	}
	switch {
	case g.Q != nil && !g.Q.ProbablyPrime(20):
		return badGroup(p11.CKA_SUBPRIME, "is no prime")
	case !g.P.ProbablyPrime(0): // by Baillie and PSW, to which no exception is known
		return badGroup(p11.CKA_PRIME, "is no prime")
	}
	return nil
}

// takesPublic says whether y may be a public value.
func (g Group) takesPublic(y *big.Int) bool {
	if y.Cmp(big.NewInt(1)) <= 0 || y.Cmp(new(big.Int).Sub(g.P, big.NewInt(1))) >= 0 {
		return false
	}
	return g.Q == nil || new(big.Int).Exp(y, g.Q, g.P).Cmp(big.NewInt(1)) == 0
}

// Public reads a public value, CKA_VALUE.
func (g Group) Public(value []byte) (*big.Int, error) {
	y := new(big.Int).SetBytes(value)
	if len(value) > MaxDHBits/8 || !g.takesPublic(y) {
		return nil, badGroup(p11.CKA_VALUE, "is no public value of the group")
	}
	return y, nil
}

// Private reads a private value, CKA_VALUE, which is the caller's to wipe.
func (g Group) Private(value []byte) (*big.Int, error) {
	end := g.Q
	if end == nil {
		end = new(big.Int).Sub(g.P, big.NewInt(1))
	}
	x := new(big.Int).SetBytes(value)
	if len(value) > MaxDHBits/8 || x.Sign() == 0 || x.Cmp(end) >= 0 {
		wipeInts(x)
		return nil, badGroup(p11.CKA_VALUE, "is no private value of the group")
	}
	return x, nil
}

// Power is base to the exponent, as long as the prime, in a time that depends on their
// lengths alone. The base is below the prime.
func (g Group) Power(base *big.Int, exponent []byte) ([]byte, error) {
	m, err := bigmod.NewModulus(g.P.Bytes())
	if err != nil {
		return nil, err
	}
	b, err := bigmod.NewNat().SetBytes(base.FillBytes(make([]byte, m.Size())), m)
	if err != nil {
		return nil, err
	}
	return bigmod.NewNat().Exp(b, exponent, m).Bytes(m), nil
}

// knownGroups are the groups of RFC 7919 and RFC 3526 by name. Their primes are
// made of the digits of e and of pi, so that nobody has chosen them.
//
//nolint:gochecknoglobals // made once, never written
var knownGroups = sync.OnceValue(func() map[string]Group {
	groups := make(map[string]Group)
	one := big.NewInt(1)
	for _, of := range []struct {
		name   string
		digits func(bits uint) *big.Int
		offset map[uint]int64
	}{
		{"ffdhe", eulerDigits, map[uint]int64{2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}},
		{"modp", piDigits, map[uint]int64{1536: 741804, 2048: 124476, 3072: 1690314, 4096: 240904, 6144: 929484, 8192: 4743158}},
	} {
		for n, offset := range of.offset {
			// 2^n - 2^(n-64) + (digits + offset) 2^64 - 1
			p := new(big.Int).Lsh(one, n)
			p.Sub(p, new(big.Int).Lsh(one, n-64))
			d := of.digits(n - 130)
			p.Add(p, d.Lsh(d.Add(d, big.NewInt(offset)), 64))
			p.Sub(p, one)
			groups[of.name+big.NewInt(int64(n)).String()] = Group{P: p, G: big.NewInt(2)}
		}
	}
	return groups
})

// spare is how many bits more than wanted a number of known digits is computed with.
const spare = 64

// eulerDigits are e times 2^bits, rounded down.
func eulerDigits(bits uint) *big.Int {
	term := new(big.Int).Lsh(big.NewInt(1), bits+spare)
	sum := new(big.Int)
	for n := int64(1); term.Sign() > 0; n++ {
		sum.Add(sum, term)
		term.Div(term, big.NewInt(n))
	}
	return sum.Rsh(sum, spare)
}

// piDigits are pi times 2^bits, rounded down, by Machin's formula.
func piDigits(bits uint) *big.Int {
	arctan := func(inverse int64) *big.Int {
		term := new(big.Int).Lsh(big.NewInt(1), bits+spare)
		term.Div(term, big.NewInt(inverse))
		square := big.NewInt(inverse * inverse)
		sum := new(big.Int)
		for n := int64(1); term.Sign() > 0; n += 2 {
			part := new(big.Int).Div(term, big.NewInt(n))
			if n%4 == 3 {
				part.Neg(part)
			}
			sum.Add(sum, part)
			term.Div(term, square)
		}
		return sum
	}
	pi := new(big.Int).Mul(arctan(5), big.NewInt(16))
	pi.Sub(pi, new(big.Int).Mul(arctan(239), big.NewInt(4)))
	return pi.Rsh(pi, spare)
}

// GroupNamed finds a group of RFC 7919 or RFC 3526 for Diffie-Hellman, such as ffdhe2048
// or modp2048.
func GroupNamed(name string) (Group, bool) {
	g, ok := knownGroups()[name]
	return g, ok
}

// known says whether the group is one that has a name.
func (g Group) known() bool {
	for _, k := range knownGroups() {
		if k.Equal(g) {
			return true
		}
	}
	return false
}

// ShortPrivate is how long a private value has to be, in bits: of a group with a name
// twice what breaks it (RFC 7919 §5.2), of another as long as its prime or subprime.
func (g Group) ShortPrivate() int {
	switch {
	case g.Q != nil:
		return g.Q.BitLen()
	case g.known():
		return 512
	}
	return g.P.BitLen() - 1
}
