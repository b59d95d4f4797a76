package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens/store/format"
)

// begin starts a section under the token's lock that changes the token: it waits
// for the lock, and brings memory up to what the directory holds. The caller
// calls end once. After begin ctx no longer counts: a change that was begun is
// finished.
func (s *Store) begin(ctx context.Context) (end func(), err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed()
	}
	s.active.Add(1)
	s.mu.Unlock()
	unlock, err := s.cfg.Lock.Lock(ctx)
	if err != nil {
		s.active.Done()
		return nil, ioError("lock", s.cfg.Dir, err)
	}
	release := func() {
		if err := unlock(); err != nil {
			s.cfg.Log.Error("token lock", "dir", s.cfg.Dir, "err", err)
		}
		s.active.Done()
	}
	// A stock process may have truncated NVTOK.DAT under the lock and be about
	// to write it after. If it never does, our copy is as good as any.
	for deadline := time.Now().Add(shortWait); s.seg == nil && s.dataShort() && time.Now().Before(deadline); {
		if unlock, err = pause(ctx, s.cfg.Lock, unlock); err != nil {
			release()
			return nil, err
		}
	}
	if err := s.sync(ctx, true); err != nil {
		release()
		return nil, err
	}
	s.mu.Lock()
	s.busy = true
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		if s.w != nil { // else begin looks at every file
			s.w.drain(&s.pending)
		}
		s.busy = false
		heard := s.pending
		s.pending = changes{}
		s.mu.Unlock()
		// Most of what was heard is our own doing.
		if s.stale(&heard) {
			s.mu.Lock()
			s.pending.merge(heard)
			s.mu.Unlock()
		}
		s.noteShared()
		release()
	}, nil
}

// waits notes that the caller waits for another one, who waits for the token's lock or has it.
func (s *Store) waits(ctx context.Context) (ended func()) {
	if l, ok := s.cfg.Lock.(interface{ Path() string }); ok {
		return locks.Waits(ctx, l.Path())
	}
	return func() {}
}

func errClosed() error {
	return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
}

func (s *Store) dataShort() bool {
	st, err := s.top.stamp(dataFile)
	return err == nil && st != (stamp{}) && st.size < s.format.FileSize()
}

// Refresh brings in what others changed in the directory, and in the segment,
// before it was called. While nothing has changed it costs one system call and
// one comparison.
func (s *Store) Refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed()
	}
	s.w.drain(&s.pending)
	// A section of this process has read what was there when it began, and
	// nobody else changes the token before it ends. A sync in progress has taken what
	// was pending, and is waited for.
	if s.busy || !s.syncing && !s.pending.any() && s.sharedAsSeenLocked() {
		s.mu.Unlock()
		return nil
	}
	s.active.Add(1)
	s.mu.Unlock()
	defer s.active.Done()
	unlock, err := s.cfg.Lock.Lock(ctx)
	if err != nil {
		return ioError("lock", s.cfg.Dir, err)
	}
	err = s.sync(ctx, false)
	if uerr := unlock(); uerr != nil {
		s.cfg.Log.Error("token lock", "dir", s.cfg.Dir, "err", uerr)
	}
	return err
}

// stale reduces c to what really differs from memory, and reports whether anything
// is left. The token's lock is held.
func (s *Store) stale(c *changes) bool {
	if c.moved || !c.any() {
		return c.moved
	}
	s.mu.Lock()
	dataStamp, keyStamp, idx := s.dataStamp, s.keyStamp, s.idx.stamp
	names := make(map[format.Name]stamp, len(c.names))
	for n := range c.names {
		if f := s.files[n]; f != nil {
			names[n] = f.stamp
		} else if s.ample.passed {
			c.room = true // the file of a name that had none
		}
	}
	if c.all {
		c.room = c.room || s.ample.passed
		for n, f := range s.files {
			names[n] = f.stamp
		}
	}
	s.mu.Unlock()
	differs := func(d *folder, file string, was stamp) bool {
		now, err := d.stamp(file)
		return err != nil || now != was
	}
	left := changes{
		room:  c.room,
		data:  (c.data || c.all) && (differs(s.top, dataFile, dataStamp) || s.cfg.Keys == nil && differs(s.top, soKeyFile, keyStamp)),
		index: (c.index || c.all) && differs(s.objs, indexFile, idx),
	}
	for n, st := range names {
		if differs(s.objs, n.String(), st) {
			left.add(n)
		}
	}
	*c = left
	return left.any()
}

