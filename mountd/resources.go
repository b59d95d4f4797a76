package mountd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"p11fs/shm"
	"p11fs/tokens"
)

// resource is one line of the file resources.
type resource struct {
	name  string
	count int
	size  int64 // in bytes; negative: not known, or not for everyone to know
	users int   // negative likewise
	state string
}

// unknown stands for a number that is not told.
const unknown = -1

// The states of a resource.
const (
	stateOn     = "on"
	stateOff    = "off"    // p11fs has it, and it is not in use
	stateAbsent = "absent" // a file that is not there
	stateFailed = "failed"
)

// resources is the text of the file resources: what the daemon holds of the
// system, in the order of openCryptoki's own list of its resources. How much a
// token holds in private objects is told to nobody, in numbers or in sizes.
func (d *Daemon) resources() string {
	// The sockets are the one that hands slots out to stock clients, and the one
	// for all other PKCS#11 programs.
	sockets := []resource{d.slotSocket(), d.rpcSocket()}
	all := slices.Concat(d.sharedMemory(), sockets, d.files(), d.inMemory())
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "name\tcount\tsize\tusers\tstate")
	number := func(n int64) string {
		if n < 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", r.name, r.count, number(r.size), number(int64(r.users)), r.state)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// sharedMemory is the segments shared with stock processes.
func (d *Daemon) sharedMemory() []resource {
	out := []resource{d.slotManager()}
	for _, s := range d.present() {
		r := resource{name: "shm/" + s.Place.Name, state: stateOff}
		if t, ok := s.token.(tokens.Sharer); ok {
			if n, shared := t.References(); shared {
				r.count, r.size, r.users, r.state = 1, shm.TokenSize, n, stateOn
			}
		}
		out = append(out, r)
	}
	return out
}

// files is lock, trace, configuration, token data and object files.
func (d *Daemon) files() []resource {
	out := []resource{
		d.file("lock/api", filepath.Join(d.conf.Paths.Locks, "LCK..APIlock"), 1),
		d.file("lock/daemon", d.conf.Paths.Guard, 1),
	}
	for _, s := range d.present() {
		out = append(out, d.file("lock/"+s.Place.Name, s.lockPath, 1))
	}
	out = append(out,
		d.traceFile(),
		d.file("config/"+configName, d.conf.Paths.Config, 1),
	)
	for _, s := range d.all() {
		if path := d.conf.confPath(s.Slot.Slot); path != "" {
			out = append(out, d.file("config/"+filepath.Base(path), path, 0))
		}
	}
	for _, s := range d.all() {
		if s.Kind == nil {
			continue
		}
		for _, name := range s.Kind.Files {
			r := d.file("token/"+s.Place.Name+"/"+name, filepath.Join(s.Place.Dir, name), 1)
			if s.err != nil {
				r.state, r.users = stateFailed, 0
			}
			out = append(out, r)
		}
	}
	for _, s := range d.present() {
		public, _ := s.token.Counts()
		index := d.file("objects/"+s.Place.Name+"/OBJ.IDX", filepath.Join(s.Place.Dir, "TOK_OBJ", "OBJ.IDX"), 1)
		index.size = unknown
		out = append(out, index,
			resource{name: "objects/" + s.Place.Name + "/public", count: public, size: unknown, users: 1, state: stateOn},
			resource{name: "objects/" + s.Place.Name + "/private", count: 0, size: unknown, users: 1, state: "hidden"})
	}
	return out
}

// file is the resource of one file, used by users applications if it is there.
func (d *Daemon) file(name, path string, users int) resource {
	st, err := os.Lstat(path)
	switch {
	case err == nil && st.Mode().IsRegular():
		return resource{name: name, count: 1, size: st.Size(), users: users, state: stateOn}
	case err == nil || !errors.Is(err, os.ErrNotExist):
		return resource{name: name, size: unknown, state: stateFailed}
	}
	return resource{name: name, state: stateAbsent}
}

// inMemory is what guards the trees and the tokens, which lives in the daemon's memory
// where the original has semaphores of each process, and the five trees of the engine
// and the tokens.
func (d *Daemon) inMemory() []resource {
	st := d.engine.Stats()
	sessionObjects, handles := st.Shown()
	one := func(name string, count int) resource {
		return resource{name: name, count: count, size: unknown, users: st.Applications, state: stateOn}
	}
	hidden := one("tree/private-token-objects", 0)
	hidden.state = "hidden"
	return []resource{
		one("mutex/applications", st.Applications),
		one("mutex/engine", 1),
		one("mutex/sessions", st.Sessions),
		one("mutex/tokens", len(d.present())),
		one("tree/sessions", st.Sessions),
		one("tree/session-objects", sessionObjects),
		one("tree/public-token-objects", st.PublicObjects),
		hidden,
		one("tree/object-handles", handles),
	}
}
