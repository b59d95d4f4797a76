package engine

import "p11fs/p11"

// addPublicKeys: §4.8. What is true by default is in keyDefaults.
func (r *rules) addPublicKeys() {
	common := newRuleset(storage(p11.CKO_PUBLIC_KEY), keys(), []rule{
		{p11.CKA_SUBJECT, modifiable, empty()},
		{p11.CKA_ENCRYPT, modifiable, no()},
		{p11.CKA_VERIFY, modifiable, no()},
		{p11.CKA_VERIFY_RECOVER, modifiable, no()},
		{p11.CKA_WRAP, modifiable, no()},
		{p11.CKA_ENCAPSULATE, modifiable, no()},
		{p11.CKA_TRUSTED, trueBySO, no()},
		{p11.CKA_WRAP_TEMPLATE, 0, nil},
		{p11.CKA_ENCAPSULATE_TEMPLATE, 0, nil},
		{p11.CKA_PUBLIC_KEY_INFO, 0, nil},
	})
	r.classes[p11.CKO_PUBLIC_KEY] = common
	add := func(t p11.KeyType, list ...rule) {
		r.exact[kind{p11.CKO_PUBLIC_KEY, uint64(t)}] = newRuleset(common.rules, list)
	}
	add(p11.CKK_RSA,
		rule{p11.CKA_MODULUS, needCreate | keyPart, nil},
		rule{p11.CKA_MODULUS_BITS, needGenerate | noUnwrap, nil},
		rule{p11.CKA_PUBLIC_EXPONENT, needCreate | noUnwrap, nil},
	)
	for _, t := range []p11.KeyType{p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY} {
		add(t,
			rule{p11.CKA_EC_PARAMS, needCreate | needGenerate | noUnwrap, nil},
			rule{p11.CKA_EC_POINT, needCreate | keyPart, nil},
		)
	}
	add(p11.CKK_DH,
		rule{p11.CKA_PRIME, needCreate | needGenerate, nil},
		rule{p11.CKA_BASE, needCreate | needGenerate, nil},
		rule{p11.CKA_VALUE, needCreate | keyPart, nil},
	)
	add(p11.CKK_DSA,
		rule{p11.CKA_PRIME, needCreate | needGenerate, nil},
		rule{p11.CKA_SUBPRIME, needCreate | needGenerate, nil},
		rule{p11.CKA_BASE, needCreate | needGenerate, nil},
		rule{p11.CKA_VALUE, needCreate | keyPart, nil},
	)
	for _, t := range []p11.KeyType{p11.CKK_ML_DSA, p11.CKK_SLH_DSA, p11.CKK_ML_KEM} { // PKCS#11 v3.2 §6.67 to §6.69
		add(t,
			rule{p11.CKA_PARAMETER_SET, needCreate | needGenerate | noUnwrap, nil},
			rule{p11.CKA_VALUE, needCreate | keyPart, nil},
		)
	}
	// openCryptoki's own, usr/lib/common/key.c there: made of CKA_VALUE, or of the parameter
	// set and the parts. When a pair is generated either half has the set.
	set, value := rule{p11.CKA_IBM_PARAMETER_SET, noUnwrap, nil}, rule{p11.CKA_VALUE, keyPart, nil}
	add(p11.CKK_IBM_ML_DSA, set, value, rule{p11.CKA_IBM_ML_DSA_RHO, keyPart, nil}, rule{p11.CKA_IBM_ML_DSA_T1, keyPart, nil})
	add(p11.CKK_IBM_ML_KEM, set, value, rule{p11.CKA_IBM_ML_KEM_PK, keyPart, nil})
}

