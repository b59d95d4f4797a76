package fs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What the kernel keeps with the inode of a file is each application's own. The
// test's process is the observer, who has been logged in and is not any more.

// mapped maps a file, and returns what one reads through that: nothing where the
// page cannot be had.
func mapped(t *testing.T, f *os.File, n int) func() string {
	t.Helper()
	b, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return func() (s string) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() { _ = recover() }()
		return string(b)
	}
}

func TestPagesAreTheApplications(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.login()
	term.ok("printf 'old secret\\n' > $T/data/safe")

	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.dir, "tok", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("login", userPIN+"\n")
	see := make(map[string]func() string)
	for _, name := range []string{"data/safe", "login"} {
		f, err := os.Open(filepath.Join(m.dir, "tok", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		see[name] = mapped(t, f, 5)
	}
	write("logout", "\n")
	term.ok("printf 'new secret\\n' > $T/data/safe")
	term.want(`python3 -c '
import mmap, sys
for f in map(open, sys.argv[1:]):
    print(mmap.mmap(f.fileno(), 5, mmap.MAP_PRIVATE, mmap.PROT_READ)[:])' $T/data/safe $T/login`, "b'new s'\nb'user\\n'\n")
	if got := see["data/safe"](); got != "" {
		t.Errorf("after the logout a mapping shows %q, which another application has read", got)
	}
	if got := see["login"](); got != "user\n" {
		t.Errorf("a text that is open shows %q", got)
	}
}

// TestFilesOfOthersCannotBeOpened has somebody find a descriptor of another's in /proc,
// which leads past all names.
func TestFilesOfOthersCannotBeOpened(t *testing.T) {
	m := mount(t)
	term := m.terminal("bash")
	term.ok("exec 3<$T/login; cat /dev/fd/3")
	term.fails("setsid cat /dev/fd/3", syscall.ESTALE)
	term.want("setsid cat <&3 $T/login", "public\n")
}

// watcher sees by inotify what becomes of files.
type watcher struct {
	t     *testing.T
	fd    int
	names map[int]string
}

func newWatcher(t *testing.T) *watcher {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return &watcher{t: t, fd: fd, names: make(map[int]string)}
}

func (w *watcher) add(path string) {
	w.t.Helper()
	wd, err := unix.InotifyAddWatch(w.fd, path, unix.IN_ALL_EVENTS)
	if err != nil {
		w.t.Fatal(err)
	}
	w.names[wd] = filepath.Base(path)
}

// seen are the files of which there was news, with the name where a directory tells
// one.
func (w *watcher) seen() []string {
	w.t.Helper()
	var all []string
	buf := make([]byte, 1<<16)
	n, err := unix.Read(w.fd, buf)
	if err != nil && err != unix.EAGAIN {
		w.t.Fatal(err)
	}
	for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
		wd, size := int(int32(le32(b))), int(le32(b[12:]))
		if s := strings.TrimSuffix(w.names[wd]+"/"+strings.TrimRight(string(b[16:16+size]), "\x00"), "/"); !slices.Contains(all, s) {
			all = append(all, s)
		}
		b = b[16+size:]
	}
	return all
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func TestWatchesAreTheApplications(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	w := newWatcher(t)
	names := []string{"login", "generate", "pin", "digest/sha256"}
	for _, name := range names {
		w.add(filepath.Join(m.dir, "tok", name))
	}
	term.login()
	term.ok("echo aes:256 label=k > $T/generate; cat $T/generate $T/pin; echo x > $T/digest/sha256; cat $T/digest/sha256 >/dev/null")
	if got := w.seen(); got != nil {
		t.Errorf("another's files tell of %q", got)
	}
	_, _ = os.ReadFile(filepath.Join(m.dir, "tok/pin"))
	if got := w.seen(); !slices.Equal(got, []string{"pin"}) {
		t.Errorf("one's own files tell of %q", got)
	}
}

// stuckNode is a file whose pages never come.
type stuckNode struct{ gofs.Inode }

func (n *stuckNode) Lookup(ctx context.Context, _ string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	out.Mode, out.Size = syscall.S_IFREG|0o600, 4096
	return n.NewInode(ctx, &stuckNode{}, gofs.StableAttr{Mode: syscall.S_IFREG}), 0
}

func (n *stuckNode) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (n *stuckNode) Read(ctx context.Context, _ gofs.FileHandle, _ []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	<-ctx.Done()
	return nil, syscall.EINTR
}

// serveStuck mounts such a file until standard input ends.
func serveStuck(dir string) error {
	o := &gofs.Options{MountOptions: fuse.MountOptions{FsName: "stuck", Name: "stuck", DirectMount: os.Geteuid() == 0}}
	raw := gofs.NewNodeFS(&stuckNode{}, o)
	s, err := fuse.NewServer(raw, dir, &o.MountOptions)
	if err != nil {
		return err
	}
	go s.Serve()
	if err := s.WaitMount(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println("handles=0 panics=0 sessions=0 operations=0 applications=0")
	return detach(dir) // and what waits for a page gets an error
}

// TestLocksAreTheApplications has one user write from memory that a file system of his
// own is to fill, and never does: the lock that the kernel holds meanwhile is that of
// an inode of his own.
func TestLocksAreTheApplications(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	stuck := mount(t, "P11FS_TEST_STUCK=1")
	f, err := os.Open(filepath.Join(stuck.dir, "page"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"login", "digest/sha256", "find"}
	written := make(chan error, len(names))
	for _, name := range names {
		fd, err := unix.Open(filepath.Join(m.dir, "tok", name), unix.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		go func() {
			_, err := unix.Write(fd, page[:8])
			written <- err
		}()
	}
	time.Sleep(200 * time.Millisecond) // until they wait
	done := make(chan struct{})
	go func() {
		defer close(done)
		term.login()
		term.ok("echo x > $T/digest/sha256; cat $T/digest/sha256 >/dev/null; echo > $T/find; cat $T/find")
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("another's write waits for a page of the attacker's")
	}
	if n := len(written); n != 0 {
		t.Errorf("%d of the attacker's writes did not wait", n)
	}
	stuck.last()
	for range names {
		if err := <-written; err != nil {
			t.Logf("the attacker's write: %v", err)
		}
	}
	<-done
}

// TestWhatDirectoriesTell holds what the threat model says of them: which names a
// directory that all share tells by inotify to somebody without the PIN.
func TestWhatDirectoriesTell(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	w := newWatcher(t)
	for _, name := range []string{"tok", "tok/objects", "tok/data", "tok/sessions", "tok/digest"} {
		w.add(filepath.Join(m.dir, name))
	}
	term.login()
	term.ok("echo aes:256 label=k > $T/generate")
	for _, c := range []struct {
		line string
		want []string
	}{
		{"true", []string{"tok/login", "tok/generate"}},
		{"echo x > $O/k.sec/encrypt; cat $O/k.sec/encrypt $O/k.sec/attr/label >/dev/null", nil},
		{"ls $O/k.sec", []string{"objects/k.sec"}},
		{"echo x > $T/data/secret", []string{"data/secret"}},
		{"cat $T/objects/secret.dat/value; echo y > $T/objects/secret.dat/attr/value; readlink $T/by-id/none; true", nil},
		{"cat $T/data/secret", []string{"data/secret"}},
		{"mv $T/data/secret $T/data/moved; rm $T/data/moved", []string{"data/secret", "data/moved"}},
		{"mkdir $T/sessions/job; echo x > $T/sessions/job/digest/sha256", []string{"sessions/job"}},
		{"echo x > $T/digest/sha256; cat $T/digest/sha256 > /dev/null", []string{"digest/sha256"}},
		{"rmdir $O/k.sec", []string{"objects/k.sec"}},
		{"cat $T/pin $T/error $T/mechanisms >/dev/null; head -c 1 $T/random >/dev/null", []string{"tok/pin", "tok/error", "tok/mechanisms", "tok/random"}},
		{"echo 'aes:256 label=open private=false' > $T/generate", []string{"tok/generate"}},
		{"echo > $T/logout", []string{"tok/logout"}},
	} {
		term.ok(c.line)
		if got := w.seen(); !slices.Equal(got, c.want) {
			t.Errorf("%s shows %q, want %q", c.line, got, c.want)
		}
	}
	// Who has no login may watch the folder of a public object too.
	w.add(filepath.Join(m.dir, "tok/objects/open.sec"))
	w.seen()
	term.ok("echo x > $O/open.sec/encrypt; cat $O/open.sec/attr/label >/dev/null")
	if got := w.seen(); !slices.Equal(got, []string{"open.sec/encrypt"}) {
		t.Errorf("the use of a public object shows %q", got)
	}
}
