package tokentest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// data is a data object.
func data(label, value string, private bool) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(private)},
		{Type: p11.CKA_MODIFIABLE, Value: p11.Bool(true)},
		{Type: p11.CKA_LABEL, Value: []byte(label)},
		{Type: p11.CKA_APPLICATION, Value: []byte("suite")},
		{Type: p11.CKA_VALUE, Value: []byte(value)},
	}
}

func labelled(label string) p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}
}

// attribute is a copy of one attribute of an object.
func attribute(t *testing.T, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	noError(t, err)
	defer o.Release()
	v, _ := a.Get(at)
	return append([]byte(nil), v...)
}

func labels(t *testing.T, tok tokens.Token, template p11.Attributes, private bool) string {
	t.Helper()
	found, err := tok.Find(t.Context(), template, private)
	noError(t, err)
	s := ""
	for _, o := range found {
		s += string(attribute(t, o, p11.CKA_LABEL)) + " "
	}
	return s
}

// find returns the object with that label.
func find(t *testing.T, tok tokens.Token, label string) *tokens.Object {
	t.Helper()
	found, err := tok.Find(t.Context(), labelled(label), true)
	noError(t, err)
	if len(found) != 1 {
		t.Fatalf("%d objects with the label %s", len(found), label)
	}
	return found[0]
}

func wantWiped(t *testing.T, what string, attrs p11.Attributes) {
	t.Helper()
	for _, a := range attrs {
		for _, b := range a.Value {
			if b != 0 {
				t.Errorf("%s leaves its %s in memory", what, a.Type.Short())
				break
			}
		}
	}
}

func (b Backend) testObjects(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	ctx := t.Context()
	made := make(map[string]*tokens.Object)
	for _, l := range []string{"c", "a", "b"} {
		o, err := tok.Create(ctx, data(l, "value of "+l, false))
		noError(t, err)
		if o.Handle == 0 || o.Name == "" || o.Private {
			t.Errorf("object %+v", o)
		}
		made[l] = o
	}
	if got := labels(t, tok, nil, false); got != "c a b " {
		t.Errorf("found %q, not in the order of making", got)
	}
	if got := labels(t, tok, labelled("a"), false); got != "a " {
		t.Errorf("found %q", got)
	}
	if got := labels(t, tok, labelled("no"), true); got != "" {
		t.Errorf("found %q", got)
	}
	for l, o := range made {
		byHandle, err := tok.ByHandle(o.Handle)
		noError(t, err)
		byName, err := tok.ByName(o.Name)
		noError(t, err)
		if byHandle.Handle != o.Handle || byName.Handle != o.Handle || string(attribute(t, byHandle, p11.CKA_VALUE)) != "value of "+l {
			t.Errorf("%s is another object by its handle or name", l)
		}
	}
	refused := errors.New("refused")
	if err := tok.Destroy(ctx, made["a"].Handle, func(p11.Attributes) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("a refused destroy: %v", err)
	}
	noError(t, tok.Destroy(ctx, made["a"].Handle, func(a p11.Attributes) error {
		if a.Label() != "a" {
			t.Errorf("asked about %q", a.Label())
		}
		return nil
	}))
	_, err := tok.ByHandle(made["a"].Handle)
	wantRV(t, "a destroyed object", err, p11.CKR_OBJECT_HANDLE_INVALID)
	wantRV(t, "destroy again", tok.Destroy(ctx, made["a"].Handle, func(p11.Attributes) error { return nil }), p11.CKR_OBJECT_HANDLE_INVALID)

	again := b.open(t, dir)
	if got := labels(t, again, nil, false); got != "c b " {
		t.Errorf("after another open: %q", got)
	}
	o, err := again.Create(ctx, data("d", "", false))
	noError(t, err)
	for _, other := range made {
		if o.Name == other.Name {
			t.Errorf("the name %s is used twice", o.Name)
		}
	}
}

func (b Backend) testVersions(t *testing.T) {
	tok := b.ready(t, t.TempDir())
	ctx := t.Context()
	old, err := tok.Create(ctx, data("v", "old", false))
	noError(t, err)
	held, err := old.Acquire()
	noError(t, err)
	refused := errors.New("refused")
	if _, err := tok.Update(ctx, old.Handle, func(p11.Attributes) (p11.Attributes, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("a refused update: %v", err)
	}
	now, err := tok.Update(ctx, old.Handle, func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(p11.CKA_VALUE, []byte("new")), nil
	})
	noError(t, err)
	if now.Handle != old.Handle || now.Name != old.Name {
		t.Errorf("another object: %v, was %v", now, old)
	}
	if v, _ := held.Get(p11.CKA_VALUE); string(v) != "old" {
		t.Errorf("the version that is held became %q", v)
	}
	old.Release()
	_, err = old.Acquire()
	wantRV(t, "the old version", err, p11.CKR_OBJECT_HANDLE_INVALID)
	newest, err := tok.ByHandle(old.Handle)
	noError(t, err)
	if got := attribute(t, newest, p11.CKA_VALUE); string(got) != "new" {
		t.Errorf("value %q", got)
	}
	held, err = newest.Acquire()
	noError(t, err)
	noError(t, tok.Destroy(ctx, old.Handle, func(p11.Attributes) error { return nil }))
	if v, _ := held.Get(p11.CKA_VALUE); string(v) != "new" {
		t.Errorf("destroyed while it is held, it became %q", v)
	}
	newest.Release()
}

