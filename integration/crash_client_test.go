package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A crashClient changes a token until the daemon dies under it, and knows
// afterwards what may be there: each object as it was before the change that
// was under way, or as after it. It runs as `p11io crash TOKEN PIN SEED`, in a
// session of its own, and takes the orders "work" and "check" on its standard
// input.
type crashClient struct {
	token string // the token's folder in the mount
	rand  *rand.Rand
	pins  []string             // the PIN is one of these; settled when there is one
	items map[string]crashItem // what is there, by identity
	doubt *crashDoubt          // the change that was under way
	uids  map[string]string    // every stable name ever seen, and whose it is
	next  int
}

// A crashItem is a data object or a key. Its identity stands at the front of
// its label and is never given out again.
type crashItem struct {
	key   bool   // a key, whose value here is its CKA_ID
	label string // as its name in the tree, without the suffix of keys
	value string
}

// A crashDoubt is a change of one item that may have happened: it is now one of
// these; nil is absence.
type crashDoubt struct {
	id  string
	may []*crashItem
}

func runCrashClient(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("usage: p11io crash TOKEN PIN SEED")
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	c := &crashClient{
		token: args[0], rand: rand.New(rand.NewPCG(seed, 0)), pins: []string{args[1]},
		items: map[string]crashItem{}, uids: map[string]string{},
	}
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		switch orders.Text() {
		case "work":
			n, err := c.work()
			fmt.Fprintf(out, "down after %d changes: %q\n", n, err.Error())
		case "check":
			if err := c.check(); err != nil {
				fmt.Fprintf(out, "wrong: %q\n", err.Error())
			} else {
				fmt.Fprintf(out, "ok %d objects, %d names\n", len(c.items), len(c.uids))
			}
		}
	}
	return orders.Err()
}

// work makes one change after the other until one fails.
func (c *crashClient) work() (changes int, err error) {
	for {
		if err := c.change(); err != nil {
			return changes, err
		}
		changes++
	}
}

func (c *crashClient) change() error {
	if c.rand.IntN(10) == 0 {
		return c.changePIN()
	}
	ids := make([]string, 0, len(c.items))
	for id := range c.items {
		ids = append(ids, id)
	}
	if len(ids) < 5 || len(ids) < 15 && c.rand.IntN(3) == 0 {
		return c.create()
	}
	id := ids[c.rand.IntN(len(ids))]
	before := c.items[id]
	after := before
	path := c.path(before)
	switch c.rand.IntN(3) {
	case 0: // destroy
		return c.do(id, &before, nil, func() error {
			if before.key {
				return syscall.Rmdir(path)
			}
			return syscall.Unlink(path)
		})
	case 1: // rename, which sets the label
		after.label = fmt.Sprintf("%s.%d", id, c.rand.IntN(1000))
		return c.do(id, &before, &after, func() error { return syscall.Rename(path, c.path(after)) })
	default: // change an attribute
		after.value = c.value(before.key)
		return c.do(id, &before, &after, func() error {
			if before.key {
				return writeOnce(filepath.Join(path, "attr", "id"), after.value+"\n", 0)
			}
			return writeOnce(path, after.value, os.O_TRUNC)
		})
	}
}

func (c *crashClient) create() error {
	c.next++
	id := fmt.Sprintf("i%d", c.next)
	item := crashItem{key: c.rand.IntN(2) == 0, label: id}
	item.value = c.value(item.key)
	if item.key {
		return c.do(id, nil, &item, func() error {
			return writeOnce(filepath.Join(c.token, "generate"), fmt.Sprintf("aes:128 label=%s id=%s\n", item.label, item.value), os.O_TRUNC)
		})
	}
	// A new file is there from its open on, empty, as on every file system.
	empty := crashItem{label: id}
	if err := c.do(id, nil, &empty, func() error { return writeOnce(c.path(item), "", os.O_CREATE|os.O_EXCL) }); err != nil {
		return err
	}
	return c.do(id, &empty, &item, func() error { return writeOnce(c.path(item), item.value, os.O_TRUNC) })
}

// value is a new CKA_ID for a key, and up to 3 KiB for a data object: never
// empty.
func (c *crashClient) value(key bool) string {
	if key {
		return fmt.Sprintf("0x%012x", c.rand.Uint64N(1<<48))
	}
	return strings.Repeat(fmt.Sprintf("%08x", c.rand.Uint32()), 1+c.rand.IntN(400))
}

func (c *crashClient) changePIN() error {
	pin := fmt.Sprintf("%08d", 20000000+c.rand.IntN(10000000))
	old := c.pins[0]
	c.pins = []string{old, pin}
	if err := writeOnce(filepath.Join(c.token, "pin"), old+" "+pin+"\n", os.O_TRUNC); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	c.pins = []string{pin}
	return nil
}

