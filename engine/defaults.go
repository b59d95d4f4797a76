package engine

import (
	"slices"

	"p11fs/p11"
)

// Defaults say which attributes of a key are true where its template is silent.
// Whoever makes an application chooses.
type Defaults int

const (
	// ForPeople are those of the file tree: a key does what its type is for, keeps
	// its value, and wraps and unwraps only when asked to. A key that both
	// decrypts and wraps tells every extractable key.
	ForPeople Defaults = iota
	// ForPrograms are those of the modules: programs are written for what the
	// common tokens say, and leave out of their templates what is true there.
	ForPrograms
)

// A keyDefault says what is true of some keys by default; all rows that fit a key
// count.
type keyDefault struct {
	name  string // for the documents
	class p11.ObjectClass
	types []p11.KeyType // nil for each

	both, people, programs []p11.AttributeType
}

// keyDefaults is the table. CKA_EXTRACTABLE is the one default that depends on more
// than the key: see extractable.
func keyDefaults() []keyDefault {
	sign := []p11.AttributeType{p11.CKA_SIGN}
	verify := []p11.AttributeType{p11.CKA_VERIFY}
	private := []p11.AttributeType{p11.CKA_PRIVATE}
	sensitive := []p11.AttributeType{p11.CKA_SENSITIVE}
	signers := []p11.KeyType{p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_DSA, p11.CKK_ML_DSA, p11.CKK_SLH_DSA, p11.CKK_IBM_ML_DSA}
	return []keyDefault{
		{name: "RSA public", class: p11.CKO_PUBLIC_KEY, types: []p11.KeyType{p11.CKK_RSA},
			both:     []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_VERIFY, p11.CKA_VERIFY_RECOVER},
			programs: []p11.AttributeType{p11.CKA_WRAP}},
		{name: "EC, EdDSA, DSA, ML-DSA, IBM ML-DSA and SLH-DSA public", class: p11.CKO_PUBLIC_KEY, types: signers, both: verify},
		{name: "every private", class: p11.CKO_PRIVATE_KEY, both: append(private, sensitive...)},
		{name: "RSA private", class: p11.CKO_PRIVATE_KEY, types: []p11.KeyType{p11.CKK_RSA},
			both:     []p11.AttributeType{p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_SIGN_RECOVER},
			programs: []p11.AttributeType{p11.CKA_UNWRAP}},
		{name: "EC, EdDSA, DSA, ML-DSA, IBM ML-DSA and SLH-DSA private", class: p11.CKO_PRIVATE_KEY, types: signers, both: sign},
		{name: "X25519, X448, DH and IBM ML-KEM private", class: p11.CKO_PRIVATE_KEY, types: []p11.KeyType{p11.CKK_EC_MONTGOMERY, p11.CKK_DH, p11.CKK_IBM_ML_KEM},
			people: []p11.AttributeType{p11.CKA_DERIVE}},
		{name: "ML-KEM public", class: p11.CKO_PUBLIC_KEY, types: []p11.KeyType{p11.CKK_ML_KEM}, both: []p11.AttributeType{p11.CKA_ENCAPSULATE}},
		{name: "ML-KEM private", class: p11.CKO_PRIVATE_KEY, types: []p11.KeyType{p11.CKK_ML_KEM}, both: []p11.AttributeType{p11.CKA_DECAPSULATE}},
		{name: "IBM ML-KEM public", class: p11.CKO_PUBLIC_KEY, types: []p11.KeyType{p11.CKK_IBM_ML_KEM}, people: []p11.AttributeType{p11.CKA_DERIVE}},
		{name: "every secret", class: p11.CKO_SECRET_KEY, both: private, people: sensitive,
			programs: []p11.AttributeType{p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_WRAP, p11.CKA_UNWRAP}},
		{name: "AES and other ciphers", class: p11.CKO_SECRET_KEY, types: cipherKeys(),
			both: []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT}},
		{name: "generic and HMAC", class: p11.CKO_SECRET_KEY, types: macKeys(), both: append(sign, verify...)},
	}
}

// cipherKeys are the types of secret keys that encrypt.
func cipherKeys() []p11.KeyType {
	return []p11.KeyType{p11.CKK_AES, p11.CKK_AES_XTS, p11.CKK_DES, p11.CKK_DES2, p11.CKK_DES3, p11.CKK_CHACHA20}
}

// macKeys are the types of secret keys that sign.
func macKeys() []p11.KeyType {
	list := []p11.KeyType{p11.CKK_GENERIC_SECRET, p11.CKK_HKDF, p11.CKK_POLY1305}
	for _, h := range p11.Hashes() {
		facts, ok := p11.MechanismFacts(h.HMAC)
		if !ok || h.Go == 0 {
			continue
		}
		for _, t := range facts.KeyTypes {
			if !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	return list
}

// addDefaults gives each kind of key its rows of the table.
func (r *rules) addDefaults() {
	for k, set := range r.exact {
		for _, one := range keyDefaults() {
			if one.class != k.class || one.types != nil && !slices.Contains(one.types, p11.KeyType(k.sub)) {
				continue
			}
			set.yes[ForPeople] = append(set.yes[ForPeople], append(one.both, one.people...)...)
			set.yes[ForPrograms] = append(set.yes[ForPrograms], append(one.both, one.programs...)...)
		}
	}
}

// extractable is the default of CKA_EXTRACTABLE. Keys do not leave unless asked;
// programs are told of one that was unwrapped or encapsulated that others have it
// (PKCS#11 v3.2 §5.18.4, §5.18.8, §5.18.9: true).
func extractable(o origin, d Defaults) bool {
	return (o == unwrapped || o == encapsulated) && d == ForPrograms
}
