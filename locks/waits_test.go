package locks

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestWaits: who has to wait for another goroutine or another process is noted meanwhile, and
// who has not is not.
func TestWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK..x")
	here, there := openTest(t, path, NoGroup), openTest(t, path, NoGroup)
	var mu sync.Mutex // guards began and ended
	began, ended := 0, 0
	ctx := context.WithValue(t.Context(), WaitsKey{}, Noted(func(got string) func() {
		mu.Lock()
		defer mu.Unlock()
		if began++; got != path {
			t.Errorf("the lock of %s is waited for, want %s", got, path)
		}
		return func() {
			mu.Lock()
			defer mu.Unlock()
			ended++
		}
	}))
	told := func() [2]int {
		mu.Lock()
		defer mu.Unlock()
		return [2]int{began, ended}
	}
	unlock, err := here.Lock(ctx)
	if err != nil || told() != [2]int{} {
		t.Fatalf("%v, %v of a lock that is free", err, told())
	}
	defer func() { _ = unlock() }()
	for i, l := range []*Lock{here, there} {
		got := make(chan error, 1)
		late, cancel := context.WithCancel(ctx)
		go func() {
			_, err := l.Lock(late)
			got <- err
		}()
		for limit := time.Now().Add(time.Minute); told() != [2]int{i + 1, i}; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%v while the %dth waits", told(), i+1)
			}
		}
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) || told() != [2]int{i + 1, i + 1} {
			t.Errorf("%v, %v after it gave up", err, told())
		}
	}
}
