package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"p11fs/foreign"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/keywrap"
)

func newExport(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "export TOKEN DIRECTORY | export OBJECT",
		Short: "Write what a token lets out into files, or one object to standard output",
		Long: `Write one object to standard output, or to the file --output: of OBJECT, as TOKEN/NAME, a
certificate or public key in PEM, with --ssh a public key as a line of authorized_keys, and
data as it is. OBJECT without a suffix is the public key of that name before a certificate
or a key that is private or secret. Of a private or secret key, NAME.key or NAME.sec, it is
what stands below: encrypted, or wrapped under a given key.

Write what a token lets out into files of DIRECTORY, which is made if need be: each
certificate and public key in PEM; each extractable private key as PKCS#8, encrypted
under a pass phrase (PBES2), which openssl and others read; each extractable secret key,
and each private data object, encrypted by age under the same pass phrase. That is asked
for twice, or is the first line of standard input if that is no terminal.

With --wrap-with KEY there is no pass phrase: private and secret keys are wrapped under
that key of the token, as its file wrap does, and unwrap brings them back. No key is in
the clear outside of the daemon then.

Log in before, to see what is private. There is a line for each object: wrote, or left, and
why: most keys are not extractable. The exit status is 1 if anything was left. A file that
is there stays as it is, and its object is left.`,
		Example: `  p11fs export swtok/web > web.pub.pem
  p11fs export swtok/web.key --wrap-with transport > web.wrapped
  p11fs export swtok keys
  p11fs export swtok keys --wrap-with transport`,
		Args: takes(1, 2),
	}
	phraseFile := c.Flags().String("passphrase-file", "", "read the pass phrase from the first line of this `FILE`")
	by := c.Flags().String("wrap-with", "", "wrap keys with this `KEY` of the token instead")
	asJSON := c.Flags().Bool("json", false, "print the report as JSON")
	output := c.Flags().StringP("output", "o", "", "write one object to this `FILE`, which is there only when all is well")
	ssh := c.Flags().Bool("ssh", false, "write a public key as a line of authorized_keys")
	onToken(c, func(c *cobra.Command, t tree, token string, args []string) (err error) {
		if *output != "" || *ssh {
			return &usageError{err: errors.New("a token goes into a directory: leave --output and --ssh out, or name one object as TOKEN/NAME")}
		}
		x := &exporting{t: t, token: token, dir: args[1]}
		if err := os.MkdirAll(x.dir, 0o700); err != nil {
			return err
		}
		if err := x.begins(c.Context(), s, *by, *phraseFile); err != nil {
			return err
		}
		defer x.phrase.Close()
		defer func() { err = errors.Join(err, x.close()) }()
		report := &importReport{}
		err = x.all(c.Context(), s, report)
		if printed := report.printExport(s, *asJSON); err == nil {
			err = printed
		}
		if err == nil && report.Left > 0 {
			err = errSilent
		}
		return err
	})
	whole := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 2 {
			return whole(c, args)
		}
		return exportOne(c.Context(), s, c.Flag("mount").Value.String(), args[0], exportFlags{by: *by, phraseFile: *phraseFile, output: *output, ssh: *ssh, json: *asJSON})
	}
	tokens := completeFile(c, 1).ValidArgsFunction
	mount := c.Flag("mount").Value
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, directive := tokens(c, args, word)
		if len(args) == 0 {
			at := mount.String()
			objects, _ := completeKeys(&at, allSuffixes())(c, nil, word)
			names = append(names, objects...)
		}
		return names, directive
	}
	return c
}

// exportFlags are the options that say how one object is written.
type exportFlags struct {
	by, phraseFile, output string
	ssh, json              bool
}

