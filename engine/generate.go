package engine

import (
	"context"
	"slices"

	"p11fs/p11"
)

// GenerateKey is C_GenerateKey (PKCS#11 v3.1 §5.18.1). The template need not say
// the class and the key type where the mechanism does.
func (s *Session) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.ObjectHandle, error) {
	if err := s.mayMake(ctx, m, p11.CKF_GENERATE, "generate a key"); err != nil {
		return 0, err
	}
	class := p11.ObjectClass(p11.CKO_SECRET_KEY)
	if c, ok := template.Class(); ok && c == p11.CKO_DOMAIN_PARAMETERS {
		class = c
	}
	attrs, l, err := s.prepare(m, template, class)
	if err != nil {
		return 0, err
	}
	attrs, err = s.standing.slot.token.GenerateKey(ctx, m, attrs)
	if err == nil {
		err = finish(&attrs, generated, m.Type, nil)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	return s.store(ctx, l, attrs)
}

// GenerateKeyPair is C_GenerateKeyPair (PKCS#11 v3.1 §5.18.2): both keys are made
// or neither.
func (s *Session) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (hPub, hPriv p11.ObjectHandle, err error) {
	if err := s.mayMake(ctx, m, p11.CKF_GENERATE_KEY_PAIR, "generate a key pair"); err != nil {
		return 0, 0, err
	}
	if t, ok := p11.MechanismFacts(m.Type); ok && slices.Contains(t.KeyTypes, p11.CKK_RSA) && !public.Has(p11.CKA_PUBLIC_EXPONENT) {
		public = public.With(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	pub, lPub, err := s.prepare(m, public, p11.CKO_PUBLIC_KEY)
	if err != nil {
		return 0, 0, inTemplate("public key", err)
	}
	priv, lPriv, err := s.prepare(m, private, p11.CKO_PRIVATE_KEY)
	if err != nil {
		return 0, 0, inTemplate("private key", err)
	}
	pub, priv, err = s.standing.slot.token.GenerateKeyPair(ctx, m, pub, priv)
	if err == nil {
		err = finish(&pub, generated, m.Type, nil)
	}
	if err == nil {
		err = finish(&priv, generated, m.Type, nil)
	}
	if err != nil {
		priv.Wipe()
		return 0, 0, err
	}
	hPub, err = s.store(ctx, lPub, pub)
	if err != nil {
		priv.Wipe()
		return 0, 0, err
	}
	hPriv, err = s.store(ctx, lPriv, priv)
	if err != nil {
		s.undo(ctx, hPub)
		return 0, 0, err
	}
	return hPub, hPriv, nil
}

// undo takes back an object made just now. It is not to be interrupted.
func (s *Session) undo(ctx context.Context, h p11.ObjectHandle) {
	v := s.view()
	o, err := v.find(h)
	if err != nil {
		return // ended with its session or login
	}
	anyway := func(p11.Attributes) error { return nil }
	if o.Name == "" {
		err = s.standing.objects.destroy(h, anyway)
	} else {
		err = v.slot.token.Destroy(context.WithoutCancel(ctx), o.Handle, anyway)
	}
	if err != nil {
		s.standing.app.engine.log.Error("half of a key pair is left over", "token", v.slot.Name(), "err", err)
	}
}

// inTemplate says which of two templates an error is about.
func inTemplate(which string, err error) error {
	return p11.Errorf(p11.RVOf(err), "%s: %v", which, err)
}

// mayMake checks what all functions that make keys want.
func (s *Session) mayMake(ctx context.Context, m p11.Mechanism, use p11.Flags, what string) error {
	if s.closed() {
		return s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	return s.standing.slot.usable(m.Type, use, what)
}

// prepare completes the template of a key that m makes.
func (s *Session) prepare(m p11.Mechanism, template p11.Attributes, class p11.ObjectClass) (p11.Attributes, *login, error) {
	template = template.Clone()
	if c, ok := template.Class(); !ok {
		template.SetUlong(p11.CKA_CLASS, uint64(class))
	} else if c != class {
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "class: mechanism %s makes %s, not %s", m.Type.Short(), class.Short(), c.Short())
	}
	facts, _ := p11.MechanismFacts(m.Type)
	if kt, ok := template.KeyType(); !ok && len(facts.KeyTypes) > 0 {
		template.SetUlong(p11.CKA_KEY_TYPE, uint64(facts.KeyTypes[0]))
	} else if ok && len(facts.KeyTypes) > 0 && !slices.Contains(facts.KeyTypes, kt) {
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "key-type: mechanism %s makes no %s key", m.Type.Short(), kt.Short())
	}
	attrs, err := s.standing.app.engine.rules.complete(template, generated, s.isSO())
	if err != nil {
		return nil, nil, err
	}
	l, err := s.mayStore(attrs)
	if err != nil {
		return nil, nil, err
	}
	return attrs, l, nil
}
