package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p11fs/tokens/swtok"
)

// keyText is how a command's help says what KEY is.
const keyText = `

KEY is TOKEN/NAME, as in TOKEN/objects, with or without the suffix; NAME alone, if
one token has it; a path that begins with "/" or "."; or a URI (RFC 7512).`

// newData makes the commands that send standard input through a data file of the
// tree.
func newData(s streams) []*cobra.Command {
	encrypt := newThrough(s, "encrypt", []string{".sec", ".pub"}, &cobra.Command{
		Use: "encrypt KEY", Short: "Encrypt standard input to standard output",
		Long: `Encrypt standard input to standard output. An AES key encrypts a stream, of any
length (CKM_P11FS_STREAM); any other as its file encrypt does.` + keyText,
		Example: `  tar cz /home | p11fs encrypt swtok/backup > home.tgz.enc`,
	})
	decrypt := newThrough(s, "decrypt", []string{".sec", ".key"}, &cobra.Command{
		Use: "decrypt KEY", Short: "Decrypt standard input to standard output",
		Long: `Decrypt standard input to standard output. An AES key decrypts a stream
(CKM_P11FS_STREAM); any other as its file decrypt does.

What comes out of a stream is authentic, but only the exit status says whether it is
all of it: with --output there is no file unless it is.` + keyText,
		Example: `  p11fs decrypt swtok/backup < home.tgz.enc | tar xz`,
	})
	sign := newThrough(s, "sign", []string{".key", ".sec"}, &cobra.Command{
		Use: "sign KEY", Short: "Sign standard input, and write the signature to standard output",
		Long:    "Sign standard input, and write the signature to standard output." + keyText,
		Example: `  p11fs sign swtok/web < msg > msg.sig`,
	})
	verify := newThrough(s, "verify", []string{".pub", ".sec"}, &cobra.Command{
		Use: "verify KEY SIGNATURE", Short: "Check the signature of standard input that is in a file",
		Long: `Check the signature of standard input that is in the file SIGNATURE. The exit
status is 0 if it fits, else 1.` + keyText,
		Example: `  p11fs verify swtok/web msg.sig < msg`,
	})
	digest := newThrough(s, "digest", nil, &cobra.Command{
		Use: "digest [TOKEN]", Short: "Write the digest of standard input, as bytes, to standard output",
		Long: `Write the digest of standard input, as bytes, to standard output. It is SHA-256
unless --mechanism names another of those in TOKEN/digest. TOKEN may be left out
where there is one only.`,
		Example: `  p11fs digest --mechanism sha512 < msg | xxd -p`,
	})
	return []*cobra.Command{encrypt, decrypt, sign, verify, digest}
}

// newThrough makes c a command that does the operation with a key, whose name may do
// without one of suffixes; the first that there is counts.
func newThrough(s streams, operation string, suffixes []string, c *cobra.Command) *cobra.Command {
	mount := mountFlag(c)
	mechanism := c.Flags().String("mechanism", "", "the `MECHANISM`, with its parameters, as in the name of a file: sha256-rsa-pkcs-pss,salt=20; with \"\" the file without one")
	output := new(string)
	c.Args = takes(1, 1)
	if operation == "verify" {
		c.Args = takes(2, 2)
	} else {
		output = c.Flags().StringP("output", "o", "", "write to this `FILE`, which is there only when all is well")
	}
	c.ValidArgsFunction = completeKeys(mount, suffixes)
	if operation == "digest" {
		c.Args, c.ValidArgsFunction = takes(0, 1), completeTokens(mount)
	}
	completeFlag(c, "mechanism", completeMechanisms(mount, operation, suffixes))
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if operation != "decrypt" && operation != "verify" && *output == "" && isTerminal(s.out) {
			return &usageError{err: errors.New("what comes out is no text, and standard output is a terminal: name a file with --output, which may be /dev/stdout, or send it to another program, as xxd -p")}
		}
		var at tree
		var file string
		if operation == "digest" {
			at, file, err = digestFile(*mount, args, *mechanism)
		} else {
			at, file, err = keyFile(*mount, args[0], operation, suffixes, *mechanism, c.Flags().Changed("mechanism"))
		}
		if err != nil {
			return err
		}
		in := io.Reader(s.in)
		if operation == "verify" {
			signature, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer signature.Close()
			in = io.MultiReader(signature, s.in)
		}
		out, err := createOutput(*output, s.out, 0o666)
		if err != nil {
			return err
		}
		defer out.discard()
		bar := startProgress(s, *output != "")
		defer bar.stop()
		_, err = interruptible(c.Context(), 0, func() (struct{}, error) {
			return struct{}{}, through(at, strings.Join(append([]string{operation}, args...), " "), operation, file, bar.counting(in), out)
		})
		if err != nil {
			return err
		}
		return out.commit()
	}
	return c
}

