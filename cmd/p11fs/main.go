// Command p11fs mounts PKCS#11 tokens as a file tree, and acts on tokens
// through that tree: what the command line can do there, cat and echo can do
// too. migrate, check, backup and restore work on a token's directory instead.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// secondSignal is how long after the first one a signal says nothing new.
const secondSignal = 500 * time.Millisecond

// The kernel gives a signal to the main thread, and to another only if that one is busy.
// One that waits for a daemon which hangs is not busy to the kernel, and would never take
// it: so it makes no system call but waits for the threads that do.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // before main there is no other thread

func main() {
	if isSlotDaemon(os.Args[0]) {
		runtime.UnlockOSThread()
		os.Exit(slotDaemonMain(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
	}
	if isAgePlugin(os.Args[0]) {
		runtime.UnlockOSThread()
		os.Exit(agePluginMain(streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Getenv))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal asks for an orderly end. Soon after the default holds
	// again, so a second one kills; timeout(1) sends two at once.
	context.AfterFunc(ctx, func() { time.AfterFunc(secondSignal, stop) })
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	err := run(ctx, os.Args[1:], s)
	report(s, err)
	os.Exit(exitCode(err))
}

// streams is what a command reads and writes. A terminal is asked without
// echo.
type streams struct {
	in       *os.File
	out, err io.Writer
}

// orderly is how long a command that was interrupted has to put the terminal right. One
// that waits for a daemon which does not answer is left behind.
const orderly = 200 * time.Millisecond

// run is the whole program.
func run(ctx context.Context, args []string, s streams) error {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetIn(s.in)
	execute := func() (struct{}, error) { return struct{}{}, root.ExecuteContext(ctx) }
	if c, _, err := root.Find(args); err == nil && (c.Name() == "mount" || c.Name() == "serve") { // which end in their own order
		runtime.UnlockOSThread()
		_, err := execute()
		return err
	}
	_, err := interruptible(ctx, orderly, execute)
	return err
}

// newRoot builds the command and all below it.
func newRoot(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "p11fs",
		Short: "PKCS#11 tokens as a file tree",
		Long: `p11fs is a daemon that runs a PKCS#11 token engine and shows its tokens, keys
and sessions as files: what is written to a key's file "sign" comes back signed.

Exit status: 0 success; 1 failure; 2 wrong usage; 3 p11fs is not mounted;
4 not logged in, or wrong PIN or pass phrase; 5 in use; 130 interrupted.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		// How many letters may be wrong in a misspelt command.
		SuggestionsMinimumDistance: 2,
		// A word that is no command is a mistake, not an argument.
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
		Version: versionText(),
	}
	c.SetVersionTemplate("{{.Version}}\n")
	c.SetFlagErrorFunc(flagError)
	c.AddCommand(
		newMount(s), newUmount(s), newStatus(s), newPath(s), newInit(s), newLogin(s), newLogout(s), newPIN(s), newKick(s), newWho(s), newTop(s), newFleet(s), newGrants(s), newLock(s), newUnlock(s),
		newList(s), newShow(s), newSet(s), newMove(s), newRemove(s), newCopy(s), newRotate(s), newGenerate(s), newImport(s), newMigrate(s), newToken(s), newEvents(s), newCheck(s), newBackup(s), newRestore(s), newImportToken(s), newExport(s), newMechanisms(s), newEnv(s), newAgent(s), newAgeRecipient(s), newRequest(s), newCertificate(s), newDoctor(s), newCard(s), newVersion(s), newMan(s),
	)
	c.AddCommand(newData(s)...)
	c.AddCommand(newKeys(s)...)
	c.SetOut(s.out)
	c.SetErr(s.err)
	c.InitDefaultCompletionCmd("completion") // which writes where c does now
	for _, sub := range c.Commands() {
		wrapArgs(sub)
		if sub.Name() == "completion" {
			sub.Args, sub.RunE = takes(0, 0), func(c *cobra.Command, _ []string) error { return c.Help() }
			wrapArgs(sub)
		}
		for _, below := range sub.Commands() {
			if sub.Name() == "completion" {
				below.Args = takes(0, 0)
			}
			wrapArgs(below)
		}
	}
	wrapArgs(c)
	return c
}

// flagError says in words of its own what is wrong with an option.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		err = fmt.Errorf("there is no option %s: %s --help lists them", unknown.GetSpecifiedName(), c.CommandPath())
	case errors.As(err, &empty):
		err = fmt.Errorf("the option --%s stands without its value: write it behind", empty.GetFlag().Name)
	case errors.As(err, &bad):
		err = fmt.Errorf("%q is nothing for the option --%s: %s --help says what it takes", bad.GetValue(), bad.GetFlag().Name, c.CommandPath())
	}
	return &usageError{err: err, usage: usageLine(c, nil)}
}

// takes accepts least to most arguments, and says in words of its own what is wrong
// with another number.
func takes(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch n := len(args); {
		case n < least:
			return fmt.Errorf("%s: %s missing: write it as in %s", c.CommandPath(), missing(c, n), exampleLine(c))
		case n > most:
			return fmt.Errorf("%s does not know what to do with %q: leave it out", c.CommandPath(), args[most])
		}
		return nil
	}
}

// missing names the arguments that c lacks with n of them, and says that they are.
func missing(c *cobra.Command, n int) string {
	words := strings.Fields(c.Use)[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "[") { // such as [TOKEN]
		words = words[1:]
	}
	words = words[min(n, len(words)):]
	if at := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "[") }); at >= 0 {
		words = words[:at]
	}
	for i, w := range words {
		words[i] = strings.TrimSuffix(w, "...")
	}
	if len(words) == 1 {
		return words[0] + " is"
	}
	return strings.Join(words, " and ") + " are"
}

// exampleLine is a line that calls c.
func exampleLine(c *cobra.Command) string {
	for line := range strings.Lines(c.Example) {
		if n := strings.Index(line, c.CommandPath()+" "); n >= 0 {
			return strings.TrimSpace(line[n:])
		}
	}
	return c.UseLine()
}

// wrapArgs makes a wrong number of arguments a usage error.
func wrapArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		return
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{err: err, usage: usageLine(c, args)}
		}
		return nil
	}
}

// usageLine is how c is used. It suggests a command for a word that is none.
func usageLine(c *cobra.Command, args []string) string {
	if c.HasParent() && !c.HasSubCommands() {
		return c.UseLine()
	}
	line := c.CommandPath() + " COMMAND; " + c.CommandPath() + " --help lists them"
	if len(args) > 0 {
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			line += " (did you mean " + strings.Join(near, " or ") + "?)"
		}
	}
	return line
}

// report prints the error of a command, once.
func report(s streams, err error) {
	if err == nil || errors.Is(err, errSilent) {
		return
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(s.err, "p11fs: %s\n", printable(err.Error()))
	var u *usageError
	if errors.As(err, &u) && u.usage != "" {
		fmt.Fprintf(s.err, "usage: %s\n", u.usage)
	}
}

// printable is text that may be anybody's, such as a file's name, for a terminal, which it
// gives no orders.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
