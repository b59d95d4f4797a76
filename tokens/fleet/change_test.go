package fleet

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/cuts"
)

func data(label string, private bool) p11.Attributes {
	return cuts.Data(label, "value of "+label, private)
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, s *Store, label string, private bool) *tokens.Object {
	t.Helper()
	return must[*tokens.Object](t)(s.Create(t.Context(), data(label, private)))
}

// labels are those of all objects that a store shows.
func labels(t testing.TB, s *Store) (list []string) {
	t.Helper()
	for _, o := range must[[]*tokens.Object](t)(s.Find(t.Context(), nil, true)) {
		if a, err := o.Acquire(); err == nil {
			list = append(list, a.Label())
			o.Release()
		}
	}
	return list
}

// want waits until a store shows the objects with these labels.
func want(t testing.TB, s *Store, labelled ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("the objects ", labelled), func() bool { return slices.Equal(labels(t, s), labelled) })
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in a minute there were not %s", what)
		}
	}
}

// A transaction whose answer was lost is sent again: it has happened once, also if others
// came after it.
func TestAnswerLost(t *testing.T) {
	h := newHosts(t, 1)
	s, other := h.open(t, "/t/"), h.open(t, "/t/")
	_, rev, err := s.current(t.Context())
	noError(t, err)
	e := &edit{record: s.newest().clone(), store: s}
	e.record.Count++
	s.number++
	e.record.wrote(s.who, s.number)
	_, err = s.putNew(e, []p11.Attributes{data("once", false)})
	noError(t, err)
	op, err := s.putRecord(e.record)
	noError(t, err)
	ops := append(e.ops, op)
	if at, err := s.send(t.Context(), rev, ops); err != nil || at <= rev {
		t.Fatalf("revision %d, %v", at, err)
	}
	if _, err := s.send(t.Context(), rev, ops); !errors.Is(err, errEarlier) {
		t.Errorf("sent again: %v", err)
	}
	create(t, other, "after", false)
	if _, err := s.send(t.Context(), rev, ops); !errors.Is(err, errEarlier) {
		t.Errorf("sent again after another's: %v", err)
	}
	s.number++
	if _, err := s.send(t.Context(), rev, ops); !errors.Is(err, errLost) {
		t.Errorf("another one that came too late: %v", err)
	}
	want(t, s, "once", "after")
	want(t, other, "once", "after")
}

// A machine whose answers do not come makes its change all the same, once, when they come
// again; and a create that was not answered in time says that nobody knows.
func TestLinkCut(t *testing.T) {
	h := newHosts(t, 1)
	host := h.cluster.Host(t)
	cfg := h.config(t, host.Client(t), "/t/")
	cfg.times.answer = 300 * time.Millisecond
	s, other := h.openWith(t, cfg), h.open(t, "/t/")
	host.Cut(false, true)
	var wg sync.WaitGroup
	wg.Go(func() { create(t, s, "late", false) })
	eventually(t, "the object on another machine", func() bool { return len(labels(t, other)) == 1 })
	host.Heal()
	wg.Wait()
	want(t, other, "late")
	want(t, s, "late")

	s.cfg.times.change = 500 * time.Millisecond
	host.Cut(true, true)
	_, err := s.Create(t.Context(), data("nobody knows", false)) // it may be on its way, and come when the link is there
	if p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("without contact: %v", err)
	}
	host.Heal()
	create(t, other, "goes on", false)
	eventually(t, "what the other one made", func() bool {
		list := slices.DeleteFunc(labels(t, s), func(l string) bool { return l == "nobody knows" })
		return slices.Equal(list, []string{"late", "goes on"})
	})
}

// Objects that a machine was told are made are there, once each, also if the member ends that
// leads the others.
func TestLeaderEnds(t *testing.T) {
	h := newHosts(t, 3)
	one, two := h.open(t, "/t/"), h.open(t, "/t/")
	var mu sync.Mutex
	var made []string
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, s := range []*Store{one, two} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				label := fmt.Sprint(i, "-", n)
				if _, err := s.Create(t.Context(), data(label, false)); err != nil {
					t.Logf("create while members end: %v", err)
					continue
				}
				mu.Lock()
				made = append(made, label)
				mu.Unlock()
			}
		})
	}
	more := func() {
		mu.Lock()
		now := len(made)
		mu.Unlock()
		eventually(t, "more objects", func() bool { mu.Lock(); defer mu.Unlock(); return len(made) > now+5 })
	}
	more()
	leader := h.leader(t)
	h.cluster.Kill(leader)
	more()
	h.cluster.Restart(leader)
	more()
	close(stop)
	wg.Wait()
	slices.Sort(made)
	for _, s := range []*Store{one, two, h.open(t, "/t/")} {
		noError(t, s.Sync(t.Context()))
		got := labels(t, s)
		slices.Sort(got)
		for _, l := range made {
			if _, ok := slices.BinarySearch(got, l); !ok {
				t.Errorf("%s is lost", l)
			}
		}
		if n := len(got); len(slices.Compact(got)) != n {
			t.Errorf("an object was made twice")
		}
		if d := s.Damaged(); len(d) > 0 {
			t.Errorf("damaged: %v", d)
		}
	}
}

// A machine that heard nothing while etcd forgot what had changed loads all anew.
func TestCompacted(t *testing.T) {
	h := newHosts(t, 1)
	host := h.cluster.Host(t)
	s, other := h.openWith(t, h.config(t, host.Client(t), "/t/")), h.open(t, "/t/")
	gone := create(t, other, "gone", false)
	create(t, other, "stays", false)
	want(t, s, "gone", "stays")
	host.Cut(true, true)
	noError(t, other.Destroy(t.Context(), gone.Handle, func(p11.Attributes) error { return nil }))
	create(t, other, "new", false)
	c := h.cluster.Client(t)
	_, rev, err := other.current(t.Context())
	noError(t, err)
	_, err = c.Compact(t.Context(), rev, clientv3.WithCompactPhysical())
	noError(t, err)
	host.Heal()
	want(t, s, "stays", "new")
	if d := s.Damaged(); len(d) > 0 {
		t.Errorf("damaged: %v", d)
	}
}

// All machines that make the token at once have the same one.
func TestMadeAtOnce(t *testing.T) {
	h := newHosts(t, 1)
	var stores [3]*Store
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() { stores[i] = h.open(t, "/t/") })
	}
	wg.Wait()
	for _, s := range stores[1:] {
		if s.newest().ID != stores[0].newest().ID {
			t.Error("two tokens were made at one place")
		}
	}
}
