package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen serves in a directory of its own until the test ends.
func listen(t *testing.T, log *slog.Logger) (*Server, string) {
	t.Helper()
	path := filepath.Join(room(t), "s")
	s, err := Listen(path, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

// room is a directory with a short name that only this user may write.
func room(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "prof")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func client(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// get asks for a page.
func get(ctx context.Context, path, page string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://p11fs/"+page, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client(path).Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// holding waits with a secret in its arguments, on its stack and in the heap.
func holding(value [32]byte, begun chan<- *[32]byte, end <-chan struct{}) {
	kept := value
	begun <- &kept
	<-end
	runtime.KeepAlive(&value)
}

// TestNoContents: no profile has a byte of what is in memory, also in the arguments of
// functions that run.
func TestNoContents(t *testing.T) {
	_, path := listen(t, slog.New(slog.DiscardHandler))
	var value [32]byte
	_, _ = rand.Read(value[:])
	begun, end := make(chan *[32]byte), make(chan struct{})
	go holding(value, begun, end)
	kept := <-begun
	defer close(end)
	for _, page := range []string{"", "heap", "allocs", "goroutine", "goroutine?debug=2", "threadcreate", "profile?seconds=1", "trace?seconds=1", "mutex?seconds=1", "block?seconds=1"} {
		status, body, err := get(t.Context(), path, page)
		if err != nil || status != http.StatusOK || len(body) == 0 {
			t.Fatalf("%s: %d, %d bytes, %v", page, status, len(body), err)
		}
		if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if page == "goroutine" && !bytes.Contains(body, []byte("profile.holding")) {
			t.Error("the function that holds the secret is in no profile of goroutines")
		}
		for i := 0; i+8 <= len(kept); i += 8 {
			word := kept[i : i+8]
			reversed := bytes.Clone(word)
			for j := range reversed {
				reversed[j] = word[7-j]
			}
			hex := []byte(strings.TrimLeft(hexOf(reversed), "0"))
			if bytes.Contains(body, word) || bytes.Contains(body, reversed) || bytes.Contains(body, hex) {
				t.Errorf("%s has a part of the secret", page)
			}
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

// TestBounds: what is asked for is bounded, only one profile of a time is made at once, and
// Close ends it.
func TestBounds(t *testing.T) {
	s, path := listen(t, slog.New(slog.DiscardHandler))
	for page, want := range map[string]int{"profile?seconds=0": 400, "profile?seconds=301": 400, "trace?seconds=x": 400, "cmdline": 404, "heap/": 404} {
		if status, _, err := get(t.Context(), path, page); status != want || err != nil {
			t.Errorf("%s: %d %v, want %d", page, status, err, want)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Close cuts it. It is refused where the test below looks just then.
		for status := http.StatusServiceUnavailable; status == http.StatusServiceUnavailable; {
			status, _, _ = get(context.WithoutCancel(t.Context()), path, "block?seconds=300")
		}
	}()
	for s.one.TryLock() { // until the long one is there
		s.one.Unlock()
		time.Sleep(time.Millisecond)
	}
	if status, _, err := get(t.Context(), path, "mutex?seconds=1"); status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("beside another: %d %v", status, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	before := runtime.SetMutexProfileFraction(-1)
	if before != 0 {
		t.Errorf("locks are still counted, one in %d", before)
	}
}

// TestPlaces: a socket is made where nobody else can put one, over a dead one and over
// nothing else.
func TestPlaces(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	_, path := listen(t, log)
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := Listen(path, log); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("beside another: %v", err)
	}
	dir := room(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, log); err == nil {
		t.Error("it takes the place of a file")
	}
	if b, err := os.ReadFile(file); string(b) != "mine" {
		t.Errorf("the file is %q, %v", b, err)
	}
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	s, err := Listen(dead, log)
	if err != nil {
		t.Fatalf("over a dead one: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(dir, "open"), log); err == nil {
		t.Error("others may write the directory, and it is taken")
	}
}

// TestStranger: another user gets nothing, also where the socket's mode lets him in.
func TestStranger(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	var log bytes.Buffer
	s, path := listen(t, slog.New(slog.NewTextHandler(&log, nil)))
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	connected := make(chan int)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			none := ^uintptr(0)
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, none, nobody, none); errno != 0 {
				err = errno
			}
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			t.Errorf("as another user: %v", err)
		}
		connected <- fd
	}()
	f := os.NewFile(uintptr(<-connected), "socket")
	defer f.Close()
	_, _ = f.WriteString("GET /heap HTTP/1.0\r\n\r\n")
	if b, _ := io.ReadAll(f); len(b) > 0 {
		t.Errorf("he gets %d bytes", len(b))
	}
	if status, _, err := get(t.Context(), path, "heap"); status != http.StatusOK || err != nil {
		t.Errorf("root gets %d %v", status, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "uid=65534") {
		t.Errorf("the log: %s", log.String())
	}
}
