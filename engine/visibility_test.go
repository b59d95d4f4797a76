package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// What must not be seen: before login, and for other applications, private
// objects and others' session objects leave no trace.
func TestMustNotBeSeen(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	hidden := map[string]p11.ObjectHandle{
		"private token object":        create(t, s, aesKey+" token=true label=secret id=0x01"),
		"private session object":      create(t, s, aesKey+" label=secret"),
		"public session object":       create(t, s, "class=data label=secret"),
		"the token's own handle":      b.token.Put(tmpl(t, aesKey+" token=true private=true label=secret")).Handle,
		"a handle that never was one": 12345,
	}
	visible := create(t, s, "class=data token=true label=public")

	// Other applications: one that never had a session, one public, one SO, and
	// one whose user logged in and out.
	out := b.session(t, b.app(), rw)
	logIn(t, out, p11.CKU_USER, "1234")
	want(t, out.Logout(ctx), p11.CKR_OK)
	so := b.session(t, b.app(), rw)
	logIn(t, so, p11.CKU_SO, "87654321")
	others := map[string]*Session{"public": b.session(t, b.app(), rw), "logged out": out, "security officer": so}

	for name, o := range others {
		t.Run(name, func(t *testing.T) {
			for _, template := range []string{"", "label=secret", "class=secret-key", "id=0x01", "private=true", "class=data label=secret"} {
				list, err := o.Find(ctx, tmpl(t, template))
				if err != nil {
					t.Fatal(err)
				}
				var expect []p11.ObjectHandle
				if template == "" {
					expect = []p11.ObjectHandle{visible}
				}
				if diff := cmp.Diff(expect, list, cmp.Transformer("empty", func(l []p11.ObjectHandle) []p11.ObjectHandle { return append([]p11.ObjectHandle(nil), l...) })); diff != "" {
					t.Errorf("find %q: %s", template, diff)
				}
				infos, err := o.Application().Objects(ctx, b.slot, tmpl(t, template))
				if err != nil || len(infos) != len(expect) {
					t.Errorf("Objects(%q): %d objects, %v", template, len(infos), err)
				}
			}
			// The same error for each, in words too but for the handle.
			for what, h := range hidden {
				checkAbsent(t, what, o, h)
			}
		})
	}
	t.Run("no session", func(t *testing.T) {
		a := b.app()
		infos, err := a.Objects(ctx, b.slot, nil)
		if err != nil || len(infos) != 1 || infos[0].Label != "public" {
			t.Errorf("Objects: %v, %v", infos, err)
		}
		for what, h := range hidden {
			if _, err := a.Object(ctx, b.slot, h); p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("the owner sees all", func(t *testing.T) {
		list, err := s.Find(ctx, nil)
		if err != nil || len(list) != 5 {
			t.Errorf("%d objects, %v; want 5", len(list), err)
		}
		checkAbsent(t, "the token's own handle", s, hidden["the token's own handle"])
	})
}

func checkAbsent(t *testing.T, what string, s *Session, h p11.ObjectHandle) {
	t.Helper()
	ctx := t.Context()
	a := s.Application()
	calls := []struct {
		name string
		want p11.RV
		call func() error
	}{
		{"Object", p11.CKR_OBJECT_HANDLE_INVALID, func() error { _, err := a.Object(ctx, s.Slot(), h); return err }},
		{"Get", p11.CKR_OBJECT_HANDLE_INVALID, func() error { _, err := s.GetAttributeValue(ctx, h, p11.CKA_LABEL); return err }},
		{"Set", p11.CKR_OBJECT_HANDLE_INVALID, func() error { return s.SetAttributeValue(ctx, h, tmpl(t, "label=x")) }},
		{"Copy", p11.CKR_OBJECT_HANDLE_INVALID, func() error { _, err := s.CopyObject(ctx, h, nil); return err }},
		{"Destroy", p11.CKR_OBJECT_HANDLE_INVALID, func() error { return s.DestroyObject(ctx, h) }},
		{"Size", p11.CKR_OBJECT_HANDLE_INVALID, func() error { _, err := s.ObjectSize(ctx, h); return err }},
		{"Sign", p11.CKR_KEY_HANDLE_INVALID, func() error { _, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), h); return err }},
		{"Encrypt", p11.CKR_KEY_HANDLE_INVALID, func() error {
			return s.EncryptInit(ctx, mech(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000"), h)
		}},
		{"Wrap with it", p11.CKR_WRAPPING_KEY_HANDLE_INVALID, func() error {
			_, err := s.WrapKey(ctx, mech(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000"), h, h)
			return err
		}},
		{"Unwrap", p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, func() error {
			_, err := s.UnwrapKey(ctx, mech(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000"), h, nil, nil)
			return err
		}},
		{"Derive", p11.CKR_KEY_HANDLE_INVALID, func() error { _, err := s.DeriveKey(ctx, mech(t, "ecdh1-derive,kdf=null"), h, nil); return err }},
	}
	for _, c := range calls {
		if err := c.call(); p11.RVOf(err) != c.want {
			t.Errorf("%s: %s gives %v, want %v", what, c.name, err, c.want)
		}
	}
}

// The numbers that an application can count do not change with what it may not
// see.
func TestCountsTellNothing(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s, stranger := b.user(t), b.session(t, b.app(), ro)
	count := func() (int, int) {
		list, err := stranger.Find(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		infos, err := stranger.Application().Objects(ctx, b.slot, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(list), len(infos)
	}
	before, _ := count()
	objects, handles := b.Stats().Shown()
	create(t, s, aesKey+" token=true")
	create(t, s, "class=data private=true token=true")
	create(t, s, "class=data private=true")
	if o, h := b.Stats().Shown(); o != objects || h != handles {
		t.Errorf("%d session objects and %d handles, were %d and %d", o, h, objects, handles)
	}
	create(t, s, "class=data")
	found, infos := count()
	if found != before || infos != before {
		t.Errorf("%d objects found, %d listed; %d before", found, infos, before)
	}
}

// Private handles of before a logout name nothing after the next login, though
// the token kept the objects for another application.
func TestHandlesEndWithLogin(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	keeper := b.user(t) // keeps the token's private objects loaded
	s := b.user(t)
	h := create(t, s, aesKey+" token=true label=mine")
	public := create(t, s, "class=data token=true")
	session := create(t, s, aesKey)
	seen, err := keeper.Find(ctx, tmpl(t, "label=mine"))
	if err != nil || len(seen) != 1 {
		t.Fatalf("the other application finds %d, %v", len(seen), err)
	}
	if seen[0] == h {
		t.Error("two applications know a private object by one handle")
	}
	want(t, s.Logout(ctx), p11.CKR_OK)
	logIn(t, s, p11.CKU_USER, "1234")
	_, err = s.GetAttributeValue(ctx, h, p11.CKA_LABEL)
	want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = s.GetAttributeValue(ctx, session, p11.CKA_LABEL)
	want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = s.GetAttributeValue(ctx, public, p11.CKA_LABEL)
	want(t, err, p11.CKR_OK)
	again, err := s.Find(ctx, tmpl(t, "label=mine"))
	if err != nil || len(again) != 1 || again[0] == h {
		t.Errorf("found %v (before %v), %v", again, h, err)
	}
}

// Attributes that may not be revealed are not revealed by any way.
func TestSecretsStayInside(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	tests := []struct {
		name     string
		template string
		visible  bool
	}{
		{"default", "", false},
		{"sensitive", "sensitive=true extractable=true", false},
		{"not extractable", "sensitive=false extractable=false", false},
		{"open", "sensitive=false extractable=true", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := create(t, s, aesKey+" label="+string(tt.name[0])+" "+tt.template)
			r := get(t, s, h, p11.CKA_VALUE)
			info, err := s.Application().Object(ctx, b.slot, h)
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.Find(ctx, tmpl(t, aesKey+" label="+string(tt.name[0])))
			if err != nil {
				t.Fatal(err)
			}
			if tt.visible {
				want(t, r.Err, p11.CKR_OK)
				if len(r.Value) != 16 || !info.Attrs.Has(p11.CKA_VALUE) || len(found) != 1 {
					t.Errorf("value %x, in info %v, found %d", r.Value, info.Attrs.Has(p11.CKA_VALUE), len(found))
				}
				return
			}
			want(t, r.Err, p11.CKR_ATTRIBUTE_SENSITIVE)
			if r.Value != nil || info.Attrs.Has(p11.CKA_VALUE) {
				t.Error("the value is given")
			}
			if len(found) != 0 {
				t.Error("a search by value finds the key: an oracle")
			}
		})
	}
	t.Run("stored without the flags", func(t *testing.T) {
		a := tmpl(t, aesKey+" label=stock token=true")
		a.Delete(p11.CKA_SENSITIVE)
		b.token.Put(a)
		found, err := s.Find(ctx, tmpl(t, "label=stock"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		want(t, get(t, s, found[0], p11.CKA_VALUE).Err, p11.CKR_ATTRIBUTE_SENSITIVE)
	})
}

// What is handed out is a copy: it outlives the object and changes nothing.
func TestInfoIsACopy(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	h := create(t, s, "class=data label=one value=0x0102")
	info, err := s.Application().Object(ctx, b.slot, h)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := info.Attrs.Get(p11.CKA_VALUE)
	v[0] = 9
	if r := get(t, s, h, p11.CKA_VALUE); r.Value[0] != 1 {
		t.Error("a change of the copy changed the object")
	}
	want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
	if info.Attrs.Label() != "one" || v[1] != 2 {
		t.Error("the copy was wiped with the object")
	}
}
