package engine

import (
	"errors"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// TestWhoIsBusy: Who tells an application's calls, and while the token is in one what it does;
// also of a key that it makes, and of one that ends in a panic. Another application's are
// its own.
func TestWhoIsBusy(t *testing.T) {
	ctx := t.Context()
	held, goOn := make(chan string), make(chan error)
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if slices.Contains([]string{"GenerateKey", "Digest.Final"}, method) {
			held <- method
			err := <-goOn
			if err != nil && err.Error() == "panic" {
				panic(err)
			}
			return err
		}
		return nil
	}})
	s, other := b.user(t), b.service(t, 34)
	of := func(o *Session) Presence {
		t.Helper()
		for _, p := range b.Who() {
			if p.Number == o.appSlot.app.number {
				return p
			}
		}
		t.Fatal("it is not there")
		return Presence{}
	}
	generate := func() (err error) {
		defer func() {
			if recover() != nil {
				err = errors.New("it panicked")
			}
		}()
		_, err = s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))
		return err
	}
	digest := func() error {
		o, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0)
		if err != nil {
			return err
		}
		defer o.Close()
		_, err = o.Final(ctx, nil)
		return err
	}
	failure := p11.Errorf(p11.CKR_DEVICE_ERROR, "the card is on fire")
	for i, c := range []struct {
		do     func() error
		method string
		busy   Busy
		with   error
		calls  uint64
		errors uint64
	}{
		{generate, "GenerateKey", Busy{Token: "tok", Does: "generate", Mechanism: p11.CKM_AES_KEY_GEN}, nil, 1, 0},
		{digest, "Digest.Final", Busy{Token: "tok", Does: "digest", Mechanism: p11.CKM_SHA256}, nil, 2, 0},
		{digest, "Digest.Final", Busy{Token: "tok", Does: "digest", Mechanism: p11.CKM_SHA256}, failure, 3, 1},
		{generate, "GenerateKey", Busy{Token: "tok", Does: "generate", Mechanism: p11.CKM_AES_KEY_GEN}, errors.New("panic"), 3, 1},
	} {
		done := make(chan error, 1)
		go func() { done <- c.do() }()
		if got := <-held; got != c.method {
			t.Fatalf("%d: it is in %s", i, got)
		}
		busy := of(s).Busy
		if busy == nil || busy.Since.IsZero() {
			t.Fatalf("%d: %+v", i, busy)
		}
		busy.Since = c.busy.Since
		if *busy != c.busy || of(other).Busy != nil {
			t.Errorf("%d: %+v, and another's %+v", i, busy, of(other).Busy)
		}
		goOn <- c.with
		if err := <-done; (err == nil) != (c.with == nil) {
			t.Errorf("%d: %v", i, err)
		}
		p := of(s)
		if p.Busy != nil || p.Calls != c.calls || p.Errors != c.errors || p.Took <= 0 {
			t.Errorf("%d: then %+v", i, p)
		}
	}
	if p := of(other); p.Calls != 0 || p.Took != 0 || p.Errors != 0 {
		t.Errorf("another's: %+v", p)
	}
}

// TestWhoWaits: Who tells how many requests of the uid wait for a processor, and how many for
// long work.
func TestWhoWaits(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	a := s.appSlot.app.account
	a.longs.mu.Lock()
	a.longs.waiting = []*long{{account: a}, {account: &Account{}}, {account: a}}
	a.longs.mu.Unlock()
	a.turns.mu.Lock()
	a.share.waiting = []*Turn{{account: a}}
	a.turns.mu.Unlock()
	if p := b.Who()[0]; p.Waits != (Waits{Processor: 1, Long: 2}) {
		t.Errorf("%+v", p.Waits)
	}
}

// TestWhoWaitsForLock: Who tells of the wait for a lock that has lasted longest, also of who
// has no session yet.
func TestWhoWaitsForLock(t *testing.T) {
	b := newBench(t, hooks.Options{})
	a := b.app()
	if list := b.Who(); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
	first := a.WaitsForLock("/lock/first")
	second := a.WaitsForLock("/lock/second")
	for _, end := range []func(){first, second} {
		list := b.Who()
		want := map[bool]string{true: "/lock/first", false: "/lock/second"}[len(a.lockWaits.all()) == 2]
		if len(list) != 1 || list[0].Lock == nil || list[0].Lock.Path != want || list[0].Lock.Since.IsZero() {
			t.Errorf("%+v, want one who waits for %s", list, want)
		}
		end()
	}
	if list := b.Who(); len(list) != 0 {
		t.Errorf("after the last: %+v", list)
	}
}
