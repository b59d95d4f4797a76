package soft

import (
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// For a card the curves of RFC 7748 and RFC 8032 are curves as others: CKM_EC_KEY_PAIR_GEN
// makes keys on them, of type CKK_EC. What is done with the keys has numbers of IBM's own.

// octetMechanisms are those, each with the one curve that it is for.
func octetMechanisms() map[p11.MechanismType]string {
	return map[p11.MechanismType]string{
		p11.CKM_IBM_ED25519_SHA512: "ed25519", p11.CKM_IBM_ED448_SHA3: "ed448", p11.CKM_IBM_EC_X25519: "x25519", p11.CKM_IBM_EC_X448: "x448",
	}
}

// primitive is what does in the library what a mechanism does in a card.
func primitive(m p11.Mechanism) p11.Mechanism {
	switch m.Type {
	case p11.CKM_IBM_ED25519_SHA512:
		return p11.Mechanism{Type: p11.CKM_EDDSA}
	case p11.CKM_IBM_ED448_SHA3:
		return p11.Mechanism{Type: p11.CKM_EDDSA, Param: &p11.EdDSAParams{}}
	case p11.CKM_IBM_EC_X25519, p11.CKM_IBM_EC_X448:
		m.Type = p11.CKM_ECDH1_DERIVE
	}
	return m
}

// octetCurve is the curve of attributes, if its keys are strings of bytes.
func octetCurve(a p11.Attributes) (p11.Curve, bool) {
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	c, err := pkix.CurveOf(params)
	return c, err == nil && c.KeySize() > 0
}

// suits says whether a key is of a type that a mechanism takes.
func suits(t p11.MechanismType, k *key) bool {
	if c, octet := octetCurve(k.attrs); octet {
		return octetMechanisms()[t] == c.Name
	}
	kt, _ := k.attrs.KeyType()
	types := keyTypes(t)
	return types == nil || octetMechanisms()[t] == "" && slices.Contains(types, kt)
}

// pairOn is what the library makes a pair by, and its type, where the card is asked for keys
// of EC. The templates get the type.
func pairOn(m p11.Mechanism, kt p11.KeyType, templates ...*p11.Attributes) (p11.Mechanism, p11.KeyType) {
	c, octet := octetCurve(*templates[0])
	if kt != p11.CKK_EC || !octet {
		return m, kt
	}
	for _, a := range templates {
		a.SetUlong(p11.CKA_KEY_TYPE, uint64(c.KeyType))
	}
	if c.KeyType == p11.CKK_EC_EDWARDS {
		return p11.Mechanism{Type: p11.CKM_EC_EDWARDS_KEY_PAIR_GEN}, c.KeyType
	}
	return p11.Mechanism{Type: p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN}, c.KeyType
}

// unwrappedTypes are the types that a private key may have in the library whose template says
// a type.
func unwrappedTypes(a p11.Attributes) []p11.KeyType {
	kt, _ := a.KeyType()
	switch c, octet := octetCurve(a); {
	case kt != p11.CKK_EC:
		return []p11.KeyType{kt}
	case octet:
		return []p11.KeyType{c.KeyType}
	case a.Has(p11.CKA_EC_PARAMS):
		return []p11.KeyType{kt}
	}
	return []p11.KeyType{kt, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY}
}
