package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// findKey finds the key that a command names: the folder of its token, or of a
// session, and the key's own below it. A name may do without one of suffixes: see named.
func findKey(mount, name string, suffixes []string) (at tree, key string, err error) {
	if filepath.IsAbs(name) || strings.HasPrefix(name, ".") { // a label has no dot in front
		if name, err = filepath.Abs(name); err != nil {
			return at, "", err
		}
		dir, base := filepath.Split(name)
		dir = filepath.Clean(dir)
		return tree{filepath.Dir(dir)}, filepath.Join(filepath.Base(dir), base), nil
	}
	t, err := findTree(mount, os.Getenv)
	if err != nil {
		return at, "", err
	}
	wanted := t.tokens()
	find := func(token string) ([]string, error) { return t.named(token, name, suffixes) }
	if strings.HasPrefix(name, "pkcs11:") {
		u, err := parseURI(name)
		if err != nil {
			return at, "", err
		}
		find = func(token string) ([]string, error) { return t.byURI(token, u, suffixes) }
	} else if token, label, ok := strings.Cut(name, "/"); ok {
		if err := t.token(token); err != nil {
			return at, "", err
		}
		wanted, name = []string{token}, label
	}
	var found, public, in []string // in: of whose keys all are seen
	var unseen error               // why those of a token are not
	for _, token := range wanted {
		keys, err := find(token)
		if err != nil {
			unseen = cmp.Or(unseen, err)
			continue
		}
		for _, k := range keys {
			found = append(found, filepath.Join(token, k))
			at, key = tree{filepath.Join(t.dir, token)}, filepath.Join("objects", k)
		}
		if who, _ := t.read(token, "login"); strings.TrimSpace(who) == "public" {
			public = append(public, "p11fs login "+shellQuote(token))
		} else {
			in = append(in, token)
		}
	}
	if len(found) == 0 {
		if unseen != nil {
			return at, "", unseen
		}
		err := t.halfMissing(wanted, name, suffixes)
		if err == nil {
			err = t.otherClass(in, name, suffixes)
		}
		if err != nil {
			return at, "", err
		}
	}
	switch {
	case len(found) == 1:
		if suffixes[0] == ".sec" && slices.Contains(suffixes, ".pub") { // what encrypts or wraps
			err = at.meant(filepath.Base(key), name)
		}
		return at, key, err
	case len(found) > 1:
		return at, "", &usageError{err: fmt.Errorf("%s is several keys: say which of %s", name, strings.Join(found, ", "))}
	case slices.Contains(t.tokens(), name):
		return at, "", &usageError{err: fmt.Errorf("%s is a token: name a key in it, %[1]s/NAME", name)}
	case len(public) > 0:
		return at, "", &treeError{what: "find " + name, why: "there is no such key that everybody may see: log in first (" + strings.Join(public, " or ") + ")", err: syscall.EACCES}
	}
	list := "p11fs ls"
	if len(wanted) == 1 {
		list += " " + shellQuote(wanted[0])
	}
	return at, "", fmt.Errorf("there is no key %s: %s shows those that there are", name, list)
}

// called is how commands print the name of an object, so that all of them take it again:
// TOKEN/NAME, or its path where it is in the folder of a session.
func (t tree) called(object string) string {
	name := filepath.Base(object)
	if filepath.Base(filepath.Dir(t.dir)) == "sessions" {
		return filepath.Join(t.dir, "objects", name)
	}
	return filepath.Join(filepath.Base(t.dir), name)
}

// printNames prints the names that a file of the tree gave, a line each, and what it says of
// others behind a #.
func (t tree) printNames(s streams, names string) {
	for line := range strings.Lines(names) {
		there, is := strings.CutPrefix(line, "# already there as ")
		switch {
		case is:
			line = "# already there as " + t.called(there)
		case !strings.HasPrefix(line, "#"):
			line = t.called(line)
		}
		fmt.Fprint(s.out, line)
	}
}

// halfMissing is the error where a private key is there, and the public one that is meant
// is not.
func (t tree) halfMissing(tokens []string, name string, suffixes []string) error {
	label := strings.TrimSuffix(name, ".pub")
	if label != filepath.Base(label) || !slices.Contains(suffixes, ".pub") {
		return nil
	}
	for _, token := range tokens {
		private := filepath.Join(t.dir, token, "objects", label+".key")
		if _, err := os.Stat(private); err != nil {
			continue
		}
		is := fmt.Sprintf("of %s the private key is there alone, and this takes the public one, %[1]s.pub", filepath.Join(token, label))
		pem := filepath.Join(private, "public.pem")
		if _, err := os.Stat(pem); err != nil {
			return fmt.Errorf("%s: import that", is)
		}
		file := "import:pub," + quoteWord("label:="+label)
		if id, err := t.read(token, "objects", label+".key", "attr/id"); err == nil && id != "\n" {
			file += ",id=" + strings.TrimSpace(id)
		}
		return fmt.Errorf("%s: cat %s > %s makes it", is, shellQuote(pem), shellQuote(filepath.Join(t.dir, token, file)))
	}
	return nil
}

