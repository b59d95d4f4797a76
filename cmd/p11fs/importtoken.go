package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/secret"
)

func newImportToken(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "import-token DIRECTORY [TOKEN] | --module FILE [TOKEN]",
		Short: "Take over the keys, certificates and data of another PKCS#11 token",
		Long: `Take over all keys, certificates and data objects of another PKCS#11 token, with
their labels, ids and what they may be used for:

  a token of SoftHSM2: DIRECTORY is its directory, or the one with all tokens, usually
  /var/lib/softhsm/tokens; both back ends are read, without SoftHSM2;
  a database of NSS: DIRECTORY has its cert9.db and key4.db; NSS's library reads it;
  any other: --module is its PKCS#11 module. A key that it does not show must be
  extractable; it comes wrapped.

What is read is not changed. The PIN of that token is asked for, then that of TOKEN unless
this terminal is logged in; if standard input is no terminal, it has one line each.

There is a line for each object: came, there (TOKEN had the same under that name), or left,
and why. A key pair comes whole or not at all. What was cut off can be started again. A
private or secret key that is public there, and so is used without the PIN, is here too,
and its line says so; with --private it comes as a private object. The
exit status is 1 if anything was left. TOKEN may be left out where there is one only.`,
		Example: `  p11fs import-token --dry-run /var/lib/softhsm/tokens --token-label web
  p11fs import-token /var/lib/softhsm/tokens swtok --token-label web
  p11fs import-token ~/.pki/nssdb swtok
  p11fs import-token --module /usr/lib/libvendor.so swtok --slot 3`,
		Args: takes(0, 2),
	}
	mount := mountFlag(c)
	from := &sourceFlags{}
	from.add(c)
	pinFile := c.Flags().String("pin-file", "", "read the user's PIN of TOKEN from the first line of this `FILE`")
	private := c.Flags().Bool("private", false, "let all private and secret keys be private objects, which the PIN shows")
	dry := c.Flags().Bool("dry-run", false, "say what would come, and change nothing")
	asJSON := c.Flags().Bool("json", false, "print the report as JSON")
	tokens := completeTokens(mount)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch directories := len(from.module) == 0; {
		case directories && len(args) == 0:
			return nil, cobra.ShellCompDirectiveFilterDirs
		case directories && len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case directories:
			return tokens(c, nil, word)
		}
		return tokens(c, args, word)
	}
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if args, err = from.arguments(c, args); err != nil {
			return err
		}
		i := &importing{s: s, ask: newAsker(s), dry: *dry, pinFile: *pinFile}
		if !*dry || len(args) > 0 {
			if i.t, i.token, err = tokenOf(*mount, args); err != nil {
				return err
			}
		}
		objects, err := from.read(c.Context(), s, i.ask)
		if err != nil {
			return err
		}
		defer foreign.WipeAll(objects)
		report := &importReport{private: *private}
		err = i.all(c.Context(), objects, report)
		if printed := report.print(s, *asJSON, *dry); err == nil {
			err = printed
		}
		if err == nil && report.Left > 0 {
			err = errSilent
		}
		return err
	}
	return c
}

// An importing brings objects into a token.
type importing struct {
	s       streams
	ask     *asker
	t       tree
	token   string
	pinFile string
	dry     bool
}

// all brings the objects, and reports each of them. Its error is one that keeps all from
// coming: what is wrong with an object is in the report.
func (i *importing) all(ctx context.Context, objects []foreign.Object, report *importReport) (err error) {
	groups := groupObjects(objects, report)
	if i.dry {
		for _, g := range groups {
			for _, o := range g.objects {
				report.add(o, outcomeWould, "", nil)
			}
		}
		return nil
	}
	if len(groups) == 0 {
		return nil
	}
	out, err := i.login(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out()) }()
	bar := startCount(i.s)
	defer bar.stop()
	for n, g := range groups {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := i.one(g, report); err != nil {
			return err
		}
		bar.reached(n+1, len(groups))
	}
	return nil
}

// login logs this terminal in, unless somebody is. What it returns undoes that.
func (i *importing) login(ctx context.Context) (out func() error, err error) {
	switch role := i.t.role(i.token); role {
	case "user":
		return func() error { return nil }, nil
	case "so":
		return nil, &usageError{err: fmt.Errorf("this terminal is logged in to %s as so, who has no keys: p11fs logout %[1]s first", i.token)}
	}
	pin, err := getPIN(ctx, i.ask, i.pinFile, "PIN of "+i.token, false)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	if err := i.t.login("import-token into "+i.token, i.token, "user", pin); err != nil {
		return nil, err
	}
	return func() error { return i.t.logout(i.token) }, nil
}

