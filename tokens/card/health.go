package card

import (
	"sync"
	"time"
)

// Retry is how long a card that did not answer is left alone.
const Retry = time.Second

// A Health says whether the cards of a token answer.
type Health struct {
	Now func() time.Time

	mu      sync.Mutex // guards all below; nothing is locked under it
	why     error      // that no card answers; nil once one has
	since   time.Time  // when the first did not
	tried   time.Time  // when why was so
	watch   map[int]func()
	watched int
}

// May says whether a card may be asked: one that did not answer is asked once a second. It
// does not wait.
func (h *Health) May() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if since := h.Now().Sub(h.tried); h.why == nil || since >= Retry || since < 0 {
		return nil
	}
	return h.why
}

// Why is why no card answered when one was asked last, or nil.
func (h *Health) Why() error {
	_, why := h.Away()
	return why
}

// Away is tokens.Rester's: Why, and since when.
func (h *Health) Away() (since time.Time, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.why
}

// Heard remembers why no card answers, or, of nil, that one does, and tells who watches of a
// change.
func (h *Health) Heard(why error) {
	h.mu.Lock()
	changed := (why == nil) != (h.why == nil)
	if h.why = why; why != nil {
		h.tried = h.Now()
	}
	if changed {
		h.since = h.tried // of one that answers nobody asks
	}
	h.mu.Unlock()
	if changed {
		h.Tell()
	}
}

// Tell tells who watches that something has changed.
func (h *Health) Tell() {
	h.mu.Lock()
	var list []func()
	for _, f := range h.watch {
		list = append(list, f)
	}
	h.mu.Unlock()
	for _, f := range list {
		f()
	}
}

// Watch is tokens.Watcher's.
func (h *Health) Watch(changed func()) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watch == nil {
		h.watch = make(map[int]func())
	}
	h.watched++
	n := h.watched
	h.watch[n] = changed
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watch, n)
	}
}
