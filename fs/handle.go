package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/secret"
)

// A file is a leaf of the tree. Each kind of file is a value of this type.
type file struct {
	// text is what is read, in memory that is wiped afterwards. It is nil where that is
	// not known before the read.
	text func(ctx context.Context, c caller) ([]byte, error)
	// length is how long the text is, in bytes, where that is known without it: a value
	// is not copied for a stat. It may be nil.
	length func(ctx context.Context, c caller) (int, error)
	// open opens the file, and decides rights. It is nil for a text that is read
	// only.
	open func(ctx context.Context, c caller, flags uint32) (*handle, error)
	// truncate sets the length by name, to 0 unless anySize is set. It is nil for
	// what cannot be written.
	truncate func(ctx context.Context, c caller, size uint64) error
	anySize  bool
}

// size is how long the text is, in bytes.
func (f *file) size(ctx context.Context, c caller) (int, error) {
	if f.length != nil {
		return f.length(ctx, c)
	}
	text, err := f.text(ctx, c)
	defer secret.Wipe(text)
	return len(text), err
}

func (p place) openFile(ctx context.Context, c caller, f *file, flags uint32) (*handle, error) {
	if f.open != nil {
		return f.open(ctx, c, flags)
	}
	if _, write := wants(flags); write {
		return nil, errReadOnly
	}
	return p.openText(ctx, c, f)
}

// wants returns what an open is for.
func wants(flags uint32) (read, write bool) {
	mode := flags & syscall.O_ACCMODE
	return mode != syscall.O_WRONLY, mode == syscall.O_WRONLY || mode == syscall.O_RDWR
}

var (
	_ gofs.FileReader   = (*handle)(nil)
	_ gofs.FileWriter   = (*handle)(nil)
	_ gofs.FileFlusher  = (*handle)(nil)
	_ gofs.FileReleaser = (*handle)(nil)
	_ gofs.FileLseeker  = (*handle)(nil)
)

// A handle is an open file. What it may do was decided when it was opened: FLUSH
// and RELEASE come from nobody. Its functions are called one at a time, each may be
// nil, and an error of theirs goes to the file error.
type handle struct {
	place
	path string       // of the file
	app  *application // of who opened it; nil for a text that needs none
	busy mutex        // held while a function runs
	turn *engine.Turn // of the function that runs; guarded by busy
	// waits is closed when a function has run, if some wait for that. It is guarded by
	// busy.
	waits chan struct{}
	end   <-chan struct{} // closed when no function is to wait any more
	// stream is set for what has no places in it, as a pipe has none: the kernel then
	// lets one process write while another waits in a read.
	stream   bool
	nonblock bool // no function waits
	// news gets something when a function that waits may go on, besides. It may be nil.
	news <-chan struct{}

	// read returns what the read gives, in dest or in memory of its own, which is
	// wiped when it is sent.
	read  func(ctx context.Context, dest []byte, off int64) ([]byte, error)
	write func(ctx context.Context, data []byte, off int64) error
	// flush is the close of one of the descriptors.
	flush func(ctx context.Context) error
	// sync is fsync(2).
	sync     func(ctx context.Context) error
	truncate func(ctx context.Context, size uint64) error
	// release gives up what the handle holds. It makes and computes nothing that
	// could fail, for nobody would see the error.
	release func(ctx context.Context)
	// giveBack takes the file off the account of who opened it.
	giveBack func()
	writer   *writer // nil unless the result is for another open
}

func (p place) newHandle(a *application) *handle {
	return &handle{place: p, app: a, busy: make(mutex, 1)}
}

func (s *session) newHandle() *handle {
	h := place{fs: s.fs, slot: s.slot, ref: sessionRef{number: s.eng.Handle()}}.newHandle(s.app)
	h.end = s.eng.Done()
	return h
}

// opened counts the handle if it holds anything, and returns what the kernel is
// told of it.
func (h *handle) opened() (fh gofs.FileHandle, fuseFlags uint32) {
	if h.release != nil {
		h.fs.handles.Add(1)
	}
	fuseFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	if h.flush == nil {
		fuseFlags |= fuse.FOPEN_NOFLUSH
	}
	if h.stream {
		fuseFlags |= fuse.FOPEN_STREAM
	}
	return h, fuseFlags
}

