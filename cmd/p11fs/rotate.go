package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"p11fs/foreign"
	"p11fs/p11"
)

func newRotate(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate KEY [WHAT]",
		Short: "Make a new key under the name of an old one, which is kept under a dated one",
		Long: `Make a new key, or key pair, of the same type and size, with the same uses and rights, and
give it the name that the old one has. The old one is kept as NAME-DATE, with today as its
end-date, by which p11fs agent offers it last, and with its public key and its certificate, for what it has signed and encrypted; p11fs rm destroys it when that is
over. The names are printed: those of the new key first, and behind them those that the old
one has now; standard error says which are which. A second rotation on one day keeps the key
of the first as NAME-DATE-2, a third that of the second as NAME-DATE-3.

WHAT says what the new key is to be, as for p11fs generate, if it is not to be of the old
one's type and size. Uses that it cannot have are left out then.

At every moment there is a key of that name. A rotation that was cut off is finished by
--finish: of the keys with the name the newest keeps it, and the others get the dated
one.` + keyText,
		Example: `  p11fs rotate swtok/web
  p11fs rotate swtok/web ec:p384`,
		Args: takes(1, 2),
	}
	finish := c.Flags().Bool("finish", false, "finish a rotation that was cut off: make no key, and rename the older ones")
	mount := mountFlag(c)
	c.ValidArgsFunction = completeKeys(mount, []string{".key", ".sec"})
	c.RunE = func(_ *cobra.Command, args []string) error {
		at, key, err := findKey(*mount, args[0], []string{".key", ".sec"})
		if err != nil {
			return err
		}
		r := &rotation{at: at, what: "rotate " + args[0], today: time.Now().Format(time.DateOnly)}
		if err := r.begin(key); err != nil {
			return err
		}
		switch {
		case *finish && len(args) > 1:
			return &usageError{err: errors.New("with --finish no key is made: leave WHAT out")}
		case !*finish && slices.ContainsFunc(r.older, func(name string) bool { return filepath.Ext(name) != ".crt" }):
			return fmt.Errorf("%s: several keys have that name: p11fs rotate --finish %s keeps the newest under it, if a rotation was cut off; else give them names of their own", r.what, shellQuote(args[0]))
		case !*finish:
			err = r.generate(args[1:])
		}
		if err == nil {
			err = r.rename()
		}
		r.print(s)
		return err
	}
	return c
}

// A rotation takes a key's name from it, and gives it to a new one.
type rotation struct {
	at    tree
	what  string // the command, for errors
	today string

	label  string
	class  p11.ObjectClass
	newest string   // in objects: the key that is to have the name
	older  []string // in objects: what has the label, and does not belong to that key
	now    []string // in objects: what has the name in the end
	dated  []string // in objects: what has a dated one

	undated []error // why older keys have no end-date
}

// print prints the names, for scripts, and says which are which.
func (r *rotation) print(s streams) {
	for _, names := range [][]string{r.now, r.dated} {
		for i, n := range names {
			names[i] = r.at.called(n)
			fmt.Fprintln(s.out, names[i])
		}
	}
	for _, err := range r.undated {
		fmt.Fprintf(s.err, "p11fs: %s; p11fs agent does not offer the old key last\n", printableLine(err.Error()))
	}
	for i, n := range r.now {
		r.now[i] = printableLine(n)
	}
	for i, n := range r.dated {
		r.dated[i] = printableLine(n)
	}
	if len(r.dated) > 0 && len(r.now) > 0 {
		fmt.Fprintf(s.err, "p11fs: %s: the new one; %s: the old one, under another name and with today as its end-date\n", strings.Join(r.now, " "), strings.Join(r.dated, " "))
	}
}

// begin looks which keys have the label of the one that was named.
func (r *rotation) begin(key string) error {
	attrs, err := r.attributes(filepath.Base(key))
	if err != nil {
		return err
	}
	r.label, r.class = attrs.Label(), classOf(attrs)
	switch {
	case r.label == "":
		return fmt.Errorf("%s: the key has no label that a new one could take: give it one with p11fs set", r.what)
	case !attrs.Bool(p11.CKA_TOKEN):
		return fmt.Errorf("%s: the key ends with its session: make another with p11fs generate", r.what)
	case !attrs.Bool(p11.CKA_MODIFIABLE):
		return fmt.Errorf("%s: the key has modifiable=false, and so keeps its name: make another with p11fs generate", r.what)
	}
	return r.look()
}

