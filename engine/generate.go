package engine

import (
	"bytes"
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// GenerateKey is C_GenerateKey (PKCS#11 v3.1 §5.18.1), which makes domain parameters, too.
// The template need not say
// the class and the key type where the mechanism does.
func (s *Session) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.ObjectHandle, error) {
	token, err := s.generator(ctx, m, p11.CKF_GENERATE, "generate a key")
	if err != nil {
		return 0, err
	}
	class := p11.ObjectClass(p11.CKO_SECRET_KEY)
	facts, _ := p11.MechanismFacts(m.Type)
	if slices.Contains(facts.KeyTypes, p11.CKK_DH) || slices.Contains(facts.KeyTypes, p11.CKK_DSA) || slices.Contains(facts.KeyTypes, p11.CKK_X9_42_DH) {
		class = p11.CKO_DOMAIN_PARAMETERS
	}
	p, err := s.prepare(m, template, class)
	if err != nil {
		return 0, err
	}
	err = s.makes(m.Type, func() (err error) {
		p.attrs, err = token.GenerateKey(s.long(ctx), m, p.attrs)
		return err
	})
	if err == nil {
		err = finish(&p.attrs, generated, m.Type, nil)
	}
	if err != nil {
		s.disown(p)
		return 0, interruptedBy(ctx, err)
	}
	return s.make(ctx, p)
}

// GenerateKeyPair is C_GenerateKeyPair (PKCS#11 v3.1 §5.18.2): both keys are made
// or neither. A pair whose templates give no CKA_ID gets one.
func (s *Session) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (hPub, hPriv p11.ObjectHandle, err error) {
	token, err := s.generator(ctx, m, p11.CKF_GENERATE_KEY_PAIR, "generate a key pair")
	if err != nil {
		return 0, 0, err
	}
	if t, ok := p11.MechanismFacts(m.Type); ok && slices.Contains(t.KeyTypes, p11.CKK_RSA) && !public.Has(p11.CKA_PUBLIC_EXPONENT) {
		public = public.With(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	app := s.appSlot.app
	if private, err = app.engine.rules.halves(public, private, app.defaults); err != nil {
		return 0, 0, err
	}
	pub, err := s.prepare(m, public, p11.CKO_PUBLIC_KEY)
	if err != nil {
		return 0, 0, inTemplate("public key", err)
	}
	priv, err := s.prepare(m, private, p11.CKO_PRIVATE_KEY)
	if err != nil {
		return 0, 0, inTemplate("private key", err)
	}
	err = s.makes(m.Type, func() (err error) {
		pub.attrs, priv.attrs, err = token.GenerateKeyPair(s.long(ctx), m, pub.attrs, priv.attrs)
		return err
	})
	if err == nil {
		err = finish(&pub.attrs, generated, m.Type, nil)
	}
	if err == nil {
		err = finish(&priv.attrs, generated, m.Type, nil)
	}
	if err != nil {
		s.disown(pub, priv)
		return 0, 0, interruptedBy(ctx, err)
	}
	if err := s.adopt(ctx, pub, priv); err != nil {
		return 0, 0, err
	}
	if !public.Has(p11.CKA_ID) && !private.Has(p11.CKA_ID) {
		// Programs find the halves of a pair by it, and take the first key of the
		// type where it is empty.
		if id, ok := pkix.KeyID(pub.attrs); ok {
			pub.attrs.Set(p11.CKA_ID, id)
			priv.attrs.Set(p11.CKA_ID, bytes.Clone(id))
		}
	}
	handles, err := s.store(ctx, pub, priv)
	if err != nil {
		return 0, 0, err
	}
	return handles[0], handles[1], nil
}

// inTemplate says which of two templates an error is about.
func inTemplate(which string, err error) error {
	return p11.Errorf(p11.RVOf(err), "%s: %v", which, err)
}

// generator checks what all functions that generate keys want, and returns the
// token's side.
func (s *Session) generator(ctx context.Context, m p11.Mechanism, flag p11.Flags, what string) (tokens.KeyGenerator, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	slot := s.appSlot.slot
	if err := slot.usable(m.Type, flag, what); err != nil {
		return nil, err
	}
	if err := slot.online(); err != nil {
		return nil, err
	}
	if err := s.parameterAllowed(m); err != nil {
		return nil, err
	}
	g, ok := slot.token.(tokens.KeyGenerator)
	if !ok {
		return nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "token %s cannot %s", slot.Name(), what)
	}
	return g, nil
}

// prepare completes the template of a key that m makes.
func (s *Session) prepare(m p11.Mechanism, template p11.Attributes, class p11.ObjectClass) (*pending, error) {
	if err := template.Validate(); err != nil {
		return nil, err
	}
	template = template.Clone()
	if c, ok := template.Class(); !ok {
		template.SetUlong(p11.CKA_CLASS, uint64(class))
	} else if c != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "class: mechanism %s makes %s, not %s", m.Type.Short(), class.Short(), c.Short())
	}
	facts, _ := p11.MechanismFacts(m.Type)
	if kt, ok := template.KeyType(); !ok && len(facts.KeyTypes) > 0 {
		template.SetUlong(p11.CKA_KEY_TYPE, uint64(facts.KeyTypes[0]))
	} else if !ok && class == p11.CKO_SECRET_KEY { // of any type
		template.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_GENERIC_SECRET))
	} else if ok && len(facts.KeyTypes) > 0 && !slices.Contains(facts.KeyTypes, kt) {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "key-type: mechanism %s makes no %s key", m.Type.Short(), kt.Short())
	}
	if _, premaster := m.Param.(p11.TLSVersion); premaster && !template.Has(p11.CKA_VALUE_LEN) {
		template.SetUlong(p11.CKA_VALUE_LEN, p11.MasterSecretLen)
	}
	attrs, err := s.complete(template, generated)
	if err != nil {
		return nil, err
	}
	l, err := s.mayStore(attrs)
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return s.pending(attrs, l), nil
}
