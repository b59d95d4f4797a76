package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// told are the events that wait, as words.
func told(w *Watcher) string {
	var words []string
	for {
		v, more, ended := w.Next()
		if !more {
			if ended {
				words = append(words, "end")
			}
			return strings.Join(words, " ")
		}
		word := string(v.Kind)
		switch {
		case v.Label != nil:
			word += ":" + string(v.Label)
		case v.Lost > 0:
			word += fmt.Sprint(":", v.Lost)
		}
		words = append(words, word)
	}
}

// awaits waits for events until they are these.
func awaits(t *testing.T, w *Watcher, want string) {
	t.Helper()
	var got []string
	for end := time.After(30 * time.Second); ; {
		if s := told(w); s != "" {
			got = append(got, s)
		}
		if strings.Join(got, " ") == want {
			return
		}
		select {
		case <-w.News():
		case <-end:
			t.Fatalf("told %q, want %q", got, want)
		}
	}
}

func tells(t *testing.T, who string, w *Watcher, want string) {
	t.Helper()
	if got := told(w); got != want {
		t.Errorf("%s is told %q, want %q", who, got, want)
	}
}

// TestEvents has a user, another who is logged in, and one who is not, watch one token.
func TestEvents(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a, other, stranger := b.app(), b.app(), b.app()
	s := b.session(t, a, rw)
	wa, wo, ws := a.Watch(b.slot, false), other.Watch(nil, false), stranger.Watch(b.slot, false)
	defer wa.Close()
	defer wo.Close()
	defer ws.Close()

	logIn(t, s, p11.CKU_USER, "1234")
	tells(t, "the user", wa, "login")
	tells(t, "another application", wo, "")
	private := create(t, s, aesKey+" private=true token=true label=secret")
	public := create(t, s, "class=data private=false token=true label=open")
	create(t, s, "class=data private=true token=false label=session")
	tells(t, "the user", wa, "made:secret made:open")
	tells(t, "another application", wo, "made:open")
	logIn(t, b.session(t, other, rw), p11.CKU_USER, "1234")
	tells(t, "who logs in", wo, "login") // and not of what was there
	want(t, s.SetAttributeValue(ctx, private, tmpl(t, "label=new")), p11.CKR_OK)
	want(t, s.DestroyObject(ctx, private), p11.CKR_OK)
	tells(t, "the user", wa, "changed:new gone:new")
	tells(t, "another user", wo, "changed:new gone:new")
	create(t, s, "class=data private=true token=true label=late")
	want(t, s.Logout(ctx), p11.CKR_OK)
	create(t, s, "class=data private=false token=true label=after")
	tells(t, "who has logged out since", wa, "lost:1 logout made:after")
	tells(t, "another user", wo, "made:late made:after")
	other.Close()
	tells(t, "an application that has ended", wo, "logout end")
	logIn(t, s, p11.CKU_USER, "1234") // the first, which reads the private objects
	tells(t, "the user", wa, "login")
	want(t, s.DestroyObject(ctx, public), p11.CKR_OK)
	tells(t, "the user", wa, "gone:open")
	tells(t, "who is not logged in", ws, "made:open made:after gone:open")
	create(t, s, aesKey+" private=true token=true label=one")
	create(t, s, aesKey+" private=true token=true label=two")
	a.Close()
	tells(t, "the user whose application has ended", wa, "lost:2 logout end")
}

// TestEventsOfLocks: a PIN that is locked, by this process or another, ends logins.
func TestEventsOfLocks(t *testing.T) {
	b := newBench(t, hooks.Options{})
	a, stranger := b.app(), b.app()
	logIn(t, b.session(t, a, rw), p11.CKU_USER, "1234")
	wa, ws := a.Watch(b.slot, false), stranger.Watch(b.slot, false)
	defer wa.Close()
	defer ws.Close()
	for !b.slot.lookedAt() {
		time.Sleep(time.Millisecond)
	}
	b.token.Flag(p11.CKF_USER_PIN_LOCKED, 0)
	b.lookSoon()
	awaits(t, wa, "logout locked")
	awaits(t, ws, "locked")
	b.token.Flag(0, p11.CKF_USER_PIN_LOCKED)
	b.lookSoon()
	awaits(t, ws, "unlocked")
}

// lookedAt says whether the token's state was taken note of.
func (s *Slot) lookedAt() bool {
	if !s.looking.CompareAndSwap(false, true) {
		return false
	}
	defer s.looking.Store(false)
	return s.looked.known
}

// TestEventsByGrants: who has a grant is told of that key alone, and while it counts.
func TestEventsByGrants(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	create(t, s, aesKey+" private=true token=true label=before")
	want(t, s.Logout(ctx), p11.CKR_OK)
	service := b.service(t, 34)
	w := service.Application().Watch(b.slot, false)
	defer w.Close()
	b.grant(t, "user=34 token=tok label=web functions=encrypt", "user=34 token=tok label=before functions=encrypt")
	b.hold(t)
	logIn(t, s, p11.CKU_USER, "1234")
	create(t, s, aesKey+" private=true token=true label=web")
	create(t, s, aesKey+" private=true token=true label=other")
	tells(t, "the service", w, "held made:web")
	create(t, s, aesKey+" private=true token=true label=web")
	b.slot.Release("test")
	tells(t, "the service without a grant that counts", w, "lost:1 released")
}

