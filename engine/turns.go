package engine

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// turns share the processors among uids. Each stretch of work that a door does for a
// client is a turn. While several uids work, who has used least of late goes on at once,
// and all others together leave one processor to him, for as long as he comes back soon; or
// all, while he works, where processors are scarce: two that work at once would only be
// switched to and fro.
// So a uid that has any number of requests takes from another what a single process
// would. A uid that works alone has everything, and pays for it with two atomic additions;
// but not more of its requests go on at once than the processors have use for: the others
// would all be before the first one of whoever comes.
type turns struct {
	processors int
	alone      atomic.Pointer[Account] // the only one that works, if there is one
	free       Turn                    // each turn of who is alone
	freeNow    atomic.Int64            // those that have not ended

	mu      sync.Mutex // guards all below, and Account.share; the last in the order of doc.go
	last    *Account   // who began the last turn
	since   time.Time  // since when it was nobody else
	recent  []*Account // who works, waits, or has worked within soon
	running []*Turn    // turns that have not ended, but those longer than maxTurn
	looking bool       // somebody waits, and look is to come
	busy    busyness
}

// busyness is whether this process gets the processors that it has use for.
type busyness struct {
	times    func() (ran, waited time.Duration) // Config.Times
	scarce   bool                               // it waits for them for long
	measured time.Time                          // when times was last asked
	next     time.Duration                      // how long after that it is asked again
	ran      time.Duration                      // what it said
	waited   time.Duration
}

// share is what an account has of the processors.
type share struct {
	used    float64   // nanoseconds of late: half of it counts halfLife later
	at      time.Time // when used was so
	ended   time.Time // the last turn
	running int       // turns in turns.running
	long    int       // turns that are no longer there, and have not ended
	waiting []*Turn   // those whose work goes on, then the oldest first
	listed  bool      // it is in turns.recent
}

const (
	halfLife = 250 * time.Millisecond
	// soon is how long a processor stays free for who has just worked.
	soon = time.Millisecond
	// maxTurn is how long a turn counts, and is waited for. What takes longer may be
	// asleep: nobody is to wait for that.
	maxTurn = 10 * time.Millisecond
	// manyLong is how many long turns a uid has for each processor before its next ones are
	// waited for longer: until then they may be asleep, and so many may not.
	manyLong = 4
	// maxLongTurn is how long.
	maxLongTurn = time.Second
	// aloneAfter is how long nobody else may have worked for a uid to be alone.
	aloneAfter = time.Second
	// measureEvery is how often it is looked whether processors are scarce, while several
	// uids work, and measureFirst how soon once they do.
	measureEvery = 100 * time.Millisecond
	measureFirst = 10 * time.Millisecond
)

func newTurns(processors int, times func() (ran, waited time.Duration)) *turns {
	t := &turns{processors: processors, busy: busyness{times: times}}
	t.free.turns = t
	return t
}

// A Turn is a stretch of work for a uid. nil is one that nothing is known of: so is that of
// who waits no more, of whom there may be thousands at once, and who has little left to do.
type Turn struct {
	account *Account // nil of turns.free
	turns   *turns   // of that
	began   time.Time
	beside  time.Duration // what its request costs besides
	counts  bool          // it is in turns.running
	long    bool          // it was, for longer than that
	called  chan struct{} // closed when it begins, if it waited
	taken   atomic.Bool   // from among those that wait, by who calls it or by who waits no more
}

// Turn begins a turn, and waits for it if other uids have used less, until ctx ends; End
// ends it. Within a turn no other one is begun.
func (a *Account) Turn(ctx context.Context) *Turn {
	t := a.turns
	if t.alone.Load() == a && t.beginFree() {
		return &t.free
	}
	return t.begin(ctx, a)
}

// Alone reports whether no other uid has worked of late.
func (a *Account) Alone() bool { return a.turns.alone.Load() == a }

// Again ends a turn and begins the next one of the same work, before whatever else of the
// uid waits. Work that has much to do, and may pause, lets others in between so.
func (a *Account) Again(ctx context.Context, n *Turn) *Turn {
	if n == nil || n.account == nil {
		n.End()
		return a.Turn(ctx)
	}
	next := &Turn{account: a, called: make(chan struct{})}
	a.turns.endForNext(n, next)
	return next.wait(ctx)
}

// endForNext ends a turn, and has the next one of its work be the first that waits.
func (t *turns) endForNext(n, next *Turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &next.account.share
	t.listLocked(next.account)
	s.waiting = slices.Insert(s.waiting, 0, next)
	t.lookLaterLocked()
	t.endLocked(n, time.Now())
}

// End ends the turn.
func (n *Turn) End() {
	switch {
	case n == nil:
	case n.account == nil:
		n.turns.freeNow.Add(-1)
	default:
		n.account.turns.end(n)
	}
}

// Charge counts what the turn's request has cost besides the time of the turn, and will:
// its way through the kernel, and that a processor was taken from other work for it.
func (n *Turn) Charge(d time.Duration) {
	if n != nil && n.account != nil {
		n.beside += d
	}
}

// beginFree begins a turn of who is alone, unless there are many.
func (t *turns) beginFree() bool {
	if t.freeNow.Add(1) <= int64(manyLong*t.processors) {
		return true
	}
	t.freeNow.Add(-1)
	return false
}

func (t *turns) begin(ctx context.Context, a *Account) *Turn {
	if ctx.Err() != nil {
		return nil
	}
	n := &Turn{account: a}
	if begun := t.beginOrQueue(n); begun != nil {
		return begun
	}
	return n.wait(ctx)
}

