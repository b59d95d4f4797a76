package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"p11fs/secret"
)

func newPIN(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "pin [TOKEN]",
		Short: "Change a PIN, or as the security officer set the user's anew",
		Long: `Change the user's PIN, or with --so the security officer's. The old PIN and the new
one, that one twice, are asked for without echo; if standard input is no terminal,
it has one line each: old, new. As long as a new PIN may be is in TOKEN/info: 4 to
1024 bytes, and 4 to 8 in the format of openCryptoki 3.8. Either may come from the first
line of a file: --pin-file has the old PIN, or with --unlock that of the security
officer, and --new-pin-file the new one.

With --unlock the security officer sets the user's PIN anew, whatever it was: after
wrong ones have locked it, or when nobody knows it. In place of the old PIN that of
the security officer is asked for, unless this terminal is logged in as such.

A right PIN also sets the count of wrong ones back. TOKEN may be left out where there
is one only. Who is logged in at this terminal stays so; it cannot be the other role.` + socketText,
		Example: `  p11fs pin swtok
  p11fs pin --so swtok
  p11fs pin --unlock swtok
  p11fs pin swtok --pin-file old.pin --new-pin-file new.pin`,
		Args: takes(0, 1),
	}
	so := c.Flags().Bool("so", false, "change the PIN of the security officer")
	unlock := c.Flags().Bool("unlock", false, "set the user's PIN anew, as the security officer")
	oldFile := c.Flags().String("pin-file", "", "read the old PIN, or with --unlock that of the security officer, from the first line of this `FILE`")
	freshFile := c.Flags().String("new-pin-file", "", "read the new PIN from the first line of this `FILE`")
	return onDoor(c, nil, func(c *cobra.Command, d pinDoor, token string) error {
		change := pinChange{token: token, role: "user", old: "PIN", fresh: "new PIN", unlock: *unlock, oldFile: *oldFile, freshFile: *freshFile}
		switch {
		case *so && *unlock:
			return &usageError{err: errors.New("--unlock is for the user's PIN: leave --so out")}
		case *so:
			change.role, change.old, change.fresh = "so", "SO PIN", "new SO PIN"
		case *unlock:
			change.role, change.old, change.fresh = "so", "SO PIN", "new user PIN"
		}
		return changePIN(c.Context(), d, newAsker(s), change)
	})
}

// A pinChange is what changePIN does.
type pinChange struct {
	token      string
	role       string // whose PIN is given: user or so
	old, fresh string // the prompts
	unlock     bool   // what is set is the user's
	// Files in the place of what is asked for, or "".
	oldFile, freshFile string
}

// changePIN asks for two PINs, and sets the second one. It leaves who is logged in at
// this terminal as it was.
func changePIN(ctx context.Context, d pinDoor, ask *asker, c pinChange) (err error) {
	in := d.role(c.token)
	if in != c.role && in != "public" {
		return &usageError{err: fmt.Errorf("this terminal is logged in to %s as %s: p11fs logout %[1]s first", c.token, in)}
	}
	var old *secret.Bytes
	if !c.unlock || in == "public" {
		if old, err = getPIN(ctx, ask, c.oldFile, c.old, false); err != nil {
			return err
		}
		defer old.Close()
	}
	fresh, err := getPIN(ctx, ask, c.freshFile, c.fresh, true)
	if err != nil {
		return err
	}
	defer fresh.Close()
	what := "pin " + c.token
	if c.role == "so" && in == "public" {
		if err := d.login(what, c.token, "so", old); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.logout(c.token)) }()
	}
	if c.unlock {
		return d.initPIN(what, c.token, fresh)
	}
	return d.setPIN(what, c.token, old, fresh)
}

// A pinDoor is where PINs are set: the mount, or a daemon's socket. what names the command,
// for errors; a role is user or so.
type pinDoor interface {
	role(token string) string // and public
	login(what, token, role string, pin *secret.Bytes) error
	logout(token string) error
	setPIN(what, token string, old, fresh *secret.Bytes) error
	initPIN(what, token string, fresh *secret.Bytes) error
	initToken(what, token string, so *secret.Bytes, label string) error
	inUse(token string) bool
	pinLengths(token string) (shortest, longest int, err error)
}

var (
	_ pinDoor = tree{}
	_ pinDoor = (*remote)(nil)
)

func (t tree) setPIN(what, token string, old, fresh *secret.Bytes) error {
	return t.command(what, token, "pin", joinLines("", old, fresh))
}

func (t tree) initPIN(what, token string, fresh *secret.Bytes) error {
	return t.command(what, token, "ctl", joinSecret("init-pin ", fresh, ""))
}

func (t tree) initToken(what, token string, so *secret.Bytes, label string) error {
	return t.command(what, token, "ctl", joinSecret("init\n", so, "\n"+label))
}

// socketText is how the help of a command says that it needs no mount.
const socketText = `

Where there is no mount, as in a container that has the daemon's socket alone, it goes
through that: the one that $P11FS_SOCKET names, your own, or the machine's. TOKEN is the
token's label then, or the number of its slot.`

// onDoor makes c a command that acts on the token that its first argument names, in the
// mount or through a socket. Where it is not found, the error of that goes to other, if there
// is one, which may have another door.
func onDoor(c *cobra.Command, other func(c *cobra.Command, args []string, why error) (pinDoor, string, func() error, error), act func(c *cobra.Command, d pinDoor, token string) error) *cobra.Command {
	mount := mountFlag(c)
	c.ValidArgsFunction = completeTokens(mount)
	c.RunE = func(c *cobra.Command, args []string) error {
		d, token, end, err := doorTo(c.Context(), *mount, args)
		if err != nil && other != nil {
			d, token, end, err = other(c, args, err)
		}
		if err != nil {
			return err
		}
		return errors.Join(act(c, d, token), end())
	}
	return c
}

// joinLines returns before, and the PINs a line each, in one slice, which command wipes.
func joinLines(before string, pins ...*secret.Bytes) []byte {
	n := len(before)
	for _, p := range pins {
		n += p.Len() + 1
	}
	b := append(make([]byte, 0, n), before...)
	for _, p := range pins {
		p.Use(func(text []byte) { b = append(append(b, text...), '\n') })
	}
	return b
}
