package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// maxFileName is the longest name that the kernel lets a file have.
const maxFileName = 255

// maxKeyBytes bounds what a key is made of: a wrapped key, a ciphertext, or a public key.
const maxKeyBytes = 64 << 10

// attributesText is how a command's help says what attributes are.
const attributesText = `

Attributes are NAME=VALUE, such as label=web, id=0x01 or extractable=true; with NAME:=VALUE
the value is all that stands there. Several values of one, as of allowed-mechanisms, are
joined by +.`

// newKeys makes the commands that have one key make another, or take it elsewhere.
func newKeys(s streams) []*cobra.Command {
	unwrap := newMaker(s, "unwrap", []string{".sec", ".key"}, &cobra.Command{
		Use: "unwrap KEY [ATTRIBUTE=VALUE...]", Short: "Make a key of a wrapped one, and print its name",
		Long: `Make a key of the wrapped one on standard input, and print its name. It is an AES key,
unless the attributes say otherwise: key-type=generic-secret, or class=private-key and
key-type=rsa.` + attributesText + keyText,
		Example: `  p11fs unwrap swtok/carrier label=back < cargo.wrapped`,
	})
	decapsulate := newMaker(s, "decapsulate", []string{".key"}, &cobra.Command{
		Use: "decapsulate KEY [ATTRIBUTE=VALUE...]", Short: "Make the key that a ciphertext of encapsulate tells, and print its name",
		Long: `Make the key that the ciphertext on standard input tells the owner of a private key, and
print its name. It is an AES key of 32 bytes, unless the attributes say otherwise.` + attributesText + keyText,
		Example: `  p11fs decapsulate swtok/capsule label=heard < told.ct`,
	})
	return []*cobra.Command{newWrap(s), unwrap, newDerive(s), newEncapsulate(s), decapsulate}
}

// newMaker makes c a command that gives standard input to a key, which makes another of it.
func newMaker(s streams, operation string, suffixes []string, c *cobra.Command) *cobra.Command {
	c.Args = takes(1, math.MaxInt)
	return onKey(c, operation, suffixes, func(_ *cobra.Command, at tree, key, mechanism string, args []string) error {
		in, err := readBounded(s.in)
		if err != nil {
			return err
		}
		file, err := makerFile(key, operation, mechanism, args[1:])
		if err != nil {
			return err
		}
		return at.make(s, operation+" "+args[0], file, in)
	})
}

// onKey makes c a command that acts with the key that its first argument names, by a
// mechanism, which may be empty.
func onKey(c *cobra.Command, operation string, suffixes []string, act func(c *cobra.Command, at tree, key, mechanism string, args []string) error) *cobra.Command {
	mount := mountFlag(c)
	mechanism := c.Flags().String("mechanism", "", "the `MECHANISM`, with its parameters, as in the name of a file: ecdh1-derive,kdf=sha256-kdf")
	keys := completeKeys(mount, suffixes)
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return attributeWords(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		return keys(c, args, word)
	}
	completeFlag(c, "mechanism", completeMechanisms(mount, operation, suffixes))
	c.RunE = func(c *cobra.Command, args []string) error {
		at, key, err := findKey(*mount, args[0], suffixes)
		if err != nil {
			return err
		}
		return act(c, at, key, *mechanism, args)
	}
	return c
}

// attributeWords are those that are given most to a key that is made.
func attributeWords() []cobra.Completion {
	return []cobra.Completion{"label=", "id=", "token=", "private=", "sensitive=", "extractable=", "always-authenticate=", "allowed-mechanisms="}
}

// makerFile is the name of a key's file that makes another key with these attributes.
func makerFile(key, operation, mechanism string, attributes []string) (string, error) {
	words := []string{mechanism}
	for _, w := range attributes {
		name, value, ok := strings.Cut(w, "=")
		name, all := strings.CutSuffix(name, ":")
		if !ok || name == "" || strings.ContainsAny(name, ", /\t\r\n") {
			return "", &usageError{err: fmt.Errorf("%q is no ATTRIBUTE=VALUE: write it as in label=web", w)}
		}
		if all || strings.ContainsAny(value, ", /\t\r\n") && !strings.ContainsAny(value[:1], `"'{`) {
			value = inQuotes(value)
		}
		words = append(words, name+"="+value)
	}
	file := operation
	if mechanism != "" || len(attributes) > 0 {
		file += ":" + fileName(strings.Join(words, ","))
	}
	if len(file) > maxFileName {
		return "", fmt.Errorf("mechanism and attributes are %d bytes of a file's name, which has %d at most: give fewer, and the others with p11fs set", len(file), maxFileName)
	}
	return filepath.Join(key, file), nil
}

// make writes in to a file that makes objects, and prints their names.
func (t tree) make(s streams, what, file string, in []byte) error {
	names, err := t.exchange(what, "", file, os.O_RDWR|os.O_CREATE, in)
	if err == nil {
		t.printNames(s, names)
	}
	return err
}

// readBounded reads what a key is made of.
func readBounded(in io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxKeyBytes+1))
	if err == nil && len(b) > maxKeyBytes {
		err = fmt.Errorf("there are more than %d bytes, which no key is made of: look what comes in", maxKeyBytes)
	}
	if err == nil && len(b) == 0 {
		err = errors.New("standard input is empty: send what the key is to be made of")
	}
	return b, err
}

