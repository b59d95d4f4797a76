package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
)

// maxWork bounds what a file may ask for to try a pass phrase: 2^20 rounds of scrypt, in
// 1 GiB of memory. Backups are made with 2^18.
const maxWork = 20

// scryptHead is how a file of age for a pass phrase begins.
const scryptHead = ageHead + "\n-> scrypt "

const ageHead = "age-encryption.org/v1"

func newBackup(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "backup TOKEN FILE",
		Short: "Write a token into one encrypted file",
		Long: `Write a token into one file, encrypted by age (age-encryption.org): under a pass
phrase, which is asked for twice, or is the first line of standard input if that is
no terminal; or for each --recipient. A daemon may serve the token meanwhile: the
file has it as it is at one moment. It is read back before it has its name. A pass
phrase takes 256 MiB of memory, here as with age itself, to be slow to guess; where
that is too much, --recipient takes next to none.

The file opens without p11fs too: age -d FILE | tar x gives the token's directory, in
which the PINs still protect what is private.`,
		Example: `  p11fs backup swtok swtok.backup
  p11fs backup swtok swtok.backup --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: takes(2, 2),
	}
	to := c.Flags().StringArrayP("recipient", "r", nil, "encrypt for this public `KEY` of age instead; may be given again")
	toFile := c.Flags().String("recipients-file", "", "encrypt for the public keys in this `FILE`, one a line")
	phraseFile := c.Flags().String("passphrase-file", "", "read the pass phrase from the first line of this `FILE`")
	force := c.Flags().Bool("force", false, "write over a FILE that is there")
	onDirectory(s, c, func(c *cobra.Command, open func(string, bool) (*mountd.Upkeep, error), args []string) (err error) {
		path := args[1]
		if path == "" {
			return &usageError{err: errors.New("the file has no name: name one")}
		}
		if st, err := os.Lstat(path); err == nil && (!*force || !st.Mode().IsRegular()) {
			return &usageError{err: fmt.Errorf("%s is there: name another file, or add --force to write over a regular one", path)}
		}
		u, err := open(args[0], false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, u.Close()) }()
		if state, err := u.State(); err == nil && !state.Present {
			return fmt.Errorf("%s has no token yet: p11fs mount makes it", args[0])
		}
		if err := u.Slot.Kind.NoBackup; err != nil { // nobody types a pass phrase to be told that
			return fmt.Errorf("%s is not written: %w", path, err)
		}
		who, phrase, err := recipients(c.Context(), s, *to, *toFile, *phraseFile)
		if err != nil {
			return err
		}
		defer phrase.Close()
		return writeBackup(c.Context(), s, u, path, *force, who, phrase)
	})
	return completeFile(c, 1)
}

// recipients are those that a backup is encrypted for: of a pass phrase, if no other is
// named.
func recipients(ctx context.Context, s streams, to []string, toFile, phraseFile string) (who []age.Recipient, phrase *secret.Bytes, err error) {
	text := strings.Join(to, "\n")
	if toFile != "" {
		b, err := os.ReadFile(toFile)
		if err != nil {
			return nil, nil, err
		}
		text += "\n" + string(b)
	}
	if strings.TrimSpace(text) != "" {
		if phraseFile != "" {
			return nil, nil, &usageError{err: errors.New("a backup has a pass phrase or recipients: leave one out")}
		}
		if who, err = age.ParseRecipients(strings.NewReader(text)); err != nil {
			return nil, nil, &usageError{err: fmt.Errorf("a recipient is no public key of age, which begins with age1: %w", err)}
		}
		return who, nil, nil
	}
	if phrase, err = getPIN(ctx, newAsker(s), phraseFile, "pass phrase", true); err != nil {
		return nil, nil, err
	}
	phrase.Use(func(b []byte) {
		var r *age.ScryptRecipient
		r, err = age.NewScryptRecipient(string(b))
		who = []age.Recipient{r}
	})
	return who, phrase, err
}

// writeBackup writes the file, and reads it back before it has its name.
func writeBackup(ctx context.Context, s streams, u *mountd.Upkeep, path string, force bool, who []age.Recipient, phrase *secret.Bytes) error {
	out, err := createPrivate(path, force)
	if err != nil {
		return err
	}
	defer out.discard()
	written := sha256.New()
	sealed, err := age.Encrypt(io.MultiWriter(out, written), who...)
	if err != nil {
		return err
	}
	bar := startCount(s)
	err = u.Backup(ctx, sealed, bar.reached)
	bar.stop()
	if err == nil {
		err = sealed.Close()
	}
	if err == nil {
		err = out.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s is not written: %w", path, err)
	}
	debug.FreeOSMemory() // 256 MiB of scrypt, before the next
	if err := readBack(out.file.Name(), written.Sum(nil), phrase); err != nil {
		return fmt.Errorf("%s is not what was written, and is removed: %w", path, err)
	}
	return out.commit()
}

// readBack checks that a file is what was written, and with its pass phrase that it opens.
func readBack(path string, sum []byte, phrase *secret.Bytes) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return errors.New("it has other bytes: the disk is failing, or somebody else wrote to it")
	}
	if phrase == nil {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	opened, err := age.Decrypt(f, phraseIdentity(phrase))
	if err != nil {
		return err
	}
	return store.ReadBackup(opened, func(string, []byte, time.Time) error { return nil })
}

// A phraseOpener is the identity of a pass phrase.
type phraseOpener struct{ phrase *secret.Bytes }

func phraseIdentity(phrase *secret.Bytes) age.Identity { return phraseOpener{phrase} }

// Unwrap is age.Identity.
func (p phraseOpener) Unwrap(stanzas []*age.Stanza) (key []byte, err error) {
	p.phrase.Use(func(b []byte) {
		var id *age.ScryptIdentity
		if id, err = age.NewScryptIdentity(string(b)); err == nil {
			id.SetMaxWorkFactor(maxWork)
			key, err = id.Unwrap(stanzas)
		}
	})
	return key, err
}

func newRestore(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "restore FILE [TOKEN]",
		Short: "Bring a token back from a backup",
		Long: `Bring a token back from a file of p11fs backup, under its old name unless TOKEN is
given. The pass phrase is asked for, or is the first line of standard input if that
is no terminal; a file for recipients wants --identity.

An initialised token stays as it is unless --force is given, which asks; what is
replaced then stays beside the new one, as .TOKEN.replaced. A daemon may serve your
own token meanwhile; all its logins end then. A token that was not there is served
once the daemon starts anew. Where opencryptoki.conf says the format, the daemon must
be stopped, and the token must have that format.`,
		Example: `  p11fs restore swtok.backup
  p11fs restore swtok.backup another --identity key.txt`,
		Args: takes(1, 2),
	}
	identity := c.Flags().StringP("identity", "i", "", "open the file with a secret key of age in this `FILE`")
	phraseFile := c.Flags().String("passphrase-file", "", "read the pass phrase from the first line of this `FILE`")
	force := c.Flags().Bool("force", false, "replace an initialised token")
	yes := c.Flags().BoolP("yes", "y", false, "do not ask whether it may be replaced")
	onDirectory(s, c, func(c *cobra.Command, open func(string, bool) (*mountd.Upkeep, error), args []string) (err error) {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		var u *mountd.Upkeep
		defer func() {
			if u != nil {
				err = errors.Join(err, u.Close())
			}
		}()
		into := func(token string) (err error) {
			if u, err = open(token, true); err != nil {
				return err
			}
			if state, err := u.State(); err == nil && state.Initialized && !*force {
				return staysAsItIs(token)
			}
			return nil
		}
		token := ""
		if len(args) > 1 { // nobody types a pass phrase to be told that
			token = args[1]
			if err := into(token); err != nil {
				return err
			}
		}
		plain, err := openBackup(c.Context(), s, f, *identity, *phraseFile)
		if err != nil {
			return err
		}
		was, plain, err := store.BackupOf(plain)
		if err != nil {
			return err
		}
		if u == nil {
			token = was
			if err := into(token); err != nil {
				return err
			}
		}
		if err := u.Exchange(c.Context()); err != nil {
			return err
		}
		if *force && !*yes {
			if err := mayReplace(c.Context(), s, u, token); err != nil {
				return err
			}
		}
		err = u.Restore(c.Context(), plain, *force, u.Unshare)
		if errors.Is(err, tokens.ErrInitialized) {
			return staysAsItIs(token) // which it was not a moment ago
		}
		if err != nil {
			return fmt.Errorf("%s is not restored: %w", token, err)
		}
		state, err := u.State()
		if err == nil && state.Replaced != "" {
			fmt.Fprintf(s.out, "What %s was is in %s: remove it when it is not wanted any more.\n", token, state.Replaced)
		}
		if t, treeErr := findTree("", os.Getenv); treeErr == nil && t.token(token) != nil {
			fmt.Fprintf(s.err, "p11fs: %s serves %s once p11fs mount starts anew, or after p11fs token new --adopt %[2]s\n", t.dir, token)
		}
		return err
	})
	return completeFile(c, 0)
}

// staysAsItIs is the error of a token that would be lost.
func staysAsItIs(token string) error {
	return &usageError{err: fmt.Errorf("%s is an initialised token, and stays as it is: name another, or add --force to replace it", token)}
}

// mayReplace asks whether a token that is in use may be replaced.
func mayReplace(ctx context.Context, s streams, u *mountd.Upkeep, token string) error {
	state, err := u.State()
	if err == nil && !state.Initialized {
		return nil
	}
	ask := newAsker(s)
	if !ask.terminal {
		return &usageError{err: fmt.Errorf("%s may be in use: add --yes if it is to be replaced", token)}
	}
	answer, err := ask.text(ctx, "It may be in use. Type "+token+" to replace it")
	if err == nil && answer != token {
		err = errors.New("that was not its name: nothing was changed")
	}
	return err
}

// errPhrase is the error of a pass phrase or an identity that does not open a backup.
var errPhrase = errors.New("wrong pass phrase or identity")

// openBackup returns what is in an encrypted file.
func openBackup(ctx context.Context, s streams, f *os.File, identity, phraseFile string) (io.Reader, error) {
	in := bufio.NewReader(f)
	head, _ := in.Peek(len(scryptHead)) // a file that is shorter does not begin like one
	var ids []age.Identity
	switch {
	case !bytes.HasPrefix(head, []byte(ageHead+"\n")):
		return nil, fmt.Errorf("%s is no backup: it does not begin as a file of age does; name what p11fs backup wrote", f.Name())
	case identity != "":
		keys, err := os.Open(identity)
		if err != nil {
			return nil, err
		}
		defer keys.Close()
		if ids, err = age.ParseIdentities(keys); err != nil {
			return nil, fmt.Errorf("%s has no secret key of age, a line that begins with AGE-SECRET-KEY-: %w", identity, err)
		}
	case string(head) != scryptHead:
		return nil, &usageError{err: fmt.Errorf("%s was encrypted for recipients: name the file with the secret key of one, with --identity", f.Name())}
	default:
		phrase, err := getPIN(ctx, newAsker(s), phraseFile, "pass phrase", false)
		if err != nil {
			return nil, err
		}
		defer phrase.Close()
		ids = []age.Identity{phraseIdentity(phrase)}
	}
	plain, err := age.Decrypt(in, ids...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%s does not open: %w", f.Name(), errPhrase)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged or cut off: take another backup (%w)", f.Name(), err)
	}
	return plain, nil
}

// completeFile has c's argument at a place be a file.
func completeFile(c *cobra.Command, place int) *cobra.Command {
	token := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) == place:
			return nil, cobra.ShellCompDirectiveDefault
		case len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return token(c, nil, word)
	}
	return c
}
