package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// allSuffixes are the suffixes of names in objects, keys before the rest: a name without
// one means the first that there is.
func allSuffixes() []string {
	return []string{".key", ".sec", ".pub", ".crt", ".dat", ".dom", ".hw", ".obj"}
}

func newList(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "ls [TOKEN] [ATTRIBUTE=VALUE...]",
		Short: "List the objects of a token, or of all, a line each",
		Long: `List the objects that this terminal may see: name, class, type and size, CKA_ID, uses,
and the dates between which a key is good. Without TOKEN those of all tokens. With
attributes only the objects that have them all, as TOKEN/find finds them. A login shows
what is private.`,
		Example: `  p11fs ls
  p11fs ls swtok class=private-key sign=true
  p11fs ls swtok --json | jq -r '.[].name'`,
		Args: takes(0, math.MaxInt),
	}
	mount := mountFlag(c)
	asJSON := c.Flags().Bool("json", false, "print a JSON array, with all attributes that may be seen")
	c.ValidArgsFunction = completeTokens(mount)
	c.RunE = func(_ *cobra.Command, args []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		tokens := t.tokens()
		if len(args) > 0 && !strings.Contains(args[0], "=") {
			if err := t.token(args[0]); err != nil {
				return err
			}
			tokens, args = args[:1], args[1:]
		}
		list, err := t.list(tokens, args)
		if err != nil && len(tokens) == 1 {
			return err
		}
		show := printObjects
		if *asJSON {
			show = func(s streams, list []object) error { return printJSON(s, list) }
		}
		return errors.Join(show(s, list), err)
	}
	return c
}

func newShow(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "show OBJECT",
		Short: "Show all attributes of an object that may be seen, its URI, and what it can be used for",
		Long: `Show the attributes of an object, one a line as in its file info, then uri=, its URI
(RFC 7512), and for a key a line use= for each operation and mechanism.` + objectText,
		Example: `  p11fs show swtok/web
  p11fs show swtok/web.pub --json`,
		Args: takes(1, 1),
	}
	asJSON := c.Flags().Bool("json", false, "print it as JSON")
	return onObject(c, func(_ *cobra.Command, at tree, name string, _ []string) error {
		o, err := at.object(name)
		if err != nil {
			return at.refused("show "+name, "", err)
		}
		if *asJSON {
			return printJSON(s, o)
		}
		for _, a := range o.order {
			fmt.Fprintf(s.out, "%s=%s\n", a, printableLine(o.Attributes[a]))
		}
		fmt.Fprintf(s.out, "uri=%s\n", o.URI)
		for _, use := range o.Uses {
			fmt.Fprintf(s.out, "use=%s\n", use)
		}
		return nil
	})
}

func newSet(streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "set OBJECT ATTRIBUTE=VALUE...",
		Short: "Change attributes of an object",
		Long: `Change attributes of an object, one after the other, as a value written to
OBJECT/attr/ATTRIBUTE does. The first that is refused ends it, and those before it stay
changed. What PKCS#11 lets nobody change is refused, and what may be changed one
way only, such as sensitive and extractable. OBJECT without a suffix is a private key with
its public key and certificate of the same name, if they are there: all get the new label
and id, or none; other attributes are the private key's.` + objectText,
		Example: `  p11fs set swtok/web id=0x01 "label=web 2027"
  p11fs set swtok/web extractable=false`,
		Args: takes(2, math.MaxInt),
	}
	return onObject(c, func(_ *cobra.Command, at tree, name string, args []string) error {
		for _, word := range args[1:] {
			if attribute, _, ok := strings.Cut(word, "="); !ok || attribute == "" || strings.Contains(attribute, "/") {
				return &usageError{err: fmt.Errorf("%q is no ATTRIBUTE=VALUE: p11fs show %s lists the attributes", word, args[0])}
			}
		}
		// A new label changes the folder's name, so it comes last.
		words := slices.Clone(args[1:])
		slices.SortStableFunc(words, func(a, b string) int { return cmp.Compare(isLabel(a), isLabel(b)) })
		all := at.together(name, args[0])
		for _, word := range words {
			attribute, value, _ := strings.Cut(word, "=")
			which := all
			if t, err := p11.ParseAttributeType(attribute); err != nil || t != p11.CKA_LABEL && t != p11.CKA_ID {
				which = all[:1]
			}
			if err := at.setAll("set "+args[0]+" "+attribute, which, attribute, value); err != nil {
				return err
			}
		}
		return nil
	})
}

