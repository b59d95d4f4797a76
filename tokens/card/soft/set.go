package soft

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// KeyLen is the length of a master key in bytes.
const KeyLen = 32

// maxFile is how long a file of a Set may be.
const maxFile = 64 << 10

// Generations of a master key.
const (
	Current = "current"
	Next    = "next"
	Old     = "old"
)

// committed says that the next key may become the current one.
const committed = "next.committed"

// carried says that keys were put under the next key.
const carried = "next.carried"

// A Set is the cards of one directory.
type Set struct {
	root   *os.Root
	config config
	apqns  []card.APQN
}

// config is card.json.
type config struct {
	Kind          string   `json:"kind"`
	APQNs         []string `json:"apqns"`
	Serial        string   `json:"serial"`
	ControlPoints string   `json:"controlPoints"` // in hexadecimal; point 0 is the highest bit
}

// MakeSet makes a directory of cards of a kind with these APQNs, and a master key for each of
// registers, whose names are directories.
func MakeSet(dir, kind string, apqns []card.APQN, registers []string) (err error) {
	if len(apqns) == 0 || len(apqns) > card.MaxTarget {
		return fmt.Errorf("a set of cards has 1 to %d APQNs, not %d", card.MaxTarget, len(apqns))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if _, err := root.Stat("card.json"); err == nil {
		return fmt.Errorf("%s has cards already", dir)
	}
	var serial [4]byte
	rand.Read(serial[:])
	c := config{
		Kind: kind, Serial: "P11FS" + strings.ToUpper(hex.EncodeToString(serial[:])),
		ControlPoints: hex.EncodeToString(firstPoints()),
	}
	for _, a := range apqns {
		c.APQNs = append(c.APQNs, a.String())
	}
	s := &Set{root: root, config: c}
	for _, d := range append([]string{"offline", "sessions"}, registers...) {
		if err := root.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return s.locked(func() error {
		for _, r := range registers {
			if err := s.writeKeyLocked(path.Join(r, Current)); err != nil {
				return err
			}
		}
		return s.writeConfigLocked(c)
	})
}

func (s *Set) writeConfigLocked(c config) error {
	text, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return err
	}
	return s.writeLocked("card.json", append(text, '\n'))
}

// OpenSet opens the directory of a set. It keeps a descriptor until Close.
func OpenSet(dir string) (*Set, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Set{root: root}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s/card.json: %w", dir, err), root.Close())
	}
	return s, nil
}

// OpenOwnSet is OpenSet of a directory that stands where others may put one: it is an error
// if they may have made it, since they know the master keys in it.
func OpenOwnSet(dir string) (*Set, error) {
	s, err := OpenSet(dir)
	if err != nil {
		return nil, err
	}
	st, err := s.root.Stat(".")
	if err == nil && locks.Others(st) {
		err = fmt.Errorf("others may have made %s, and know what its keys are: it is to be root's or yours, and writable by nobody else", dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.root.Close())
	}
	return s, nil
}

// readConfig reads card.json, and the control points in it.
func (s *Set) readConfig() (c config, points []byte, err error) {
	text, err := s.read("card.json")
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, nil, err
	}
	if points, err = hex.DecodeString(c.ControlPoints); err != nil || len(points) != ep11.ControlPointBytes {
		return c, nil, fmt.Errorf("controlPoints has %d digits in hexadecimal", 2*ep11.ControlPointBytes)
	}
	return c, points, nil
}

func (s *Set) open() (err error) {
	if s.config, _, err = s.readConfig(); err != nil {
		return err
	}
	for _, text := range s.config.APQNs {
		a, err := ParseAPQN(text)
		if err != nil {
			return err
		}
		s.apqns = append(s.apqns, a)
	}
	if len(s.apqns) == 0 || len(s.apqns) > card.MaxTarget {
		return fmt.Errorf("%d APQNs", len(s.apqns))
	}
	return nil
}

// ParseAPQN reads an APQN: two numbers in hexadecimal with a dot between them.
func ParseAPQN(text string) (a card.APQN, err error) {
	adapter, domain, ok := strings.Cut(text, ".")
	n, err1 := strconv.ParseUint(adapter, 16, 8)
	d, err2 := strconv.ParseUint(domain, 16, 8)
	if !ok || err1 != nil || err2 != nil {
		return a, fmt.Errorf("%q is no APQN: write an adapter and a domain in hexadecimal, such as 00.0001", text)
	}
	return card.APQN{Adapter: uint16(n), Domain: uint16(d)}, nil
}