// exclusive runs f while nothing else uses the handle. A wait for that can be
// interrupted. f gives errNotYet if it has to wait, and is run again after another
// function, unless its descriptor is not to wait.
func (h *handle) exclusive(ctx context.Context, f func() error) error {
	for {
		waits, err := h.once(ctx, f)
		if waits == nil {
			return err
		}
		select {
		case <-waits:
		case <-h.news:
		case <-ctx.Done():
			return context.Canceled
		case <-h.end:
			return errSessionClosed
		}
	}
}

// once is exclusive, but for the wait that f wants: that is for the end of waits.
func (h *handle) once(ctx context.Context, f func() error) (waits <-chan struct{}, err error) {
	if !h.busy.lock(ctx) {
		return nil, context.Canceled
	}
	defer h.busy.unlock()
	h.fs.running.Add(1)
	defer func() { h.fs.ran.Add(1); h.fs.running.Add(-1) }()
	h.turn = h.account(ctx).Turn(ctx)
	defer func() { h.turn.End() }()
	h.turn.Charge(requestCost)
	if err = f(); errors.Is(err, errNotYet) && !h.nonblock && !requestOf(ctx).nonblock {
		if h.waits == nil {
			h.waits = make(chan struct{})
		}
		return h.waits, nil
	}
	if h.waits != nil {
		close(h.waits)
		h.waits = nil
	}
	return nil, err
}

// pause lets others have their turns before a request goes on.
func (h *handle) pause(ctx context.Context) { h.turn = h.account(ctx).Again(ctx, h.turn) }

// account is that of who opened the file, or of the caller.
func (h *handle) account(ctx context.Context) *engine.Account {
	if h.app != nil {
		return h.app.account
	}
	return h.fs.config.Engine.Account(callerOf(ctx).uid)
}

// serve runs one request of the kernel's.
func (h *handle) serve(ctx context.Context, run func(ctx context.Context) error) syscall.Errno {
	ctx, end := h.fs.withGrace(h.fs.requests.with(ctx))
	defer end()
	err := h.exclusive(ctx, func() error { return run(ctx) })
	if h.app == nil {
		return h.failed(callerOf(ctx), h.path, err)
	}
	return h.failedIn(h.app, h.path, err)
}

// succeeded has the file error show that all is well.
func (h *handle) succeeded() { h.note(h.app, h.path, lastError{}) }

// Read is read(2). Its offset is that of the descriptor, which may have written
// before: only what is read at any place looks at it.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (result fuse.ReadResult, errno syscall.Errno) {
	if h.read == nil {
		return nil, syscall.EBADF
	}
	errno = h.serve(ctx, func(ctx context.Context) error {
		b, err := h.read(ctx, dest, off)
		if err == nil {
			result = reply{fuse.ReadResultData(b), b}
		}
		return err
	})
	return result, errno
}

// Write is write(2).
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	defer secret.Wipe(data) // the request's buffer goes back to a pool
	if h.write == nil {
		return 0, syscall.EBADF
	}
	// A write may wait without end, and data is there meanwhile.
	if err := h.app.account.Take(len(data)); err != nil {
		return 0, h.failedIn(h.app, h.path, errHeldUser)
	}
	defer h.app.account.Give(len(data))
	if errno := h.serve(ctx, func(ctx context.Context) error { return h.write(ctx, data, off) }); errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

// Flush is close(2) of one of the descriptors. It comes without a caller.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if h.flush == nil {
		return 0
	}
	errno := h.serve(ctx, h.flush)
	if errno == syscall.EINTR {
		h.writer.rest(true) // the descriptor is closed all the same
	}
	return errno
}

// Release is the end of the last descriptor. It cannot be interrupted.
func (h *handle) Release(ctx context.Context) syscall.Errno {
	if h.release != nil {
		ctx = context.WithoutCancel(ctx)
		h.busy.lock(ctx)
		defer h.busy.unlock()
		h.release(ctx)
		h.fs.handles.Add(-1)
	}
	if h.giveBack != nil {
		h.giveBack()
	}
	return 0
}

// Lseek tells nobody where a file has holes (lseek(2), SEEK_HOLE). The size that a
// reader sees is that of another moment, and the end of the text, where that is
// shorter, would look like a hole: to grep a sign of a binary file.
func (*handle) Lseek(context.Context, uint64, uint32) (uint64, syscall.Errno) {
	return 0, syscall.EINVAL
}

