package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
)

// An upkeep is tokens.Upkeep of a token of the fleet. Its backups are those of a directory in
// the format of 3.12, and so a token goes from one to the other.
type upkeep struct {
	p          swtok.Provider
	place      tokens.Place
	iterations uint64
}

var _ tokens.Upkeep = (*upkeep)(nil)

// reader is a Store that reads what is in etcd, and follows nothing.
func (u *upkeep) reader() (*Store, *link, error) {
	l, err := connect(u.place)
	if err != nil {
		return nil, nil, err
	}
	p := u.place
	p.Room = -1
	return newStore(l.config(p, u.iterations)), l, nil
}

// stateTime bounds how long State waits for etcd.
const stateTime = 5 * time.Second

// State is tokens.Upkeep.
func (u *upkeep) State() (st tokens.DirectoryState, err error) {
	s, l, err := u.reader()
	if err != nil {
		return st, err
	}
	defer func() { err = l.end(context.Background(), err) }()
	ctx, cancel := context.WithTimeout(context.Background(), stateTime)
	defer cancel()
	snap, err := s.newestRecord(ctx, 0)
	if errors.Is(err, errAbsent) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	r := snap.record
	i := r.Data.Info(time.Time{})
	return tokens.DirectoryState{
		Present: true, Format: p11.Version{Major: 3, Minor: 12}, Label: i.Label, Flags: i.Flags,
		Initialized: i.Flags&p11.CKF_TOKEN_INITIALIZED != 0, UserPIN: s.cfg.Format.UserPINSet(r.Data),
	}, nil
}

// Migrate is tokens.Upkeep.
func (u *upkeep) Migrate(context.Context, tokens.Migration) (tokens.Migrated, error) {
	return tokens.Migrated{}, tokens.ErrMigrated
}

// Rollback is tokens.Upkeep.
func (u *upkeep) Rollback(context.Context, func() error) error {
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "a token of the fleet has no older format"), "bring it back from a file of p11fs backup, if there is one")
}

// Forget is tokens.Upkeep.
func (u *upkeep) Forget(context.Context) error { return nil }

// Check is tokens.Upkeep.
func (u *upkeep) Check(ctx context.Context, pin *secret.Bytes) (c tokens.Checked, err error) {
	p := u.place
	p.Create = false
	t, err := openToken(ctx, u.p, p, u.iterations)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if pin != nil {
		in, err := t.Login(ctx, p11.CKU_USER, pin)
		if err != nil {
			return c, err
		}
		defer in.Close()
	}
	for _, d := range t.Damaged() {
		c.Wrong = append(c.Wrong, fmt.Sprintf("%s: %s", d.File, d.Why))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.objects {
		if o.bad != nil {
			continue
		}
		if c.Objects++; o.private {
			c.Private++
		}
	}
	return c, nil
}

// Backup is tokens.Upkeep.
func (u *upkeep) Backup(ctx context.Context, w io.Writer, progress func(done, total int)) (err error) {
	s, l, err := u.reader()
	if err != nil {
		return err
	}
	defer func() { err = l.end(ctx, err) }()
	snap, err := s.snapshot(ctx, 0)
	if err != nil {
		return err
	}
	c, bad := s.contents(snap)
	defer c.Wipe()
	for _, b := range bad {
		u.place.Log.Warn("an object is not in the backup", "prefix", s.cfg.Prefix, "why", b)
	}
	if why := s.differs(snap, c); why != "" {
		u.place.Log.Warn("the objects in etcd are not those that the fleet has written", "prefix", s.cfg.Prefix, "why", why)
	}
	return store.WriteContents(w, u.place.Name, c, s.cfg.Now(), progress)
}

// contents are the record and objects of a token as they are at a revision, and what of it is
// none.
func (s *Store) contents(snap *loaded) (c *store.Contents, bad []string) {
	r := snap.record
	c = &store.Contents{Data: s.cfg.Format.PrintFile(r.Data), Keys: r.Keys, NameKey: r.NameKey}
	for _, kv := range snap.values {
		n, st, _, err := s.openValue(r, kv)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", kv.Key, err))
			continue
		}
		c.Objects = append(c.Objects, store.Content{Name: n, Changed: st.dated, File: st.file})
	}
	return c, bad
}

// openValue opens the value of an object.
func (s *Store) openValue(r *record, kv *mvccpb.KeyValue) (n format.Name, st stored, version uint64, err error) {
	n, ok := s.nameOf(r, kv)
	if !ok {
		return n, st, 0, errors.New("it is no object of the fleet")
	}
	plain, version, err := s.cfg.Key.Open(string(kv.Key), r.ID, kv.Value)
	if err == nil {
		st, err = parseStored(plain)
	}
	return n, st, version, err
}

// differs says what is not in etcd as the fleet has written it.
func (s *Store) differs(snap *loaded, c *store.Contents) string {
	var sum [32]byte
	for _, kv := range snap.values {
		if n, _, version, err := s.openValue(snap.record, kv); err == nil {
			xor(&sum, s.tag(n, snap.record, version, kv.Value))
		}
	}
	if sum == snap.record.Sum {
		return ""
	}
	return wrongObjects(len(c.Objects), snap.record.Objects)
}

