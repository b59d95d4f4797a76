package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens/fleet/lease"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store/format"
)

// pageSize is how many keys are asked for at once.
const pageSize = 100

// retryTime is the longest time between two tries to load the token.
const retryTime = 2 * time.Second

// last is behind the last of the token's keys.
func (s *Store) last() string { return s.recordKey() + "\x00" }

// follow brings in what others change behind a revision, until ctx ends.
func (s *Store) follow(ctx context.Context, loaded int64) {
	for ctx.Err() == nil {
		err := s.watch(ctx, loaded)
		for wait := 20 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, retryTime) {
			s.lose(err)
			if loaded, err = s.load(ctx); err == nil {
				s.lose(nil)
				break
			}
			select {
			case <-time.After(wait):
			case <-s.kick:
			case <-ctx.Done():
			}
		}
	}
}

// lose notes why nothing is heard of others, and logs it when it is new.
func (s *Store) lose(err error) {
	s.mu.Lock()
	was := s.lost
	s.lost = err
	s.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, errKicked):
	case was == nil:
		s.cfg.Log.Warn("what other machines change is not heard of; the token is loaded anew", "prefix", s.cfg.Prefix, "err", err)
	}
}

// errKicked ends a watch whose token is to be loaded anew.
var errKicked = errors.New("the token is loaded anew")

// errUnfit is why the follower loads all anew: what it heard of does not follow what it knows.
var errUnfit = errors.New("what was heard does not follow what is known")

// errAgain ends a watch that begins anew where it was.
var errAgain = errors.New("the changes are watched anew")

// watch takes in changes behind a revision, until it cannot: the revision was compacted, or
// the member that answers has no leader.
func (s *Store) watch(ctx context.Context, loaded int64) (err error) {
	for err = errAgain; errors.Is(err, errAgain); {
		loaded, err = s.watchOnce(ctx, loaded)
	}
	return err
}

// watchOnce is watch, until it is to begin anew, behind the revision that it returns. It begins
// at the revision, since etcd says how far a watch is only once none of its stream is still to
// begin.
func (s *Store) watchOnce(ctx context.Context, loaded int64) (int64, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	again := s.cfg.Contact.Again()
	events := s.cfg.Client.Watch(ctx, s.all(), clientv3.WithRange(s.last()), clientv3.WithRev(loaded), clientv3.WithProgressNotify())
	for {
		select {
		case <-s.kick:
			return loaded, errKicked
		case <-again:
			return loaded, errAgain
		case resp, ok := <-events:
			if !ok {
				return loaded, errors.New("the watch has ended")
			}
			if err := resp.Err(); err != nil {
				return loaded, err
			}
			if err := s.takeEvents(loaded, resp.Events); err != nil {
				return loaded, err
			}
			if at := lease.Told(resp); at > 0 {
				loaded = max(loaded, at)
				s.cfg.Contact.Seen(at)
			}
		}
	}
}

// takeEvents takes in events behind a revision, those of one revision together.
func (s *Store) takeEvents(loaded int64, events []*clientv3.Event) error {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
			n++
		}
		if events[0].Kv.ModRevision > loaded {
			if err := s.takeChange(events[:n]); err != nil {
				return err
			}
		}
		events = events[n:]
	}
	return nil
}

// takeChange takes in one change, which follows what is known.
func (s *Store) takeChange(events []*clientv3.Event) error {
	rev := events[0].Kv.ModRevision
	s.mu.Lock()
	defer s.mu.Unlock()
	var next *record
	objects := make(map[format.Name]*clientv3.Event)
	for _, e := range events {
		switch n, ok := s.nameOf(s.record, e.Kv); {
		case ok:
			objects[n] = e
		case string(e.Kv.Key) != s.recordKey(): // what is restored is none of the token yet
		case e.Type == mvccpb.DELETE:
			return s.absent()
		case rev <= s.rev:
			return nil // it was our own
		default:
			var err error
			if next, err = s.openRecord(e.Kv.Value); err != nil {
				return err
			}
		}
	}
	switch {
	case next == nil && len(objects) == 0:
		return nil
	case next != nil && next.Count > s.record.Count && next.ID != s.record.ID && next.Objects > 0:
		return errKicked // somebody has restored it
	case next == nil || next.Count != s.record.Count+1:
		return errUnfit
	case next.ID != s.record.ID:
		s.removeAllLocked()
		s.logins.EndAllLocked()
		clear(objects)
	}
	codec, err := s.codecLocked()
	if err != nil {
		return err
	}
	for n, e := range objects {
		if e.Type == mvccpb.DELETE {
			s.forgetLocked(n)
		} else {
			s.takeValueLocked(codec, next, n, e.Kv.Value, s.record.Count)
		}
	}
	s.checkLocked(next)
	s.setRecordLocked(next, rev)
	return nil
}