// openSize is what an open file takes beside its content, in bytes.
const openSize = 2 << 10

// opening counts a file that open opens, until its Release.
func (n *node) opening(c caller, open func() (*handle, error)) (fh gofs.FileHandle, fuseFlags uint32, err error) {
	account := n.fs.config.Engine.Account(c.uid)
	if err := account.Take(openSize); err != nil {
		return nil, 0, errHeldUser
	}
	h, err := open()
	if err != nil {
		account.Give(openSize)
		return nil, 0, err
	}
	if h.path == "" { // it was there before
		h.path = n.path
	}
	giveBack := h.giveBack
	h.giveBack = func() {
		account.Give(openSize)
		if giveBack != nil {
			giveBack()
		}
	}
	fh, fuseFlags = h.opened()
	return fh, fuseFlags, nil
}

// openText opens a text as it is now, to be read at any place. It counts before it is
// copied, if its length is known.
func (p place) openText(ctx context.Context, c caller, f *file) (*handle, error) {
	var held int
	var err error
	if f.length != nil {
		if held, err = f.length(ctx, c); err != nil {
			return nil, err
		}
	}
	account := p.fs.config.Engine.Account(c.uid)
	if err := account.Take(held); err != nil {
		return nil, errHeldUser
	}
	data, err := f.text(ctx, c)
	if err == nil && account.Take(len(data)-held) != nil {
		err = errHeldUser
	}
	if err != nil {
		secret.Wipe(data)
		account.Give(held)
		return nil, err
	}
	h := p.newHandle(nil)
	h.giveBack = func() {
		secret.Wipe(data)
		account.Give(len(data))
	}
	h.read = func(_ context.Context, dest []byte, off int64) ([]byte, error) { return readAt(data, dest, off), nil }
	return h, nil
}

// openResult opens a file to read the result of another open of it, in the same
// session. The first read takes the result, which is read once, from its beginning to
// its end.
func (p place) openResult(c caller, path string) *handle {
	h := p.newHandle(p.fs.callers.find(c))
	s := p.sessionIfOpen(c)
	var out *output // nil before it is taken, and once all of it is read
	size := -1      // of it, once it is taken
	end := func(context.Context) {
		if out != nil {
			out.release()
			out = nil
		}
	}
	h.read = func(ctx context.Context, dest []byte, off int64) ([]byte, error) {
		if size < 0 {
			if s == nil {
				return nil, errNothing
			}
			var err error
			if out, err = s.take(path, callerOf(ctx)); err != nil {
				return nil, err
			}
			size = len(out.data)
		}
		switch {
		case off >= int64(size):
			end(ctx)
			return nil, nil
		case out == nil:
			return nil, errReadOnce
		}
		b := readAt(out.data, dest, off)
		if off+int64(len(b)) == int64(size) {
			end(ctx)
		}
		return b, nil
	}
	h.release = end
	return h
}

// endWithLogin has reads fail once the login under which the file was opened has
// ended.
func (h *handle) endWithLogin() {
	read, login := h.read, h.app.eng.LoginGeneration(h.slot)
	h.read = func(ctx context.Context, dest []byte, off int64) ([]byte, error) {
		if h.app.eng.LoginGeneration(h.slot) != login {
			return nil, errLoggedOut
		}
		return read(ctx, dest, off)
	}
}

// readAt copies what is at off to dest.
func readAt(data, dest []byte, off int64) []byte {
	if off < 0 || off >= int64(len(data)) {
		return nil
	}
	return dest[:copy(dest, data[off:])]
}

// A reply is what a read gives. It is wiped once the kernel has it: the buffer of a
// request goes back to a pool.
type reply struct {
	fuse.ReadResult
	data []byte
}

// Slices returns the data, and keeps the library from trying to splice it.
func (r reply) Slices() ([][]byte, fuse.Status) { return [][]byte{r.data}, fuse.OK }

// Done wipes the data.
func (r reply) Done() { secret.Wipe(r.data) }

// A mutex is a lock for which one can stop waiting.
type mutex chan struct{}

// lock reports whether it has the mutex: not if ctx ended before.
func (m mutex) lock(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case m <- struct{}{}:
		return true
	default: // to wait for the end of a graceContext starts something
	}
	select {
	case m <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m mutex) unlock() { <-m }