func newWrap(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "wrap KEY OTHER", Short: "Encrypt a key under another one, to take it elsewhere",
		Long: `Encrypt the key OTHER, which must be extractable, under KEY of the same token, and write
what comes out to standard output. unwrap makes the key of it again, where KEY or the
other key of its pair is.` + keyText,
		Example: `  p11fs wrap swtok/carrier cargo > cargo.wrapped`,
		Args:    takes(2, 2),
	}
	output := c.Flags().StringP("output", "o", "", "write to this `FILE`, which is there only when all is well")
	onKey(c, "wrap", []string{".sec", ".pub"}, func(_ *cobra.Command, at tree, key, mechanism string, args []string) error {
		if *output == "" && isTerminal(s.out) {
			return &usageError{err: errors.New("a wrapped key is no text, and standard output is a terminal: name a file with --output, or send it to another program")}
		}
		other, err := at.beside(args[1])
		if err != nil {
			return err
		}
		file, err := makerFile(key, "wrap", mechanism, nil)
		if err != nil {
			return err
		}
		wrapped, err := at.exchange("wrap "+args[1], "", file, os.O_RDWR|os.O_CREATE, []byte(other+"\n"))
		if err != nil {
			return err
		}
		return writeOutput(s, *output, []byte(wrapped))
	})
	both := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 1 {
			mount := c.Flag("mount").Value.String()
			return completeKeys(&mount, []string{".sec", ".key"})(c, nil, word)
		}
		return both(c, args, word)
	}
	return c
}

// beside is the name in objects of a key of the token whose folder t is.
func (t tree) beside(name string) (string, error) {
	whole := tree{filepath.Dir(t.dir)}
	token := filepath.Base(t.dir)
	found, err := whole.named(token, strings.TrimPrefix(name, token+"/"), []string{".sec", ".key"})
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", fmt.Errorf("%s has no key %s that may be seen: both keys are of one token, and p11fs login %[1]s shows the private ones", token, name)
	}
	return found[0], nil
}

// writeOutput writes b to the file, or to standard output without one.
func writeOutput(s streams, file string, b []byte) error {
	out, err := createOutput(file, s.out, 0o666)
	if err != nil {
		return err
	}
	defer out.discard()
	if _, err := out.Write(b); err != nil {
		return err
	}
	return out.commit()
}

func newDerive(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "derive KEY [ATTRIBUTE=VALUE...]", Short: "Derive a key from another one, and print its name",
		Long: `Derive a key, and print its name. Of a key that agrees (EC, X25519, X448, Diffie-Hellman)
--peer is the file with the other side's public key, in PEM, DER or as bare bytes, and "-"
standard input; --other names the other key of concatenate-base-and-key and its like. What
comes is an AES key of 32 bytes, unless the attributes say otherwise.` + attributesText + keyText,
		Example: `  p11fs derive swtok/mine --peer theirs.pem --mechanism ecdh1-derive,kdf=sha256-kdf label=session
  p11fs derive swtok/root --mechanism hkdf-derive,hash=sha256,info=0x6d61696c label=mail`,
		Args: takes(1, math.MaxInt),
	}
	peer := c.Flags().String("peer", "", "the `FILE` with the other side's public key")
	other := c.Flags().String("other", "", "the other `KEY`, of the same token")
	return onKey(c, "derive", []string{".key", ".sec"}, func(_ *cobra.Command, at tree, key, mechanism string, args []string) error {
		if *peer != "" && *other != "" {
			return &usageError{err: errors.New("a derivation has the public key of another side or another key: leave one of --peer and --other out")}
		}
		in := []byte("\n")
		switch {
		case *other != "":
			name, err := at.beside(*other)
			if err != nil {
				return err
			}
			in = []byte(name + "\n")
		case *peer != "":
			f := s.in
			if *peer != "-" {
				var err error
				if f, err = os.Open(*peer); err != nil {
					return err
				}
				defer f.Close()
			}
			var err error
			if in, err = readBounded(f); err != nil {
				return fmt.Errorf("%s: %w", *peer, err)
			}
		}
		file, err := makerFile(key, "derive", mechanism, args[1:])
		if err != nil {
			return err
		}
		return at.make(s, "derive "+args[0], file, in)
	})
}

func newEncapsulate(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "encapsulate KEY [ATTRIBUTE=VALUE...]", Short: "Make a key, and write the ciphertext that tells it to the owner of a public key",
		Long: `Make a key, which has the attributes, and write the ciphertext that tells it to the owner
of the public key KEY to standard output. decapsulate makes the same key of it. It is an AES
key of 32 bytes, unless the attributes say otherwise.` + attributesText + keyText,
		Example: `  p11fs encapsulate swtok/capsule label=told > told.ct`,
		Args:    takes(1, math.MaxInt),
	}
	output := c.Flags().StringP("output", "o", "", "write to this `FILE`, which is there only when all is well")
	return onKey(c, "encapsulate", []string{".pub"}, func(_ *cobra.Command, at tree, key, mechanism string, args []string) error {
		if *output == "" && isTerminal(s.out) {
			return &usageError{err: errors.New("a ciphertext is no text, and standard output is a terminal: name a file with --output, or send it to another program")}
		}
		if len(args) == 1 {
			return &usageError{err: errors.New("the key that is made has no name yet: add label=NAME")}
		}
		file, err := makerFile(key, "encapsulate", mechanism, nil)
		if err != nil {
			return err
		}
		words := make([]string, len(args)-1)
		for i, w := range args[1:] {
			words[i] = quoteWord(w)
		}
		ciphertext, err := at.exchange("encapsulate "+args[0], "", file, os.O_RDWR|os.O_CREATE, []byte(strings.Join(words, " ")+"\n"))
		if err != nil {
			return err
		}
		return writeOutput(s, *output, []byte(ciphertext))
	})
}
