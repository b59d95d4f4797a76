package engine

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"p11fs/engine/grants"
	"p11fs/p11"
	"p11fs/tokens"
)

// An EventKind says what has happened.
type EventKind string

// The kinds of events.
const (
	ObjectMade       EventKind = "made"
	ObjectChanged    EventKind = "changed"
	ObjectGone       EventKind = "gone"
	LoggedIn         EventKind = "login"
	LoggedOut        EventKind = "logout"
	PINLocked        EventKind = "locked"
	PINUnlocked      EventKind = "unlocked"
	LoginHeld        EventKind = "held"     // by the daemon
	LoginReleased    EventKind = "released" // likewise
	TokenInitialised EventKind = "initialized"
	TokenCame        EventKind = "came"
	TokenWent        EventKind = "went"
	TokenOffline     EventKind = "offline"
	TokenOnline      EventKind = "online"
	EventsLost       EventKind = "lost" // more than the watcher keeps, or may be told of no more
)

// An Event is one change of a token.
type Event struct {
	At    time.Time
	Kind  EventKind
	Slot  p11.SlotID
	Token string       // empty of EventsLost
	User  p11.UserType // of logins and PINs
	// Of an object: what everybody may know who sees it. UID is its stored name.
	Class     p11.ObjectClass
	Label, ID []byte
	UID       string
	Lost      int // of EventsLost
}

// size is what an event that waits takes, in bytes.
func (v *Event) size() int { return 192 + len(v.Label) + len(v.ID) + len(v.UID) }

// maxEvents is how many events wait for one watcher, and maxEventText how much of a label
// or an id they have.
const (
	maxEvents    = 1024
	maxEventText = 1024
)

// lookTime is how often tokens are looked at while somebody watches them: for what other
// processes did, and what no call of this one tells.
const lookTime = time.Second

// A Watcher is told what happens to a token, or to all, as far as its application may know of
// it: of public objects, and of private ones while its user is logged in or has a grant; of
// its own logins, and of nobody else's.
type Watcher struct {
	app   *Application
	slot  *Slot // nil: all
	owner bool  // of the daemon: may know of its logins
	news  chan struct{}

	reading sync.Mutex // held by who takes from the queue; outside of all other locks

	mu    sync.Mutex // guards all below; the engine's other locks and those of tokens may be held
	queue []noted
	lost  int
	ended bool
}

// noted is an event as it was when it came, and under what it may be told.
type noted struct {
	Event
	private bool
	login   *login // of the application's user
	held    *hold  // of the daemon, where a grant covers the object
	key     grants.Key
}

// watchers are those of an engine.
type watchers struct {
	mu   sync.Mutex // guards all below, likewise
	list []*Watcher // never changed but replaced
	stop func()     // ends the looking; nil while nobody watches
	soon chan struct{}
}

// all returns those that there are.
func (ws *watchers) all() []*Watcher {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.list
}

// Watch returns a watcher of the slot, of all slots for nil, from now on. owner says that the
// daemon's own logins may be known. Whoever made it calls Close.
func (a *Application) Watch(slot *Slot, owner bool) *Watcher {
	w := &Watcher{app: a, slot: slot, owner: owner, news: make(chan struct{}, 1)}
	ws := &a.engine.watchers
	ws.mu.Lock()
	ws.list = append(slices.Clip(ws.list), w)
	if ws.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		ws.stop = func() { cancel(); <-done }
		ws.soon = make(chan struct{}, 1)
		go func() { defer close(done); a.engine.lookOut(ctx, ws.soon) }()
	}
	ws.mu.Unlock()
	if slot != nil && slot.isRemoved() {
		w.end()
	}
	return w
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.end()
	w.mu.Lock()
	for i := range w.queue {
		w.app.account.Give(w.queue[i].size())
	}
	w.queue, w.lost = nil, 0
	w.mu.Unlock()
	ws := &w.app.engine.watchers
	ws.mu.Lock()
	ws.list = slices.DeleteFunc(slices.Clone(ws.list), func(o *Watcher) bool { return o == w })
	stop := ws.stop
	if len(ws.list) > 0 {
		stop = nil
	} else {
		ws.stop = nil
	}
	ws.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// end says that nothing more will come.
func (w *Watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.nudge()
}