// exportOne writes the object that was named.
func exportOne(ctx context.Context, s streams, mount, name string, f exportFlags) (err error) {
	if f.json {
		return &usageError{err: errors.New("the report is of a whole token: leave --json out")}
	}
	at, object, err := findKey(mount, name, []string{".pub", ".crt", ".dat", ".key", ".sec", ".dom", ".hw", ".obj"})
	if err != nil {
		return err
	}
	x := &exporting{t: tree{filepath.Dir(at.dir)}, token: filepath.Base(at.dir)}
	object = filepath.Base(object)
	kind := filepath.Ext(object)
	closed := kind == ".key" || kind == ".sec"
	switch {
	case f.ssh && (closed || kind == ".crt"):
		return &usageError{err: fmt.Errorf("%s is no public key: leave --ssh out, or name NAME.pub", object)}
	case !closed && (f.by != "" || f.phraseFile != ""):
		return &usageError{err: fmt.Errorf("%s is no private or secret key, and is written as it is: leave --wrap-with and --passphrase-file out, or name NAME.key", object)}
	}
	if closed {
		if kind != ".key" && f.output == "" && isTerminal(s.out) {
			return &usageError{err: errors.New("what comes out is no text, and standard output is a terminal: name a file with --output")}
		}
		defer func() { err = errors.Join(err, x.close()) }()
		if f.by == "" { // nobody types a pass phrase to be told that the key stays
			if err := x.leaves(object); err != nil {
				return fmt.Errorf("export %s: %w", name, err)
			}
		}
		if err := x.begins(ctx, s, f.by, f.phraseFile); err != nil {
			return err
		}
		defer x.phrase.Close()
	}
	var b []byte
	switch {
	case f.ssh:
		b, err = x.read(object, "public.ssh")
	case kind == ".dat":
		b, err = x.read(object, "value") // with the login that it needs
	default:
		var content func() ([]byte, error)
		if _, content, err = x.form(object); err == nil {
			b, err = content()
		}
	}
	defer func() { secret.Wipe(b) }()
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	return writeOutput(s, f.output, b)
}

// begins takes the key that wraps, or the pass phrase that is asked for.
func (x *exporting) begins(ctx context.Context, s streams, by, phraseFile string) (err error) {
	if by == "" {
		x.phrase, err = getPIN(ctx, newAsker(s), phraseFile, "pass phrase", true)
		return err
	}
	if phraseFile != "" {
		return &usageError{err: errors.New("an export has a pass phrase or a key that wraps: leave one out")}
	}
	x.by, err = x.wrappingKey(by)
	return err
}

// An exporting writes the objects of a token into files.
type exporting struct {
	t      tree
	token  string
	dir    string
	by     string        // the key of the token that wraps
	phrase *secret.Bytes // or nil

	own string        // the key for this session alone that wraps, of a phrase
	key *secret.Bytes // its value
}

// wrappingKey is the name in objects of a key.
func (x *exporting) wrappingKey(name string) (string, error) {
	found, err := x.t.named(x.token, strings.TrimPrefix(name, x.token+"/"), []string{".sec", ".pub"})
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", fmt.Errorf("%s has no key %s that may be seen: p11fs login %[1]s shows the private ones", x.token, name)
	}
	return found[0], tree{filepath.Join(x.t.dir, x.token)}.meant(found[0], name)
}

// all writes all objects, and reports each of them.
func (x *exporting) all(ctx context.Context, s streams, report *importReport) error {
	entries, err := os.ReadDir(filepath.Join(x.t.dir, x.token, "objects"))
	if err != nil {
		return err
	}
	bar := startCount(s)
	defer bar.stop()
	for n, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		file, err := x.one(e.Name())
		if isFatal(err) {
			return err
		}
		outcome := outcomeWrote
		if err != nil {
			file, outcome = "", outcomeLeft
		}
		report.add(foreign.Object{Place: filepath.Join(x.token, e.Name())}, outcome, file, whyOf(err))
		bar.reached(n+1, len(entries))
	}
	return nil
}

// whyOf is an error without the command that it is of.
func whyOf(err error) error {
	var refused *treeError
	if errors.As(err, &refused) && refused.why != "" {
		return errors.New(refused.why)
	}
	return err
}

// one writes an object, and returns the file's name.
func (x *exporting) one(name string) (file string, err error) {
	file, content, err := x.form(name)
	if err != nil {
		return "", err
	}
	// Before the pass phrase's key is made, which takes a second each.
	if path := filepath.Join(x.dir, file); exists(path) {
		return "", fmt.Errorf("%s is there: move it away, or name another directory", path)
	}
	b, err := content()
	defer func() { secret.Wipe(b) }()
	if err != nil {
		return "", err
	}
	return file, x.write(file, b)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// form is the file that an object goes into, and what makes its content.
func (x *exporting) form(name string) (file string, content func() ([]byte, error), err error) {
	base, kind := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	switch {
	case kind == ".crt":
		return name, func() ([]byte, error) { return x.read(name, "cert.pem") }, nil
	case kind == ".pub":
		return base + ".pub.pem", func() ([]byte, error) { return x.read(name, "public.pem") }, nil
	case kind == ".dat" && !x.private(name):
		return name, func() ([]byte, error) { return x.read(name, "value") }, nil
	case kind == ".dat" && x.phrase == nil:
		return "", nil, errors.New("private data is no key that can be wrapped: take a pass phrase")
	case kind == ".dat":
		return name + ".age", func() ([]byte, error) { return x.sealed(x.read(name, "value")) }, nil
	case kind != ".key" && kind != ".sec":
		return "", nil, errors.New("it has no form outside of a token: p11fs backup keeps it")
	case x.by != "":
		return name + ".wrapped", func() ([]byte, error) { return x.wrap(x.by, name) }, nil
	case kind == ".sec":
		return name + ".age", func() ([]byte, error) { return x.sealed(x.plain(name)) }, nil
	}
	return base + ".key.pem", func() ([]byte, error) {
		plain, err := x.plain(name)
		if err != nil {
			return nil, err
		}
		defer secret.Wipe(plain)
		return pkix.SealPKCS8(plain, x.phrase)
	}, nil
}

// read reads a file of an object.
func (x *exporting) read(elem ...string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(append([]string{x.t.dir, x.token, "objects"}, elem...)...))
	if err != nil {
		return nil, x.t.refused(elem[0], x.token, err)
	}
	return b, nil
}

