package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/tokens/card"
	"p11fs/tokens/card/hostlib"
	"p11fs/tokens/card/soft"
)

// cardFile is in each directory of cards, and says its kind.
const cardFile = "card.json"

// cardText is what the help of each command says.
const cardText = `

A software card stands for a Crypto Express card of IBM Z where there is none. It is for
making and trying programs. It is no security module: its keys are files, which root and the
directory's owner can read; nobody has certified it; its keys work on no real card, nor those
of real cards here.

The cards are in DIR, which is $XDG_DATA_HOME/p11fs-cards/KIND, or of root's
/var/lib/p11fs-cards/KIND, unless --dir says otherwise.`

// A cardPlace is where the cards of a command are.
type cardPlace struct{ dir, kind *string }

func cardFlags(c *cobra.Command) cardPlace {
	c.Long += cardText
	return cardPlace{
		dir:  c.Flags().String("dir", "", "the `DIRECTORY` of the cards"),
		kind: c.Flags().String("kind", "ep11", "what the cards are: "+strings.Join(cardKindNames(), ", ")),
	}
}

// at is the directory.
func (p cardPlace) at() (string, error) {
	if *p.dir != "" {
		return *p.dir, nil
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/p11fs-cards", *p.kind), nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "p11fs-cards", *p.kind), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("where the cards are is not known: name it by --dir (%w)", err)
	}
	return filepath.Join(home, ".local/share/p11fs-cards", *p.kind), nil
}

// open opens the cards that are there.
func (p cardPlace) open() (cardKind, string, error) {
	dir, err := p.at()
	if err != nil {
		return nil, "", err
	}
	kind, err := cardKindOf(*p.kind)
	if err != nil {
		return nil, "", err
	}
	if !kind.made(dir) {
		return nil, "", fmt.Errorf("there are no %s cards in %s: p11fs card serve makes them", kind.name(), dir)
	}
	return kind, dir, nil
}

func newCard(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "card",
		Short: "Run software cards, for programs of IBM Z",
		Long:  "Run software cards, which answer the calls of the host libraries of IBM Z's cards." + cardText,
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCardServe(s), newCardStatus(s), newCardWK(s), newCardPoints(s), newCardOnline("offline", "Have an APQN answer no more, as a card that was taken out", false),
		newCardOnline("online", "Have an APQN answer again", true))
	for _, step := range reencipherSteps() {
		c.AddCommand(newCardKeys(s, step))
	}
	c.AddCommand(newCardVHSMPIN(s))
	return c
}

func newCardServe(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Answer for cards at a socket, until it is ended",
		Long: `Answer for cards at a socket, until it is ended. Cards that are not there are made. A line
on standard output says when programs may come. Whoever reaches the socket may use the cards,
and whoever has a key of theirs may use that, as it is with real ones.

With --library the cards are no software cards, but those that a vendor's host library knows,
such as libep11.so.4 or libcsulcca.so. It is in this process alone, which ends when the library
fails; p11fs mount never loads one.`,
		Example: `  p11fs card serve --dir ~/card --socket ~/card.socket --apqn 00.0001,00.0002
  p11fs card serve --library libep11.so.4`,
		Args: takes(0, 0),
	}
	p := cardFlags(c)
	socket := c.Flags().String("socket", "", "where programs find the cards (default: $XDG_RUNTIME_DIR/p11fs/card.KIND, or of root's /run/p11fs/card.KIND)")
	apqns := c.Flags().StringSlice("apqn", []string{"00.0001"}, "the `APQN`s of cards that are made: adapter and domain, in hexadecimal")
	group := c.Flags().String("group", "", "the `GROUP` whose members may use the socket (default: yours)")
	provider := c.Flags().String("provider", "auto", "cryptographic library: auto, go or libcrypto")
	library := c.Flags().String("library", "", "the `LIBRARY` of the vendor's whose cards are served: a path, or a name that the linker looks up")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log := slog.New(slog.NewTextHandler(s.err, nil))
		kind, err := cardKindOf(*p.kind)
		if err != nil {
			return err
		}
		if *library != "" {
			for _, name := range []string{"dir", "apqn", "provider"} {
				if c.Flags().Changed(name) {
					return &usageError{err: fmt.Errorf("--%s is of software cards, and --library of others: leave one out", name)}
				}
			}
			return serveLibrary(c.Context(), s, kind, *library, *socket, *group, log)
		}
		dir, err := p.at()
		if err != nil {
			return err
		}
		lib, err := loadProvider(*provider, log)
		if err != nil {
			return err
		}
		if !kind.made(dir) {
			list, err := parseAPQNs(*apqns)
			if err == nil {
				err = kind.make(dir, list)
			}
			if err != nil {
				return fmt.Errorf("new cards in %s: %w", dir, err)
			}
		} else if c.Flags().Changed("apqn") {
			return &usageError{err: fmt.Errorf("there are cards in %s already, and keep their APQNs: leave --apqn out", dir)}
		}
		via, err := kind.open(dir, lib, log)
		if err != nil {
			return fmt.Errorf("the cards in %s: %w", dir, err)
		}
		path, err := cardSocket(*socket, kind.name())
		if err != nil {
			return errors.Join(err, via.Close())
		}
		return errors.Join(serveCard(c.Context(), s, kind, via, path, *group, log), via.Close())
	}
	return c
}