// Close gives back the descriptor.
func (s *Set) Close() error { return s.root.Close() }

// Kind is the kind of the cards.
func (s *Set) Kind() string { return s.config.Kind }

// Serial is the serial number of the cards.
func (s *Set) Serial() string { return s.config.Serial }

// APQNs are those of the set.
func (s *Set) APQNs() []card.APQN { return slices.Clone(s.apqns) }

// read reads a short file.
func (s *Set) read(name string) ([]byte, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO is not waited for
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", name, maxFile)
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n != len(b) {
		return nil, err
	}
	return b, nil
}

// locked runs f while nobody else, in this process or another, changes a file of the set.
func (s *Set) locked(f func() error) error {
	dir, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // which gives the lock back
	for {
		if err = unix.Flock(int(dir.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return err
	}
	return f()
}

// settle has the names of a directory outlive a crash.
func (s *Set) settle(name string) error {
	dir, err := s.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// renameLocked has a file take the place of another, if there is one.
func (s *Set) renameLocked(from, to string) error {
	if err := s.root.Rename(from, to); err != nil {
		return err
	}
	return s.settle(to)
}

// writeLocked writes a file as a whole.
func (s *Set) writeLocked(name string, b []byte) (err error) {
	temp := name + ".new"
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.root.Remove(temp))
	}
	return s.renameLocked(temp, name)
}

func (s *Set) exists(name string) bool {
	_, err := s.root.Lstat(name)
	return err == nil
}

// removeLocked removes a file that may be there.
func (s *Set) removeLocked(name string) error {
	err := s.root.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return s.settle(name)
}

// Pick is the domain that answers for a target: the first that is online. ok says whether
// the target has one at all.
func (s *Set) Pick(t card.Target) (a card.APQN, online, ok bool) {
	if len(t) == 0 {
		t = s.apqns
	}
	for _, a := range t {
		if !slices.Contains(s.apqns, a) {
			continue
		}
		if ok = true; s.Online(a) {
			return a, true, true
		}
	}
	return a, false, ok
}

// Online says whether a domain answers.
func (s *Set) Online(a card.APQN) bool { return !s.exists(path.Join("offline", a.String())) }

// SetOnline has a domain answer, or not.
func (s *Set) SetOnline(a card.APQN, on bool) error {
	if !slices.Contains(s.apqns, a) {
		return fmt.Errorf("there is no domain %v", a)
	}
	name := path.Join("offline", a.String())
	return s.locked(func() error {
		if on {
			return s.removeLocked(name)
		}
		if err := s.root.MkdirAll("offline", 0o700); err != nil {
			return err
		}
		return s.writeLocked(name, nil)
	})
}

// register is the directory of a master key of a domain.
func (s *Set) register(a card.APQN, name string) string {
	if own := path.Join(a.String(), name); s.exists(own) {
		return own
	}
	return name
}

// Key returns a generation of a master key of a domain, which the caller wipes, nil for one
// that is not there.
func (s *Set) Key(a card.APQN, register, generation string) ([]byte, error) {
	name := path.Join(s.register(a, register), generation)
	b, err := s.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(b) != KeyLen:
		secret.Wipe(b)
		return nil, fmt.Errorf("%s has %d bytes, not %d", name, len(b), KeyLen)
	}
	return b, nil
}

// Committed says whether the next master key may become the current one.
func (s *Set) Committed(a card.APQN, register string) bool {
	return s.exists(path.Join(s.register(a, register), committed))
}

func (s *Set) writeKeyLocked(name string) error {
	key := make([]byte, KeyLen)
	defer secret.Wipe(key)
	rand.Read(key)
	return s.writeLocked(name, key)
}

// The changes of a master key.
const (
	ChangeNew      = "new"      // makes a next key
	ChangeCommit   = "commit"   // says that all have agreed to it
	ChangeClear    = "clear"    // removes the next key
	ChangeActivate = "activate" // makes it the current one, and that the old one
	ChangeZeroise  = "zeroise"  // removes all
	ChangeSeparate = "separate" // gives a domain keys of its own: a new current one
)

