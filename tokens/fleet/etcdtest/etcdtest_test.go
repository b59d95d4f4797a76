package etcdtest_test

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/tokens/fleet/etcdtest"
)

// within is a context for what has to come at last.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), etcdtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// again calls f until it gives no error: what etcd was asked while its leader ended may fail.
func again(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx := within(t)
	for {
		one, cancel := context.WithTimeout(ctx, time.Second)
		err := f(one)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, cli *clientv3.Client, key, value string) {
	t.Helper()
	again(t, func(ctx context.Context) error {
		_, err := cli.Put(ctx, key, value)
		return err
	})
}

func want(t *testing.T, cli *clientv3.Client, key, value string) {
	t.Helper()
	again(t, func(ctx context.Context) error {
		r, err := cli.Get(ctx, key)
		if err == nil && (len(r.Kvs) != 1 || string(r.Kvs[0].Value) != value) {
			t.Fatalf("%s is %v, want %q", key, r.Kvs, value)
		}
		return err
	})
}

// stuck fails if a read gets through.
func stuck(t *testing.T, cli *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := cli.Get(ctx, "a"); err == nil {
		t.Fatal("a host that is cut off has an answer")
	}
}

// TestCluster ends members, starts them again and cuts links; nothing is lost, and nothing
// of it all is left when the test is over.
func TestCluster(t *testing.T) {
	t.Run("cluster", func(t *testing.T) {
		c := etcdtest.Start(t, 3)
		cli := c.Client(t)
		put(t, cli, "a", "1")
		for i := range 3 { // the leader is among them
			c.Kill(i)
			put(t, cli, "a", string(rune('x'+i)))
			c.Restart(i)
		}
		want(t, cli, "a", "z")

		h := c.Host(t)
		mine := h.Client(t)
		want(t, mine, "a", "z")
		for _, cut := range [][2]bool{{true, true}, {true, false}, {false, true}} {
			h.Cut(cut[0], cut[1])
			stuck(t, mine)
			put(t, cli, "a", "others go on")
			h.Heal()
			want(t, mine, "a", "others go on")
		}
		// One way to one member is enough of a way.
		h.CutFrom(0, true, true)
		h.CutFrom(1, true, false)
		want(t, h.Client(t), "a", "others go on")
	})
	leftover(t)
}

// leftover fails if etcd still runs.
func leftover(t *testing.T) {
	t.Helper()
	var stacks string
	for end := time.Now().Add(etcdtest.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b := make([]byte, 1<<20)
		stacks = string(b[:runtime.Stack(b, true)])
		if !strings.Contains(stacks, "go.etcd.io/") && !strings.Contains(stacks, "etcdtest.(*link)") {
			return
		}
	}
	t.Errorf("left over:\n%s", bytes.TrimSpace([]byte(stacks)))
}
