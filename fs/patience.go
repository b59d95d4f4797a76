package fs

import (
	"context"
	"sync"
	"time"
)

// interruptGrace is how long a request goes on after an interrupt. Signals that
// mean nothing to the call, such as those by which Go's runtime switches
// goroutines, interrupt it too, and programs do not expect EINTR of a file, least
// of all of close(2), which cannot be called again. What is quick is therefore
// finished, and what waits or takes long is given up.
const interruptGrace = 150 * time.Millisecond

// patient is a context of a request that ends a while after the request's own.
// It starts nothing unless someone waits for it; end gives that back.
type patient struct {
	context.Context
	grace time.Duration

	mu   sync.Mutex // guards all below
	seen time.Time  // when the request's own end was first noticed
	done chan struct{}
	stop chan struct{}
}

// patience returns the context under which a request works. The caller calls
// end when it is done.
func (f *FS) patience(ctx context.Context) (patience context.Context, end func()) {
	p := &patient{Context: ctx, grace: f.grace}
	return p, p.end
}

// Err says whether the patience is over.
func (p *patient) Err() error {
	err := p.Context.Err()
	if err == nil || p.grace == 0 {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.seen.IsZero() {
		p.seen = now
	}
	if now.Sub(p.seen) < p.grace {
		return nil
	}
	return err
}

// Done is closed when the patience is over.
func (p *patient) Done() <-chan struct{} {
	if p.grace == 0 {
		return p.Context.Done()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done, p.stop = make(chan struct{}), make(chan struct{})
		go p.watch(p.done, p.stop)
	}
	return p.done
}

func (p *patient) watch(done, stop chan struct{}) {
	select {
	case <-p.Context.Done():
	case <-stop:
		return
	}
	_ = p.Err() // begins to count
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-timer.C:
		close(done)
	case <-stop:
	}
}

func (p *patient) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		close(p.stop)
		p.stop = nil
	}
}
