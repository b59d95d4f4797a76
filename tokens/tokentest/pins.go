package tokentest

import (
	"errors"
	"testing"

	"p11fs/p11"
)

func (b Backend) testPINs(t *testing.T) {
	dir := t.TempDir()
	tok := b.ready(t, dir)
	ctx := t.Context()
	_, err := tok.Login(ctx, p11.CKU_SO, PIN(t, b.SOPIN))
	wantRV(t, "the SO's old PIN", err, p11.CKR_PIN_INCORRECT)
	noError(t, login(t, tok, p11.CKU_USER, userPIN).Close())

	wantRV(t, "change from a wrong PIN", tok.SetPIN(ctx, p11.CKU_USER, PIN(t, "wrongpin"), PIN(t, "new-pin")), p11.CKR_PIN_INCORRECT)
	wantRV(t, "change to a short PIN", tok.SetPIN(ctx, p11.CKU_USER, PIN(t, userPIN), PIN(t, "x")), p11.CKR_PIN_LEN_RANGE)
	noError(t, tok.SetPIN(ctx, p11.CKU_USER, PIN(t, userPIN), PIN(t, "new-pin")))
	_, err = tok.Login(ctx, p11.CKU_USER, PIN(t, userPIN))
	wantRV(t, "the user's old PIN", err, p11.CKR_PIN_INCORRECT)

	// A new PIN opens what the old one protected, also for who opens the
	// token afterwards.
	l := login(t, tok, p11.CKU_USER, "new-pin")
	o, err := tok.Create(ctx, data("secret", "kept", true))
	noError(t, err)
	noError(t, l.Close())
	noError(t, tok.SetPIN(ctx, p11.CKU_USER, PIN(t, "new-pin"), PIN(t, userPIN)))
	again := b.open(t, dir)
	login(t, again, p11.CKU_USER, userPIN)
	p, err := again.ByName(o.Name)
	noError(t, err)
	if got := attribute(t, p, p11.CKA_VALUE); string(got) != "kept" {
		t.Errorf("a private object became %q", got)
	}

	so := login(t, tok, p11.CKU_SO, soPIN)
	wantRV(t, "a short first PIN", tok.InitPIN(ctx, so, PIN(t, "x")), p11.CKR_PIN_LEN_RANGE)
	noError(t, tok.InitPIN(ctx, so, PIN(t, "so-gift")))
	noError(t, login(t, tok, p11.CKU_USER, "so-gift").Close())
	noError(t, so.Close())
	wantRV(t, "a closed login of the SO that sets a PIN", tok.InitPIN(ctx, so, PIN(t, userPIN)), p11.CKR_USER_NOT_LOGGED_IN)
	user := login(t, tok, p11.CKU_USER, "so-gift")
	wantRV(t, "the user's login that sets a PIN", tok.InitPIN(ctx, user, PIN(t, userPIN)), p11.CKR_USER_NOT_LOGGED_IN)
	noError(t, login(t, tok, p11.CKU_USER, "so-gift").Close())
}

func (b Backend) testLockout(t *testing.T) {
	tok := b.ready(t, t.TempDir())
	ctx := t.Context()
	wrong := func() error {
		_, err := tok.Login(ctx, p11.CKU_USER, PIN(t, "wrongpin"))
		return err
	}
	wantRV(t, "first wrong PIN", wrong(), p11.CKR_PIN_INCORRECT)
	if tokenFlags(t, tok)&p11.CKF_USER_PIN_COUNT_LOW == 0 {
		t.Error("the first wrong PIN is not shown")
	}
	noError(t, login(t, tok, p11.CKU_USER, userPIN).Close())
	if tokenFlags(t, tok)&(p11.CKF_USER_PIN_COUNT_LOW|p11.CKF_USER_PIN_FINAL_TRY) != 0 {
		t.Error("a right PIN does not clear the count")
	}
	open := login(t, tok, p11.CKU_USER, userPIN)
	tries := 0
	for ; tries < 20 && !errors.Is(wrong(), p11.CKR_PIN_LOCKED); tries++ {
		if tokenFlags(t, tok)&p11.CKF_USER_PIN_LOCKED != 0 {
			break
		}
	}
	if tries == 20 {
		t.Fatal("20 wrong PINs, and no lock")
	}
	_, err := tok.Login(ctx, p11.CKU_USER, PIN(t, userPIN))
	wantRV(t, "the right PIN when locked", err, p11.CKR_PIN_LOCKED)
	wantRV(t, "an open login when locked", open.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	wantRV(t, "a change of a locked PIN", tok.SetPIN(ctx, p11.CKU_USER, PIN(t, userPIN), PIN(t, "new-pin")), p11.CKR_PIN_LOCKED)

	so := login(t, tok, p11.CKU_SO, soPIN)
	noError(t, tok.InitPIN(ctx, so, PIN(t, "unlocked")))
	noError(t, login(t, tok, p11.CKU_USER, "unlocked").Close())
}

func (b Backend) testLogins(t *testing.T) {
	tok := b.ready(t, t.TempDir())
	first, second := login(t, tok, p11.CKU_USER, userPIN), login(t, tok, p11.CKU_USER, userPIN)
	if first.User() != p11.CKU_USER {
		t.Errorf("user %v", first.User())
	}
	o, err := tok.Create(t.Context(), data("p", "v", true))
	noError(t, err)
	noError(t, first.Close())
	noError(t, first.Close())
	noError(t, second.Valid())
	if _, err := tok.ByHandle(o.Handle); err != nil {
		t.Errorf("closing one of two logins: %v", err)
	}
	noError(t, second.Close())
	_, err = tok.ByHandle(o.Handle)
	wantRV(t, "a private object after the last login", err, p11.CKR_OBJECT_HANDLE_INVALID)

	third, so := login(t, tok, p11.CKU_USER, userPIN), login(t, tok, p11.CKU_SO, soPIN)
	noError(t, tok.InitToken(t.Context(), PIN(t, soPIN), "anew"))
	wantRV(t, "the user's login after initialisation", third.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	wantRV(t, "the SO's login after initialisation", so.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
}
