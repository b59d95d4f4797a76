package icsf

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsfwire"
)

// TestCutChanges has the connection be cut by each request that changes something, once it is
// asked for and before it is answered: nobody knows what became of it, and what did shows.
func TestCutChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	cut := func(service icsfwire.Service) {
		var once atomic.Bool
		f := func(r *icsfwire.Request) {
			if icsfwire.ServiceOf(r.Data) == service && once.CompareAndSwap(false, true) {
				s.server.Cut()
			}
		}
		s.before.Store(&f)
	}
	labelled := func(label string) []*tokens.Object {
		t.Helper()
		noError(t, tok.sync(t.Context(), true))
		list, err := tok.Find(t.Context(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
		noError(t, err)
		return list
	}
	data := func(label string) p11.Attributes {
		return p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)}, {Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(true)},
			{Type: p11.CKA_LABEL, Value: []byte(label)},
		}
	}
	imported := data("imported").Merge(p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_AES)}, {Type: p11.CKA_VALUE, Value: bytes.Repeat([]byte("k"), 16)},
	})
	kept, err := tok.Create(t.Context(), data("kept"))
	noError(t, err)
	for _, c := range []struct {
		name    string
		service icsfwire.Service
		change  func() error
		label   string // how many objects are called so once the server is there again
		want    int
	}{
		{"create", icsfwire.TRC, func() error { _, err := tok.Create(t.Context(), data("created")); return err }, "created", 1},
		{"import", icsfwire.TRC, func() error { _, err := tok.Adopt(t.Context(), imported); return err }, "imported", 1},
		{"set an attribute", icsfwire.SAV, func() error {
			_, err := tok.Update(t.Context(), kept.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte("set")), nil })
			return err
		}, "set", 1},
		{"destroy", icsfwire.TRD, func() error { return tok.Destroy(t.Context(), kept.Handle, func(p11.Attributes) error { return nil }) }, "set", 0},
	} {
		before := s.server.Calls(c.service)
		cut(c.service)
		if err := c.change(); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
			t.Errorf("%s, cut off: %v", c.name, err)
		}
		s.before.Store(nil)
		if n := s.more(c.service, before); n != 1 {
			t.Errorf("%s, cut off, is asked for %d times", c.name, n)
		}
		if got := labelled(c.label); len(got) != c.want {
			t.Errorf("%s, cut off, leaves %d objects, want %d", c.name, len(got), c.want)
		}
		if err := tok.Offline(); err != nil {
			t.Errorf("after %s: offline, %v", c.name, err)
		}
	}
}

// more waits until a service was asked for more often than before, and returns how much more:
// what was asked for is done, also once the connection is cut.
func (s *site) more(service icsfwire.Service, before int) (n int) {
	for deadline := time.Now().Add(time.Minute); n == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n = s.server.Calls(service) - before
	}
	return n
}

// TestCutStream has the connection be cut between the parts of an encryption, and in a part:
// the key is the token's, and the parts are chained here.
func TestCutStream(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	k := key(t, tok, p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	m := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}
	text := bytes.Repeat([]byte("0123456789"), 100)
	want := use(t, tok, p11.CKF_ENCRYPT, m, k, text, len(text))
	op, err := tok.Begin(t.Context(), p11.CKF_ENCRYPT, m, k)
	noError(t, err)
	defer op.Close()
	s.server.Cut() // between Init and the first part
	got, err := op.Update(t.Context(), text[:300])
	noError(t, err)
	var once atomic.Bool
	f := func(*icsfwire.Request) {
		if once.CompareAndSwap(false, true) {
			s.server.Cut() // in the second part
		}
	}
	s.before.Store(&f)
	more, err := op.Update(t.Context(), text[300:])
	noError(t, err)
	s.server.Cut() // before the end
	last, err := op.Final(t.Context(), nil)
	noError(t, err)
	if out := slices.Concat(got, more, last); !bytes.Equal(out, want) {
		t.Errorf("it encrypts to %x, want %x", out, want)
	}
}

// TestCutSession has the connection be cut while a key of the session is used, which lasts as long
// as that: the use fails at each moment, and the token goes on.
func TestCutSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(make([]byte, 16))}
	const parts = 3
	for cut := range parts + 1 {
		k := secretOf(t, tok, p11.CKK_AES, make([]byte, 16))
		run := func(at int) error {
			op, err := tok.Begin(t.Context(), p11.CKF_ENCRYPT, m, k)
			noError(t, err)
			defer op.Close()
			for i := range parts {
				if i == at {
					s.server.Cut()
				}
				if _, err := op.Update(t.Context(), make([]byte, 100*16)); err != nil {
					return err
				}
			}
			if at == parts {
				s.server.Cut()
			}
			_, err = op.Final(t.Context(), nil)
			return err
		}
		noError(t, run(-1))
		err := run(cut)
		if cut < parts && p11.RVOf(err) != p11.CKR_KEY_HANDLE_INVALID { // the end of whole blocks asks nothing
			t.Errorf("cut at part %d: %v", cut, err)
		}
		if err := run(-1); p11.RVOf(err) != p11.CKR_KEY_HANDLE_INVALID {
			t.Errorf("cut at part %d, the key has gone: %v", cut, err)
		}
		if list := s.server.Objects("TESTTOKEN"); len(list) != 0 {
			t.Errorf("cut at part %d: there are %q", cut, list)
		}
	}
}

// TestTwoClients has two tokens of ours change one object: no change of either is lost.
func TestTwoClients(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	one, two := newToken(t, s, t.TempDir()), newToken(t, s, t.TempDir())
	for _, tok := range []*token{one, two} {
		withPINs(t, tok)
		login(t, tok, p11.CKU_USER, userPIN)
	}
	made, err := one.Create(t.Context(), p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)}, {Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_LABEL, Value: []byte("l")},
	})
	noError(t, err)
	noError(t, two.sync(t.Context(), true))
	same, err := two.ByName(made.Name)
	noError(t, err)
	for tok, set := range map[*token]p11.Attribute{one: {Type: p11.CKA_APPLICATION, Value: []byte("one")}, two: {Type: p11.CKA_VALUE, Value: []byte("two")}} {
		h := made.Handle
		if tok == two {
			h = same.Handle
		}
		_, err := tok.Update(t.Context(), h, func(a p11.Attributes) (p11.Attributes, error) { return a.With(set.Type, bytes.Clone(set.Value)), nil })
		noError(t, err)
	}
	for _, tok := range []*token{one, two} {
		noError(t, tok.sync(t.Context(), true))
		a, err := tok.get(t.Context(), s.server.Objects("TESTTOKEN")[0])
		noError(t, err)
		if v, _ := a.Get(p11.CKA_VALUE); string(v) != "two" {
			t.Errorf("the value is %q", v)
		}
		if v, _ := a.Get(p11.CKA_APPLICATION); string(v) != "one" {
			t.Errorf("the application is %q", v)
		}
	}
	// What one has destroyed is gone for the other, also while it changes it.
	noError(t, two.Destroy(t.Context(), same.Handle, func(p11.Attributes) error { return nil }))
	if _, err := one.Update(t.Context(), made.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte("x")), nil }); p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
		t.Errorf("a change of what is gone: %v", err)
	}
}
