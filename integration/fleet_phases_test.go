package integration

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/p11"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/historytest"
)

// isChange reports whether a machine sends a transaction that changes the token: it compares,
// writes and reads the record.
func isChange(b []byte) bool { return bytes.Count(b, []byte(fleetPrefix+"token")) >= 3 }

// isWait reports whether a machine asks the others to acknowledge a change.
func isWait(b []byte) bool {
	return bytes.Contains(b, []byte(fleetPrefix+"wanted")) && bytes.Contains(b, []byte(fleetPrefix+"hosts/"))
}

// nth is when something matches for the n-th time.
func nth(n int, match func([]byte) bool) func([]byte) (seen, is bool) {
	return func(b []byte) (seen, is bool) {
		if seen = match(b); seen {
			n--
		}
		return seen, n == 0
	}
}

// A phase is a point in a change, at which the daemon that makes it is killed.
type phase struct {
	name  string
	at    func([]byte) (seen, is bool) // what the daemon sends then
	sent  bool                         // it has arrived, and the answer has not
	first bool                         // it is one of the short form of the test
	do    func(a *fleetApp, n string) error
	want  func(a *fleetApp, n string) error // of another machine, at once
}

// officer reports whether it is about the security officer's PIN.
func (p phase) officer() bool {
	return strings.HasPrefix(p.name, "login") || strings.HasPrefix(p.name, "PIN")
}

// ready has the application see what it is to change.
func (p phase) ready(a *fleetApp, n string) (err error) {
	if p.officer() {
		session, err := a.newSession()
		if err == nil {
			_, err = a.call("close", session)
		}
		return err
	}
	_, err = a.Find(n)
	return err
}

// The PINs of the phases.
const (
	firstSO  = fleetSO
	secondSO = fleetSO + "2"
)

// phases are all of them. The object that n names is there before each, and new+n is not.
func phases() (list []phase) {
	is := func(value string) func(a *fleetApp, n string) error {
		return func(a *fleetApp, n string) error {
			found, err := a.Find(n)
			switch {
			case value == "" && errors.Is(err, historytest.ErrAbsent):
				if err = a.Sign(n); errors.Is(err, historytest.ErrAbsent) {
					return nil
				}
				return fmt.Errorf("it signs with a key that is destroyed: %w", err)
			case err != nil || found != value:
				return fmt.Errorf("it finds %q, want %q: %w", found, value, err)
			}
			return a.Sign(n)
		}
	}
	made := func(count int, class string) func(a *fleetApp, n string) error {
		return func(a *fleetApp, n string) error {
			found, err := a.in("find", words(class+"label="+fleetLabel("new"+n)))
			if count == 0 && errors.Is(err, historytest.ErrAbsent) {
				return nil
			}
			if err != nil || len(found) != count {
				return fmt.Errorf("it finds %q, want %d: %w", found, count, err)
			}
			return nil
		}
	}
	so := func(pin string) func(a *fleetApp, n string) error {
		return func(a *fleetApp, n string) error { return a.tryPIN(p11.CKU_SO, pin) }
	}
	create := func(a *fleetApp, n string) error { return a.Create("new"+n, "1") }
	pair := func(a *fleetApp, n string) error {
		label := " token=true private=true label=" + fleetLabel("new"+n)
		_, err := a.in("pair", mech(p11.CKM_EC_KEY_PAIR_GEN), words("verify=true ec-params=0x06082a8648ce3d030107"+label), words("sign=true"+label))
		return err
	}
	change := func(a *fleetApp, n string) error { return a.Change(n, "2") }
	destroy := func(a *fleetApp, n string) error { return a.Destroy(n) }
	// The SO logs in, and sets the PIN: each counts the try, judges it, and the last writes the PIN.
	set := func(a *fleetApp, n string) error { return a.setSO(firstSO, secondSO) }
	return []phase{
		{"create, not sent", nth(1, isChange), false, false, create, made(0, "")},
		{"create, not answered", nth(1, isChange), true, true, create, made(1, "class=private-key ")},
		{"a pair, not sent", nth(1, isChange), false, false, pair, made(0, "")},
		{"a pair, not answered", nth(1, isChange), true, true, pair, made(2, "")},
		{"change, not sent", nth(1, isChange), false, false, change, is("1")},
		{"change, not answered", nth(1, isChange), true, false, change, is("2")},
		{"change, not waited for", nth(1, isWait), false, true, change, is("2")},
		{"destroy, not sent", nth(1, isChange), false, false, destroy, is("1")},
		{"destroy, not answered", nth(1, isChange), true, true, destroy, is("")},
		{"destroy, not waited for", nth(1, isWait), false, false, destroy, is("")},
		{"destroy, waited for", nth(1, isWait), true, false, destroy, is("")},
		{"login, not counted", nth(1, isChange), false, false, so(firstSO), so(firstSO)},
		{"login, not looked at", nth(1, isChange), true, true, so(firstSO), so(firstSO)},
		{"login, not judged", nth(2, isChange), false, false, so(firstSO), so(firstSO)},
		{"login, judged", nth(2, isChange), true, false, so(firstSO), so(firstSO)},
		{"PIN, not sent", nth(5, isChange), false, false, set, so(firstSO)},
		{"PIN, not answered", nth(5, isChange), true, true, set, so(secondSO)},
	}
}

