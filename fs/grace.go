package fs

import (
	"context"
	"sync"
	"time"

	"p11fs/locks"
)

// interruptGrace is how long a request goes on after an interrupt. Signals that
// mean nothing to the call, such as those by which Go's runtime switches
// goroutines, interrupt it too, and programs do not expect EINTR of a file, least
// of all of close(2), which cannot be called again. So what is quick is finished,
// and what waits or takes long is given up.
const interruptGrace = 150 * time.Millisecond

// A graceContext is a request's context that ends a while after the request was
// interrupted, or with the tree: the kernel interrupts nothing then. Unless somebody waits for its end, or it was interrupted, it starts
// nothing.
type graceContext struct {
	context.Context // the request's
	fs              *FS
	grace           time.Duration

	mu   sync.Mutex // guards all below
	late context.Context
	stop []func() bool
}

// withGrace returns the context under which a request works. The caller calls end
// when the request is answered: the context does not end after that.
func (f *FS) withGrace(ctx context.Context) (graceful context.Context, end func()) {
	if f.grace == 0 {
		return ctx, func() {}
	}
	g := &graceContext{Context: ctx, fs: f, grace: f.grace}
	return g, g.end
}

// started returns the context that ends when the grace is over, which begins to
// count at an interrupt.
func (g *graceContext) started() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.late == nil {
		late, cancel := context.WithCancel(context.WithoutCancel(g.Context))
		g.late = late
		g.stop = []func() bool{
			context.AfterFunc(g.Context, func() { time.AfterFunc(g.grace, cancel) }),
			context.AfterFunc(g.fs.life, cancel),
		}
	}
	return g.late
}

// Err is nil until the grace is over.
func (g *graceContext) Err() error {
	switch {
	case g.fs.life.Err() != nil:
		return context.Canceled
	case g.Context.Err() == nil:
		return nil
	}
	return g.started().Err()
}

// Value has, beside the request's, who is told that the caller waits for a lock.
func (g *graceContext) Value(key any) any {
	if key != (locks.WaitsKey{}) {
		return g.Context.Value(key)
	}
	return locks.Noted(func(path string) (ended func()) {
		if a := g.fs.callers.known(callerOf(g.Context)); a != nil {
			return a.eng.WaitsForLock(path)
		}
		return func() {}
	})
}

// Done is closed when the grace is over.
func (g *graceContext) Done() <-chan struct{} { return g.started().Done() }

func (g *graceContext) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, stop := range g.stop {
		stop()
	}
}
