package integration

import (
	endian "encoding/binary"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A nameWatch hears of each object file that comes and goes, and says which
// stored names came again after they had gone: by p11fs, which puts a finished file
// in its place, and by stock processes. The latter may be nobody's fault: one that
// changes an object while it is destroyed makes the file anew, in place and
// without the lock.
type nameWatch struct {
	f              *os.File
	done           chan struct{}
	made           map[string]bool
	gone           map[string]bool
	again, byStock []string
	err            error
}

var storedName = regexp.MustCompile(`^[0-9A-Z]{8}$`)

// watchNames watches the directory of a token's objects until stop.
func watchNames(t testing.TB, dir string) *nameWatch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	w := &nameWatch{f: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}), made: map[string]bool{}, gone: map[string]bool{}}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		buf := make([]byte, 1<<20)
		for {
			n, err := w.f.Read(buf)
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.err = err
				}
				return
			}
			w.read(buf[:n])
		}
	}()
	return w
}

func (w *nameWatch) read(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask, size := endian.NativeEndian.Uint32(b[4:]), int(endian.NativeEndian.Uint32(b[12:]))
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		b = b[unix.SizeofInotifyEvent+size:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.err = errors.New("events were lost")
		case !storedName.MatchString(name):
		case mask&unix.IN_DELETE != 0:
			w.gone[name] = true
		default:
			w.made[name] = true
			switch {
			case !w.gone[name]:
			case mask&unix.IN_MOVED_TO != 0:
				w.again = append(w.again, name)
			default:
				w.byStock = append(w.byStock, name)
			}
		}
	}
}

// stop ends the watch, and fails the test if p11fs used a name again.
func (w *nameWatch) stop(t testing.TB) {
	t.Helper()
	_ = w.f.Close()
	<-w.done
	if w.err != nil {
		t.Errorf("the watch on stored names: %v", w.err)
	}
	if len(w.again) > 0 {
		t.Errorf("stored names were used again: %q", w.again)
	}
	t.Logf("%d stored names were used; files that stock processes brought back: %q", len(w.made), w.byStock)
}
