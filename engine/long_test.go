package engine

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// TestLongWork: a uid that has as much work as there are processors waits with more, and
// another one for nobody.
func TestLongWork(t *testing.T) {
	l := &longs{most: 2}
	one, two := &Account{longs: l}, &Account{longs: l}
	begin := func(a *Account) (end func()) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		end, err := a.Long(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	first, second := begin(one), begin(one)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := one.Long(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third piece: %v", err)
	}
	other := begin(two)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := two.Long(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another's second piece: %v", err)
	}

	// Of those that wait it is his turn who has less, and then who came first.
	order := make(chan *Account)
	var both sync.WaitGroup
	wait := func(a *Account) {
		l.mu.Lock()
		waiting := len(l.waiting)
		l.mu.Unlock()
		both.Go(func() {
			end := begin(a)
			order <- a
			end()
		})
		for ; ; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			now := len(l.waiting)
			l.mu.Unlock()
			if now > waiting {
				return
			}
		}
	}
	wait(one)
	wait(two)
	first()
	select {
	case <-order:
		t.Error("it has begun beside two others")
	case <-time.After(20 * time.Millisecond):
	}
	second()
	if <-order != one {
		t.Error("who had nothing was not the first")
	}
	if <-order != two {
		t.Error("another was not the second")
	}
	other()
	both.Wait()
	if l.running != 0 || one.long != 0 || two.long != 0 || len(l.waiting) != 0 {
		t.Errorf("%d go on, %d and %d, %d wait", l.running, one.long, two.long, len(l.waiting))
	}
}

// TestOperationsCount: what an operation keeps beside its message counts, and what is
// saved of it.
func TestOperationsCount(t *testing.T) {
	ctx := t.Context()
	b := newLimitedBench(t, hooks.Options{}, Limits{Bytes: 1 << 20})
	s := b.session(t, b.app(), rw)
	account := b.Account(1000)
	key := create(t, s, aesKey+" private=false")
	free := account.Held()
	long := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), AAD: make([]byte, 600<<10), TagBits: 128}}
	want(t, s.Init(ctx, p11.CKF_ENCRYPT, long, key), p11.CKR_OK)
	if n := account.Held() - free; n < 600<<10 {
		t.Errorf("a long parameter holds %d bytes", n)
	}
	other := b.session(t, s.Application(), rw)
	want(t, other.Init(ctx, p11.CKF_ENCRYPT, long, key), p11.CKR_DEVICE_MEMORY)
	want(t, s.SessionCancel(ctx, p11.CKF_ENCRYPT), p11.CKR_OK)
	if n := account.Held() - free; n != 0 {
		t.Errorf("nothing holds %d bytes", n)
	}
	want(t, other.Init(ctx, p11.CKF_ENCRYPT, long, key), p11.CKR_OK)
	want(t, other.Close(), p11.CKR_OK)

	want(t, s.Init(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0), p11.CKR_OK)
	one := account.Held() - free
	for range 3 {
		want(t, errOf(s.GetOperationState(ctx, NoLimit)), p11.CKR_OK)
	}
	if n := account.Held() - free; one < operationSize || n != 4*one {
		t.Errorf("an operation holds %d bytes, and with three copies %d", one, n)
	}
	want(t, s.Close(), p11.CKR_OK)
	if n := account.Held(); n != 0 {
		t.Errorf("a closed session holds %d bytes", n)
	}
}

// TestLongUnderCalls: a token finds whose work it is in each call that may be long.
func TestLongUnderCalls(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.app(), rw)
	account := b.Account(1000)
	for name, ctx := range map[string]context.Context{
		"a call":       s.long(t.Context()),
		"an operation": &tokenCall{Context: t.Context(), account: account},
	} {
		end, err := tokens.Long(ctx)
		if err != nil || account.long != 1 {
			t.Fatalf("%s: %d pieces, %v", name, account.long, err)
		}
		if end(); account.long != 0 {
			t.Errorf("%s: %d pieces at its end", name, account.long)
		}
	}
}
