package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/historytest"
)

// histories has the machines create, change, find, use and destroy keys and change PINs, by files
// and by the module, while all kinds of things happen to them. What they have seen must be a
// history of one token.
func (f *fleetTest) histories() {
	f.t.Helper()
	w := historytest.NewWorld()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	users := append(f.apps(0), f.apps(1)...)
	for _, a := range users {
		wg.Go(func() { w.Use(ctx, a) })
	}
	officers := f.apps(0)
	so := &officer{users: users, apps: officers, pins: []string{firstSO}}
	wg.Go(func() { f.changePINs(ctx, w, so) })
	faults := map[string]int{}
	for end := time.Now().Add(*fleetTime); time.Now().Before(end) && !f.t.Failed(); {
		f.fault(faults)
	}
	for end := time.Now().Add(etcdtest.Patience); len(historytest.Missing(historytest.Counts(w.Ops()))) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	for _, a := range users[:fleetSize] {
		// What a machine changes is behind all that others have changed.
		for end := time.Now().Add(etcdtest.Patience); a.Create(fmt.Sprint("end-", a.h.n), "1") != nil && time.Now().Before(end); {
			so.unlock(f.t)
			time.Sleep(100 * time.Millisecond)
		}
		if err := w.Last(etcdtest.Patience, a); err != nil {
			f.t.Error(err)
		}
	}
	ops := w.Ops()
	f.t.Logf("%d operations: %v; faults: %v", len(ops), historytest.Counts(ops), faults)
	bad, err := historytest.Wrong(ops, fleetSize, firstSO)
	if err != nil {
		f.t.Error(err)
	}
	for _, o := range bad {
		f.t.Errorf("%s", o)
	}
	if list := historytest.Missing(historytest.Counts(ops)); len(list) > 0 {
		f.t.Errorf("nobody has seen: %v", list)
	}
}

// fault has one thing happen, and be over.
func (f *fleetTest) fault(count map[string]int) {
	f.t.Helper()
	a, b := rand.Int64N(int64(2*fleetLease)), rand.Int64N(int64(fleetLease))
	h, m := f.hosts[rand.IntN(fleetSize)], f.members[rand.IntN(fleetSize)]
	way := rand.IntN(3)
	out, in := way != 0, way != 1
	cut := func(what string, n *netns) {
		count[fmt.Sprintf("%s cut off, out %v, in %v", what, out, in)]++
		n.cut(f.t, out, in)
		time.Sleep(time.Duration(a))
		n.heal(f.t, out, in)
	}
	switch rand.IntN(6) {
	case 0:
		count["member killed"]++
		m.kill()
		time.Sleep(time.Duration(a))
		m.start()
		for end := time.Now().Add(etcdtest.Patience); !m.serves() && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	case 1:
		cut("member", m.n)
	case 2, 3:
		cut("host", h.net)
	case 4:
		count["clock set"]++
		if err := h.clock.set(time.Duration(rand.IntN(19)-9) * time.Hour); err != nil {
			f.t.Error(err)
		}
		return
	case 5:
		count["daemon killed"]++
		h.d.crash()
		h.restart()
	}
	f.quorum()
	time.Sleep(time.Duration(b))
}

// changePINs changes the security officer's PIN on one machine after the other, and tries it on others.
func (f *fleetTest) changePINs(ctx context.Context, w *historytest.World, so *officer) {
	pin, officers := firstSO, so.apps
	if *fleetTime >= time.Minute { // what was tried by daemons that were killed counts as wrong by then, until a right PIN comes
		time.Sleep(25 * time.Second)
		if err := again(func() error { return officers[0].tryPIN(p11.CKU_SO, pin) }); err != nil {
			f.t.Error(err)
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		next := fmt.Sprint(fleetSO, i)
		a := officers[rand.IntN(fleetSize)]
		err := w.Do(historytest.Op{Kind: "setpin", Object: historytest.PIN, Host: a.Host(), Door: a.Door(), Old: pin, Value: next}, func(*historytest.Op) error { return a.setSO(pin, next) })
		if errors.Is(err, errLocked) {
			f.t.Log("the officer's PIN is locked, by tries whose end a machine could not write")
			return
		}
		so.pins = []string{pin, next}
		so.unlock(f.t)
		right := ""
		for _, try := range []string{pin, next} { // the right one last, most of the time: it sets back what is counted
			a := officers[rand.IntN(fleetSize)]
			if w.Do(historytest.Op{Kind: "login", Object: historytest.PIN, Host: a.Host(), Door: a.Door(), Value: try}, func(*historytest.Op) error { return a.tryPIN(p11.CKU_SO, try) }) == nil {
				right = try
			}
		}
		if right != "" {
			pin = right
		} else if err == nil {
			pin = next
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// An officer has applications on each machine, and is there for some users. His PIN is one of some.
type officer struct {
	users, apps []*fleetApp
	pins        []string
}

// unlock sets the user's PIN if it is locked, by tries whose end a machine could not write.
func (o *officer) unlock(t *testing.T) {
	for _, pin := range o.pins {
		if !slices.ContainsFunc(o.users, func(a *fleetApp) bool { return a.locked.Load() }) {
			return
		}
		if o.apps[rand.IntN(len(o.apps))].setUser(pin) == nil {
			t.Log("the user's PIN was locked, by tries whose end a machine could not write, and is set")
			for _, a := range o.users {
				a.locked.Store(false)
			}
		}
	}
}

// nothingIsReadable looks for the secrets of the test in all that etcd has on its disks, and in
// all that machines and etcd have said to one another.
func (f *fleetTest) nothingIsReadable() {
	f.t.Helper()
	f.search.files(f.t, f.dir)
	f.search.mu.Lock() // taps look on
	defer f.search.mu.Unlock()
	for i, found := range f.search.found {
		if i < 10 {
			f.t.Errorf("a secret is seen in %s", found)
		}
	}
	for _, m := range f.members {
		from, disk := 0, 0
		for place, n := range f.search.seen {
			if strings.HasSuffix(place, " to "+m.apart.Name) {
				from += n
			}
			if strings.HasPrefix(place, filepath.Join(f.dir, m.apart.Name)+"/") {
				disk += n
			}
		}
		f.t.Logf("%s: keys of the token were seen %d times on their way there, and %d times on its disk", m.apart.Name, from, disk)
		if from == 0 || disk == 0 {
			f.t.Errorf("the search for secrets has seen nothing of %s", m.apart.Name)
		}
	}
}
