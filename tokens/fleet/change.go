package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/fleet/conf"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store/format"
)

// A times is how long something may take.
type times struct {
	answer time.Duration // one answer of etcd, which elects a leader meanwhile
	change time.Duration // all of a change, which is sent again
	come   time.Duration // until what others have changed is here
	find   time.Duration // the same, where an answer without it does as well
	trial  time.Duration // a PIN that another machine tries, before it counts as wrong
}

func usualTimes() times {
	return times{answer: 5 * time.Second, change: 15 * time.Second, come: 15 * time.Second, find: time.Second, trial: 20 * time.Second}
}

// maxTogether bounds the objects of one change: etcd takes 128 operations in a transaction.
const maxTogether = 100

// errLost is returned by attempt when another machine has changed something before.
var errLost = errors.New("another machine was first")

// An edit is a change on its way: the next record, and objects.
type edit struct {
	record *record
	puts   []*putting
	ops    []clientv3.Op
	gone   []format.Name
	all    bool // all objects go
	store  *Store
}

// A putting is an object that is put.
type putting struct {
	name   format.Name
	object object // as it will be
	attrs  p11.Attributes
	stored stored
}

// put has an object be written, in place of old, which is nil for a new one. The attrs are
// the object's afterwards.
func (e *edit) put(n format.Name, old *object, st stored, attrs p11.Attributes) error {
	s := e.store
	plain := st.print()
	defer secret.Wipe(plain)
	key := s.objectKey(e.record.ID, n)
	place := seal.Place{Name: key, Token: e.record.ID, Version: e.record.Count}
	sealed, err := s.cfg.Key.Seal(place, plain)
	if err != nil {
		return err
	}
	o := object{version: place.Version, tag: s.cfg.Key.Tag(place, sealed), private: attrs.Bool(p11.CKA_PRIVATE), size: nameSize + int64(len(plain))}
	if old != nil {
		xor(&e.record.Sum, old.tag)
	} else {
		e.record.Objects++
	}
	xor(&e.record.Sum, o.tag)
	e.puts = append(e.puts, &putting{n, o, attrs, st})
	e.ops = append(e.ops, clientv3.OpPut(key, string(sealed)))
	return nil
}

// remove has an object be removed.
func (e *edit) remove(n format.Name, old *object) {
	xor(&e.record.Sum, old.tag)
	e.record.Objects--
	e.gone = append(e.gone, n)
	e.ops = append(e.ops, clientv3.OpDelete(e.store.objectKey(e.record.ID, n)))
}

// removeAll has all objects be removed.
func (e *edit) removeAll() {
	e.record.Objects, e.record.Sum = 0, [32]byte{}
	e.all = true
	e.ops = append(e.ops, clientv3.OpDelete(e.store.all(), clientv3.WithPrefix()))
}

// begin begins a change of this machine, one at a time; end ends it.
func (s *Store) begin(ctx context.Context) (end func(), err error) {
	if _, _, err := s.current(ctx); err != nil {
		return nil, err
	}
	select {
	case s.changing <- struct{}{}:
		return func() { <-s.changing }, nil
	case <-ctx.Done():
		return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", ctx.Err())
	}
}

// change makes a change, and begins again as often as another machine was first. make is
// called with what is newest; an error of it ends all with nothing changed. It returns the
// revision at which the change is there. The caller has begun.
func (s *Store) change(ctx context.Context, make func(*edit) error) (int64, error) {
	for {
		rev, err := s.attempt(ctx, make)
		if !errors.Is(err, errLost) {
			return rev, err
		}
	}
}