// addPrivateKeys: §4.9. CKA_EXTRACTABLE depends on the origin (extractable).
func (r *rules) addPrivateKeys() {
	common := newRuleset(storage(p11.CKO_PRIVATE_KEY), keys(), []rule{
		{p11.CKA_SUBJECT, modifiable, empty()},
		{p11.CKA_SENSITIVE, modifiable | staysTrue, no()},
		{p11.CKA_DECRYPT, modifiable, no()},
		{p11.CKA_SIGN, modifiable, no()},
		{p11.CKA_SIGN_RECOVER, modifiable, no()},
		{p11.CKA_UNWRAP, modifiable, no()},
		{p11.CKA_DECAPSULATE, modifiable, no()},
		{p11.CKA_EXTRACTABLE, modifiable | staysFalse, nil},
		{p11.CKA_ALWAYS_SENSITIVE, computed, nil},
		{p11.CKA_NEVER_EXTRACTABLE, computed, nil},
		{p11.CKA_WRAP_WITH_TRUSTED, modifiable | staysTrue, no()},
		{p11.CKA_UNWRAP_TEMPLATE, 0, nil},
		{p11.CKA_DERIVE_TEMPLATE, 0, nil},
		{p11.CKA_DECAPSULATE_TEMPLATE, 0, nil},
		{p11.CKA_ALWAYS_AUTHENTICATE, 0, no()},
		{p11.CKA_PUBLIC_KEY_INFO, modifiable, nil},
	})
	r.classes[p11.CKO_PRIVATE_KEY] = common
	add := func(t p11.KeyType, list ...rule) {
		r.exact[kind{p11.CKO_PRIVATE_KEY, uint64(t)}] = newRuleset(common.rules, list)
	}
	add(p11.CKK_RSA,
		rule{p11.CKA_MODULUS, needCreate | keyPart, nil},
		rule{p11.CKA_PUBLIC_EXPONENT, needCreate | keyPart, nil},
		rule{p11.CKA_PRIVATE_EXPONENT, needCreate | keyPart, nil},
		rule{p11.CKA_PRIME_1, keyPart, nil},
		rule{p11.CKA_PRIME_2, keyPart, nil},
		rule{p11.CKA_EXPONENT_1, keyPart, nil},
		rule{p11.CKA_EXPONENT_2, keyPart, nil},
		rule{p11.CKA_COEFFICIENT, keyPart, nil},
	)
	for _, t := range []p11.KeyType{p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY} {
		add(t,
			rule{p11.CKA_EC_PARAMS, needCreate | keyPart, nil},
			rule{p11.CKA_VALUE, needCreate | keyPart, nil},
			// Not in the standard's table, but given by many importers, and
			// checked against the value.
			rule{p11.CKA_EC_POINT, keyPart, nil},
		)
	}
	add(p11.CKK_DH,
		rule{p11.CKA_PRIME, needCreate | keyPart, nil},
		rule{p11.CKA_BASE, needCreate | keyPart, nil},
		rule{p11.CKA_VALUE, needCreate | keyPart, nil},
		rule{p11.CKA_VALUE_BITS, noCreate | noUnwrap, nil},
	)
	add(p11.CKK_DSA,
		rule{p11.CKA_PRIME, needCreate | keyPart, nil},
		rule{p11.CKA_SUBPRIME, needCreate | keyPart, nil},
		rule{p11.CKA_BASE, needCreate | keyPart, nil},
		rule{p11.CKA_VALUE, needCreate | keyPart, nil},
	)
	for _, t := range []p11.KeyType{p11.CKK_ML_DSA, p11.CKK_ML_KEM} {
		add(t,
			rule{p11.CKA_PARAMETER_SET, needCreate | keyPart, nil},
			// One of the two will do, or both.
			rule{p11.CKA_SEED, keyPart, nil},
			rule{p11.CKA_VALUE, keyPart, nil},
		)
	}
	add(p11.CKK_SLH_DSA,
		rule{p11.CKA_PARAMETER_SET, needCreate | keyPart, nil},
		rule{p11.CKA_VALUE, needCreate | keyPart, nil},
	)
	parts := func(list ...p11.AttributeType) []rule { // as public ones
		rules := []rule{{p11.CKA_IBM_PARAMETER_SET, noUnwrap, nil}, {p11.CKA_VALUE, keyPart, nil}}
		for _, t := range list {
			rules = append(rules, rule{t, keyPart, nil})
		}
		return rules
	}
	add(p11.CKK_IBM_ML_DSA, parts(p11.CKA_IBM_ML_DSA_RHO, p11.CKA_IBM_ML_DSA_SEED, p11.CKA_IBM_ML_DSA_TR, p11.CKA_IBM_ML_DSA_S1,
		p11.CKA_IBM_ML_DSA_S2, p11.CKA_IBM_ML_DSA_T0, p11.CKA_IBM_ML_DSA_T1, p11.CKA_IBM_ML_DSA_PRIVATE_SEED)...)
	add(p11.CKK_IBM_ML_KEM, parts(p11.CKA_IBM_ML_KEM_SK, p11.CKA_IBM_ML_KEM_PK, p11.CKA_IBM_ML_KEM_PRIVATE_SEED)...)
}

// addSecretKeys: §4.10. CKA_EXTRACTABLE depends on the origin (extractable).
func (r *rules) addSecretKeys() {
	common := newRuleset(storage(p11.CKO_SECRET_KEY), keys(), []rule{
		{p11.CKA_SENSITIVE, modifiable | staysTrue, no()},
		{p11.CKA_ENCRYPT, modifiable, no()},
		{p11.CKA_DECRYPT, modifiable, no()},
		{p11.CKA_SIGN, modifiable, no()},
		{p11.CKA_VERIFY, modifiable, no()},
		{p11.CKA_WRAP, modifiable, no()},
		{p11.CKA_UNWRAP, modifiable, no()},
		{p11.CKA_EXTRACTABLE, modifiable | staysFalse, nil},
		{p11.CKA_ALWAYS_SENSITIVE, computed, nil},
		{p11.CKA_NEVER_EXTRACTABLE, computed, nil},
		{p11.CKA_CHECK_VALUE, 0, nil},
		{p11.CKA_WRAP_WITH_TRUSTED, modifiable | staysTrue, no()},
		{p11.CKA_TRUSTED, trueBySO, no()},
		{p11.CKA_WRAP_TEMPLATE, 0, nil},
		{p11.CKA_UNWRAP_TEMPLATE, 0, nil},
		{p11.CKA_DERIVE_TEMPLATE, 0, nil},
		{p11.CKA_VALUE, needCreate | keyPart, nil},
	})
	r.classes[p11.CKO_SECRET_KEY] = common
	add := func(t p11.KeyType, list ...rule) {
		r.exact[kind{p11.CKO_SECRET_KEY, uint64(t)}] = newRuleset(common.rules, list)
	}
	length := rule{p11.CKA_VALUE_LEN, needGenerate, nil}
	for _, t := range cipherKeys() {
		if len(p11.KeyLengths(t)) > 1 {
			add(t, length)
		} else {
			add(t, rule{p11.CKA_VALUE_LEN, 0, nil})
		}
	}
	for _, t := range macKeys() {
		add(t, length)
	}
}