func (b Backend) testPrivate(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	ctx := t.Context()
	early := data("too early", "value", true)
	_, err := tok.Create(ctx, early)
	wantRV(t, "a private object without a login", err, p11.CKR_USER_NOT_LOGGED_IN)
	wantWiped(t, "an object that was not made", early)
	l := login(t, tok, p11.CKU_USER, userPIN)
	public, err := tok.Create(ctx, data("public", "", false))
	noError(t, err)
	private, err := tok.Create(ctx, data("private", "hidden", true))
	noError(t, err)
	if got := labels(t, tok, nil, true); got != "public private " {
		t.Errorf("found %q", got)
	}
	if got := labels(t, tok, nil, false); got != "public " {
		t.Errorf("found %q without private objects", got)
	}
	for _, h := range []p11.ObjectHandle{public.Handle, private.Handle} {
		for _, at := range []p11.AttributeType{p11.CKA_PRIVATE, p11.CKA_TOKEN} {
			var changed p11.Attributes
			_, err := tok.Update(ctx, h, func(a p11.Attributes) (p11.Attributes, error) {
				changed = a.With(at, p11.Bool(!a.Bool(at)))
				return changed, nil
			})
			wantRV(t, "a change of "+at.Short(), err, p11.CKR_ATTRIBUTE_READ_ONLY)
			wantWiped(t, "a change that was refused", changed)
		}
	}
	noError(t, l.Close())
	if a, b := tok.Counts(); a != 1 || b != 0 {
		t.Errorf("%d public and %d private objects after logout", a, b)
	}
	if got := labels(t, tok, nil, true); got != "public " {
		t.Errorf("found %q after logout", got)
	}
	_, err = tok.ByName(private.Name)
	wantRV(t, "a private object by name after logout", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if _, err := private.Acquire(); err == nil {
		t.Error("a private object is still there after logout")
	}
	login(t, tok, p11.CKU_USER, userPIN)
	if got := labels(t, tok, labelled("private"), true); got != "private " {
		t.Errorf("found %q after another login", got)
	}
}

// testConcurrent has two open tokens on one directory count in one object at once.
// Whoever's change comes between another's reading and writing makes it begin again, so
// no count is lost.
func (b Backend) testConcurrent(t *testing.T) {
	dir := t.TempDir()
	one := b.ready(t, dir)
	two := b.open(t, dir)
	ctx := t.Context()
	made, err := one.Create(ctx, data("count", "", false))
	noError(t, err)
	noError(t, two.Refresh(ctx))
	const each = 20
	var wg sync.WaitGroup
	for i := range 4 {
		tok := []tokens.Token{one, two}[i%2]
		o, err := tok.ByName(made.Name)
		noError(t, err)
		wg.Go(func() {
			for range each {
				if _, err := tok.Update(ctx, o.Handle, func(a p11.Attributes) (p11.Attributes, error) {
					v, _ := a.Get(p11.CKA_VALUE)
					return a.With(p11.CKA_VALUE, append(bytes.Clone(v), '|')), nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, tok := range []tokens.Token{one, two} {
		noError(t, tok.Refresh(ctx))
		if got := len(attribute(t, find(t, tok, "count"), p11.CKA_VALUE)); got != 4*each {
			t.Errorf("%d changes of %d are there", got, 4*each)
		}
	}
}

// testTwo has two open tokens on one directory take turns.
func (b Backend) testTwo(t *testing.T) {
	dir := t.TempDir()
	one := b.ready(t, dir)
	two := b.open(t, dir)
	ctx := t.Context()
	login(t, one, p11.CKU_USER, userPIN)
	login(t, two, p11.CKU_USER, userPIN)
	for i := range 10 {
		from, to := one, two
		if i%2 == 1 {
			from, to = two, one
		}
		o, err := from.Create(ctx, data(fmt.Sprint("n", i), "first", i%3 == 0))
		noError(t, err)
		noError(t, to.Refresh(ctx))
		seen, err := to.ByName(o.Name)
		noError(t, err)
		_, err = to.Update(ctx, seen.Handle, func(a p11.Attributes) (p11.Attributes, error) {
			return a.With(p11.CKA_VALUE, []byte("second")), nil
		})
		noError(t, err)
		noError(t, from.Refresh(ctx))
		back, err := from.ByHandle(o.Handle)
		noError(t, err)
		if got := attribute(t, back, p11.CKA_VALUE); string(got) != "second" {
			t.Errorf("object %d is %q", i, got)
		}
		if i%4 == 0 {
			noError(t, from.Destroy(ctx, o.Handle, func(p11.Attributes) error { return nil }))
			noError(t, to.Refresh(ctx))
			_, err = to.ByHandle(seen.Handle)
			wantRV(t, "destroyed by the other", err, p11.CKR_OBJECT_HANDLE_INVALID)
		}
	}
	if a, b := labels(t, one, nil, true), labels(t, two, nil, true); a != b {
		t.Errorf("one has %q, the other %q", a, b)
	}
}
