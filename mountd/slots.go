package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p11fs/engine"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens"
)

// A Slot is one slot of the configuration, and where its token is to be.
type Slot struct {
	config.Slot
	Kind  *tokens.Kind // nil: the slot has no token
	Place tokens.Place // Name, Dir, Config and Format; zero without a token
	Why   string       // why the slot has no token

	numbered bool // by the order of the names of directories
	// undeclared: the configuration has another kind, since a move has ended before its last step.
	undeclared bool
}

// Slots reads which slots there are: those of the configuration, and in user
// mode without one, a slot for each token directory. The problems are warnings.
func (c Config) Slots() ([]Slot, []*config.Problem, error) {
	file, warnings, err := config.Load(c.Paths.Config)
	var found []config.Slot
	numbered := false
	switch {
	case err == nil:
		found = file.Slots
	case errors.Is(err, os.ErrNotExist) && c.Mode == User && !c.ConfigRequired:
		numbered = true
		if found, err = c.ownSlots(); err != nil {
			return nil, nil, err
		}
	default:
		return nil, warnings, fmt.Errorf("configuration: %w", err)
	}
	var slots []Slot
	used := map[string]p11.SlotID{} // by the name of the token directory
	for _, f := range found {
		s := Slot{Slot: f, numbered: numbered}
		kind := c.kind(f.LibraryName())
		name := f.TokenName
		if name == "" && kind != nil {
			name = kind.Name
		}
		first, twice := used[name]
		bad := config.BadTokenName(name) // a directory's; the configuration's are checked
		switch {
		case kind == nil:
			s.Why = fmt.Sprintf("p11fs has no tokens for the library %q", f.Library)
		case bad != "":
			s.Why = fmt.Sprintf("the token directory %q %s: rename it", name, bad)
		case twice:
			// The stock library serves one directory through two slots; here
			// a folder of the tree can only be one of them.
			s.Why = fmt.Sprintf("slot %d has the token directory %s already", uint64(first), name)
		default:
			used[name] = f.ID
			dir := filepath.Join(c.Paths.Data, name)
			if inside := c.unmoved(f, kind, dir); inside != nil {
				kind, s.undeclared = inside, true
				f.Format, f.HasFormat = newest(), true
				s.Slot = f
			}
			s.Kind = kind
			s.Place = tokens.Place{Name: name, Dir: dir, Config: c.confPath(f), Format: f.Format, Slot: uint64(f.ID)}
			if c.Mode == User && !f.HasFormat && kind.OwnFormat != nil {
				s.Place.Format, s.Place.AnyFormat = kind.OwnFormat(s.Place.Dir), true
			}
			if c.Mode == System && kind.Vacant != nil {
				if s.Why = kind.Vacant(s.Place); s.Why != "" {
					s.Kind, s.Place = nil, tokens.Place{}
				}
			}
		}
		slots = append(slots, s)
	}
	return slots, warnings, nil
}

// newest is the format of all tokens that move.
func newest() p11.Version { return p11.Version{Major: 3, Minor: 12} }

// unmoved is the kind of the token in a directory of which the configuration says, between two
// steps of a move, that it is of a kind that keeps a mark there, or nil. Else nobody would serve
// it, until the move is made again.
func (c Config) unmoved(f config.Slot, kind *tokens.Kind, dir string) *tokens.Kind {
	if !kind.Portable || !toldByDirectory(*kind) || f.ConfName != "" || kind.Made(dir) {
		return nil
	}
	i := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool {
		return k.Portable && !toldByDirectory(k) && k.Made != nil && k.OwnFormat != nil && k.Made(dir) && k.OwnFormat(dir) == newest()
	})
	if i < 0 {
		return nil
	}
	return &c.Kinds[i]
}

// unshared reports whether programs with openCryptoki's library get neither the slot nor
// its shared memory: those whose directory has a later format than their library's, or one
// of ours. They would take it for one of their own, and ruin it at the first login.
func (s Slot) unshared() bool {
	return tokens.NewFormat(s.Format) || s.Kind != nil && s.Kind.Unshared != nil && s.Kind.Unshared(s.Place)
}

// owner is the kind's Owner.
func (s Slot) owner() string {
	if s.Kind == nil || s.Kind.Owner == nil {
		return ""
	}
	return s.Kind.Owner(s.Place)
}

// SegmentName is the name of the shared memory through which stock programs share the
// token: that of its directory as they see it, below --root.
func (s Slot) SegmentName() (string, error) {
	return shm.TokenName(filepath.Join(SystemPaths("").Data, s.Place.Name, s.owner()))
}

// weak is the kind's Weak.
func (s Slot) weak() (why, mend string) {
	if s.Kind == nil || s.Kind.Weak == nil {
		return "", ""
	}
	return s.Kind.Weak(s.Place)
}

