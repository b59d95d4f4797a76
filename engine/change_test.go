package engine

import (
	"context"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestSetAttributeValue(t *testing.T) {
	const data = "class=data"
	tests := []struct {
		name, object, change string
		want                 p11.RV
	}{
		{"label", data, "label=new", p11.CKR_OK},
		{"value of data", data, "value=0x0102", p11.CKR_OK},
		{"unknown attribute", data, "modulus=0x01", p11.CKR_ATTRIBUTE_TYPE_INVALID},
		{"class", data, "class=certificate", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"token", data, "token=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"private", data, "private=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"unique id", data, "unique-id=x", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"not modifiable", data + " modifiable=false", "label=new", p11.CKR_ACTION_PROHIBITED},
		{"modifiable", data, "modifiable=false", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"all or nothing", data, "label=new class=certificate", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"give up copies", data, "copyable=false", p11.CKR_OK},
		{"copies for good", data + " copyable=false", "copyable=true", p11.CKR_ATTRIBUTE_READ_ONLY},

		{"certificate id", certificate, "id=0x01", p11.CKR_OK},
		{"certificate value", certificate, "value=0x3000", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"certificate subject", certificate, "subject=0x3000", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"certificate trusted", certificate, "trusted=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"certificate untrusted stays so", certificate, "trusted=false", p11.CKR_OK},

		{"sensitive", aesKey + " sensitive=false", "sensitive=true", p11.CKR_OK},
		{"sensitive for good", aesKey + " sensitive=true", "sensitive=false", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"sensitive again", aesKey + " sensitive=true", "sensitive=true", p11.CKR_OK},
		{"not extractable", aesKey + " extractable=true", "extractable=false", p11.CKR_OK},
		{"not extractable for good", aesKey + " extractable=false", "extractable=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"wrap with trusted", aesKey, "wrap-with-trusted=true", p11.CKR_OK},
		{"wrap with trusted for good", aesKey + " wrap-with-trusted=true", "wrap-with-trusted=false", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"usage", aesKey, "encrypt=false wrap=true derive=true", p11.CKR_OK},
		{"dates", aesKey, "start-date=2026-01-01 end-date=2026-12-31", p11.CKR_OK},
		{"end before start", aesKey + " start-date=2026-01-01", "end-date=2025-01-01", p11.CKR_TEMPLATE_INCONSISTENT},
		{"key value", aesKey, "value=0x000102030405060708090a0b0c0d0e0f", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"key length", aesKey, "value-len=16", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"history", aesKey, "always-sensitive=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"local", aesKey, "local=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"allowed mechanisms", aesKey, "allowed-mechanisms=aes-cbc", p11.CKR_ATTRIBUTE_READ_ONLY},
	}
	for _, token := range []string{"token=false", "token=true"} {
		t.Run(token, func(t *testing.T) {
			b := newBench(t, hooks.Options{})
			s := b.user(t)
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					h := create(t, s, tt.object+" label=old "+token)
					change := tmpl(t, tt.change)
					want(t, s.SetAttributeValue(t.Context(), h, change), tt.want)
					if tt.want != p11.CKR_OK {
						if r := get(t, s, h, p11.CKA_LABEL); string(r.Value) != "old" {
							t.Errorf("label is %q after a refusal", r.Value)
						}
						return
					}
					for _, a := range change {
						if r := get(t, s, h, a.Type); string(r.Value) != string(a.Value) {
							t.Errorf("%s is %x, want %x (%v)", a.Type, r.Value, a.Value, r.Err)
						}
					}
				})
			}
		})
	}
}

