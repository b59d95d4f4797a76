// Package desk lets one goroutine do all the work with a TPM, which does one thing at a
// time, for those who ask, and keeps its connection.
package desk

import (
	"context"
	"io"
	"sync"
	"time"

	"p11fs/p11"
)

// A Worker is what there is of a TPM while it is used. Its methods are called by the
// desk's goroutine alone.
type Worker interface {
	// Run does a job, and returns what went wrong.
	Run(ctx context.Context, since time.Time, job func() error) error
	// Patience is how long to wait for somebody who wants the TPM before Idle, 0 for ever.
	Patience() time.Duration
	// Idle gives up what is not worth being kept longer, or looks whether the TPM is back.
	Idle()
	// Leave gives up all there is, for good.
	Leave()
}

// A Desk is where work for a TPM is handed in. Its methods may be called by several
// goroutines at once.
type Desk[W Worker] struct {
	name   string
	worker W
	jobs   chan *job
	quit   chan struct{}
	ended  chan struct{}
	once   sync.Once
}

// Open begins the work of w, for the TPM of a name for people.
func Open[W Worker](name string, w W) *Desk[W] {
	d := &Desk[W]{name: name, worker: w, jobs: make(chan *job), quit: make(chan struct{}), ended: make(chan struct{})}
	go d.work()
	return d
}

// Close gives up what is held of the TPM. It waits for the command that the TPM is at.
func (d *Desk[W]) Close() {
	d.once.Do(func() { close(d.quit) })
	<-d.ended
}

// A job is something to be done with the TPM.
type job struct {
	ctx   context.Context // of the caller, who waits
	since time.Time
	work  func() error
	done  chan error // has room for one
}

// Do has the worker do something, and returns what comes of it. Whoever is interrupted
// does not wait for the TPM: what it is at goes on, and the result is closed if it can be.
func Do[W Worker, T any](ctx context.Context, d *Desk[W], f func(W) (T, error)) (T, error) {
	var none, result T
	j := &job{ctx: ctx, since: time.Now(), done: make(chan error, 1)}
	j.work = func() (err error) {
		result, err = f(d.worker)
		return err
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case d.jobs <- j:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-d.quit:
		return none, p11.Errorf(p11.CKR_DEVICE_REMOVED, "%s: closed", d.name)
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
func (d *Desk[W]) work() {
	defer close(d.ended)
	defer d.worker.Leave()
	for {
		var tick <-chan time.Time
		if wait := d.worker.Patience(); wait > 0 {
			tick = time.After(wait)
		}
		select {
		case <-d.quit:
			return
		case j := <-d.jobs:
			j.done <- d.worker.Run(j.ctx, j.since, j.work)
		case <-tick:
			d.worker.Idle()
		}
	}
}