// serveLibrary answers for the cards of a vendor's library until ctx ends, or the library has
// done what it must not.
func serveLibrary(ctx context.Context, s streams, kind cardKind, file, socket, group string, log *slog.Logger) error {
	path, err := cardSocket(socket, kind.name())
	if err != nil {
		return err
	}
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	via, err := hostlib.Load(kind.abi(), file, log, failed)
	if err != nil {
		return err
	}
	// Values of keys that are brought in pass here, on their way into the card.
	if err := mountd.Harden(mountd.User, log); err != nil {
		return errors.Join(err, via.Close())
	}
	err = serveCard(ctx, s, kind, via, path, group, log)
	if why := context.Cause(ctx); err == nil && why != nil && !errors.Is(why, context.Canceled) {
		err = why
	}
	return errors.Join(err, via.Close())
}

// serveCard answers at path until ctx ends.
func serveCard(ctx context.Context, s streams, kind cardKind, via card.Transport, path, group string, log *slog.Logger) error {
	l, err := listenCard(path, group)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s cards answer at %s\n", kind.name(), path)
	return (&card.Server{ABI: kind.abi(), Card: via, Log: log}).Serve(ctx, l)
}

// cardSocket is where programs look for cards of a kind, unless path says otherwise.
func cardSocket(path, kind string) (string, error) {
	if path != "" {
		return filepath.Abs(path)
	}
	dir := "/run/p11fs"
	if os.Geteuid() != 0 {
		run := os.Getenv("XDG_RUNTIME_DIR")
		if !filepath.IsAbs(run) {
			return "", errors.New("there is no XDG_RUNTIME_DIR: name a --socket")
		}
		dir = filepath.Join(run, "p11fs")
	}
	const mode = 0o755 // the socket's own mode says who may connect
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", err
	}
	return filepath.Join(dir, "card."+kind), nil
}

// listenCard makes the socket, in place of one that a killed process left.
func listenCard(path, group string) (*net.UnixListener, error) {
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, err
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, err
		}
	}
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is no socket: name another place by --socket", path)
	default:
		if c, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("something answers at %s already: name another place by --socket, or end that: %w", path, syscall.EBUSY), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	const others = 0o117 // what of the mode of a new socket is not to be
	before := syscall.Umask(others)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(before)
	if err == nil && gid >= 0 {
		if err = os.Lchown(path, -1, gid); err != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return l, err
}

func parseAPQNs(texts []string) (list []card.APQN, err error) {
	for _, text := range texts {
		a, err := soft.ParseAPQN(text)
		if err != nil {
			return nil, &usageError{err: err}
		}
		if slices.Contains(list, a) {
			return nil, &usageError{err: fmt.Errorf("%v is named twice: leave one out", a)}
		}
		list = append(list, a)
	}
	return list, nil
}

func newCardStatus(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "Show cards and the verification patterns of their master keys",
		Long: "Show cards and the verification patterns of their master keys: of a card in EP11 mode its one\nwrapping key, of one in CCA mode sym, aes and apka.", Args: takes(0, 0),
	}
	p := cardFlags(c)
	c.RunE = func(*cobra.Command, []string) error {
		kind, dir, err := p.open()
		if err != nil {
			return err
		}
		lines, err := kind.status(dir)
		for _, line := range lines {
			fmt.Fprintln(s.out, line)
		}
		return err
	}
	return c
}

func newCardWK(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "wk CHANGE",
		Short: "Change the master keys of cards",
		Long: `Change the master keys of cards: of one in EP11 mode the wrapping key, of one in CCA mode all
three. CHANGE is new, which makes a next key; commit, which says
that it may be used; clear, which removes it again; activate, which makes it the current one, so that keys sealed under the
one before no longer work: it wants p11fs card reencipher for each token before; zeroise, which removes all; or, of one APQN, separate, which gives
it keys of its own. A card that is served takes it up at once.`,
		Example: "  p11fs card wk new --dir ~/card", Args: takes(1, 1),
		ValidArgs: soft.Changes(),
	}
	p := cardFlags(c)
	apqn := c.Flags().String("apqn", "", "change the key of that `APQN`")
	force := c.Flags().Bool("force", false, "activate a key also where p11fs card reencipher has put no key of a token under it, so that they are lost")
	c.RunE = func(_ *cobra.Command, args []string) error {
		kind, dir, err := p.open()
		if err != nil {
			return err
		}
		if !slices.Contains(soft.Changes(), args[0]) {
			return &usageError{err: fmt.Errorf("%q is no change: write %s", args[0], strings.Join(soft.Changes(), ", "))}
		}
		var a *card.APQN
		if *apqn != "" {
			one, err := soft.ParseAPQN(*apqn)
			if err != nil {
				return &usageError{err: err}
			}
			a = &one
		}
		if *force && args[0] != soft.ChangeActivate {
			return &usageError{err: fmt.Errorf("--force is for activate: leave it out with %s", args[0])}
		}
		return kind.change(dir, a, args[0], *force)
	}
	return c
}

func newCardOnline(name, short string, on bool) *cobra.Command {
	c := &cobra.Command{
		Use: name + " APQN", Short: short, Long: short + ".",
		Example: "  p11fs card " + name + " 00.0001 --dir ~/card", Args: takes(1, 1),
	}
	p := cardFlags(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		kind, dir, err := p.open()
		if err != nil {
			return err
		}
		a, err := soft.ParseAPQN(args[0])
		if err != nil {
			return &usageError{err: err}
		}
		return kind.setOnline(dir, a, on)
	}
	return c
}
