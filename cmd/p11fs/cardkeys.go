package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/tokens"
)

// A reencipherStep is one command of a change of a card's master key, as it is for tokens.
type reencipherStep struct {
	name, short, long string
	run               func(tokens.Reencipherer, context.Context, func(done, total int)) (int, error)
	said              string // with the number of keys and the token
}

func reencipherSteps() []reencipherStep {
	return []reencipherStep{
		{
			"reencipher", "Put beside each key of a token what it is under the card's next master key",
			"Put beside each key of a token what it is under the card's next master key, which the\ncard's administrators have made and committed, and not yet activated. Keys go on to be\nused. A run that was cut off is started again, and goes on.",
			tokens.Reencipherer.Reencipher, "%d keys of %s stand beside themselves under the next master key: have it activated, then p11fs card finalize\n",
		},
		{
			"finalize", "Have what reencipher made take the keys' places",
			"Have what reencipher made take the keys' places, once the next master key is activated.\nWhat the keys were stays in ibm-opaque-old.",
			tokens.Reencipherer.FinalizeReencipher, "%d keys of %s are under the new master key\n",
		},
		{
			"cancel", "Remove what reencipher made",
			"Remove what reencipher made, where the next master key is not to be activated: it loses all keys\nof the token from then on, and is to be taken out of the card, as p11fs card wk clear does.",
			tokens.Reencipherer.CancelReencipher, "what reencipher made of %d keys of %s is removed: the card's next master key would lose them, so have it taken out of the card (p11fs card wk clear)\n",
		},
	}
}

func newCardKeys(s streams, step reencipherStep) *cobra.Command {
	c := &cobra.Command{
		Use: step.name + " TOKEN", Short: step.short, Long: step.long + " The user's PIN is asked for." + directoryText,
		Example: "  p11fs card " + step.name + " ep11tok", Args: takes(1, 1),
	}
	where := placeFlags(c)
	pinFile := c.Flags().String("pin-file", "", "read the user's PIN from the first line of this `FILE`")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withCardToken(c.Context(), s, where, args[0], *pinFile, func(ctx context.Context, t tokens.Token, _ *asker) error {
			keys, ok := t.(tokens.Reencipherer)
			if !ok {
				return fmt.Errorf("the token %s is of the kind %s, whose keys are under no master key of a card: name another one", args[0], t.Kind())
			}
			bar := startCount(s)
			n, err := step.run(keys, ctx, bar.reached)
			bar.stop()
			if err == nil {
				fmt.Fprintf(s.out, step.said, n, args[0])
			}
			return withAdvice(err)
		})
	}
	return c
}

// withCardToken does something with a token's directory, as its user.
func withCardToken(ctx context.Context, s streams, where func() (mountd.Mode, mountd.Paths, error), name, pinFile string, do func(context.Context, tokens.Token, *asker) error) (err error) {
	mode, paths, err := where()
	if err != nil {
		return err
	}
	conf := mountd.Config{Mode: mode, Paths: paths, Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if err := setKinds(&conf, "auto"); err != nil {
		return err
	}
	t, err := conf.OpenDirectory(ctx, name)
	if err != nil {
		return withAdvice(err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	ask := newAsker(s)
	pin, err := getPIN(ctx, ask, pinFile, "user PIN", false)
	if err != nil {
		return err
	}
	defer pin.Close()
	login, err := t.Login(ctx, p11.CKU_USER, pin)
	if err != nil {
		return withAdvice(err)
	}
	defer func() { err = errors.Join(err, login.Close()) }()
	return do(ctx, t.Token, ask)
}

func newCardVHSMPIN(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "vhsm-pin TOKEN",
		Short: "Set the PIN of the cards' login that a token with VHSM_MODE binds its keys to",
		Long: `Set the PIN of the cards' login that a token binds its private keys to, whose ep11tok.conf
has VHSM_MODE: 8 to 16 bytes, which only the user's PIN opens and nobody enters again. The
user's PIN is asked for, and then the new one, twice; if standard input is no terminal, it
has one line each. It counts from when nobody is logged in to the token. Keys that were made
under another one are of no use until that is set again.` + directoryText,
		Example: "  p11fs card vhsm-pin ep11tok", Args: takes(1, 1),
	}
	where := placeFlags(c)
	pinFile := c.Flags().String("pin-file", "", "read the user's PIN from the first line of this `FILE`")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withCardToken(c.Context(), s, where, args[0], *pinFile, func(ctx context.Context, t tokens.Token, ask *asker) error {
			setter, ok := t.(tokens.SessionPINSetter)
			if !ok {
				return fmt.Errorf("the token %s is of the kind %s, whose keys are bound to no login of a card: name another one", args[0], t.Kind())
			}
			pin, err := getPIN(ctx, ask, "", "new VHSM PIN", true)
			if err != nil {
				return err
			}
			defer pin.Close()
			return withAdvice(setter.SetSessionPIN(ctx, pin))
		})
	}
	return c
}
