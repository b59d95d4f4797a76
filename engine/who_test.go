package engine

import (
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// Who has the applications that have sessions, and Kick ends what one has.
func TestWhoAndKick(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	b.app() // without a session
	s, other := b.user(t), b.service(t, 34)
	key := create(t, s, aesKey+" private=true encrypt=true")
	want(t, s.Init(ctx, p11.CKF_ENCRYPT, mech(t, "aes-ctr,counter=00000000000000000000000000000000"), key), p11.CKR_OK)
	list := b.Who()
	if len(list) != 2 || list[0].Number == list[1].Number || list[1].Owner.UID != 34 || len(list[1].Logins) != 0 {
		t.Fatalf("%+v", list)
	}
	if p := list[0]; p.Sessions != 1 || p.Operations != 1 || len(p.Logins) != 1 || p.Logins[0].Token != "tok" || p.Logins[0].User != p11.CKU_USER || p.Logins[0].Since.IsZero() || p.Since.IsZero() {
		t.Errorf("%+v", p)
	}
	if b.Kick(list[0].Number, func(o Owner) bool { return o.UID == 34 }) || b.Kick(9999, nil) {
		t.Error("another's, or nobody's, sessions are closed")
	}
	if !b.Kick(list[0].Number, func(o Owner) bool { return o.UID == 1000 }) || b.Kick(list[0].Number, nil) {
		t.Error("not closed, or twice")
	}
	want(t, s.Logout(ctx), p11.CKR_SESSION_HANDLE_INVALID)
	if _, in := s.Application().LoggedIn(b.slot); in {
		t.Error("still logged in")
	}
	if _, err := other.Info(); err != nil {
		t.Errorf("another's session: %v", err)
	}
	if list := b.Who(); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	logIn(t, b.session(t, s.Application(), rw), p11.CKU_USER, "1234") // anew
}
