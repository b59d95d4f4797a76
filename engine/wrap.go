package engine

import (
	"context"

	"p11fs/p11"
)

// WrapKey is C_WrapKey (PKCS#11 v3.1 §5.18.3).
func (s *Session) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key p11.ObjectHandle) ([]byte, error) {
	w, err := s.key(ctx, m, wrapping, keyUse{p11.CKA_WRAP, p11.CKF_WRAP, "wrap", p11.CKR_WRAPPING_KEY_HANDLE_INVALID})
	if err != nil {
		return nil, err
	}
	defer w.release()
	k, err := s.openKey(ctx, key, p11.CKR_KEY_HANDLE_INVALID)
	if err != nil {
		return nil, err
	}
	defer k.release()
	if err := mayWrap(w.attrs, k.attrs, key); err != nil {
		return nil, err
	}
	out, err := s.standing.slot.token.WrapKey(ctx, m, w.object, k.object)
	if err != nil {
		return nil, err
	}
	for _, e := range []*entry{w, k} {
		if err := s.mayStillUse(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mayWrap says whether the key w may wrap the key k (PKCS#11 v3.1 §4.9, §4.10,
// §5.18.3).
func mayWrap(w, k p11.Attributes, handle p11.ObjectHandle) error {
	class, _ := k.Class()
	if !isSecretClass(class) {
		return p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "only private and secret keys are wrapped")
	}
	if !k.Bool(p11.CKA_EXTRACTABLE) {
		return p11.Errorf(p11.CKR_KEY_UNEXTRACTABLE, "the key's extractable is not true")
	}
	if k.Bool(p11.CKA_WRAP_WITH_TRUSTED) && !w.Bool(p11.CKA_TRUSTED) {
		return p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "the key's wrap-with-trusted is true, and the wrapping key's trusted is not")
	}
	encoded, _ := w.Get(p11.CKA_WRAP_TEMPLATE)
	if len(encoded) == 0 {
		return nil
	}
	wanted, err := p11.DecodeTemplate(encoded)
	if err != nil || !k.Match(wanted) {
		return p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "key %#x is not what the wrapping key's wrap-template asks for", uint64(handle))
	}
	return nil
}

// mayStillUse checks, after the token's call, that the login under which the key
// was used still stands.
func (s *Session) mayStillUse(e *entry) error {
	if s.closed() {
		return s.gone()
	}
	if e.login != nil && s.standing.user() != e.login {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
	}
	return nil
}

// once refuses a key that wants the PIN for each use in a function that is no
// operation: there is no moment at which to give it.
func once(e *entry, what string) error {
	if e.attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE) {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the key's always-authenticate is true: it cannot %s", what)
	}
	return nil
}

// UnwrapKey is C_UnwrapKey (PKCS#11 v3.1 §5.18.4).
func (s *Session) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping p11.ObjectHandle, wrapped []byte, template p11.Attributes) (p11.ObjectHandle, error) {
	w, err := s.key(ctx, m, unwrapping, keyUse{p11.CKA_UNWRAP, p11.CKF_UNWRAP, "unwrap", p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID})
	if err != nil {
		return 0, err
	}
	defer w.release()
	if err := once(w, "unwrap"); err != nil {
		return 0, err
	}
	attrs, l, err := s.prepareFrom(template, w.attrs, p11.CKA_UNWRAP_TEMPLATE, unwrapped)
	if err != nil {
		return 0, err
	}
	attrs, err = s.standing.slot.token.UnwrapKey(ctx, m, w.object, wrapped, attrs)
	if err == nil {
		err = s.mayStillUse(w)
	}
	if err == nil {
		err = finish(&attrs, unwrapped, 0, nil)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	return s.store(ctx, l, attrs)
}

// DeriveKey is C_DeriveKey (PKCS#11 v3.1 §5.18.5). Without class and key type it
// makes a generic secret.
func (s *Session) DeriveKey(ctx context.Context, m p11.Mechanism, base p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	b, err := s.key(ctx, m, base, keyUse{p11.CKA_DERIVE, p11.CKF_DERIVE, "derive", p11.CKR_KEY_HANDLE_INVALID})
	if err != nil {
		return 0, err
	}
	defer b.release()
	if err := once(b, "derive"); err != nil {
		return 0, err
	}
	template = template.Clone()
	if !template.Has(p11.CKA_CLASS) {
		template.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	}
	if !template.Has(p11.CKA_KEY_TYPE) {
		template.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_GENERIC_SECRET))
	}
	attrs, l, err := s.prepareFrom(template, b.attrs, p11.CKA_DERIVE_TEMPLATE, derived)
	if err != nil {
		return 0, err
	}
	attrs, err = s.standing.slot.token.DeriveKey(ctx, m, b.object, attrs)
	if err == nil {
		err = s.mayStillUse(b)
	}
	if err == nil {
		err = finish(&attrs, derived, 0, b.attrs)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	return s.store(ctx, l, attrs)
}

// prepareFrom completes the template of a key that comes out of another, which
// may impose attributes on it.
func (s *Session) prepareFrom(template, key p11.Attributes, imposing p11.AttributeType, o origin) (p11.Attributes, *login, error) {
	template, err := impose(template, key, imposing)
	if err != nil {
		return nil, nil, err
	}
	attrs, err := s.standing.app.engine.rules.complete(template, o, s.isSO())
	if err != nil {
		return nil, nil, err
	}
	if class, _ := attrs.Class(); !isSecretClass(class) {
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "class: %s a %s is not possible", o, class.Short())
	}
	l, err := s.mayStore(attrs)
	if err != nil {
		return nil, nil, err
	}
	return attrs, l, nil
}
