package icsf

import (
	"slices"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
)

// replaced are the services that stock asks for and we do not: a public key is used here, from
// its numbers, and a hash is made here before it is signed.
func replaced() []icsfwire.Service { return []icsfwire.Service{icsfwire.PKV, icsfwire.OWH} }

// asked says of which services servers were asked, and compares with what is not asked for.
func asked(t *testing.T, sites map[string]*site) {
	t.Helper()
	for service := icsfwire.DMK; service <= icsfwire.WPK; service++ {
		calls := 0
		for _, s := range sites {
			calls += s.server.Calls(service)
		}
		if (calls == 0) != slices.Contains(replaced(), service) {
			t.Errorf("%s is asked for %d times", service, calls)
		}
	}
}

// TestCached asks for a token's objects again and again: what is known is not read again while
// it is fresh, and once it is not, what somebody else has changed is seen.
func TestCached(t *testing.T) {
	t.Parallel()
	s, dir := newSite(t, icsffile.SASL), t.TempDir()
	opened, err := newKind(swtok.GoProvider(), times{fresh: time.Hour, keep: time.Hour}, "").Open(t.Context(), s.place(t, dir))
	noError(t, err)
	tok := opened.(*token)
	defer func() { noError(t, tok.Close()) }()
	other := newToken(t, s, t.TempDir())
	for _, one := range []*token{tok, other} {
		withPINs(t, one)
		login(t, one, p11.CKU_USER, userPIN)
	}
	made := key(t, tok, p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	find := func() *tokens.Object {
		t.Helper()
		list, err := tok.Find(t.Context(), p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}}, true)
		noError(t, err)
		if len(list) != 1 || list[0].Handle != made.Handle {
			t.Fatalf("%d keys", len(list))
		}
		return list[0]
	}
	find()
	lists, reads := s.server.Calls(icsfwire.TRL), s.server.Calls(icsfwire.GAV)
	for range 10 {
		a, err := find().Acquire()
		noError(t, err)
		if n, _ := a.Ulong(p11.CKA_VALUE_LEN); n != 32 {
			t.Errorf("the key has %d bytes", n)
		}
		find().Release()
	}
	if l, r := s.server.Calls(icsfwire.TRL)-lists, s.server.Calls(icsfwire.GAV)-reads; l != 0 || r != 0 {
		t.Errorf("what is fresh is asked for %d times, and read %d times", l, r)
	}
	noError(t, other.sync(t.Context(), true))
	same, err := other.ByName(made.Name)
	noError(t, err)
	_, err = other.Update(t.Context(), same.Handle, func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte("renamed")), nil })
	noError(t, err)
	// A change of ours is made over what is there now, however fresh what is known may be.
	over := ""
	_, err = tok.Update(t.Context(), made.Handle, func(a p11.Attributes) (p11.Attributes, error) {
		over = a.Label() // of the last time, as it is called again where it came too late
		return a.With(p11.CKA_ID, []byte{7}), nil
	})
	noError(t, err)
	if over != "renamed" {
		t.Errorf("the change is made over %q", over)
	}
}
