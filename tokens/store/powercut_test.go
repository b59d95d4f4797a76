package store

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
)

// A diary is a kernel that also writes down what a disk would know.
type diary struct {
	linux
	names map[int]string // of open descriptors
	dirs  map[int]string // of directories, by descriptor
	ops   []op
}

// An op is one step as the disk sees it.
type op struct {
	kind     string // write, sync, syncdir, rename, unlink
	dir      string
	name, to string
	data     []byte
	fresh    bool // the write begins a new file
}

func (d *diary) dir(fd int) string {
	if _, ok := d.dirs[fd]; !ok {
		path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		d.dirs[fd] = filepath.Base(path)
	}
	return d.dirs[fd]
}

func (d *diary) Create(dir int, name string, mode uint32, group int) (int, error) {
	fd, err := d.linux.Create(dir, name, mode, group)
	if err == nil {
		d.names[fd] = d.dir(dir) + "/" + name
		d.ops = append(d.ops, op{kind: "write", name: d.names[fd], fresh: true})
	}
	return fd, err
}

func (d *diary) Extend(dir int, name string) (int, error) {
	fd, err := d.linux.Extend(dir, name)
	d.names[fd] = d.dir(dir) + "/" + name
	return fd, err
}

func (d *diary) Write(fd int, b []byte) (int, error) {
	d.ops = append(d.ops, op{kind: "write", name: d.names[fd], data: slices.Clone(b)})
	return d.linux.Write(fd, b)
}

func (d *diary) Sync(fd int) error {
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

func (d *diary) Rename(dir int, from, to string) error {
	d.ops = append(d.ops, op{kind: "rename", dir: d.dir(dir), name: d.dir(dir) + "/" + from, to: d.dir(dir) + "/" + to})
	return d.linux.Rename(dir, from, to)
}

func (d *diary) Unlink(dir int, name string) error {
	d.ops = append(d.ops, op{kind: "unlink", dir: d.dir(dir), name: d.dir(dir) + "/" + name})
	return d.linux.Unlink(dir, name)
}

// An inode is a file's contents: as written, and as the disk surely has them.
type inode struct{ now, safe []byte }

// A disk is what a power cut leaves: names and contents that were synced are
// there; with eager, names are there without (file systems may write them at any
// time), but contents never are.
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
		f.now = append(slices.Clone(f.now), o.data...)
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
	seed := crashToken(t, false)
	before := look(t, seed, testSO, testUser, otherPIN)
	for _, c := range crashChanges() {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t, copyDir(t, seed))
			book := &diary{names: map[int]string{}, dirs: map[int]string{}}
			cfg.kernel = book
			s := openStore(t, cfg)
			login(t, s, p11.CKU_USER, testUser)
			book.ops = nil
			if err := c.do(t, s); err != nil {
				t.Fatal(err)
			}
			allowed := append([]state{before}, c.after(before)...)
			for _, eager := range []bool{false, true} {
				for cut := range len(book.ops) + 1 {
					d := newDisk(t, seed, eager)
					for _, o := range book.ops[:cut] {
						d.apply(o)
					}
					top := filepath.Join(t.TempDir(), filepath.Base(seed))
					d.restore(t, top)
					got := look(t, top, testSO, testUser, otherPIN)
					if !slices.ContainsFunc(allowed, func(a state) bool { return a.String() == got.String() }) {
						t.Errorf("eager=%v, cut after %d of %d: %v", eager, cut, len(book.ops), got)
					}
					if end := allowed[len(allowed)-1]; cut == len(book.ops) && got.String() != end.String() {
						t.Errorf("eager=%v: not durable: %v, want %v", eager, got, end)
					}
					checkGoesOn(t, top, got)
				}
			}
		})
	}
}

// TestDestroyOrder has the index let go of an object before its file goes: stock
// processes must not find a line without a file.
func TestDestroyOrder(t *testing.T) {
	book := &diary{names: map[int]string{}, dirs: map[int]string{}}
	cfg := freshConfig(t)
	cfg.kernel = book
	s := openStore(t, cfg)
	o := create(t, s, dataObject("a", "", false))
	book.ops = nil
	destroy(t, s, o)
	var got []string
	for _, o := range book.ops {
		if o.kind == "rename" || o.kind == "unlink" || o.kind == "syncdir" {
			got = append(got, strings.TrimSpace(o.kind+" "+o.name+" "+o.to+o.dir))
		}
	}
	want := []string{"rename TOK_OBJ/.p11fs.OBJ.IDX TOK_OBJ/OBJ.IDXTOK_OBJ", "syncdir  TOK_OBJ", "unlink TOK_OBJ/00000000 TOK_OBJ"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}
