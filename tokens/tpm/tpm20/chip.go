package tpm20

import (
	"context"
	"fmt"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tpm/desk"
)

// burst is how long sessions are kept while nobody uses the TPM.
const burst = 100 * time.Millisecond

// longest is how long one serves while somebody does: on a chip a signature may take longer
// than a burst, and a session as long again.
const longest = time.Second

// A Device is where a TPM is.
type Device = desk.Device

// A Chip is one TPM. Its methods may be called by several goroutines at once.
type Chip struct {
	desk *desk.Desk[*worker]
	line *desk.Line

	mu    sync.Mutex // guards facts; nothing is locked under it
	facts *Facts
}

// Open returns the TPM of a device. It is not looked at before it is used.
func Open(d Device) (*Chip, error) {
	if err := d.Check(); err != nil {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	c := &Chip{}
	w := newWorker(c, d)
	c.line, c.desk = w.Line, desk.Open(string(d), w)
	return c, nil
}

// Device is what the chip was opened with.
func (c *Chip) Device() Device { return c.line.Device }

// Close gives up what is held of the TPM. It waits for the command that the TPM is at.
func (c *Chip) Close() { c.desk.Close() }

// Offline returns nil, or why the TPM could not be used when that was last tried.
func (c *Chip) Offline() error { return c.line.Offline() }

// do has the worker do something, and returns what comes of it.
func do[T any](ctx context.Context, c *Chip, f func(*worker) (T, error)) (T, error) {
	return desk.Do(ctx, c.desk, func(w *worker) (result T, err error) {
		err = w.guarded(func(w *worker) (err error) {
			result, err = f(w)
			return err
		})
		return result, err
	})
}

// Run is desk.Worker's.
func (w *worker) Run(ctx context.Context, since time.Time, job func() error) error {
	return translate(w.Line.Run(ctx, since, job))
}

// Patience is desk.Worker's.
func (w *worker) Patience() time.Duration {
	if w.hasSessions() {
		return burst
	}
	return w.Line.Patience()
}

// Idle is desk.Worker's: first sessions go, then all.
func (w *worker) Idle() {
	if w.hasSessions() {
		w.endSessions()
		return
	}
	w.Line.Idle()
}

// guarded turns a panic of go-tpm, which trusts what a TPM answers more than is good,
// into an error.
func (w *worker) guarded(f func(*worker) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = w.Drop(fmt.Errorf("its answer makes no sense: %v", p))
		}
	}()
	return f(w)
}
