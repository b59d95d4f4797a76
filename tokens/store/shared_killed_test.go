package store

import (
	"os"

	"p11fs/shm"
	"p11fs/tokens/tokentest/cuts"
)

// segmentDir is the directory of the segment of the token in dir, if it has one.
func segmentDir(dir string) string { return dir + ".shm" }

// shareIfDir has a store use the segment beside its directory, if there is one.
func shareIfDir(cfg *Config) {
	if _, err := os.Stat(segmentDir(cfg.Dir)); err == nil {
		cfg.Shared = &Shared{Dir: segmentDir(cfg.Dir), Name: "/segment"}
	}
}

// segment is a segment that the process no longer changes once it was killed; its
// changes are steps as those of the directory are.
func (m *killable) segment(s *shm.TokenSegment) segment { return &killableSegment{s, m} }

type killableSegment struct {
	segment
	m *killable
}

func (s *killableSegment) killed() bool {
	alive, _ := s.m.step()
	s.m.silent = s.m.silent || !alive
	return !alive
}

func (s *killableSegment) SetData(d []byte) {
	if !s.killed() {
		s.segment.SetData(d)
	}
}

func (s *killableSegment) SetEntries(l shm.List, es []shm.Entry) error {
	if s.killed() {
		return cuts.ErrKilled
	}
	return s.segment.SetEntries(l, es)
}

func (s *killableSegment) Append(l shm.List, e shm.Entry) error {
	if s.killed() {
		return cuts.ErrKilled
	}
	return s.segment.Append(l, e)
}

func (s *killableSegment) Remove(l shm.List, n [8]byte) bool {
	return !s.killed() && s.segment.Remove(l, n)
}

func (s *killableSegment) Touch(l shm.List, n [8]byte) (shm.Entry, bool) {
	if s.killed() {
		return shm.Entry{}, true
	}
	return s.segment.Touch(l, n)
}

// What follows changes nothing that matters after a crash, and is no step.

func (s *killableSegment) SetLoaded(l shm.List, on bool) {
	if s.m.left != 0 {
		s.segment.SetLoaded(l, on)
	}
}

func (s *killableSegment) ZeroTail(l shm.List) {
	if s.m.left != 0 {
		s.segment.ZeroTail(l)
	}
}

func (s *killableSegment) Attach() {
	if s.m.left != 0 {
		s.segment.Attach()
	}
}

func (s *killableSegment) Detach() {
	if s.m.left != 0 {
		s.segment.Detach()
	}
}
