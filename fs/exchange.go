package fs

import (
	"slices"
	"time"
)

// resultLife is how long a result waits for its reader.
const resultLife = 60 * time.Second

// An exchange is where two opens of one file meet in a session: what was
// written through one is read through the other. It is guarded by session.mu.
type exchange struct {
	path       string // of the file
	generation uint64 // of the newest open for writing
	writers    int    // open handles for writing
	truncated  uint64 // counts truncations by name
	result     *result
	taken      bool // what was published last was read
	// newest is the newest writer while it is open and has no result, of what it wrote
	// last.
	newest *writer
}

// A result waits for its reader. It is read once.
type result struct {
	by         party   // who opened the file to write it
	generation uint64  // of that open
	out        *output // released when it is dropped; its reader's once it is taken
	err        error   // what the reader gets in place of it
	deadline   time.Time
	login      uint64 // the login generation under which it can be read, if guarded
	guarded    bool   // a logout takes it away
	timer      *time.Timer
}

// A writer is an open for writing whose result is for another open.
type writer struct {
	s          *session
	x          *exchange
	generation uint64
	truncated  uint64 // of x, as far as the writer knows
	by         party
	// idle is set when the writer was closed and has written nothing, or was interrupted
	// when it was closed. Its end, of which the kernel tells later than it tells the program,
	// may still be to come.
	idle bool
}

// rest says whether the writer is idle.
func (w *writer) rest(idle bool) {
	if w != nil {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		w.idle = idle
	}
}

// beginWriting starts a new generation of the file: what waits is dropped.
func (s *session) beginWriting(path string, by party) (*writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, errSessionClosed
	}
	x := s.exchanges[path]
	if x == nil {
		x = &exchange{path: path}
		s.exchanges[path] = x
	}
	s.generations++
	switch {
	case x.newest != nil && !x.newest.idle && !s.fs.callers.killed(x.newest.by.pid()):
		s.overtakeLocked(path, x.newest.by, s.generations)
	case x.newest != nil:
		s.overtakeLocked(path, x.newest.by, 0)
	case x.result != nil:
		s.overtakeLocked(path, x.result.by, 0)
	}
	x.writers++
	x.generation = s.generations
	s.setResultLocked(x, nil)
	x.newest = &writer{s: s, x: x, generation: x.generation, truncated: x.truncated, by: by}
	return x.newest, nil
}

func (w *writer) end() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.x.writers--
	if w.x.newest == w { // which leaves nothing
		w.x.newest = nil
		w.s.overtakeLocked(w.x.path, w.by, 0)
	}
	w.s.setResultLocked(w.x, w.x.result)
}

// wasTruncated reports whether the file was truncated by name since it was asked.
func (w *writer) wasTruncated() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	was := w.x.truncated != w.truncated
	w.truncated = w.x.truncated
	return was
}

// publish makes r the result, and shares its output. It fails if a newer generation
// has begun.
func (w *writer) publish(r *result) error {
	s, x := w.s, w.x
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return errSessionClosed
	case x.generation != w.generation:
		return errNewerOpen
	}
	if r.out != nil {
		r.out.users++
	}
	r.by, r.generation, x.newest = w.by, w.generation, nil
	r.deadline = s.fs.config.Now().Add(resultLife)
	r.timer = time.AfterFunc(resultLife, func() { s.expire(x, r) })
	s.setResultLocked(x, r)
	x.taken = false
	return nil
}

// withdraw drops the result, because more of its message came, and reports whether it
// was read before.
func (w *writer) withdraw() (taken bool) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.x.generation != w.generation {
		return false
	}
	w.s.setResultLocked(w.x, nil)
	w.x.newest = w
	return w.x.taken
}

// truncate drops what waits, and makes every writer start its message anew.
func (s *session) truncate(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[path]; x != nil {
		x.truncated++
		s.setResultLocked(x, nil)
	}
}

// take returns the result that waits, to be read once and then released. Its
// error is errNothing if nothing waits, and errNewerOpen if it is another's than the
// reader looks for.
func (s *session) take(path string, c caller) (*output, error) {
	login, reader := s.loginGeneration(), party(nil)
	if s.contended(path) {
		reader = s.fs.callers.party(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[path]
	if x == nil || x.result == nil {
		return nil, errNothing
	}
	r := x.result
	if !s.isForLocked(path, r, reader) {
		return nil, errNewerOpen
	}
	out, err := r.out, r.err
	if !s.fs.config.Now().Before(r.deadline) || r.guarded && r.login != login {
		out, err = nil, errNothing
	} else {
		r.out = nil
		x.taken = out != nil
	}
	s.setResultLocked(x, nil)
	return out, err
}

// contended reports whether a writer of the file was overtaken.
func (s *session) contended(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.overtaken, func(o overtaken) bool { return o.path == path })
}

func (s *session) expire(x *exchange, r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.result == r {
		s.setResultLocked(x, nil)
	}
}

// setResultLocked puts r in place of the result that waits, which is released. An
// exchange with nothing in it is forgotten.
func (s *session) setResultLocked(x *exchange, r *result) {
	if old := x.result; old != nil && old != r {
		old.timer.Stop()
		if old.out != nil {
			old.out.releaseLocked()
			old.out = nil
		}
	}
	if x.result = r; r == nil && x.writers <= 0 && s.exchanges[x.path] == x {
		delete(s.exchanges, x.path)
	}
}

// cancel drops every result that waits.
func (s *session) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.exchanges {
		s.setResultLocked(x, nil)
	}
}