func TestCopyObject(t *testing.T) {
	tests := []struct {
		name, object, change string
		want                 p11.RV
	}{
		{"as it is", "class=data", "", p11.CKR_OK},
		{"into the token", "class=data", "token=true label=new", p11.CKR_OK},
		{"become private", "class=data", "private=true", p11.CKR_OK},
		{"become public", "class=data private=true", "private=false", p11.CKR_TEMPLATE_INCONSISTENT},
		{"same class", "class=data", "class=data", p11.CKR_OK},
		{"other class", "class=data", "class=certificate", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"not copyable", "class=data copyable=false", "", p11.CKR_ACTION_PROHIBITED},
		{"not modifiable", "class=data modifiable=false", "token=true", p11.CKR_OK},
		{"not modifiable, changed", "class=data modifiable=false", "label=new", p11.CKR_ACTION_PROHIBITED},
		{"not modifiable, made so", "class=data modifiable=false", "modifiable=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"not destroyable", "class=data", "destroyable=false", p11.CKR_OK},
		{"sensitive key", aesKey, "label=new", p11.CKR_OK},
		{"less sensitive key", aesKey + " sensitive=true", "sensitive=false", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"more sensitive key", aesKey, "sensitive=true", p11.CKR_OK},
		{"extractable key", aesKey, "extractable=true", p11.CKR_ATTRIBUTE_READ_ONLY},
		{"key to public", aesKey, "private=false", p11.CKR_TEMPLATE_INCONSISTENT},
	}
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := create(t, s, tt.object+" label=old")
			c, err := s.CopyObject(t.Context(), h, tmpl(t, tt.change))
			want(t, err, tt.want)
			if err != nil {
				return
			}
			if c == h {
				t.Error("the copy has the same handle")
			}
			if a, b := get(t, s, h, p11.CKA_UNIQUE_ID), get(t, s, c, p11.CKA_UNIQUE_ID); string(a.Value) == string(b.Value) {
				t.Error("the copy has the same unique id")
			}
			if r := get(t, s, h, p11.CKA_LABEL); string(r.Value) != "old" {
				t.Errorf("the original's label is now %q", r.Value)
			}
			for _, a := range tmpl(t, tt.change) {
				if r := get(t, s, c, a.Type); string(r.Value) != string(a.Value) {
					t.Errorf("%s is %x, want %x", a.Type, r.Value, a.Value)
				}
			}
		})
	}
}

func TestDestroyObject(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, token := range []string{" token=false", " token=true"} {
		kept := create(t, s, "class=data destroyable=false"+token)
		want(t, s.DestroyObject(ctx, kept), p11.CKR_ACTION_PROHIBITED)
		h := create(t, s, aesKey+token)
		want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
		want(t, s.DestroyObject(ctx, h), p11.CKR_OBJECT_HANDLE_INVALID)
		_, err := s.GetAttributeValue(ctx, h, p11.CKA_LABEL)
		want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	}
}

// Session objects are seen by all sessions of the application, and end with the
// one that made them.
func TestSessionObjects(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a := b.app()
	maker, other := b.session(t, a, ro), b.session(t, a, ro)
	logIn(t, maker, p11.CKU_USER, "1234")
	public, private := create(t, maker, "class=data"), create(t, maker, aesKey)
	for _, h := range []p11.ObjectHandle{public, private} {
		_, err := other.GetAttributeValue(ctx, h, p11.CKA_LABEL)
		want(t, err, p11.CKR_OK)
	}
	want(t, other.SetAttributeValue(ctx, public, tmpl(t, "label=x")), p11.CKR_OK)
	own := create(t, other, "class=data")
	want(t, maker.Logout(ctx), p11.CKR_OK)
	_, err := other.GetAttributeValue(ctx, private, p11.CKA_LABEL)
	want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = other.GetAttributeValue(ctx, public, p11.CKA_LABEL)
	want(t, err, p11.CKR_OK)
	if n := b.Stats().SessionObjects; n != 2 {
		t.Errorf("%d session objects after logout, want 2", n)
	}
	want(t, maker.Close(), p11.CKR_OK)
	_, err = other.GetAttributeValue(ctx, public, p11.CKA_LABEL)
	want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = other.GetAttributeValue(ctx, own, p11.CKA_LABEL)
	want(t, err, p11.CKR_OK)
}

