package fs

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/tokens/tokentest/hooks"
)

// world is a tree that is not mounted, and the processes that call it.
type world struct {
	t      testing.TB
	fs     *FS
	engine *engine.Engine
	root   *node

	mu      sync.Mutex // guards all below
	clock   time.Time
	members map[int]int // the session of each process
	leaders map[int]*fakeLeader
}

func newWorld(t testing.TB, o hooks.Options) *world {
	t.Helper()
	return newWorldOf(t, hooks.New("tok", o))
}

func newWorldOf(t testing.TB, token *hooks.Token) *world {
	t.Helper()
	w := &world{t: t, clock: time.Unix(1_000_000, 0), members: make(map[int]int), leaders: make(map[int]*fakeLeader)}
	f, e, err := newTree(Config{Now: w.now, Log: slog.New(slog.DiscardHandler), UID: 0, GID: 7},
		processes{session: w.session, leader: w.leader}, token)
	if err != nil {
		t.Fatal(err)
	}
	w.fs, w.engine = f, e
	w.root = f.rootNode()
	gofs.NewNodeFS(w.root, &gofs.Options{NullPermissions: true})
	t.Cleanup(func() {
		if n := f.Stats().Handles; n != 0 && !t.Failed() {
			t.Errorf("%d handles are left open", n)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for uid := range f.callers.users {
			if n := e.Account(uid).Held(); n != 0 && !t.Failed() {
				t.Errorf("%d bytes of uid %d count as held", n, uid)
			}
		}
		if s := e.Stats(); s.Sessions != 0 || s.Operations != 0 || s.SessionObjects != 0 || s.Applications != 0 {
			t.Errorf("left over: %+v", s)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func (w *world) session(tid int) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sid, ok := w.members[tid]; ok {
		return sid, nil
	}
	return 0, syscall.ESRCH
}

func (w *world) leader(sid int) (leader, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.leaders[sid]
	if l == nil || !l.alive() {
		return nil, syscall.ESRCH
	}
	return &heldLeader{fakeLeader: l, closed: make(chan struct{})}, nil
}

// fakeLeader is a process that leads a session.
type fakeLeader struct{ ended chan struct{} }

func (l *fakeLeader) alive() bool {
	select {
	case <-l.ended:
		return false
	default:
		return true
	}
}

type heldLeader struct {
	*fakeLeader
	once   sync.Once
	closed chan struct{}
}

func (h *heldLeader) wait() {
	select {
	case <-h.ended:
	case <-h.closed:
	}
}

func (h *heldLeader) close() { h.once.Do(func() { close(h.closed) }) }

// person is a process: who it is, and in which session.
type person struct {
	w   *world
	uid uint32
	pid int
}

// person starts a process of uid that leads a session of its own.
func (w *world) person(uid uint32, pid int) person {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[pid] = pid
	w.leaders[pid] = &fakeLeader{ended: make(chan struct{})}
	return person{w, uid, pid}
}

// child starts another process in the session of p.
func (p person) child(pid int) person {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.members[pid] = p.w.members[p.pid]
	return person{p.w, p.uid, pid}
}

// dies ends the process; the rest of its session lives on.
func (p person) dies() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	delete(p.w.members, p.pid)
	close(p.w.leaders[p.pid].ended)
}

func (p person) ctx() context.Context {
	return fuse.NewContext(context.Background(), &fuse.Caller{Owner: fuse.Owner{Uid: p.uid, Gid: p.uid}, Pid: uint32(p.pid)})
}

// walk finds the node of a path, as the kernel does.
func (p person) walk(path string) (*node, fuse.EntryOut, syscall.Errno) {
	at := p.w.root
	var out fuse.EntryOut
	for links := 0; path != ""; {
		name, rest, _ := strings.Cut(path, "/")
		if name == ".." {
			p.w.t.Fatalf("a path with ..: %s", path)
		}
		dir := at
		if dir.dir == nil {
			return nil, out, syscall.ENOTDIR
		}
		out = fuse.EntryOut{}
		inode, errno := dir.Lookup(p.ctx(), name, &out)
		if errno != 0 {
			return nil, out, errno
		}
		at, path = inode.Operations().(*node), rest
		if at.link != nil && path != "" {
			if links++; links > 8 {
				return nil, out, syscall.ELOOP
			}
			target, errno := at.Readlink(p.ctx())
			if errno != 0 {
				return nil, out, errno
			}
			at, path = dir, string(target)+"/"+path
		}
	}
	return at, out, 0
}

// openFile is an open file of a person.
type openFile struct {
	p      person
	node   *node
	handle gofs.FileHandle
	pos    int64
}

// open opens a file, or makes it with O_CREAT.
func (p person) open(path string, flags int) (*openFile, syscall.Errno) {
	at, _, errno := p.walk(path)
	if errno == syscall.ENOENT && flags&syscall.O_CREAT != 0 {
		i := strings.LastIndexByte(path, '/')
		dir, _, errno := p.walk(path[:i])
		if errno != 0 {
			return nil, errno
		}
		var out fuse.EntryOut
		inode, h, _, errno := dir.Create(p.ctx(), path[i+1:], uint32(flags), 0o666, &out)
		if errno != 0 {
			return nil, errno
		}
		return &openFile{p: p, node: inode.Operations().(*node), handle: h}, 0
	}
	if errno != 0 {
		return nil, errno
	}
	if at.file == nil {
		return nil, syscall.EISDIR
	}
	h, _, errno := at.Open(p.ctx(), uint32(flags))
	if errno != 0 {
		return nil, errno
	}
	return &openFile{p: p, node: at, handle: h}, 0
}

func (f *openFile) write(data string) syscall.Errno {
	n, errno := f.writeAt(data, f.pos)
	f.pos += int64(n)
	return errno
}

func (f *openFile) writeAt(data string, off int64) (uint32, syscall.Errno) {
	w, ok := f.handle.(gofs.FileWriter)
	if !ok {
		return 0, syscall.EBADF
	}
	return w.Write(f.p.ctx(), []byte(data), off)
}

// flush is the close of one descriptor; it comes from nobody.
func (f *openFile) flush() syscall.Errno {
	if h, ok := f.handle.(gofs.FileFlusher); ok {
		return h.Flush(fuse.NewContext(context.Background(), &fuse.Caller{}))
	}
	return 0
}

func (f *openFile) sync() syscall.Errno {
	return f.node.Fsync(f.p.ctx(), f.handle, 0)
}

func (f *openFile) release() {
	if h, ok := f.handle.(gofs.FileReleaser); ok {
		_ = h.Release(fuse.NewContext(context.Background(), &fuse.Caller{}))
	}
}

// close is the close of the last descriptor.
func (f *openFile) close() syscall.Errno {
	errno := f.flush()
	f.release()
	return errno
}

// read reads up to n bytes.
func (f *openFile) read(n int) (string, syscall.Errno) {
	h, ok := f.handle.(gofs.FileReader)
	if !ok {
		return "", syscall.EBADF
	}
	dest := make([]byte, n)
	r, errno := h.Read(f.p.ctx(), dest, f.pos)
	if errno != 0 {
		return "", errno
	}
	b, _ := r.Bytes(dest)
	f.pos += int64(len(b))
	return string(b), 0
}

// all reads to the end.
func (f *openFile) all() (string, syscall.Errno) {
	var b strings.Builder
	for {
		s, errno := f.read(4096)
		if errno != 0 || s == "" {
			return b.String(), errno
		}
		b.WriteString(s)
	}
}

func (f *openFile) truncate(size uint64) syscall.Errno {
	var out fuse.AttrOut
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Size: size}}
	return f.node.Setattr(f.p.ctx(), f.handle, &in, &out)
}

// What a shell does.

// cat is cat path: the open, the reads.
func (p person) cat(path string) (string, syscall.Errno) {
	f, errno := p.open(path, syscall.O_RDONLY)
	if errno != 0 {
		return "", errno
	}
	defer f.close()
	return f.all()
}

// echo is echo text > path, and says the first error.
func (p person) echo(text, path string) syscall.Errno { return p.print(text+"\n", path) }

// print is printf text > path.
func (p person) print(text, path string) syscall.Errno {
	f, errno := p.open(path, syscall.O_WRONLY|syscall.O_TRUNC|syscall.O_CREAT)
	if errno != 0 {
		return errno
	}
	errno = f.write(text)
	if e := f.close(); errno == 0 {
		errno = e
	}
	return errno
}

// truncate is truncate(2).
func (p person) truncate(path string, size uint64) syscall.Errno {
	node, _, errno := p.walk(path)
	if errno != 0 {
		return errno
	}
	var out fuse.AttrOut
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE, Size: size}}
	return node.Setattr(p.ctx(), nil, &in, &out)
}

