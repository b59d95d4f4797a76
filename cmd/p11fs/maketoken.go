package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A tokenMaker makes the token that p11fs init is to initialise, where no daemon has it.
type tokenMaker struct {
	device, protection, cost, card, fleet *string
	server                                serverFlags
	ask                                   func() *asker // the same one each time
}

// makerFlags are the options of c that are for a token which is made.
func makerFlags(c *cobra.Command, s streams) tokenMaker {
	return tokenMaker{
		ask:        sync.OnceValue(func() *asker { return newAsker(s) }),
		device:     c.Flags().String("device", "", "the TPM of a token that is made: /dev/tpmrm0, unix:/PATH or tcp:HOST:PORT (default: $P11FS_TPM, or the machine's)"),
		protection: c.Flags().String("protection", "", "what counts wrong PINs of a token that is made: `pinfail`, an index of its own, or da, the TPM's count for the whole machine"),
		server:     newServerFlags(c),
		cost:       c.Flags().String("cost", "", "how much work a guess at a PIN is, of a token that is made: a `LOGARITHM` of 10 (the default) to 20, each twice as much as the one before"),
		fleet:      c.Flags().String("fleet", "", "the `FILE` that says which fleet has the token, of one that many machines have in etcd: docs/fleet.md"),
		card:       c.Flags().String("card", "", "the cards of a token that is made whose keys they have: `new`, a software card of its own, or a socket"),
	}
}

// settings are those that were given.
func (k tokenMaker) settings() map[string]string {
	given := make(map[string]string)
	for name, value := range map[string]string{"device": *k.device, "protection": *k.protection, "cost": *k.cost, "card": *k.card, "fleet": *k.fleet} {
		if value != "" {
			given[name] = value
		}
	}
	return given
}

// fill makes the token that was begun.
func (k tokenMaker) fill(ctx context.Context, n *mountd.NewToken) (*mountd.Made, error) {
	return n.Make(ctx, k.settings(), k.preparing(ctx, n.Slot.Kind.Name))
}

// preparing is what is done in the directory before a token is made there, nil for nothing.
func (k tokenMaker) preparing(ctx context.Context, token string) func(dir *os.Root) error {
	if !k.server.given() {
		return nil
	}
	return func(dir *os.Root) error { return k.server.prepare(ctx, k.ask(), token, dir) }
}

// unwanted is the error of settings for a token that is there.
func (k tokenMaker) unwanted(token string) error {
	if k.server.given() {
		return &usageError{err: fmt.Errorf("%s is there already, on the server that it was made for: leave --uri out", token)}
	}
	for name := range k.settings() {
		return &usageError{err: fmt.Errorf("%s is there already, and keeps the %s that it was made with: leave --%[2]s out", token, name)}
	}
	return nil
}

// make makes the token that args name, or returns why, for which no daemon has it, if its
// name and the options do not say that one is to be made.
func (k tokenMaker) make(c *cobra.Command, args []string, why error) (pinDoor, string, func() error, error) {
	nothing := func() error { return nil }
	home, _ := os.UserHomeDir()
	paths, err := mountd.UserPaths(os.Getenv, home)
	if err != nil || c.Flags().Changed("mount") {
		return nil, "", nothing, why
	}
	conf := mountd.Config{Mode: mountd.User, Paths: paths, Log: slog.New(slog.DiscardHandler)}
	if err := setKinds(&conf, "auto"); err != nil {
		return nil, "", nothing, err
	}
	if !conf.Named(args[0]) && len(k.settings()) == 0 && !k.server.given() {
		return nil, "", nothing, why
	}
	made, err := conf.Make(c.Context(), args[0], k.settings(), k.preparing(c.Context(), args[0]))
	if err != nil {
		return nil, "", nothing, fmt.Errorf("init %s: %w", args[0], withAdvice(err))
	}
	d := &directoryDoor{ctx: c.Context(), made: made}
	return d, args[0], d.close, nil
}

// A directoryDoor is a token that a command has opened itself.
type directoryDoor struct {
	ctx  context.Context // of the command
	made *mountd.Made
	in   tokens.Login // nil: nobody is
	done bool         // the token is there to stay
}

var _ pinDoor = (*directoryDoor)(nil)

func userOf(role string) p11.UserType {
	if role == "so" {
		return p11.CKU_SO
	}
	return p11.CKU_USER
}

// failed says what an error is about, and what to do.
func (d *directoryDoor) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, withAdvice(err))
}

func (d *directoryDoor) role(string) string {
	switch {
	case d.in == nil:
		return "public"
	case d.in.User() == p11.CKU_SO:
		return "so"
	}
	return "user"
}

func (d *directoryDoor) login(what, _, role string, pin *secret.Bytes) (err error) {
	d.in, err = d.made.Login(d.ctx, userOf(role), pin)
	return d.failed(what, err)
}

func (d *directoryDoor) logout(string) error {
	if d.in == nil {
		return nil
	}
	in := d.in
	d.in = nil
	return in.Close()
}

func (d *directoryDoor) setPIN(what, token string, old, fresh *secret.Bytes) error {
	return d.failed(what, d.made.SetPIN(d.ctx, userOf(d.role(token)), old, fresh))
}

func (d *directoryDoor) initPIN(what, _ string, fresh *secret.Bytes) error {
	return d.failed(what, d.made.InitPIN(d.ctx, d.in, fresh))
}

func (d *directoryDoor) initToken(what, _ string, so *secret.Bytes, label string) error {
	if len(label) > 32 {
		return errors.New("the label has more than 32 bytes: write a shorter one")
	}
	err := d.made.InitToken(d.ctx, so, label)
	if p11.RVOf(err) == p11.CKR_PIN_INCORRECT { // of a token that is gone at once, so that no tries are left
		err = p11.Advise(p11.Errorf(p11.CKR_PIN_INCORRECT, "that is not the SO PIN of a new token; nothing was made"), "write 87654321, and change it later with p11fs pin --so "+d.made.Slot.Place.Name)
	}
	return d.failed(what, err)
}

// close ends it: without done with nothing left behind.
func (d *directoryDoor) close() error {
	if d.done {
		return d.made.Close()
	}
	return d.made.Abandon(d.ctx)
}

// inUse is never so: the token was not initialised.
func (d *directoryDoor) inUse(string) bool { return false }

func (d *directoryDoor) pinLengths(string) (shortest, longest int, err error) {
	info, err := d.made.Info(d.ctx)
	return int(info.MinPINLen), int(info.MaxPINLen), err
}

// tell says where the token is, now that it is there to stay, and what is weak about it.
func (d *directoryDoor) tell(s streams, token string) {
	d.done = true
	fmt.Fprintf(s.err, "p11fs: %s is made in %s: p11fs mount serves it, and a daemon that runs after p11fs token new --adopt %[1]s\n", token, d.made.Slot.Place.Dir)
	if why, mend := d.made.Weak(); why != "" {
		fmt.Fprintf(s.err, "p11fs: weak: %s: %s\n", why, mend)
	}
}