func wrongObjects(there int, written uint64) string {
	return fmt.Sprintf("%d objects are there, and the fleet has written %d, or others: somebody who writes etcd has removed some, or put back what they were", there, written)
}

// Restore is tokens.Upkeep. What is replaced is gone from etcd.
func (u *upkeep) Restore(ctx context.Context, r io.Reader, replace bool, before func() error) (err error) {
	p := u.place
	p.Create = true
	c, err := store.ReadContents(r, cmp.Or(max(p.Room, 0), tokens.DefaultRoom))
	if err != nil {
		return err
	}
	defer c.Wipe()
	t, err := openToken(ctx, u.p, p, u.iterations)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	may := func(now *record) error {
		info := now.Data.Info(time.Time{})
		used := info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 || now.Objects > 0 || t.cfg.Format.UserPINSet(now.Data)
		if used && !replace && !now.untouched(c) {
			return tokens.ErrInitialized
		}
		return nil
	}
	if err := may(t.newest()); err != nil { // before anything is written
		return err
	}
	return t.restore(ctx, c, 0, func(now *record) error {
		if err := may(now); err != nil || before == nil {
			return err
		}
		return before()
	})
}

// untouched reports whether a restore of these contents has made the record where no token
// was, and nobody has changed it since: whoever began it was killed before others heard of it.
func (r *record) untouched(c *store.Contents) bool {
	return r.Count == 2 && string(r.Keys[0]) == string(c.Keys[0]) && string(r.Keys[1]) == string(c.Keys[1])
}

// maxSent bounds the bytes of the objects that a restore sends at once: etcd takes 1.5 MiB.
const maxSent = 512 << 10

// restore makes the token what a backup has. Its objects are written before, under the ID that
// the token then gets. The change that makes it the token is one as any other, with the number
// least at least. may is called with what it replaces.
func (s *Store) restore(ctx context.Context, c *store.Contents, least uint64, may func(*record) error) error {
	data, err := s.cfg.Format.ParseFile(c.Data)
	if err != nil {
		return p11.Advise(fmt.Errorf("the token is not of the format of openCryptoki 3.12, as the fleet's are: %w", err),
			"migrate it first, with p11fs migrate, and make the backup then")
	}
	was := s.newest().ID
	r := &record{ID: newID(), Data: data, Keys: c.Keys, NameKey: c.NameKey}
	if r.NameKey == nil {
		if r.NameKey, err = s.newNameKey(); err != nil {
			return err
		}
	}
	if err := s.writeObjects(ctx, r, c.Objects); err != nil {
		return err
	}
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	rev, err := s.change(ctx, func(e *edit) error {
		if e.record.ID != was {
			return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "another machine has initialised or restored the token meanwhile"), "look at what it is now, and start again")
		}
		now := e.record.clone()
		now.Count-- // which counts this change already
		if err := may(now); err != nil {
			return err
		}
		next := r.clone()
		next.Count, next.Writers, next.Counted = max(now.Count+1, least), e.record.Writers, e.record.Counted
		*e.record = *next
		e.all = true
		ours := s.objectsOf(r.ID)
		e.ops = append(e.ops, clientv3.OpDelete(s.all(), clientv3.WithRange(ours)),
			clientv3.OpDelete(clientv3.GetPrefixRangeEnd(ours), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.all()))))
		return nil
	})
	end()
	if err != nil {
		return err
	}
	s.loadAnew()
	return errors.Join(s.settle(ctx, rev), s.waitFor(context.WithoutCancel(ctx), rev))
}

// writeObjects writes objects of a token that is not yet there, and counts them in its record.
func (s *Store) writeObjects(ctx context.Context, r *record, objects []store.Content) error {
	var ops []clientv3.Op
	size := 0
	send := func() error {
		one, cancel := context.WithTimeout(ctx, s.cfg.times.change)
		defer cancel()
		_, err := s.cfg.Client.Txn(one).Then(ops...).Commit()
		ops, size = nil, 0
		return s.trouble("take the objects", err)
	}
	for _, o := range objects {
		key := s.objectKey(r.ID, o.Name)
		plain := stored{o.Changed, o.Changed, o.File}.print()
		at := seal.Place{Name: key, Token: r.ID, Version: 1}
		sealed, err := s.cfg.Key.Seal(at, plain)
		secret.Wipe(plain)
		if err != nil {
			return err
		}
		if len(ops) > 0 && (len(ops) == maxTogether || size+len(sealed) > maxSent) {
			if err := send(); err != nil {
				return err
			}
		}
		ops, size = append(ops, clientv3.OpPut(key, string(sealed))), size+len(sealed)
		xor(&r.Sum, s.cfg.Key.Tag(at, sealed))
		r.Objects++
	}
	if len(ops) == 0 {
		return nil
	}
	return send()
}
