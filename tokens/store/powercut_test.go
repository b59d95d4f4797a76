package store

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/tokentest/cuts"
)

// A recorder is a kernel that also writes down what a disk would know.
type recorder struct {
	linux
	mu    sync.Mutex     // guards what follows
	names map[int]string // of open descriptors
	ops   []op
}

// An op is one step as the disk sees it.
type op struct {
	kind     string // write, sync, syncdir, rename, unlink
	dir      string
	name, to string
	data     []byte
	at       int  // where data goes; negative: at the end
	fresh    bool // the write begins a new file
}

// dir is the name of a directory: a number that it had may be another's later.
func (*recorder) dir(fd int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return filepath.Base(path)
}

func (d *recorder) Create(dir int, name string, mode uint32, group int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, err := d.linux.Create(dir, name, mode, group)
	if err == nil {
		d.names[fd] = d.dir(dir) + "/" + name
		d.ops = append(d.ops, op{kind: "write", name: d.names[fd], fresh: true})
	}
	return fd, err
}

func (d *recorder) Extend(dir int, name string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, err := d.linux.Extend(dir, name)
	d.names[fd] = d.dir(dir) + "/" + name
	return fd, err
}

func (d *recorder) Write(fd int, b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, op{kind: "write", name: d.names[fd], data: slices.Clone(b), at: -1})
	return d.linux.Write(fd, b)
}

func (d *recorder) Open(dir int, name string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, err := d.linux.Open(dir, name)
	d.names[fd] = d.dir(dir) + "/" + name
	return fd, err
}

func (d *recorder) WriteAt(fd int, b []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, op{kind: "write", name: d.names[fd], data: slices.Clone(b), at: int(at)})
	return d.linux.WriteAt(fd, b, at)
}

func (d *recorder) Sync(fd int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		d.ops = append(d.ops, op{kind: "syncdir", dir: filepath.Base(path)})
	} else {
		d.ops = append(d.ops, op{kind: "sync", name: d.names[fd]})
	}
	return nil
}

func (d *recorder) SyncData(fd int) error { return d.Sync(fd) }

func (d *recorder) Rename(dir int, from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, op{kind: "rename", dir: d.dir(dir), name: d.dir(dir) + "/" + from, to: d.dir(dir) + "/" + to})
	return d.linux.Rename(dir, from, to)
}

func (d *recorder) Unlink(dir int, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ops = append(d.ops, op{kind: "unlink", dir: d.dir(dir), name: d.dir(dir) + "/" + name})
	return d.linux.Unlink(dir, name)
}

// An inode is a file's contents: as written, and as the disk surely has them.
type inode struct{ now, safe []byte }

// A disk is what a power cut leaves: names and contents that were synced are
// there; with eager, names and what was written inside a file are there without
// (file systems may write them at any time), but what was added never is.
type disk struct {
	now, safe map[string]*inode
	eager     bool
}

func newDisk(t *testing.T, dir string, eager bool) *disk {
	d := &disk{now: map[string]*inode{}, eager: eager}
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			b := readFile(t, path)
			d.now[filepath.Base(filepath.Dir(path))+"/"+fi.Name()] = &inode{b, b}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	d.safe = maps.Clone(d.now)
	return d
}

func (d *disk) apply(o op) {
	switch o.kind {
	case "write":
		if o.fresh {
			d.now[o.name] = &inode{}
			break
		}
		f := d.now[o.name]
		if o.at < 0 {
			f.now = append(slices.Clone(f.now), o.data...)
			break
		}
		f.now = slices.Clone(f.now)
		copy(f.now[o.at:], o.data)
		if d.eager {
			f.safe = f.now
		}
	case "sync":
		d.now[o.name].safe = d.now[o.name].now
	case "syncdir":
		for n := range d.safe {
			if filepath.Dir(n) == o.dir && d.now[n] == nil {
				delete(d.safe, n)
			}
		}
		for n, f := range d.now {
			if filepath.Dir(n) == o.dir {
				d.safe[n] = f
			}
		}
	case "rename":
		d.now[o.to] = d.now[o.name]
		delete(d.now, o.name)
	case "unlink":
		delete(d.now, o.name)
	}
	if d.eager {
		d.safe = maps.Clone(d.now)
	}
}

