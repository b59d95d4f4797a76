package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// turnsOf returns the accounts of n uids on that many processors.
func turnsOf(processors, n int) (list []*Account) {
	t := newTurns(processors, nil)
	for uid := range n {
		list = append(list, &Account{uid: uint32(uid), max: -1, turns: t})
	}
	return list
}

// works has an account work in turns of that length, without a pause between them, until
// the end of the test's context. It returns how many were made.
func works(ctx context.Context, a *Account, turn time.Duration) *atomic.Int64 {
	n := new(atomic.Int64)
	go func() {
		for ctx.Err() == nil {
			t := a.Turn(ctx)
			time.Sleep(turn)
			t.End()
			n.Add(1)
		}
	}()
	return n
}

// TestTurnsEndTogether: thousands that wait no more, as at the end of the daemon, wait for
// nothing that others of them do.
func TestTurnsEndTogether(t *testing.T) {
	a := turnsOf(1, 2)
	busy := a[0].Turn(t.Context())
	defer busy.End()
	other := a[1].Turn(t.Context())
	defer other.End()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan *Turn)
	a[0].turns.mu.Lock()
	n := &Turn{account: a[0], called: make(chan struct{})}
	a[0].share.waiting = append(a[0].share.waiting, n)
	go func() { ended <- n.wait(ctx) }()
	cancel()
	select {
	case got := <-ended:
		if got != nil {
			t.Error("it has a turn")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the lock")
	}
	a[0].turns.mu.Unlock()
	if a[0].Turn(ctx) != nil {
		t.Error("who waits no more has a turn")
	}
	a[0].Turn(t.Context()).End() // that one is not called
}

// TestTurnsGoOn: work in pieces lets others in between, but not what else its uid has.
func TestTurnsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a := turnsOf(1, 2)
		var mu sync.Mutex // guards order: a turn may begin beside another one
		var order []string
		piece := func(name string) {
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(2 * time.Millisecond)
		}
		var wg sync.WaitGroup
		n := a[0].Turn(ctx)
		for range 3 {
			wg.Go(func() {
				n := a[0].Turn(ctx)
				defer n.End()
				piece("later")
			})
		}
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			n := a[1].Turn(ctx)
			defer n.End()
			piece("other")
		})
		for range 3 {
			piece("piece")
			n = a[0].Again(ctx, n)
		}
		n.End()
		wg.Wait()
		if got, want := strings.Join(order, " "), "piece other piece piece later later later"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestTurnsAreShared: one that works now and then waits for nobody who works much, and
// however many requests a uid has, it has no more of the processors than is left.
func TestTurnsAreShared(t *testing.T) {
	for _, processors := range []int{1, 2, 4} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := turnsOf(processors, 3)
			var greedy []*atomic.Int64
			for range 16 {
				greedy = append(greedy, works(ctx, a[0], 2*time.Millisecond), works(ctx, a[1], 2*time.Millisecond))
			}
			time.Sleep(time.Second)
			before := 0
			for _, n := range greedy {
				before += int(n.Load())
			}
			const turns = 500
			begun := time.Now()
			for range turns {
				waited := time.Now()
				n := a[2].Turn(ctx)
				if d := time.Since(waited); d > 0 {
					t.Fatalf("on %d processors it waits %v", processors, d)
				}
				time.Sleep(500 * time.Microsecond)
				n.End()
				time.Sleep(200 * time.Microsecond)
			}
			took := time.Since(begun)
			after := 0
			for _, n := range greedy {
				after += int(n.Load())
			}
			most := int(took/(2*time.Millisecond))*max(1, processors-1) + len(greedy)
			if n := after - before; n > most || n < most/2 {
				t.Errorf("on %d processors the others had %d turns meanwhile, and %d fit", processors, n, most)
			}
			cancel()
			time.Sleep(time.Second)
		})
	}
}

// TestScarceProcessors: while the process waits for processors, who has used more begins
// nothing while somebody works who has used less.
func TestScarceProcessors(t *testing.T) {
	for _, scarce := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := turnsOf(2, 2)
			began := time.Now()
			a[0].turns.busy.times = func() (ran, waited time.Duration) {
				if ran = time.Since(began); scarce {
					waited = ran
				}
				return ran, waited
			}
			greedy := works(ctx, a[0], 100*time.Microsecond)
			meanwhile := 0
			for n := range 500 {
				turn := a[1].Turn(ctx)
				before := greedy.Load()
				time.Sleep(time.Millisecond)
				if n >= 200 { // by then it was measured
					meanwhile += int(greedy.Load() - before)
				}
				turn.End()
				time.Sleep(3 * time.Millisecond)
			}
			if most := 300; scarce && meanwhile > most || !scarce && meanwhile < 5*most { // one that runs already ends
				t.Errorf("processors are scarce: %v; %d turns of who uses more meanwhile", scarce, meanwhile)
			}
			cancel()
			time.Sleep(time.Second)
		})
	}
}

