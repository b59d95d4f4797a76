package fs

import (
	"bytes"
	"context"
	"encoding/asn1"
	"fmt"
	"slices"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// maxWrapped bounds a wrapped key, and the public value of another party.
const maxWrapped = 64 << 10

// wrapFile takes the name of the key to wrap, and gives it wrapped.
func wrapFile(k *keyFile) *file {
	return (&command{
		place: k.place, path: k.path, replies: true, limit: 4096,
		run: func(ctx context.Context, s *session, line []byte) ([]byte, error) {
			wrapping, err := k.key(ctx, s)
			if err != nil {
				return nil, err
			}
			key, err := k.findIn(ctx, s.app.eng, string(line))
			if err != nil {
				return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "no key %q", clip(string(line)))
			}
			return s.eng.WrapKey(ctx, k.mechanism, wrapping.Handle, key.Handle)
		},
	}).file()
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// unwrapFile takes a wrapped key, makes the key, and gives its name.
func unwrapFile(k *keyFile) *file {
	return k.making(func(ctx context.Context, s *session, key p11.ObjectHandle, data []byte) (p11.Attributes, creation, func() []byte, error) {
		template := secretKey(k.template)
		if class, _ := template.Class(); class == p11.CKO_SECRET_KEY && !template.Has(p11.CKA_KEY_TYPE) {
			template.Set(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES))
		}
		return template, func() ([]p11.ObjectHandle, error) { return one(s.eng.UnwrapKey(ctx, k.mechanism, key, data, template)) }, nil, nil
	})
}

// deriveFile takes what the mechanism works with beside the key, unless the file's name
// has it: the other side's public value, as a public key in PEM or DER or a bare point,
// or the name of another key; for openCryptoki's mechanisms of ML-KEM see ibmKEM. It makes
// the key, and gives its name.
func deriveFile(k *keyFile) *file {
	return k.making(func(ctx context.Context, s *session, key p11.ObjectHandle, data []byte) (p11.Attributes, creation, func() []byte, error) {
		m, err := k.completed(ctx, s, data)
		if err != nil {
			return nil, nil, nil, err
		}
		template := k.derived()
		var d engine.Derived
		return template, func() ([]p11.ObjectHandle, error) {
			d, err = s.eng.DeriveKeys(ctx, m, key, template)
			all := append([]p11.ObjectHandle{d.Key}, d.More...)
			return slices.DeleteFunc(all, func(h p11.ObjectHandle) bool { return h == 0 }), err
		}, func() []byte { return d.Out }, nil
	})
}

// derived is the template of what is derived: of an AES key of 32 bytes, unless it says
// otherwise, or a data object, a public key or a secret of TLS.
func (k *keyFile) derived() p11.Attributes {
	if facts, _ := p11.MechanismFacts(k.mechanism.Type); facts.Data && !k.template.Has(p11.CKA_CLASS) {
		template := k.template.Clone()
		template.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_DATA))
		setDefaults(&template)
		return template
	}
	if k.mechanism.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY {
		template := k.template.With(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY))
		setDefaults(&template)
		return template
	}
	switch k.mechanism.Param.(type) {
	case *p11.SSL3MasterParams, *p11.TLS12MasterParams, *p11.ExtendedMasterParams, *p11.IKEPRFParams: // whose length is the mechanism's
		template := secretKey(k.template)
		if !template.Has(p11.CKA_KEY_TYPE) {
			template.Set(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_GENERIC_SECRET))
		}
		return template
	}
	return agreedKey(k.template)
}

// agreedKey is the template of a key that two parties come to: for AES, of 32 bytes, unless
// it says otherwise.
func agreedKey(template p11.Attributes) p11.Attributes {
	t := secretKey(template)
	if !t.Has(p11.CKA_KEY_TYPE) {
		t.Set(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES))
		if !t.Has(p11.CKA_VALUE_LEN) {
			t.SetUlong(p11.CKA_VALUE_LEN, 32)
		}
	}
	return t
}

// encapsulateFile takes the attributes of a key, makes it, and gives the ciphertext that
// tells it to the owner of the public key.
func encapsulateFile(k *keyFile) *file {
	return (&command{
		place: k.place, path: k.path, replies: true,
		run: func(ctx context.Context, s *session, line []byte) ([]byte, error) {
			given, err := p11.ParseTemplate(string(line))
			if err != nil {
				return nil, err
			}
			public, err := k.key(ctx, s)
			if err != nil {
				return nil, err
			}
			template := agreedKey(given.Merge(k.template))
			var ciphertext []byte
			_, err = s.makeNamed(ctx, template, func() ([]p11.ObjectHandle, error) {
				out, made, err := s.eng.EncapsulateKey(ctx, k.mechanism, public.Handle, template, engine.NoLimit)
				ciphertext = out
				return one(made, err)
			})
			return ciphertext, err
		},
	}).file()
}

