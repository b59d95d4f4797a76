// Package cuts has changes of a token that tests of storages cut off in their midst, and
// what may be left then: the token as it was before or as it is after, and no third thing.
package cuts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// ErrKilled is what every step gives after the process was killed.
var ErrKilled = errors.New("killed")

// OtherPIN is what changes of PINs set.
const OtherPIN = "11223344"

// PINs are those of a token that is to be changed.
type PINs struct{ SO, User string }

// Fill makes the objects that a token has before a change. Its user is logged in.
func Fill(t testing.TB, s tokens.Storage) {
	t.Helper()
	for _, attrs := range []p11.Attributes{Data("pub", "1", false), Data("priv", "2", true)} {
		if _, err := s.Create(t.Context(), attrs); err != nil {
			t.Fatal(err)
		}
	}
}

// Data is a data object.
func Data(label, value string, private bool) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(private)},
		{Type: p11.CKA_MODIFIABLE, Value: p11.Bool(true)},
		{Type: p11.CKA_LABEL, Value: []byte(label)},
		{Type: p11.CKA_APPLICATION, Value: []byte{}},
		{Type: p11.CKA_VALUE, Value: []byte(value)},
	}
}

// A State is what a user sees of a token.
type State struct {
	SO, User string // the PINs that work
	Label    string
	Objects  []string // label=value, sorted
}

func (s State) String() string {
	return fmt.Sprintf("so=%s user=%s label=%q %v", s.SO, s.User, s.Label, s.Objects)
}

func (s State) with(objects ...string) State {
	slices.Sort(objects)
	s.Objects = objects
	return s
}

// Look says what a token has. The PINs are tried on try, which is the same token or a copy of
// it: three wrong ones in a row lock it. Each that works must open its master key.
func Look(t testing.TB, s, try tokens.Storage, pins ...string) (st State) {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st.Label = info.Label
	for _, text := range pins {
		for user, works := range map[p11.UserType]*string{p11.CKU_SO: &st.SO, p11.CKU_USER: &st.User} {
			if l, err := try.Login(t.Context(), user, tokentest.PIN(t, text)); err == nil {
				*works += text
				_ = l.Close()
			}
		}
	}
	if slices.Contains(pins, st.User) {
		l, err := s.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, st.User))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	st.Objects = Contents(t, s)
	slices.Sort(st.Objects)
	return st
}

// Contents are the objects that a token shows.
func Contents(t testing.TB, s tokens.Storage) (list []string) {
	t.Helper()
	found, err := s.Find(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		a, err := o.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		v, _ := a.Get(p11.CKA_VALUE)
		list = append(list, fmt.Sprintf("%s=%s", a.Label(), v))
		o.Release()
	}
	return list
}

// A Change is one of a token that Fill has filled, whose user is logged in.
type Change struct {
	Name string
	Do   func(ctx context.Context, s tokens.Storage) error
	// After are the states that it may leave beside the one before it; the last is what it
	// leaves in the end. Who changes in one step leaves only that.
	After func(before State) []State
}

// Changes are all.
func Changes(t testing.TB, pins PINs) []Change {
	pin := func(text string) *secret.Bytes { return tokentest.PIN(t, text) }
	one := func(f func(b State) State) func(State) []State {
		return func(b State) []State { return []State{f(b)} }
	}
	create := func(name string, private bool) Change {
		return Change{name, func(ctx context.Context, s tokens.Storage) error {
			_, err := s.Create(ctx, Data("new", "3", private))
			return err
		}, one(func(b State) State { return b.with("pub=1", "priv=2", "new=3") })}
	}
	relabel := func(name, from, to string, after ...string) Change {
		return Change{name, func(ctx context.Context, s tokens.Storage) error {
			h, err := labelled(ctx, s, from)
			if err == nil {
				_, err = s.Update(ctx, h, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte(to)), nil })
			}
			return err
		}, one(func(b State) State { return b.with(after...) })}
	}
	return []Change{
		create("create public", false),
		create("create private", true),
		{"create several", func(ctx context.Context, s tokens.Storage) error {
			_, err := s.(tokens.BatchCreator).CreateAll(ctx, []p11.Attributes{Data("new", "3", false), Data("key", "4", true), Data("cert", "5", false)})
			return err
		}, one(func(b State) State { return b.with("pub=1", "priv=2", "new=3", "key=4", "cert=5") })},
		relabel("update public", "pub", "PUB", "PUB=1", "priv=2"),
		relabel("update private", "priv", "PRIV", "pub=1", "PRIV=2"),
		{"destroy", func(ctx context.Context, s tokens.Storage) error {
			h, err := labelled(ctx, s, "pub")
			if err == nil {
				err = s.Destroy(ctx, h, func(p11.Attributes) error { return nil })
			}
			return err
		}, one(func(b State) State { return b.with("priv=2") })},
		{"SetPIN user", func(ctx context.Context, s tokens.Storage) error {
			return s.SetPIN(ctx, p11.CKU_USER, pin(pins.User), pin(OtherPIN))
		}, one(func(b State) State { b.User = OtherPIN; return b })},
		{"SetPIN SO", func(ctx context.Context, s tokens.Storage) error {
			return s.SetPIN(ctx, p11.CKU_SO, pin(pins.SO), pin(OtherPIN))
		}, one(func(b State) State { b.SO = OtherPIN; return b })},
		{"InitPIN", func(ctx context.Context, s tokens.Storage) error {
			so, err := s.Login(ctx, p11.CKU_SO, pin(pins.SO))
			if err != nil {
				return err
			}
			defer so.Close()
			return s.InitPIN(ctx, so, pin(OtherPIN))
		}, one(func(b State) State { b.User = OtherPIN; return b })},
		{"wrong PIN", func(ctx context.Context, s tokens.Storage) error {
			_, err := s.Login(ctx, p11.CKU_USER, pin("9999"))
			if p11.RVOf(err) == p11.CKR_PIN_INCORRECT && !errors.Is(err, ErrKilled) {
				return nil
			}
			return err
		}, one(func(b State) State { return b })},
		{"InitToken", func(ctx context.Context, s tokens.Storage) error {
			return s.InitToken(ctx, pin(pins.SO), "emptied")
		}, func(b State) []State {
			b.Objects = nil
			end := b
			end.User, end.Label = "", "emptied"
			return []State{b, end}
		}},
	}
}

// labelled is the object of that label.
func labelled(ctx context.Context, s tokens.Storage, label string) (p11.ObjectHandle, error) {
	found, err := s.Find(ctx, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d objects are called %q", len(found), label)
	}
	if err != nil {
		return 0, err
	}
	return found[0].Handle, nil
}