// setAll gives an attribute of objects a value: of all, or of none.
func (t tree) setAll(what string, objects []string, attribute, value string) error {
	set := func(object, value string) error {
		return t.command(what, "", filepath.Join(object, "attr", attribute), []byte(value+"\n"))
	}
	// One that nobody may change is refused before any is changed.
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, func(a, b string) int {
		left, _ := t.read(a, "attr/modifiable")
		right, _ := t.read(b, "attr/modifiable")
		return cmp.Compare(left, right) // false before true
	})
	var before []string // the values of those that are changed
	for i, object := range objects {
		was, err := t.read(object, "attr", attribute)
		if err == nil || len(objects) == 1 {
			err = set(object, value)
		}
		if err != nil {
			for j := i - 1; j >= 0; j-- { // what was first goes back
				err = errors.Join(err, set(objects[j], strings.TrimSuffix(before[j], "\n")))
			}
			return err
		}
		before = append(before, was)
	}
	return nil
}

// isLabel is 1 for a word that changes the label, and 0 for another.
func isLabel(word string) int {
	attribute, _, _ := strings.Cut(word, "=")
	if t, err := p11.ParseAttributeType(attribute); err == nil && t == p11.CKA_LABEL {
		return 1
	}
	return 0
}

func newMove(streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "mv OBJECT NAME",
		Short: "Give an object, or a key pair, another label",
		Long: `Give an object another label: NAME, as it stands in TOKEN/objects, without the suffix.
OBJECT without a suffix is a private key with its public key and certificate of the same
name, if they are there: all get the new name, or none.` + objectText,
		Example: `  p11fs mv swtok/web site`,
		Args:    takes(2, 2),
	}
	return onObject(c, func(_ *cobra.Command, at tree, name string, args []string) error {
		to := args[1]
		if to == "" || to != filepath.Base(to) {
			return &usageError{err: fmt.Errorf("%q is no name for an object: write it without the token and without a slash", to)}
		}
		var done []string // pairs of paths
		for _, from := range at.together(name, args[0]) {
			suffix := filepath.Ext(from)
			old, renamed := filepath.Join(at.dir, from), filepath.Join(at.dir, "objects", strings.TrimSuffix(to, suffix)+suffix)
			err := unix.Rename(old, renamed) // os.Rename would not ask the tree
			if err == nil {
				done = append(done, old, renamed)
				continue
			}
			err = at.refused(fmt.Sprintf("mv %s %s", args[0], to), "", err)
			for i := len(done); i > 0; i -= 2 { // what was first goes back
				err = errors.Join(err, unix.Rename(done[i-1], done[i-2]))
			}
			return err
		}
		return nil
	})
}

func newRemove(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "rm OBJECT...",
		Short: "Destroy objects for good, key pairs as a pair",
		Long: `Destroy objects for good. OBJECT without a suffix is a private key with its public key
of the same name, if that is there; its certificate stays. It asks first, and without a
terminal wants --yes.` + objectText,
		Example: `  p11fs rm swtok/old
  p11fs rm --yes swtok/old.pub`,
		Args: takes(1, math.MaxInt),
	}
	yes := c.Flags().BoolP("yes", "y", false, "do not ask")
	return onObject(c, func(c *cobra.Command, _ tree, _ string, args []string) error {
		mount := c.Flag("mount").Value.String()
		var files []string // paths
		var names []string
		for _, arg := range args {
			at, name, err := findObject(mount, arg)
			if err != nil {
				return err
			}
			for _, n := range at.together(name, arg) {
				path := filepath.Join(at.dir, n)
				if filepath.Ext(n) == ".crt" && filepath.Ext(name) != ".crt" || slices.Contains(files, path) {
					continue
				}
				files, names = append(files, path), append(names, at.called(n))
			}
		}
		if !*yes {
			ask := newAsker(s)
			if !ask.terminal {
				return fmt.Errorf("rm destroys %s for good: add --yes if you mean that", strings.Join(names, ", "))
			}
			answer, err := ask.text(c.Context(), "Destroy "+printable(strings.Join(names, ", "))+" for good? Type yes")
			if err != nil {
				return err
			}
			if answer != "yes" {
				return errors.New("that was not yes: nothing was destroyed")
			}
		}
		for i, f := range files {
			if err := os.Remove(f); err != nil {
				return tree{filepath.Dir(filepath.Dir(f))}.refused("rm "+names[i], "", err)
			}
		}
		return nil
	})
}

// objectText is how a command's help says what OBJECT is.
const objectText = `

OBJECT is TOKEN/NAME, as in TOKEN/objects, with or without the suffix; NAME alone, if
one token has it; a path that begins with "/" or "."; or a URI (RFC 7512).`

// onObject makes c a command that acts on the object that its first argument names.
func onObject(c *cobra.Command, act func(c *cobra.Command, at tree, name string, args []string) error) *cobra.Command {
	mount := mountFlag(c)
	c.ValidArgsFunction = completeKeys(mount, allSuffixes())
	c.RunE = func(c *cobra.Command, args []string) error {
		at, name, err := findObject(*mount, args[0])
		if err != nil {
			return err
		}
		return act(c, at, name, args)
	}
	return c
}

// findObject is findKey for objects of all classes.
func findObject(mount, name string) (at tree, object string, err error) {
	return findKey(mount, name, allSuffixes())
}

