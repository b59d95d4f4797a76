// Package memory keeps tokens in memory, by the rules of a store on disk: for tests,
// and for kinds of token that are written in a test. What private objects hold lies
// there as it is.
package memory

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A Disk keeps tokens by name, as a disk keeps token directories: what is open under
// one name sees each other's changes.
type Disk struct {
	mu          sync.Mutex // guards directories
	directories map[string]*directory
}

// A directory is what is kept of one token.
type directory struct {
	// mu guards all below, and what each Store on the directory says that it
	// guards. The indexes, and objects, are locked under it.
	mu      sync.Mutex
	change  uint64 // grows with whatever a Store has to look at
	era     uint64 // grows with each initialisation
	label   string
	flags   p11.Flags
	pins    map[p11.UserType][]byte // hashes; none of a role without PIN
	number  uint64                  // of the last object
	objects map[string]*kept        // by stored name
}

// kept is one object.
type kept struct {
	number  uint64
	version uint64 // never 0, and in no other object of the directory
	private bool
	attrs   p11.Attributes
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{directories: make(map[string]*directory)} }

// Open opens the token of that name. One that is not there is made, and initialised
// with tokens.DefaultSOPIN.
func (d *Disk) Open(name string) *Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.directories[name]
	if dir == nil {
		pin := []byte(tokens.DefaultSOPIN)
		so, err := secret.New(pin)
		if err != nil {
			panic(fmt.Sprintf("memory: no memory: %v", err))
		}
		defer func() { _ = so.Close() }()
		dir = &directory{change: 1, flags: initialFlags, pins: map[p11.UserType][]byte{p11.CKU_SO: hash(so)}, objects: make(map[string]*kept)}
		d.directories[name] = dir
	}
	return newStore(dir)
}

// New opens a new token on a disk of its own.
func New() *Store { return NewDisk().Open("") }

// Flag sets and clears flags of the token, as another program could.
func (s *Store) Flag(set, clear p11.Flags) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	s.dir.flags = s.dir.flags&^clear | set
	s.dir.change++
}

// Put stores an object as another program could: also a private one without a login
// here. It returns the stored name.
func (s *Store) Put(attrs p11.Attributes) string { return s.PutNamed("", attrs) }

// PutNamed is Put with a stored name, which is any bytes.
func (s *Store) PutNamed(name string, attrs p11.Attributes) string {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	name, _ = s.dir.putLocked(name, attrs)
	return name
}

// putLocked keeps attrs, which become its own, as the newest version of the object
// with that name. If there is none it is a new one, and without a name it gets one.
func (d *directory) putLocked(name string, attrs p11.Attributes) (string, *kept) {
	d.change++
	k := d.objects[name]
	if k == nil {
		d.number++
		if name == "" {
			// Stored names are opaque: these have any length, and nothing that others
			// expect of one.
			name = strings.Repeat("s/", int(d.number%32)) + strconv.FormatUint(d.number, 16)
		}
		k = &kept{number: d.number, private: attrs.Bool(p11.CKA_PRIVATE)}
		d.objects[name] = k
	}
	k.attrs.Wipe()
	k.attrs, k.version = attrs, d.change
	return name, k
}