// restore writes what the disk has after the power came back.
func (d *disk) restore(t *testing.T, top string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(top, objectsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for n, f := range d.safe {
		path := filepath.Join(filepath.Dir(top), n)
		if filepath.Dir(n) == objectsDir {
			path = filepath.Join(top, n)
		}
		writeFile(t, f.safe, path)
	}
}

// TestPowerCut cuts the power after every step of every change: what was not
// synced is lost.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	seed := crashToken(t, false)
	before := look(t, seed, testSO, testUser, otherPIN)
	for _, c := range crashChanges(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, copyDir(t, seed))
			rec := &recorder{names: map[int]string{}}
			cfg.kernel = rec
			s := openStore(t, cfg)
			login(t, s, p11.CKU_USER, testUser)
			rec.ops = nil
			if err := c.Do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			allowed := append([]cuts.State{before}, c.After(before)...)
			for _, eager := range []bool{false, true} {
				for cut := range len(rec.ops) + 1 {
					d := newDisk(t, seed, eager)
					for _, o := range rec.ops[:cut] {
						d.apply(o)
					}
					top := filepath.Join(t.TempDir(), filepath.Base(seed))
					d.restore(t, top)
					got := look(t, top, testSO, testUser, otherPIN)
					if !slices.ContainsFunc(allowed, func(a cuts.State) bool { return a.String() == got.String() }) {
						t.Errorf("eager=%v, cut after %d of %d: %v", eager, cut, len(rec.ops), got)
					}
					if end := allowed[len(allowed)-1]; cut == len(rec.ops) && got.String() != end.String() {
						t.Errorf("eager=%v: not durable: %v, want %v", eager, got, end)
					}
					checkGoesOn(t, top, got)
				}
			}
		})
	}
}

// TestDestroyOrder has the index let go of an object before its file goes: stock
// processes must not find a line without a file. That the file is gone the disk may hear
// later: the marked line says it.
func TestDestroyOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		shared bool
		want   []string
	}{
		"alone":  {false, []string{"write TOK_OBJ/OBJ.IDX", "sync TOK_OBJ/OBJ.IDX", "unlink TOK_OBJ/00000000"}},
		"shared": {true, []string{"write TOK_OBJ/temporary", "write TOK_OBJ/temporary", "sync TOK_OBJ/temporary", "rename TOK_OBJ/temporary TOK_OBJ/OBJ.IDX", "syncdir TOK_OBJ", "unlink TOK_OBJ/00000000"}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{names: map[int]string{}}
			cfg := freshConfig(t)
			cfg.kernel = rec
			if tt.shared {
				cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
			}
			s := openStore(t, cfg)
			o := create(t, s, dataObject("a", "", false))
			rec.ops = nil
			destroy(t, s, o)
			if d := cmp.Diff(tt.want, rec.steps()); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestNewDirectoryIsDurable makes a token below directories that are absent: each
// new one is durable in the one above it.
func TestNewDirectoryIsDurable(t *testing.T) {
	rec := &recorder{names: map[int]string{}}
	root := t.TempDir()
	cfg := config(t, filepath.Join(root, "a", "b", "swtok"))
	cfg.kernel = rec
	openStore(t, cfg)
	var got []string
	for _, step := range rec.steps() {
		if strings.HasPrefix(step, "syncdir") {
			got = append(got, strings.TrimPrefix(step, "syncdir "))
		}
	}
	want := []string{filepath.Base(root), "a", "b", "swtok"}
	if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
		t.Errorf("synced %q, want %q at first", got, want)
	}
}

// steps says what was done in words.
func (d *recorder) steps() (out []string) {
	shown := func(name string) string {
		if dir, file := filepath.Split(name); isTemp(file) {
			return dir + "temporary"
		}
		return name
	}
	for _, o := range d.ops {
		out = append(out, strings.Join(strings.Fields(fmt.Sprint(o.kind, " ", shown(o.name), " ", o.to, " ", map[bool]string{true: o.dir}[o.kind == "syncdir"])), " "))
	}
	return out
}