// nameOf is the object of a key of a token.
func (s *Store) nameOf(r *record, kv *mvccpb.KeyValue) (format.Name, bool) {
	rest, ok := strings.CutPrefix(string(kv.Key), s.objectsOf(r.ID))
	if !ok {
		return format.Name{}, false
	}
	return format.ParseName(rest)
}

// takeValueLocked makes an object's value what is known of it. One that the fleet has not
// written so is none; nor is one of a change that this machine has seen, in which it was
// another one or was not there: somebody has put it back.
func (s *Store) takeValueLocked(codec format.Objects, r *record, n format.Name, value []byte, seen uint64) {
	plain, version, err := s.cfg.Key.Open(s.objectKey(r.ID, n), r.ID, value)
	var st stored
	if err == nil {
		st, err = parseStored(plain)
	}
	o := &object{version: version, size: nameSize + int64(len(plain))}
	if err == nil {
		o.tag = s.tag(n, r, version, value)
	}
	var attrs p11.Attributes
	switch old := s.objects[n]; {
	case err != nil:
	case version <= seen && (old == nil || old.tag != o.tag):
		o.tag = [32]byte{} // also when it is looked at again
		err = fmt.Errorf("it is of change %d, and is not what was there at change %d: somebody has put it back", version, seen)
	case !s.fitsLocked(o.size):
		err = errNoRoom
	default:
		o.private, attrs, err = codec.Open(n, st.file)
	}
	if err != nil {
		s.spoilLocked(n, o, err)
		return
	}
	s.takeLocked(n, o, st, attrs)
}

// errNoRoom is why an object is not loaded.
var errNoRoom = errors.New("there is no room for it in memory")

// maxSaid bounds the lines in the log about objects that cannot be used, after each load.
const maxSaid = 10

// spoilLocked makes o, whatever was before, an object that is none.
func (s *Store) spoilLocked(n format.Name, o *object, err error) {
	s.forgetLocked(n)
	if !s.fitsLocked(nameSize) {
		s.cut = true
		return
	}
	if s.said++; s.said <= maxSaid {
		s.cfg.Log.Warn("an object in etcd cannot be used", "prefix", s.cfg.Prefix, "name", n, "err", err)
	}
	s.setLocked(n, &object{bad: err, tag: o.tag, version: o.version, size: nameSize})
}

// checkLocked compares what is known with what the record says that there is.
func (s *Store) checkLocked(r *record) {
	was := s.wrong
	s.wrong = ""
	if s.sum != r.Sum && !s.cut {
		s.wrong = wrongObjects(len(s.objects), r.Objects)
	}
	if s.wrong != "" && was == "" {
		s.cfg.Log.Error("the objects in etcd are not those that the fleet has written", "prefix", s.cfg.Prefix, "why", s.wrong)
	}
}

// load loads the token as it is at one revision, which it returns.
func (s *Store) load(ctx context.Context) (rev int64, err error) {
	for {
		rev, err = s.loadOnce(ctx)
		if !errors.Is(err, errStale) {
			return rev, err
		}
	}
}

// errStale is why what was loaded is loaded again: this machine has made a change meanwhile.
var errStale = errors.New("it is older than what is known")

func (s *Store) loadOnce(ctx context.Context) (rev int64, err error) {
	s.mu.Lock()
	since := s.rev
	s.mu.Unlock()
	l, err := s.snapshot(ctx, since)
	if err != nil {
		return 0, err
	}
	if err := s.takeAll(l); err != nil {
		return 0, err
	}
	s.cfg.Contact.Seen(l.rev)
	return l.rev, nil
}

// snapshot is the token as it is at a revision, which is not before since.
func (s *Store) snapshot(ctx context.Context, since int64) (*loaded, error) {
	l, err := s.newestRecord(ctx, since)
	if err != nil {
		return nil, err
	}
	return l, s.loadValues(ctx, l)
}

