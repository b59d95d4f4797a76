package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/secret"
	"p11fs/tokens"
)

func newFleet(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "fleet",
		Short: "Look after tokens that many machines have in etcd",
		Args:  takes(0, 0),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	accept := newFleetAccept(s)
	wrapArgs(accept)
	c.AddCommand(accept)
	return c
}

func newFleetAccept(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "accept TOKEN",
		Short: "Go on with what is in etcd, after somebody else has changed it",
		Long: `Go on with what is in etcd, after somebody has changed it who has not the fleet's key:
removed objects, or put back what they or the token were. It shows first what is there: the
count of changes, how the PINs are, and the objects, with what is wrong. Then the SO PIN is
asked for, which is that of the state that is shown, and all machines take that state: what
is damaged goes, and logins end. What was removed comes back from p11fs backup alone.`,
		Example: `  p11fs fleet accept web`,
		Args:    takes(1, 1),
	}
	soFile := c.Flags().String("so-pin-file", "", "read the SO PIN from the first line of this `FILE`")
	return onDirectory(s, c, func(c *cobra.Command, open func(string, bool) (*mountd.Upkeep, error), args []string) (err error) {
		u, err := open(args[0], false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, u.Close()) }()
		a, ok := u.Upkeep.(tokens.Accepter)
		if !ok {
			return &usageError{err: fmt.Errorf("%s is no token of a fleet: name one that is", args[0])}
		}
		if err := a.Accept(c.Context(), func(found []string) (*secret.Bytes, error) {
			for _, line := range found {
				fmt.Fprintln(s.out, printableLine(line))
			}
			return getPIN(c.Context(), newAsker(s), *soFile, "SO PIN", false)
		}); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s is on all machines what is shown.\n", args[0])
		return nil
	})
}

// A fleetLine is a line of status about the fleet of a token.
type fleetLine struct {
	Token string `json:"token"`
	What  string `json:"what"` // fleet, member or host
	Text  string `json:"text"`
}

// fleet reads what the daemon says of fleets.
func (t tree) fleet() ([]fleetLine, error) {
	text, err := t.read("status")
	if err != nil {
		return nil, notMounted(err)
	}
	list := []fleetLine{}
	for line := range strings.Lines(text) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what != "fleet" && what != "member" && what != "host" {
			continue
		}
		token, about, _ := strings.Cut(rest, ": ")
		list = append(list, fleetLine{token, what, about})
	}
	return list, nil
}

// showFleet prints the machines of fleets, and the members of etcd.
func showFleet(s streams, mount string, asJSON bool) error {
	t, err := findTree(mount, os.Getenv)
	if err != nil {
		return err
	}
	list, err := t.fleet()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(s, list)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.Token, l.What, printableLine(l.Text))
	}
	return w.Flush()
}
