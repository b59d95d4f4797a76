package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/tokens/fleet/seal"
)

// A lease is one that etcd has granted.
type lease struct {
	id  clientv3.LeaseID
	key string        // of the record
	rev int64         // at which the record was made
	ttl time.Duration // which etcd may have made longer
}

// The longest wait for etcd when a lease is taken, and between two tries.
const (
	answerTime = 5 * time.Second
	retryTime  = time.Second
)

// register takes a lease, and writes the record that others wait for.
func (h *Host) register(ctx context.Context) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	asked := h.cfg.Clock()
	grant, err := h.cfg.Client.Grant(ctx, int64((h.cfg.TTL+time.Second-1)/time.Second))
	if err != nil {
		return nil, err
	}
	l := &lease{id: grant.ID, key: h.recordKey(grant.ID), ttl: time.Duration(grant.TTL) * time.Second}
	op, err := h.record(l.key, l.id, 0)
	if err != nil {
		return nil, err
	}
	// The record comes in the place of those of earlier leases, which etcd may still have:
	// under these no key is used any more.
	ops := []clientv3.Op{op}
	for _, key := range h.left {
		ops = append(ops, clientv3.OpDelete(key))
	}
	put, err := h.cfg.Client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		h.revoke(l)
		return nil, err
	}
	l.rev, h.left = put.Header.Revision, nil
	h.mu.Lock()
	defer h.mu.Unlock()
	h.key, h.start, h.acked, h.wanted, h.why = l.key, l.rev, 0, 0, nil
	h.renewedLocked(asked, l.ttl)
	return l, nil
}

// renewedLocked has the lease count from the moment it was asked for.
func (h *Host) renewedLocked(asked, ttl time.Duration) {
	h.deadline = asked + ttl - ttl/8
	h.contact, h.trouble = time.Now(), nil
	h.countLocked()
}

// maxLeft is how many earlier records the next one replaces: those of more are of leases that
// have ended since.
const maxLeft = 16

// revoke gives back a lease under which no key is used any more. Where it fails the lease ends
// by itself, and its record with the next one.
func (h *Host) revoke(l *lease) {
	ctx, cancel := context.WithTimeout(context.Background(), retryTime)
	defer cancel()
	if _, err := h.cfg.Client.Revoke(ctx, l.id); err != nil {
		h.left = append(h.left[max(0, len(h.left)-maxLeft+1):], l.key)
	}
}

// run holds one lease after the other until ctx ends.
func (h *Host) run(ctx context.Context, l *lease) {
	for {
		err := h.hold(ctx, l)
		h.mu.Lock()
		h.until.Store(never)
		h.key, h.why = "", err
		h.mu.Unlock()
		h.revoke(l)
		if ctx.Err() != nil {
			return
		}
		h.cfg.Log.Warn("no contact with the fleet: keys are not used until it is back", "prefix", h.cfg.Prefix, "err", err)
		for {
			if l, err = h.registerOrTell(ctx); err == nil {
				break
			}
			select {
			case <-time.After(retryTime):
			case <-ctx.Done():
				return
			}
		}
		h.cfg.Log.Info("in contact with the fleet again", "prefix", h.cfg.Prefix)
	}
}

// registerOrTell is register, which notes meanwhile what keeps this machine from etcd.
func (h *Host) registerOrTell(ctx context.Context) (*lease, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var asked sync.WaitGroup
	asked.Go(func() {
		if h.cfg.Trouble != nil {
			h.troubled(h.cfg.Trouble(asking))
		}
	})
	l, err := h.register(ctx)
	if err == nil {
		stop()
	}
	asked.Wait()
	if Full(err) {
		h.troubled(errFull)
	}
	return l, err
}

func (h *Host) troubled(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble = why
}

// hold keeps a lease and acknowledges changes until it cannot. It returns why.
func (h *Host) hold(ctx context.Context, l *lease) error {
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)
	again, at := h.Again(), l.rev // up to which all that is wanted was heard of
	wanted, hosts, stop := h.watch(ctx, at)
	defer func() { stop() }()
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		cancel(h.beat(ctx, l))
	}()
	defer func() { cancel(nil); <-beats }()
	var room <-chan time.Time // when etcd, which was full, is asked again
	for {
		// What was seen is looked at before what may have changed meanwhile.
		h.mu.Lock()
		moved, due := h.moved, h.wanted > h.acked && h.seen >= h.start && h.seen > h.acked
		h.mu.Unlock()
		if due && room == nil {
			switch err := h.acknowledge(ctx, l); {
			case Full(err):
				// Keys are used on: what was changed is here, and whoever has changed it waits.
				room = time.After(pollTime)
			case err != nil:
				return err
			}
		}
		select {
		case <-room:
			room = nil
		case resp, ok := <-wanted:
			if err := ended(ctx, resp, ok); err != nil {
				return err
			}
			h.want(resp)
			at = max(at, Told(resp))
		case resp, ok := <-hosts:
			if err := ended(ctx, resp, ok); err != nil {
				return err
			}
			if len(resp.Events) > 0 {
				h.announce()
			}
		case <-again:
			again = h.Again()
			stop()
			wanted, hosts, stop = h.watch(ctx, at)
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch watches what is wanted, and the records of hosts, from a revision on. Both watches and the
// Store's are on one stream: see renew.
func (h *Host) watch(ctx context.Context, rev int64) (wanted, hosts clientv3.WatchChan, stop func()) {
	ctx, stop = context.WithCancel(ctx)
	wanted = h.cfg.Client.Watch(ctx, h.wanting(), clientv3.WithRev(rev), clientv3.WithProgressNotify())
	hosts = h.cfg.Client.Watch(ctx, h.hosts(), clientv3.WithPrefix(), clientv3.WithRev(rev), clientv3.WithProgressNotify())
	return wanted, hosts, stop
}

// Told is the revision up to which a watch has told all with a response, 0 if that says nothing
// of it: the header of events may be of a later revision than they are.
func Told(resp clientv3.WatchResponse) int64 {
	switch n := len(resp.Events); {
	case n > 0:
		return resp.Events[n-1].Kv.ModRevision
	case resp.IsProgressNotify():
		return resp.Header.Revision
	}
	return 0
}

// ended returns why a watch is over.
func ended(ctx context.Context, resp clientv3.WatchResponse, ok bool) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !ok:
		return errors.New("a watch has ended")
	}
	return resp.Err()
}

