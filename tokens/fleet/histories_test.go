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
	historySlots = 4 // objects at once
	historyUsers = 3 // of each machine
)

// An historyHost is a machine with the token.
type historyHost struct {
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
	w := &world{t: t, start: time.Now()}
	for i := range historyHosts {
		w.hosts = append(w.hosts, hs.historyHost(t, i))
	}
	ready(t, w.hosts[0].store)
	for s := range w.slots {
		w.slots[s].name = fmt.Sprintf("s%d-0", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range w.hosts {
		for range historyUsers {
			wg.Go(func() { w.use(ctx, h) })
		}
	}
	wg.Go(func() { w.changePINs(ctx) })
	wg.Go(func() { w.trouble(ctx, hs.cluster) })
	time.Sleep(*historyTime)
	for end := time.Now().Add(etcdtest.Patience); len(w.missing()) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	w.last()
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
	return &historyHost{n, net, s, swtok.NewCrypto(swtok.LoadProvider(slog.New(slog.DiscardHandler)), nil)}
}

// A world is the machines, and what they have seen.
type world struct {
	t     *testing.T
	start time.Time
	hosts []*historyHost

	mu    sync.Mutex
	ops   []*historyOp
	slots [historySlots]slot
	next  int // value
}

// A slot has one object after the other.
type slot struct {
	name   string // of the object
	before string // the name of the one before, which is destroyed
	made   bool   // somebody is making it, or has
	number int
}

// An historyOp is what one machine did, and what came of it.
type historyOp struct {
	kind       string // create, change, destroy, find, sign, last; setpin, login
	object     string
	host       int
	value      string // that is given, or was found
	old        string // PIN
	result     string // ok, absent, wrong; "" where nobody knows
	call, back int64
}

// do notes an operation and what came of it. What was to be read, and was not, says nothing.
func (w *world) do(o historyOp, f func(o *historyOp) error) error {
	o.call = time.Since(w.start).Nanoseconds()
	err := f(&o)
	o.back = time.Since(w.start).Nanoseconds()
	switch {
	case err == nil:
		o.result = "ok"
	case errors.Is(err, errForged):
		w.t.Errorf("%s: %v", &o, err)
	case errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID):
		o.result = "absent"
	case errors.Is(err, p11.CKR_PIN_INCORRECT):
		o.result = "wrong"
	case o.kind == "find" || o.kind == "sign" || o.kind == "login" || o.kind == "last":
		return err
	default:
		o.result = ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, &o)
	return err
}

// use does one thing after the other.
func (w *world) use(ctx context.Context, h *historyHost) {
	for ctx.Err() == nil {
		w.mu.Lock()
		s := &w.slots[rand.IntN(len(w.slots))]
		name, before, make := s.name, s.before, !s.made
		s.made = true
		w.next++
		value := fmt.Sprint(w.next)
		w.mu.Unlock()
		what := rand.IntN(100)
		switch {
		case make:
			if w.do(historyOp{kind: "create", object: name, host: h.n, value: value}, func(*historyOp) error {
				_, err := h.store.Create(context.Background(), historyKey(name, value))
				return err
			}) != nil {
				w.follow(s, name)
			}
		case what < 5:
			w.destroy(h, s, name)
		case what < 15:
			_ = w.do(historyOp{kind: "change", object: name, host: h.n, value: value}, func(*historyOp) error { return h.change(name, value) })
		case what < 40 && before != "":
			w.read(h, before)
		default:
			w.read(h, name)
		}
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
	}
}

// read finds an object, or signs with it.
func (w *world) read(h *historyHost, name string) {
	if rand.IntN(2) == 0 {
		_ = w.do(historyOp{kind: "sign", object: name, host: h.n}, func(*historyOp) error { return h.sign(name) })
		return
	}
	_ = w.do(historyOp{kind: "find", object: name, host: h.n}, func(o *historyOp) (err error) {
		o.value, err = h.find(name)
		return err
	})
}

// destroy destroys the object of a slot, and has another take its place.
func (w *world) destroy(h *historyHost, s *slot, name string) {
	err := w.do(historyOp{kind: "destroy", object: name, host: h.n}, func(*historyOp) error {
		o, err := h.lookUp(name)
		if err != nil {
			return err
		}
		return h.store.Destroy(context.Background(), o.Handle, func(p11.Attributes) error { return nil })
	})
	if !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
		w.follow(s, name)
	}
}

// follow has another object follow one in its slot.
func (w *world) follow(s *slot, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.name == name {
		s.number++
		s.before, s.name, s.made = name, fmt.Sprintf("%.2s-%d", name, s.number), false
	}
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

// find is the value of an object.
func (h *historyHost) find(name string) (string, error) {
	for {
		o, err := h.lookUp(name)
		if err != nil {
			return "", err
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

func (h *historyHost) change(name, value string) error {
	o, err := h.lookUp(name)
	if err != nil {
		return err
	}
	_, err = h.store.Update(context.Background(), o.Handle, func(old p11.Attributes) (p11.Attributes, error) {
		return old.Clone().With(p11.CKA_ID, []byte(value)), nil
	})
	return err
}

// errForged is of a signature that is not the object's.
var errForged = errors.New("the signature is another key's")

// errVersion is of an object of which there is another version by now, or none, and says nothing.
var errVersion = errors.New("it has changed meanwhile")

func (h *historyHost) sign(name string) error {
	ctx := context.Background()
	if err := h.store.Offline(); err != nil {
		return err
	}
	o, err := h.lookUp(name)
	if err != nil {
		return err
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
		return errForged
	}
	return nil
}

// changePINs changes the user's PIN on one machine, and tries it on others.
func (w *world) changePINs(ctx context.Context) {
	pin := userPIN
	for i := 0; ctx.Err() == nil; i++ {
		next := fmt.Sprint("pin-", i)
		h := w.hosts[rand.IntN(len(w.hosts))]
		err := w.do(historyOp{kind: "setpin", object: "pin", host: h.n, old: pin, value: next}, func(*historyOp) error {
			return h.store.SetPIN(context.Background(), p11.CKU_USER, tokentest.PIN(w.t, pin), tokentest.PIN(w.t, next))
		})
		if errors.Is(err, p11.CKR_PIN_LOCKED) {
			w.t.Log("the PIN is locked, by tries whose end a machine could not write")
			return
		}
		right := ""
		for _, try := range []string{pin, next} { // the right one last, most of the time: it sets back what is counted
			h := w.hosts[rand.IntN(len(w.hosts))]
			_ = w.do(historyOp{kind: "login", object: "pin", host: h.n, value: try}, func(*historyOp) error {
				l, err := h.store.Login(context.Background(), p11.CKU_USER, tokentest.PIN(w.t, try))
				if err == nil {
					right = try
					err = l.Close()
				}
				return err
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

// last looks at all objects from all machines, when all is over.
func (w *world) last() {
	names := map[string]bool{}
	for _, o := range w.ops {
		if o.object != "pin" {
			names[o.object] = true
		}
	}
	for _, h := range w.hosts {
		end := time.Now().Add(etcdtest.Patience)
		for h.store.Sync(context.Background()) != nil {
			if time.Now().After(end) {
				w.t.Fatalf("host %d does not come back: %v", h.n, h.store.Sync(context.Background()))
			}
			time.Sleep(10 * time.Millisecond)
		}
		for name := range names {
			for {
				err := w.do(historyOp{kind: "last", object: name, host: h.n}, func(o *historyOp) (err error) {
					o.value, err = h.find(name)
					return err
				})
				if err == nil || errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
					break
				}
				if time.Now().After(end) {
					w.t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
}