// kind is the kind of token that a library makes, or nil.
func (c Config) kind(library string) *tokens.Kind {
	i := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool { return k.Library == library })
	if i < 0 {
		return nil
	}
	return &c.Kinds[i]
}

// confPath is the path of the configuration file that a slot names, or empty.
func (c Config) confPath(s config.Slot) string {
	if s.ConfName == "" || filepath.IsAbs(s.ConfName) {
		return s.ConfName
	}
	return filepath.Join(filepath.Dir(c.Paths.Config), s.ConfName)
}

// ownKind is the kind of a user's own token, which is in dir if it is there: the first,
// but for one that is called as another and was not made as one of the first.
func (c Config) ownKind(token, dir string) *tokens.Kind {
	if k := c.madeAs(dir); k != nil {
		return k
	}
	first := &c.Kinds[0]
	i := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool { return k.Name == token })
	if i < 0 || first.Made != nil && first.Made(dir) {
		return first
	}
	return &c.Kinds[i]
}

// madeAs is the kind of a token that was made in dir and keeps no NVTOK.DAT there, or nil.
func (c Config) madeAs(dir string) *tokens.Kind {
	i := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool { return toldByDirectory(k) && k.Made(dir) })
	if i < 0 {
		return nil
	}
	return &c.Kinds[i]
}

// toldByDirectory reports whether what is in its directory says that a token is of a kind,
// whatever it is called.
func toldByDirectory(k tokens.Kind) bool {
	return k.Made != nil && !slices.Contains(k.Files, "NVTOK.DAT")
}

// ownSlots returns a slot for each token directory and for each
// empty one, where a token is to be made, in the order of their names; or one for a
// token that is to be made.
func (c Config) ownSlots() ([]config.Slot, error) {
	entries, err := os.ReadDir(c.Paths.Data)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	dirs := map[string]string{} // by the name
	for _, e := range entries {
		name := e.Name()
		if moved := tokens.MovedAway(name); moved != "" {
			name = moved
		}
		if !e.IsDir() || strings.HasPrefix(name, ".") || slices.Contains(names, name) {
			continue
		}
		dir := filepath.Join(c.Paths.Data, e.Name())
		st, err := os.Lstat(filepath.Join(dir, "NVTOK.DAT"))
		if inside, readErr := os.ReadDir(dir); readErr == nil && len(inside) == 0 || err == nil && st.Mode().IsRegular() || c.madeAs(dir) != nil {
			names = append(names, name)
			dirs[name] = dir
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		names = []string{c.Kinds[0].Name}
	}
	slots := make([]config.Slot, len(names))
	for i, name := range names {
		slots[i] = config.Slot{
			ID: p11.SlotID(i), Library: c.ownKind(name, dirs[name]).Library + ".so", Description: "p11fs " + name, Manufacturer: "p11fs", TokenName: name,
		}
	}
	return slots, nil
}

// A slot is a Slot of a running daemon.
type slot struct {
	Slot
	lockPath string
	token    tokens.Token // nil: the slot is empty
	err      error        // why the token is not served
	close    func() error // of what openToken opened
}

// config is the slot as the engine has it.
func (s *slot) config() engine.SlotConfig {
	return engine.SlotConfig{
		ID: s.ID, Description: s.Description, Manufacturer: s.Manufacturer,
		Hardware: s.Hardware, Firmware: s.Firmware, Token: s.token,
	}
}

// label names the slot for people.
func (s Slot) label() string {
	if s.Kind != nil {
		return s.Place.Name
	}
	return fmt.Sprintf("slot-%d", uint64(s.ID))
}

// offline returns nil, or why the token's keys cannot be used now.
func (s *slot) offline() error {
	if t, ok := s.token.(tokens.Offliner); ok {
		return t.Offline()
	}
	return nil
}

// away returns "", or why the token is offline, and since when.
func (s *slot) away() string {
	since, err := tokens.Away(s.token)
	switch {
	case err == nil:
		return ""
	case since.IsZero():
		return oneLine(err.Error())
	}
	return "since " + since.UTC().Format(time.RFC3339) + ": " + oneLine(err.Error())
}

// loadSlots decides which slots there are.
func (d *Daemon) loadSlots(context.Context) error {
	found, warnings, err := d.conf.Slots()
	for _, w := range warnings {
		d.log.Warn("configuration", "problem", w.Error())
	}
	if err != nil {
		return err
	}
	slots := make([]*slot, 0, len(found))
	for _, f := range found {
		s := &slot{Slot: f}
		if f.Kind != nil {
			s.lockPath = d.conf.lockPath(f)
		} else {
			d.log.Info("slot without a token", "slot", uint64(f.ID), "reason", f.Why)
		}
		slots = append(slots, s)
	}
	d.slots.Store(&slots)
	return nil
}

// present returns the slots that have a token.
func (d *Daemon) present() []*slot {
	var out []*slot
	for _, s := range d.all() {
		if s.token != nil {
			out = append(out, s)
		}
	}
	return out
}