// want notes what somebody waits for.
func (h *Host) want(resp clientv3.WatchResponse) {
	for _, e := range resp.Events {
		_, rev, err := h.cfg.Key.Open(h.wanting(), [16]byte{}, e.Kv.Value)
		if err != nil {
			h.cfg.Log.Warn("somebody without the fleet's key asks for an acknowledgement", "prefix", h.cfg.Prefix, "err", err)
			continue
		}
		h.mu.Lock()
		h.wanted = max(h.wanted, int64(rev))
		h.mu.Unlock()
	}
}

// announce wakes those who wait for a record to change.
func (h *Host) announce() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

// acknowledge writes what is seen.
func (h *Host) acknowledge(ctx context.Context, l *lease) error {
	select { // what was seen earlier is not written later
	case h.acking <- struct{}{}:
		defer func() { <-h.acking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h.mu.Lock()
	seen := h.acked
	if h.seen >= h.start {
		seen = h.seen
	}
	h.mu.Unlock()
	op, err := h.record(l.key, l.id, seen)
	if err != nil {
		return err
	}
	one, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	if _, err := h.cfg.Client.Do(one, op); err != nil {
		return fmt.Errorf("acknowledge a change: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = max(h.acked, seen)
	return nil
}

// beat renews the lease until it cannot be, as long as the stream of changes lives.
func (h *Host) beat(ctx context.Context, l *lease) error {
	every := l.ttl / 5
	last := h.cfg.Clock() // when the lease was surely there
	// The first time comes soon: keys are not used until it is known that all is here from before it.
	for wait := min(every, 50*time.Millisecond); ; wait = every {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		asked := h.cfg.Clock()
		err := h.renew(ctx, l, every)
		switch {
		case err == nil:
			last = asked
			h.mu.Lock()
			h.renewedLocked(asked, l.ttl)
			h.mu.Unlock()
		case errors.Is(err, rpctypes.ErrLeaseNotFound) || h.cfg.Clock()-last > l.ttl:
			return err
		}
	}
}

// errSilent is why a lease is not renewed that could be.
var errSilent = errors.New("what the others change is not heard of")

// renew renews the lease once, if the changes come.
func (h *Host) renew(ctx context.Context, l *lease, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := h.hear(ctx, patience/3)
	if errors.Is(err, errSilent) {
		// etcd says nothing of how far it is to a watch that begins at a revision yet to
		// come, as it does where a connection was made anew. This makes it come. Where etcd is
		// full none comes, and all watch anew from one that is there.
		if err = h.acknowledge(ctx, l); Full(err) {
			h.watchAgain()
			err = nil
		}
		if err == nil {
			err = h.hear(ctx, patience)
		}
	}
	if err != nil {
		return err
	}
	resp, err := h.cfg.Client.KeepAliveOnce(ctx, l.id)
	if err == nil && resp.TTL <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	return err
}

// watchAgain has all that watch begin anew.
func (h *Host) watchAgain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.again)
	h.again = make(chan struct{})
}

// hear asks how far the stream of changes is, and waits until the Store has it.
func (h *Host) hear(ctx context.Context, patience time.Duration) error {
	h.mu.Lock()
	moved := h.moved
	h.mu.Unlock()
	if err := h.cfg.Client.RequestProgress(ctx); err != nil {
		return err
	}
	select {
	case <-moved:
		return nil
	case <-time.After(patience):
	case <-ctx.Done():
	}
	return errSilent
}

// ask has all hosts acknowledge a revision, and returns those that there are.
func (h *Host) ask(ctx context.Context, rev int64) ([]Info, error) {
	sealed, err := h.cfg.Key.Seal(seal.Place{Name: h.wanting(), Version: uint64(rev)}, nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.cfg.Client.Txn(ctx).Then(clientv3.OpPut(h.wanting(), string(sealed)), clientv3.OpGet(h.hosts(), clientv3.WithPrefix())).Commit()
	if err != nil {
		return nil, err
	}
	return h.infos((*clientv3.GetResponse)(resp.Responses[1].GetResponseRange()))
}
