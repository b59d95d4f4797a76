package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// A migrating is a migration under way. The new directory is made beside the token's, most
// of it without the token's lock; under the lock comes what has changed since, and the
// exchange of the two.
type migrating struct {
	tokens.Migration
	s    *Store // the token
	site site
	top  *folder // the new directory
	objs *folder
	f    format.Format // its format
	kept map[p11.UserType]format.Kept
	from format.Objects
	into format.Objects

	done    map[format.Name]stamp // of the old files whose objects are in new ones
	damaged map[format.Name]error
}

// Migrate is tokens.Upkeep. Each object is read back from its new file and is what it was,
// before the directories are exchanged. Objects that cannot be read stop it, for they would
// be lost.
func (u *Upkeep) Migrate(ctx context.Context, how tokens.Migration) (_ tokens.Migrated, err error) {
	var none tokens.Migrated
	place, err := u.site()
	if err != nil {
		return none, err
	}
	defer place.close()
	var now, other found
	err = u.locked(ctx, func(s site) (err error) {
		if now, err = u.look(s, s.name); err == nil {
			other, _ = u.look(s, s.beside(migrationDir)) // what cannot be read is none
		}
		return err
	})
	switch {
	case err != nil:
		return none, err
	case !now.present:
		return none, p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token in %s", u.cfg.Dir)
	case now.newer:
		return none, tokens.ErrMigrated
	case other.present && !other.newer:
		return none, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "beside %s is the backup of an earlier migration", u.cfg.Dir), "p11fs migrate --forget-backup removes it")
	}
	cfg := u.cfg
	if cfg.Format = u.before; now.format.Foreign() {
		cfg.Shared = nil // no program on this machine shares it
	}
	s, err := Open(ctx, cfg)
	if err != nil {
		return none, err
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	m := &migrating{
		Migration: how, s: s, site: place, f: u.after, kept: make(map[p11.UserType]format.Kept),
		done: make(map[format.Name]stamp), damaged: make(map[format.Name]error),
	}
	defer m.close()
	old, master, err := m.tryPINs(ctx)
	if err != nil {
		return none, err
	}
	defer master.Close()
	if m.from, err = now.format.Objects(master); err != nil {
		return none, err
	}
	if err := m.prepare(ctx); err != nil {
		return none, err
	}
	// The first rounds run beside whoever uses the token.
	x, _, err := m.index()
	if err == nil {
		err = m.round(ctx, x.Names)
	}
	if err == nil {
		err = m.top.syncAll()
	}
	if err == nil {
		err = m.exchange(ctx, old)
	}
	return tokens.Migrated{Objects: len(m.done), Damaged: m.damages()}, err
}

func (m *migrating) close() {
	for _, d := range []*folder{m.objs, m.top} {
		if d != nil {
			d.close()
		}
	}
}

// A pinOf is a role's PIN; nil of a user who has none.
type pinOf struct {
	user p11.UserType
	pin  *secret.Bytes
}

// roles are the roles with their PINs.
func (m *migrating) roles() []pinOf {
	return []pinOf{{p11.CKU_SO, m.SO}, {p11.CKU_USER, m.User}}
}

// tryPINs tries the PINs on the token, and returns what they were tried on and the master
// key, which the caller closes: that of MK_SO, as stock programs may leave zeros in MK_USER.
func (m *migrating) tryPINs(ctx context.Context) (old map[tokens.Role]format.Kept, master *secret.Bytes, err error) {
	defer func() {
		if err != nil {
			_ = master.Close()
			master = nil
		}
	}()
	f, d := m.s.snapshot()
	if f.UserPINSet(d) != (m.User != nil) || m.SO == nil {
		return nil, nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the migration needs the PINs of the SO and of the user, if there is one")
	}
	old = make(map[tokens.Role]format.Kept)
	for _, p := range m.roles() {
		if p.pin == nil {
			continue
		}
		r, err := tokens.RoleOf(p.user)
		if err != nil {
			return nil, master, err
		}
		t, err := m.s.tryPIN(ctx, r, p.pin)
		if err != nil {
			return nil, master, fmt.Errorf("the %s PIN: %w", r.Title, err)
		}
		t.end()
		if old[r] = t.kept; p.user != p11.CKU_SO {
			_ = t.key.Close()
		} else if master, err = m.s.masterKey(t); err != nil {
			return nil, nil, err
		}
	}
	return old, master, nil
}

