package store

import (
	"os"

	"p11fs/shm"
)

// besides is the directory of the segment of the token in dir, if it has one.
func besides(dir string) string { return dir + ".shm" }

// shareBeside has a store use the segment beside its directory, if there is one.
func shareBeside(cfg *Config) {
	if _, err := os.Stat(besides(cfg.Dir)); err == nil {
		cfg.Shared = &Shared{Dir: besides(cfg.Dir), Name: "/segment"}
	}
}

// segment is a segment that the process no longer changes once it was killed; its
// changes are steps as those of the directory are.
func (m *mortal) segment(s *shm.TokenSegment) segment { return &mortalSegment{s, m} }

type mortalSegment struct {
	segment
	m *mortal
}

func (s *mortalSegment) killed() bool {
	alive, _ := s.m.step()
	s.m.silent = s.m.silent || !alive
	return !alive
}

func (s *mortalSegment) SetData(d [dataSize]byte) {
	if !s.killed() {
		s.segment.SetData(d)
	}
}

func (s *mortalSegment) SetEntries(l shm.List, es []shm.Entry) error {
	if s.killed() {
		return errKilled
	}
	return s.segment.SetEntries(l, es)
}

func (s *mortalSegment) Append(l shm.List, e shm.Entry) error {
	if s.killed() {
		return errKilled
	}
	return s.segment.Append(l, e)
}

func (s *mortalSegment) Remove(l shm.List, n [8]byte) bool {
	return !s.killed() && s.segment.Remove(l, n)
}

func (s *mortalSegment) Touch(l shm.List, n [8]byte) (shm.Entry, bool) {
	if s.killed() {
		return shm.Entry{}, true
	}
	return s.segment.Touch(l, n)
}

// What follows changes nothing that matters after a crash, and is no step.

func (s *mortalSegment) SetLoaded(l shm.List, on bool) {
	if s.m.left != 0 {
		s.segment.SetLoaded(l, on)
	}
}

func (s *mortalSegment) ZeroTail(l shm.List) {
	if s.m.left != 0 {
		s.segment.ZeroTail(l)
	}
}

func (s *mortalSegment) Attach() {
	if s.m.left != 0 {
		s.segment.Attach()
	}
}

func (s *mortalSegment) Detach() {
	if s.m.left != 0 {
		s.segment.Detach()
	}
}