// sync reads what was heard of, and what is new in the segment. section says that
// the token is going to be changed. The token's lock is held. On an error what is
// not read stays pending.
func (s *Store) sync(ctx context.Context, section bool) (err error) {
	s.sharedLost()
	s.rejoin()
	s.mu.Lock()
	s.w.drain(&s.pending)
	c := s.pending
	s.pending, s.syncing = changes{}, true
	shared := s.seg != nil && (!s.sharedAsSeenLocked() || section && (len(s.findings) > 0 || !s.idx.clean))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.syncing = false
	}()
	if !c.any() && !shared {
		return nil
	}
	if s.w == nil && s.replaced() { // which a watch hears of
		c.moved = true
	}
	again := s.known(c.names, true) // although they look the same
	defer func() {
		if err != nil {
			// What was not read is looked for again.
			s.mu.Lock()
			s.pending.merge(c)
			s.pending.all = true
			s.idx = indexState{}
			s.seen = s.seen[:0]
			s.mu.Unlock()
		}
	}()
	if c.moved {
		if err := s.reopen(); err != nil {
			return err
		}
		c = changes{all: true}
	}
	if !s.stale(&c) && len(again) == 0 && !shared {
		return nil
	}
	if c.data || shared {
		if err := s.syncData(); err != nil {
			return err
		}
	}
	var x format.Index
	if c.index || s.seg != nil || c.room && (s.ample.unnamed > 0 || s.ample.passed) {
		if x, err = s.readIndex(); err != nil {
			return err
		}
		fresh := s.cut(s.forgetOthers(s.listed(x.Names)))
		s.removeLeftovers(x.Destroyed)
		if err := s.load(ctx, fresh); err != nil {
			return err
		}
	}
	for _, n := range again {
		c.add(n)
	}
	if c.room {
		for _, n := range s.withoutRoom() {
			c.add(n)
		}
	}
	if err := s.load(ctx, s.known(c.names, false)); err != nil {
		return err
	}
	s.mend(x.Names, section)
	s.noteShared()
	return nil
}

// known returns those of names that are the token's, or only those whose files could
// not be read the last time.
func (s *Store) known(names map[format.Name]struct{}, failing bool) (in []format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range names {
		if f := s.files[n]; f != nil && (!failing || !f.failing.IsZero()) {
			in = append(in, n)
		}
	}
	return in
}

// replaced reports whether another directory has taken the place of the one that is
// open.
func (s *Store) replaced() bool {
	var open, now unix.Stat_t
	if err := unix.Fstat(s.top.fd, &open); err != nil {
		return false
	}
	err := unix.Lstat(s.cfg.Dir, &now)
	return errors.Is(err, unix.ENOENT) || err == nil && (open.Ino != now.Ino || open.Dev != now.Dev)
}

// reopen takes up the directory again after it was replaced.
func (s *Store) reopen() error {
	f := s.format
	top, err := s.openTop(false)
	if err != nil {
		return err
	}
	objs, w, err := s.openObjects(top)
	if err != nil {
		top.close()
		return err
	}
	raw, _, err := top.read(dataFile, maxDataFile)
	if err == nil {
		if f, err = s.recognize(raw); errors.Is(err, format.ErrShort) {
			f = s.format // until a stock process has written it
		} else if err != nil {
			top.close()
			objs.close()
			w.close()
			return notRecognized(s.cfg.Dir, err)
		}
	}
	s.cfg.Log.Info("the token directory was replaced", "dir", s.cfg.Dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w.close()
	s.objs.close()
	s.top.close()
	s.top, s.objs, s.w, s.format = top, objs, w, f
	s.dataStamp, s.idx = stamp{}, indexState{}
	s.names = reservation{}
	s.destroyed.clear()
	s.unlisted = nil
	clear(s.spoiled)
	s.logins.EndAllLocked()
	if s.seg != nil {
		// What the segment says is about the directory before.
		if d, err := f.ParseFile(raw); err == nil {
			s.seg.SetData(f.PrintSegment(d))
		}
	}
	return nil
}

// syncData reads the token's data and MK_SO again and draws the consequences.
func (s *Store) syncData() error {
	d, st, err := s.readData()
	if errors.Is(err, format.ErrShort) {
		// A stock process is about to write it; ours serves until then.
		s.mu.Lock()
		s.pending.data = true
		s.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	behind, st := s.fileBehind(d, st)
	key, keyStamp, err := s.soKeyNow()
	if err != nil {
		return err
	}
	if s.takeData(d, st, key, keyStamp) || behind {
		s.bringUpData()
	}
	return nil
}

// takeData brings what was read into memory, and reports whether the next name had
// gone back in the segment.
func (s *Store) takeData(d format.TokenData, st stamp, key []byte, keyStamp stamp) (wentBack bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, old := s.format, s.data
	kept := f.KeepNames(d, old)
	// C_InitToken gives a new master key under the old SO PIN; a change of the
	// PIN gives a new record along with the file.
	initialised := s.soKey != nil && !bytes.Equal(key, s.soKey) &&
		(f.PIN(old, p11.CKU_SO) == f.PIN(d, p11.CKU_SO) || kept != d || !f.UserPINSet(d))
	s.data, s.dataStamp, s.soKey, s.keyStamp = d, st, key, keyStamp
	if kept != d {
		s.names = reservation{}
	}
	if initialised {
		s.destroyed.clear()
	}
	if kept != d && !initialised && f.UserPINSet(d) == f.UserPINSet(old) && s.seg != nil {
		// No C_InitToken, not even one under way: a stock process has started
		// and copied NVTOK.DAT over the segment, whatever it held. No name is to
		// come back.
		s.data = s.shareLocked(kept)
		wentBack = true
	}
	if initialised {
		s.logins.EndAllLocked()
	}
	s.logins.EndInvalidLocked()
	return wentBack
}

// forgetOthers drops the objects that are not among names, and returns the names
// that are new.
func (s *Store) forgetOthers(names []format.Name) (fresh []format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := make(map[format.Name]struct{}, len(names))
	for _, n := range names {
		in[n] = struct{}{}
		if s.files[n] == nil {
			fresh = append(fresh, n)
		}
	}
	if len(in) == len(s.files)+len(fresh) {
		return fresh // nothing is gone
	}
	for n := range s.files {
		if _, ok := in[n]; !ok {
			s.forgetLocked(n)
		}
	}
	return fresh
}
