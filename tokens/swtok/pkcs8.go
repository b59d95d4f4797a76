package swtok

import (
	"encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// A private key is wrapped as the DER of its PrivateKeyInfo (PKCS#11 v3.1 §6.7,
// RFC 5208). The pieces are put together here and not by crypto/x509, which
// would refuse short RSA keys and curves that the token only stores.

func oidRSA() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} }
func oidEC() asn1.ObjectIdentifier  { return asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} }

// encodePrivateKey returns the PrivateKeyInfo of a private key's attributes.
func encodePrivateKey(a p11.Attributes) ([]byte, error) {
	kt, _ := a.KeyType()
	switch kt {
	case p11.CKK_RSA:
		k, err := rsaNumbers(a)
		if err != nil {
			return nil, err
		}
		defer k.Wipe()
		return privateKeyInfo(oidRSA(), func(b *cryptobyte.Builder) { b.AddASN1NULL() }, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(0)
			for _, x := range []*big.Int{k.N, k.E, k.D, k.P, k.Q, k.DP, k.DQ, k.QInv} {
				b.AddASN1BigInt(x)
			}
		})
	case p11.CKK_EC:
		params, _ := a.Get(p11.CKA_EC_PARAMS)
		value, _ := a.Get(p11.CKA_VALUE)
		var point []byte
		if c, err := curveOf(params); err == nil {
			for len(value) > c.Size && value[0] == 0 {
				value = value[1:]
			}
			if len(value) > c.Size {
				return nil, keyDamaged("its value does not fit the curve")
			}
			value = leftPad(value, c.Size)
			defer wipe(value)
			k, err := c.ecdh.NewPrivateKey(value)
			if err != nil {
				return nil, keyDamaged("its value does not fit the curve")
			}
			params, point = c.params, k.PublicKey().Bytes()
		}
		return privateKeyInfo(oidEC(), func(b *cryptobyte.Builder) { b.AddBytes(params) }, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			b.AddASN1OctetString(value)
			if point != nil {
				b.AddASN1(cbasn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1BitString(point) })
			}
		})
	}
	return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "private keys of type %s cannot be wrapped", kt)
}

func privateKeyInfo(alg asn1.ObjectIdentifier, params, key func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(alg)
			params(b)
		})
		b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, key) })
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return der, nil
}

func errNoKey(why string) error {
	return p11.Errorf(p11.CKR_WRAPPED_KEY_INVALID, "the unwrapped bytes are no private key: %s", why)
}

// decodePrivateKey returns the key attributes of a PrivateKeyInfo, which must be
// of type kt. The bytes come from whoever made the wrapped key.
func decodePrivateKey(der []byte, kt p11.KeyType) (p11.Attributes, error) {
	in := cryptobyte.String(der)
	var info, alg, octets, seq cryptobyte.String
	var version int64
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&info, cbasn1.SEQUENCE) || !in.Empty() ||
		!info.ReadASN1Integer(&version) || version < 0 || version > 1 ||
		!info.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) ||
		!info.ReadASN1(&octets, cbasn1.OCTET_STRING) ||
		!octets.ReadASN1(&seq, cbasn1.SEQUENCE) || !octets.Empty() {
		return nil, errNoKey("not the DER of PKCS#8")
	}
	switch {
	case oid.Equal(oidRSA()) && kt == p11.CKK_RSA:
		return decodeRSA(seq)
	case oid.Equal(oidEC()) && kt == p11.CKK_EC:
		return decodeEC(alg, seq)
	}
	return nil, errNoKey("it is of another type than the template says")
}

func decodeRSA(seq cryptobyte.String) (p11.Attributes, error) {
	var version int64
	if !seq.ReadASN1Integer(&version) || version != 0 {
		return nil, errNoKey("not an RSA key with two primes")
	}
	types := [...]p11.AttributeType{
		p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1,
		p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT,
	}
	var a p11.Attributes
	for _, t := range types {
		var x []byte // non-negative, without leading zeros
		if !seq.ReadASN1Integer(&x) || len(x) == 0 {
			a.Wipe()
			return nil, errNoKey("not an RSA private key")
		}
		a.Set(t, append([]byte(nil), x...))
	}
	k, err := rsaNumbers(a)
	if err != nil {
		a.Wipe()
		return nil, errNoKey("its numbers do not fit together")
	}
	defer k.Wipe()
	fits := seq.Empty()
	for t, x := range map[p11.AttributeType]*big.Int{p11.CKA_EXPONENT_1: k.DP, p11.CKA_EXPONENT_2: k.DQ, p11.CKA_COEFFICIENT: k.QInv} {
		given := attributeInt(a, t)
		fits = fits && given.Cmp(x) == 0
		wipeInt(given)
	}
	if !fits {
		a.Wipe()
		return nil, errNoKey("its numbers do not fit together")
	}
	return a, nil
}

func decodeEC(alg, seq cryptobyte.String) (p11.Attributes, error) {
	params := []byte(alg)
	c, err := curveOf(params)
	if err != nil {
		return nil, err
	}
	var version int64
	var value cryptobyte.String
	if !seq.ReadASN1Integer(&version) || version != 1 || !seq.ReadASN1(&value, cbasn1.OCTET_STRING) ||
		len(value) == 0 || len(value) > c.Size {
		return nil, errNoKey("not an EC private key")
	}
	scalar := leftPad(value, c.Size)
	if _, err := c.ecdh.NewPrivateKey(scalar); err != nil {
		wipe(scalar)
		return nil, errNoKey("its value does not fit the curve")
	}
	var a p11.Attributes
	a.Set(p11.CKA_EC_PARAMS, append([]byte(nil), c.params...))
	a.Set(p11.CKA_VALUE, scalar)
	return a, nil
}
