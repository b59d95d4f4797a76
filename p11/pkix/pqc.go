package pkix

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/p11/pqc"
	"p11fs/secret"
)

// pqcType is the keys of a parameter set of ML-DSA, SLH-DSA or ML-KEM (RFC 9881, RFC 9909,
// RFC 9935): each set has an algorithm of its own. What goes by attributes is the same for
// all sets of a type.
func pqcType(s pqc.Set) keyType {
	return keyType{
		kt: s.KeyType, oid: s.OID, complete: completePQC, writePrivate: writePQCPrivate,
		readPublic: func(alg algorithm, bits []byte) (p11.Attributes, error) {
			if len(alg.params) > 0 {
				return nil, invalid(formSPKI)
			}
			if _, err := s.NewPublicKey(bits); err != nil {
				return nil, p11.Errorf(p11.CKR_DATA_INVALID, "the public key: %v", err)
			}
			return pqcPublic(s, bits), nil
		},
		readPrivate: func(alg algorithm, key []byte) (priv, pub p11.Attributes, err error) {
			if len(alg.params) > 0 {
				return nil, nil, invalid(formPKCS8)
			}
			return readPQCPrivate(s, key)
		},
		info: func(attrs p11.Attributes) ([]byte, error) {
			s, err := pqc.SetOfKey(attrs)
			if err != nil {
				return nil, err
			}
			value, _ := attrs.Get(p11.CKA_VALUE)
			if class, ok := attrs.Class(); ok && class == p11.CKO_PRIVATE_KEY {
				if value, err = s.Public(value); err != nil {
					return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its public half")
				}
			}
			return pqcSPKI(s, value)
		},
		golang: func(algorithm, []byte) (any, error) {
			return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "keys of %s have no form here but PEM and DER", s.Name)
		},
	}
}

func pqcPublic(s pqc.Set, value []byte) (pub p11.Attributes) {
	pub.SetUlong(p11.CKA_KEY_TYPE, uint64(s.KeyType))
	pub.SetUlong(p11.CKA_PARAMETER_SET, s.Number)
	pub.Set(p11.CKA_VALUE, bytes.Clone(value))
	return pub
}

func pqcSPKI(s pqc.Set, public []byte) ([]byte, error) {
	if len(public) != s.PublicSize {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: a public key of %s has %d bytes, not %d", s.Name, s.PublicSize, len(public))
	}
	return buildSPKI(algorithm{oid: s.OID}, public)
}

// The forms of a private key that has a seed (RFC 9881 §6, RFC 9935 §6): the seed, the
// expanded key, both.
func seedTag() asn1.Tag { return asn1.Tag(0).ContextSpecific() }

// readPQCPrivate reads the key of a PrivateKeyInfo. One of SLH-DSA is its bytes as they
// are (RFC 9909 §5).
func readPQCPrivate(s pqc.Set, key []byte) (priv, pub p11.Attributes, err error) {
	in := cryptobyte.String(key)
	var both, seed, value cryptobyte.String
	ok := false
	switch {
	case s.SeedSize == 0:
		value, ok = in, true
	case in.PeekASN1Tag(seedTag()):
		ok = in.ReadASN1(&seed, seedTag()) && in.Empty()
	case in.PeekASN1Tag(asn1.OCTET_STRING):
		ok = in.ReadASN1(&value, asn1.OCTET_STRING) && in.Empty()
	default:
		ok = in.ReadASN1(&both, asn1.SEQUENCE) && in.Empty() &&
			both.ReadASN1(&seed, asn1.OCTET_STRING) && both.ReadASN1(&value, asn1.OCTET_STRING) && both.Empty()
	}
	if !ok {
		return nil, nil, invalid(formPKCS8)
	}
	p, err := pqcPair(s, seed, value)
	if err != nil {
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "%v", err)
	}
	priv.SetUlong(p11.CKA_PARAMETER_SET, s.Number)
	priv.Set(p11.CKA_VALUE, p.Private)
	if p.Seed != nil {
		priv.Set(p11.CKA_SEED, p.Seed)
	}
	return priv, pqcPublic(s, p.Public), nil
}

// pqcPair is the pair of a seed, of an expanded key, or of both, which must belong
// together. That an SLH-DSA key is whole takes long to find out, and is not looked for:
// Complete does that.
func pqcPair(s pqc.Set, seed, value []byte) (p pqc.Pair, err error) {
	switch {
	case len(seed) > 0:
		own := bytes.Clone(seed)
		p, err = s.Expand(own)
		if err == nil && len(value) > 0 && !bytes.Equal(value, p.Private) {
			err = p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the private key is not that of its seed")
		}
		if err != nil {
			secret.Wipe(own)
			p.Wipe()
			return pqc.Pair{}, err
		}
		return p, nil
	case s.Slow():
		p.Public, err = s.Public(value)
	default:
		p.Public, err = s.Check(value)
	}
	if err != nil {
		return pqc.Pair{}, err
	}
	p.Private = bytes.Clone(value)
	return p, nil
}

// completePQC checks the value of a key, makes that of a private one from its seed, and
// returns CKA_PUBLIC_KEY_INFO.
func completePQC(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
	s, err := pqc.SetOfKey(*attrs)
	if err != nil {
		return nil, err
	}
	value, _ := attrs.Get(p11.CKA_VALUE)
	if class == p11.CKO_PUBLIC_KEY {
		if len(value) == 0 {
			return nil, missing(p11.CKA_VALUE)
		}
		if _, err := s.NewPublicKey(value); err != nil {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: %v", err)
		}
		return pqcSPKI(s, value)
	}
	seed, _ := attrs.Get(p11.CKA_SEED)
	if len(seed) == 0 {
		attrs.Delete(p11.CKA_SEED) // an empty one is none
		if len(value) == 0 {
			return nil, missing(p11.CKA_VALUE)
		}
	}
	p, err := pqcPair(s, seed, value)
	if err == nil && s.Slow() {
		p.Wipe()
		p = pqc.Pair{}
		p.Public, err = s.Check(value)
	}
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: %v", err)
	}
	defer p.Wipe()
	if len(value) == 0 {
		attrs.Set(p11.CKA_VALUE, bytes.Clone(p.Private))
	}
	return pqcSPKI(s, p.Public)
}

// writePQCPrivate returns the PrivateKeyInfo of a key: with its seed and expanded, for
// programs that read one of them alone, or expanded where there is no seed.
func writePQCPrivate(attrs p11.Attributes) ([]byte, error) {
	s, err := pqc.SetOfKey(attrs)
	if err != nil {
		return nil, err
	}
	value, ok := attrs.Get(p11.CKA_VALUE)
	if !ok {
		return nil, missing(p11.CKA_VALUE)
	}
	seed, _ := attrs.Get(p11.CKA_SEED)
	return buildPKCS8Of(algorithm{oid: s.OID}, func(b *cryptobyte.Builder) {
		switch {
		case s.SeedSize == 0:
			b.AddBytes(value)
		case len(seed) == 0:
			b.AddASN1OctetString(value)
		default:
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString(seed)
				b.AddASN1OctetString(value)
			})
		}
	})
}
