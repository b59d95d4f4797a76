package pkix

import (
	"bytes"
	"crypto/dsa" //nolint:staticcheck // the form that x/crypto/ssh takes
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// groupTypes are the keys of DSA (RFC 3279 §2.3.2) and of Diffie-Hellman as PKCS #3 has
// it, whose group stands beside the algorithm.
func groupTypes() []keyType {
	return []keyType{groupType(p11.CKK_DSA, "1.2.840.10040.4.1"), groupType(p11.CKK_DH, "1.2.840.113549.1.3.1")}
}

func groupType(kt p11.KeyType, oid string) keyType {
	info := func(g Group, y *big.Int) ([]byte, error) {
		var bits cryptobyte.Builder
		bits.AddASN1BigInt(y)
		return buildSPKI(algorithm{oid, groupDER(g)}, bits.BytesOrPanic())
	}
	public := func(alg algorithm, bits []byte) (g Group, y *big.Int, err error) {
		if g, err = readGroup(kt, alg.params); err != nil {
			return g, nil, err
		}
		y, ok := readNumber(bits)
		if !ok || !g.takesPublic(y) {
			return g, nil, invalid(formSPKI)
		}
		return g, y, nil
	}
	return keyType{
		kt: kt, oid: oid,
		complete: func(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
			g, y, err := completeGroupKey(kt, attrs, class)
			if err != nil {
				return nil, err
			}
			return info(g, y)
		},
		readPublic: func(alg algorithm, bits []byte) (p11.Attributes, error) {
			g, y, err := public(alg, bits)
			if err != nil {
				return nil, err
			}
			return groupKey(g, y.Bytes()), nil
		},
		readPrivate: func(alg algorithm, key []byte) (priv, pub p11.Attributes, err error) {
			g, err := readGroup(kt, alg.params)
			if err != nil {
				return nil, nil, err
			}
			number, ok := readNumber(key)
			if !ok {
				return nil, nil, invalid(formPKCS8)
			}
			value := number.Bytes()
			wipeInts(number)
			y, err := g.publicOf(value)
			if err != nil {
				secret.Wipe(value)
				return nil, nil, err
			}
			return groupKey(g, value), groupKey(g, y.Bytes()), nil
		},
		writePrivate: func(attrs p11.Attributes) ([]byte, error) {
			g, err := GroupOf(kt, attrs)
			if err != nil {
				return nil, err
			}
			value, _ := attrs.Get(p11.CKA_VALUE)
			x, err := g.Private(value)
			if err != nil {
				return nil, err
			}
			defer wipeInts(x)
			return buildPKCS8Of(algorithm{oid, groupDER(g)}, func(b *cryptobyte.Builder) { b.AddASN1BigInt(x) })
		},
		info: func(attrs p11.Attributes) ([]byte, error) {
			// The value of a private key is another, and a secret.
			if class, _ := attrs.Class(); class == p11.CKO_PRIVATE_KEY {
				return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its public value")
			}
			g, err := GroupOf(kt, attrs)
			if err != nil {
				return nil, err
			}
			value, _ := attrs.Get(p11.CKA_VALUE)
			y, err := g.Public(value)
			if err != nil {
				return nil, err
			}
			return info(g, y)
		},
		golang: func(alg algorithm, bits []byte) (any, error) {
			g, y, err := public(alg, bits)
			if err != nil {
				return nil, err
			}
			if kt != p11.CKK_DSA {
				return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "OpenSSH has no Diffie-Hellman keys")
			}
			return &dsa.PublicKey{Parameters: dsa.Parameters{P: g.P, Q: g.Q, G: g.G}, Y: y}, nil
		},
	}
}

// groupKey are the attributes of a key's value and group.
func groupKey(g Group, value []byte) (attrs p11.Attributes) {
	g.Put(&attrs)
	attrs.Set(p11.CKA_VALUE, value)
	return attrs
}

// publicOf is the public value of a private one.
func (g Group) publicOf(value []byte) (*big.Int, error) {
	x, err := g.Private(value)
	if err != nil {
		return nil, err
	}
	defer wipeInts(x)
	exponent := x.Bytes()
	defer secret.Wipe(exponent)
	y, err := g.Power(g.G, exponent)
	if err != nil {
		return nil, badGroup(p11.CKA_PRIME, err.Error())
	}
	return new(big.Int).SetBytes(y), nil
}