// prepare makes the new directory with its master key, or takes up one that was begun with
// the same PINs.
func (m *migrating) prepare(ctx context.Context) (err error) {
	if err := m.openNew(); err != nil {
		return err
	}
	key, err := m.begun(ctx)
	if err == nil && key == nil {
		// Emptied rather than removed: it stays ours alone.
		if err = m.top.empty(dataFile, soKeyFile, userKeyFile); err == nil {
			m.objs.close()
			m.objs = nil
			err = m.openNew()
		}
		if err == nil {
			key, err = m.begin(ctx)
		}
	}
	if err != nil {
		return err
	}
	defer key.Close()
	m.into, err = m.f.Objects(key)
	return err
}

// openNew opens the new directory, making what is absent.
func (m *migrating) openNew() (err error) {
	if m.top == nil {
		if m.top, err = m.site.work(migrationDir); err != nil {
			return err
		}
	}
	if err := m.top.makeFolder(objectsDir); err != nil {
		return err
	}
	m.objs, err = openFolder(m.top.fd, objectsDir, m.top.k, m.top.group)
	return err
}

// begin makes a master key, and puts it under the PINs.
func (m *migrating) begin(ctx context.Context) (_ *secret.Bytes, err error) {
	key, err := m.f.NewMasterKey()
	if err != nil {
		return nil, err
	}
	d, err := m.data(func(role p11.UserType, pin *secret.Bytes) (format.Kept, error) {
		return m.f.Make(ctx, role, pin, key, format.Kept{})
	})
	for _, role := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		if k := m.kept[role]; k.File != nil && err == nil {
			err = m.top.putAside(keyFileFor(role), k.File)
		}
	}
	if err == nil {
		err = m.top.putAside(dataFile, m.f.PrintFile(d))
	}
	var again *secret.Bytes
	if err == nil {
		again, err = m.begun(ctx)
	}
	if err == nil && !again.Equal(key) {
		err = p11.Errorf(p11.CKR_FUNCTION_FAILED, "the new master key does not open again")
	}
	_ = again.Close()
	if err != nil {
		_ = key.Close()
		return nil, err
	}
	return key, nil
}

// data is the token's data in the new format, with the PINs that there are; those that are
// not known yet are made. A user without one has a record that opens nothing.
func (m *migrating) data(make func(role p11.UserType, pin *secret.Bytes) (format.Kept, error)) (d format.TokenData, err error) {
	_, old := m.s.snapshot()
	d = format.To312(old)
	for _, r := range m.roles() {
		pin := r.pin
		if pin == nil {
			if pin, err = secret.New([]byte(tokens.DefaultUserPIN)); err != nil {
				return d, err
			}
			defer pin.Close()
		}
		k, known := m.kept[r.user]
		if !known {
			if k, err = make(r.user, pin); err != nil {
				return d, err
			}
			if r.pin == nil {
				k.File = nil
			}
			m.kept[r.user] = k
		}
		d = m.f.WithPIN(d, r.user, k.Record)
	}
	return d, nil
}

// begun returns the master key of a migration that was begun, if the PINs open it; else
// nil.
func (m *migrating) begun(ctx context.Context) (master *secret.Bytes, err error) {
	raw, _, err := m.top.read(dataFile, maxDataFile)
	if err != nil {
		return nil, ignore(err)
	}
	d, err := m.f.ParseFile(raw)
	if err != nil {
		return nil, nil // cut off
	}
	kept := make(map[p11.UserType]format.Kept)
	for _, r := range m.roles() {
		k := format.Kept{Record: m.f.PIN(d, r.user)}
		if kept[r.user] = k; r.pin == nil {
			continue
		}
		if k.File, _, err = m.top.read(keyFileFor(r.user), maxKeyFile); err != nil {
			return nil, errors.Join(ignore(err), master.Close())
		}
		o, err := m.f.Open(ctx, r.user, r.pin, k)
		if err != nil || !o.Right || o.Key == nil || o.Mended != nil || master != nil && !o.Key.Equal(master) {
			return nil, errors.Join(err, o.Key.Close(), master.Close())
		}
		_ = master.Close()
		master, kept[r.user] = o.Key, k
	}
	m.kept = kept
	return master, nil
}

// ignore is nil for the error of a file that is absent, or cannot be what it should be.
func ignore(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnfit) {
		return nil
	}
	return err
}

