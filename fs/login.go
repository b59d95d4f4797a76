package fs

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"p11fs/p11"
	"p11fs/secret"
)

// maxPINCommand is the longest text with PINs in it.
const maxPINCommand = 4096

// loginFile is C_Login: PIN, user:PIN or so:PIN. It reads public, user or so. What
// is written as context-specific:PIN is kept for the next signature or decryption
// in the session by a key that wants the PIN each time
// (CKA_ALWAYS_AUTHENTICATE).
func (f *FS) loginFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "login", limit: maxPINCommand,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			user, pin := p11.UserType(p11.CKU_USER), line
			context := false
			if who, rest, ok := bytes.Cut(line, []byte(":")); ok {
				switch string(who) {
				case "user":
					pin = rest
				case "so":
					user, pin = p11.CKU_SO, rest
				case "context-specific":
					context, pin = true, rest
				}
			}
			if len(pin) == 0 {
				return nil, errNoPIN
			}
			// Whatever else it is, it is a PIN, right or wrong: the token
			// counts it.
			secretPIN, err := secret.New(pin)
			if err != nil {
				return nil, p11.Errorf(p11.CKR_HOST_MEMORY, "%v", err)
			}
			if context {
				o.s.setSecret(contextSecret, secretPIN)
				return nil, nil
			}
			defer secretPIN.Close()
			return nil, o.s.eng.Login(ctx, user, secretPIN)
		},
		text: func(_ context.Context, c caller) ([]byte, error) {
			a, err := f.viewer(c, p)
			if err != nil {
				return nil, err
			}
			switch user, ok := a.LoggedIn(p.slot); {
			case !ok:
				return []byte("public\n"), nil
			case user == p11.CKU_SO:
				return []byte("so\n"), nil
			}
			return []byte("user\n"), nil
		},
	}
}

var errNoPIN = p11.Errorf(p11.CKR_PIN_LEN_RANGE, "the PIN is missing")

// pinOf takes a new PIN out of a command, and wipes it there.
func pinOf(b []byte) (*secret.Bytes, error) {
	if len(b) == 0 {
		return nil, errNoPIN
	}
	if bytes.IndexByte(b, 0) >= 0 || bytes.IndexByte(b, '\n') >= 0 {
		secret.Wipe(b)
		return nil, p11.Errorf(p11.CKR_PIN_INVALID, "a PIN is one line of text")
	}
	pin, err := secret.New(b)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_HOST_MEMORY, "%v", err)
	}
	return pin, nil
}

// logoutFile is C_Logout. What is written does not matter much; it is one of a
// few words so that what was meant for another file is refused.
func (f *FS) logoutFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "logout", limit: maxPINCommand, empty: true,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			switch string(bytes.TrimSpace(line)) {
			case "", "1", "logout":
				return nil, o.s.eng.Logout(ctx)
			}
			return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "write an empty line, or the word logout")
		},
	}
}

// pinFile is C_SetPIN: OLD NEW. It reads what the token tells of the PINs.
func (f *FS) pinFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "pin", limit: maxPINCommand,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			before, after, ok := bytes.Cut(line, []byte(" "))
			if !ok || len(before) == 0 || len(after) == 0 || bytes.IndexByte(after, ' ') >= 0 {
				return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "write the old PIN, a blank, and the new PIN")
			}
			oldPIN, err := pinOf(before)
			if err != nil {
				return nil, err
			}
			defer oldPIN.Close()
			newPIN, err := pinOf(after)
			if err != nil {
				return nil, err
			}
			defer newPIN.Close()
			return nil, o.s.eng.SetPIN(ctx, oldPIN, newPIN)
		},
		text: func(ctx context.Context, _ caller) ([]byte, error) {
			i, err := p.slot.TokenInfo(ctx)
			if err != nil {
				return nil, err
			}
			return []byte(pinText(i.Flags)), nil
		},
	}
}

// pinText says for each role whether it has a PIN, and how many tries are left
// as far as PKCS#11 tells: many, some, 1 or 0.
func pinText(flags p11.Flags) string {
	var b strings.Builder
	role := func(name string, set bool, low, final, locked, change p11.Flags) {
		tries := "many"
		switch {
		case flags&locked != 0:
			tries = "0"
		case flags&final != 0:
			tries = "1"
		case flags&low != 0:
			tries = "some"
		}
		state := "set"
		if !set {
			state = "unset"
		} else if flags&change != 0 {
			state = "to-be-changed"
		}
		fmt.Fprintf(&b, "%s: tries=%s pin=%s\n", name, tries, state)
	}
	role("user", flags&p11.CKF_USER_PIN_INITIALIZED != 0, p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED, p11.CKF_USER_PIN_TO_BE_CHANGED)
	role("so", true, p11.CKF_SO_PIN_COUNT_LOW, p11.CKF_SO_PIN_FINAL_TRY, p11.CKF_SO_PIN_LOCKED, p11.CKF_SO_PIN_TO_BE_CHANGED)
	return b.String()
}

// ctlFile is administration:
//
//	init SO-PIN LABEL…   C_InitToken
//	init-pin PIN         C_InitPIN, for the security officer
//	close-all            C_CloseAllSessions, of the caller's
//	cancel               drops the caller's results that wait
func (f *FS) ctlFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "ctl", limit: maxPINCommand, sessionless: true,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			verb, rest, _ := bytes.Cut(line, []byte(" "))
			switch string(verb) {
			case "init":
				return nil, f.initToken(ctx, o, p, rest)
			case "init-pin":
				return nil, f.initPIN(ctx, o, p, rest)
			case "close-all", "cancel":
				if len(rest) > 0 {
					return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s stands alone", verb)
				}
				all, _ := o.app.sessions(p.slot)
				for _, s := range all {
					if string(verb) == "cancel" {
						s.cancel()
					} else {
						o.app.closeSession(s)
					}
				}
				return nil, nil
			}
			return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "write init SO-PIN LABEL, init-pin PIN, close-all or cancel")
		},
	}
}

func (f *FS) initToken(ctx context.Context, o *opened, p place, args []byte) error {
	pin, label, ok := bytes.Cut(args, []byte(" "))
	if !ok || len(bytes.TrimSpace(label)) == 0 {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "write init, the SO PIN, and the label")
	}
	text := string(label)
	if clean(text) != text || strings.ToValidUTF8(text, "") != text {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a label is text of printable characters")
	}
	secretPIN, err := pinOf(pin)
	if err != nil {
		return err
	}
	defer secretPIN.Close()
	// The session that reading and writing files made by itself is not to be
	// in its own caller's way.
	if all, self := o.app.sessions(p.slot); self != nil && len(all) == 1 {
		if i, err := p.slot.TokenInfo(ctx); err == nil && i.Sessions == 1 {
			o.app.closeSession(self)
		}
	}
	return o.app.eng.InitToken(ctx, p.slot, secretPIN, text)
}

func (f *FS) initPIN(ctx context.Context, o *opened, p place, args []byte) error {
	s, err := o.app.self(ctx, f, p.slot)
	if err != nil {
		return err
	}
	pin, err := pinOf(args)
	if err != nil {
		return err
	}
	defer pin.Close()
	return s.eng.InitPIN(ctx, pin)
}

// passphraseFile takes the pass phrase of the next import in the session. A
// pass phrase in a file name or a command line would show in ps.
func (f *FS) passphraseFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "passphrase", limit: maxPINCommand,
		run: func(_ context.Context, o *opened, line []byte) ([]byte, error) {
			b, err := pinOf(line)
			if err != nil {
				return nil, err
			}
			o.s.setSecret(importSecret, b)
			return nil, nil
		},
	}
}
