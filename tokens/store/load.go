package store

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// rereadTime is how long the old version of an object serves while its file cannot
// be read: stock rewrites object files in place and without the lock.
const rereadTime = time.Second

// A loaded is what reading one object file gave.
type loaded struct {
	name    format.Name
	stamp   stamp
	private bool
	object  *tokens.Object // without a handle; nil if err, or if it is private and there is no key
	err     error          // wraps fs.ErrNotExist if the file is absent
}

// Objects come into the index in lots of loadLot, while which others wait for it.
const loadLot = 4 << 10

// load reads the files of names and brings the index up to them. New private
// objects stay unread without a user login. The token's lock is held.
func (s *Store) load(ctx context.Context, names []format.Name) error {
	if len(names) == 0 {
		return nil
	}
	codec, err := s.objectFiles()
	if err != nil {
		return err
	}
	const batch = 128 // files between two looks at ctx
	var (
		next    atomic.Int64
		batches = make(chan []loaded)
		wg      sync.WaitGroup
	)
	for range max(1, min(runtime.GOMAXPROCS(0), len(names)/batch)) {
		wg.Go(func() {
			r := reader{codec: codec, names: newNamer(s.nameKey)}
			for ctx.Err() == nil {
				from := int(next.Add(batch)) - batch
				if from >= len(names) {
					return
				}
				part := names[from:min(len(names), from+batch)]
				ls := make([]loaded, len(part))
				for i, n := range part {
					s.readObject(&r, &ls[i], n)
				}
				batches <- ls
			}
		})
	}
	go func() { wg.Wait(); close(batches) }()
	read, short := 0, false
	var lot []loaded
	for ls := range batches {
		s.mu.Lock()
		for i := range ls {
			if s.takeLocked(&ls[i]) {
				lot = append(lot, ls[i])
			}
			short = short || errors.Is(ls[i].err, errNoRoom)
		}
		if len(lot) >= loadLot {
			s.putAllLocked(lot)
			lot = lot[:0]
		}
		s.mu.Unlock()
		read += len(ls)
	}
	s.mu.Lock()
	s.putAllLocked(lot)
	s.countNoRoomLocked(short)
	s.summariseLocked()
	s.mu.Unlock()
	if read < len(names) {
		return ioError("load the objects of", s.cfg.Dir, ctx.Err())
	}
	return nil
}

// A reader is what one goroutine reads object files with.
type reader struct {
	codec format.Objects
	names namer
	raw   []byte // memory for a file, which is used again
}

// readObject reads the file of n into l.
func (s *Store) readObject(r *reader, l *loaded, n format.Name) {
	l.name = n
	admit := func(size int64) error { return s.admit(n, size) }
	if r.raw, l.stamp, l.err = s.objs.readInto(r.raw, n.String(), format.MaxObjectFile, admit); l.err != nil {
		return
	}
	defer secret.Wipe(r.raw)
	var attrs p11.Attributes
	if l.private, attrs, l.err = r.codec.Open(n, r.raw); attrs != nil {
		l.object = named(0, r.names, n, attrs)
		l.object.Changed, l.object.Dated = l.stamp.times()
	}
}

// takeLocked brings what was read into memory, but for the object, and reports whether that
// is to come into the index (putAllLocked).
func (s *Store) takeLocked(l *loaded) bool {
	if errors.Is(l.err, fs.ErrNotExist) {
		// Listed, but without its file: it is no object, or just being
		// destroyed.
		s.forgetLocked(l.name)
		s.fileLocked(l.name)
		return false
	}
	f := s.fileLocked(l.name)
	if errors.Is(l.err, errNoRoom) {
		if f.stamp, f.failing = l.stamp, (time.Time{}); f.handle == 0 {
			s.setSizeLocked(f, 0)
		}
		s.bad[l.name] = errNoRoom
		return false
	}
	if l.err != nil {
		s.takeDamagedLocked(l, f)
		return false
	}
	if s.bad[l.name] != nil {
		delete(s.bad, l.name)
		if s.saysLocked(s.cfg.Now()) {
			s.cfg.Log.Info("object file is good again", "dir", s.cfg.Dir, "name", l.name)
		}
	}
	f.failing = time.Time{}
	if f.handle != 0 && f.private != l.private {
		s.dropLocked(f) // another object under the old name
	}
	f.rewritten = f.rewritten || f.stamp != stamp{} && f.stamp != l.stamp
	f.stamp, f.private = l.stamp, l.private
	return l.object != nil
}

