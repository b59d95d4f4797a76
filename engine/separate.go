package engine

import (
	"slices"

	"p11fs/p11"
)

// A key that wraps others and decrypts data tells every extractable key, and one that
// encrypts data and unwraps makes keys of known values. The two kinds of usage are
// kept apart by the defaults of the tree, and with Config.SeparateWrapping by all that
// makes, changes and uses keys.
func wrappingUsages() []p11.AttributeType { return []p11.AttributeType{p11.CKA_WRAP, p11.CKA_UNWRAP} }

func dataUsages() []p11.AttributeType { return []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT} }

// hasUsage says whether one of the usages is true in attrs.
func hasUsage(attrs p11.Attributes, usages []p11.AttributeType) bool {
	return slices.ContainsFunc(usages, attrs.Bool)
}

// byDefault says whether t is true in a key whose template leaves it out.
func (r *rules) byDefault(set *ruleset, t p11.AttributeType, template p11.Attributes, o origin, d Defaults) bool {
	yes := slices.Contains(set.yes[d], t)
	switch {
	case r.separate && t == p11.CKA_SENSITIVE:
		return yes || o == unwrapped
	case r.separate && slices.Contains(wrappingUsages(), t):
		return false
	case (r.separate || d == ForPeople) && slices.Contains(dataUsages(), t):
		return yes && !hasUsage(template, wrappingUsages())
	}
	return yes
}

// halves gives the template of a private key what byDefault gives one key: a public
// key that wraps has no private one that decrypts because nobody says otherwise.
func (r *rules) halves(public, private p11.Attributes, d Defaults) (p11.Attributes, error) {
	if (!r.separate && d != ForPeople) || !hasUsage(public, wrappingUsages()) {
		return private, nil
	}
	if private.Has(p11.CKA_DECRYPT) {
		return private, r.separated(append(private.Clone(), public...), generated)
	}
	return private.With(p11.CKA_DECRYPT, p11.Bool(false)), nil
}

// separated refuses a key with both kinds of usage, and to unwrap a key into one whose
// value can be read.
func (r *rules) separated(attrs p11.Attributes, o origin) error {
	switch {
	case !r.separate:
	case hasUsage(attrs, wrappingUsages()) && hasUsage(attrs, dataUsages()):
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a key that wraps or unwraps neither encrypts nor decrypts here (separate-wrapping)")
	case o == unwrapped && !attrs.Bool(p11.CKA_SENSITIVE):
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "sensitive: is true for every key that is unwrapped here (separate-wrapping)")
	}
	return nil
}

// staysSeparated refuses a change that gives a key a kind of usage that it has not:
// what it has wrapped it could decrypt then.
func (r *rules) staysSeparated(attrs, changed p11.Attributes) error {
	for _, usages := range [][]p11.AttributeType{wrappingUsages(), dataUsages()} {
		if r.separate && hasUsage(changed, usages) && !hasUsage(attrs, usages) {
			return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: a key that was made for other usages does not get this one later here (separate-wrapping)", usages[0].Short())
		}
	}
	return nil
}

// sealing are the mechanisms that find a change in what they have wrapped before they
// say anything else of it. The others tell keys with the switch: a stream cipher adds
// the same bytes to each key under one initialisation vector, which the caller chooses;
// a block mode says of a changed ciphertext whether it ends in padding, and so tells a
// key byte by byte, as does RSA with the padding of PKCS #1 v1.5.
func sealing() []p11.MechanismType {
	return []p11.MechanismType{
		p11.CKM_AES_KEY_WRAP, p11.CKM_AES_KEY_WRAP_PAD, p11.CKM_AES_KEY_WRAP_KWP, p11.CKM_AES_KEY_WRAP_PKCS7,
		p11.CKM_RSA_PKCS_OAEP, p11.CKM_RSA_AES_KEY_WRAP,
		p11.CKM_ECDH_AES_KEY_WRAP, p11.CKM_ECDH_COF_AES_KEY_WRAP, p11.CKM_ECDH_X_AES_KEY_WRAP,
	}
}

// mayWrapAtAll refuses to wrap and unwrap with a key that has both kinds of usage, one
// of before or of another program, and by what tells one key from another.
func (r *rules) mayWrapAtAll(key p11.Attributes, u *use, m p11.MechanismType) error {
	switch {
	case !r.separate || !slices.Contains(wrappingUsages(), u.usage):
	case r.separated(key, created) != nil:
		return p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key may not %s: it also encrypts or decrypts data (separate-wrapping)", u.verb)
	case !slices.Contains(sealing(), m):
		return p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "%s may not %s here: what it wraps can be changed and tried (separate-wrapping)", m.Short(), u.verb), "use aes-key-wrap-kwp or rsa-pkcs-oaep")
	}
	return nil
}