// TestTurnsAreFair: of those that work without an end each has the same, whatever the
// number of its requests and the length of its turns.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a := turnsOf(2, 2)
		few := works(ctx, a[0], time.Millisecond)
		var many []*atomic.Int64
		for range 20 {
			many = append(many, works(ctx, a[1], 3*time.Millisecond))
		}
		time.Sleep(20 * time.Second)
		sum := 0
		for _, n := range many {
			sum += int(n.Load())
		}
		if one, other := time.Duration(few.Load())*time.Millisecond, time.Duration(sum)*3*time.Millisecond; one < other*4/5 {
			t.Errorf("one has worked %v, the other %v", one, other)
		}
		cancel()
		time.Sleep(time.Second)
	})
}

// TestTurnsWaitForNobodyAsleep: turns that do not end hold others up once, and briefly.
func TestTurnsWaitForNobodyAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := turnsOf(2, 3)
		for range 100 {
			a[0].Turn(t.Context())
		}
		time.Sleep(maxTurn)
		a[2].Turn(t.Context()).End() // who has used least
		begun := time.Now()
		for range 100 {
			n := a[1].Turn(t.Context())
			time.Sleep(time.Millisecond)
			n.End()
		}
		if took := time.Since(begun); took > 100*time.Millisecond+2*maxTurn {
			t.Errorf("100 turns of a millisecond took %v", took)
		}
	})
}

// TestTurnsAlone: who is alone is not counted, and others find that they are two.
func TestTurnsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := turnsOf(2, 2)
		a[0].Turn(t.Context()).End()
		time.Sleep(2 * aloneAfter)
		free := &a[0].turns.free
		if a[0].Turn(t.Context()) != free {
			t.Error("a uid that is alone has a turn")
		}
		if a[1].Turn(t.Context()) == free || a[0].Turn(t.Context()) == free {
			t.Error("two uids have no turns")
		}
	})
}

// TestManyAlone: of thousands of requests of who is alone, few have begun when another
// comes, whose first one then is not behind them all; those that nobody wants any more do
// not begin in a crowd. Short ones or long ones.
func TestManyAlone(t *testing.T) {
	for _, long := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			const processors = 2
			a := turnsOf(processors, 2)
			a[0].Turn(t.Context()).End()
			time.Sleep(2 * aloneAfter)
			ctx, cancel := context.WithCancel(t.Context())
			var now, most atomic.Int64
			var all sync.WaitGroup
			for range 4000 {
				all.Go(func() {
					turn := a[0].Turn(ctx)
					defer turn.End()
					if ctx.Err() != nil {
						return
					}
					most.Store(max(most.Load(), now.Add(1)))
					select {
					case <-time.After(long):
					case <-ctx.Done():
					}
					now.Add(-1)
				})
			}
			time.Sleep(500 * time.Millisecond)
			if n := most.Load(); n > 3*manyLong*processors {
				t.Errorf("%d of %v go on at once", n, long)
			}
			begun := time.Now()
			a[1].Turn(t.Context()).End()
			if took := time.Since(begun); took > maxTurn {
				t.Errorf("another one waited %v for those of %v", took, long)
			}
			cancel()
			all.Wait()
			a[0].turns.mu.Lock()
			defer a[0].turns.mu.Unlock()
			if s := &a[0].share; s.running != 0 || s.long != 0 || len(s.waiting) != 0 || a[0].turns.freeNow.Load() != 0 {
				t.Errorf("left over: %+v, %d", s, a[0].turns.freeNow.Load())
			}
		})
	}
}

// BenchmarkTurns is what a turn costs a uid that is alone, and one that is not.
func BenchmarkTurns(b *testing.B) {
	for _, uids := range []int{1, 2} {
		b.Run(strconv.Itoa(uids), func(b *testing.B) {
			a := turnsOf(2, uids)
			if uids == 1 {
				a[0].turns.alone.Store(a[0])
			}
			for n := 0; b.Loop(); n++ {
				a[n%uids].Turn(b.Context()).End()
			}
		})
	}
}

// TestWaitingTurnsCostLittle: thousands that wait are no work for anybody.
func TestWaitingTurnsCostLittle(t *testing.T) {
	ts := newTurns(1, nil)
	account := &Account{turns: ts}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4000 {
		all.Go(func() {
			turn := account.Turn(ctx)
			<-ctx.Done()
			turn.End()
		})
	}
	defer all.Wait()
	defer cancel()
	other := &Account{turns: ts} // so that nobody is alone
	first := other.Turn(ctx)
	defer first.End()
	time.Sleep(100 * time.Millisecond)
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	time.Sleep(300 * time.Millisecond)
	if took := used() - before; took > 100*time.Millisecond {
		t.Errorf("they took %v of the processors in 300 ms", took)
	}
}
