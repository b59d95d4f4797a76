package engine

import "p11fs/p11"

// newRules makes the tables of PKCS#11 v3.1 §4.4 to §4.11 and of the key objects
// of §6. Defaults that the standard leaves to the token are explained in doc.go.
func newRules() *rules {
	r := &rules{exact: make(map[kind]*ruleset), classes: make(map[p11.ObjectClass]*ruleset)}
	r.addData()
	r.addCertificates()
	r.addPublicKeys()
	r.addPrivateKeys()
	r.addSecretKeys()
	r.addDomainParameters()
	r.addDefaults()
	return r
}

// storage is common to all objects that can be made (§4.4).
func storage(class p11.ObjectClass) []rule {
	return []rule{
		{p11.CKA_CLASS, 0, nil},
		{p11.CKA_TOKEN, onCopy, no()},
		{p11.CKA_PRIVATE, onCopy, no()},
		{p11.CKA_MODIFIABLE, onCopy | staysFalse, yes()},
		{p11.CKA_LABEL, modifiable, empty()},
		{p11.CKA_COPYABLE, modifiable | staysFalse, yes()},
		{p11.CKA_DESTROYABLE, onCopy, yes()},
		{p11.CKA_UNIQUE_ID, computed, nil},
	}
}

// addData: §4.5.
func (r *rules) addData() {
	set := newRuleset(storage(p11.CKO_DATA), []rule{
		{p11.CKA_APPLICATION, modifiable, empty()},
		{p11.CKA_OBJECT_ID, modifiable, empty()},
		{p11.CKA_VALUE, modifiable, empty()},
	})
	r.classes[p11.CKO_DATA] = set
	r.exact[kind{class: p11.CKO_DATA}] = set
}

// addCertificates: §4.6.
func (r *rules) addCertificates() {
	common := newRuleset(storage(p11.CKO_CERTIFICATE), []rule{
		{p11.CKA_CERTIFICATE_TYPE, needCreate, nil},
		{p11.CKA_TRUSTED, trueBySO, no()},
		{p11.CKA_CERTIFICATE_CATEGORY, 0, p11.Ulong[uint64](0)},
		{p11.CKA_CHECK_VALUE, 0, nil},
		{p11.CKA_START_DATE, 0, empty()},
		{p11.CKA_END_DATE, 0, empty()},
		{p11.CKA_PUBLIC_KEY_INFO, 0, nil},
	})
	r.classes[p11.CKO_CERTIFICATE] = common
	r.exact[kind{p11.CKO_CERTIFICATE, uint64(p11.CKC_X_509)}] = newRuleset(common.rules, []rule{
		{p11.CKA_SUBJECT, needCreate, nil},
		{p11.CKA_ID, modifiable, empty()},
		{p11.CKA_ISSUER, modifiable, empty()},
		{p11.CKA_SERIAL_NUMBER, modifiable, empty()},
		{p11.CKA_VALUE, needCreate, nil},
		{p11.CKA_URL, 0, nil},
		{p11.CKA_HASH_OF_SUBJECT_PUBLIC_KEY, 0, nil},
		{p11.CKA_HASH_OF_ISSUER_PUBLIC_KEY, 0, nil},
		{p11.CKA_JAVA_MIDP_SECURITY_DOMAIN, 0, nil},
		{p11.CKA_NAME_HASH_ALGORITHM, 0, nil},
	})
	r.exact[kind{p11.CKO_CERTIFICATE, uint64(p11.CKC_X_509_ATTR_CERT)}] = newRuleset(common.rules, []rule{
		{p11.CKA_OWNER, needCreate, nil},
		{p11.CKA_AC_ISSUER, modifiable, empty()},
		{p11.CKA_SERIAL_NUMBER, modifiable, empty()},
		{p11.CKA_ATTR_TYPES, modifiable, empty()},
		{p11.CKA_VALUE, needCreate, nil},
	})
	r.exact[kind{p11.CKO_CERTIFICATE, uint64(p11.CKC_WTLS)}] = newRuleset(common.rules, []rule{
		{p11.CKA_SUBJECT, needCreate, nil},
		{p11.CKA_ISSUER, modifiable, empty()},
		{p11.CKA_VALUE, needCreate, nil},
		{p11.CKA_URL, 0, nil},
		{p11.CKA_HASH_OF_SUBJECT_PUBLIC_KEY, 0, nil},
		{p11.CKA_HASH_OF_ISSUER_PUBLIC_KEY, 0, nil},
		{p11.CKA_NAME_HASH_ALGORITHM, 0, nil},
	})
}

// keys is common to all keys (§4.7).
func keys() []rule {
	return []rule{
		{p11.CKA_KEY_TYPE, needCreate | needUnwrap, nil},
		{p11.CKA_ID, modifiable, empty()},
		{p11.CKA_START_DATE, modifiable, empty()},
		{p11.CKA_END_DATE, modifiable, empty()},
		{p11.CKA_DERIVE, modifiable, no()},
		{p11.CKA_LOCAL, computed, nil},
		{p11.CKA_KEY_GEN_MECHANISM, computed, nil},
		{p11.CKA_ALLOWED_MECHANISMS, 0, nil},
		// Clients of current openCryptoki give these to every key. No key here has a
		// protected form, which the first two are about.
		{p11.CKA_IBM_PROTKEY_EXTRACTABLE, 0, nil},
		{p11.CKA_IBM_PROTKEY_NEVER_EXTRACTABLE, computed, nil},
		{p11.CKA_IBM_ATTRBOUND, 0, nil},
		{p11.CKA_IBM_USE_AS_DATA, 0, nil},
	}
}

// addDomainParameters: §4.11.
func (r *rules) addDomainParameters() {
	common := newRuleset(storage(p11.CKO_DOMAIN_PARAMETERS), []rule{
		{p11.CKA_KEY_TYPE, needCreate, nil},
		{p11.CKA_LOCAL, computed, nil},
		{p11.CKA_PRIME, needCreate | noGenerate, nil},
		{p11.CKA_BASE, needCreate | noGenerate, nil},
		{p11.CKA_PRIME_BITS, noCreate | needGenerate, nil},
	})
	r.classes[p11.CKO_DOMAIN_PARAMETERS] = common
	r.exact[kind{p11.CKO_DOMAIN_PARAMETERS, uint64(p11.CKK_DH)}] = common
	r.exact[kind{p11.CKO_DOMAIN_PARAMETERS, uint64(p11.CKK_DSA)}] = newRuleset(common.rules, []rule{
		{p11.CKA_SUBPRIME, needCreate | noGenerate, nil},
		{p11.CKA_SUBPRIME_BITS, noCreate, nil},
	})
}

func yes() []byte   { return p11.Bool(true) }
func no() []byte    { return p11.Bool(false) }
func empty() []byte { return []byte{} }
