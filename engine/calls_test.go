package engine

import (
	"context"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// TestCalls: each call of a token counts for its mechanism and the door by which it came,
// with its time, and as an error only if it is one.
func TestCalls(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	door := s.appSlot.app.owner.Door
	if got := b.Calls(); len(got) != 0 {
		t.Errorf("at first %+v", got)
	}
	sum := func() {
		o, err := s.Begin(t.Context(), p11.CKF_DIGEST, mech(t, "sha256"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		for range 2 {
			if _, err := o.Update(t.Context(), []byte("part")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := o.Final(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	sum()
	h := create(t, s, aesKey)
	o, err := s.Begin(t.Context(), p11.CKF_DECRYPT, mech(t, "aes-cbc,iv="+zeroIV), h)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if _, err := o.Update(t.Context(), make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Final(t.Context(), nil); err == nil {
		t.Fatal("a part of a block is decrypted")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Update(cancelled, make([]byte, 16)); err == nil {
		t.Fatal("an operation that has ended goes on")
	}
	got := b.Calls()
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	for i, want := range []Calls{
		{Token: "tok", Mechanism: p11.CKM_SHA256, Door: door, Count: 3},
		{Token: "tok", Mechanism: p11.CKM_AES_CBC, Door: door, Count: 2, Errors: 1},
	} {
		c := got[i]
		if c.Token != want.Token || c.Mechanism != want.Mechanism || c.Door != want.Door || c.Count != want.Count || c.Errors != want.Errors {
			t.Errorf("%+v, want %+v", c, want)
		}
		if c.Total <= 0 || len(c.Within) != len(CallLimits()) || c.Within[len(c.Within)-1] > c.Count {
			t.Errorf("times: %+v", c)
		}
	}
}

// TestCallLimits puts times where they belong.
func TestCallLimits(t *testing.T) {
	limits := CallLimits()
	if first, last := limits[0], limits[len(limits)-1]; first != 8192 || last < 8*time.Second || last > 9*time.Second {
		t.Errorf("limits from %v to %v", first, last)
	}
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	within := func() []uint64 {
		s.appSlot.called(p11.CKM_SHA256, time.Now().Add(-time.Hour), nil) // longer than all
		return b.Calls()[0].Within
	}
	for _, took := range []time.Duration{0, 20 * time.Microsecond, time.Millisecond, time.Second} {
		before := within()
		s.appSlot.called(p11.CKM_SHA256, time.Now().Add(-took), nil)
		after := within()
		for i, limit := range limits {
			if more := after[i] - before[i]; more > 1 || took > limit && more > 0 || i > 0 && after[i] < after[i-1] {
				t.Errorf("%v: %d within %v", took, more, limit)
			}
		}
		if last := len(limits) - 1; after[last] != before[last]+1 {
			t.Errorf("%v: it is within no limit", took)
		}
	}
	if c := b.Calls()[0]; c.Count != 12 || c.Errors != 0 {
		t.Errorf("%+v", c)
	}
}

// BenchmarkCalled is what counting adds to a call.
func BenchmarkCalled(b *testing.B) {
	s := newBench(b, hooks.Options{}).user(b)
	for b.Loop() {
		s.appSlot.called(p11.CKM_SHA256, time.Now(), nil)
	}
}