// one brings a group: all of it, or nothing.
func (i *importing) one(g group, report *importReport) error {
	text := g.templates()
	defer secret.Wipe(text)
	answer, err := i.t.exchange(g.objects[0].Name(), i.token, "import:template", syscall.O_RDWR, text)
	if isFatal(err) {
		return err
	}
	if err != nil {
		var refused *treeError
		if errors.As(err, &refused) && refused.why != "" {
			err = errors.New(refused.why)
		}
		for _, o := range g.objects {
			report.add(o, outcomeLeft, "", err)
		}
		return nil
	}
	lines := strings.Split(strings.TrimSuffix(answer, "\n"), "\n")
	for n, o := range g.objects {
		name, outcome := "", outcomeCame
		if n < len(lines) {
			was, there := strings.CutPrefix(lines[n], "# already there as ")
			if there {
				outcome = outcomeThere
			}
			name = tree{filepath.Join(i.t.dir, i.token)}.called(was)
		}
		report.add(o, outcome, name, nil)
	}
	return nil
}

// isFatal reports whether an error is one of the token or the daemon, and not of an object.
func isFatal(err error) bool {
	return errors.Is(err, errNotMounted) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EKEYREJECTED) ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODEV) ||
		errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOENT)
}

// What becomes of an object.
const (
	outcomeCame  = "came"
	outcomeThere = "there"
	outcomeLeft  = "left"
	outcomeWould = "would"
	outcomeWrote = "wrote"
)

// A reported is a line of the report.
type reported struct {
	Outcome string `json:"outcome"`
	Class   string `json:"class,omitempty"`
	Label   string `json:"label,omitempty"`
	ID      string `json:"id,omitempty"`
	Place   string `json:"place,omitempty"`
	Name    string `json:"name,omitempty"` // TOKEN/NAME, or of a file
	Why     string `json:"why,omitempty"`
	// Public is true of a private or secret key that is used without the PIN.
	Public bool `json:"public,omitempty"`

	what string
}

// An importReport says what has become of each object, of an export too.
type importReport struct {
	Objects []reported `json:"objects"`
	Came    int        `json:"came,omitempty"`
	There   int        `json:"there,omitempty"`
	Would   int        `json:"would,omitempty"`
	Wrote   int        `json:"wrote,omitempty"`
	Others  int        `json:"others,omitempty"` // that are no keys, certificates or data
	Left    int        `json:"left"`

	private bool // public keys to be used in secret come as private objects
}

// openKey reports whether who has no PIN uses a key that is to be used in secret.
func openKey(a p11.Attributes) bool {
	class, _ := a.Class()
	return (class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY) && a.Has(p11.CKA_PRIVATE) && !a.Bool(p11.CKA_PRIVATE)
}

func (r *importReport) add(o foreign.Object, outcome, name string, why error) {
	line := reported{Outcome: outcome, Place: o.Place, Name: name, what: o.Name()}
	if class, ok := o.Attrs.Class(); ok {
		line.Class = class.Short()
	}
	if id, _ := o.Attrs.Get(p11.CKA_ID); len(id) > 0 {
		line.ID = fmt.Sprintf("%x", id)
	}
	line.Label = o.Attrs.Label()
	line.Public = (outcome == outcomeCame || outcome == outcomeWould) && !r.private && openKey(o.Attrs)
	if why != nil {
		line.Why = strings.ReplaceAll(why.Error(), "\n", "; ")
	}
	switch outcome {
	case outcomeCame:
		r.Came++
	case outcomeThere:
		r.There++
	case outcomeLeft:
		r.Left++
	case outcomeWrote:
		r.Wrote++
	default:
		r.Would++
	}
	r.Objects = append(r.Objects, line)
}

func (r *importReport) printJSON(s streams) error {
	if r.Objects == nil {
		r.Objects = []reported{}
	}
	return printJSON(s, r)
}

// printJSON prints what a command has to tell for a program to read.
func printJSON(s streams, what any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(what)
}

// printableLine is printable on a line of its own.
func printableLine(text string) string { return printable(strings.ReplaceAll(text, "\n", " ")) }

// print prints the report of an import.
func (r *importReport) print(s streams, asJSON, dry bool) error {
	if asJSON {
		return r.printJSON(s)
	}
	public := 0
	for _, l := range r.Objects {
		line := fmt.Sprintf("%-6s %s", l.Outcome, l.what)
		switch {
		case l.Why != "":
			line += ": " + l.Why
		case l.Name != "":
			line += " as " + l.Name
		}
		if l.Public {
			line += " (public)"
			public++
		}
		fmt.Fprintln(s.out, printableLine(line))
	}
	if public > 0 {
		fmt.Fprintf(s.out, "note   %d private or secret keys are public, as they were there: who reaches the token uses them without the PIN; --private brings such keys as private objects\n", public)
	}
	if r.Others > 0 {
		fmt.Fprintf(s.out, "note   %d objects are no keys, certificates or data, and belong to that token alone\n", r.Others)
	}
	if dry {
		fmt.Fprintf(s.out, "%d objects would come, %d would be left\n", r.Would, r.Left)
	} else {
		fmt.Fprintf(s.out, "%d objects came, %d were there, %d were left\n", r.Came, r.There, r.Left)
	}
	return nil
}
