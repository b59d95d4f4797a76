package lease_test

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/lease"
	"p11fs/tokens/fleet/seal"
)

const (
	prefix = "/p11fs/test/"
	ttl    = 2 * time.Second
)

// A machine has a host and a watch, as a store has.
type machine struct {
	*lease.Host
	net *etcdtest.Host
	cli *clientv3.Client

	mu   sync.Mutex
	deaf bool // the watch goes on, and nobody takes in what it brings
	held int64
}

func newKey(t testing.TB) *seal.Key {
	t.Helper()
	k, err := seal.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// join starts a machine whose clock is off by so much.
func join(t testing.TB, c *etcdtest.Cluster, name string, off time.Duration) *machine {
	t.Helper()
	return joinFor(t, c, name, off, ttl)
}

// joinFor is join with a lease of its own length.
func joinFor(t testing.TB, c *etcdtest.Cluster, name string, off, ttl time.Duration) *machine {
	t.Helper()
	m := &machine{net: c.Host(t)}
	m.cli = m.net.Client(t)
	start := time.Now()
	h, err := lease.Join(t.Context(), lease.Config{
		Client: m.cli, Prefix: prefix, Key: newKey(t), Name: name, TTL: ttl,
		Log: slog.New(slog.DiscardHandler), Clock: func() time.Duration { return time.Since(start) + off },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Host = h
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.follow(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = h.Close()
	})
	return m
}

// follow watches, and begins again where a watch ends, or is to be anew.
func (m *machine) follow(ctx context.Context) {
	for at := int64(1); ctx.Err() == nil; {
		at = m.watch(ctx, at)
	}
}

func (m *machine) watch(ctx context.Context, at int64) int64 {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	again := m.Again()
	events := m.cli.Watch(ctx, prefix+"o/", clientv3.WithPrefix(), clientv3.WithRev(at), clientv3.WithProgressNotify())
	for {
		select {
		case <-again:
			return at
		case resp, ok := <-events:
			if !ok {
				return at
			}
			if rev := lease.Told(resp); rev > 0 {
				at = rev
				m.saw(at)
			}
		}
	}
}

func (m *machine) saw(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf {
		m.held = rev
		return
	}
	m.Seen(rev)
}

// listen has the machine take in what comes, or not.
func (m *machine) listen(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = !on
	if on && m.held > 0 {
		m.Seen(m.held)
	}
}

// until waits for something.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(etcdtest.Patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in %v", what, etcdtest.Patience)
		}
	}
}

func (m *machine) alive(t testing.TB) {
	t.Helper()
	until(t, "in contact", func() bool { return m.Alive() == nil })
}