// Changes are all of them.
func Changes() []string {
	return []string{ChangeNew, ChangeCommit, ChangeClear, ChangeActivate, ChangeZeroise, ChangeSeparate}
}

// Change changes a master key: of a domain, or, where that is nil or has none of its own, of
// all that share it.
func (s *Set) Change(a *card.APQN, register, change string) error {
	return s.locked(func() error { return s.changeLocked(a, register, change) })
}

func (s *Set) changeLocked(a *card.APQN, register, change string) error {
	if a != nil && !slices.Contains(s.apqns, *a) {
		return fmt.Errorf("there is no domain %v", *a)
	}
	dir := s.dir(a, register)
	at := func(name string) string { return path.Join(dir, name) }
	switch change {
	case ChangeNew:
		if s.exists(at(Next)) {
			return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "there is a next key already: activate it first, or have clear remove it")
		}
		for _, name := range []string{committed, carried} { // of the key before, whose activation was cut off
			if err := s.removeLocked(at(name)); err != nil {
				return err
			}
		}
		return s.writeKeyLocked(at(Next))
	case ChangeCommit:
		if !s.exists(at(Next)) {
			return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "there is no next key: make one with new")
		}
		return s.writeLocked(at(committed), nil)
	case ChangeActivate:
		return s.activateLocked(at)
	case ChangeClear, ChangeZeroise:
		gone := []string{committed, carried, Next} // in this order: a key that is left is not committed
		if change == ChangeZeroise {
			gone = append(gone, Current, Old)
		}
		var errs []error
		for _, name := range gone {
			errs = append(errs, s.removeLocked(at(name)))
		}
		return errors.Join(errs...)
	case ChangeSeparate:
		if a == nil {
			return errors.New("separate is for one APQN")
		}
		own := path.Join(a.String(), register)
		if s.exists(own) {
			return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "%v has keys of its own already", *a)
		}
		if err := s.root.MkdirAll(own, 0o700); err != nil {
			return err
		}
		return s.writeKeyLocked(path.Join(own, Current))
	}
	return fmt.Errorf("%q is no change of a key", change)
}

// activateLocked never leaves the domain without a current key.
func (s *Set) activateLocked(at func(string) string) error {
	if !s.exists(at(committed)) {
		return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "there is no next key that is committed"), "p11fs card wk new makes one and commit commits it; then p11fs card reencipher for each token, and activate")
	}
	old, err := s.read(at(Current))
	if err == nil {
		err = s.writeLocked(at(Old), old)
		secret.Wipe(old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.renameLocked(at(Next), at(Current)); err != nil {
		return err
	}
	return errors.Join(s.removeLocked(at(committed)), s.removeLocked(at(carried)))
}

// dir is where a master key is: of a domain, or, where that is nil, of all that share it.
func (s *Set) dir(a *card.APQN, register string) string {
	if a == nil {
		return register
	}
	return s.register(*a, register)
}

// Carry notes that a key was put under the next master key of a domain.
func (s *Set) Carry(a card.APQN, register string) error {
	name := path.Join(s.dir(&a, register), carried)
	if s.exists(name) {
		return nil
	}
	return s.locked(func() error { return s.writeLocked(name, nil) })
}

// Carried says whether one was, since there is a next one.
func (s *Set) Carried(a *card.APQN, register string) bool {
	return s.exists(path.Join(s.dir(a, register), carried))
}

// A Master is what may be seen of a domain's master key: verification patterns, nil for
// none.
type Master struct {
	Current, Next []byte
	Committed     bool // the next one may become the current one
}

// WrappingKey tells of the wrapping key of a domain of cards in EP11 mode.
func (s *Set) WrappingKey(a card.APQN) (m Master, err error) {
	for generation, pattern := range map[string]*[]byte{Current: &m.Current, Next: &m.Next} {
		b, err := s.Key(a, WK, generation)
		if err != nil {
			return m, err
		}
		if b != nil {
			k := wrappingKey{b}
			*pattern = k.pattern()
			k.wipe()
		}
	}
	m.Committed = m.Next != nil && s.Committed(a, WK)
	return m, nil
}
