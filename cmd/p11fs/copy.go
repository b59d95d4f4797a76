package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/foreign"
	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/secret"
)

func newCopy(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "cp OBJECT TO [ATTRIBUTE=VALUE...]",
		Short: "Copy an object, or a key pair, within its token or to another one",
		Long: `Copy an object, and print the names made. TO is a name for the copy in the same token, or
another TOKEN, or TOKEN/NAME. OBJECT without a suffix is a private key with its public key
and certificate of the same name. All are copied, or none.

Within a token any object is copied that has copyable=true, which is so unless said
otherwise; the file copy of the object does it, and the attributes are what is different
in the copy.

Another token gets what leaves its own: public keys, certificates and data as they are, and
private and secret keys that were made with extractable=true. The daemon wraps those under a
key for this moment alone, which only the command has beside it, and unwraps them there:
log in to both tokens before. A key without extractable=true leaves its token in no
way; p11fs backup keeps it together with the token, of a kind that it is for.` + attributesText + objectText,
		Example: `  p11fs cp swtok/web site
  p11fs cp swtok/web other
  p11fs cp swtok/disk copy decrypt=false`,
		Args: takes(2, math.MaxInt),
	}
	onObject(c, func(_ *cobra.Command, at tree, name string, args []string) error {
		to, label, err := at.destination(args[1])
		if err != nil {
			return err
		}
		k := &copying{s: s, from: at, to: to, label: label, attributes: args[2:]}
		defer k.close()
		names := at.together(name, args[0])
		if to.dir == at.dir {
			if label == "" && !slices.ContainsFunc(args[2:], func(w string) bool { return isLabel(w) == 1 || strings.HasPrefix(w, "id=") }) {
				return &usageError{err: fmt.Errorf("%s is the token that %s is in: name the copy, as in p11fs cp %[2]s NAME", args[1], args[0])}
			}
			return k.all("cp "+args[0], names, k.within)
		}
		if len(args) > 2 {
			return &usageError{err: errors.New("what goes to another token is as it was: leave the attributes out, and change them there with p11fs set")}
		}
		return k.all("cp "+args[0], names, k.across)
	})
	first := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return first(c, args, word)
		case 1:
			mount := c.Flag("mount").Value.String()
			return completeTokens(&mount)(c, nil, word)
		}
		return attributeWords(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return c
}

// destination is the folder of the token, and the label, that a copy of an object of t goes
// to. Without a label it keeps its own.
func (t tree) destination(to string) (token tree, label string, err error) {
	whole := tree{filepath.Dir(t.dir)}
	if filepath.Base(whole.dir) == "sessions" {
		return t, to, nil
	}
	name, label, both := strings.Cut(to, "/")
	if both || slices.Contains(whole.tokens(), to) {
		if err := whole.token(name); err != nil {
			return t, "", err
		}
		if both && (label == "" || strings.Contains(label, "/")) {
			return t, "", &usageError{err: fmt.Errorf("%q is no TOKEN/NAME: write a name without a slash behind the token", to)}
		}
		return tree{filepath.Join(whole.dir, name)}, label, nil
	}
	if to == "" {
		return t, "", &usageError{err: errors.New("the name of the copy is empty: write one")}
	}
	return t, to, nil
}

// A copying copies objects. What it has made goes again where one of them fails.
type copying struct {
	s          streams
	from, to   tree
	label      string // of the copies, without a suffix; empty: as they were
	attributes []string

	made []string // names in objects of to
	by   map[tree]string
}

// all copies the objects by one, and prints the names made.
func (k *copying) all(what string, names []string, one func(what, name string) error) error {
	for _, n := range names {
		if err := one(what, n); err != nil {
			for _, m := range slices.Backward(k.made) {
				err = errors.Join(err, os.Remove(filepath.Join(k.to.dir, "objects", m)))
			}
			return err
		}
	}
	for _, m := range k.made {
		fmt.Fprintln(k.s.out, k.to.called(m))
	}
	return nil
}

// labelled is the word for the label of a copy of the object, or none.
func (k *copying) labelled(object string) []string {
	if k.label == "" {
		return nil
	}
	return []string{"label:=" + strings.TrimSuffix(k.label, filepath.Ext(object))}
}

