package icsf

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
)

// makes says whether the server makes keys by a mechanism.
func makes(t p11.MechanismType) bool {
	return slices.Contains([]p11.MechanismType{
		p11.CKM_AES_KEY_GEN, p11.CKM_DES_KEY_GEN, p11.CKM_DES2_KEY_GEN, p11.CKM_DES3_KEY_GEN, p11.CKM_GENERIC_SECRET_KEY_GEN, p11.CKM_SSL3_PRE_MASTER_KEY_GEN,
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_DSA_KEY_PAIR_GEN, p11.CKM_DH_PKCS_KEY_PAIR_GEN,
	}, t)
}

// expect is a copy of a template for the server, with the class and the type of key that is
// made, which stock puts at the end.
func expect(template p11.Attributes, class p11.ObjectClass, kt p11.KeyType) (p11.Attributes, error) {
	if got, ok := template.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	if got, ok := template.KeyType(); ok && got != kt {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", kt.Short(), got.Short())
	}
	a := withPrivate(template).Clone()
	a.Delete(p11.CKA_CLASS)
	a.Delete(p11.CKA_KEY_TYPE)
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return sent(a, a.Bool(p11.CKA_TOKEN))
}

// made are the attributes of an object that a call has just made from a template: what the
// server knows of it, and what the template says besides. Where they cannot be read the object
// goes.
func (t *token) made(ctx context.Context, h icsfwire.Handle, template p11.Attributes) (p11.Attributes, error) {
	ctx = context.WithoutCancel(ctx)
	got, err := t.get(ctx, h)
	if err != nil {
		t.forget(h)
		return nil, err
	}
	if template.Has(p11.CKA_ALWAYS_AUTHENTICATE) { // which the server knows nothing of, and a session object keeps
		got.Delete(p11.CKA_ALWAYS_AUTHENTICATE)
	}
	return template.Merge(got), nil
}

// GenerateKey is tokens.KeyGenerator.
func (t *token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if err := t.does(m.Type, p11.CKF_GENERATE); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	facts, _ := p11.MechanismFacts(m.Type)
	kt := facts.KeyTypes[0]
	list, err := expect(template, p11.CKO_SECRET_KEY, kt)
	if err != nil {
		return nil, err
	}
	r := &icsfwire.Request{Handle: t.self(), Rules: []string{"KEY"}}
	d := &icsfwire.GenerateKey{}
	if m.Type == p11.CKM_SSL3_PRE_MASTER_KEY_GEN {
		version, ok := m.Param.(p11.TLSVersion)
		if !ok {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s takes the version of the client", m.Type.Short())
		}
		r.Rules, d.Parameters = []string{"SSL"}, version
		err = hasLength(&list, p11.MasterSecretLen)
	} else {
		err = checkLength(&list, kt)
	}
	if err != nil {
		return nil, err
	}
	d.Attributes = list
	r.Data = d
	h, err := t.new(ctx, r)
	if err != nil {
		return nil, err
	}
	return t.made(ctx, h, template)
}

// hasLength takes the length out of a template for a key that has another one for no template.
func hasLength(template *p11.Attributes, want uint64) error {
	if n, ok := template.Ulong(p11.CKA_VALUE_LEN); ok && n != want {
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "such a key has %d bytes, and value-len says %d", want, n)
	}
	template.Delete(p11.CKA_VALUE_LEN)
	return nil
}

// checkLength checks the length of a secret key that is to be made.
func checkLength(template *p11.Attributes, kt p11.KeyType) error {
	if lengths := p11.KeyLengths(kt); len(lengths) == 1 {
		return hasLength(template, lengths[0])
	}
	n, ok := template.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
	case !p11.FitsKey(kt, n) || n == 0 || n > maxGeneric:
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "there is no %s key of %d bytes", kt.Short(), n)
	}
	return nil
}

// GenerateKeyPair is tokens.KeyGenerator.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	if err := t.does(m.Type, p11.CKF_GENERATE_KEY_PAIR); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, interrupted(err)
	}
	facts, _ := p11.MechanismFacts(m.Type)
	kt := facts.KeyTypes[0]
	if err := checkPair(public, private, kt); err != nil {
		return nil, nil, err
	}
	pub, err := expect(public, p11.CKO_PUBLIC_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	if kt == p11.CKK_RSA && !pub.Has(p11.CKA_PUBLIC_EXPONENT) {
		pub.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	priv, err := expect(private, p11.CKO_PRIVATE_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	end, err := tokens.Long(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	var out icsfwire.PrivateHandle
	first, err := t.conn.Call(ctx, &icsfwire.Request{Handle: t.self(), Data: &icsfwire.GeneratePair{Public: pub, Private: priv}}, &out)
	if err != nil {
		return nil, nil, err
	}
	second, err := icsfwire.ParseHandle(out.Handle)
	if err != nil || !first.IsObject() || !second.IsObject() {
		return nil, nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has made a pair without handles")
	}
	t.note(first)
	t.note(second)
	a, err := t.made(ctx, first, public)
	if err != nil {
		t.forget(second)
		return nil, nil, err
	}
	b, err := t.made(ctx, second, private)
	if err != nil {
		t.forget(first)
		return nil, nil, err
	}
	// What ICSF does not keep beside the private key, and who uses it asks for.
	for _, at := range map[p11.KeyType][]p11.AttributeType{
		p11.CKK_EC: {p11.CKA_EC_POINT}, p11.CKK_DSA: {p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE}, p11.CKK_DH: {p11.CKA_PRIME, p11.CKA_BASE},
	}[kt] {
		value, _ := a.Get(at)
		b.Set(at, append([]byte{}, value...))
	}
	return a, b, nil
}

func checkPair(public, private p11.Attributes, kt p11.KeyType) error {
	switch kt {
	case p11.CKK_EC:
		if !public.Has(p11.CKA_EC_PARAMS) {
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
		}
	case p11.CKK_DSA, p11.CKK_DH:
		g, err := pkix.GroupOf(kt, public)
		switch {
		case p11.RVOf(err) == p11.CKR_ATTRIBUTE_VALUE_INVALID:
			return p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "%w", err)
		case err != nil:
			return err
		case g.P.BitLen() > maxGroup:
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "ICSF has groups of %d to %d bits, not %d", minGroup, maxGroup, g.P.BitLen())
		case private.Has(p11.CKA_VALUE_BITS):
			return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the server says how many bits a private value has: leave value-bits out")
		}
	default:
		bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
		switch {
		case !ok:
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
		case bits < minRSA || bits > maxRSA || bits%8 != 0:
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "ICSF has RSA keys of %d to %d bits, not %d", minRSA, maxRSA, bits)
		}
	}
	return nil
}
