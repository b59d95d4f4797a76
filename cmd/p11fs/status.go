package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/mountd/doctor"
)

func newStatus(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon's state, its slots, who this terminal is logged in as, and how the PINs are",
		Args:  takes(0, 0),
	}
	mount := mountFlag(c)
	resources := c.Flags().Bool("resources", false, "show instead what the daemon holds of the system: name, count, size, users, state")
	asJSON := c.Flags().Bool("json", false, "print the tokens as a JSON array")
	c.RunE = func(*cobra.Command, []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		files, names := []string{"status", "slots"}, t.tokens()
		if *asJSON {
			if *resources {
				return &usageError{err: errors.New("the tokens are printed as JSON: leave --resources or --json out")}
			}
			return t.tokensJSON(s)
		}
		if *resources {
			files, names = []string{"resources"}, nil
		}
		for _, file := range files {
			text, err := t.read(file)
			if err != nil {
				return notMounted(err)
			}
			fmt.Fprint(s.out, text)
		}
		for _, name := range names {
			who, err := t.read(name, "login")
			if err != nil {
				continue // a slot without a token has no login
			}
			fmt.Fprintf(s.out, "login %s %s\n", name, strings.TrimSpace(who))
			one := t.tokenState(name)
			if one.Label != "" {
				fmt.Fprintf(s.out, "label %s %s\n", name, one.Label)
			}
			for _, pin := range one.PINs {
				fmt.Fprintf(s.out, "pin %s %s: %s\n", name, pin.Role, pin.State)
			}
		}
		return nil
	}
	return c
}

// A tokenState is what status tells of a token.
type tokenState struct {
	Slot  string     `json:"slot,omitempty"`
	Name  string     `json:"name"`
	Kind  string     `json:"kind,omitempty"`
	Login string     `json:"login,omitempty"` // of this terminal: public, user or so
	Label string     `json:"label,omitempty"`
	PINs  []pinState `json:"pins,omitempty"`
}

// A pinState is how the PIN of user or so is, and what to do about it.
type pinState struct {
	Role  string `json:"role"`
	State string `json:"state"`
}

// tokenState reads a token's label, and how its PINs are. What cannot be read is left out.
func (t tree) tokenState(token string) tokenState {
	one := tokenState{Name: token, Login: t.role(token)}
	info, _ := t.read(token, "info")
	for line := range strings.Lines(info) {
		if label, ok := strings.CutPrefix(line, "label: "); ok {
			one.Label = strings.TrimSpace(label)
		}
	}
	pins, _ := t.read(token, "pin")
	for line := range strings.Lines(pins) {
		var role, tries, pin string
		if n, _ := fmt.Sscanf(line, "%s tries=%s pin=%s", &role, &tries, &pin); n != 3 {
			continue // of one that was wrong
		}
		role = strings.TrimSuffix(role, ":")
		how, todo := doctor.PINState(token, role, tries, pin)
		if todo != "" {
			how += ": " + todo
		}
		one.PINs = append(one.PINs, pinState{role, how})
	}
	return one
}

// tokensJSON prints the tokens in the order of their slots.
func (t tree) tokensJSON(s streams) error {
	slots, err := t.read("slots")
	if err != nil {
		return notMounted(err)
	}
	all := []tokenState{}
	for line := range strings.Lines(slots) {
		words := strings.Fields(line)
		if len(words) < 3 || words[1] == "-" {
			continue // a slot without a token
		}
		one := t.tokenState(words[1])
		one.Slot, one.Kind = words[0], words[2]
		all = append(all, one)
	}
	return printJSON(s, all)
}

// notMounted wraps errNotMounted around err, unless it is there already.
func notMounted(err error) error {
	if errors.Is(err, errNotMounted) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotMounted, err)
}

func newVersion(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  takes(0, 0),
		Run: func(*cobra.Command, []string) {
			fmt.Fprintln(s.out, versionText())
		},
	}
}

func versionText() string {
	return fmt.Sprintf("p11fs %s %s %s/%s", mountd.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newPath(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:     "path [TOKEN]",
		Short:   "Print the mount point, or the folder of a token in it",
		Example: "  T=$(p11fs path swtok)",
		Args:    takes(0, 1),
	}
	mount := mountFlag(c)
	c.ValidArgsFunction = completeTokens(mount)
	c.RunE = func(_ *cobra.Command, args []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		if len(args) > 0 {
			if err := t.token(args[0]); err != nil {
				return err
			}
		}
		fmt.Fprintln(s.out, filepath.Join(append([]string{t.dir}, args...)...))
		return nil
	}
	return c
}
