package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// WrapKey is C_WrapKey (PKCS#11 v3.1 §5.18.3).
func (s *Session) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key p11.ObjectHandle) ([]byte, error) {
	w, err := s.begin(ctx, useOf(p11.CKF_WRAP), m, wrapping)
	if err != nil {
		return nil, err
	}
	k, err := s.openKey(ctx, key, p11.CKR_KEY_HANDLE_INVALID)
	if err != nil {
		w.release()
		return nil, err
	}
	defer k.release()
	err = mayWrap(w.key.attrs, k.attrs, key)
	if why, _ := s.policy().Key(k.attrs); err == nil && why != "" {
		err = p11.Advise(p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "%s", why), "wrap a key that it allows")
	}
	if err != nil {
		w.release()
		return nil, err
	}
	return w.oneCall(ctx, func(ctx context.Context, wrapping *tokens.Object) ([]byte, error) {
		t, ok := w.token().(tokens.KeyWrapper)
		if !ok {
			return nil, errLacking
		}
		out, err := t.WrapKey(ctx, m, wrapping, k.object)
		if err == nil {
			err = s.sees(k)
		}
		return out, err
	})
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
	if !matchesTemplate(w, p11.CKA_WRAP_TEMPLATE, k) {
		return p11.Advise(p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "key %#x is not what the wrapping key's wrap-template asks for", uint64(handle)), "wrap it under another key")
	}
	return nil
}

// matchesTemplate says whether attrs are what the template t of the key asks for, if it
// has one (PKCS#11 v3.2 §5.18.3, §5.18.8).
func matchesTemplate(key p11.Attributes, t p11.AttributeType, attrs p11.Attributes) bool {
	encoded, _ := key.Get(t)
	if len(encoded) == 0 {
		return true
	}
	wanted, err := p11.DecodeTemplate(encoded)
	return err == nil && attrs.Match(wanted)
}

// sees checks, after the token's call, that the login or the grant under which a second key
// was found still stands.
func (s *Session) sees(e *entry) error {
	if e.granted != nil && s.appSlot.app.granting(s.appSlot.slot) != e.granted.by {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the grants changed meanwhile")
	}
	if e.login != nil && s.appSlot.user() != e.login {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
	}
	return nil
}

// UnwrapKey is C_UnwrapKey (PKCS#11 v3.1 §5.18.4).
func (s *Session) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping p11.ObjectHandle, wrapped []byte, template p11.Attributes) (p11.ObjectHandle, error) {
	f := from{flag: p11.CKF_UNWRAP, origin: unwrapped, imposing: p11.CKA_UNWRAP_TEMPLATE}
	return s.makeFrom(ctx, f, m, unwrapping, template, func(ctx context.Context, t tokens.Token, key *tokens.Object, attrs p11.Attributes) (p11.Attributes, error) {
		w, ok := t.(tokens.KeyWrapper)
		if !ok {
			return attrs, errLacking
		}
		return w.UnwrapKey(ctx, m, key, wrapped, attrs)
	})
}

// EncapsulateKey is C_EncapsulateKey (PKCS#11 v3.2 §5.18.8): it returns the
// ciphertext for the owner of the public key, and the secret key in it. Without class
// and key type that is a generic secret. A ciphertext longer than room gives a
// *BufferError, and no key.
func (s *Session) EncapsulateKey(ctx context.Context, m p11.Mechanism, public p11.ObjectHandle, template p11.Attributes, room int) (ciphertext []byte, key p11.ObjectHandle, err error) {
	f := from{flag: p11.CKF_ENCAPSULATE, origin: encapsulated, imposing: p11.CKA_ENCAPSULATE_TEMPLATE}
	key, err = s.makeFrom(ctx, f, m, public, secretTemplate(template), func(ctx context.Context, t tokens.Token, key *tokens.Object, attrs p11.Attributes) (p11.Attributes, error) {
		e, ok := t.(tokens.Encapsulator)
		if !ok {
			return attrs, errLacking
		}
		var err error
		ciphertext, attrs, err = e.EncapsulateKey(ctx, m, key, attrs)
		if err == nil {
			err = fits(len(ciphertext), room)
		}
		return attrs, err
	})
	if err != nil {
		return nil, 0, err
	}
	return ciphertext, key, nil
}

// DecapsulateKey is C_DecapsulateKey (PKCS#11 v3.2 §5.18.9).
func (s *Session) DecapsulateKey(ctx context.Context, m p11.Mechanism, private p11.ObjectHandle, ciphertext []byte, template p11.Attributes) (p11.ObjectHandle, error) {
	f := from{flag: p11.CKF_DECAPSULATE, origin: encapsulated, imposing: p11.CKA_DECAPSULATE_TEMPLATE}
	return s.makeFrom(ctx, f, m, private, secretTemplate(template), func(ctx context.Context, t tokens.Token, key *tokens.Object, attrs p11.Attributes) (p11.Attributes, error) {
		e, ok := t.(tokens.Encapsulator)
		if !ok {
			return attrs, errLacking
		}
		return e.DecapsulateKey(ctx, m, key, ciphertext, attrs)
	})
}

// secretTemplate is template with the class and type of a generic secret where it
// has none.
func secretTemplate(template p11.Attributes) p11.Attributes {
	template = template.Clone()
	if !template.Has(p11.CKA_CLASS) {
		template.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	}
	if !template.Has(p11.CKA_KEY_TYPE) {
		template.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_GENERIC_SECRET))
	}
	return template
}
