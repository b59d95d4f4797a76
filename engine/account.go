package engine

import (
	"sync/atomic"

	"p11fs/p11"
)

// An Account is the memory that one uid holds through all doors together, and its share
// of the processors. What a client has the daemon keep is taken before it is made, and
// given back when it goes.
type Account struct {
	uid   uint32
	max   int64 // negative: no limit
	held  atomic.Int64
	total *atomic.Int64 // of all accounts

	turns *turns
	share share // guarded by turns.mu
	longs *longs
	long  int // pieces of work in progress; guarded by longs.mu
}

// Account returns the account of a uid. It is kept for good: uids are few.
func (e *Engine) Account(uid uint32) *Account {
	e.quota.mu.Lock()
	defer e.quota.mu.Unlock()
	a := e.quota.accounts[uid]
	if a == nil {
		a = &Account{uid: uid, max: e.limits.Bytes, total: &e.held, turns: e.turns, longs: e.longs}
		e.quota.accounts[uid] = a
	}
	return a
}

// Take counts n bytes more, or returns a LimitError. No account has more than what all
// of them together leave of twice the limit of one. So one that is alone has its limit,
// each of n has 2/(n+1) of that, and whoever comes then finds as much.
func (a *Account) Take(n int) error {
	held, total := a.held.Add(int64(n)), a.total.Add(int64(n))
	if a.max >= 0 && held+total > 2*a.max && n > 0 {
		a.Give(n)
		return &LimitError{UID: a.uid, What: "bytes", Max: max(0, a.max-(total-held)/2), rv: p11.CKR_DEVICE_MEMORY}
	}
	return nil
}

// Give takes n bytes off the account.
func (a *Account) Give(n int) {
	a.held.Add(-int64(n))
	a.total.Add(-int64(n))
}

// Held returns how many bytes the uid holds.
func (a *Account) Held() int64 { return a.held.Load() }
