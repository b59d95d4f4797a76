package fs

import "context"

// staticDir is a directory whose names are always the same.
type staticDir struct {
	names   []string // in the order of the listing
	entries map[string]*entry
	// other, if set, finds names that are not listed.
	other func(ctx context.Context, c caller, name string) (*entry, error)
	// views says that rm -r may go over the names: they are views of what is
	// above, and removing them does nothing.
	views bool
}

func newStaticDir() *staticDir { return &staticDir{entries: make(map[string]*entry)} }

// add adds a name. Its node is found by every caller, always.
func (d *staticDir) add(name string, e *entry) {
	e.fixed = true
	d.names = append(d.names, name)
	d.entries[name] = e
}

func (d *staticDir) list(context.Context, caller) ([]listed, error) {
	list := make([]listed, 0, len(d.names))
	for _, name := range d.names {
		e := d.entries[name]
		list = append(list, listed{name: name, id: e.id, kind: e.kind()})
	}
	return list, nil
}

func (d *staticDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	if e := d.entries[name]; e != nil {
		return e, nil
	}
	if d.other != nil {
		return d.other(ctx, c, name)
	}
	return nil, errNoEntry
}
