package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"p11fs/mountd"
	"p11fs/mountd/doctor"
	"p11fs/mountd/mountpoint"
)

func newDoctor(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor [MOUNTPOINT]",
		Short: "Say what keeps p11fs from working here, and the line that mends it",
		Long: `Look for what keeps p11fs from working on this machine. Each trouble is one line
that says what is wrong and one with what mends it. A line with "weak" tells of a
token that works and could be kept better, or of a PIN that needs care. Nothing is
changed. The exit status is 1 if something is wrong.

It looks at the mount that MOUNTPOINT or --mount names, or $P11FS_MOUNT; else at the one
that you have mounted, or would. With --system that is /p11, if none is named.`,
		Args: takes(0, 1),
	}
	where := placeFlags(c)
	allowOther := c.Flags().Bool("allow-other", false, "other users are to reach your mount")
	mount := mountFlag(c)
	quiet := c.Flags().BoolP("quiet", "q", false, "print only what is wrong or weak")
	c.RunE = func(c *cobra.Command, args []string) error {
		mode, paths, err := where()
		if err != nil {
			return err
		}
		if len(args) > 0 {
			*mount = args[0]
		}
		paths.Mount = examined(mode, paths.Mount, *mount, os.Getenv)
		daemon := mountd.Config{Mode: mode, Paths: paths, AllowOther: *allowOther, Log: slog.New(slog.DiscardHandler)}
		if err := setKinds(&daemon, "auto"); err != nil {
			return err
		}
		return printFindings(s, doctor.New(daemon, libcrypto).Run(), *quiet)
	}
	return c
}

// examined is the mount that is looked at: the one that is named, or, of one's own, that which
// the other commands find.
func examined(mode mountd.Mode, usual, named string, getenv func(string) string) string {
	if named != "" || mode != mountd.User {
		return cmp.Or(named, usual)
	}
	if named = getenv(mountEnv); named != "" {
		return named
	}
	mounts, _ := mountpoint.Ours()                                      // of which another check tells
	own, _ := chooseMount(mounts, usual, "", strconv.Itoa(os.Getuid())) // none, or several
	return cmp.Or(own, usual)
}

// printFindings prints what was found, and fails if something is wrong.
func printFindings(s streams, findings []doctor.Finding, quiet bool) error {
	good, bad, plain := "", "", ""
	if colours(s, os.Getenv) {
		good, bad, plain = "\x1b[32m", "\x1b[31m", "\x1b[0m"
	}
	wrong := 0
	for _, f := range findings {
		switch {
		case f.Wrong != "":
			wrong++
			fmt.Fprintf(s.out, "%swrong%s  %s: %s\n       mend it with: %s\n", bad, plain, f.Check, f.Wrong, f.Mend)
		case !quiet && f.Detail != "":
			fmt.Fprintf(s.out, "%sgood%s   %s: %s\n", good, plain, f.Check, f.Detail)
		}
		for _, weak := range f.Weak {
			fmt.Fprintf(s.out, "%sweak%s   %s\n", bad, plain, weak)
		}
	}
	if wrong > 0 {
		return errSilent
	}
	return nil
}

// colours reports whether the output may be coloured (no-color.org).
func colours(s streams, getenv func(string) string) bool {
	f, ok := s.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}
