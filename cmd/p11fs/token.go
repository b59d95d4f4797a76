package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/tokens/fleet"
)

func newToken(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make, remove and list tokens, while the daemon serves",
		Long: `Make, remove and list tokens. A daemon that runs takes a new one into service, and a
removed one out of it, without a restart: its folder, and its slot for programs that load
libp11fs.so or p11-kit's modules. Programs with openCryptoki's own library see it when they
are started anew. Your own daemon obeys you, the machine's obeys root.`,
		Args: takes(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{newTokenNew(s), newTokenRemove(s), newTokenList(s)} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// A house is where tokens are: directories, a configuration, and a daemon that may serve them.
type house struct {
	conf  mountd.Config
	mount string // named by the user
}

// houseFlags are the options that say which.
func houseFlags(c *cobra.Command) func() (house, error) {
	where := placeFlags(c)
	file := c.Flags().String("config", "", "read and change the slots in `FILE` instead of the usual opencryptoki.conf")
	mount := mountFlag(c)
	return func() (house, error) {
		mode, paths, err := where()
		h := house{mount: *mount, conf: mountd.Config{Mode: mode, Paths: paths}}
		if c.Flags().Changed("config") {
			h.conf.Paths.Config, h.conf.ConfigRequired = *file, true
		}
		if h.mount == "" {
			h.mount = os.Getenv(mountEnv)
		}
		if err == nil && mode == mountd.System && !c.Flags().Changed("root") && os.Geteuid() != 0 {
			err = &usageError{err: errors.New("only root makes and removes the machine's tokens: leave --system out for your own")}
		}
		if err == nil {
			if h.conf.Log, err = newLogger(streams{err: c.ErrOrStderr()}, "warn"); err == nil {
				err = setKinds(&h.conf, "auto")
			}
		}
		return h, err
	}
}

// daemon finds the mount of the daemon that serves these tokens; ok is false if there is none.
func (h house) daemon() (t tree, ok bool, err error) {
	t.dir = h.mount
	if t.dir == "" {
		t.dir = h.conf.Paths.Mount
	}
	text, err := t.read("status")
	if err != nil {
		if h.mount != "" {
			return t, false, notMounted(err)
		}
		return t, false, nil
	}
	mode := "mode " + h.conf.Mode.String()
	data := func(line string) bool {
		store, ok := strings.CutPrefix(line, "store ")
		name, dir, found := strings.Cut(strings.TrimSpace(store), " ")
		return ok && found && !strings.HasPrefix(dir, "failed:") && filepath.Clean(dir) != filepath.Join(h.conf.Paths.Data, name)
	}
	lines := strings.Split(text, "\n")
	if !slices.Contains(lines, mode) || slices.ContainsFunc(lines, data) {
		return t, false, &usageError{err: fmt.Errorf("the daemon of %s serves other tokens than those in %s: name the right one with --mount, --system or --root", t.dir, h.conf.Paths.Data)}
	}
	return t, true, nil
}

// order has the daemon take a token into service or out of it.
func (t tree) order(what, line string) error {
	return t.command(what, "", "ctl", []byte(line+"\n"))
}

func newTokenNew(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "new TOKEN",
		Short: "Make and initialise a token, and have the daemon serve it",
		Long: `Make a token, initialise it as p11fs init does, and have the daemon serve it, if one runs.
What is not given by a flag is asked for; if standard input is no terminal, it has one line
each: SO PIN, label, user PIN. The SO PIN of a token that is made is 87654321 until p11fs pin
--so changes it.

A token of your own is of the kind that its name says (tpm, lite, icsf, ep11tok, ccatok), with
--fleet one of a fleet, and else kept in files. With --system, or an opencryptoki.conf of your
own, --kind says it, and the slot is added to that file. Where it cannot be made, nothing is
changed.

Slots of your own have the next number, and when the daemon is started anew that which the
name has in the order of all names: programs are to ask for the label of a token, as
pkcs11:token=work and --token-label do. In opencryptoki.conf a slot keeps its number.

With --adopt a directory that is there already is served as it is: one that was moved back
after p11fs token rm, or copied from another machine. With --adopt and --fleet it is the token
that another machine of the fleet has made.`,
		Example: `  p11fs token new work
  p11fs token new web --fleet web.conf --adopt
  printf '87654321\nwork\n1234abcd\n' | p11fs token new work
  sudo p11fs token new --system backup --kind swtok --stock`,
		Args: takes(1, 1),
	}
	where := houseFlags(c)
	kind := c.Flags().String("kind", "", "the `KIND` of the token, where a configuration says it: swtok, lite, tpm, ep11tok, ccatok, icsf or fleet")
	stock := c.Flags().Bool("stock", false, "keep it in the format of openCryptoki 3.8, so that programs with its library share it")
	adopt := c.Flags().Bool("adopt", false, "serve a directory that is there already, as it is")
	first := initFlags(c)
	maker := makerFlags(c, s)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		h, err := where()
		if err != nil {
			return err
		}
		name := args[0]
		t, serves, err := h.daemon()
		if err != nil {
			return err
		}
		joins := *adopt && *maker.fleet != ""
		if *maker.fleet != "" && *kind == "" {
			*kind = fleet.Kind
		}
		n, err := h.conf.NewToken(c.Context(), name, *kind, *stock, *adopt && !joins)
		if err != nil {
			return fmt.Errorf("token new %s: %w", name, withAdvice(err))
		}
		defer func() { err = errors.Join(err, n.Close()) }()
		switch {
		case joins:
			if err := n.Join(c.Context(), maker.settings()); err != nil {
				return fmt.Errorf("token new %s: %w", name, withAdvice(err))
			}
		case !*adopt:
			if err := makeInto(c.Context(), s, n, maker, first); err != nil {
				return err
			}
		}
		if err := n.Commit(); err != nil {
			return fmt.Errorf("token new %s: %w", name, err)
		}
		if !serves {
			return h.unserved(s, name)
		}
		if err := t.order("token new "+name, "add "+name); err != nil {
			return fmt.Errorf("the token is made, but not served: %w", err)
		}
		fmt.Fprintf(s.err, "p11fs: %s is served: %s\n", name, filepath.Join(t.dir, name))
		return nil
	}
	return c
}

