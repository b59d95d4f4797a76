package fs

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/secret"
)

// maxPINCommand is the longest text with PINs in it.
const maxPINCommand = 4096

// login is C_Login: PIN, user:PIN or so:PIN. What is written as
// context-specific:PIN is kept for the next signature or decryption in the session
// by a key that wants the PIN each time (CKA_ALWAYS_AUTHENTICATE).
func (p place) login(ctx context.Context, s *session, line []byte) ([]byte, error) {
	line = secret.Line(line)
	user, pin := p11.UserType(p11.CKU_USER), line
	if who, rest, ok := bytes.Cut(line, []byte(":")); ok {
		switch string(who) {
		case "user":
			pin = rest
		case "so":
			user, pin = p11.CKU_SO, rest
		case "context-specific":
			user, pin = p11.CKU_CONTEXT_SPECIFIC, rest
		}
	}
	if len(pin) == 0 {
		return nil, errNoPIN
	}
	// Whatever else it is, it is a PIN, right or wrong: the token counts it.
	b, err := keep(pin)
	if err != nil {
		return nil, err
	}
	if user == p11.CKU_CONTEXT_SPECIFIC {
		s.setSecret(contextSecret, b)
		return nil, nil
	}
	defer b.Close()
	return nil, s.eng.Login(ctx, user, b)
}

// loginText is who the caller is: public, user or so.
func (p place) loginText(ctx context.Context, c caller) ([]byte, error) {
	a, err := p.viewer(c)
	if err != nil {
		return nil, err
	}
	_ = p.slot.Refresh(ctx) // a token that cannot be read has ended no login
	switch user, in := a.LoggedIn(p.slot); {
	case !in:
		return []byte("public\n"), nil
	case user == p11.CKU_SO:
		return []byte("so\n"), nil
	}
	return []byte("user\n"), nil
}

var errNoPIN = p11.Errorf(p11.CKR_PIN_LEN_RANGE, "there is no PIN")

// newPIN takes a new PIN out of a command, and wipes it there.
func newPIN(b []byte) (*secret.Bytes, error) {
	if len(b) == 0 {
		return nil, errNoPIN
	}
	if bytes.ContainsAny(b, "\x00\n") {
		secret.Wipe(b)
		return nil, p11.Errorf(p11.CKR_PIN_INVALID, "a PIN is one line of text")
	}
	return keep(b)
}

// keep moves b to memory for secrets.
func keep(b []byte) (*secret.Bytes, error) {
	s, err := secret.New(b)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_HOST_MEMORY, "%v", err)
	}
	return s, nil
}

// logout is C_Logout. It takes a few words only, so that what was meant for another
// file is refused.
func (p place) logout(ctx context.Context, s *session, line []byte) ([]byte, error) {
	switch string(bytes.TrimSpace(line)) {
	case "", "1", "logout":
		defer s.app.temporaries.all("") // which wipes those of the login
		return nil, s.eng.Logout(ctx)
	}
	return nil, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "this is not for the file logout"), "write an empty line, or the word logout")
}

// setPIN is C_SetPIN: OLD NEW, or a line for each.
func (p place) setPIN(ctx context.Context, s *session, line []byte) ([]byte, error) {
	line = secret.Line(line)
	before, after, lines := bytes.Cut(line, []byte("\n"))
	if !lines {
		before, after, _ = bytes.Cut(line, []byte(" "))
	}
	if before = secret.Line(before); len(before) == 0 || len(after) == 0 || !lines && bytes.IndexByte(after, ' ') >= 0 {
		return nil, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "these are not two PINs"),
			"write the old PIN, a blank, and the new PIN; or, where one has a blank, each on a line of its own")
	}
	old, err := newPIN(before)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	pin, err := newPIN(after)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	return nil, s.eng.SetPIN(ctx, old, pin)
}

