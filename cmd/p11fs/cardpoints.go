package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/card/soft"
)

func newCardPoints(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "points [POINT=on|off]...",
		Short: "Show or switch what EP11 cards allow",
		Long: `Show which control points of EP11 cards are on, or switch some on or off. A POINT is a name of
those that it shows, or a number. The cards obey those of the uses of keys (2 to 13), of changes of
keys (17), of short HMAC keys (22), of the strength of keys (23 to 28), of RSA, DSA and curves
(30 to 32 and 55), and USER_SET_TRUSTED (37), without which no token can say that other keys may
leave the card under a key; the other points are there, and change nothing. A card that is
served takes it up at once. A token lists its mechanisms anew when its file card is read.`,
		Example: "  p11fs card points --dir ~/card USER_SET_TRUSTED=on\n  p11fs card points KEYSZ_BELOW80BIT=off KEYSZ_80BIT=off",
	}
	p := cardFlags(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		switched, err := readPoints(args)
		if err != nil {
			return err
		}
		kind, dir, err := p.open()
		if err != nil {
			return err
		}
		if kind.abi() != card.EP11 {
			return &usageError{err: errors.New("cards in CCA mode have no control points: leave out --kind")}
		}
		set, err := soft.OpenSet(dir)
		if err != nil {
			return err
		}
		if len(switched) > 0 {
			err = set.SetControlPoints(switched)
		} else {
			err = showPoints(s, set)
		}
		return errors.Join(err, set.Close())
	}
	return c
}

// readPoints reads what is to be switched.
func readPoints(args []string) (map[int]bool, error) {
	switched := make(map[int]bool)
	for _, arg := range args {
		name, state, _ := strings.Cut(arg, "=")
		n, ok := ep11.PointOf(name)
		if !ok || n >= 8*ep11.ControlPointBytes || state != "on" && state != "off" {
			return nil, &usageError{err: fmt.Errorf("%q is no control point to switch: write its name or number, = and on or off; p11fs card points shows them", arg)}
		}
		switched[n] = state == "on"
	}
	return switched, nil
}

// showPoints has a line of each control point that has a name.
func showPoints(s streams, set *soft.Set) error {
	points, err := set.ControlPoints()
	if err != nil {
		return err
	}
	for _, p := range ep11.Points() {
		state := "off"
		if ep11.HasPoint(points, p.Number) {
			state = "on"
		}
		fmt.Fprintf(s.out, "%d %s=%s\n", p.Number, p.Name, state)
	}
	return nil
}