// makeInto makes and initialises the token that was begun.
func makeInto(ctx context.Context, s streams, n *mountd.NewToken, maker tokenMaker, first initialiser) error {
	name := n.Slot.Place.Name
	made, err := maker.fill(ctx, n)
	if err != nil {
		return fmt.Errorf("token new %s: %w", name, withAdvice(err))
	}
	door := &directoryDoor{ctx: ctx, made: made}
	if err := first.initialise(maker.ask(), door, name); err != nil {
		return errors.Join(err, made.Abandon(ctx))
	}
	if err := made.Close(); err != nil {
		return err
	}
	if why, mend := made.Weak(); why != "" {
		fmt.Fprintf(s.err, "p11fs: weak: %s: %s\n", why, mend)
	}
	return nil
}

// unserved says how a token that was made comes to be served: no daemon was found.
func (h house) unserved(s streams, name string) error {
	fmt.Fprintf(s.err, "p11fs: %s is made in %s: p11fs mount serves it; a daemon that runs without a mount has to be started anew\n", name, filepath.Join(h.conf.Paths.Data, name))
	return nil
}

func newTokenRemove(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "rm TOKEN",
		Short: "Take a token out of service, and move its directory aside",
		Long: `Take a token out of service: sessions with it end, its folder and its slot go, and its
directory is moved aside, to a hidden one beside it whose name is printed. Nothing in it is
lost: moved back, p11fs token new --adopt serves it again. With --delete it is deleted. A
token of a fleet stays in etcd, as other machines have it: docs/fleet.md has how it goes.

While somebody else is logged in to the token, or the daemon itself is, it stays, unless
with --force. It asks first, and without a terminal wants --yes.`,
		Example: `  p11fs token rm work
  p11fs token rm work --yes --delete`,
		Args: takes(1, 1),
	}
	where := houseFlags(c)
	yes := c.Flags().BoolP("yes", "y", false, "do not ask")
	force := c.Flags().Bool("force", false, "also while others are logged in: what they do ends")
	remove := c.Flags().Bool("delete", false, "delete the directory with all keys in it, for good")
	c.RunE = func(c *cobra.Command, args []string) error {
		h, err := where()
		if err != nil {
			return err
		}
		name := args[0]
		if !*yes {
			if err := mayRemove(c.Context(), newAsker(s), name, *remove); err != nil {
				return err
			}
		}
		release := func() error { return nil }
		aside, err := h.conf.RemoveToken(c.Context(), name, func() (err error) {
			release, err = h.outOfService(c.Context(), name, *force)
			return err
		})
		if err = errors.Join(withAdvice(err), release()); err != nil {
			return err
		}
		switch {
		case aside == "":
		case *remove:
			return os.RemoveAll(aside)
		default:
			fmt.Fprintln(s.out, aside)
		}
		return nil
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		h, err := where()
		if len(args) > 0 || err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, _ := h.list() // none are offered where they are not known
		var names []cobra.Completion
		for _, one := range list {
			names = append(names, one.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// mayRemove asks whether a token may go.
func mayRemove(ctx context.Context, ask *asker, name string, deletes bool) error {
	what := "goes out of service"
	if deletes {
		what += ", and all keys in it are deleted for good"
	}
	if !ask.terminal {
		return &usageError{err: fmt.Errorf("%s %s: add --yes if you mean that", name, what)}
	}
	answer, err := ask.text(ctx, fmt.Sprintf("%s %s. Type its name to go on", name, what))
	if err == nil && answer != name {
		err = errors.New("that was not its name: nothing was changed")
	}
	return err
}

// outOfService has no daemon serve the token, until release.
func (h house) outOfService(ctx context.Context, name string, force bool) (release func() error, err error) {
	release = func() error { return nil }
	t, serves, err := h.daemon()
	if err != nil {
		return release, err
	}
	if !serves {
		alone, err := h.conf.Alone(ctx)
		if errors.Is(err, mountd.ErrBusy) {
			err = fmt.Errorf("%w, and its mount is not at %s: name that with --mount, or stop the daemon first", err, t.dir)
		}
		if err != nil {
			return release, err
		}
		return alone, nil
	}
	if t.token(name) != nil {
		return release, nil // it could not be opened, or went before
	}
	line := "remove " + name
	if force {
		line += " force"
	}
	return release, t.order("token rm "+name, line)
}

// A listedToken is a token as token ls tells of it.
type listedToken struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	Slot   *uint64  `json:"slot"` // nil of one that is not served
	Served bool     `json:"served"`
	Label  string   `json:"label"`
	Flags  []string `json:"flags"`
}

func newTokenList(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the tokens: kind, slot, label and flags",
		Long: `List the tokens, one a line: name, kind, slot, flags and label. Of one that no daemon serves
the flags are "not-served", and no label is known.`,
		Example: `  p11fs token ls
  p11fs token ls --json | jq -r '.[] | select(.served) | .name'`,
		Args: takes(0, 0),
	}
	where := houseFlags(c)
	asJSON := c.Flags().Bool("json", false, "print a JSON array")
	c.RunE = func(*cobra.Command, []string) error {
		h, err := where()
		if err != nil {
			return err
		}
		list, err := h.list()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(s, list)
		}
		w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tKIND\tSLOT\tFLAGS\tLABEL")
		for _, one := range list {
			slot, flags := "-", "not-served"
			if one.Served {
				slot, flags = strconv.FormatUint(*one.Slot, 10), strings.Join(one.Flags, ",")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", one.Name, one.Kind, slot, flags, printableLine(one.Label))
		}
		return w.Flush()
	}
	return c
}

// list are the tokens that the daemon serves, and those that it could.
func (h house) list() ([]listedToken, error) {
	list := []listedToken{}
	t, serves, err := h.daemon()
	if err != nil {
		return nil, err
	}
	if serves {
		text, err := t.read("slots")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			words := strings.SplitN(strings.TrimSpace(line), " ", 4)
			if len(words) < 3 || words[1] == "-" {
				continue
			}
			number, err := strconv.ParseUint(words[0], 10, 64)
			if err != nil {
				return nil, err
			}
			one := listedToken{Slot: &number, Name: words[1], Kind: words[2], Served: true, Flags: []string{}}
			info, _ := t.read(one.Name, "info") // one that went meanwhile has none
			for line := range strings.Lines(info) {
				switch name, value, _ := strings.Cut(strings.TrimSpace(line), ": "); name {
				case "label":
					one.Label = value
				case "flags":
					one.Flags = strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' })
				}
			}
			list = append(list, one)
		}
	}
	slots, _, err := h.conf.Slots()
	if err != nil && !serves {
		return nil, err
	}
	for _, slot := range slots {
		if slot.Kind == nil || slices.ContainsFunc(list, func(l listedToken) bool { return l.Name == slot.Place.Name }) {
			continue
		}
		if _, err := os.Stat(slot.Place.Dir); err != nil {
			continue
		}
		list = append(list, listedToken{Name: slot.Place.Name, Kind: slot.Kind.Name, Flags: []string{}})
	}
	return list, nil
}
