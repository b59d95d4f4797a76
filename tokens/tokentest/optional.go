package tokentest

import (
	"bytes"
	"crypto/hmac"
	"slices"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pqc"
	"p11fs/tokens"
)

// testAdopted gives the token keys with values of ours. What it makes of them is its
// own, and they are the keys that they were.
func (b Backend) testAdopted(t *testing.T) {
	tok := b.forKeys(t)
	adopter, ok := tok.(tokens.Adopter)
	if !ok {
		return
	}
	r := newRing(t, tok)
	value := []byte("a secret that the test knows")
	key := secretKey(t, tok, p11.CKK_GENERIC_SECRET, value)
	if !hmac.Equal(r.mac(t, key), r.macOf(t, p11.CKK_GENERIC_SECRET, value)) {
		t.Error("the token uses another key than the one it was given")
	}
	if n, _ := p11.ToUlong(attribute(t, key, p11.CKA_VALUE_LEN)); n != uint64(len(value)) {
		t.Errorf("the key has %d bytes, not %d", n, len(value))
	}
	for kt, o := range r.priv {
		t.Run(kt.Short(), func(t *testing.T) { b.wantHidden(t, tok, o) })
	}

	given := data("label", "value", false)
	attrs, err := adopter.Adopt(t.Context(), given.Clone())
	noError(t, err)
	if !attrs.Match(given) {
		t.Errorf("a data object became %v", attrs)
	}
	wrong := keyTemplate(p11.CKO_SECRET_KEY, p11.CKK_AES)
	wrong.Set(p11.CKA_VALUE, []byte("7 bytes"))
	_, err = adopter.Adopt(t.Context(), wrong)
	wantRV(t, "an AES key of 7 bytes", err, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_KEY_SIZE_RANGE)
	wantWiped(t, "a key that was refused", wrong)
}

// wantHidden checks that what a token keeps of a key for itself is nobody's to read,
// and what says which key it is is everybody's.
func (b Backend) wantHidden(t *testing.T, tok tokens.Token, o *tokens.Object) {
	t.Helper()
	a, err := o.Acquire()
	noError(t, err)
	defer o.Release()
	kt, _ := a.KeyType()
	for _, one := range a {
		_, ok := readable(t, tok, o, one.Type)
		switch {
		case ok && one.Type >= p11.CKA_VENDOR_DEFINED && !pqc.IsIBM(kt) && !slices.Contains(b.Shown, one.Type): // whose values have numbers of IBM's
			t.Errorf("%s is the token's own, and can be read", one.Type)
		case !ok && (one.Type == p11.CKA_CLASS || one.Type == p11.CKA_KEY_TYPE || one.Type == p11.CKA_LABEL):
			t.Errorf("%s cannot be read", one.Type)
		}
	}
}

// testForgotten forgets one of two session keys that are the same, while an operation
// uses it.
func (b Backend) testForgotten(t *testing.T) {
	tok := b.forKeys(t)
	f, ok := tok.(tokens.Forgetter)
	if !ok {
		return
	}
	r := newRing(t, tok)
	value := []byte("a secret that the test knows")
	other := secretKey(t, tok, p11.CKK_GENERIC_SECRET, value)
	want := r.mac(t, other)
	a := keyTemplate(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET)
	a.Set(p11.CKA_VALUE, bytes.Clone(value))
	forgotten := 0
	o := tokens.NewSessionObject(tokens.NewHandle(), adopt(t, tok, a), func(attrs p11.Attributes) {
		forgotten++
		f.Forget(attrs)
	})
	s, err := r.Sign(t.Context(), p11.Mechanism{Type: r.hash().HMAC}, o)
	noError(t, err)
	o.Drop()
	noError(t, s.Update([]byte(message)))
	mac, err := s.Final()
	noError(t, err)
	if !bytes.Equal(mac, want) || forgotten != 0 {
		t.Errorf("an operation whose key is dropped signs %x, not %x, forgotten %d times", mac, want, forgotten)
	}
	s.Close()
	if forgotten != 1 {
		t.Errorf("forgotten %d times", forgotten)
	}
	if !bytes.Equal(r.mac(t, other), want) {
		t.Error("forgetting one key changed another")
	}
}

