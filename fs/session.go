package fs

import (
	"sync"

	"p11fs/engine"
	"p11fs/secret"
)

// maxHeld bounds the input and output of a session that are kept in memory, in all
// its files together. What a uid has in all its sessions counts in its account.
const maxHeld = 64 << 20

// A session is one PKCS#11 session and the file transactions that go on in it.
type session struct {
	fs   *FS
	app  *application
	slot *engine.Slot
	eng  *engine.Session
	name string // of its directory, or empty

	errors errorFile

	mu          sync.Mutex // guards all below
	ended       bool
	held        int64
	exchanges   map[string]*exchange       // by file
	overtaken   []overtaken                // writers, the oldest first
	generations uint64                     // opens for writing
	secrets     [secretKinds]*secret.Bytes // each for its next use
}

// gone reports whether the session has ended.
func (s *session) gone() bool {
	select {
	case <-s.eng.Done():
		return true
	default:
		return false
	}
}

// close ends the session and wipes what it keeps. It may be called again.
func (s *session) close() {
	_ = s.eng.Close() // it may have ended by itself
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, x := range s.exchanges {
		s.setResultLocked(x, nil)
	}
	for kind, b := range s.secrets {
		_ = b.Close()
		s.secrets[kind] = nil
	}
}

// reserve counts n bytes that are to be held. It fails if there is no room for them.
func (s *session) reserve(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held+int64(n) > maxHeld {
		return errHeld
	}
	if err := s.app.account.Take(n); err != nil {
		return errHeldUser
	}
	s.held += int64(n)
	return nil
}

// hasRoom reports whether the session may hold n bytes more.
func (s *session) hasRoom(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held+int64(n) <= maxHeld
}

func (s *session) unreserve(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unreserveLocked(n)
}

func (s *session) unreserveLocked(n int) {
	s.held -= int64(n)
	s.app.account.Give(n)
}

// loginGeneration changes with each login and logout of the application.
func (s *session) loginGeneration() uint64 { return s.app.eng.LoginGeneration(s.slot) }

// A secretKind is what a secret that waits is for.
type secretKind int

const (
	importSecret  secretKind = iota // the pass phrase of the next import
	contextSecret                   // the PIN of the next use of a key that wants it each time
	secretKinds
)

// setSecret keeps b for its next use, in place of what waits.
func (s *session) setSecret(kind secretKind, b *secret.Bytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = b.Close()
		return
	}
	_ = s.secrets[kind].Close()
	s.secrets[kind] = b
}

// takeSecret returns the secret, which is the caller's then, or nil.
func (s *session) takeSecret(kind secretKind) *secret.Bytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.secrets[kind]
	s.secrets[kind] = nil
	return b
}