func (x *exporting) private(name string) bool {
	b, err := x.read(name, "attr", "private")
	return err != nil || strings.TrimSpace(string(b)) != "false"
}

// leaves says why the token does not let a key out.
func (x *exporting) leaves(name string) error {
	if err := x.begin(); err != nil {
		return err
	}
	_, err := x.wrap(x.own, name)
	return err
}

// plain is a key in the clear, which came wrapped. The caller wipes it.
func (x *exporting) plain(name string) (plain []byte, err error) {
	if err := x.begin(); err != nil {
		return nil, err
	}
	wrapped, err := x.wrap(x.own, name)
	if err != nil {
		return nil, err
	}
	x.key.Use(func(key []byte) {
		c, bad := aes.NewCipher(key)
		if err = bad; err == nil {
			plain, err = keywrap.UnwrapPadded(c, keywrap.PaddedIV, wrapped)
		}
	})
	return plain, err
}

// wrap wraps a key under one of the token.
func (x *exporting) wrap(by, name string) ([]byte, error) {
	out, err := x.t.exchange(name, x.token, filepath.Join("objects", by, "wrap"), os.O_RDWR, []byte(name+"\n"))
	return []byte(out), err
}

// begin makes a key that wraps, for the session of this terminal.
func (x *exporting) begin() error {
	if x.own != "" {
		return nil
	}
	random := make([]byte, 32+8)
	_, _ = rand.Read(random) // which does not fail
	key, label := random[:32], random[32:]
	text := fmt.Appendf(make([]byte, 0, 256), "class=secret-key key-type=aes token=false private=true sensitive=true extractable=false wrap=true label=p11fs-export-%x value=0x", label)
	text = append(hex.AppendEncode(text, key), '\n')
	defer secret.Wipe(text)
	answer, err := x.t.exchange("a key that wraps", x.token, "import:template", os.O_RDWR, text)
	if err != nil {
		secret.Wipe(random)
		return err
	}
	x.own = strings.TrimSpace(answer)
	x.key, err = secret.New(key)
	return err
}

// close destroys that key.
func (x *exporting) close() error {
	if x.own == "" {
		return nil
	}
	_ = x.key.Close()
	return os.Remove(filepath.Join(x.t.dir, x.token, "objects", x.own))
}

// sealed is what there is, encrypted under the pass phrase. It wipes what there is.
func (x *exporting) sealed(plain []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(plain)
	var who *age.ScryptRecipient
	x.phrase.Use(func(b []byte) { who, err = age.NewScryptRecipient(string(b)) })
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, who)
	if err == nil {
		if _, err = w.Write(plain); err == nil {
			err = w.Close()
		}
	}
	return out.Bytes(), err
}

// write writes a file that is not there.
func (x *exporting) write(name string, content []byte) error {
	out, err := createPrivate(filepath.Join(x.dir, name), false)
	if err != nil {
		return err
	}
	defer out.discard()
	if _, err := out.Write(content); err != nil {
		return err
	}
	return out.commit()
}

// printExport prints the report of an export.
func (r *importReport) printExport(s streams, asJSON bool) error {
	if asJSON {
		return r.printJSON(s)
	}
	for _, l := range r.Objects {
		if l.Why != "" {
			fmt.Fprintf(s.out, "left   %s: %s\n", l.Place, printableLine(l.Why))
		} else {
			fmt.Fprintf(s.out, "wrote  %s\n", l.Name)
		}
	}
	fmt.Fprintf(s.out, "%d objects were written, %d were left\n", r.Wrote, r.Left)
	return nil
}