// killedInEveryPhase kills a daemon in each, and looks from another machine at once: there is
// what was before or what was to be, and another change is made.
func (f *fleetTest) killedInEveryPhase() {
	f.t.Helper()
	var slowest time.Duration
	apps, officers := f.apps(1), f.apps(0)
	list := phases()
	if *fleetTime < time.Minute { // each takes a second or two
		list = slices.DeleteFunc(list, func(p phase) bool { return !p.first })
	}
	for i, p := range list {
		victim, other := i%fleetSize, (i+1)%fleetSize
		app, with := apps[victim], apps[other]
		if p.officer() {
			app, with = officers[victim], officers[other]
		}
		took, err := f.killIn(p, fmt.Sprint("phase", i), f.hosts[victim], app, with, apps[other])
		if err != nil {
			f.t.Errorf("killed in %s: %v", p.name, err)
		}
		slowest = max(slowest, took)
	}
	if err := again(func() error { return officers[0].setSO(secondSO, firstSO) }); err != nil {
		f.t.Errorf("the PIN in the end: %v", err)
	}
	f.t.Logf("a daemon killed in %d phases: after the slowest another machine had looked, and made an object, in %v", len(list), slowest.Round(time.Millisecond))
}

// killIn kills the daemon of an application in a phase, and looks from another machine.
func (f *fleetTest) killIn(p phase, n string, victim *fleetHost, app, with, maker *fleetApp) (took time.Duration, err error) {
	if err := again(func() error { return maker.Create(n, "1") }); err != nil {
		return 0, err
	}
	if err := again(func() error { return p.ready(app, n) }); err != nil {
		return 0, fmt.Errorf("before: %w", err)
	}
	before := f.revision()
	trap := f.traps.of(victim.net.addr.String())
	hit := trap.set(p.sent, p.at)
	done := make(chan error)
	go func() { done <- p.do(app, n) }()
	select {
	case <-hit:
	case err := <-done:
		trap.drop()
		return 0, fmt.Errorf("it was over before: %w", err)
	case <-time.After(etcdtest.Patience):
		err = errors.New("it does not come to that")
	}
	for end := time.Now().Add(etcdtest.Patience); p.sent && f.revision() == before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	victim.d.crash()
	start := time.Now()
	trap.drop()
	if err == nil {
		// Of what nobody was told that it is done a machine hears at some time.
		for end := start.Add(etcdtest.Patience); ; {
			if err = p.want(with, n); err == nil || time.Now().After(end) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	if err == nil {
		err = maker.Create("more"+n, "1")
	}
	took = time.Since(start)
	if e := <-done; e == nil {
		err = errors.Join(err, errors.New("who was killed says that it is done"))
	}
	victim.restart()
	return took, err
}

// again does something until an application that has been without its daemon has a session again, and
// its machine contact with the fleet: a busy one may lose its lease for a moment.
func again(f func() error) error {
	for end := time.Now().Add(etcdtest.Patience); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if e := (errUnknown{}); !errors.As(err, &e) || time.Now().After(end) {
			return err
		}
	}
}

// revision is that of the token's record.
func (f *fleetTest) revision() int64 {
	f.t.Helper()
	r, err := f.etcd.Get(f.t.Context(), fleetPrefix+"token")
	if err != nil || len(r.Kvs) != 1 {
		f.t.Fatal(r, err)
	}
	return r.Kvs[0].ModRevision
}

// apps are one application on each machine, of files and of the module by turns.
func (f *fleetTest) apps(first int) (list []*fleetApp) {
	f.t.Helper()
	for i, h := range f.hosts {
		list = append(list, h.app(f.t, []string{"files", "module"}[(first+i)%2]))
	}
	return list
}

// pinsTriedAtOnce guesses the user's PIN on all machines and through all doors at once: there
// are three guesses, and the right PIN is none after them.
func (f *fleetTest) pinsTriedAtOnce() {
	f.t.Helper()
	guessers := append(f.apps(0), f.apps(1)...)
	var wrong, locked atomic.Int64
	var wg sync.WaitGroup
	for _, a := range guessers {
		wg.Go(func() {
			for range 3 {
				err := again(func() error { return a.tryPIN(p11.CKU_USER, fleetSecret+"-guess") })
				switch {
				case errors.Is(err, historytest.ErrWrong):
					wrong.Add(1)
				case errors.Is(err, errLocked):
					locked.Add(1)
				default:
					f.t.Errorf("a guess on host %d: %v", a.h.n, err)
				}
			}
		})
	}
	wg.Wait()
	f.t.Logf("%d guesses at once: %d were looked at, %d refused", 3*len(guessers), wrong.Load(), locked.Load())
	if wrong.Load() > 3 || locked.Load() == 0 {
		f.t.Errorf("%d guesses were looked at, and %d refused", wrong.Load(), locked.Load())
	}
	for _, a := range guessers {
		if err := again(func() error { return a.tryPIN(p11.CKU_USER, fleetUser) }); !errors.Is(err, errLocked) {
			f.t.Errorf("the right PIN on host %d, behind the guesses: %v", a.h.n, err)
		}
	}
	if err := again(func() error { return guessers[0].setUser(firstSO) }); err != nil {
		f.t.Fatal(err)
	}
	for _, a := range guessers {
		if err := again(func() error { return a.tryPIN(p11.CKU_USER, fleetUser) }); err != nil {
			f.t.Errorf("the user's PIN that the SO has set, on host %d: %v", a.h.n, err)
		}
	}
}