// completeGroupKey checks a new key, and returns its group and public value.
func completeGroupKey(kt p11.KeyType, attrs *p11.Attributes, class p11.ObjectClass) (Group, *big.Int, error) {
	g, err := GroupOf(kt, *attrs)
	if err == nil {
		err = g.CheckPrimes()
	}
	if err != nil {
		return g, nil, err
	}
	value, ok := attrs.Get(p11.CKA_VALUE)
	switch {
	case !ok:
		return g, nil, missing(p11.CKA_VALUE)
	case class == p11.CKO_PUBLIC_KEY:
		y, err := g.Public(value)
		return g, y, err
	}
	y, err := g.publicOf(value)
	if err == nil && kt == p11.CKK_DH && !attrs.Has(p11.CKA_VALUE_BITS) {
		attrs.SetUlong(p11.CKA_VALUE_BITS, uint64(8*len(bytes.TrimLeft(value, "\x00"))))
	}
	return g, y, err
}

// readNumber reads a number above zero.
func readNumber(der []byte) (*big.Int, bool) {
	in := cryptobyte.String(der)
	n := new(big.Int)
	if len(der) > maxKeyDER || !in.ReadASN1Integer(n) || !in.Empty() || n.Sign() <= 0 {
		return nil, false
	}
	return n, true
}

// readGroup reads Dss-Parms or the DHParameter of PKCS #3.
func readGroup(kt p11.KeyType, der []byte) (Group, error) {
	var s cryptobyte.String
	in := cryptobyte.String(der)
	ok := len(der) <= maxKeyDER && in.ReadASN1(&s, asn1.SEQUENCE) && in.Empty()
	var attrs p11.Attributes
	for _, t := range groupAttributes(kt) {
		n := new(big.Int)
		if ok = ok && s.ReadASN1Integer(n) && n.Sign() > 0; ok {
			attrs.Set(t, n.Bytes())
		}
	}
	if ok && kt == p11.CKK_DH && !s.Empty() {
		ok = s.SkipASN1(asn1.INTEGER) // how long private values are
	}
	if !ok || !s.Empty() {
		return Group{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the group of the %s key is damaged or absent", kt.Short())
	}
	g, err := GroupOf(kt, attrs)
	if err != nil {
		return g, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "%v", err)
	}
	return g, nil
}

// dsaPrivateNumbers are how many numbers OpenSSL's own form of a DSA key has: a version,
// which is 0, the group, the public value and the private one.
const dsaPrivateNumbers = 6

// dsaPrivate reads a private key of that form.
func (p *parser) dsaPrivate(der []byte) error {
	var s cryptobyte.String
	var numbers [dsaPrivateNumbers]cryptobyte.String
	in := cryptobyte.String(der)
	ok := len(der) <= maxKeyDER && in.ReadASN1(&s, asn1.SEQUENCE) && in.Empty()
	for i := range numbers {
		ok = ok && s.ReadASN1Element(&numbers[i], asn1.INTEGER)
	}
	if !ok || !s.Empty() || !bytes.Equal(numbers[0], []byte{2, 1, 0}) {
		return invalid(formDSAPrivate)
	}
	var group cryptobyte.Builder
	group.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range numbers[1:4] {
			b.AddBytes(n)
		}
	})
	t := keyTypeOf(p11.CKK_DSA)
	priv, pub, err := t.readPrivate(algorithm{t.oid, group.BytesOrPanic()}, numbers[5])
	if err != nil {
		return dataInvalid(err)
	}
	own, _ := pub.Get(p11.CKA_VALUE)
	if y, ok := readNumber(numbers[4]); !ok || !bytes.Equal(y.Bytes(), own) {
		priv.Wipe()
		return p11.Errorf(p11.CKR_DATA_INVALID, "the private and the public half of the DSA key do not belong together")
	}
	return p.addKeys(t, "", priv, pub)
}

// group reads domain parameters alone.
func (p *parser) group(kt p11.KeyType, der []byte) error {
	g, err := readGroup(kt, der)
	if err != nil {
		return dataInvalid(err)
	}
	var attrs p11.Attributes
	g.Put(&attrs)
	attrs.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return p.add(p11.CKO_DOMAIN_PARAMETERS, nil, "", attrs)
}

// groupDER is what readGroup reads.
func groupDER(g Group) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, n := range g.numbers() {
			b.AddASN1BigInt(n)
		}
	})
	return b.BytesOrPanic() // two or three integers always fit
}
