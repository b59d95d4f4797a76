package fs

import (
	"bytes"
	"context"
	"fmt"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
)

// rootNode returns the node of the tree's root.
func (f *FS) rootNode() *node {
	p := place{fs: f}
	d := &rootDir{staticDir{place: p}}
	anyone := func(text func() string) func(bool) string {
		if text == nil {
			return nil
		}
		return func(bool) string { return text() }
	}
	for _, text := range []struct {
		name string
		text func(owner bool) string
	}{
		{"status", f.config.Status},
		{"slots", anyone(f.slotTable)},
		{"resources", anyone(f.config.Resources)},
		{"metrics", f.config.Metrics},
	} {
		d.addText(text.name, func(_ context.Context, c caller) ([]byte, error) {
			if text.text == nil {
				return nil, nil
			}
			return []byte(text.text(c.uid == 0 || c.uid == f.config.UID)), nil
		})
	}
	d.addText("who", p.whoText)
	d.addUnlisted("events", 0o440, p.eventsFile())
	d.addCommand("kick", 0o220, command{runAlone: p.kick})
	d.addText("error", p.errorText)
	if f.config.Control != nil {
		d.addCommand("ctl", 0o220, command{runAlone: p.control})
	}
	if f.config.Socket != "" {
		d.add("rpc.sock", &entry{place: p, path: "rpc.sock", perm: 0o777, link: func(context.Context, caller) (string, error) {
			return f.config.Socket, nil
		}})
	}
	f.root = &node{entry: &entry{place: p, perm: 0o750, dir: d, everyones: true}}
	return f.root
}

// slotTable is the text of the file slots: number, token, kind, description.
func (f *FS) slotTable() string {
	var b bytes.Buffer
	for _, slot := range f.config.Engine.Slots() {
		name, kind := slot.Name(), slot.Kind()
		if !slot.Present() {
			name, kind = "-", "empty"
		}
		fmt.Fprintf(&b, "%d %s %s %s\n", uint64(slot.ID()), name, kind, clean(slot.Info().Description))
	}
	return b.String()
}

// directory is that of a token, or of a session on it. Most of it they have
// alike: that of the token is that of the default session.
func (p place) directory() directory {
	d := &staticDir{place: p}
	d.views = !p.ref.isDefault()
	if p.ref.isDefault() {
		d.addText("info", p.tokenInfoText)
		d.addText("slot", p.slotInfoText)
		d.addText("mechanisms", p.mechanismsText)
		if p.slot.Carded() {
			d.addText("card", p.cardText)
		}
		d.addText("grants", p.grantsText)
		d.addUnlisted("events", 0o440, p.eventsFile())
	} else {
		d.addText("info", p.sessionInfoText)
	}
	d.addCommand("login", 0o660, command{run: p.login, text: p.loginText, limit: maxPINCommand})
	d.addCommand("logout", 0o220, command{run: p.logout, limit: maxPINCommand, empty: true})
	d.addText("error", p.errorText)
	if p.ref.isDefault() {
		d.addCommand("pin", 0o660, command{run: p.setPIN, text: p.pinText, limit: maxPINCommand})
		d.addCommand("ctl", 0o220, command{runAlone: p.ctl, limit: maxPINCommand})
	}
	d.addFile("random", 0o660, p.randomFile())
	if p.ref.isDefault() && p.slot.Counts() {
		d.addFile("counter", 0o440, p.counterFile())
	}
	d.addDir("digest", &digestDir{place: p})
	d.addCommand("find", 0o660, command{run: p.find, replies: true, empty: true})
	d.addCommand("generate", 0o660, command{run: p.generate, replies: true})
	d.addFile("import", 0o660, p.importFile("import", fileKind{}, nil))
	d.addCommand("passphrase", 0o220, command{run: p.setPassphrase, limit: maxPINCommand})
	d.addDir("data", &contentDir{objects: objects{p}, content: dataFiles()})
	d.addDir("certs", &contentDir{objects: objects{p}, content: certFiles()})
	d.addDir("by-id", &byIDDir{objects: objects{p}})
	d.addDir("by-uid", &byUIDDir{objects: objects{p}})
	d.addDir("objects", &objectsDir{objects: objects{p}})
	if p.ref.isDefault() {
		d.addDir("sessions", &sessionsDir{place: p})
	}
	d.other = p.lookupImport
	return d
}

func (d *staticDir) addCommand(name string, perm uint32, k command) {
	k.place, k.path = d.place, name
	d.addFile(name, perm, k.file())
}

// find takes a template, and returns the names of the objects that match, one a
// line, as they are in objects. An empty template matches all.
func (p place) find(ctx context.Context, s *session, line []byte) ([]byte, error) {
	template, err := p11.ParseTemplate(string(line))
	if err != nil {
		return nil, err
	}
	defer template.Wipe()
	names, err := objects{p}.all(ctx, s.app.eng, template)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, n := range names {
		b.WriteString(n.name + "\n")
	}
	return b.Bytes(), nil
}

// counterFile is the token's monotonic counter, which each open takes one value of. Who
// only looks at the file takes none.
func (p place) counterFile() *file {
	return &file{open: func(ctx context.Context, c caller, flags uint32) (*handle, error) {
		if _, write := wants(flags); write {
			return nil, errReadOnly
		}
		return p.openText(ctx, c, &file{text: func(ctx context.Context, _ caller) ([]byte, error) {
			n, err := p.slot.Count(ctx)
			return fmt.Appendln(nil, n), err
		}})
	}}
}

// maxRandom is how many bytes one open of random gives: programs that read a whole
// tree come to an end.
const maxRandom = 1 << 20

// randomFile is C_GenerateRandom and C_SeedRandom.
func (p place) randomFile() *file {
	return &file{
		open: func(ctx context.Context, c caller, _ uint32) (*handle, error) {
			s, err := p.session(ctx, c)
			if err != nil {
				return nil, err
			}
			h, left := s.newHandle(), maxRandom
			h.read = func(ctx context.Context, dest []byte, _ int64) ([]byte, error) {
				dest = dest[:0:min(len(dest), left)]
				for len(dest) < cap(dest) {
					if len(dest) > 0 {
						h.pause(ctx)
					}
					b, err := s.eng.GenerateRandom(ctx, min(cap(dest)-len(dest), engine.RandomTurn))
					if err != nil {
						return nil, err
					}
					dest = append(dest, b...)
					secret.Wipe(b)
				}
				left -= len(dest)
				return dest, nil
			}
			h.write = func(ctx context.Context, seed []byte, _ int64) error {
				err := s.eng.SeedRandom(ctx, seed)
				if err == nil {
					h.succeeded()
				}
				return err
			}
			return h, nil
		},
		truncate: func(context.Context, caller, uint64) error { return nil },
	}
}
