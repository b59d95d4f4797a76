package fleet

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/historytest"
	"p11fs/tokens/fleet/lease"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// It begins when the cluster and the machines are there; a shorter one has seen nobody lose contact.
var historyTime = flag.Duration("history", 3*time.Second, "how long TestHistories goes on")

// The history of one token on three machines.
const (
	historyHosts = 3
	historyLease = 2 * time.Second
	historyUsers = 3 // of each machine
)

// An historyHost is a machine with the token.
type historyHost struct {
	t      *testing.T
	n      int
	net    *etcdtest.Host
	store  *Store
	crypto *swtok.Crypto
}

// TestHistories has three machines create, change, find, use and destroy objects and change
// PINs, while members of etcd end and begin, links are cut one way and both, and the clocks of
// the machines are hours apart. What they have seen must be a history of one token.
func TestHistories(t *testing.T) {
	hs := newHosts(t, 3)
	w := &world{World: historytest.NewWorld(), t: t}
	for i := range historyHosts {
		w.hosts = append(w.hosts, hs.historyHost(t, i))
	}
	ready(t, w.hosts[0].store)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range w.hosts {
		for range historyUsers {
			wg.Go(func() { w.Use(ctx, h) })
		}
	}
	wg.Go(func() { w.changePINs(ctx) })
	wg.Go(func() { w.trouble(ctx, hs.cluster) })
	time.Sleep(*historyTime)
	for end := time.Now().Add(etcdtest.Patience); len(historytest.Missing(historytest.Counts(w.Ops()))) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	for _, h := range w.hosts {
		for end := time.Now().Add(etcdtest.Patience); h.store.Sync(context.Background()) != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if err := w.Last(etcdtest.Patience, h); err != nil {
			t.Fatal(err)
		}
	}
	w.check()
}

// historyHost opens the token on a machine of its own, whose clock is hours off.
func (h *hosts) historyHost(t *testing.T, n int) *historyHost {
	t.Helper()
	net := h.cluster.Host(t)
	client := net.Client(t)
	cfg := h.config(t, client, "/p11fs/history/")
	off := time.Duration(n*7-5) * time.Hour
	cfg.Now = func() time.Time { return time.Now().Add(off) }
	cfg.times.answer, cfg.times.change, cfg.times.come, cfg.times.find = time.Second, 3*time.Second, 3*time.Second, 300*time.Millisecond
	start := time.Now()
	contact := must[*lease.Host](t)(lease.Join(t.Context(), lease.Config{
		Client: client, Prefix: cfg.Prefix, Key: h.key, Name: fmt.Sprint("host", n), TTL: historyLease,
		Log: cfg.Log, Clock: func() time.Duration { return time.Since(start) + off },
	}))
	t.Cleanup(func() { _ = contact.Close() })
	cfg.Contact = contact
	s := h.openWith(t, cfg)
	for end := time.Now().Add(etcdtest.Patience); s.Offline() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(s.Offline())
		}
	}
	return &historyHost{t, n, net, s, swtok.NewCrypto(swtok.LoadProvider(slog.New(slog.DiscardHandler)), nil)}
}

// A world is the machines, and what they have seen.
type world struct {
	*historytest.World
	t     *testing.T
	hosts []*historyHost
}

// said is an error of a Store as one of a history.
func said(err error) error {
	switch {
	case errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID):
		return historytest.ErrAbsent
	case errors.Is(err, p11.CKR_PIN_INCORRECT):
		return historytest.ErrWrong
	}
	return err
}

// Host is historytest.Client.
func (h *historyHost) Host() int { return h.n }

// Door is historytest.Client.
func (h *historyHost) Door() string { return "store" }

// Create is historytest.Client.
func (h *historyHost) Create(name, value string) error {
	_, err := h.store.Create(context.Background(), historyKey(name, value))
	return said(err)
}

// Destroy is historytest.Client.
func (h *historyHost) Destroy(name string) error {
	o, err := h.lookUp(name)
	if err == nil {
		err = h.store.Destroy(context.Background(), o.Handle, func(p11.Attributes) error { return nil })
	}
	return said(err)
}

// historyKey is a key by whose signature it is known.
func historyKey(name, value string) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
		{Type: p11.CKA_SIGN, Value: p11.Bool(true)},
		{Type: p11.CKA_LABEL, Value: []byte(name)},
		{Type: p11.CKA_ID, Value: []byte(value)},
		{Type: p11.CKA_VALUE, Value: []byte("the key of " + name)},
	}
}

