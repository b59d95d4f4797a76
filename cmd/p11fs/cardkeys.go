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
			"Remove what reencipher made, where the next master key is not to be activated.",
			tokens.Reencipherer.CancelReencipher, "%d keys of %s have nothing beside them any more\n",
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
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		mode, paths, err := where()
		if err != nil {
			return err
		}
		conf := mountd.Config{Mode: mode, Paths: paths, Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
		if err := setKinds(&conf, "auto"); err != nil {
			return err
		}
		t, err := conf.OpenDirectory(c.Context(), args[0])
		if err != nil {
			return withAdvice(err)
		}
		defer func() { err = errors.Join(err, t.Close()) }()
		keys, ok := t.Token.(tokens.Reencipherer)
		if !ok {
			return fmt.Errorf("the token %s is of the kind %s, whose keys are under no master key of a card: name another one", args[0], t.Kind())
		}
		pin, err := getPIN(c.Context(), newAsker(s), *pinFile, "user PIN", false)
		if err != nil {
			return err
		}
		defer pin.Close()
		login, err := t.Login(c.Context(), p11.CKU_USER, pin)
		if err != nil {
			return withAdvice(err)
		}
		defer func() { err = errors.Join(err, login.Close()) }()
		bar := startCount(s)
		n, err := step.run(keys, c.Context(), bar.reached)
		bar.stop()
		if err != nil {
			return withAdvice(err)
		}
		fmt.Fprintf(s.out, step.said, n, args[0])
		return nil
	}
	return c
}