func (w *Watcher) nudge() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// News gets something whenever there may be something for Next.
func (w *Watcher) News() <-chan struct{} { return w.news }

// Next returns the oldest event that was not returned yet. In the place of those that may be
// told no more, of private objects under a login that has ended since, it says how many they
// were. more is false if there is none, and ended if none will come: the application or the slot
// has gone.
func (w *Watcher) Next() (v Event, more, ended bool) {
	w.reading.Lock()
	defer w.reading.Unlock()
	for hidden := (Event{Kind: EventsLost}); ; {
		n, some, ended := w.first()
		switch {
		case some && !w.may(&n):
			w.drop()
			hidden.At, hidden.Lost = n.At, hidden.Lost+1
			continue
		case hidden.Lost > 0:
			return hidden, true, false
		case some:
			w.drop()
		}
		return n.Event, some, ended && !some
	}
}

// first is the oldest that waits.
func (w *Watcher) first() (n noted, some, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.markLocked()
	}
	if len(w.queue) == 0 {
		return n, false, w.ended
	}
	return w.queue[0], true, false
}

// drop takes the oldest away.
func (w *Watcher) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return // the watcher was closed
	}
	w.app.account.Give(w.queue[0].size())
	w.queue[0] = noted{}
	w.queue = w.queue[1:]
	if len(w.queue) > 0 || w.lost > 0 || w.ended {
		w.nudge() // another who waits
	}
}

// markLocked has the queue say how many were lost behind it.
func (w *Watcher) markLocked() {
	if w.lost == 0 {
		return
	}
	mark := noted{Event: Event{At: w.app.engine.now(), Kind: EventsLost, Lost: w.lost}}
	w.lost = 0
	w.app.account.Give(-mark.size())
	w.queue = append(w.queue, mark)
}

// may says whether the application may still know of what was noted: a private object is
// told under the login alone under which it was noted, which is not that which brought it.
func (w *Watcher) may(n *noted) bool {
	if !n.private {
		return true
	}
	slot, err := w.app.engine.Slot(n.Slot)
	if err != nil {
		return false
	}
	if n.login != nil {
		return w.app.login(slot) == n.login
	}
	if slot.holding() == nil || slot.held.Load() != n.held {
		return false
	}
	g := w.app.granting(slot)
	return g != nil && len(g.covering(n.key)) > 0
}

// put has an event wait. It counts to the uid, and what is too much is counted as lost.
func (w *Watcher) put(n noted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		return
	case len(w.queue) >= maxEvents || w.app.account.Take(n.size()) != nil:
		w.lost++
	default:
		w.markLocked()
		w.queue = append(w.queue, n)
	}
	w.nudge()
}

// tell tells an event of the slot to those who watch it, and of whom to, if it is not nil,
// says that they may know.
func (s *Slot) tell(kind EventKind, user p11.UserType, to func(*Watcher) bool) {
	n := noted{Event: Event{At: s.engine.now(), Kind: kind, Slot: s.id, Token: s.Name(), User: user}}
	for _, w := range s.engine.watchers.all() {
		if (w.slot == nil || w.slot == s) && (to == nil || to(w)) {
			w.put(n)
		}
	}
}

// tellLogin tells an application of its own login or logout.
func (st *appSlot) tellLogin(kind EventKind, user p11.UserType) {
	st.slot.tell(kind, user, func(w *Watcher) bool { return w.app == st.app })
}

// tellHeld tells of a login of the daemon's own those whom it gives something.
func (s *Slot) tellHeld(kind EventKind) {
	s.tell(kind, p11.CKU_USER, func(w *Watcher) bool { return w.owner || len(w.app.Granted(s)) > 0 })
}

// heard is tokens.Teller's: it is called under locks of the token's.
func (s *Slot) heard(old, now *tokens.Object) {
	list := s.engine.watchers.all()
	if len(list) == 0 {
		return
	}
	o, kind := now, ObjectMade
	switch {
	case now == nil:
		o, kind = old, ObjectGone
	case old != nil:
		if kind = ObjectChanged; sameObject(old, now) {
			return
		}
	}
	attrs, err := o.Acquire()
	if err != nil {
		return // gone again
	}
	defer o.Release()
	key := grants.KeyOf(attrs)
	n := noted{private: o.Private, Event: Event{
		At: s.engine.now(), Kind: kind, Slot: s.id, Token: s.Name(), UID: o.Name, Class: key.Class,
		Label: bytes.Clone(key.Label[:min(len(key.Label), maxEventText)]), ID: bytes.Clone(key.ID[:min(len(key.ID), maxEventText)]),
	}}
	if n.private {
		n.key = key
	}
	for _, w := range list {
		if one := n; (w.slot == nil || w.slot == s) && w.sees(s, &one) {
			w.put(one)
		}
	}
}

