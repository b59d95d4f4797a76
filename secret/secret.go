// Package secret holds short secrets, PINs and master keys, in memory that is
// kept out of swap and core dumps and is wiped when it is given back.
//
// A Bytes does not print, does not marshal and does not compare with ==.
package secret

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Bytes is a secret byte string. The zero value is not usable; a nil *Bytes is
// an absent secret and has length 0. Whoever made one calls Close.
type Bytes struct {
	_ [0]func() // never compared with ==

	mu sync.RWMutex // guards mem and n; nothing is locked under it
	// mem returns whole pages from mmap, and is nil after Close. fmt prints what
	// unexported fields point to, without asking Format; of a function it prints
	// the address.
	mem func() []byte
	n   int
}

// New returns a secret with a copy of b, and wipes b.
func New(b []byte) (*Bytes, error) {
	page := unix.Getpagesize()
	size := (len(b)/page + 1) * page
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		Wipe(b)
		return nil, fmt.Errorf("secret memory: %w", err)
	}
	// Both are defence in depth: an ordinary user's RLIMIT_MEMLOCK may be
	// spent, and the secret must still be usable then.
	_ = unix.Mlock(mem)
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	s := &Bytes{mem: func() []byte { return mem }, n: copy(mem, b)}
	Wipe(b)
	return s, nil
}

// Len is the secret's length in bytes.
func (s *Bytes) Len() int {
	if s == nil {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.n
}

// Use calls f with the secret's bytes, which f neither keeps nor changes. After
// Close, and for a nil secret, f gets an empty slice.
func (s *Bytes) Use(f func(b []byte)) {
	if s == nil {
		f(nil)
		return
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.mem == nil {
		f(nil)
		return
	}
	f(s.mem()[:s.n])
}

// Clone returns an independent copy.
func (s *Bytes) Clone() (c *Bytes, err error) {
	s.Use(func(b []byte) { c, err = New(bytes.Clone(b)) })
	return c, err
}

// Equal compares two secrets of the same length in constant time.
func (s *Bytes) Equal(o *Bytes) (eq bool) {
	if s == o {
		return true
	}
	s.Use(func(a []byte) {
		o.Use(func(b []byte) { eq = subtle.ConstantTimeCompare(a, b) == 1 })
	})
	return eq
}

// Close wipes the secret and gives its memory back. It may be called again.
func (s *Bytes) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return nil
	}
	mem := s.mem()
	Wipe(mem)
	err := unix.Munmap(mem)
	s.mem, s.n = nil, 0
	return err
}

// Wipe overwrites b with zeros.
func Wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}

// Append is append that wipes the memory which b leaves when it moves. A long one
// grows by less than what it has.
func Append(b, data []byte) []byte { return append(Grow(b, len(data)), data...) }

// Grow is slices.Grow that wipes as Append does.
func Grow(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	room := min(cap(b), max(cap(b)/8, 1<<20))
	bigger := make([]byte, len(b), max(cap(b)+room, len(b)+n))
	copy(bigger, b)
	Wipe(b)
	return bigger
}

const redacted = "[secret]"

// String hides the secret.
func (s *Bytes) String() string { return redacted }

// Format hides the secret from every verb.
func (s *Bytes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the secret from slog.
func (s *Bytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from encoders.
func (s *Bytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