// within has the token copy an object.
func (k *copying) within(what, object string) error {
	var words []string
	for _, w := range append(k.labelled(object), k.attributes...) {
		words = append(words, quoteWord(w))
	}
	return k.make(what, filepath.Join(object, "copy"), []byte(strings.Join(words, " ")+"\n"))
}

// make writes text to a file of the token that the copies go to, and notes what that has
// made.
func (k *copying) make(what, file string, text []byte) error {
	answer, err := k.to.exchange(what, "", file, os.O_RDWR, text)
	for name := range strings.Lines(answer) {
		if name = strings.TrimSuffix(name, "\n"); !strings.HasPrefix(name, "#") {
			k.made = append(k.made, name)
		}
	}
	return err
}

// across brings an object to another token: as a template where its value may be read, and
// else wrapped.
func (k *copying) across(what, object string) error {
	attrs, err := k.from.attributes(object)
	if err != nil {
		return k.from.refused(what, "", err)
	}
	defer attrs.Wipe()
	if k.label != "" {
		attrs.Set(p11.CKA_LABEL, []byte(strings.TrimSuffix(k.label, filepath.Ext(object))))
	}
	class, _ := attrs.Class()
	closed := class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY && attrs.Bool(p11.CKA_SENSITIVE)
	switch {
	case foreign.Types(class) == nil:
		return fmt.Errorf("%s: %s belongs to its token alone: leave it there, and %s", what, filepath.Base(object), k.keeping())
	case (class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY) && !attrs.Bool(p11.CKA_EXTRACTABLE):
		return fmt.Errorf("%s: %s was made with extractable=false, and so leaves its token in no way: make a key in %s with p11fs generate, or %s", what, filepath.Base(object), filepath.Base(k.to.dir), k.keeping())
	case closed:
		return k.wrapped(what, object, attrs)
	}
	if class != p11.CKO_PUBLIC_KEY {
		value, err := readAll(filepath.Join(k.from.dir, object, "value"))
		if err != nil {
			return k.from.refused(what, "", err)
		}
		defer secret.Wipe(value)
		attrs.Set(p11.CKA_VALUE, value)
	}
	text := group{attrs: []p11.Attributes{foreign.Portable(attrs)}}.templates()
	defer secret.Wipe(text)
	return k.make(what, "import:template", text)
}

// keeping is how the token is kept that an object stays in.
func (k *copying) keeping() string {
	info, _ := k.from.read("info")
	var c mountd.Config
	if err := setKinds(&c, "go"); err != nil {
		return err.Error()
	}
	for _, kind := range c.Kinds {
		if kind.NoBackup != nil && strings.Contains("\n"+info, "\nkind: "+kind.Name+"\n") {
			return p11.AdviceOf(kind.NoBackup)
		}
	}
	return "keep the whole token with p11fs backup"
}

// attributes are those of an object that may be seen.
func (t tree) attributes(object string) (p11.Attributes, error) {
	info, err := t.read(object, "info")
	if err != nil {
		return nil, err
	}
	var attrs p11.Attributes
	for line := range strings.Lines(info) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		one, err := p11.ParseAttributeType(name)
		if err != nil {
			return nil, err
		}
		value, err := p11.ParseValue(one, text)
		if err != nil {
			return nil, err
		}
		attrs.Set(one, value)
	}
	return attrs, nil
}

// word is an attribute as a template has it.
func word(attrs p11.Attributes, t p11.AttributeType) string {
	v, _ := attrs.Get(t)
	return p11.Attributes{{Type: t, Value: v}}.Text()
}

// readAll reads a file of the tree whole, in one piece of memory.
func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxAnswer+1)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	} else if err == nil {
		err = fmt.Errorf("%s has more than %d bytes: it is no object", path, maxAnswer)
	}
	return b[:n], err
}