// newestRecord is snapshot without the objects.
func (s *Store) newestRecord(ctx context.Context, since int64) (*loaded, error) {
	one, cancel := context.WithTimeout(ctx, s.cfg.times.answer)
	defer cancel()
	resp, err := s.cfg.Client.Get(one, s.recordKey())
	if err != nil {
		return nil, s.trouble("load the token", err)
	}
	l := &loaded{rev: resp.Header.Revision}
	switch {
	case l.rev < since:
		return nil, s.breakWith(s.putBack(fmt.Sprintf("revision %d", l.rev), fmt.Sprintf("revision %d", since)))
	case len(resp.Kvs) == 0:
		return nil, s.breakWith(s.absent())
	}
	if l.record, err = s.openRecord(resp.Kvs[0].Value); err != nil {
		return nil, s.breakWith(err)
	}
	l.at = resp.Kvs[0].ModRevision
	return l, nil
}

// A loaded is a token as it is at a revision.
type loaded struct {
	rev    int64
	record *record
	at     int64 // the record's revision
	values []*mvccpb.KeyValue
	cut    bool // there are more for which there is no room
}

// loadValues loads the values of all objects.
func (s *Store) loadValues(ctx context.Context, l *loaded) error {
	size := int64(0)
	from := s.objectsOf(l.record.ID)
	end := clientv3.GetPrefixRangeEnd(from)
	for {
		one, cancel := context.WithTimeout(ctx, s.cfg.times.answer)
		resp, err := s.cfg.Client.Get(one, from, clientv3.WithRange(end), clientv3.WithRev(l.rev), clientv3.WithLimit(pageSize))
		cancel()
		if err != nil {
			return s.trouble("load the objects", err)
		}
		for _, kv := range resp.Kvs {
			if size += nameSize + int64(len(kv.Value)); s.cfg.Room >= 0 && size > 2*s.cfg.Room {
				l.cut = true
				return nil
			}
			l.values = append(l.values, kv)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// breakWith has nobody use the token until it is loaded again, and returns err.
func (s *Store) breakWith(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil && s.record != nil {
		s.cfg.Log.Error("the token cannot be used", "prefix", s.cfg.Prefix, "err", err)
	}
	s.broken = err
	s.moveLocked()
	return err
}

// putBack is the error of etcd when it has less than this machine has seen.
func (s *Store) putBack(has, seen string) error {
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "etcd has %s of the token, and this machine has seen %s: somebody has put etcd back", has, seen),
		"if that was you, from a snapshot, restart p11fs on all machines; what was changed since is lost, PINs and destroyed keys are as they were then")
}

// takeAll makes what was loaded what is known. It refuses what is older than that.
func (s *Store) takeAll(l *loaded) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.rev < s.rev {
		return errStale
	}
	r, was := l.record, s.record
	if was != nil && (r.Count < was.Count || r.Count == was.Count && (r.ID != was.ID || r.Sum != was.Sum)) {
		s.broken = s.putBack(fmt.Sprintf("change %d", r.Count), fmt.Sprintf("change %d", was.Count))
		s.moveLocked()
		return s.broken
	}
	if was == nil {
		s.record = r // which the names of objects hang on
	}
	if s.record.ID != r.ID {
		s.removeAllLocked()
		s.logins.EndAllLocked()
	}
	codec, err := s.codecLocked()
	if err != nil {
		return err
	}
	seen := uint64(0) // the last change, of the same token
	if was != nil && was.ID == r.ID {
		seen = was.Count
	}
	there := make(map[format.Name]bool, len(l.values))
	s.foreign, s.said, s.cut = 0, 0, l.cut
	for _, kv := range l.values {
		n, ok := s.nameOf(r, kv)
		if !ok {
			s.foreign++
			continue
		}
		there[n] = true
		if o := s.objects[n]; o == nil || o.bad != nil || o.tag != s.tag(n, r, o.version, kv.Value) {
			s.takeValueLocked(codec, r, n, kv.Value, seen)
		}
	}
	for n := range s.objects {
		if !there[n] {
			s.forgetLocked(n)
		}
	}
	s.broken = nil
	s.checkLocked(r)
	s.setRecordLocked(r, l.at)
	return nil
}

// tag is the tag of an object's value.
func (s *Store) tag(n format.Name, r *record, version uint64, value []byte) [32]byte {
	return s.cfg.Key.Tag(seal.Place{Name: s.objectKey(r.ID, n), Token: r.ID, Version: version}, value)
}