// putAllLocked brings objects into the index that were read.
func (s *Store) putAllLocked(lot []loaded) {
	var list []tokens.Placed
	out := s.logins.KeyLocked(p11.CKU_USER) == nil
	for _, l := range lot {
		f := s.files[l.name]
		if f == nil || l.private && out { // logged out meanwhile
			l.object.Drop()
			continue
		}
		l.object.Handle = f.handle
		list = append(list, tokens.Placed{Object: l.object, Place: s.format.Place(l.name)})
	}
	for _, old := range s.Index.PutAllAt(list) {
		old.Drop()
	}
	for _, p := range list {
		n, _ := format.ParseName(p.Object.Stored)
		s.files[n].handle = p.Object.Handle
	}
}

func (s *Store) takeDamagedLocked(l *loaded, f *file) {
	now := s.cfg.Now()
	if f.handle != 0 {
		if f.failing.IsZero() {
			f.failing = now
		}
		if now.Sub(f.failing) < rereadTime {
			s.pending.add(l.name)
			return
		}
		s.dropLocked(f)
	}
	s.setSizeLocked(f, 0)
	f.stamp, f.failing = l.stamp, time.Time{}
	was := s.bad[l.name]
	s.bad[l.name] = l.err
	if (was == nil || was.Error() != l.err.Error()) && s.saysLocked(now) {
		s.cfg.Log.Warn("object skipped", "dir", s.cfg.Dir, "name", l.name, "err", l.err)
	}
}

// said are the lines in the log about single object files.
type said struct {
	since   time.Time // the beginning of the time that is counted
	lines   int
	omitted int
	told    bool // how many are left out
}

// In saidTime not more than saidLines lines are written, and one of how many were left
// out: who may write the token directory could fill the disk with the log.
const (
	saidTime  = time.Minute
	saidLines = 20
)

// saysLocked reports whether a line about an object file may be written.
func (s *Store) saysLocked(now time.Time) bool {
	if d := now.Sub(s.said.since); d >= saidTime || d < 0 {
		s.said.told = false
		s.summariseLocked()
		s.said = said{since: now}
	}
	if s.said.lines++; s.said.lines <= saidLines {
		return true
	}
	s.said.omitted++
	return false
}

// summariseLocked says how many lines about object files were left out.
func (s *Store) summariseLocked() {
	if s.said.omitted > 0 && !s.said.told {
		s.cfg.Log.Warn("more object files were skipped, or are good again", "dir", s.cfg.Dir, "files", s.said.omitted)
		s.said.omitted, s.said.told = 0, true
	}
}

// fileLocked returns what is known of a name, which counts as listed from now on.
func (s *Store) fileLocked(n format.Name) *file {
	f := s.files[n]
	if f == nil {
		f = &file{}
		s.files[n] = f
	}
	return f
}

// putLocked makes attrs the newest version of the object, which the index then
// holds.
func (s *Store) putLocked(n format.Name, f *file, attrs p11.Attributes) *tokens.Object {
	if f.handle == 0 {
		f.handle = s.Index.NewHandle()
	}
	o := s.object(f.handle, n, attrs)
	o.Changed, o.Dated = f.stamp.times()
	if old := s.Index.PutAt(o, s.format.Place(n)); old != nil {
		old.Drop()
	}
	return o
}

// dropLocked takes the object out of the index.
func (s *Store) dropLocked(f *file) {
	if o := s.Index.Remove(f.handle); o != nil {
		o.Drop()
	}
	f.handle = 0
}

// forgetLocked drops all that is known of a name.
func (s *Store) forgetLocked(n format.Name) {
	if f := s.files[n]; f != nil {
		s.dropLocked(f)
		s.setSizeLocked(f, 0)
		delete(s.files, n)
	}
	delete(s.bad, n)
}

func side(private bool) int {
	if private {
		return 1
	}
	return 0
}
