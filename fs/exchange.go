package fs

import "time"

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
}

// A result waits for its reader. It is read once.
type result struct {
	out      *output // released when it is dropped; its reader's once it is taken
	err      error   // what the reader gets in place of it
	deadline time.Time
	login    uint64 // the login generation under which it can be read, if guarded
	guarded  bool   // a logout takes it away
	timer    *time.Timer
}

// beginWriting starts a new generation of the file: what waits is dropped.
func (s *session) beginWriting(path string) (generation, truncated uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, 0, errSessionClosed
	}
	x := s.exchanges[path]
	if x == nil {
		x = &exchange{path: path}
		s.exchanges[path] = x
	}
	x.writers++
	x.generation++
	s.setResultLocked(x, nil)
	return x.generation, x.truncated, nil
}

// endWriting is called once for each beginWriting.
func (s *session) endWriting(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[path]; x != nil {
		x.writers--
		s.setResultLocked(x, x.result)
	}
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

// truncations counts the truncations by name of a file that is being written.
func (s *session) truncations(path string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[path]; x != nil {
		return x.truncated
	}
	return 0
}

// publish makes r the result of that generation, and shares its output. It fails if
// a newer generation has begun.
func (s *session) publish(path string, generation uint64, r *result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[path]
	switch {
	case s.ended:
		return errSessionClosed
	case x == nil || x.generation != generation:
		return errNewerOpen
	}
	if r.out != nil {
		r.out.users++
	}
	r.deadline = s.fs.now().Add(resultLife)
	r.timer = time.AfterFunc(resultLife, func() { s.expire(x, r) })
	s.setResultLocked(x, r)
	x.taken = false
	return nil
}

// withdraw drops the result of that generation, because more of its message came,
// and reports whether it was read before.
func (s *session) withdraw(path string, generation uint64) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[path]
	if x == nil || x.generation != generation {
		return false
	}
	s.setResultLocked(x, nil)
	return x.taken
}

// take returns the result that waits, to be read once and then released. Its
// error is errNothing if nothing waits.
func (s *session) take(path string) (*output, error) {
	login := s.loginGeneration()
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[path]
	if x == nil || x.result == nil {
		return nil, errNothing
	}
	r := x.result
	out, err := r.out, r.err
	if !s.fs.now().Before(r.deadline) || r.guarded && r.login != login {
		out, err = nil, errNothing
	} else {
		r.out = nil
		x.taken = out != nil
	}
	s.setResultLocked(x, nil)
	return out, err
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
