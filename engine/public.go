package engine

import "p11fs/p11"

// publicHalf is the template of the public half of a private key (PKCS#11 v3.2,
// CKM_PUB_KEY_FROM_PRIV_KEY). Where it is silent, the half is named and dated as the
// private key is, and does what the private key undoes.
func publicHalf(template, private p11.Attributes) (p11.Attributes, error) {
	if err := template.Validate(); err != nil {
		return nil, err
	}
	if class, _ := private.Class(); class != p11.CKO_PRIVATE_KEY {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "only a private key has a public half")
	}
	kt, _ := private.KeyType()
	half := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}
	for _, a := range half {
		if given, ok := template.Get(a.Type); ok && string(given) != string(a.Value) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s: the mechanism makes the public half of a %s key", a.Type.Short(), kt.Short())
		}
	}
	for _, t := range []p11.AttributeType{p11.CKA_ID, p11.CKA_SUBJECT, p11.CKA_START_DATE, p11.CKA_END_DATE, p11.CKA_DERIVE, p11.CKA_ALLOWED_MECHANISMS} {
		if v, ok := private.Get(t); ok {
			half.Set(t, v)
		}
	}
	for _, use := range []struct{ private, public p11.AttributeType }{
		{p11.CKA_DECRYPT, p11.CKA_ENCRYPT}, {p11.CKA_SIGN, p11.CKA_VERIFY}, {p11.CKA_SIGN_RECOVER, p11.CKA_VERIFY_RECOVER},
		{p11.CKA_UNWRAP, p11.CKA_WRAP}, {p11.CKA_DECAPSULATE, p11.CKA_ENCAPSULATE},
	} {
		half.SetBool(use.public, private.Bool(use.private))
	}
	return half.Merge(template), nil
}