// otherClass is the error where the name is that of an object which is no such key as is meant.
func (t tree) otherClass(tokens []string, name string, suffixes []string) error {
	classes := map[string]string{".key": "private keys", ".sec": "secret keys", ".pub": "public keys", ".crt": "certificates"}
	var takes []string
	for _, suffix := range suffixes {
		if class, ok := classes[suffix]; ok {
			takes = append(takes, class)
		}
	}
	for _, token := range tokens {
		list, err := t.named(token, name, allSuffixes())
		if err != nil {
			return err
		}
		for _, is := range list {
			return &usageError{err: fmt.Errorf("%s is no key for this, which takes %s: p11fs ls %s shows what each object is", filepath.Join(token, is), strings.Join(takes, " and "), shellQuote(token))}
		}
	}
	return nil
}

// named returns the name in objects of the key of a token. Of several that a name without a
// suffix may mean, what is one's own comes first, and then the first of suffixes: anybody who
// may make public objects can give one the same label. There is an error where the token cannot
// say whether it has the key.
func (t tree) named(token, name string, suffixes []string) (first []string, err error) {
	if name != filepath.Base(name) {
		return nil, nil
	}
	for _, suffix := range append([]string{""}, suffixes...) {
		is := name + suffix
		if own := filepath.Ext(is); slices.Contains(allSuffixes(), own) && !slices.Contains(suffixes, own) {
			continue // of another class
		}
		st, err := os.Stat(filepath.Join(t.dir, token, "objects", is))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, t.refused("find "+name, token, err)
		}
		if err != nil || !st.IsDir() {
			continue
		}
		if suffix == "" || t.own(token, is) {
			return []string{is}, nil
		}
		if first == nil {
			first = []string{is}
		}
	}
	return first, nil
}

// own reports whether a key is private, or the other half of its pair is.
func (t tree) own(token, is string) bool {
	for _, half := range []string{is, strings.TrimSuffix(is, ".pub") + ".key"} {
		if private, _ := t.read(token, "objects", half, "attr/private"); private == "true\n" {
			return true
		}
		if !strings.HasSuffix(is, ".pub") {
			break
		}
	}
	return false
}

// meant refuses a secret key of the token whose folder t is, if everybody reads it and it was
// not named in full: what it encrypts or wraps is no secret.
func (t tree) meant(is, name string) error {
	if !strings.HasSuffix(is, ".sec") || strings.HasSuffix(name, ".sec") || strings.HasPrefix(name, "pkcs11:") && strings.Contains(name, "type=secret-key") {
		return nil
	}
	if private, _ := t.read("objects", is, "attr/private"); private != "false\n" {
		return nil
	}
	return &usageError{err: fmt.Errorf("%s is a secret key that everybody reads who reads the token: name it in full, with .sec, if you mean it", is)}
}

// parseURI reads the path attributes of a URI (RFC 7512).
func parseURI(uri string) (map[string]string, error) {
	path, _, _ := strings.Cut(strings.TrimPrefix(uri, "pkcs11:"), "?")
	u := map[string]string{}
	for _, pair := range strings.Split(path, ";") {
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("%s: %w", uri, err)}
		}
		switch name {
		case "token", "manufacturer", "serial", "model", "object", "id", "type":
			u[name] = value
		case "":
		default:
			return nil, &usageError{err: fmt.Errorf("%s: the attribute %s is not known", uri, name)}
		}
	}
	return u, nil
}

// byURI returns the names in objects of the keys of a token that the URI means.
func (t tree) byURI(token string, u map[string]string, suffixes []string) ([]string, error) {
	info, err := t.read(token, "info")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a slot without a token
	}
	if err != nil {
		return nil, err
	}
	for attribute, line := range map[string]string{"token": "label", "manufacturer": "manufacturer", "serial": "serial", "model": "model"} {
		if want, ok := u[attribute]; ok && !strings.Contains("\n"+info, "\n"+line+": "+want+"\n") {
			return nil, nil
		}
	}
	var template []string
	if label, ok := u["object"]; ok {
		var quoted strings.Builder
		for _, c := range []byte(label) {
			fmt.Fprintf(&quoted, `\x%02x`, c)
		}
		template = append(template, `label="`+quoted.String()+`"`)
	}
	if id, ok := u["id"]; ok {
		template = append(template, fmt.Sprintf("id=0x%x", id))
	}
	if kind, ok := u["type"]; ok {
		class, ok := map[string]string{"private": "private-key", "public": "public-key", "secret-key": "secret-key"}[kind]
		if !ok {
			return nil, &usageError{err: fmt.Errorf("type=%s is no key", kind)}
		}
		template = append(template, "class="+class)
	}
	names, err := t.ask("find a key", token, "find", []byte(strings.Join(template, " ")+"\n"))
	if err != nil {
		return nil, err
	}
	for _, all := range []bool{false, true} { // one's own first, as in named
		for _, suffix := range suffixes {
			var list []string
			for name := range strings.Lines(names) {
				if name = strings.TrimSpace(name); strings.HasSuffix(name, suffix) && (all || t.own(token, name)) {
					list = append(list, name)
				}
			}
			if list != nil {
				return list, nil
			}
		}
	}
	return nil, nil
}

// completeKeys offers the names of keys to the shell for a first argument, and files
// for what follows.
func completeKeys(mount *string, suffixes []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		t, err := findTree(*mount, os.Getenv)
		if len(args) > 0 || err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []string
		for _, suffix := range suffixes {
			found, _ := filepath.Glob(filepath.Join(t.dir, "*", "objects", "*"+suffix))
			for _, path := range found {
				names = append(names, filepath.Join(filepath.Base(filepath.Dir(filepath.Dir(path))), filepath.Base(path)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
