package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/fleet"
	"p11fs/tokens/swtok"
)

// directoryText is how the help of a command says where TOKEN is.
const directoryText = `

TOKEN is one of your own, in $XDG_DATA_HOME/p11fs, or with --system one of the
machine's, in /var/lib/opencryptoki.`

// onDirectory makes c a command that acts on the directory of a token: that which args
// say, by name. Neither a mount nor a daemon is needed, and either may be there.
func onDirectory(s streams, c *cobra.Command, act func(c *cobra.Command, open func(name string, create bool) (*mountd.Upkeep, error), args []string) error) *cobra.Command {
	return onDirectories(s, c, func(c *cobra.Command, conf mountd.Config, args []string) error { return act(c, conf.OpenUpkeep, args) })
}

// onDirectories is onDirectory for what wants all that is known of the directories.
func onDirectories(s streams, c *cobra.Command, act func(c *cobra.Command, conf mountd.Config, args []string) error) *cobra.Command {
	c.Long += directoryText
	where := placeFlags(c)
	file := c.Flags().String("config", "", "read the slots from `FILE` instead of the usual opencryptoki.conf")
	config := func() (mountd.Config, error) {
		mode, paths, err := where()
		conf := mountd.Config{Mode: mode, Paths: paths, Log: slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
		if c.Flags().Changed("config") {
			conf.Paths.Config, conf.ConfigRequired = *file, true
		}
		if err == nil {
			err = setKinds(&conf, "go") // which does nothing with the keys
		}
		return conf, err
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		conf, err := config()
		if err != nil {
			return err
		}
		return withAdvice(act(c, conf, args))
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		conf, err := config()
		if len(args) > 0 || err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slots, _, _ := conf.Slots() // none are offered where they are not known
		var names []cobra.Completion
		for _, s := range slots {
			if s.Kind != nil {
				names = append(names, s.Place.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// withAdvice adds to an error of PKCS#11 what to do about it, as the tree's file error does.
func withAdvice(err error) error {
	var rv p11.RV
	if !errors.As(err, &rv) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, p11.AdviceOf(err))
}

func newMigrate(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate TOKEN",
		Short: "Bring a token from the format of openCryptoki 3.8 into that of 3.12, or into a fleet",
		Long: `Bring a token from the format of openCryptoki 3.8 into that of 3.12, which keeps
PINs by PBKDF2 and objects by AES-256-GCM, and lets PINs have up to 1024 bytes.
Objects stay as they are, and so do label, serial number and PINs. Both PINs are
asked for, as the token's key is kept under each; if standard input is no terminal,
it has one line each: SO PIN, then the user's if there is one. Wrong ones count.

A daemon may serve your own token meanwhile; all its logins end then. Where
opencryptoki.conf says the format, the daemon must be stopped, and tokversion is
written there. Whatever kills the command, the token is the old or the new one, and
the command can be started again.

What the token was stays beside it as .TOKEN.migration, with its weak hashes of the
PINs: whoever reads that can guess them. --rollback brings it back, without what was
changed since, which stays there until --forget-backup removes it or, after a
question, the token is migrated again.

With --to-fleet a token in that format becomes one that many machines have in etcd, and with
--from-fleet one of those is in a directory again: with all objects, PINs and flags, so no PIN
is asked for. A daemon that serves it does so again at once, while nobody else is logged in.
What the directory was stays beside it, under a name that is printed. In etcd a token stays
that has left it, for the other machines.`,
		Example: `  p11fs migrate swtok
  p11fs migrate work --to-fleet web.conf
  p11fs migrate swtok --rollback
  p11fs migrate swtok --forget-backup --yes`,
		Args: takes(1, 1),
	}
	soFile := c.Flags().String("so-pin-file", "", "read the SO PIN from the first line of this `FILE`")
	pinFile := c.Flags().String("pin-file", "", "read the user's PIN from the first line of this `FILE`")
	skip := c.Flags().Bool("skip-damaged", false, "leave objects that cannot be read behind, in the backup")
	rollback := c.Flags().Bool("rollback", false, "put the token back as it was before it was migrated")
	forget := c.Flags().Bool("forget-backup", false, "remove what a migration has left beside the token")
	yes := c.Flags().BoolP("yes", "y", false, "do not ask whether what was changed since, or the backup, may go")
	toFleet := c.Flags().String("to-fleet", "", "have it be a token of the fleet that this `FILE` says")
	fromFleet := c.Flags().Bool("from-fleet", false, "have it be in a directory again")
	return onDirectories(s, c, func(c *cobra.Command, conf mountd.Config, args []string) (err error) {
		switch moves := *toFleet != "" || *fromFleet; {
		case moves && (*rollback || *forget || *toFleet != "" && *fromFleet):
			return &usageError{err: errors.New("--to-fleet and --from-fleet stand alone: leave the other out")}
		case *toFleet != "":
			return moveToken(c, s, conf, mountd.Move{Token: args[0], Kind: fleet.Kind, Settings: map[string]string{fleet.Kind: *toFleet}})
		case *fromFleet:
			return moveToken(c, s, conf, mountd.Move{Token: args[0], Kind: swtok.Kind})
		case *rollback && *forget:
			return &usageError{err: errors.New("--rollback needs what --forget-backup removes: name one of them")}
		}
		u, err := conf.OpenUpkeep(args[0], false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, u.Close()) }()
		m := &migration{s: s, c: c, u: u, token: args[0], yes: *yes}
		switch {
		case *rollback:
			return m.rollback()
		case *forget:
			return m.forget()
		}
		return m.migrate(*soFile, *pinFile, *skip)
	})
}

// moveToken makes a token one of another kind, and has a daemon that served it serve it again.
func moveToken(c *cobra.Command, s streams, conf mountd.Config, m mountd.Move) (err error) {
	h := house{conf: conf, mount: os.Getenv(mountEnv)}
	if conf.Mode == mountd.System && !c.Flags().Changed("root") {
		h.mount = ""
	}
	t, serves, err := h.daemon()
	if err != nil {
		return err
	}
	release, out := func() error { return nil }, false
	m.OutOfService = func() (err error) {
		release, err = h.outOfService(c.Context(), m.Token, false)
		out = err == nil
		return err
	}
	bar := startCount(s)
	m.Progress = bar.reached
	aside, err := conf.Move(c.Context(), m)
	bar.stop()
	err = errors.Join(err, release())
	// Also what it was before, if it did not become another; and what a move that was killed has taken
	// out of service.
	if serves && (out || errors.Is(err, mountd.ErrMoved) && t.token(m.Token) != nil) {
		err = errors.Join(err, t.order("migrate "+m.Token, "add "+m.Token))
	}
	switch {
	case err != nil:
	case aside == "":
		fmt.Fprintf(s.out, "%s was of the kind %s already, and the configuration says so now: a move before had not come so far.\n", m.Token, m.Kind)
	default:
		fmt.Fprintf(s.out, "%s is of the kind %s now. What its directory was is %s: remove it when it is not wanted any more.\n", m.Token, m.Kind, aside)
	}
	return err
}

// A migration is what one call of p11fs migrate works with.
type migration struct {
	s     streams
	c     *cobra.Command
	u     *mountd.Upkeep
	token string
	yes   bool
}

// newFormat is the tokversion of the format that tokens are migrated to.
func newFormat() p11.Version { return p11.Version{Major: 3, Minor: 12} }

func (m *migration) migrate(soFile, pinFile string, skip bool) error {
	state, err := m.u.State()
	if err != nil {
		return err
	}
	if err := m.u.Exchange(m.c.Context()); err != nil {
		return err
	}
	if state.Format == newFormat() {
		return m.alreadyMigrated()
	}
	if !state.Present {
		return fmt.Errorf("%s has no token yet: p11fs mount makes it, in the newer format where it is your own", m.token)
	}
	if state.RolledBack {
		if err := m.may(state.Unfinished + " is " + m.token + " in the format of 3.12, maybe with what was made in it before a rollback: to migrate anew removes it."); err != nil {
			return err
		}
	}
	ask := newAsker(m.s)
	so, err := getPIN(m.c.Context(), ask, soFile, "SO PIN", false)
	if err != nil {
		return err
	}
	defer so.Close()
	var user *secret.Bytes
	if state.UserPIN {
		if user, err = getPIN(m.c.Context(), ask, pinFile, "user PIN", false); err != nil {
			return err
		}
		defer user.Close()
	}
	bar := startCount(m.s)
	done, err := m.u.Migrate(m.c.Context(), tokens.Migration{
		SO: so, User: user, SkipDamaged: skip, Progress: bar.reached,
		Declare: func() (func() error, error) {
			undo, err := m.u.Declare(newFormat())
			if err == nil {
				err = m.u.Unshare()
			}
			return undo, err
		},
	})
	bar.stop()
	var damaged *tokens.DamagedError
	switch {
	case errors.Is(err, tokens.ErrMigrated):
		return m.alreadyMigrated()
	case errors.As(err, &damaged):
		for _, o := range damaged.Objects {
			fmt.Fprintf(m.s.err, "p11fs: %s\n", o)
		}
		return fmt.Errorf("nothing was changed: %d objects of %s cannot be read; add --skip-damaged to leave them behind in the backup", len(damaged.Objects), m.token)
	case err != nil:
		return err
	}
	if err := m.u.Unshare(); err != nil {
		return err
	}
	for _, o := range done.Damaged {
		fmt.Fprintf(m.s.err, "p11fs: left behind: %s\n", o)
	}
	if state, err = m.u.State(); err != nil {
		return err
	}
	fmt.Fprintf(m.s.out, "%s has the format of openCryptoki 3.12 now, with %d objects.\nWhat it was is in %s, with its weak hashes of the PINs: when all is well, p11fs migrate %[1]s --forget-backup removes it.\n",
		m.token, done.Objects, state.Backup)
	return nil
}

// alreadyMigrated ends what a migration that was cut off has left to do.
func (m *migration) alreadyMigrated() error {
	if _, err := m.u.Declare(newFormat()); err != nil {
		return err
	}
	if !m.u.Slot.Place.AnyFormat && !tokens.NewFormat(m.u.Slot.Place.Format) {
		if err := m.u.Unshare(); err != nil {
			return err
		}
	}
	fmt.Fprintf(m.s.out, "%s has the format of openCryptoki 3.12 already.\n", m.token)
	return nil
}

func (m *migration) rollback() error {
	state, err := m.u.State()
	if err != nil {
		return err
	}
	if err := m.u.Exchange(m.c.Context()); err != nil {
		return err
	}
	if state.Backup != "" {
		if err := m.may("What was changed in " + m.token + " since it was migrated, objects and PINs, is not in the backup."); err != nil {
			return err
		}
	}
	if err := m.u.Rollback(m.c.Context(), func() error {
		_, err := m.u.Declare(p11.Version{})
		return err
	}); err != nil {
		return err
	}
	if state, err = m.u.State(); err != nil {
		return err
	}
	fmt.Fprintf(m.s.out, "%s has the format of openCryptoki 3.8 again, with the objects and PINs of then.\n", m.token)
	if state.Unfinished != "" {
		fmt.Fprintf(m.s.out, "What it was until now is in %s: p11fs migrate %s --forget-backup removes it, and so does to migrate anew.\n", state.Unfinished, m.token)
	}
	return nil
}

func (m *migration) forget() error {
	state, err := m.u.State()
	if err != nil && state.Backup == "" && state.Unfinished == "" {
		return err
	}
	switch {
	case state.Backup != "":
		err = m.may(state.Backup + " is what " + m.token + " was before it was migrated.")
	case state.RolledBack:
		err = m.may(state.Unfinished + " is " + m.token + " in the format of 3.12, as it was when that was rolled back.")
	case state.Unfinished != "":
		err = m.may(state.Unfinished + " is a migration that did not end.")
	default:
		fmt.Fprintf(m.s.err, "p11fs: no migration has left anything beside %s\n", m.token)
		return nil
	}
	if err != nil {
		return err
	}
	return m.u.Forget(m.c.Context())
}

// may asks whether something may be lost.
func (m *migration) may(what string) error {
	if m.yes {
		return nil
	}
	ask := newAsker(m.s)
	if !ask.terminal {
		return &usageError{err: fmt.Errorf("%s To go on all the same: add --yes", what)}
	}
	answer, err := ask.text(m.c.Context(), what+" Type "+m.token+" to go on")
	if err == nil && answer != m.token {
		err = errors.New("that was not its name: nothing was changed")
	}
	return err
}

func newCheck(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "check TOKEN",
		Short: "Look at every file of a token, for damage",
		Long: `Look at every file of a token: lengths and headers, the index of objects, public
objects, the files with its key, and what was left behind. With --login the user's
PIN is asked for, or read from standard input if that is no terminal, and private
objects are decrypted too. What is wrong is one line each, and the exit status is 1
then. A daemon may serve the token meanwhile.`,
		Example: `  p11fs check swtok
  p11fs check --login swtok`,
		Args: takes(1, 1),
	}
	login := c.Flags().Bool("login", false, "log in, and decrypt private objects too")
	pinFile := c.Flags().String("pin-file", "", "read the user's PIN from the first line of this `FILE`; implies --login")
	return onDirectory(s, c, func(c *cobra.Command, open func(string, bool) (*mountd.Upkeep, error), args []string) (err error) {
		u, err := open(args[0], false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, u.Close()) }()
		var pin *secret.Bytes
		if *login || *pinFile != "" {
			if pin, err = getPIN(c.Context(), newAsker(s), *pinFile, "user PIN", false); err != nil {
				return err
			}
			defer pin.Close()
		}
		found, err := u.Check(c.Context(), pin)
		if err != nil {
			return err
		}
		for _, line := range found.Notes {
			fmt.Fprintf(s.out, "note   %s\n", line)
		}
		for _, line := range found.Wrong {
			fmt.Fprintf(s.out, "wrong  %s\n", line)
		}
		if len(found.Wrong) > 0 {
			return errSilent
		}
		within := fmt.Sprintf("%d of them private", found.Private)
		if pin == nil && found.Private > 0 {
			within += ", which only --login looks into"
		}
		fmt.Fprintf(s.out, "good   %s: %d objects, %s\n", args[0], found.Objects, strings.TrimSpace(within))
		return nil
	})
}
