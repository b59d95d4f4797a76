package fs

import (
	"bytes"
	"context"
	"encoding/asn1"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// maxWrapped bounds a wrapped key, and the public value of another party.
const maxWrapped = 64 << 10

// wrapFile is written the name of the key to wrap, and reads it wrapped.
func wrapFile(k *keyFile) file {
	f := k.objects.fs
	return &commandFile{
		fs: f, p: k.objects.p, key: k.objects.p.key(k.id), replies: true, limit: 4096,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			h, err := k.handle(ctx, o.s)
			if err != nil {
				return nil, err
			}
			i, err := k.objects.findIn(ctx, o.s.app.eng, string(line))
			if err != nil {
				return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "no key %q: write a name as in objects", clip(string(line)))
			}
			return o.s.eng.WrapKey(ctx, k.mechanism, h, i.Handle)
		},
	}
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// unwrapFile is written a wrapped key, makes the key, and reads its name.
func unwrapFile(k *keyFile) file {
	return k.making(func(ctx context.Context, s *session, data []byte) (p11.ObjectHandle, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return 0, err
		}
		template := made(k.template)
		if !template.Has(p11.CKA_KEY_TYPE) {
			if class, _ := template.Class(); class == p11.CKO_SECRET_KEY {
				template.Set(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES))
			}
		}
		return s.eng.UnwrapKey(ctx, k.mechanism, h, data, template)
	})
}

// deriveFile is written the other side's public value, unless the name holds
// it: as a public key in PEM or DER, or as a bare point. It makes the key, and
// reads its name.
func deriveFile(k *keyFile) file {
	return k.making(func(ctx context.Context, s *session, data []byte) (p11.ObjectHandle, error) {
		h, err := k.handle(ctx, s)
		if err != nil {
			return 0, err
		}
		m, err := withPublic(k.mechanism, data)
		if err != nil {
			return 0, err
		}
		template := made(k.template)
		if !template.Has(p11.CKA_KEY_TYPE) {
			template.Set(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES))
			if !template.Has(p11.CKA_VALUE_LEN) {
				template.SetUlong(p11.CKA_VALUE_LEN, 32)
			}
		}
		return s.eng.DeriveKey(ctx, m, h, template)
	})
}

// made is a template for a key that is unwrapped or derived: a secret key,
// unless it says otherwise, and kept and guarded as a generated one is.
func made(template p11.Attributes) p11.Attributes {
	t := template.Clone()
	if !t.Has(p11.CKA_CLASS) {
		t.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_SECRET_KEY))
	}
	return guardedKey(t)
}

// withPublic puts data into the mechanism where it lacks the other side's value.
func withPublic(m p11.Mechanism, data []byte) (p11.Mechanism, error) {
	p, ok := m.Param.(*p11.ECDH1Params)
	if !ok || len(p.PublicData) > 0 {
		return m, m.Validate()
	}
	own := *p
	own.PublicData = bytes.Clone(data)
	if templates, err := pkix.Parse(pkix.PublicKey, data, pkix.Options{}); err == nil {
		for _, t := range templates {
			// CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 v3.1
			// §6.3.3); the parameter is the point itself.
			var point []byte
			if der, ok := t.Get(p11.CKA_EC_POINT); !ok {
				continue
			} else if _, err := asn1.Unmarshal(der, &point); err == nil {
				own.PublicData = point
			}
		}
	}
	m.Param = &own
	return m, m.Validate()
}

// making is the data file that makes one key of what is written.
func (k *keyFile) making(create func(ctx context.Context, s *session, data []byte) (p11.ObjectHandle, error)) *streamFile {
	f := k.stream(func(ctx context.Context, s *session) (transform, error) {
		if _, err := k.handle(ctx, s); err != nil {
			return nil, err
		}
		return &gather{s: s, limit: maxWrapped, do: func(ctx context.Context, data []byte) ([]byte, error) {
			h, err := create(ctx, s, data)
			if err != nil {
				return nil, err
			}
			return k.objects.namesOf(context.WithoutCancel(ctx), s.app.eng, h)
		}}, nil
	})
	f.creates = true
	return f
}
