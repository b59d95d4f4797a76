package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
)

// Bounds of the temporary files of one application: the length of each in bytes, and
// their number.
const (
	maxTemporary   = 8 << 20
	maxTemporaries = 64
)

// isTemporary reports whether a name is one that editors and copying programs give to
// what they keep beside a file: .secret.swp, .secret.Xk3f9a, secret~, #secret#.
func isTemporary(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") ||
		len(name) > 1 && strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}

// ordinary is the name of the object whose label is name, where name is a temporary
// one that no object's file has.
func ordinary(name string) string {
	if isTemporary(name) {
		return escape(name)
	}
	return name
}

// A temporary is a file in the memory of the daemon, that its application alone sees.
// It becomes an object when it is renamed to an ordinary name. It ends with the
// application, and with the login under which it was made: what an editor keeps beside
// a secret is as secret.
type temporary struct {
	place
	app     *application
	path    string // see entry
	guarded bool
	login   uint64 // the generation

	mu    sync.Mutex // guards all below
	data  []byte     // its capacity counts in the account
	at    times      // dated is zero unless it was set
	users int        // its name, and the open handles
	ended bool       // it has no name any more
}

// temporaries are those of an application, by directory and name.
type temporaries struct {
	mu     sync.Mutex // guards all below
	files  map[string]*temporary
	closed bool
}

// add gives t a name.
func (ts *temporaries) add(key string, t *temporary) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.closed || len(ts.files) >= maxTemporaries:
		return errTemporaries
	case ts.files[key] != nil:
		return errExists
	}
	if err := t.app.account.Take(openSize); err != nil {
		return errHeldUser
	}
	if ts.files == nil {
		ts.files = make(map[string]*temporary)
	}
	ts.files[key] = t
	return nil
}

// all returns the files whose keys begin with dir, by the rest of the key. Those
// whose login has ended go first.
func (ts *temporaries) all(dir string) map[string]*temporary {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	here := make(map[string]*temporary)
	for key, t := range ts.files {
		if t.outlived() {
			ts.removeLocked(key)
		} else if name, ok := strings.CutPrefix(key, dir); ok {
			here[name] = t
		}
	}
	return here
}

func (ts *temporaries) removeLocked(key string) {
	if t := ts.files[key]; t != nil {
		delete(ts.files, key)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.ended = true
		t.app.account.Give(openSize)
		t.leaveLocked()
	}
}

// remove takes t's name away. Who has it open goes on to read it.
func (ts *temporaries) remove(key string, t *temporary) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.files[key] == t {
		ts.removeLocked(key)
	}
}

// rename gives t another temporary name.
func (ts *temporaries) rename(key, newKey string, t *temporary, replace bool) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.files[key] != t:
		return errNoEntry
	case key == newKey:
		return nil
	case ts.files[newKey] != nil && !replace:
		return errExists
	}
	ts.removeLocked(newKey)
	delete(ts.files, key)
	ts.files[newKey] = t
	return nil
}

// close ends all files.
func (ts *temporaries) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for key := range ts.files {
		ts.removeLocked(key)
	}
}

// outlived reports whether the login under which t was made has ended.
func (t *temporary) outlived() bool {
	return t.guarded && t.app.eng.LoginGeneration(t.slot) != t.login
}

// leaveLocked is called once by each user. The last one wipes the content.
func (t *temporary) leaveLocked() {
	if t.users--; t.users == 0 {
		secret.Wipe(t.data)
		t.app.account.Give(cap(t.data))
		t.data = nil
	}
}

func (t *temporary) entry() *entry {
	at := func(context.Context, caller) (times, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		return times{t.at.changed, cmp.Or(t.at.dated, t.at.changed)}, nil
	}
	return &entry{place: t.place, path: t.path, perm: 0o600, own: true, times: at, date: t.date, file: &file{
		text:     func(context.Context, caller) ([]byte, error) { return t.content(), nil },
		length:   func(context.Context, caller) (int, error) { return t.length(), nil },
		open:     t.openFor,
		truncate: func(_ context.Context, _ caller, size uint64) error { return t.change(int64(size), nil, true) },
		anySize:  true,
	}}
}

// date sets the time of the content, which the object has too that it becomes.
func (t *temporary) date(_ context.Context, c caller, at time.Time) error {
	if t.fs.callers.find(c) != t.app {
		return errNoEntry
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = times{t.fs.config.Now(), at}
	return nil
}

// content is a copy of the content as it stands.
func (t *temporary) content() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.data)
}

// length is how long it is.
func (t *temporary) length() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.data)
}

