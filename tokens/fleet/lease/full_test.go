package lease_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/lease"
)

// A heldKV is the way to etcd of a machine whose acknowledgements wait for a gate to open.
type heldKV struct {
	clientv3.KV
	gate    chan struct{}
	come    chan struct{} // closed when there is one
	coming  sync.Once
	refused atomic.Int64 // for want of room
}

func (k *heldKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	k.coming.Do(func() { close(k.come) })
	select {
	case <-k.gate:
	case <-ctx.Done():
		return clientv3.OpResponse{}, ctx.Err()
	}
	resp, err := k.KV.Do(ctx, op)
	if lease.Full(err) {
		k.refused.Add(1)
	}
	return resp, err
}

// renewed waits until the lease is.
func (m *machine) renewed(t testing.TB) {
	t.Helper()
	left := m.Left()
	until(t, "renewed", func() bool { now := m.Left(); grown := now > left; left = now; return grown })
}

// TestFull is that an etcd that is full cuts no machine off from its keys: one that cannot write that it
// has heard of a change tries again, under the same lease, which goes on, and whoever has made
// the change waits for it. A machine that would join is told what to do.
func TestFull(t *testing.T) {
	// Whoever loses his lease here gets none, and so this one outlives a machine that stands still.
	const ttl = 10 * time.Second
	c := etcdtest.Start(t, 1)
	a, b := joinFor(t, c, "a", 0, ttl), joinFor(t, c, "b", 0, ttl)
	a.alive(t)
	b.alive(t)
	held := &heldKV{KV: b.cli.KV, gate: make(chan struct{}), come: make(chan struct{})}
	b.cli.KV = held
	was := b.ID()
	done := a.settle(t, takeAway(t, a.cli))
	<-held.come // b is to acknowledge it
	c.Full(t)
	close(held.gate)

	until(t, "tried again", func() bool { return held.refused.Load() > 2 })
	b.renewed(t)
	c.Kill(0) // and comes again: connections are made anew, and no revision comes
	c.Restart(0)
	b.renewed(t)
	b.renewed(t)
	if err := b.Alive(); err != nil || b.ID() != was {
		t.Errorf("a full etcd: %v, and the lease is %q, not %q", err, b.ID(), was)
	}
	select {
	case err := <-done:
		t.Errorf("a has gone on, and b has not said that it knows: %v", err)
	default:
	}
	_, err := lease.Join(t.Context(), lease.Config{Client: c.Client(t), Prefix: prefix, Key: newKey(t), Name: "c", TTL: ttl, Log: slog.New(slog.DiscardHandler)})
	if p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), "etcd is full") || !strings.Contains(p11.AdviceOf(err), "alarm disarm") {
		t.Errorf("joining a full etcd: %v (%s)", err, p11.AdviceOf(err))
	}

	c.Room(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := b.Alive(); err != nil || b.ID() != was {
		t.Errorf("there is room: %v, and the lease is %q, not %q", err, b.ID(), was)
	}
}

// TestFullComesBack is that a machine that has no lease any more says of an etcd that is full what to
// do, and comes back once there is room.
func TestFullComesBack(t *testing.T) {
	c := etcdtest.Start(t, 1)
	a := join(t, c, "a", 0)
	a.alive(t)
	c.Full(t)
	a.net.Cut(true, true)
	until(t, "the lease given up", func() bool { return a.ID() == "" })
	a.net.Heal()
	until(t, "the reason", func() bool { return strings.Contains(p11.AdviceOf(a.Alive()), "alarm disarm") })
	if err := a.Alive(); p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), "etcd is full") {
		t.Error(err)
	}
	c.Room(t)
	a.alive(t)
}