// testOptional looks at what is left of what only some tokens can do.
func (b Backend) testOptional(t *testing.T) {
	tok := b.ready(t, t.TempDir())
	if s, ok := tok.(tokens.SelfTester); ok {
		noError(t, s.SelfTest(t.Context()))
	}
	if o, ok := tok.(tokens.Offliner); ok {
		noError(t, o.Offline())
	}
	if w, ok := tok.(tokens.Watcher); ok {
		one, two := w.Watch(func() {}), w.Watch(func() {})
		one()
		two()
	}
	batch, ok := tok.(tokens.BatchCreator)
	if !ok {
		return
	}
	list := []p11.Attributes{data("a", "value", false), data("b", "value", true), data("c", "value", false)}
	_, err := batch.CreateAll(t.Context(), list)
	wantRV(t, "a private object without a login", err, p11.CKR_USER_NOT_LOGGED_IN)
	for _, a := range list {
		wantWiped(t, "an object of several that were not made", a)
	}
	if got := labels(t, tok, nil, true); got != "" {
		t.Errorf("of several that were not made there are %q", got)
	}
	login(t, tok, p11.CKU_USER, userPIN)
	made, err := batch.CreateAll(t.Context(), []p11.Attributes{data("a", "", false), data("b", "", true), data("c", "", false)})
	noError(t, err)
	if got := labels(t, tok, nil, true); got != "a b c " || len(made) != 3 || made[1].Name != find(t, tok, "b").Name {
		t.Errorf("there are %q, and %v was returned", got, made)
	}
}

// testDates has a token that keeps the times of objects keep them, and no longer than the
// version.
func (b Backend) testDates(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	dater, ok := tok.(tokens.Dater)
	if !ok {
		return
	}
	login(t, tok, p11.CKU_USER, userPIN)
	at := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	for _, private := range []bool{false, true} {
		label := map[bool]string{false: "public", true: "private"}[private]
		made, err := tok.Create(t.Context(), data(label, "value", private))
		noError(t, err)
		begun := time.Now()
		noError(t, dater.Date(t.Context(), made.Handle, at))
		o := find(t, tok, label)
		if o.Handle != made.Handle || o.Name != made.Name || !o.Dated.Equal(at) || begun.Sub(o.Changed) > time.Second {
			t.Errorf("%s: %v of %s, dated %v and changed %v", label, o, o.Name, o.Dated, o.Changed)
		}
		if got := string(attribute(t, o, p11.CKA_VALUE)); got != "value" {
			t.Errorf("%s: the value is %q", label, got)
		}
		another := b.open(t, dir)
		login(t, another, p11.CKU_USER, userPIN)
		noError(t, another.Refresh(t.Context()))
		if got := find(t, another, label).Dated; got.Unix() != at.Unix() { // qemu's stat knows seconds only
			t.Errorf("%s: another has it dated %v", label, got)
		}
		_, err = tok.Update(t.Context(), made.Handle, func(a p11.Attributes) (p11.Attributes, error) {
			return a.With(p11.CKA_VALUE, []byte("new")), nil
		})
		noError(t, err)
		if got := find(t, tok, label).Dated; begun.Sub(got) > time.Second {
			t.Errorf("%s: with another value it is dated %v", label, got)
		}
	}
	wantRV(t, "an object that is not there", dater.Date(t.Context(), 1, at), p11.CKR_OBJECT_HANDLE_INVALID)
}

// testCounter counts in turns, and over C_InitToken.
func (b Backend) testCounter(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	if _, ok := tok.(tokens.Counter); !ok {
		return
	}
	last := uint64(0)
	next := func(tok tokens.Token) {
		t.Helper()
		n, err := tok.(tokens.Counter).NextCount(t.Context())
		noError(t, err)
		if n <= last {
			t.Errorf("%d comes after %d", n, last)
		}
		last = n
	}
	another := b.open(t, dir)
	for range 3 {
		next(tok)
		next(another)
	}
	noError(t, tok.InitToken(t.Context(), PIN(t, soPIN), "suite"))
	next(another)
	next(b.open(t, dir))
}
