package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"p11fs/engine"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/tokens"
)

// defaultToken is the token that a user gets who has none.
const defaultToken = "swtok"

// noGroup says that files belong to their maker alone.
const noGroup = -1

// A store is one slot and its token directory.
type store struct {
	slot     config.Slot
	name     string // of the token directory; empty without one
	dir      string // the token directory
	lockPath string
	confName string
	token    tokens.Token // nil: the slot is empty
	err      error        // why the token could not be opened
	why      string       // why there is no token, if that is no error
}

// label names the slot for people.
func (s *store) label() string {
	if s.name != "" {
		return s.name
	}
	return fmt.Sprintf("slot-%d", uint64(s.slot.ID))
}

// loadSlots decides which slots there are: those of the configuration, and in
// user mode without one, each token directory.
func (d *Daemon) loadSlots(context.Context) error {
	file, warnings, err := config.Load(d.conf.Paths.Config)
	for _, w := range warnings {
		d.log.Warn("configuration", "problem", w.Error())
	}
	var slots []config.Slot
	switch {
	case err == nil:
		slots = file.Slots
	case errors.Is(err, os.ErrNotExist) && d.conf.Mode == User && !d.conf.ConfigRequired:
		if slots, err = ownSlots(d.conf.Paths.Data); err != nil {
			return err
		}
	default:
		return fmt.Errorf("configuration: %w", err)
	}
	seen := map[string]p11.SlotID{}
	for _, slot := range slots {
		s := &store{slot: slot, confName: slot.ConfName}
		d.stores = append(d.stores, s)
		name := slot.Directory()
		first, twice := seen[name]
		switch {
		case slot.Kind() == "":
			s.why = fmt.Sprintf("p11fs has no tokens for the library %q", slot.Library)
		case slot.Kind() != "swtok":
			s.why = fmt.Sprintf("p11fs has no tokens of the kind %q", slot.Kind())
		case twice:
			// The stock library serves one directory through two slots; here
			// a folder of the tree can only be one of them.
			s.why = fmt.Sprintf("slot %d has the token directory %s already", uint64(first), name)
		default:
			seen[name] = slot.ID
			s.name = name
			s.dir = filepath.Join(d.conf.Paths.Data, name)
			s.lockPath = filepath.Join(d.conf.Paths.Locks, name, "LCK.."+name)
		}
		if s.why != "" {
			d.log.Info("slot without a token", "slot", uint64(slot.ID), "reason", s.why)
		}
	}
	return nil
}

// ownSlots returns a slot for each token directory below data, in the order of
// their names, or one for the default token.
func ownSlots(data string) ([]config.Slot, error) {
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if st, err := os.Lstat(filepath.Join(data, e.Name(), "NVTOK.DAT")); err == nil && st.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		names = []string{defaultToken}
	}
	slices.Sort(names)
	slots := make([]config.Slot, len(names))
	for i, name := range names {
		slots[i] = config.Slot{
			ID: p11.SlotID(i), Library: "libpkcs11_sw.so", Description: "p11fs " + name, Manufacturer: "p11fs", TokenName: name,
		}
	}
	return slots, nil
}

// group returns the group that shares the token directories, or noGroup. Only
// root can give files to it.
func (d *Daemon) group() int {
	if d.conf.Mode != System || os.Geteuid() != 0 {
		return noGroup
	}
	g, err := user.LookupGroup(Group)
	if err != nil {
		return noGroup
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return noGroup
	}
	return gid
}

// openTokens opens the token of each slot, tests it, and makes the engine.
func (d *Daemon) openTokens(ctx context.Context) error {
	provider, err := d.loadProvider()
	if err != nil {
		return err
	}
	d.provider = provider.Name() + " " + provider.Version()
	var slots []engine.SlotConfig
	for _, s := range d.stores {
		if s.dir != "" {
			if s.token, s.err = d.openToken(ctx, s, provider); s.err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.token = nil
				d.log.Error("token not usable", "token", s.name, "dir", s.dir, "err", s.err)
			}
		}
		if s.token != nil {
			begin := d.now()
			if err := selfTest(ctx, s.token); err != nil {
				return fmt.Errorf("token %s: %w", s.name, err)
			}
			d.selfTested += d.now().Sub(begin)
		}
		slots = append(slots, engine.SlotConfig{
			ID: s.slot.ID, Description: s.slot.Description, Manufacturer: s.slot.Manufacturer,
			Hardware: s.slot.Hardware, Firmware: s.slot.Firmware, Token: s.token,
		})
	}
	if d.engine, err = engine.New(engine.Config{Slots: slots, Log: d.log, Now: d.now, Table: d.sessionTable()}); err != nil {
		return err
	}
	d.later(d.engine.Close)
	return nil
}