// pinText is a line for each role: whether it has a PIN, and how many tries are
// left as far as PKCS#11 tells: many, some, 1 or 0. Below it stands who gave wrong
// ones; stock programs that gave some, or the right one, are not known here.
func (p place) pinText(ctx context.Context, _ caller) ([]byte, error) {
	i, err := p.slot.TokenInfo(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, role := range []struct {
		name string
		user p11.UserType
	}{{"user", p11.CKU_USER}, {"so", p11.CKU_SO}} {
		tries, state := i.Flags.PINState(role.user)
		fmt.Fprintf(&b, "%s: tries=%s pin=%s\n", role.name, tries, state)
		if tries == "many" {
			continue // a right one was given elsewhere
		}
		for _, w := range p.slot.WrongPINs(role.user) {
			fmt.Fprintf(&b, "%s: wrong=%s uid=%d pid=%d door=%s command=%q\n",
				role.name, w.At.UTC().Format(time.RFC3339), w.Owner.UID, w.Owner.PID, w.Owner.Door, w.Owner.Command)
		}
	}
	return b.Bytes(), nil
}

// ctl is administration:
//
//	init SO-PIN LABEL…   C_InitToken; the three on a line each if the PIN has a blank
//	init-pin PIN         C_InitPIN, for the security officer
//	close-all            C_CloseAllSessions, of the caller's
//	cancel               drops the caller's results that wait
//	unlock PIN           has the daemon log in itself, for those who have grants
//	lock                 ends that
func (p place) ctl(ctx context.Context, a *application, line []byte) error {
	line = secret.Line(line)
	if rest, ok := bytes.CutPrefix(line, []byte("init\n")); ok {
		return p.initToken(ctx, a, rest, "\n")
	}
	word, rest, _ := bytes.Cut(line, []byte(" "))
	verb := string(word)
	switch verb {
	case "init":
		return p.initToken(ctx, a, rest, " ")
	case "init-pin":
		return p.initPIN(ctx, a, rest)
	case "unlock":
		return p.unlock(ctx, a, rest)
	case "lock":
		return p.lock(a, rest)
	case "close-all", "cancel":
		if len(rest) > 0 {
			return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "nothing stands behind %s", verb)
		}
		for _, s := range a.sessions(p.slot) {
			if verb == "cancel" {
				s.cancel()
			} else {
				a.closeSession(s)
			}
		}
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "ctl does not know this command"), "write init SO-PIN LABEL, init-pin PIN, unlock PIN, lock, close-all or cancel")
}

// initToken takes the SO's PIN and, behind blank, the label.
func (p place) initToken(ctx context.Context, a *application, args []byte, blank string) error {
	word, rest, ok := bytes.Cut(args, []byte(blank))
	label := string(rest)
	if !ok || strings.TrimSpace(label) == "" {
		return p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the SO PIN or the label is missing"), "write init SO-PIN LABEL")
	}
	if clean(label) != label || strings.ToValidUTF8(label, "") != label {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a label is text of printable characters")
	}
	pin, err := newPIN(secret.Line(word))
	if err != nil {
		return err
	}
	defer pin.Close()
	// The session that was opened for the caller's files must not be in the
	// caller's way.
	if own := a.session(p.slot, sessionRef{}); own != nil {
		if i, err := p.slot.TokenInfo(ctx); err == nil && i.Sessions == 1 {
			a.closeSession(own)
		}
	}
	return a.eng.InitToken(ctx, p.slot, pin, label)
}

func (p place) initPIN(ctx context.Context, a *application, args []byte) error {
	s, err := a.defaultSession(ctx, p)
	if err != nil {
		return err
	}
	pin, err := newPIN(args)
	if err != nil {
		return err
	}
	defer pin.Close()
	return s.eng.InitPIN(ctx, pin)
}

// setPassphrase keeps the pass phrase of the next import in the session. In a file
// name or on a command line it would show in ps.
func (p place) setPassphrase(_ context.Context, s *session, line []byte) ([]byte, error) {
	b, err := newPIN(secret.Line(line))
	if err != nil {
		return nil, err
	}
	s.setSecret(importSecret, b)
	return nil, nil
}
