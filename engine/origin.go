package engine

import (
	"crypto/rand"
	"encoding/hex"

	"p11fs/p11"
)

// finish adds what a new object says of itself: where it comes from, and its
// history. What follows from the key is the token's to add (tokens.Adopter). m made it, or is 0 with any other
// origin than generated; base is the key it was derived from.
func finish(attrs *p11.Attributes, o origin, m p11.MechanismType, base p11.Attributes) error {
	if err := setUniqueID(attrs); err != nil {
		return err
	}
	class, _ := attrs.Class()
	if isKey(class) || class == p11.CKO_DOMAIN_PARAMETERS {
		attrs.SetBool(p11.CKA_LOCAL, o == generated)
	}
	if isKey(class) {
		made := p11.Unavailable
		if o == generated {
			made = uint64(m)
		}
		attrs.SetUlong(p11.CKA_KEY_GEN_MECHANISM, made)
	}
	if protected, ok := attrs.Get(p11.CKA_IBM_PROTKEY_EXTRACTABLE); ok && isKey(class) {
		attrs.SetBool(p11.CKA_IBM_PROTKEY_NEVER_EXTRACTABLE, !isTrue(protected))
	}
	if isSecretClass(class) {
		sensitive, extract := attrs.Bool(p11.CKA_SENSITIVE), attrs.Bool(p11.CKA_EXTRACTABLE)
		switch o {
		case created, unwrapped, encapsulated: // it has been outside, or the other side has it
			sensitive, extract = false, true
		case derived:
			sensitive = sensitive && base.Bool(p11.CKA_ALWAYS_SENSITIVE)
			extract = extract || !base.Bool(p11.CKA_NEVER_EXTRACTABLE)
		}
		attrs.SetBool(p11.CKA_ALWAYS_SENSITIVE, sensitive)
		attrs.SetBool(p11.CKA_NEVER_EXTRACTABLE, !extract)
	}
	return nil
}

// setUniqueID gives the object a CKA_UNIQUE_ID (PKCS#11 v3.1 §4.4.1).
func setUniqueID(attrs *p11.Attributes) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
	}
	attrs.Set(p11.CKA_UNIQUE_ID, []byte(hex.EncodeToString(id[:])))
	return nil
}