// together returns the names of the objects that arg, which was found as name, means: a
// private key that was named without its suffix has its public key and certificate with it.
func (t tree) together(name, arg string) []string {
	all := []string{name}
	base, private := strings.CutSuffix(name, ".key")
	if !private || strings.HasSuffix(arg, ".key") || strings.HasPrefix(arg, "pkcs11:") {
		return all
	}
	id, _ := t.read(name, "attr/id")
	for _, suffix := range []string{".pub", ".crt"} {
		if other, err := t.read(base+suffix, "attr/id"); err == nil && other == id {
			all = append(all, base+suffix)
		}
	}
	return all
}

// An object is what ls and show tell of one.
type object struct {
	Name       string            `json:"name"` // TOKEN/NAME
	Class      string            `json:"class"`
	Type       string            `json:"type,omitempty"` // such as rsa:2048
	ID         string            `json:"id,omitempty"`   // in hexadecimal
	URI        string            `json:"uri,omitempty"`
	Uses       []string          `json:"uses,omitempty"`
	Attributes map[string]string `json:"attributes"`

	order []string // of the attributes, as info has them
}

// list returns what the tokens have, and why some of them do not say it.
func (t tree) list(tokens, attributes []string) ([]object, error) {
	words := make([]string, len(attributes))
	for i, w := range attributes {
		words[i] = quoteWord(w)
	}
	list := []object{}
	var errs []error
	for _, token := range tokens {
		if _, err := os.Stat(filepath.Join(t.dir, token, "find")); err != nil && len(tokens) > 1 {
			continue // a slot without a token
		}
		found, err := t.listToken(token, strings.Join(words, " "))
		list, errs = append(list, found...), append(errs, err)
	}
	return list, errors.Join(errs...)
}

// listToken returns what one token has with the attributes.
func (t tree) listToken(token, attributes string) (list []object, err error) {
	names, err := t.ask("ls "+token, token, "find", []byte(attributes+"\n"))
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(strings.Lines(names)) {
		name = strings.TrimSuffix(name, "\n")
		o, err := tree{filepath.Join(t.dir, token)}.object(filepath.Join("objects", name))
		if errors.Is(err, os.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, t.refused("ls "+token, token, err)
		}
		list = append(list, o)
	}
	return list, nil
}

// object reads what there is to tell of one, below the folder of its token.
func (t tree) object(name string) (object, error) {
	o := object{Name: t.called(name), Attributes: map[string]string{}}
	info, err := t.read(name, "info")
	if err != nil {
		return o, err
	}
	for line := range strings.Lines(info) {
		attribute, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		o.order, o.Attributes[attribute] = append(o.order, attribute), value
	}
	o.Class, o.ID = o.Attributes["class"], strings.TrimPrefix(o.Attributes["id"], "0x")
	o.Type = o.kind()
	if uri, err := t.read(name, "uri"); err == nil {
		o.URI = strings.TrimSpace(uri)
	}
	can, _ := t.read(name, "mechanisms") // only keys have them
	for line := range strings.Lines(can) {
		o.Uses = append(o.Uses, strings.TrimSpace(line))
	}
	return o, nil
}

// kind is the type of a key with its size, as generate takes it, or of a certificate.
func (o object) kind() string {
	kind := cmp.Or(o.Attributes["key-type"], o.Attributes["certificate-type"])
	size := o.Attributes["modulus-bits"]
	if n := len(strings.TrimPrefix(o.Attributes["modulus"], "0x")); size == "" && n > 0 {
		size = strconv.Itoa(n * 4)
	}
	if n := len(strings.TrimPrefix(o.Attributes["prime"], "0x")); size == "" && n > 0 {
		size = strconv.Itoa(n * 4)
	}
	if n, err := strconv.Atoi(o.Attributes["value-len"]); err == nil && kind != "" {
		size = strconv.Itoa(n * 8)
	}
	curve := o.Attributes["ec-params"]
	switch {
	case size == "" && kind == "ec" && curve != "":
		size = curve
	case size == "":
		return cmp.Or(o.Attributes["parameter-set"], curve, kind) // which say the type as well
	}
	return kind + ":" + size
}

// printObjects prints a table of objects.
func printObjects(s streams, list []object) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if len(list) > 0 {
		fmt.Fprintln(w, "NAME\tCLASS\tTYPE\tID\tUSES\tDATES")
	}
	for _, o := range list {
		dates := o.Attributes["start-date"] + ".." + o.Attributes["end-date"]
		if dates == ".." {
			dates = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printableLine(o.Name), o.Class, cmp.Or(o.Type, "-"), cmp.Or(o.ID, "-"), cmp.Or(strings.Join(o.does(), ","), "-"), dates)
	}
	return w.Flush()
}

// does is the operations that a key's attributes allow, as its files are called.
func (o object) does() (uses []string) {
	for _, use := range o.Uses {
		if word, _, _ := strings.Cut(use, " "); !slices.Contains(uses, word) {
			uses = append(uses, word)
		}
	}
	return uses
}