// do makes one change of one item.
func (c *crashClient) do(id string, before, after *crashItem, change func() error) error {
	c.doubt = &crashDoubt{id, []*crashItem{before, after}}
	err := change()
	for errors.Is(err, syscall.EINTR) { // which says that nothing was done
		err = change()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	c.settle(after)
	return nil
}

// settle says what became of the doubtful change.
func (c *crashClient) settle(is *crashItem) {
	if is == nil {
		delete(c.items, c.doubt.id)
	} else {
		c.items[c.doubt.id] = *is
	}
	c.doubt = nil
}

func (c *crashClient) path(i crashItem) string {
	if i.key {
		return filepath.Join(c.token, "objects", i.label+".sec")
	}
	return filepath.Join(c.token, "data", i.label)
}

// writeOnce opens a file, writes it in one call, and closes it.
func writeOnce(path, data string, flags int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// check logs in and compares everything that is there with what may be.
func (c *crashClient) check() error {
	if err := c.login(); err != nil {
		return err
	}
	found, err := c.look()
	if err != nil {
		return err
	}
	if d := c.doubt; d != nil {
		is, ok := found[d.id]
		i := slices.IndexFunc(d.may, func(may *crashItem) bool {
			return may == nil && !ok || may != nil && ok && *may == is
		})
		if i < 0 {
			return fmt.Errorf("%s is %+v (there: %v), want one of %+v or %+v", d.id, is, ok, d.may[0], d.may[1])
		}
		c.settle(d.may[i])
	}
	for id, want := range c.items {
		if is, ok := found[id]; !ok || is != want {
			return fmt.Errorf("%s is %+v (there: %v), want %+v", id, is, ok, want)
		}
	}
	for id, is := range found {
		if _, ok := c.items[id]; !ok {
			return fmt.Errorf("%s should not be there: %+v", id, is)
		}
	}
	return c.checkNames()
}

func (c *crashClient) login() error {
	var errs []error
	for _, pin := range c.pins {
		err := writeOnce(filepath.Join(c.token, "login"), pin+"\n", os.O_TRUNC)
		if err == nil {
			c.pins = []string{pin}
			return nil
		}
		errs = append(errs, err)
		// Of a change that was cut off between its two files, the new PIN is
		// the right one, and the old one meets a key that it does not open.
		if !errors.Is(err, syscall.EKEYREJECTED) && !errors.Is(err, syscall.EIO) {
			break
		}
	}
	why, _ := os.ReadFile(filepath.Join(c.token, "error"))
	return fmt.Errorf("login with %q: %w (%s)", c.pins, errors.Join(errs...), why)
}

// look reads every object of the token.
func (c *crashClient) look() (map[string]crashItem, error) {
	found := map[string]crashItem{}
	add := func(item crashItem) error {
		id, _, _ := strings.Cut(item.label, ".")
		if other, ok := found[id]; ok {
			return fmt.Errorf("%s is there twice: %+v and %+v", id, item, other)
		}
		found[id] = item
		return nil
	}
	data, err := os.ReadDir(filepath.Join(c.token, "data"))
	if err != nil {
		return nil, err
	}
	for _, e := range data {
		b, err := os.ReadFile(filepath.Join(c.token, "data", e.Name()))
		if err != nil {
			return nil, err
		}
		if err := add(crashItem{label: e.Name(), value: string(b)}); err != nil {
			return nil, err
		}
	}
	objects, err := os.ReadDir(filepath.Join(c.token, "objects"))
	if err != nil {
		return nil, err
	}
	for _, e := range objects {
		label, ok := strings.CutSuffix(e.Name(), ".sec")
		if !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Join(c.token, "objects", e.Name(), "attr", "id"))
		if err != nil {
			return nil, err
		}
		if err := add(crashItem{key: true, label: label, value: strings.TrimSpace(string(b))}); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// checkNames looks whether a stable name was given out twice.
func (c *crashClient) checkNames() error {
	dir := filepath.Join(c.token, "by-uid")
	links, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(links) != len(c.items) {
		return fmt.Errorf("%d stable names for %d objects", len(links), len(c.items))
	}
	for _, l := range links {
		if l.Type() != fs.ModeSymlink {
			return fmt.Errorf("by-uid/%s is no link", l.Name())
		}
		target, err := os.Readlink(filepath.Join(dir, l.Name()))
		if err != nil {
			return err
		}
		id, _, _ := strings.Cut(filepath.Base(target), ".")
		if other, ok := c.uids[l.Name()]; ok && other != id {
			return fmt.Errorf("the name %s was %s's and is %s's now", l.Name(), other, id)
		}
		c.uids[l.Name()] = id
	}
	return nil
}