// beginOrQueue begins a turn and returns it, or a free one in its place, or has it wait and
// returns nil.
func (t *turns) beginOrQueue(n *Turn) *Turn {
	a := n.account
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.last != a {
		t.last, t.since = a, now
		t.alone.Store(nil)
	} else if now.Sub(t.since) > aloneAfter {
		t.alone.Store(a)
		if t.beginFree() {
			return &t.free
		}
	}
	t.tidyLocked(now)
	t.listLocked(a)
	if b := &t.busy; b.times != nil && len(t.recent) > 1 && now.Sub(b.measured) >= b.next {
		b.next = measureEvery
		if now.Sub(b.measured) > 2*measureEvery {
			b.next = measureFirst
		}
		go t.measure(b.next == measureEvery)
		b.measured = now
	}
	if t.mayLocked(a, now) {
		t.startLocked(n, now)
		return n
	}
	n.called = make(chan struct{})
	a.share.waiting = append(a.share.waiting, n)
	t.lookLaterLocked()
	return nil
}

// wait waits until the turn begins, or ctx ends. It locks nothing: thousands may end at once.
func (n *Turn) wait(ctx context.Context) *Turn {
	select {
	case <-n.called:
	case <-ctx.Done():
		if n.taken.CompareAndSwap(false, true) {
			return nil
		}
		<-n.called // just now
	}
	return n
}

// listLocked counts the account among those that work or wait.
func (t *turns) listLocked(a *Account) {
	if !a.share.listed {
		a.share.listed = true
		t.recent = append(t.recent, a)
	}
}

// lookLaterLocked has those that wait looked at in a while, in case that none of those
// that run ends: once for all, as there may be thousands.
func (t *turns) lookLaterLocked() {
	if !t.looking {
		t.looking = true
		time.AfterFunc(maxTurn, t.look)
	}
}

func (t *turns) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.looking = false
	t.callLocked(time.Now())
	if slices.ContainsFunc(t.recent, func(a *Account) bool { return len(a.share.waiting) > 0 }) {
		t.lookLaterLocked()
	}
}

func (t *turns) end(n *Turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(n, time.Now())
}

func (t *turns) endLocked(n *Turn, now time.Time) {
	s := &n.account.share
	s.used = s.usedAt(now) + float64(min(now.Sub(n.began), maxTurn)+n.beside)
	s.at, s.ended = now, now
	if n.counts {
		t.running = slices.Delete(t.running, slices.Index(t.running, n), slices.Index(t.running, n)+1)
		s.running--
	}
	if n.long {
		s.long--
	}
	t.callLocked(now)
}

// callLocked has those begin who may, of those that wait.
func (t *turns) callLocked(now time.Time) {
	t.tidyLocked(now)
	for {
		var next *Account
		for _, a := range t.recent {
			for len(a.share.waiting) > 0 && a.share.waiting[0].taken.Load() {
				a.share.waiting = a.share.waiting[1:]
			}
			if len(a.share.waiting) > 0 && (next == nil || a.share.usedAt(now) < next.share.usedAt(now)) {
				next = a
			}
		}
		if next == nil || !t.mayLocked(next, now) {
			return
		}
		n := next.share.waiting[0]
		next.share.waiting = next.share.waiting[1:]
		if n.taken.CompareAndSwap(false, true) {
			t.startLocked(n, now)
			close(n.called)
		}
	}
}

func (t *turns) startLocked(n *Turn, now time.Time) {
	n.began, n.counts = now, true
	n.account.share.running++
	t.running = append(t.running, n)
}

// tidyLocked forgets turns that are too long, and who works no more.
func (t *turns) tidyLocked(now time.Time) {
	t.running = slices.DeleteFunc(t.running, func(n *Turn) bool {
		s, most := &n.account.share, maxTurn
		if s.long >= manyLong*t.processors {
			most = maxLongTurn
		}
		if now.Sub(n.began) <= most {
			return false
		}
		n.counts, n.long = false, true
		s.running--
		s.long++
		return true
	})
	t.recent = slices.DeleteFunc(t.recent, func(a *Account) bool {
		s := &a.share
		s.listed = s.running > 0 || len(s.waiting) > 0 || now.Sub(s.ended) <= soon
		return !s.listed
	})
}

// measure looks whether processors have been scarce since the last time, if it is not long ago.
func (t *turns) measure(soon bool) {
	ran, waited := t.busy.times()
	t.mu.Lock()
	defer t.mu.Unlock()
	b := &t.busy
	b.scarce = soon && ran > b.ran && waited-b.waited > (ran-b.ran)/2
	b.ran, b.waited = ran, waited
}

// mayLocked reports whether the account may begin a turn.
func (t *turns) mayLocked(a *Account, now time.Time) bool {
	least := a
	for _, b := range t.recent {
		if b.share.usedAt(now) < least.share.usedAt(now) {
			least = b
		}
	}
	if least == a {
		return a.share.running < t.processors
	}
	// Among equals nobody waits: together they get more done.
	if t.busy.scarce && least.share.running > 0 && a.share.usedAt(now) > 1.1*least.share.usedAt(now) {
		return false
	}
	return len(t.running)-least.share.running < max(1, t.processors-1)
}

// usedAt is what was used of late, as it counts now.
func (s *share) usedAt(now time.Time) float64 {
	return s.used * math.Exp2(-float64(now.Sub(s.at))/float64(halfLife))
}