// ls lists a directory, or fails the test.
func (p person) ls(path string) []string {
	p.w.t.Helper()
	node, _, errno := p.walk(path)
	if errno != 0 {
		p.w.t.Fatalf("ls %s: %v", path, errno)
	}
	h, _, errno := node.OpendirHandle(p.ctx(), 0)
	if errno != 0 {
		p.w.t.Fatalf("ls %s: %v", path, errno)
	}
	defer h.(gofs.FileReleasedirer).Releasedir(p.ctx(), 0)
	var names []string
	for {
		e, errno := h.(gofs.FileReaddirenter).Readdirent(p.ctx())
		if errno != 0 {
			p.w.t.Fatalf("ls %s: %v", path, errno)
		}
		if e == nil {
			return names
		}
		names = append(names, e.Name)
	}
}

// must fails the test for an errno.
func (p person) must(errno syscall.Errno) {
	p.w.t.Helper()
	if errno != 0 {
		text, _ := p.cat("tok/error")
		p.w.t.Fatalf("%v: %s", errno, text)
	}
}

// reads fails the test unless path reads as want.
func (p person) reads(path, want string) {
	p.w.t.Helper()
	got, errno := p.cat(path)
	if errno != 0 || got != want {
		p.w.t.Errorf("%s reads %q, %v; want %q", path, got, errno, want)
	}
}

