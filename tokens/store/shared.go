package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// Shared says where the segment of shared memory is through which stock
// processes share a token.
type Shared struct {
	Dir  string // /dev/shm
	Name string // with its leading "/", as shm.TokenName makes it
}

// segment is what the store asks of a shm.TokenSegment. Tests cut it off at each
// step.
type segment interface {
	Data() []byte
	SetData([]byte)
	Loaded(shm.List) bool
	SetLoaded(shm.List, bool)
	Count(shm.List) int
	Entries(shm.List) []shm.Entry
	SetEntries(shm.List, []shm.Entry) error
	Append(shm.List, shm.Entry) error
	Remove(shm.List, [8]byte) bool
	Touch(shm.List, [8]byte) (shm.Entry, bool)
	ZeroTail(shm.List)
	References() int32
	Attach()
	Detach()
	State([]byte) []byte
	Is([]byte) bool
	Removed() bool
	Err() error
	Close() error
}

var _ segment = (*shm.TokenSegment)(nil)

// lists are the two lists of a segment, in the order of side.
var lists = [2]shm.List{shm.Public, shm.Private} //nolint:gochecknoglobals // a table, never written

// detachTimeout bounds how long Close waits for the token's lock.
const detachTimeout = 500 * time.Millisecond

// Order is that of the directory's numbers, also of those that are bytes in an attribute.
func (s *Store) Order() binary.ByteOrder {
	little := binary.NativeEndian.Uint16([]byte{1, 0}) == 1
	if f, _ := s.snapshot(); little != f.Foreign() {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// attach joins the token's segment and settles which of NVTOK.DAT and segment is
// the truth: the segment once some process has loaded the public objects, the
// file before. raw is the file's contents; made says that this store has just
// made the token. The token's lock is held.
func (s *Store) attach(raw []byte, made bool) error {
	f, fileErr := s.recognize(raw)
	switch {
	case fileErr == nil:
		s.format = f
		if s.data, fileErr = f.ParseFile(raw); fileErr != nil {
			return notRecognized(s.cfg.Dir, fileErr)
		}
	case !errors.Is(fileErr, format.ErrShort) || s.cfg.Shared == nil:
		return notRecognized(s.cfg.Dir, fileErr)
	}
	if s.cfg.Shared == nil {
		return nil
	}
	var err error
	if s.seg, err = s.openSegment(); err != nil {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "%s: %w", s.cfg.Dir, err)
	}
	if made {
		// What the segment says is about a token that is gone.
		for _, l := range lists {
			s.seg.SetLoaded(l, false)
			s.setEntries(l, nil)
		}
	}
	if s.seg.Loaded(shm.Public) {
		if d, err := s.format.ParseSegment(s.seg.Data()); err == nil {
			s.data = d
			return nil
		}
	}
	if fileErr != nil {
		return notRecognized(s.cfg.Dir, fileErr)
	}
	s.seg.SetData(s.format.PrintSegment(s.data))
	return nil
}

// recognize returns the format of a directory by its NVTOK.DAT.
func (s *Store) recognize(raw []byte) (format.Format, error) {
	f, err := s.cfg.Format.Recognize(raw)
	if err != nil && !errors.Is(err, format.ErrShort) && s.cfg.Other != nil {
		if o, oerr := s.cfg.Other.Recognize(raw); oerr == nil {
			f, err = o, nil
		}
	}
	if err == nil && f.Foreign() && s.cfg.Shared != nil {
		err = p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "its numbers have another byte order than this machine's, so that it cannot be shared with stock processes")
	}
	return f, err
}

// openSegment attaches to the segment at its path, which it makes if there is none. The
// token's lock is held.
func (s *Store) openSegment() (segment, error) {
	seg, _, repaired, err := shm.OpenToken(s.cfg.Shared.Dir, s.cfg.Shared.Name, s.cfg.Group)
	if err != nil {
		return nil, err
	}
	if repaired {
		s.cfg.Log.Warn("the token's shared memory was open to others than the token's users, or misnamed: it is put right", "dir", s.cfg.Dir, "path", seg.Path())
	}
	joined := segment(seg)
	if s.cfg.segment != nil {
		joined = s.cfg.segment(seg)
	}
	joined.Attach()
	return joined, nil
}