// wrapped brings a key that is not shown: wrapped by its token, and unwrapped by the other.
func (k *copying) wrapped(what, object string, attrs p11.Attributes) error {
	if err := k.begin(what); err != nil {
		return err
	}
	can, err := k.from.read("objects", k.by[k.from], "mechanisms")
	if err != nil {
		return err
	}
	mechanism := ""
	for line := range strings.Lines(can) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "wrap" {
			mechanism = words[1]
		}
	}
	if mechanism == "" {
		return fmt.Errorf("%s: its token wraps no key as p11fs cp needs it: make a key in %s with p11fs generate, or %s", what, filepath.Base(k.to.dir), k.keeping())
	}
	if !k.to.unwraps(mechanism) {
		to, from := filepath.Base(k.to.dir), k.from.called(object)
		if classOf(attrs) == p11.CKO_SECRET_KEY {
			return fmt.Errorf("%s: %s takes no key in that another token wraps: bring it from where it was made, with p11fs import %[2]s --as aes FILE, for one", what, to)
		}
		return fmt.Errorf("%s: %s takes no key in that another token wraps: write it into a file with p11fs export %s --output FILE, and bring that with p11fs import %[2]s FILE", what, to, shellQuote(from))
	}
	wrapped, err := k.from.exchange(what, "", filepath.Join("objects", k.by[k.from], "wrap"), os.O_RDWR, []byte(filepath.Base(object)+"\n"))
	if err != nil {
		return err
	}
	file, err := makerFile(filepath.Join("objects", k.by[k.to]), "unwrap", mechanism, unwrapWords(attrs))
	if err != nil {
		return err
	}
	return k.make(what, file, []byte(wrapped))
}

// unwraps says whether the token whose folder t is unwraps keys by the mechanism.
func (t tree) unwraps(mechanism string) bool {
	can, _ := t.read("mechanisms")
	for line := range strings.Lines(can) {
		if words := strings.Fields(line); len(words) > 3 && words[0] == mechanism {
			return slices.Contains(strings.Split(words[3], ","), "unwrap")
		}
	}
	return false
}

// unwrapWords are the attributes of a key that unwrapping cannot know, where they are not
// what the tree takes without them.
func unwrapWords(attrs p11.Attributes) []string {
	var words []string
	add := func(t p11.AttributeType) { words = append(words, word(attrs, t)) }
	add(p11.CKA_CLASS)
	add(p11.CKA_KEY_TYPE)
	// What is true, and what the tree makes true of some keys.
	truths := map[p11.AttributeType]bool{
		p11.CKA_PRIVATE: true, p11.CKA_SENSITIVE: true, p11.CKA_TOKEN: true, p11.CKA_MODIFIABLE: true, p11.CKA_COPYABLE: true, p11.CKA_DESTROYABLE: true,
		p11.CKA_EXTRACTABLE: false, p11.CKA_UNWRAP: false, p11.CKA_WRAP: false, p11.CKA_ALWAYS_AUTHENTICATE: false, p11.CKA_WRAP_WITH_TRUSTED: false,
	}
	for _, t := range foreign.Types(classOf(attrs)) {
		if p11.KindOf(t) != p11.KindBool || !attrs.Has(t) {
			continue
		}
		if usual, known := truths[t]; !known || attrs.Bool(t) != usual {
			add(t)
		}
	}
	for _, t := range []p11.AttributeType{p11.CKA_LABEL, p11.CKA_ID, p11.CKA_ALLOWED_MECHANISMS, p11.CKA_START_DATE, p11.CKA_END_DATE,
		p11.CKA_WRAP_TEMPLATE, p11.CKA_UNWRAP_TEMPLATE, p11.CKA_DERIVE_TEMPLATE} {
		if v, ok := attrs.Get(t); ok && len(v) > 0 {
			add(t)
		}
	}
	return words
}

func classOf(attrs p11.Attributes) p11.ObjectClass {
	class, _ := attrs.Class()
	return class
}

// begin makes the key under which keys go, for this session alone, in both tokens.
func (k *copying) begin(what string) error {
	if k.by != nil {
		return nil
	}
	k.by = make(map[tree]string)
	random := make([]byte, 32+8)
	_, _ = rand.Read(random) // which does not fail
	defer secret.Wipe(random)
	for at, use := range map[tree]string{k.from: "wrap", k.to: "unwrap"} {
		text := fmt.Appendf(make([]byte, 0, 256), "class=secret-key key-type=aes token=false private=true sensitive=true extractable=false %s=true label=p11fs-cp-%x value=0x", use, random[32:])
		text = append(hex.AppendEncode(text, random[:32]), '\n')
		answer, err := at.exchange(what, "", "import:template", os.O_RDWR, text)
		secret.Wipe(text)
		if err != nil {
			return err
		}
		k.by[at] = string(bytes.TrimSpace([]byte(answer)))
	}
	return nil
}

// close destroys that key, which the end of the session would, too.
func (k *copying) close() {
	for at, name := range k.by {
		_ = os.Remove(filepath.Join(at.dir, "objects", name))
	}
}