// lookUp finds an object as the engine does before it is used: in memory, if that may be.
func (h *historyHost) lookUp(name string) (*tokens.Object, error) {
	if err := h.store.Refresh(context.Background()); err != nil {
		return nil, err
	}
	found, err := h.store.Lookup.Find(context.Background(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(name)}}, true)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, p11.CKR_OBJECT_HANDLE_INVALID
	case len(found) > 1:
		return nil, fmt.Errorf("there are %d objects %s", len(found), name)
	}
	return found[0], nil
}

// Find is historytest.Client.
func (h *historyHost) Find(name string) (string, error) {
	for {
		o, err := h.lookUp(name)
		if err != nil {
			return "", said(err)
		}
		attrs, err := o.Acquire()
		if err != nil {
			continue // another version is there, or none
		}
		defer o.Release()
		id, _ := attrs.Get(p11.CKA_ID)
		return string(id), nil
	}
}

// Change is historytest.Client.
func (h *historyHost) Change(name, value string) error {
	o, err := h.lookUp(name)
	if err != nil {
		return said(err)
	}
	_, err = h.store.Update(context.Background(), o.Handle, func(old p11.Attributes) (p11.Attributes, error) {
		return old.Clone().With(p11.CKA_ID, []byte(value)), nil
	})
	return said(err)
}

// errVersion is of an object of which there is another version by now, or none, and says nothing.
var errVersion = errors.New("it has changed meanwhile")

// Sign is historytest.Client.
func (h *historyHost) Sign(name string) error {
	ctx := context.Background()
	if err := h.store.Offline(); err != nil {
		return err
	}
	o, err := h.lookUp(name)
	if err != nil {
		return said(err)
	}
	op, err := h.crypto.Begin(ctx, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o)
	if err != nil {
		return errVersion
	}
	defer op.Close()
	if _, err := op.Update(ctx, []byte("message")); err != nil {
		return err
	}
	sig, err := op.Final(ctx, nil)
	if err != nil {
		return err
	}
	m := hmac.New(sha256.New, []byte("the key of "+name))
	m.Write([]byte("message"))
	if !hmac.Equal(sig, m.Sum(nil)) {
		h.t.Errorf("host %d signs with another key than %s", h.n, name)
	}
	return nil
}

// changePINs changes the user's PIN on one machine, and tries it on others.
func (w *world) changePINs(ctx context.Context) {
	pin := userPIN
	for i := 0; ctx.Err() == nil; i++ {
		next := fmt.Sprint("pin-", i)
		h := w.hosts[rand.IntN(len(w.hosts))]
		err := w.Do(historytest.Op{Kind: "setpin", Object: historytest.PIN, Host: h.n, Door: h.Door(), Old: pin, Value: next}, func(*historytest.Op) error {
			return said(h.store.SetPIN(context.Background(), p11.CKU_USER, tokentest.PIN(w.t, pin), tokentest.PIN(w.t, next)))
		})
		if errors.Is(err, p11.CKR_PIN_LOCKED) {
			w.t.Log("the PIN is locked, by tries whose end a machine could not write")
			return
		}
		right := ""
		for _, try := range []string{pin, next} { // the right one last, most of the time: it sets back what is counted
			h := w.hosts[rand.IntN(len(w.hosts))]
			_ = w.Do(historytest.Op{Kind: "login", Object: historytest.PIN, Host: h.n, Door: h.Door(), Value: try}, func(*historytest.Op) error {
				l, err := h.store.Login(context.Background(), p11.CKU_USER, tokentest.PIN(w.t, try))
				if err == nil {
					right = try
					err = l.Close()
				}
				return said(err)
			})
		}
		if right != "" {
			pin = right
		} else if err == nil {
			pin = next
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// trouble has members end and begin again, and cuts links, never of all at once.
func (w *world) trouble(ctx context.Context, c *etcdtest.Cluster) {
	for ctx.Err() == nil {
		member, h := -1, w.hosts[rand.IntN(len(w.hosts))]
		if rand.IntN(3) == 0 {
			member = rand.IntN(3)
			c.Kill(member)
		} else {
			way := rand.IntN(3)
			h.net.Cut(way != 0, way != 1)
		}
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(2 * historyLease)))):
		case <-ctx.Done():
		}
		h.net.Heal()
		if member >= 0 {
			c.Restart(member)
		}
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(historyLease)))):
		case <-ctx.Done():
		}
	}
}

// check fails if what was seen is no history of one token.
func (w *world) check() {
	ops := w.Ops()
	w.t.Logf("%d operations: %v", len(ops), historytest.Counts(ops))
	bad, err := historytest.Wrong(ops, historyHosts, userPIN)
	if err != nil {
		w.t.Error(err)
	}
	for _, o := range bad {
		w.t.Errorf("%s", o)
	}
	if list := historytest.Missing(historytest.Counts(w.Ops())); len(list) > 0 {
		w.t.Errorf("nobody has seen: %v", list)
	}
}