// rejoin goes over to the segment that is at the path now, if somebody removed
// ours: stock processes that start share that one. Those that run keep ours, and
// hear of nothing any more. The token's lock is held.
func (s *Store) rejoin() {
	if s.seg == nil || !s.seg.Removed() {
		return
	}
	s.cfg.Log.Warn("the token's shared memory was removed: stock processes that ran then share nothing until they start anew", "dir", s.cfg.Dir)
	f, d := s.snapshot()
	s.leave()
	seg, err := s.openSegment()
	if err != nil {
		s.cfg.Log.Error("the token is no longer shared with stock processes", "dir", s.cfg.Dir, "err", err)
	} else if there, err := f.ParseSegment(seg.Data()); err != nil || !seg.Loaded(shm.Public) || f.KeepNames(there, d) != there {
		// Names must not be given out twice.
		seg.SetData(f.PrintSegment(d))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.seg = seg
	}
	s.pending.all = true
	s.seen = s.seen[:0]
	clear(s.findings)
	s.dataStamp, s.idx = stamp{}, indexState{}
}

// detach leaves the segment. No section runs any more and none begins.
func (s *Store) detach() {
	if s.seg == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), detachTimeout)
	defer cancel()
	unlock, err := s.cfg.Lock.Lock(ctx)
	if err != nil {
		// The count of references only informs.
		s.cfg.Log.Warn("left the token's shared memory without its lock", "dir", s.cfg.Dir, "err", err)
		s.leave()
		return
	}
	if len(s.findings) > 0 || !s.idx.clean {
		if err := s.sync(ctx, true); err != nil {
			s.cfg.Log.Warn("the index may lack objects", "dir", s.cfg.Dir, "err", err)
		}
	}
	s.leave()
	if err := unlock(); err != nil {
		s.cfg.Log.Error("token lock", "dir", s.cfg.Dir, "err", err)
	}
}

// leave gives the segment back. The token's lock is held if it can be had.
func (s *Store) leave() {
	s.mu.Lock()
	seg := s.seg
	s.seg = nil
	s.mu.Unlock()
	if seg == nil {
		return
	}
	seg.Detach()
	if err := seg.Close(); err != nil {
		s.cfg.Log.Error("the token's shared memory", "dir", s.cfg.Dir, "err", err)
	}
}

// References is how many processes have attached to the token's segment and not
// detached, as far as it is known; shared says whether there is a segment.
func (s *Store) References() (n int, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seg == nil {
		return 0, false
	}
	return int(s.seg.References()), true
}

// sharedAsSeenLocked reports whether the segment is as it was last seen, and
// nothing about it is due. It takes no lock between processes.
func (s *Store) sharedAsSeenLocked() bool {
	return s.seg == nil || s.seg.Is(s.seen) && !s.dueLocked() && !s.seg.Removed()
}

// noteShared remembers the segment as it is now, for Refresh to compare. What a
// process changed without the lock, as stock does at a login, since it was read
// is not taken for seen. The token's lock is held.
func (s *Store) noteShared() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seg == nil {
		return
	}
	// Residue behind the lists can make stock take a destroyed object for a live
	// one.
	for _, l := range lists {
		s.seg.ZeroTail(l)
	}
	s.seen = s.seg.State(s.seen[:0])
	if !bytes.HasPrefix(s.seen, s.format.PrintSegment(s.data)) {
		s.seen = s.seen[:0]
	}
}

// readData returns the token's data: that in the segment, or in NVTOK.DAT without
// one. With format.ErrShort it will be there in a moment. The token's lock is held.
func (s *Store) readData() (format.TokenData, stamp, error) {
	f, last := s.snapshot()
	if s.seg == nil {
		raw, st, err := s.top.read(dataFile, maxDataFile)
		if err != nil {
			return format.TokenData{}, st, notRecognized(s.cfg.Dir, err)
		}
		d, err := f.ParseFile(raw)
		return d, st, err
	}
	st, err := s.top.stamp(dataFile)
	if err != nil {
		return format.TokenData{}, st, err
	}
	d, err := f.ParseSegment(s.seg.Data())
	if err != nil {
		d = last
		s.cfg.Log.Warn("the token's data in shared memory made no sense: it is put right", "dir", s.cfg.Dir, "err", err)
		s.seg.SetData(f.PrintSegment(d))
	}
	return d, st, nil
}

// fileBehind reports whether NVTOK.DAT, whose stamp is st now, is behind d, which is in
// the segment: stock processes write the file after they gave the lock back, and
// so older data may come last, or none if they are killed. It returns the stamp to
// remember. The token's lock is held.
func (s *Store) fileBehind(d format.TokenData, st stamp) (bool, stamp) {
	if s.seg == nil {
		return false, st
	}
	s.mu.Lock()
	same := st == s.dataStamp
	s.mu.Unlock()
	if same {
		return false, st
	}
	raw, _, err := s.top.read(dataFile, maxDataFile)
	if err != nil {
		return false, st
	}
	file, err := s.format.ParseFile(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, format.ErrShort) {
		s.shortSince = time.Time{}
		return err == nil && s.format.KeepNames(file, d) != file, st
	}
	now := s.cfg.Now()
	if s.shortSince.IsZero() {
		s.shortSince = now
	}
	s.pending.data = true
	return now.Sub(s.shortSince) >= shortWait, stamp{}
}

