package shm

import (
	"errors"
	"os"
	"testing"

	"p11fs/shm/shmtest"
)

func openTest(t *testing.T) *TokenSegment {
	t.Helper()
	s, _, _, err := OpenToken(t.TempDir(), "/test", -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestState(t *testing.T) {
	s := openTest(t)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"data", func() { s.SetData([]byte{100: 1}) }},
		{"append", func() { _ = s.Append(Public, Entry{Name: name("A0000000")}) }},
		{"append private", func() { _ = s.Append(Private, Entry{Name: name("B0000000")}) }},
		{"touch", func() { s.Touch(Private, name("B0000000")) }},
		{"loaded", func() { s.SetLoaded(Private, true) }},
		{"remove", func() { s.Remove(Public, name("A0000000")) }},
		{"a count beyond the list", func() { putU32(s.mem, offPublicCount, 1<<31) }},
		{"an entry of a full list", func() { s.put(Public, MaxObjects-1, Entry{Low: 1}) }},
	} {
		before := s.State(nil)
		if !s.Is(before) {
			t.Errorf("before %s: not the same", step.name)
		}
		step.do()
		if s.Is(before) {
			t.Errorf("%s was not noticed", step.name)
		}
	}
	if s.Is(nil) || s.Is(s.State(nil)[:300]) || s.Is(append(s.State(nil), 0)) {
		t.Error("a state that is none is the same")
	}
	s.SetLoaded(Public, true)
	if err := s.SetEntries(Public, []Entry{{Name: name("A0000000")}}); err != nil {
		t.Fatal(err)
	}
	before := s.State(nil)
	s.Attach()
	s.put(Public, 1, Entry{Name: name("C0000000")})
	if !s.Is(before) {
		t.Error("references and residue are no state")
	}
}

// TestCut has another process cut the file under our mapping, in every place.
func TestCut(t *testing.T) {
	shmtest.NeedFaultAddress(t)
	for _, size := range []int64{0, 4096, 45056} {
		s := openTest(t)
		if err := s.SetEntries(Private, make([]Entry, MaxObjects)); err != nil {
			t.Fatal(err)
		}
		state := s.State(nil)
		if err := os.Truncate(s.Path(), size); err != nil {
			t.Fatal(err)
		}
		if s.Is(state) {
			t.Error("a cut segment is the same")
		}
		if err := s.Err(); !errors.Is(err, ErrCut) {
			t.Errorf("cut to %d: %v", size, err)
		}
		// None of them ends the process.
		s.Attach()
		s.Detach()
		s.SetData(s.Data())
		for _, l := range []List{Public, Private} {
			s.SetLoaded(l, s.Loaded(l))
			_ = s.SetEntries(l, s.Entries(l))
			_ = s.Append(l, Entry{})
			s.Touch(l, name("A0000000"))
			s.Remove(l, name("A0000000"))
			s.ZeroTail(l)
		}
		s.State(nil)
	}
}