// attributes are those of an object that may be seen.
func (r *rotation) attributes(name string) (p11.Attributes, error) {
	attrs, err := r.at.attributes(filepath.Join("objects", name))
	if err != nil {
		err = r.at.refused(r.what, "", err)
	}
	return attrs, err
}

// look finds the newest key of the label and class, and what else has the label.
func (r *rotation) look() error {
	keys, err := r.find("class=" + r.class.Short())
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("%s: the key went meanwhile: start again", r.what)
	}
	r.newest = keys[len(keys)-1]
	newest, err := r.attributes(r.newest)
	if err != nil {
		return err
	}
	all, err := r.find("")
	if err != nil {
		return err
	}
	r.older = nil
	var stray string // a public key that may be the newest key's, under another id
	paired := false
	for _, name := range all {
		attrs, err := r.attributes(name)
		if err != nil {
			return err
		}
		class := classOf(attrs)
		if class == p11.CKO_PUBLIC_KEY && sameID(attrs, newest) {
			paired = true
		} else if class == p11.CKO_PUBLIC_KEY {
			stray = name
		}
		if class == p11.CKO_DATA || name == r.newest || class != r.class && sameID(attrs, newest) {
			continue
		}
		r.older = append(r.older, name)
	}
	if stray != "" && !paired && len(keys) == 1 {
		id, _ := newest.Get(p11.CKA_ID)
		return fmt.Errorf("%s: %s has another id than %s: if they are a pair, p11fs set %s id=0x%x", r.what, stray, r.newest, shellQuote(filepath.Base(r.at.dir)+"/"+stray), id)
	}
	return nil
}

func sameID(a, b p11.Attributes) bool {
	one, _ := a.Get(p11.CKA_ID)
	other, _ := b.Get(p11.CKA_ID)
	return string(one) == string(other)
}

// find returns the names of the objects that have the label, the oldest first.
func (r *rotation) find(template string) (names []string, err error) {
	text, err := r.at.ask(r.what, "", "find", []byte(template+" label:="+r.label+"\n"))
	for line := range strings.Lines(text) {
		names = append(names, strings.TrimSuffix(line, "\n"))
	}
	return names, err
}

// generate makes the new key. It has an id of its own, and so may have the label that
// another has already, before which it does not come as long as that has it.
func (r *rotation) generate(what []string) error {
	words, err := r.recipe(what)
	if err != nil {
		return err
	}
	if _, err := r.at.ask(r.what, "", "generate", []byte(strings.Join(words, " ")+"\n")); err != nil {
		return err
	}
	return r.look()
}

// recipe is the line for generate: what the old key is, or what, and its rights.
func (r *rotation) recipe(what []string) ([]string, error) {
	private, err := r.attributes(r.newest)
	if err != nil {
		return nil, err
	}
	halves := []p11.Attributes{private}
	if r.class == p11.CKO_PRIVATE_KEY {
		public, err := r.attributes(strings.TrimSuffix(r.newest, ".key") + ".pub")
		if err == nil && sameID(public, private) {
			halves = append(halves, public)
		}
	}
	words := slices.Clone(what)
	if len(what) == 0 {
		o, err := r.at.object(filepath.Join("objects", r.newest))
		if err != nil {
			return nil, r.at.refused(r.what, "", err)
		}
		kind, size, _ := strings.Cut(o.Type, ":")
		switch set := o.Attributes["ibm-parameter-set"]; {
		case kind == "dh":
			return nil, fmt.Errorf("%s: a Diffie-Hellman key has a group: say which the new one is to have, as in p11fs rotate KEY dh:ffdhe3072", r.what)
		case set != "":
			words = []string{"ibm-" + set}
		case kind == "generic-secret":
			words = []string{"generic:" + size}
		default:
			words = []string{o.Type}
		}
	}
	var given p11.Attributes
	for _, attrs := range halves {
		for _, t := range foreign.Types(classOf(attrs)) {
			if v, ok := attrs.Get(t); ok && len(v) > 0 && !given.Has(t) && stays(t, len(what) == 0) {
				given.Set(t, v)
				words = append(words, word(attrs, t))
			}
		}
	}
	id := fmt.Sprintf("id=0x%016x", time.Now().UnixNano())
	return append(words, id, "start-date="+r.today, "label:="+r.label), nil
}