// bringUpData writes NVTOK.DAT, which is behind the segment. A stock process that
// starts would otherwise give out names again that are in use, and write over
// their objects; over a file without data it would not start. The token's lock is
// held.
func (s *Store) bringUpData() {
	_, d := s.snapshot()
	if err := s.saveData(d); err != nil {
		// A full disk must not keep anybody from using the token, and from
		// destroying objects.
		s.cfg.Log.Warn("NVTOK.DAT is behind shared memory", "dir", s.cfg.Dir, "err", err)
	}
}

// shareLocked stores d, which was s.data with changes, in the segment, and
// returns what is there then. The flags that d does not change stay as they are
// there: stock changes them at a login without the lock. The token's lock is held.
func (s *Store) shareLocked(d format.TokenData) format.TokenData {
	if s.seg == nil {
		return d
	}
	there, err := s.format.ParseSegment(s.seg.Data())
	if s.seg.Err() != nil {
		return d
	}
	if err == nil {
		ours := s.data.Flags() ^ d.Flags()
		d.SetFlags(d.Flags()&ours | there.Flags()&^ours)
	}
	s.seg.SetData(s.format.PrintSegment(d))
	return d
}

// sharedLost logs that the segment can no longer be used, if so, and goes on
// without it.
func (s *Store) sharedLost() {
	if s.seg == nil || s.seg.Err() == nil {
		return
	}
	s.cfg.Log.Error("the token is no longer shared with stock processes", "dir", s.cfg.Dir, "err", s.seg.Err())
	s.leave()
	s.mu.Lock()
	s.pending.all = true
	s.dataStamp, s.idx = stamp{}, indexState{}
	s.mu.Unlock()
}

// room returns CKR_HOST_MEMORY if the segment's lists have no room for count more
// public and private objects. The token's lock is held.
func (s *Store) room(count [2]int) error {
	if s.seg == nil {
		return nil
	}
	for i, l := range lists {
		if count[i] > 0 && s.seg.Count(l)+count[i] > shm.Limit {
			kind := [2]string{"public", "private"}[i]
			return p11.Errorf(p11.CKR_HOST_MEMORY, "a token that is shared with stock processes has at most %d %s objects: %w", shm.Limit, kind, unix.ENOSPC)
		}
	}
	return nil
}

// shareNew adds a new object to the segment. The token's lock is held.
func (s *Store) shareNew(n format.Name, private bool) {
	if s.seg == nil {
		return
	}
	if err := s.seg.Append(lists[side(private)], shm.Entry{Name: n}); err != nil {
		s.cfg.Log.Error("an object is not shared", "dir", s.cfg.Dir, "name", n, "err", err)
	}
}

// shareChange tells stock processes that the object's file has changed. The
// token's lock is held.
func (s *Store) shareChange(n format.Name, private bool) {
	if s.seg == nil {
		return
	}
	l := lists[side(private)]
	if _, ok := s.seg.Touch(l, n); ok {
		return
	}
	// Another process lost the entry; mend would add it later.
	if s.seg.Count(l) < shm.Limit {
		s.shareNew(n, private)
		_, _ = s.seg.Touch(l, n)
	}
}

// shareGone takes an object out of the segment. The token's lock is held.
func (s *Store) shareGone(n format.Name, private bool) {
	if s.seg != nil {
		s.seg.Remove(lists[side(private)], n)
	}
}

// setEntries replaces a list of the segment. The token's lock is held.
func (s *Store) setEntries(l shm.List, es []shm.Entry) {
	if err := s.seg.SetEntries(l, es); err != nil {
		s.cfg.Log.Error("the list of objects in shared memory", "dir", s.cfg.Dir, "err", err)
	}
}

// emptyLists empties both lists of the segment; put brings them back. The token's
// lock is held.
func (s *Store) emptyLists() (put func()) {
	if s.seg == nil {
		return func() {}
	}
	var was [2][]shm.Entry
	for i, l := range lists {
		was[i] = s.seg.Entries(l)
		s.setEntries(l, nil)
	}
	return func() {
		for i, l := range lists {
			s.setEntries(l, was[i])
		}
	}
}

// validLocked returns an error if the store, or the token's data as it stands, ends
// the logins of a role.
func (s *Store) validLocked(u p11.UserType) error {
	if s.closed {
		return errClosed()
	}
	d := s.data
	if s.seg != nil {
		var err error
		if d, err = s.format.ParseSegment(s.seg.Data()); err != nil {
			return nil // it is put right at the next use, or is gone
		}
	}
	r, err := tokens.RoleOf(u)
	if err != nil {
		return err
	}
	d = s.confirmedLocked(d)
	return r.MayTry(d.Flags(), hasPIN(s.format, d, r))
}
