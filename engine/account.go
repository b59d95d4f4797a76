package engine

import (
	"sync/atomic"

	"p11fs/p11"
)

// An Account is the memory that one uid holds through all doors together. What a
// client has the daemon keep is taken before it is made, and given back when it
// goes.
type Account struct {
	uid  uint32
	max  int64 // negative: no limit
	held atomic.Int64
}

// Account returns the account of a uid. It is kept for good: uids are few.
func (e *Engine) Account(uid uint32) *Account {
	e.quota.mu.Lock()
	defer e.quota.mu.Unlock()
	a := e.quota.accounts[uid]
	if a == nil {
		a = &Account{uid: uid, max: e.limits.Bytes}
		e.quota.accounts[uid] = a
	}
	return a
}

// Take counts n bytes more, or returns a LimitError.
func (a *Account) Take(n int) error {
	if held := a.held.Add(int64(n)); a.max >= 0 && held > a.max && n > 0 {
		a.held.Add(-int64(n))
		return &LimitError{UID: a.uid, What: "bytes", Max: a.max, rv: p11.CKR_DEVICE_MEMORY}
	}
	return nil
}

// Give takes n bytes off the account.
func (a *Account) Give(n int) { a.held.Add(-int64(n)) }

// Held returns how many bytes the uid holds.
func (a *Account) Held() int64 { return a.held.Load() }
