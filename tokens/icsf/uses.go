package icsf

import (
	"sync"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// uses are those of the keys of the token here. An operation that holds a key goes on when the
// key is destroyed: a copy on the server, which lasts as long as the connection, stands for it
// until nobody holds it any more.
type uses struct {
	mu     sync.Mutex // guards all below; nothing is locked under it
	held   map[icsfwire.Handle]int
	used   map[icsfwire.Handle]bool
	stands map[icsfwire.Handle]icsfwire.Handle
	spare  func(icsfwire.Handle) // is told of a copy that nobody needs; does not wait
}

func newUses(spare func(icsfwire.Handle)) *uses {
	return &uses{held: make(map[icsfwire.Handle]int), used: make(map[icsfwire.Handle]bool), stands: make(map[icsfwire.Handle]icsfwire.Handle), spare: spare}
}

// hold counts a version of an object.
func (u *uses) hold(h icsfwire.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held[h]++
}

// release is told of each version that nobody holds any more.
func (u *uses) release(a p11.Attributes) {
	h, _ := handleOf(a)
	u.mu.Lock()
	u.held[h]--
	var spare icsfwire.Handle
	if u.held[h] <= 0 {
		spare = u.stands[h]
		delete(u.held, h)
		delete(u.used, h)
		delete(u.stands, h)
	}
	u.mu.Unlock()
	if spare != "" {
		u.spare(spare)
	}
}

// use says that a key has been begun to be used.
func (u *uses) use(h icsfwire.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held[h] > 0 {
		u.used[h] = true
	}
}

// isUsed says whether an operation may hold a key.
func (u *uses) isUsed(h icsfwire.Handle) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.used[h]
}

// stand has a copy stand for a key.
func (u *uses) stand(h, instead icsfwire.Handle) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stands[h] = instead
}

// now is what stands for a key: itself, or a copy.
func (u *uses) now(h icsfwire.Handle) icsfwire.Handle {
	u.mu.Lock()
	defer u.mu.Unlock()
	if instead, ok := u.stands[h]; ok {
		return instead
	}
	return h
}
