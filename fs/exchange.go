package fs

import (
	"time"

	"p11fs/p11"
)

// resultLife is how long a result waits for its reader.
const resultLife = 60 * time.Second

// An exchange is where two opens of one file meet in a session: what was
// written through one is read through the other. It is guarded by session.mu.
type exchange struct {
	generation uint64 // of the newest open for writing
	writers    int    // open handles for writing
	truncated  uint64 // counts truncations by name
	result     *result
	taken      bool // what was published last was read
}

// A result waits for its reader. It is read once.
type result struct {
	out      *output // released when it is dropped; its reader's once it is taken
	err      error   // what the reader gets instead
	deadline time.Time
	login    uint64 // the login generation under which it holds, if guarded
	guarded  bool   // it came from what only a login may use
	timer    *time.Timer
}

// exchangeLocked returns the file's exchange, made when there is none.
func (s *session) exchangeLocked(key string) *exchange {
	x := s.exchanges[key]
	if x == nil {
		x = &exchange{}
		s.exchanges[key] = x
	}
	return x
}

// beginWriting starts a new generation of the file: what waits is dropped.
func (s *session) beginWriting(key string) (generation, truncated uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, 0, p11.Errorf(p11.CKR_SESSION_HANDLE_INVALID, "the session is closed")
	}
	x := s.exchangeLocked(key)
	x.writers++
	x.generation++
	s.setResultLocked(x, nil)
	return x.generation, x.truncated, nil
}

// endWriting gives one beginWriting back.
func (s *session) endWriting(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[key]; x != nil {
		x.writers--
		s.tidyLocked(key, x)
	}
}

// tidyLocked forgets an exchange with nothing in it.
func (s *session) tidyLocked(key string, x *exchange) {
	if x.writers <= 0 && x.result == nil {
		delete(s.exchanges, key)
	}
}

// truncate drops what waits, and makes every writer start its message anew.
func (s *session) truncate(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[key]; x != nil {
		x.truncated++
		s.setResultLocked(x, nil)
		s.tidyLocked(key, x)
	}
}

// truncations counts the truncations by name of a file that is being written.
func (s *session) truncations(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[key]; x != nil {
		return x.truncated
	}
	return 0
}

// publish makes r the result of that generation, and shares what it gives. It is
// refused when a newer generation has begun.
func (s *session) publish(key string, generation uint64, r *result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[key]
	switch {
	case s.ended:
		return p11.Errorf(p11.CKR_SESSION_HANDLE_INVALID, "the session is closed")
	case x == nil || x.generation != generation:
		return errSuper
	}
	s.setResultLocked(x, nil)
	if r.out != nil {
		r.out.users++
	}
	r.deadline = s.fs.now().Add(resultLife)
	r.timer = time.AfterFunc(resultLife, func() { s.expire(key, r) })
	x.result, x.taken = r, false
	return nil
}

// withdraw drops the result of that generation, for more of its message came,
// and says whether it was read before.
func (s *session) withdraw(key string, generation uint64) (taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[key]
	if x == nil || x.generation != generation {
		return false
	}
	s.setResultLocked(x, nil)
	return x.taken
}

// take gives the waiting result away, to be read once and then released. Its
// error is errNothing when nothing waits.
func (s *session) take(key string) (*output, error) {
	login := s.loginGeneration()
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.exchanges[key]
	if x == nil || x.result == nil {
		return nil, errNothing
	}
	r := x.result
	if !s.fs.now().Before(r.deadline) || r.guarded && r.login != login {
		s.setResultLocked(x, nil)
		s.tidyLocked(key, x)
		return nil, errNothing
	}
	out, err := r.out, r.err
	r.out = nil
	x.taken = out != nil
	s.setResultLocked(x, nil)
	s.tidyLocked(key, x)
	return out, err
}

func (s *session) expire(key string, r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exchanges[key]; x != nil && x.result == r {
		s.setResultLocked(x, nil)
		s.tidyLocked(key, x)
	}
}

// setResultLocked puts r in place of the waiting result, which is released.
func (s *session) setResultLocked(x *exchange, r *result) {
	if old := x.result; old != nil {
		old.timer.Stop()
		if old.out != nil {
			old.out.releaseLocked()
			old.out = nil
		}
	}
	x.result = r
}

// cancel drops every result that waits.
func (s *session) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, x := range s.exchanges {
		s.setResultLocked(x, nil)
		s.tidyLocked(key, x)
	}
}