// takeAway changes something.
func takeAway(t testing.TB, cli *clientv3.Client) int64 {
	t.Helper()
	for end := time.Now().Add(etcdtest.Patience); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		resp, err := cli.Put(ctx, prefix+"o/x", "")
		cancel()
		if err == nil {
			return resp.Header.Revision
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// settle settles in the background.
func (m *machine) settle(t testing.TB, rev int64) <-chan error {
	done := make(chan error, 1)
	go func() { done <- m.Settle(t.Context(), rev) }()
	return done
}

// TestContact takes away what other machines have in memory, while all kinds of things happen
// to them.
func TestContact(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("cluster", func(t *testing.T) {
		c := etcdtest.Start(t, 3)
		a, b := join(t, c, "a", 0), join(t, c, "b", 7*time.Hour)
		a.alive(t)
		b.alive(t)
		t.Run("Hosts", func(t *testing.T) {
			hosts, err := a.Hosts(t.Context())
			if err != nil || len(hosts) != 2 || hosts[0].Name+hosts[1].Name != "ab" && hosts[0].Name+hosts[1].Name != "ba" {
				t.Errorf("%+v, %v", hosts, err)
			}
		})
		t.Run("acknowledged", func(t *testing.T) {
			if err := <-a.settle(t, takeAway(t, a.cli)); err != nil {
				t.Error(err)
			}
		})
		t.Run("lost", func(t *testing.T) { testLost(t, c, a) })
		t.Run("members end", func(t *testing.T) {
			for i := range 3 {
				c.Kill(i)
				if err := <-a.settle(t, takeAway(t, a.cli)); err != nil {
					t.Error(err)
				}
				c.Restart(i)
			}
			a.alive(t)
			b.alive(t)
		})
		t.Run("most members end", func(t *testing.T) { testOnce(t, c, a, b) })
		t.Run("leaves", func(t *testing.T) {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if b.Alive() == nil {
				t.Error("a host that has left may use keys")
			}
			if err := <-a.settle(t, takeAway(t, a.cli)); err != nil {
				t.Error(err)
			}
		})
	})
	until(t, "no goroutine left", func() bool { return runtime.NumGoroutine() <= before })
}

// testLost has machines lose contact, each in its own way: a waits for all of them, and none
// may use keys once a goes on. They come back by themselves.
func testLost(t *testing.T, c *etcdtest.Cluster, a *machine) {
	lost := map[string]*machine{}
	for _, way := range []string{"is cut off", "cannot send", "cannot hear", "takes nothing in"} {
		lost[way] = join(t, c, way, -5*time.Hour)
	}
	for _, m := range lost {
		m.alive(t)
	}
	lost["is cut off"].net.Cut(true, true)
	lost["cannot send"].net.Cut(true, false)
	lost["cannot hear"].net.Cut(false, true)
	lost["takes nothing in"].listen(false)
	if err := <-a.settle(t, takeAway(t, a.cli)); err != nil {
		t.Error(err)
	}
	for way, m := range lost {
		err := m.Alive()
		if err == nil {
			t.Errorf("who %s may use keys after a has gone on", way)
			continue
		}
		if left := m.Left(); left < 0 || left > ttl {
			t.Errorf("who %s has %v left", way, left)
		}
		if p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), "no contact with the fleet since 2") {
			t.Errorf("who %s says %v", way, err)
		}
	}
	for _, m := range lost {
		m.net.Heal()
		m.listen(true)
	}
	for _, m := range lost {
		m.alive(t)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// testOnce has etcd be without majority, after which it has the leases that it had: a machine whose lease it has
// still is there once, under its new one.
func testOnce(t *testing.T, c *etcdtest.Cluster, a, b *machine) {
	was := a.ID()
	for i := range 2 {
		c.Kill(i)
	}
	until(t, "the lease given up", func() bool { return a.ID() == "" })
	for i := range 2 {
		c.Restart(i)
	}
	until(t, "contact again", func() bool { return a.ID() != "" })
	hosts, err := a.Hosts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, h := range hosts {
		names[h.Name]++
		if h.ID == was {
			t.Error("the record of the lease that was lost is there beside the new one")
		}
	}
	if names["a"] != 1 {
		t.Errorf("hosts: %v", names)
	}
	a.alive(t)
	b.alive(t)
}

// TestSoon is that who has taken a lease uses keys once the changes come, and not when the lease
// is to be renewed, which here is after two minutes.
func TestSoon(t *testing.T) {
	joinFor(t, etcdtest.Start(t, 1), "a", 0, 10*time.Minute).alive(t)
}

// TestWaits is that who has taken something away goes on only when the others have it.
func TestWaits(t *testing.T) {
	c := etcdtest.Start(t, 1)
	a, b := join(t, c, "a", 0), join(t, c, "b", 0)
	a.alive(t)
	b.alive(t)
	b.listen(false)
	rev := takeAway(t, a.cli)
	done := a.settle(t, rev)
	select {
	case err := <-done:
		if b.Alive() == nil {
			t.Error("a has gone on while b may use what is taken away", err)
		}
	case <-time.After(50 * time.Millisecond):
		b.listen(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestManyHosts is how long taking something away takes with ten hosts.
func TestManyHosts(t *testing.T) {
	c := etcdtest.Start(t, 3)
	var all []*machine
	for range 10 {
		all = append(all, join(t, c, "host", 0))
	}
	for _, m := range all {
		m.alive(t)
	}
	least := time.Hour
	for range 10 {
		start := time.Now()
		if err := <-all[0].settle(t, takeAway(t, all[0].cli)); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(start))
	}
	t.Logf("a change with ten hosts, and all have acknowledged it: %v", least)
	hosts, err := all[0].Hosts(t.Context())
	if err != nil || len(hosts) != len(all) {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
}

// TestStrangerAcknowledges is that whoever writes etcd without the key cannot acknowledge for a host, and
// cannot have it believed that a host is not there by writing over it.
func TestStrangerAcknowledges(t *testing.T) {
	c := etcdtest.Start(t, 1)
	a, b := join(t, c, "a", 0), join(t, c, "b", 0)
	a.alive(t)
	b.alive(t)
	b.listen(false)
	rev := takeAway(t, a.cli)
	cli := c.Client(t)
	records, err := cli.Get(t.Context(), prefix+"hosts/", clientv3.WithPrefix())
	if err != nil || len(records.Kvs) != 2 {
		t.Fatal(records, err)
	}
	for i, kv := range records.Kvs { // each gets the other's
		if _, err := cli.Put(t.Context(), string(kv.Key), string(records.Kvs[1-i].Value), clientv3.WithIgnoreLease()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cli.Put(t.Context(), prefix+"wanted", "nonsense"); err != nil {
		t.Fatal(err)
	}
	if err := <-a.settle(t, rev); err == nil && b.Alive() == nil {
		t.Error("a has gone on while b may use what is taken away")
	}
}

func BenchmarkAlive(b *testing.B) {
	c := etcdtest.Start(b, 1)
	h, err := lease.Join(b.Context(), lease.Config{Client: c.Client(b), Prefix: prefix, Key: newKey(b), Name: "a", TTL: ttl, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	h.Seen(1 << 40)
	for b.Loop() {
		_ = h.Alive()
	}
}
