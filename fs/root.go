package fs

import (
	"context"
	"fmt"
	"strings"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"p11fs/engine"
	"p11fs/p11/pkix"
)

// rootNode returns the node of the tree's root.
func (f *FS) rootNode() gofs.InodeEmbedder {
	return &dirNode{node: node{fs: f, entry: *f.root()}}
}

func (f *FS) root() *entry {
	d := newStaticDir()
	text := func(name string, text func() string) {
		d.add(name, &entry{id: "/" + name, perm: 0o440, moody: true, file: textFile{func(context.Context, caller) ([]byte, error) {
			if text == nil {
				return nil, nil
			}
			return []byte(text()), nil
		}}})
	}
	text("status", f.config.Status)
	text("slots", f.slotTable)
	text("resources", f.config.Resources)
	text("metrics", f.config.Metrics)
	for _, slot := range f.engine.Slots() {
		if slot.Present() {
			p := place{slot: slot}
			d.add(slot.Name(), &entry{id: p.id(), dir: f.tokenDir(p), place: p, perm: 0o770})
		}
	}
	return &entry{id: "/", dir: d, perm: 0o750, fixed: true}
}

// slotTable is the text of the file slots: number, token, kind, description.
func (f *FS) slotTable() string {
	var b strings.Builder
	for _, slot := range f.engine.Slots() {
		name, kind := slot.Name(), slot.Kind()
		if !slot.Present() {
			name, kind = "-", "empty"
		}
		fmt.Fprintf(&b, "%d %s %s %s\n", uint64(slot.ID()), name, kind, clean(slot.Info().Description))
	}
	return b.String()
}

// tokenDir is the directory of a token.
func (f *FS) tokenDir(p place) directory {
	d := newStaticDir()
	text := func(name string, moody bool, text func(ctx context.Context, slot *engine.Slot) ([]byte, error)) {
		d.add(name, &entry{id: p.id() + name, place: p, perm: 0o440, moody: moody, file: textFile{func(ctx context.Context, _ caller) ([]byte, error) {
			return text(ctx, p.slot)
		}}})
	}
	text("info", true, tokenInfoText)
	text("slot", true, slotInfoText)
	text("mechanisms", false, mechanismsText)
	f.addCommands(d, p)
	d.add("pin", &entry{id: p.id() + "pin", place: p, perm: 0o660, moody: true, file: f.pinFile(p)})
	d.add("ctl", &entry{id: p.id() + "ctl", place: p, perm: 0o220, file: f.ctlFile(p)})
	f.addWork(d, p)
	d.add("sessions", &entry{id: p.id() + "sessions", place: p, perm: 0o770, dir: &sessionsDir{fs: f, p: p}})
	d.other = func(ctx context.Context, c caller, name string) (*entry, error) {
		return f.importEntry(ctx, c, p, name)
	}
	return d
}

// sessionDir is the directory of a session.
func (f *FS) sessionDir(p place) directory {
	d := newStaticDir()
	d.views = true
	d.add("info", &entry{id: p.id() + "info", place: p, perm: 0o440, moody: true, file: textFile{func(_ context.Context, c caller) ([]byte, error) {
		return f.sessionInfoText(c, p)
	}}})
	f.addCommands(d, p)
	f.addWork(d, p)
	d.other = func(ctx context.Context, c caller, name string) (*entry, error) {
		return f.importEntry(ctx, c, p, name)
	}
	return d
}

// addCommands adds the files of login and of what went wrong.
func (f *FS) addCommands(d *staticDir, p place) {
	d.add("login", &entry{id: p.id() + "login", place: p, perm: 0o660, moody: true, file: f.loginFile(p)})
	d.add("logout", &entry{id: p.id() + "logout", place: p, perm: 0o220, file: f.logoutFile(p)})
	d.add("error", &entry{id: p.id() + "error", place: p, perm: 0o440, moody: true, file: textFile{func(_ context.Context, c caller) ([]byte, error) {
		return f.errorText(c, p)
	}}})
}

// addWork adds the files and directories that work with objects and data, which
// a token and a session have alike.
func (f *FS) addWork(d *staticDir, p place) {
	add := func(name string, perm uint32, e *entry) {
		e.id, e.place, e.perm = p.id()+name, p, perm
		d.add(name, e)
	}
	add("random", 0o660, &entry{file: randomFile{f, p}})
	add("digest", 0o770, &entry{dir: &digestDir{fs: f, p: p}})
	add("find", 0o660, &entry{file: f.findFile(p)})
	add("generate", 0o660, &entry{file: f.generateFile(p)})
	add("import", 0o660, &entry{file: f.importFile(p, p.id()+"import", pkix.Auto, nil)})
	add("passphrase", 0o220, &entry{file: f.passphraseFile(p)})
	add("data", 0o770, &entry{dir: &dataDir{fs: f, p: p}})
	add("certs", 0o770, &entry{dir: &certsDir{fs: f, p: p}})
	add("by-id", 0o770, &entry{dir: &byIDDir{fs: f, p: p}})
	add("by-uid", 0o770, &entry{dir: &byUIDDir{fs: f, p: p}})
	add("objects", 0o770, &entry{dir: f.objects(p)})
}

// unlink of a view does nothing; rm -r comes over it.
func (d *staticDir) unlink(_ context.Context, _ caller, name string) error {
	if e := d.entries[name]; d.views && e != nil && e.dir == nil {
		return nil
	}
	return errFixed
}

// rmdir likewise.
func (d *staticDir) rmdir(_ context.Context, _ caller, name string) error {
	if e := d.entries[name]; d.views && e != nil && e.dir != nil {
		return nil
	}
	return errFixed
}
