package locks

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdEnv names the lock file that this process, a child of a benchmark, locks
// over and over.
const holdEnv = "LOCKS_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	os.Exit(m.Run())
}

// hold works as a stock client in a loop does: half a millisecond under the lock,
// a tenth of one without, until standard input ends.
func hold(path string) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	work := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
	}
	for {
		if unix.Flock(fd, unix.LOCK_EX) == nil {
			work(500 * time.Microsecond)
			_ = unix.Flock(fd, unix.LOCK_UN)
		}
		work(100 * time.Microsecond)
	}
}

// BenchmarkBesideOthers is what the lock takes beside other processes in a loop.
func BenchmarkBesideOthers(b *testing.B) {
	for _, n := range []int{0, 1, 2} {
		b.Run([]string{"alone", "beside one", "beside two"}[n], func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "LCK..x")
			l, err := Open(path, NoGroup)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for range n {
				c := exec.Command(os.Args[0])
				c.Env = append(os.Environ(), holdEnv+"="+path, "GOMAXPROCS=1")
				in, err := c.StdinPipe()
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Start(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					_ = in.Close()
					_ = c.Wait()
				}()
			}
			time.Sleep(100 * time.Millisecond)
			for b.Loop() {
				unlock, err := l.Lock(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				if err := unlock(); err != nil {
					b.Fatal(err)
				}
				time.Sleep(200 * time.Microsecond) // a caller works, too
			}
		})
	}
}