// completeFlag has the shell complete an option's value.
func completeFlag(c *cobra.Command, name string, complete cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic("p11fs: " + err.Error()) // there is no such option
	}
}

// completeMechanisms offers the mechanisms by which the key, if it is named already, does
// the operation.
func completeMechanisms(mount *string, operation string, suffixes []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		if operation == "digest" {
			if t, token, err := tokenOf(*mount, args); err == nil {
				entries, _ := os.ReadDir(filepath.Join(t.dir, token, "digest"))
				for _, e := range entries {
					names = append(names, e.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
		if len(args) > 0 {
			if at, key, err := findKey(*mount, args[0], suffixes); err == nil {
				can, _ := at.read(key, "mechanisms")
				for line := range strings.Lines(can) {
					if words := strings.Fields(line); words[0] == operation {
						names = append(names, words[1])
					}
				}
				return names, cobra.ShellCompDirectiveNoFileComp
			}
		}
		for _, m := range swtok.Mechanisms() {
			if slices.Contains(m.Uses(), operation) {
				names = append(names, m.Type.Short())
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// digestFile is the file of a digest, and the folder whose file error is about it.
func digestFile(mount string, args []string, mechanism string) (at tree, file string, err error) {
	t, token, err := tokenOf(mount, args)
	if mechanism == "" {
		mechanism = "sha256"
	}
	return tree{filepath.Join(t.dir, token)}, filepath.Join("digest", fileName(mechanism)), err
}

// fileName is a mechanism in the name of a file.
func fileName(mechanism string) string { return strings.ReplaceAll(mechanism, "/", `\x2f`) }

// keyFile is the file of a key, likewise. Without a mechanism an AES key has streams.
func keyFile(mount, key, operation string, suffixes []string, mechanism string, given bool) (at tree, file string, err error) {
	at, key, err = findKey(mount, key, suffixes)
	if err != nil {
		return at, "", err
	}
	if !given {
		can, _ := at.read(key, "mechanisms")
		if strings.Contains("\n"+can, "\n"+operation+" p11fs-stream\n") {
			mechanism = "stream"
		}
	}
	if file = filepath.Join(key, operation); mechanism != "" {
		file += ":" + fileName(mechanism)
	}
	return at, file, nil
}

// through sends in through a data file, and what it gives to out. what is the command,
// for errors.
func through(at tree, what, operation, file string, in io.Reader, out io.Writer) error {
	// With O_CREAT the tree says why there is no such file, as it does to a shell.
	f, err := os.OpenFile(filepath.Join(at.dir, file), os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	given := false
	if err == nil {
		defer f.Close()
		given, err = pump(f, in, out)
	}
	var failed *os.PathError
	if !errors.As(err, &failed) || failed.Path != filepath.Join(at.dir, file) {
		return err
	}
	err = at.refused(what, "", err)
	if operation == "decrypt" && given {
		err = fmt.Errorf("%w (what was decrypted until then is not all)", err)
	}
	return err
}
