package p11

// MasterSecretLen is the length in bytes of the master secrets of SSL and TLS, and of the
// premaster secrets of RSA.
const MasterSecretLen = 48

// A KeyMaker is the parameter of a derivation that makes other keys than the one of the
// template, or more.
type KeyMaker interface {
	// Makes returns the templates of the keys that are made for t, the template of the
	// call; nil for one that is left out. The first is the key that C_DeriveKey returns,
	// if own is set; the handles of the others go into the parameter.
	Makes(t Attributes) (templates []Attributes, own bool)
}

// Makes are the MAC secrets of client and server, and their keys (PKCS#11 v3.1 §6.39.4,
// CKM_SSL3_KEY_AND_MAC_DERIVE).
func (v *SSL3KeyMatParams) Makes(t Attributes) ([]Attributes, bool) {
	return keyMat(t, v.MACBits, v.KeyBits), false
}

// Makes are the same.
func (v *TLS12KeyMatParams) Makes(t Attributes) ([]Attributes, bool) {
	return keyMat(t, v.MACBits, v.KeyBits), false
}

func keyMat(t Attributes, macBits, keyBits uint64) []Attributes {
	var mac, key Attributes
	if macBits > 0 {
		mac = t.Clone()
		for _, a := range []AttributeType{CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP} {
			mac.Delete(a)
		}
		mac.SetUlong(CKA_KEY_TYPE, uint64(CKK_GENERIC_SECRET))
		mac.SetUlong(CKA_VALUE_LEN, macBits/8)
		for _, a := range []AttributeType{CKA_SIGN, CKA_VERIFY, CKA_DERIVE} {
			mac.SetBool(a, true)
		}
	}
	if keyBits > 0 {
		key = t.Clone()
		key.Delete(CKA_VALUE_LEN)
		if kt, ok := key.KeyType(); !ok || len(KeyLengths(kt)) != 1 {
			key.SetUlong(CKA_VALUE_LEN, keyBits/8)
		}
		for _, a := range []AttributeType{CKA_ENCRYPT, CKA_DECRYPT, CKA_DERIVE} {
			key.SetBool(a, true)
		}
	}
	return []Attributes{mac, mac, key, key}
}