// stays reports whether a new key has the attribute of the old one: its rights, and its uses
// if it is of the same kind.
func stays(t p11.AttributeType, sameKind bool) bool {
	switch t {
	case p11.CKA_PRIVATE, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_COPYABLE, p11.CKA_DESTROYABLE:
		return true
	case p11.CKA_ALLOWED_MECHANISMS, p11.CKA_WRAP_TEMPLATE, p11.CKA_UNWRAP_TEMPLATE, p11.CKA_DERIVE_TEMPLATE:
		return sameKind
	}
	return sameKind && p11.KindOf(t) == p11.KindBool && t != p11.CKA_MODIFIABLE
}

// rename gives what is older the dated name, the key first: with it changes what the name
// stands for. The name of one that has not the plain one ends in ~ and its stored name, and
// stays so as long as it has the label.
func (r *rotation) rename() error {
	order := []string{".crt", ".pub", ".sec", ".key"}
	slices.SortStableFunc(r.older, func(a, b string) int {
		return slices.Index(order, filepath.Ext(b)) - slices.Index(order, filepath.Ext(a))
	})
	for _, name := range r.older {
		r.retire(name)
		dated, err := r.free(name)
		if err == nil {
			err = unix.Rename(filepath.Join(r.at.dir, "objects", name), filepath.Join(r.at.dir, "objects", dated))
		}
		if err != nil {
			return fmt.Errorf("%w: the new key is made, and p11fs rotate --finish gives it the name", r.at.refused(r.what, "", err))
		}
		r.dated = append(r.dated, dated)
	}
	var err error
	r.now, err = r.find("")
	return err
}

// retire gives an older key today as its end-date, if it has none that is before and does not
// start later. It is a hint for whoever chooses among keys: a token that keeps no such date
// has the key rotated all the same.
func (r *rotation) retire(name string) {
	if ext := filepath.Ext(name); ext != ".key" && ext != ".sec" {
		return
	}
	name = filepath.Join("objects", name)
	if r.at.retired(name, r.today) || r.at.date(name, "start-date") > r.today {
		return
	}
	if err := r.at.command("end-date of "+name, "", filepath.Join(name, "attr/end-date"), []byte(r.today+"\n")); err != nil {
		r.undated = append(r.undated, err)
	}
}

// date is a date of an object, as 2026-01-31; empty if it has none.
func (t tree) date(object, which string) string {
	text, _ := t.read(object, "attr", which) // there is none where it cannot be read
	if text = strings.TrimSpace(text); len(text) != len(time.DateOnly) {
		return ""
	}
	return text
}

// retired reports whether today is the last day of an object, as that of a key which a rotation
// has replaced, or behind it: who chooses for himself is to take another.
func (t tree) retired(object, today string) bool {
	end := t.date(object, "end-date")
	return end != "" && end <= today
}

// free is a dated name that nothing has, for an object in objects.
func (r *rotation) free(name string) (string, error) {
	suffix := filepath.Ext(name)
	plain, _, _ := strings.Cut(strings.TrimSuffix(name, suffix), "~")
	for n := 1; n < 1000; n++ {
		dated := plain + "-" + r.today
		if n > 1 {
			dated = fmt.Sprintf("%s-%d", dated, n)
		}
		_, err := os.Lstat(filepath.Join(r.at.dir, "objects", dated+suffix))
		if errors.Is(err, os.ErrNotExist) {
			return dated + suffix, nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", errors.New("it was rotated a thousand times today: destroy some of the old keys")
}
