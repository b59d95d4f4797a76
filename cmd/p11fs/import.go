package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/p11/pkix"
	"p11fs/secret"
)

func newImport(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "import [TOKEN] FILE...",
		Short: "Bring keys and certificates of files into a token, and print the names made",
		Long: `Bring keys and certificates into a token, and print the names made: PEM, DER, PKCS #8,
PKCS #12, keys of OpenSSH, and certificates. "-" is standard input. Of a file all objects are
made, or none; what is there already is named, behind #. TOKEN may be left out where there is
one only.

With --as aes or --as generic, or another type of secret key, the file has a key's bytes, as
they are. --label, --id and --attribute say what the objects are to have.

The pass phrase of an encrypted file is asked for, or is in --passphrase-file.` + attributesText,
		Example: `  p11fs import swtok web.pem --label web --id 0x01
  head -c 32 /dev/random | p11fs import --as aes --label disk -
  p11fs import swtok web.p12 --attribute extractable=true`,
		Args: takes(1, math.MaxInt),
	}
	mount := mountFlag(c)
	i := &fileImport{s: s}
	c.Flags().StringVar(&i.kind, "as", "", "the `KIND` of file: auto, pem, der, pkcs8, pkcs12, certificate, public-key, template, or a type of secret key, such as aes or generic")
	label := c.Flags().String("label", "", "the label of what is made")
	id := c.Flags().String("id", "", "the id of what is made, in hexadecimal: 0x01")
	attributes := c.Flags().StringArrayP("attribute", "a", nil, "an attribute of what is made, as `NAME=VALUE`; may be given several times")
	c.Flags().StringVar(&i.phraseFile, "passphrase-file", "", "read the pass phrase from the first line of this `FILE`")
	completeFlag(c, "as", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return append(strings.Split(pkix.KindNames(), ", "), "aes", "generic", "chacha20", "sha256-hmac", "hkdf"), cobra.ShellCompDirectiveNoFileComp
	})
	tokens := completeTokens(mount)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, _ := tokens(c, args, word)
		return names, cobra.ShellCompDirectiveDefault
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := findTree(*mount, os.Getenv)
		if err != nil {
			return err
		}
		var named []string
		if len(args) > 1 && slices.Contains(t.tokens(), args[0]) {
			named, args = args[:1], args[1:]
		}
		if _, err := os.Stat(args[0]); err != nil && len(args) == 1 && named == nil && slices.Contains(t.tokens(), args[0]) {
			return &usageError{err: fmt.Errorf("%s is a token, and FILE is missing: name the file behind it, or - for standard input", args[0]), usage: c.UseLine()}
		}
		if i.t, i.token, err = tokenIn(t, named); err != nil {
			return err
		}
		if *label != "" {
			i.words = append(i.words, "label:="+*label)
		}
		if *id != "" {
			i.words = append(i.words, "id="+*id)
		}
		i.words = append(i.words, *attributes...)
		for _, file := range args {
			if err := i.one(c.Context(), file); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

// A fileImport brings files into a token.
type fileImport struct {
	s          streams
	t          tree
	token      string
	kind       string
	words      []string // attributes
	phraseFile string

	ask *asker
}

// one brings one file.
func (i *fileImport) one(ctx context.Context, path string) error {
	file, err := makerFile(".", "import", i.kind, i.words)
	if err != nil {
		return err
	}
	in := i.s.in
	if path != "-" {
		if in, err = os.Open(path); err != nil {
			return err
		}
		defer in.Close()
	}
	content := make([]byte, pkix.MaxSize+1)
	defer func() { secret.Wipe(content) }()
	n, err := io.ReadFull(in, content)
	switch {
	case err == nil:
		return fmt.Errorf("import %s: the file has more than %d bytes: bring one object at a time", path, pkix.MaxSize)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case n == 0:
		return fmt.Errorf("import %s: there is nothing in it: name another file", path)
	}
	what := "import " + path
	names, err := i.write(ctx, what, file, content[:n], i.phraseFile != "")
	if errors.Is(err, syscall.EKEYREJECTED) && i.phraseFile == "" && path != "-" {
		names, err = i.write(ctx, what, file, content[:n], true)
	}
	tree{filepath.Join(i.t.dir, i.token)}.printNames(i.s, names)
	return err
}

// write gives the file to the tree, and before it its pass phrase.
func (i *fileImport) write(ctx context.Context, what, file string, content []byte, phrase bool) (string, error) {
	if phrase {
		if i.ask == nil {
			i.ask = newAsker(i.s)
		}
		pass, err := getPIN(ctx, i.ask, i.phraseFile, "pass phrase", false)
		if err != nil {
			return "", err
		}
		defer pass.Close()
		if err := i.t.command(what, i.token, "passphrase", joinSecret("", pass, "")); err != nil {
			return "", err
		}
	}
	return i.t.exchange(what, i.token, filepath.Clean(file), os.O_RDWR, content)
}
