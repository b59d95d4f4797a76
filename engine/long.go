package engine

import (
	"context"
	"sync"

	"p11fs/tokens"
)

// longs bound the work that takes seconds or minutes, such as making RSA keys: as much
// of it goes on at once as there are processors, and one piece of each uid whatever
// others do. Each piece is a thread in a library, of which a process has not many.
type longs struct {
	most int

	mu      sync.Mutex // guards all below, and Account.long; nothing is locked under it
	running int
	waiting []*long // the oldest first
}

func newLongs(processors int) *longs { return &longs{most: processors} }

// A long is a piece of such work that waits.
type long struct {
	account *Account
	begun   chan struct{} // closed when it may begin
}

// Long waits until the uid may begin a piece of such work. end is called once.
func (a *Account) Long(ctx context.Context) (end func(), err error) {
	l := a.longs
	l.mu.Lock()
	if l.mayLocked(a) {
		l.startLocked(a)
		l.mu.Unlock()
		return func() { l.end(a) }, nil
	}
	w := &long{a, make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	select {
	case <-w.begun:
		return func() { l.end(a) }, nil
	case <-ctx.Done():
		l.leave(w)
		return nil, ctx.Err()
	}
}

func (l *longs) mayLocked(a *Account) bool { return a.long == 0 || l.running < l.most }

func (l *longs) startLocked(a *Account) {
	a.long++
	l.running++
}

// end ends a piece of work, and has those begin who may: of those that wait the one whose
// uid has fewest.
func (l *longs) end(a *Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.long--
	l.running--
	for {
		next := -1
		for i, w := range l.waiting {
			if l.mayLocked(w.account) && (next < 0 || w.account.long < l.waiting[next].account.long) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := l.waiting[next]
		l.waiting = append(l.waiting[:next], l.waiting[next+1:]...)
		l.startLocked(w.account)
		close(w.begun)
	}
}

// leave takes away one who waits no more. It may have begun just now.
func (l *longs) leave(w *long) {
	l.mu.Lock()
	for i, other := range l.waiting {
		if other == w {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			l.mu.Unlock()
			return
		}
	}
	l.mu.Unlock()
	l.end(w.account)
}

// long is ctx for calls of the token that may take long, and make keys.
func (s *Session) long(ctx context.Context) context.Context {
	if l := s.appSlot.login.Load(); l != nil {
		ctx = tokens.WithLogin(ctx, l.token)
	}
	return tokens.WithLong(ctx, s.appSlot.app.account.Long)
}
