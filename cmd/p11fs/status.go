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
	c.RunE = func(*cobra.Command, []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		files, names := []string{"status", "slots"}, t.tokens()
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
			t.showPINs(s, name)
		}
		return nil
	}
	return c
}

// showPINs prints a token's label, and how its PINs are. What cannot be read is left out.
func (t tree) showPINs(s streams, token string) {
	info, _ := t.read(token, "info")
	for line := range strings.Lines(info) {
		if label, ok := strings.CutPrefix(line, "label: "); ok {
			fmt.Fprintf(s.out, "label %s %s\n", token, strings.TrimSpace(label))
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
		fmt.Fprintf(s.out, "pin %s %s: %s\n", token, role, how)
	}
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