// A private session object that is made while the user logs out is not made.
func TestSessionObjectAfterLogout(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	stale := s.appSlot.user()
	want(t, s.Logout(t.Context()), p11.CKR_OK)
	_, err := s.appSlot.objects.add(s, stale, tmpl(t, "class=data private=true"), nil, nil)
	want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
	want(t, s.Close(), p11.CKR_OK)
	_, err = s.appSlot.objects.add(s, nil, tmpl(t, "class=data private=false"), nil, nil)
	want(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	if n := b.Stats().SessionObjects; n != 0 {
		t.Errorf("%d session objects", n)
	}
}

// Objects that others stored with attributes or of kinds that have no rules here
// can still be read, relabelled and destroyed.
func TestForeignObjects(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, template := range []string{
		"class=secret-key key-type=twofish token=true label=foreign",
		"class=0x80001234 token=true label=foreign",
		"class=data token=true label=foreign 0x80000001=0x0102",
	} {
		t.Run(template, func(t *testing.T) {
			o := b.token.Put(tmpl(t, template))
			h := o.Handle
			want(t, s.SetAttributeValue(ctx, h, tmpl(t, "label=new")), p11.CKR_OK)
			if r := get(t, s, h, p11.CKA_LABEL); string(r.Value) != "new" {
				t.Errorf("label %q", r.Value)
			}
			if r := get(t, s, h, p11.CKA_UNIQUE_ID); string(r.Value) != o.Name {
				t.Errorf("unique id %q, want the stored name %q", r.Value, o.Name)
			}
			found, err := s.Find(ctx, p11.Attributes{{Type: p11.CKA_UNIQUE_ID, Value: []byte(o.Name)}})
			if err != nil || len(found) != 1 || found[0] != h {
				t.Errorf("find by unique id: %v, %v", found, err)
			}
			want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
		})
	}
}

// A key that is changed or destroyed between the look at it and the token's call
// serves that call: its holder has the version that it found.
func TestChangeBeforeTheTokensCall(t *testing.T) {
	block := make([]byte, 16)
	uses := []struct {
		method string // of the token
		key    string
		call   func(ctx context.Context, t *testing.T, s *Session, key p11.ObjectHandle) error
	}{
		{"Sign", macKey + " sign=true", begin(p11.CKF_SIGN, "sha256-hmac")},
		{"Verify", macKey + " verify=true", begin(p11.CKF_VERIFY, "sha256-hmac")},
		{"Encrypt", aesKey + " encrypt=true", begin(p11.CKF_ENCRYPT, "aes-cbc,iv=0x00000000000000000000000000000000")},
		{"Decrypt", aesKey + " decrypt=true", begin(p11.CKF_DECRYPT, "aes-cbc,iv=0x00000000000000000000000000000000")},
		{"WrapKey", aesKey + " wrap=true", func(ctx context.Context, t *testing.T, s *Session, key p11.ObjectHandle) error {
			_, err := s.WrapKey(ctx, mech(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000"), key, create(t, s, macKey+" extractable=true"))
			return err
		}},
		{"WrapKey", macKey + " extractable=true", func(ctx context.Context, t *testing.T, s *Session, key p11.ObjectHandle) error {
			_, err := s.WrapKey(ctx, mech(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000"), create(t, s, aesKey+" wrap=true"), key)
			return err
		}},
		{"UnwrapKey", aesKey + " unwrap=true", func(ctx context.Context, t *testing.T, s *Session, key p11.ObjectHandle) error {
			_, err := s.UnwrapKey(ctx, mech(t, "aes-cbc,iv=0x00000000000000000000000000000000"), key, block, tmpl(t, "class=secret-key key-type=aes"))
			return err
		}},
	}
	changes := map[string]func(ctx context.Context, s *Session, key p11.ObjectHandle) error{
		"changed": func(ctx context.Context, s *Session, key p11.ObjectHandle) error {
			return s.SetAttributeValue(ctx, key, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("new")}})
		},
		"destroyed": func(ctx context.Context, s *Session, key p11.ObjectHandle) error {
			return s.DestroyObject(ctx, key)
		},
	}
	for name, change := range changes {
		for _, u := range uses {
			for _, where := range []string{" token=true", " token=false"} {
				t.Run(name+" "+u.method+" "+u.key+where, func(t *testing.T) {
					ctx := t.Context()
					var meddle func() error
					b := newBench(t, hooks.Options{Before: func(method string) error {
						if method != u.method {
							return nil
						}
						return meddle()
					}})
					s := b.user(t)
					key := create(t, s, u.key+where)
					meddle = func() error { return change(ctx, s, key) }
					want(t, u.call(ctx, t, s, key), p11.CKR_OK)
				})
			}
		}
	}
}

// begin begins an operation and ends it.
func begin(use p11.Flags, mechanism string) func(context.Context, *testing.T, *Session, p11.ObjectHandle) error {
	return func(ctx context.Context, t *testing.T, s *Session, key p11.ObjectHandle) error {
		o, err := s.Begin(ctx, use, mech(t, mechanism), key)
		if err == nil {
			o.Close()
		}
		return err
	}
}