// openFor is open(2).
func (t *temporary) openFor(_ context.Context, c caller, flags uint32) (*handle, error) {
	if t.fs.callers.find(c) != t.app {
		return nil, errNoEntry
	}
	if flags&syscall.O_TRUNC != 0 {
		if err := t.change(0, nil, true); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.outlived() {
		return nil, errNoEntry
	}
	return t.openLocked(flags), nil
}

func (t *temporary) openLocked(flags uint32) *handle {
	t.users++
	h := t.newHandle(t.app)
	h.read = func(_ context.Context, dest []byte, off int64) ([]byte, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.outlived() {
			return nil, errLoggedOut
		}
		return bytes.Clone(readAt(t.data, dest, off)), nil
	}
	h.write = func(_ context.Context, data []byte, off int64) error {
		if flags&syscall.O_APPEND != 0 {
			off = -1
		}
		return t.change(off, data, false)
	}
	h.truncate = func(_ context.Context, size uint64) error { return t.change(int64(size), nil, true) }
	h.release = func(context.Context) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.leaveLocked()
	}
	return h
}

// change puts data at off, or at the end for -1. If cut is set the content ends there.
func (t *temporary) change(off int64, data []byte, cut bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended || t.outlived():
		return errTemporaryEnded
	case off < 0:
		off = int64(len(t.data))
	}
	if off > int64(maxTemporary-len(data)) {
		return errTooLong
	}
	size := int(off) + len(data)
	if !cut {
		size = max(size, len(t.data))
	}
	if size > cap(t.data) {
		grown := min(max(size, 2*cap(t.data)), maxTemporary)
		if err := t.app.account.Take(grown - cap(t.data)); err != nil {
			return errHeldUser
		}
		old := t.data
		t.data = append(make([]byte, 0, grown), old...)
		secret.Wipe(old)
	}
	if size < len(t.data) {
		clear(t.data[size:])
	}
	t.data = t.data[:size]
	copy(t.data[off:], data)
	t.at = times{changed: t.fs.config.Now()}
	return nil
}

// key is that of a name in the directory, among the application's temporaries.
func (d *contentDir) key(name string) string { return d.id() + d.dir + name }

// temporaries returns the caller's files in the directory, by name.
func (d *contentDir) temporaries(c caller) map[string]*temporary {
	a := d.fs.callers.find(c)
	if a == nil {
		return nil
	}
	return a.temporaries.all(d.key(""))
}

// newTemporary makes an empty file, and opens it.
func (d *contentDir) newTemporary(c caller, name string, flags uint32) (*entry, *handle, error) {
	a, err := d.fs.callers.get(c)
	if err != nil {
		return nil, nil, err
	}
	t := &temporary{place: d.place, app: a, path: fmt.Sprintf("%s.%d", d.dir, d.fs.temporaries.Add(1)), at: times{changed: d.fs.config.Now()}, users: 1}
	t.uid, t.gid = c.uid, c.gid
	t.login = a.eng.LoginGeneration(d.slot)
	_, t.guarded = a.eng.LoggedIn(d.slot)
	if err := a.temporaries.add(d.key(name), t); err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entry(), t.openLocked(flags), nil
}

// store makes t an object of an ordinary name, or the new content of the object that
// has it. Then t is no more: who has it open still learns that a write would be lost.
func (d *contentDir) store(ctx context.Context, c caller, t *temporary, name, newName string, replace bool) error {
	data, err := t.freeze()
	if err != nil {
		return err
	}
	err = d.put(ctx, c, newName, data, replace)
	if errors.Is(err, errNameMoved) { // to a private object, made for this
		err = d.put(ctx, c, newName, data, replace)
	}
	dated := t.thaw(err != nil)
	if err == nil {
		t.app.temporaries.remove(d.key(name), t)
	}
	if err == nil && !dated.IsZero() {
		object := func(ctx context.Context, c caller) (engine.ObjectInfo, error) { return d.object(ctx, c, newName) }
		err = d.date("", object)(ctx, c, dated)
	}
	if errnoFor(err) == syscall.EINVAL { // see objectsDir.rename
		err = p11.Advise(refuse(syscall.EPERM, p11.RVOf(err), err.Error()), p11.AdviceOf(err))
	}
	return err
}

// freeze returns the content, which does not change until thaw is called.
func (t *temporary) freeze() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.outlived() {
		return nil, errNoEntry
	}
	t.ended = true
	t.users++
	return t.data, nil
}

// thaw has t go on, if it is to. It returns the time that was set, if one was.
func (t *temporary) thaw(goOn bool) (dated time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = !goOn
	t.leaveLocked()
	return t.at.dated
}

// put stores data, all at once, under an ordinary name.
func (d *contentDir) put(ctx context.Context, c caller, name string, data []byte, replace bool) error {
	var h *handle
	i, err := d.object(ctx, c, name)
	switch {
	case err != nil:
		_, h, err = d.newObject(ctx, c, name, data, syscall.O_WRONLY)
	case !replace:
		return errExists
	default:
		h, err = d.entry(refOf(i), strings.Contains(name, "~")).file.open(ctx, c, syscall.O_WRONLY)
	}
	if err != nil {
		return err
	}
	defer h.release(context.WithoutCancel(ctx))
	if err := h.truncate(ctx, 0); err != nil {
		return err
	}
	if err := h.write(ctx, data, 0); err != nil {
		return err
	}
	return h.flush(ctx)
}