// index reads the token's list of objects.
func (m *migrating) index() (x format.Index, raw []byte, err error) {
	raw, _, err = m.s.objs.read(indexFile, maxIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return format.ParseIndex(raw), raw, err
}

// round has the new directory hold the objects as their files are now.
func (m *migrating) round(ctx context.Context, names []format.Name) error {
	for i, n := range names {
		if err := ctx.Err(); err != nil {
			return ioError("migrate", m.s.cfg.Dir, err)
		}
		if err := m.object(n); err != nil {
			return err
		}
		if m.Progress != nil {
			m.Progress(i+1, len(names))
		}
	}
	return nil
}

// object has the new directory hold one object.
func (m *migrating) object(n format.Name) error {
	st, err := m.s.objs.stamp(n.String())
	if err == nil && st != (stamp{}) && st == m.done[n] {
		return nil
	}
	delete(m.done, n)
	delete(m.damaged, n)
	raw, st, err := m.s.objs.read(n.String(), format.MaxObjectFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a line without a file is no object
	}
	if err != nil && !errors.Is(err, errUnfit) {
		return err
	}
	var private bool
	var attrs p11.Attributes
	if err == nil {
		private, attrs, err = m.from.Open(n, raw)
		secret.Wipe(raw)
	}
	if err != nil {
		m.damaged[n] = err
		return nil
	}
	defer attrs.Wipe()
	if !m.holds(n, private, attrs) {
		b, err := m.into.Seal(n, attrs, nil)
		if err != nil {
			return err
		}
		err = m.objs.putAside(n.String(), b)
		secret.Wipe(b)
		if err != nil {
			return err
		}
		if !m.holds(n, private, attrs) {
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "object %s does not come back from its new file", n)
		}
	}
	if _, err := m.objs.date(n.String(), time.Unix(0, st.mtime)); err != nil {
		return err
	}
	m.done[n] = st
	return nil
}

// holds reports whether the new file of an object has it as it is.
func (m *migrating) holds(n format.Name, private bool, attrs p11.Attributes) bool {
	raw, _, err := m.objs.read(n.String(), format.MaxObjectFile)
	if err != nil {
		return false
	}
	defer secret.Wipe(raw)
	there, got, err := m.into.Open(n, raw)
	if err != nil {
		return false
	}
	defer got.Wipe()
	return there == private && slices.EqualFunc(attrs, got, func(a, b p11.Attribute) bool {
		return a.Type == b.Type && bytes.Equal(a.Value, b.Value)
	})
}

// damages are the objects that cannot be read.
func (m *migrating) damages() (list []string) {
	for n, err := range m.damaged {
		list = append(list, fmt.Sprintf("%s: %v", n, err))
	}
	slices.Sort(list)
	return list
}

// exchange ends the migration under the token's lock, if the PINs are still those that
// were tried.
func (m *migrating) exchange(ctx context.Context, old map[tokens.Role]format.Kept) error {
	end, err := m.s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if f, d := m.s.snapshot(); f.UserPINSet(d) != (m.User != nil) {
		return errPINChanged()
	}
	for r, was := range old {
		now, err := m.s.kept(r)
		if err != nil {
			return err
		}
		if now.Record != was.Record || !bytes.Equal(now.File, was.File) {
			return errPINChanged()
		}
	}
	x, err := m.s.readIndex()
	if err != nil {
		return err
	}
	if err := m.round(ctx, x.Names); err != nil {
		return err
	}
	if list := m.damages(); len(list) > 0 && !m.SkipDamaged {
		return &tokens.DamagedError{Objects: list}
	}
	if err := m.complete(x); err != nil {
		return err
	}
	undo := func() error { return nil }
	if m.Declare != nil {
		if undo, err = m.Declare(); err != nil {
			return err
		}
	}
	if err := m.site.swap(migrationDir); err != nil {
		return errors.Join(err, undo())
	}
	return nil
}

func errPINChanged() error {
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "a PIN was set meanwhile"), "start again, with the new one")
}

// complete writes what the new directory lacks beside objects, removes what it has too
// much, and makes all of it durable.
func (m *migrating) complete(x format.Index) error {
	left := len(m.done)
	err := m.objs.each(func(file string) error {
		if n, ok := format.ParseName(file); ok && m.done[n] != (stamp{}) {
			left--
			return nil
		}
		return m.objs.remove(file)
	})
	if err != nil {
		return err
	}
	if left != 0 {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "%d objects are not in the new directory", left)
	}
	names := slices.DeleteFunc(slices.Clone(x.Names), func(n format.Name) bool { return m.done[n] == (stamp{}) })
	if err := m.objs.putAside(indexFile, format.EditIndex(nil, nil, names...)); err != nil {
		return err
	}
	for file, limit := range map[string]int64{nameKeyFile: nameKeySize, countFile: maxCountFile} {
		b, _, err := m.s.top.read(file, limit)
		if err == nil {
			err = m.top.putAside(file, b)
		}
		if err != nil && ignore(err) != nil {
			return err
		}
	}
	d, err := m.data(func(p11.UserType, *secret.Bytes) (format.Kept, error) {
		return format.Kept{}, errPINChanged()
	})
	if err != nil {
		return err
	}
	if err := m.top.putAside(dataFile, m.f.PrintFile(d)); err != nil {
		return err
	}
	return m.top.syncAll()
}