// sees says whether an object's event is one for the watcher, and under what. It asks
// nothing of the token, whose locks are held.
func (w *Watcher) sees(s *Slot, n *noted) bool {
	if !n.private {
		return true
	}
	if st := w.app.on(s); st != nil {
		if n.login = st.login.Load(); n.login != nil {
			return n.login.user == p11.CKU_USER
		}
	}
	if n.held = s.held.Load(); n.held == nil {
		return false
	}
	if len(n.key.Label) > maxEventText || len(n.key.ID) > maxEventText {
		return false
	}
	return slices.ContainsFunc(w.app.Granted(s), func(g *grants.Grant) bool { return g.Covers(n.key) })
}

// sameObject says whether two versions tell the same.
func sameObject(old, now *tokens.Object) bool {
	a, err := old.Acquire()
	if err != nil {
		return false
	}
	defer old.Release()
	b, err := now.Acquire()
	if err != nil {
		return false
	}
	defer now.Release()
	return len(a) == len(b) && a.Match(b) && sameDate(old.Dated, now.Dated)
}

// sameDate compares the times of two versions. A backup has whole seconds: what it brings back
// has not changed by that.
func sameDate(old, now time.Time) bool {
	return now.Equal(old) || now.Equal(old.Truncate(time.Second))
}

// lookOut looks at all tokens now and then, until ctx ends.
func (e *Engine) lookOut(ctx context.Context, soon <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for {
		for _, s := range *e.slots.Load() {
			if s.token != nil && s.looking.CompareAndSwap(false, true) { // else it answers late
				wg.Go(func() {
					defer s.looking.Store(false)
					s.look(ctx)
				})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-soon:
		}
	}
}

// lookSoon has tokens looked at without delay, if somebody watches.
func (e *Engine) lookSoon() {
	ws := &e.watchers
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.stop != nil {
		select {
		case ws.soon <- struct{}{}:
		default:
		}
	}
}

// A lookedAt is what was seen of a token.
type lookedAt struct {
	known   bool
	flags   p11.Flags
	offline bool
}

// away says whether the token is offline. What is to be tried again is asked, so that its
// return is noticed also where nobody uses a key.
func (s *Slot) away(ctx context.Context) bool {
	_, why := tokens.Away(s.token)
	r, rests := s.token.(tokens.Rester)
	d, ok := s.token.(tokens.Describer)
	if why == nil || !rests || !ok || s.Offline() != nil {
		return why != nil
	}
	d.Describe(ctx)
	_, why = r.Away()
	return why != nil
}

// look has the token learn what others did, and tells what no call tells: one goroutine at
// a time does it.
func (s *Slot) look(ctx context.Context) {
	if s.token.Refresh(ctx) != nil {
		return // it is closed, or will answer later
	}
	info, err := s.token.Info(ctx)
	if err != nil {
		return
	}
	s.holding() // a login that stands no more ends
	for _, a := range s.engine.applications() {
		a.login(s) // likewise
	}
	was, now := s.looked, lookedAt{known: true, flags: info.Flags, offline: s.away(ctx)}
	if s.looked = now; !was.known {
		return
	}
	for _, pin := range []struct {
		user p11.UserType
		flag p11.Flags
	}{{p11.CKU_USER, p11.CKF_USER_PIN_LOCKED}, {p11.CKU_SO, p11.CKF_SO_PIN_LOCKED}} {
		switch {
		case (was.flags^now.flags)&pin.flag == 0:
		case now.flags&pin.flag != 0:
			s.tell(PINLocked, pin.user, nil)
		default:
			s.tell(PINUnlocked, pin.user, nil)
		}
	}
	switch {
	case was.offline == now.offline:
	case now.offline:
		s.tell(TokenOffline, 0, nil)
	default:
		s.tell(TokenOnline, 0, nil)
	}
}
