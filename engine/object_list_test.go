package engine

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// One object at a time, the same is seen as in a list.
func TestEachObject(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	create(t, s, "class=data token=true label=a")
	create(t, s, aesKey+" token=true label=b id=0x01")
	create(t, s, "class=data label=c")
	stranger := b.app()
	for _, tt := range []struct {
		name string
		app  *Application
		want string
		stop int
	}{
		{"owner", s.Application(), "abc", 99},
		{"owner, stopped", s.Application(), "ab", 2},
		{"stranger", stranger, "a", 99},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			err := tt.app.EachObject(ctx, b.slot, nil, func(i ObjectInfo) bool {
				got += i.Label
				return len(got) < tt.stop
			})
			if err != nil || got != tt.want {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
			var whole, names []ObjectInfo
			err = errors.Join(
				tt.app.EachObject(ctx, b.slot, nil, func(i ObjectInfo) bool {
					i.Attrs, i.KeyType, i.Length = nil, 0, -1
					whole = append(whole, i)
					return true
				}),
				tt.app.EachName(ctx, b.slot, nil, func(i ObjectInfo) bool { names = append(names, i); return true }))
			if d := cmp.Diff(whole, names, cmpopts.EquateEmpty()); err != nil || d != "" {
				t.Errorf("%v; names: %s", err, d)
			}
		})
	}
	want(t, stranger.EachObject(ctx, b.list()[1], nil, nil), p11.CKR_TOKEN_NOT_PRESENT)
}

func TestObjectNamed(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	a, stranger := s.Application(), b.app()
	name := func(h p11.ObjectHandle) string {
		info, err := a.Object(ctx, b.slot, h)
		if err != nil {
			t.Fatal(err)
		}
		return info.Name
	}
	public, private := create(t, s, "class=data token=true"), create(t, s, aesKey+" token=true")
	session := create(t, s, "class=data")
	if name(session) != "" {
		t.Error("a session object has a stored name")
	}
	for _, tt := range []struct {
		what string
		app  *Application
		name string
		want p11.ObjectHandle // 0: CKR_OBJECT_HANDLE_INVALID
	}{
		{"public", a, name(public), public},
		{"private", a, name(private), private},
		{"public, stranger", stranger, name(public), public},
		{"private, stranger", stranger, name(private), 0},
		{"none", a, "ZZZZZZZZ", 0},
		{"empty", a, "", 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			info, err := tt.app.ObjectNamed(ctx, b.slot, tt.name)
			if info.Handle != tt.want {
				t.Errorf("handle %v, want %v", info.Handle, tt.want)
			}
			if tt.want == 0 {
				want(t, err, p11.CKR_OBJECT_HANDLE_INVALID)
			}
		})
	}
}

// An object that is changed between its being found and its being looked at is
// listed all the same, unless it does not match any more.
func TestListingMeetsChange(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct{ name, attributes, template, want string }{
		{"token objects", "token=true private=false", "", "first changed "},
		{"private objects", "token=true private=true", "", "first changed "},
		{"session objects", "token=false", "", "first changed "},
		{"by another attribute", "token=true", "application=x", "first changed "},
		{"by the changed attribute", "token=true", "label=second", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, hooks.Options{})
			s := b.user(t)
			create(t, s, "class=data application=x label=first "+tt.attributes)
			second := create(t, s, "class=data application=x label=second "+tt.attributes)
			// The change comes after the search.
			v := s.view()
			template := tmpl(t, tt.template)
			found, err := v.search(ctx, template, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.SetAttributeValue(ctx, second, tmpl(t, "label=changed")); err != nil {
				t.Fatal(err)
			}
			got := ""
			found, err = v.filter(ctx, found, template, false)
			want(t, err, p11.CKR_OK)
			for _, o := range found {
				e, err := v.holdFound(o, template)
				if err != nil {
					t.Fatal(err)
				}
				got += e.info(true).Label + " "
				e.release()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			got = ""
			if err := s.Application().EachObject(ctx, b.slot, nil, func(i ObjectInfo) bool {
				got += i.Label + " "
				if i.Label == "first" {
					err = s.SetAttributeValue(ctx, second, tmpl(t, "label=again"))
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if got != "first again " || err != nil {
				t.Errorf("%q, %v, want both", got, err)
			}
		})
	}
}
