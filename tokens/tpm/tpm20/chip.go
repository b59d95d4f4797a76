package tpm20

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"p11fs/p11"
)

// How long the TPM is kept while nobody uses it: first sessions go, then all. While it is
// away it is looked for as often.
const (
	burst = 100 * time.Millisecond
	rest  = time.Second
)

// A Chip is one TPM. Its methods may be called by several goroutines at once.
type Chip struct {
	device Device
	jobs   chan *job
	quit   chan struct{}
	ended  chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards what follows; nothing is locked under it
	offline error
	facts   *Facts
}

// Open returns the TPM of a device. It is not looked at before it is used.
func Open(d Device) (*Chip, error) {
	if err := d.Check(); err != nil {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	c := &Chip{device: d, jobs: make(chan *job), quit: make(chan struct{}), ended: make(chan struct{})}
	go c.work()
	return c, nil
}

// Device is what the chip was opened with.
func (c *Chip) Device() Device { return c.device }

// Close gives up what is held of the TPM. It waits for the command that the TPM is at.
func (c *Chip) Close() {
	c.once.Do(func() { close(c.quit) })
	<-c.ended
}

// Offline returns nil, or why the TPM could not be used when that was last tried.
func (c *Chip) Offline() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offline
}

func (c *Chip) setOffline(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offline = err
}

// A job is something to be done with the TPM.
type job struct {
	ctx   context.Context // of the caller, who waits
	since time.Time
	work  func(*worker) error
	done  chan error // has room for one
}

// do has the worker do something, and returns what comes of it. Whoever is interrupted
// does not wait for the TPM: what it is at goes on, and the result is closed if it can be.
func do[T any](ctx context.Context, c *Chip, f func(*worker) (T, error)) (T, error) {
	var none, result T
	j := &job{ctx: ctx, since: time.Now(), done: make(chan error, 1)}
	j.work = func(w *worker) (err error) {
		result, err = f(w)
		return err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case c.jobs <- j:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-c.quit:
		return none, p11.Errorf(p11.CKR_DEVICE_REMOVED, "%s: closed", c.device)
	}
	select {
	case err := <-j.done:
		return result, err
	case <-ctx.Done():
		go func() {
			if err := <-j.done; err == nil {
				if closer, ok := any(result).(io.Closer); ok {
					_ = closer.Close()
				}
			}
		}()
		return none, ctx.Err()
	}
}

// work is the goroutine that has the TPM.
func (c *Chip) work() {
	defer close(c.ended)
	w := &worker{chip: c}
	defer w.leave()
	for {
		var tick <-chan time.Time
		if wait := w.patience(); wait > 0 {
			tick = time.After(wait)
		}
		select {
		case <-c.quit:
			return
		case j := <-c.jobs:
			j.done <- w.run(j)
		case <-tick:
			w.idle()
		}
	}
}

// patience is how long to wait for somebody who wants the TPM, 0 for ever.
func (w *worker) patience() time.Duration {
	switch {
	case w.link == nil && w.chip.Offline() == nil:
		return 0
	case w.hasSessions():
		return burst
	}
	return rest
}

// idle gives up what is not worth being kept longer, or looks whether the TPM is back.
func (w *worker) idle() {
	switch {
	case w.link == nil:
		ctx, cancel := context.WithTimeout(context.Background(), dialTime)
		defer cancel()
		_ = w.connect(ctx)
	case w.hasSessions():
		w.endSessions()
	default:
		w.leave()
	}
}

// run does a job. If it finds that the TPM, or the program that is one, has started again
// since the last one, or that somebody has flushed what we had, it is done once more.
func (w *worker) run(j *job) error {
	if err := j.ctx.Err(); err != nil {
		return err
	}
	if w.failed.After(j.since) {
		// Who waited while the TPM was found silent does not find it so again.
		return w.failure
	}
	var err error
	for try := range 2 {
		fresh := w.link == nil
		w.answered, w.broken = 0, nil
		if err = w.connect(j.ctx); err == nil {
			err = w.guarded(j.work)
		}
		rc, _ := code(err)
		stale := w.broken != nil && w.answered == 0 && !w.silent || w.broken == nil && forgotten(rc)
		if err == nil || fresh || try > 0 || !stale {
			break
		}
		w.flush()
	}
	return translate(err)
}

// guarded turns a panic of go-tpm, which trusts what a TPM answers more than is good,
// into an error.
func (w *worker) guarded(f func(*worker) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.drop(fmt.Errorf("its answer makes no sense: %v", p))
			err = w.failure
		}
	}()
	return f(w)
}
