package policy

import (
	"fmt"
	"reflect"

	"p11fs/p11"
	"p11fs/tokens"
)

// Key says why the policy does not allow a key, "" if it does; curve is set if that is
// since its curve is not allowed. What is no key is allowed. attrs are complete.
func (p *Policy) Key(attrs p11.Attributes) (why string, curve bool) {
	class, _ := attrs.Class()
	kt, ok := attrs.KeyType()
	if p == nil || !ok || class != p11.CKO_SECRET_KEY && class != p11.CKO_PUBLIC_KEY && class != p11.CKO_PRIVATE_KEY {
		return "", false
	}
	var bits, least uint64
	switch sortOf(kt) {
	case postQuantum:
		return "", false
	case modular:
		bits, least = modulusBits(attrs, kt), p.least(modExp)
	case elliptic:
		c, known := curveOf(attrs)
		if p.Curves != nil && (!known || !p.Curves[string(c.Params())]) {
			return fmt.Sprintf("the policy in %s does not allow its curve", p.Name), true
		}
		if known {
			bits = fieldBits(c)
		}
		least = p.least(ecc)
	case secretKey:
		bits, least = secretBits(attrs, kt), p.least(symmetric)
	case unknown:
		least = min(1, p.Strength)
	}
	if bits >= least {
		return "", false
	}
	return fmt.Sprintf("the policy in %s wants keys of strength %d, and this one has %d bits", p.Name, p.Strength, bits), false
}

func curveOf(attrs p11.Attributes) (p11.Curve, bool) {
	params, _ := attrs.Get(p11.CKA_EC_PARAMS)
	return p11.CurveOf(params)
}

func modulusBits(attrs p11.Attributes, kt p11.KeyType) uint64 {
	t := p11.AttributeType(p11.CKA_PRIME)
	if kt == p11.CKK_RSA {
		t = p11.CKA_MODULUS
	}
	return numberBits(attrs, t)
}

// numberBits is the length of a number in bits, in whole bytes.
func numberBits(attrs p11.Attributes, t p11.AttributeType) uint64 {
	n, _ := attrs.Get(t)
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	return 8 * uint64(len(n))
}

func secretBits(attrs p11.Attributes, kt p11.KeyType) uint64 {
	if bits, ok := desBits(kt); ok {
		return bits
	}
	value, ok := attrs.Get(p11.CKA_VALUE)
	bits := 8 * uint64(len(value))
	if !ok {
		n, _ := attrs.Get(p11.CKA_VALUE_LEN)
		length, _ := p11.ToUlong(n)
		bits = 8 * min(length, Never/8)
	}
	if kt == p11.CKK_AES_XTS {
		bits /= 2
	}
	return bits
}

// Signature says why m may not sign or verify with a key, "" if it may: the digest, or
// the signature, is too short.
func (p *Policy) Signature(m p11.Mechanism, key p11.Attributes) string {
	if p == nil || p.Strength == 0 {
		return ""
	}
	facts, _ := p11.MechanismFacts(m.Type)
	bits := Never
	if facts.Hash != 0 {
		bits = 8 * p11.HashSize(facts.Hash)
	}
	if n, ok := m.Param.(p11.MACLength); ok {
		bits = min(bits, 8*min(uint64(n), Never/8))
	}
	switch kt, _ := key.KeyType(); sortOf(kt) {
	case modular:
		long := modulusBits(key, kt)
		if kt == p11.CKK_DSA {
			long = 2 * numberBits(key, p11.CKA_SUBPRIME)
		}
		bits = min(bits, long)
	case elliptic:
		c, _ := curveOf(key)
		bits = min(bits, 2*fieldBits(c))
	case secretKey:
		bits = min(bits, macBits(m.Type, facts))
	}
	if bits >= p.least(signature) {
		return ""
	}
	return fmt.Sprintf("the policy in %s wants signatures of strength %d, and these have %d bits", p.Name, p.Strength, bits)
}

// Parameter says why the parameter of m is not allowed, "" if it is: a digest, MGF, key
// derivation or pseudo-random function in it, or the length of an AES key.
func (p *Policy) Parameter(m p11.Mechanism) string {
	if p == nil || m.Param == nil {
		return ""
	}
	what := p.forbidden(reflect.ValueOf(m.Param), "")
	if what == "" {
		return ""
	}
	return fmt.Sprintf("the policy in %s does not allow %s here", p.Name, what)
}

// forbidden finds what is not allowed in a parameter, or in the field of that name. The
// types of its fields say what they are, so that a new parameter needs nothing here.
func (p *Policy) forbidden(v reflect.Value, field string) string {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return p.forbidden(v.Elem(), field)
		}
		return ""
	case reflect.Struct:
		for i := range v.NumField() {
			if t := v.Type().Field(i); t.IsExported() {
				if what := p.forbidden(v.Field(i), t.Name); what != "" {
					return what
				}
			}
		}
		return ""
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return ""
		}
		for i := range v.Len() {
			if what := p.forbidden(v.Index(i), field); what != "" {
				return what
			}
		}
		return ""
	}
	if !v.CanInterface() {
		return ""
	}
	switch x := v.Interface().(type) {
	case p11.MechanismType: // of a digest or MAC; 0 is none
		if x != 0 && p.Mechanisms != nil && !p.Mechanisms[x] {
			return x.Short()
		}
	case p11.MGF:
		if p.MGFs != nil && !p.MGFs[x] {
			return x.Short()
		}
	case p11.KDF:
		if p.KDFs != nil && !p.KDFs[x] {
			return "the KDF " + x.Short()
		}
	case p11.PBKDF2PRF:
		if p.PRFs != nil && !p.PRFs[x] {
			return x.Short()
		}
	case uint64:
		if field == "AESKeyBits" && x != 0 && x < p.least(symmetric) {
			return fmt.Sprintf("an AES key of %d bits", x)
		}
	}
	return ""
}

// Store says why a token may not be opened, "" if it may: openCryptoki, too, opens none
// whose directory is kept with what the policy forbids.
func (p *Policy) Store(c tokens.Protection) string {
	if p == nil {
		return ""
	}
	for _, m := range c.Mechanisms {
		if p.Mechanisms != nil && !p.Mechanisms[m] {
			return fmt.Sprintf("its directory is kept with %s, which the policy in %s does not allow", m, p.Name)
		}
	}
	switch {
	case c.PRF != 0 && p.PRFs != nil && !p.PRFs[c.PRF]:
		return fmt.Sprintf("its directory is kept with %s, which the policy in %s does not allow", c.PRF, p.Name)
	case c.Bits < p.least(symmetric):
		return fmt.Sprintf("its directory is kept with keys of %d bits, and the policy in %s wants strength %d", c.Bits, p.Name, p.Strength)
	}
	return ""
}