// TestEventsAreBounded: who does not read loses events, and is told so; the uid pays.
func TestEventsAreBounded(t *testing.T) {
	b := newBench(t, hooks.Options{})
	a := b.app()
	s := b.session(t, b.app(), rw)
	w := a.Watch(b.slot, false)
	for i := range maxEvents + 5 {
		create(t, s, fmt.Sprintf("class=data private=false token=true label=l%d", i))
	}
	if a.account.Held() < maxEvents*100 {
		t.Errorf("%d bytes are counted", a.account.Held())
	}
	for range maxEvents {
		if v, more, _ := w.Next(); !more || v.Kind != ObjectMade {
			t.Fatalf("%+v", v)
		}
	}
	create(t, s, "class=data private=false token=true label=last")
	tells(t, "who was late", w, "lost:5 made:last")
	create(t, s, "class=data private=false token=true label=unread")
	w.Close()
	if n := a.account.Held(); n != 0 {
		t.Errorf("%d bytes stay counted", n)
	}
}

// TestEventsInParallel has watchers come and go while objects do.
func TestEventsInParallel(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			h := create(t, s, fmt.Sprintf("class=data private=%v token=true label=x", i%2 == 0))
			want(t, s.DestroyObject(t.Context(), h), p11.CKR_OK)
		}
	}()
	for {
		w := s.Application().Watch(b.slot, false)
		made := 0
		for v, more, _ := w.Next(); more; v, more, _ = w.Next() {
			if v.Kind == ObjectMade {
				made++
			}
		}
		w.Close()
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestSlotsComeAndGo: a slot is added and removed while others are used.
func TestSlotsComeAndGo(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a, other := b.app(), b.NewApplication(Owner{UID: 1001}, ForPrograms)
	w := other.Watch(nil, false)
	defer w.Close()
	token := hooks.New("second", hooks.Options{})
	t.Cleanup(func() { _ = token.Close() })
	for _, bad := range []SlotConfig{{ID: 3, Token: token}, {ID: 9, Token: hooks.New("tok", hooks.Options{})}} {
		if _, err := b.AddSlot(bad); err == nil {
			t.Errorf("slot %d is added twice", bad.ID)
		}
	}
	slot, err := b.AddSlot(SlotConfig{ID: 9, Token: token})
	want(t, err, p11.CKR_OK)
	if s, err := b.SlotNamed("second"); err != nil || s != slot || len(b.Slots()) != 3 {
		t.Errorf("%v, %v", s, err)
	}
	tells(t, "another", w, "came")
	for _, app := range []*Application{a, other} {
		if id, err := app.SlotEvent(); err != nil || id != 9 {
			t.Errorf("%d, %v", id, err)
		}
		_, err := app.SlotEvent()
		want(t, err, p11.CKR_NO_EVENT)
	}
	s, err := other.OpenSession(ctx, slot, rw)
	want(t, err, p11.CKR_OK)
	logIn(t, s, p11.CKU_USER, "1234")
	mine, err := a.OpenSession(ctx, slot, rw)
	want(t, err, p11.CKR_OK)
	watching := a.Watch(slot, false)
	defer watching.Close()
	want(t, b.RemoveSlot(ctx, slot, a.Owner(), false), p11.CKR_SESSION_EXISTS)
	if _, err := s.Info(); err != nil {
		t.Errorf("a removal that was refused ends sessions: %v", err)
	}
	want(t, b.RemoveSlot(ctx, slot, a.Owner(), true), p11.CKR_OK)
	for _, s := range []*Session{s, mine} {
		_, err := s.Info()
		want(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	}
	_, err = a.OpenSession(ctx, slot, rw)
	want(t, err, p11.CKR_DEVICE_REMOVED)
	want(t, b.RemoveSlot(ctx, slot, a.Owner(), true), p11.CKR_DEVICE_REMOVED)
	want(t, a.InitToken(ctx, slot, pin(t, hooks.SOPIN), "x"), p11.CKR_DEVICE_REMOVED)
	if _, err := b.SlotNamed("second"); err == nil || len(b.Slots()) != 2 {
		t.Error("it is still there")
	}
	tells(t, "who watches it", watching, "went end")
	tells(t, "another", w, "login logout went")
	if id, err := a.SlotEvent(); err != nil || id != 9 {
		t.Errorf("%d, %v", id, err)
	}
	late := a.Watch(slot, false)
	defer late.Close()
	tells(t, "who comes late", late, "end")
}

// TestRemovalKeepsSessionsOut: while a slot is removed nobody comes in, and who comes back
// finds another slot of that number.
func TestRemovalKeepsSessionsOut(t *testing.T) {
	b := newBench(t, hooks.Options{})
	for range 20 {
		token := hooks.New("second", hooks.Options{})
		slot, err := b.AddSlot(SlotConfig{ID: 9, Token: token})
		want(t, err, p11.CKR_OK)
		opened := make(chan struct{})
		a := b.app()
		go func() {
			defer close(opened)
			for {
				if _, err := a.OpenSession(t.Context(), slot, rw); err != nil {
					want(t, err, p11.CKR_DEVICE_REMOVED)
					return
				}
			}
		}()
		want(t, b.RemoveSlot(t.Context(), slot, Owner{}, true), p11.CKR_OK)
		<-opened
		if n := len(a.Sessions(slot)); n != 0 {
			t.Fatalf("%d sessions are left on a slot that was removed", n)
		}
		want(t, token.Close(), p11.CKR_OK)
	}
}

var _ tokens.Teller = (*hooks.Token)(nil)
