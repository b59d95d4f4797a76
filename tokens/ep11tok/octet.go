package ep11tok

import (
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// For a card the curves of RFC 7748 and RFC 8032 are curves as others, and what is done with
// keys on them has numbers of IBM's own: the token's mechanisms are others than the card's,
// as in openCryptoki 3.27.

// onCard are the mechanisms of the card that one of the token's takes. Of the first are the
// sizes and uses.
func onCard(t p11.MechanismType) []p11.MechanismType {
	switch t {
	case p11.CKM_EC_EDWARDS_KEY_PAIR_GEN:
		return []p11.MechanismType{p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_IBM_ED25519_SHA512}
	case p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN:
		return []p11.MechanismType{p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_IBM_EC_X25519}
	case p11.CKM_EDDSA:
		return []p11.MechanismType{p11.CKM_IBM_ED25519_SHA512}
	case p11.CKM_PUB_KEY_FROM_PRIV_KEY:
		return nil // the object has the public numbers
	}
	return []p11.MechanismType{numbered(t)}
}

// octetKeys says whether keys of a type are on those curves. The card has them for keys of EC.
func octetKeys(kt p11.KeyType) bool { return kt == p11.CKK_EC_EDWARDS || kt == p11.CKK_EC_MONTGOMERY }

// sha3 has the numbers of a hash of SHA-3 and of its HMAC: the standard's, and IBM's, which are
// older and are what cards have.
type sha3 struct{ hash, hmac, ibm, ibmHMAC p11.MechanismType }

func allSHA3() [4]sha3 {
	return [...]sha3{
		{p11.CKM_SHA3_224, p11.CKM_SHA3_224_HMAC, p11.CKM_IBM_SHA3_224, p11.CKM_IBM_SHA3_224_HMAC},
		{p11.CKM_SHA3_256, p11.CKM_SHA3_256_HMAC, p11.CKM_IBM_SHA3_256, p11.CKM_IBM_SHA3_256_HMAC},
		{p11.CKM_SHA3_384, p11.CKM_SHA3_384_HMAC, p11.CKM_IBM_SHA3_384, p11.CKM_IBM_SHA3_384_HMAC},
		{p11.CKM_SHA3_512, p11.CKM_SHA3_512_HMAC, p11.CKM_IBM_SHA3_512, p11.CKM_IBM_SHA3_512_HMAC},
	}
}

// numbered is a mechanism of SHA-3 by the number that the card knows. Others stay what they are.
func numbered(t p11.MechanismType) p11.MechanismType {
	for _, h := range allSHA3() {
		switch t {
		case h.hash:
			return h.ibm
		case h.hmac:
			return h.ibmHMAC
		}
	}
	return t
}

// translated is a mechanism as the card has it for a key of attributes a.
func translated(m p11.Mechanism, a p11.Attributes) (p11.Mechanism, error) {
	m.Type = numbered(m.Type)
	kt, _ := a.KeyType()
	if !octetKeys(kt) {
		return m, nil
	}
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	c, err := pkix.OctetCurve(kt, params)
	if err != nil {
		return m, err
	}
	card, ok := map[p11.MechanismType]map[string]p11.MechanismType{
		p11.CKM_EDDSA:        {"ed25519": p11.CKM_IBM_ED25519_SHA512, "ed448": p11.CKM_IBM_ED448_SHA3},
		p11.CKM_ECDH1_DERIVE: {"x25519": p11.CKM_IBM_EC_X25519, "x448": p11.CKM_IBM_EC_X448},
	}[m.Type][c.Name]
	if !ok {
		return m, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%s takes no key on %s", m.Type.Short(), c.Name)
	}
	if m.Type == p11.CKM_ECDH1_DERIVE {
		m.Type = card
		return m, nil
	}
	if p, ok := m.Param.(*p11.EdDSAParams); m.Param != nil && (!ok || p.Prehash || len(p.Context) > 0) {
		return m, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the card takes no context and no hash for %s", m.Type.Short())
	}
	return p11.Mechanism{Type: card}, nil
}