// decapsulateFile takes a ciphertext, makes the key that it tells, and gives its name.
func decapsulateFile(k *keyFile) *file {
	return k.making(func(ctx context.Context, s *session, key p11.ObjectHandle, data []byte) (p11.Attributes, creation, func() []byte, error) {
		template := agreedKey(k.template)
		return template, func() ([]p11.ObjectHandle, error) {
			return one(s.eng.DecapsulateKey(ctx, k.mechanism, key, data, template))
		}, nil, nil
	})
}

// completed is the mechanism with what was written.
func (k *keyFile) completed(ctx context.Context, s *session, data []byte) (p11.Mechanism, error) {
	if m, is, err := k.ibmKEM(ctx, s, data); is || err != nil {
		return m, err
	}
	named := func() (p11.ObjectHandle, error) {
		name := string(bytes.TrimSuffix(data, []byte("\n")))
		i, err := k.findIn(ctx, s.app.eng, name)
		if err != nil {
			return 0, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "no key %q", clip(name))
		}
		defer i.Wipe()
		return i.Handle, nil
	}
	m := k.mechanism
	switch p := m.Param.(type) {
	case p11.OtherKey:
		if p == 0 {
			h, err := named()
			return p11.Mechanism{Type: m.Type, Param: p11.OtherKey(h)}, err
		}
	case *p11.IKE1PRFParams:
		if p.SharedKey == 0 {
			with := *p
			var err error
			with.SharedKey, err = named()
			return p11.Mechanism{Type: m.Type, Param: &with}, err
		}
	case *p11.SP800108Params:
		return p11.Mechanism{Type: m.Type, Param: p.WithTemplate(k.derived())}, nil
	}
	return withPublic(m, data)
}

// making is the data file that makes keys of what is written, with the key whose handle
// prepare is given. What comes beside them stands behind their names, in hexadecimal.
func (k *keyFile) making(prepare func(ctx context.Context, s *session, key p11.ObjectHandle, data []byte) (p11.Attributes, creation, func() []byte, error)) *file {
	st := k.stream(func(_ context.Context, s *session, _ engine.ObjectInfo) (transform, error) {
		return &collection{s: s, limit: maxWrapped, do: func(ctx context.Context, data []byte) ([]byte, error) {
			key, err := k.key(ctx, s)
			if err != nil {
				return nil, err
			}
			template, create, beside, err := prepare(ctx, s, key.Handle, data)
			if err != nil {
				return nil, err
			}
			made, err := s.makeNamed(ctx, template, create)
			if err != nil {
				return nil, err
			}
			names, err := k.namesOf(ctx, s.app.eng, made...)
			if err == nil && beside != nil && len(beside()) > 0 {
				names = fmt.Appendf(names, "0x%x\n", beside())
			}
			return names, err
		}}, nil
	})
	st.creates = true
	return st.file()
}

// secretKey is the template of a key that is unwrapped or derived: of a secret key,
// unless it says otherwise, which is kept and guarded as a generated one is.
func secretKey(template p11.Attributes) p11.Attributes {
	t := template.Clone()
	if !t.Has(p11.CKA_CLASS) {
		t.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_SECRET_KEY))
	}
	setDefaults(&t)
	return t
}

// withPublic puts data into the mechanism where it lacks the other side's value.
func withPublic(m p11.Mechanism, data []byte) (p11.Mechanism, error) {
	keys, _ := pkix.Parse(pkix.PublicKey, data, pkix.Options{}) // none if data is a bare value
	if given, _ := m.Param.(p11.RawParam); m.Type == p11.CKM_DH_PKCS_DERIVE && len(given) == 0 {
		value := bytes.Clone(data)
		for _, key := range keys {
			value, _ = key.Get(p11.CKA_VALUE)
		}
		m.Param = p11.RawParam(value)
		return m, m.Validate()
	}
	p, ok := m.Param.(*p11.ECDH1Params)
	if !ok || len(p.PublicData) > 0 {
		return m, m.Validate()
	}
	own := *p
	own.PublicData = bytes.Clone(data)
	for _, key := range keys {
		// CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 v3.1 §6.3.3); the
		// parameter is the point itself.
		der, _ := key.Get(p11.CKA_EC_POINT)
		var point []byte
		if _, err := asn1.Unmarshal(der, &point); err == nil {
			own.PublicData = point
		}
	}
	m.Param = &own
	return m, m.Validate()
}
