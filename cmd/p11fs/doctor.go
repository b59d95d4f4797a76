package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"p11fs/mountd"
	"p11fs/mountd/doctor"
)

func newDoctor(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor [MOUNTPOINT]",
		Short: "Say what keeps p11fs from working here, and the line that mends it",
		Long: `Look for what keeps p11fs from working on this machine. Each trouble is one line
that says what is wrong and one with what mends it. A line with "weak" tells of a
token that works and could be kept better, or of a PIN that needs care. Nothing is
changed. The exit status is 1 if something is wrong.`,
		Args: takes(0, 1),
	}
	where := placeFlags(c)
	allowOther := c.Flags().Bool("allow-other", false, "other users are to reach your mount")
	quiet := c.Flags().BoolP("quiet", "q", false, "print only what is wrong or weak")
	c.RunE = func(c *cobra.Command, args []string) error {
		mode, paths, err := where()
		if err != nil {
			return err
		}
		if len(args) > 0 {
			paths.Mount = args[0]
		}
		daemon := mountd.Config{Mode: mode, Paths: paths, AllowOther: *allowOther, Log: slog.New(slog.DiscardHandler)}
		if err := setKinds(&daemon, "auto"); err != nil {
			return err
		}
		return printFindings(s, doctor.New(daemon, libcrypto).Run(), *quiet)
	}
	return c
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
