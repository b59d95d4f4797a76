package soft

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/tokens/card"
)

// TestPlantedSet: cards that others may have made are not a token's own, and a FIFO in the
// place of a key is not waited for.
func TestPlantedSet(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "card")
	apqn := card.APQN{Domain: 1}
	if err := MakeSet(dir, "ep11", []card.APQN{apqn}, []string{WK}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOwnSet(dir); err == nil {
		t.Error("it is opened where others may write it")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := OpenOwnSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := filepath.Join(dir, WK, Current)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(key, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Key(apqn, WK, Current)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a FIFO is a key")
		}
	case <-time.After(time.Minute):
		t.Error("a FIFO is waited for")
	}
}

// TestCutOffActivation: a next key is not committed because the one before was, of which the
// activation was cut off at its end.
func TestCutOffActivation(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "card")
	apqn := card.APQN{Domain: 1}
	if err := MakeSet(dir, "ep11", []card.APQN{apqn}, []string{WK}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.writeLocked(WK+"/"+committed, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Change(nil, WK, ChangeNew); err != nil {
		t.Fatal(err)
	}
	if m, err := s.WrappingKey(apqn); err != nil || m.Next == nil || m.Committed {
		t.Errorf("the new key is committed: %v, %v", m.Committed, err)
	}
}
