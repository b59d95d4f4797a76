package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// interrupted returns CKR_FUNCTION_CANCELED once ctx is done. It is asked before
// side effects only.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted")
}

// interruptedBy gives the error of a token's call that ctx ended its CK_RV.
func interruptedBy(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return interrupted(ctx)
	}
	return err
}

// A tokenCall is the context of one call of the token in an operation. It ends with
// the caller's, and when the operation is cut meanwhile. A token that waits for
// nothing never asks for Done, and pays for none.
type tokenCall struct {
	context.Context
	account *Account // of whoever calls

	mu    sync.Mutex    // guards all below; nothing is locked under it
	done  chan struct{} // made when it is asked for
	woken bool          // done is closed
	cut   bool
	began time.Time
	stop  func() bool // ends the watch on the caller's context
}

// begin returns the context of a call: c, if it has served no call whose end somebody may
// still look for.
func (c *tokenCall) begin(ctx context.Context, a *Account, now time.Time) *tokenCall {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return &tokenCall{Context: ctx, account: a, began: now}
	}
	c.Context, c.account, c.began = ctx, a, now
	return c
}

// since is when the call began.
func (c *tokenCall) since() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began
}

// Done is context.Context's.
func (c *tokenCall) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	c.done = make(chan struct{})
	if c.cut {
		c.wakeLocked()
	} else {
		c.stop = context.AfterFunc(c.Context, c.wake)
	}
	return c.done
}

// Err is context.Context's.
func (c *tokenCall) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return context.Canceled
	}
	return c.Context.Err()
}

// Value is context.Context's.
func (c *tokenCall) Value(key any) any {
	if _, ok := key.(tokens.LongKey); ok {
		return tokens.LongWait(c.account.Long)
	}
	return c.Context.Value(key)
}

// interrupt ends the call's context.
func (c *tokenCall) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	c.wakeLocked()
}

// wake tells who waits for the end.
func (c *tokenCall) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

func (c *tokenCall) wakeLocked() {
	if c.done != nil && !c.woken {
		c.woken = true
		close(c.done)
	}
}

// end is called when the token's call has come back.
func (c *tokenCall) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		c.stop()
	}
}