// parent splits a path.
func parent(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// in calls f with the directory of path.
func (p person) in(path string, f func(d *node, name string) syscall.Errno) syscall.Errno {
	dir, name := parent(path)
	node, _, errno := p.walk(dir)
	if errno != 0 {
		return errno
	}
	return f(node, name)
}

func (p person) mkdir(path string) syscall.Errno {
	return p.in(path, func(d *node, name string) syscall.Errno {
		var out fuse.EntryOut
		_, errno := d.Mkdir(p.ctx(), name, 0o777, &out)
		return errno
	})
}

func (p person) rmdir(path string) syscall.Errno {
	return p.in(path, func(d *node, name string) syscall.Errno { return d.Rmdir(p.ctx(), name) })
}

func (p person) unlink(path string) syscall.Errno {
	return p.in(path, func(d *node, name string) syscall.Errno { return d.Unlink(p.ctx(), name) })
}

func (p person) rename(path, to string) syscall.Errno {
	return p.in(path, func(d *node, name string) syscall.Errno {
		toDir, toName := parent(to)
		node, _, errno := p.walk(toDir)
		if errno != 0 {
			return errno
		}
		return d.Rename(p.ctx(), name, node, toName, 0)
	})
}

// keys logs p in, and makes an RSA pair web, an EC pair tls, and an AES key disk.
func (p person) keys() {
	p.w.t.Helper()
	p.must(p.echo(userPIN, "tok/login"))
	for _, line := range []string{"rsa:2048 label=web", "ec:p256 label=tls derive=true", "aes:256 label=disk wrap=true unwrap=true encrypt=true decrypt=true"} {
		p.must(p.echo(line, "tok/generate"))
	}
}

// A link in the root leads to the socket for programs, where there is one.
func TestSocketLink(t *testing.T) {
	for _, socket := range []string{"", "/run/p11fs/rpc.sock"} {
		f, e, err := newTree(Config{Socket: socket}, processes{}, hooks.New("tok", hooks.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		all, err := f.rootNode().dir.list(t.Context(), caller{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := all.from(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		listed := slices.ContainsFunc(list, func(d fuse.DirEntry) bool { return d.Name == "rpc.sock" && d.Mode == syscall.S_IFLNK })
		got := ""
		if link, err := f.rootNode().dir.lookup(t.Context(), caller{}, "rpc.sock"); err == nil {
			if got, err = link.link(t.Context(), caller{}); err != nil {
				t.Fatal(err)
			}
		}
		if got != socket || listed != (socket != "") {
			t.Errorf("the link leads to %q and is listed: %v, want %q", got, listed, socket)
		}
		if err := errors.Join(f.Close(), e.Close()); err != nil {
			t.Error(err)
		}
	}
}