// attempt is change once. After errLost what was first is here.
func (s *Store) attempt(ctx context.Context, make func(*edit) error) (int64, error) {
	was, rev, err := s.current(ctx)
	if err != nil {
		return 0, err
	}
	if err := s.cfg.Contact.Alive(); err != nil {
		return 0, err
	}
	e := &edit{record: was.clone(), store: s}
	e.record.Count++
	if err := make(e); err != nil {
		return 0, err
	}
	s.number++
	e.record.wrote(s.who, s.number)
	op, err := s.putRecord(e.record)
	if err != nil {
		return 0, err
	}
	at, err := s.commit(ctx, rev, append(e.ops, op))
	switch {
	case errors.Is(err, errLost):
		if werr := s.waitFor(ctx, at); werr != nil {
			return 0, werr
		}
		return 0, err
	case errors.Is(err, errEarlier):
		return at, s.waitFor(context.WithoutCancel(ctx), at)
	case err != nil:
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeOwnLocked(e, at)
	return at, nil
}

// errEarlier is returned by commit for a transaction that had happened when its answer was
// lost, and after which others may have come.
var errEarlier = errors.New("it has happened already")

// commit sends a transaction until there is an answer. It returns the revision at which it
// happened; or errLost or errEarlier, and a revision that is to be waited for. Whoever waits
// for the change may give up before it is sent, and no more after.
func (s *Store) commit(ctx context.Context, rev int64, ops []clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.times.change)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		at, err := s.send(ctx, rev, ops)
		var ours p11.RV
		if err == nil || errors.Is(err, errLost) || errors.Is(err, errEarlier) || refused(err) || errors.As(err, &ours) {
			return at, s.trouble("change the token", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, p11.Advise(fmt.Errorf("whether the change was made is not known: %w", s.trouble("change the token", err)),
				"look whether it is there once etcd answers again, and make it again if it is not")
		}
	}
}

// send sends a transaction once.
func (s *Store) send(ctx context.Context, rev int64, ops []clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.times.answer)
	defer cancel()
	key := s.recordKey()
	resp, err := s.cfg.Client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(ops...).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, err
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return 0, s.absent()
	}
	now, err := s.openRecord(kvs[0].Value)
	if err != nil {
		return 0, err
	}
	if now.lastOf(s.who) == s.number {
		return kvs[0].ModRevision, errEarlier
	}
	return kvs[0].ModRevision, errLost
}

// openRecord opens the value of a record.
func (s *Store) openRecord(value []byte) (*record, error) {
	plain, version, err := s.cfg.Key.Open(s.recordKey(), [16]byte{}, value)
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "the token's record in etcd was not written with this key of the fleet: %w", err),
			"compare the seal key file with that of a machine that works; if the record was written over, put etcd back from a snapshot")
	}
	r, err := parseRecord(s.cfg.Format, plain)
	if err == nil && r.Count != version {
		err = p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "the token's record has the number of another change inside")
	}
	return r, err
}

// waitFor waits until all changes up to a revision are here. Where they come late, from a member
// that is slow, all is loaded from another one.
func (s *Store) waitFor(ctx context.Context, rev int64) error {
	late := time.NewTimer(s.cfg.times.come)
	defer late.Stop()
	most := s.cfg.times.come / 5
	wait := min(conf.SlowAnswer, most)
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		s.mu.Lock()
		err, here, moved, lost := s.usableLocked(), s.rev >= rev, s.moved, s.lost
		s.mu.Unlock()
		if err != nil || here {
			return err
		}
		select {
		case <-moved:
		case <-again.C:
			s.loadAnew()
			wait = min(2*wait, most)
			again.Reset(wait)
		case <-ctx.Done():
			return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", ctx.Err())
		case <-late.C:
			return s.silence(lost)
		}
	}
}

// loadAnew asks the follower to load all.
func (s *Store) loadAnew() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// moveLocked wakes those who wait for changes.
func (s *Store) moveLocked() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// takeOwnLocked makes a change that this machine has made at a revision what is known, unless
// the follower was faster, or has to load it: what was restored is of an earlier change than
// this one, and of a token of which nothing is known.
func (s *Store) takeOwnLocked(e *edit, at int64) {
	restored := e.record.ID != s.record.ID && e.record.Objects > 0
	if s.rev >= at || restored {
		for _, p := range e.puts {
			p.attrs.Wipe()
		}
		return
	}
	if e.all {
		s.removeAllLocked()
	}
	for _, n := range e.gone {
		s.forgetLocked(n)
	}
	for _, p := range e.puts {
		s.takeLocked(p.name, &p.object, p.stored, p.attrs)
	}
	s.setRecordLocked(e.record, at)
}

// setRecordLocked makes r the newest record.
func (s *Store) setRecordLocked(r *record, rev int64) {
	if s.record != nil && s.record.ID != r.ID {
		s.logins.EndAllLocked()
	}
	s.record, s.rev = r, rev
	s.logins.EndInvalidLocked()
	for by := range s.trials {
		if !slices.ContainsFunc(r.Trials, func(t trial) bool { return t.By == by }) {
			delete(s.trials, by)
		}
	}
	for _, t := range r.Trials {
		if _, ok := s.trials[t.By]; !ok {
			s.trials[t.By] = time.Now()
		}
	}
	s.moveLocked()
}
