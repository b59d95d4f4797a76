package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/secret"
)

// mountFlag adds --mount to a command that acts through the tree.
func mountFlag(c *cobra.Command) *string {
	return c.Flags().String("mount", "", "the mount point (default: $"+mountEnv+", or the one that is mounted)")
}

func newLogin(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "login [TOKEN]",
		Short: "Log in to a token",
		Long: `Log in to a token, for this terminal: everything that runs in the same POSIX
session is logged in with it, and nothing else. The PIN is asked for without
echo; if standard input is no terminal, it is its first line. TOKEN may be left
out where there is one only. Who is logged in already stays so, and no PIN is
read or looked at.`,
		Args: takes(0, 1),
	}
	so := c.Flags().Bool("so", false, "log in as the security officer")
	pinFile := c.Flags().String("pin-file", "", "read the PIN from the first line of this `FILE`")
	return onToken(c, func(c *cobra.Command, t tree, token string, _ []string) error {
		role, prompt := "user", "PIN"
		if *so {
			role, prompt = "so", "SO PIN"
		}
		if t.role(token) == role {
			fmt.Fprintf(s.err, "p11fs: this terminal is logged in to %s as %s already; no PIN was looked at\n", token, role)
			return nil
		}
		pin, err := getPIN(c.Context(), newAsker(s), *pinFile, prompt, false)
		if err != nil {
			return err
		}
		defer pin.Close()
		return t.login("login "+token, token, role, pin)
	})
}

func newLogout(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "logout [TOKEN]",
		Short: "Log this terminal out of a token",
		Long: `Log this terminal out of a token. TOKEN may be left out where there is one only.
Where nobody is logged in there is nothing to do, which is no failure.`,
		Args: takes(0, 1),
	}
	return onToken(c, func(_ *cobra.Command, t tree, token string, _ []string) error {
		if err := t.logout(token); err != nil && t.role(token) != "public" {
			return err
		}
		return nil
	})
}

func newInit(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "init TOKEN",
		Short: "Initialise a token: all its objects go, and it gets a label and a user PIN",
		Long: `Initialise a token and make it usable: C_InitToken with the SO PIN and the label,
then C_InitPIN with the user's PIN. Every object in the token is destroyed: where
there may be some, because the token has a user PIN or shows objects, it asks
first, and without a terminal wants --yes.

The SO PIN is the one that the token has; a token that was never initialised
has 87654321. What is not given by a flag is asked for; if standard input is no
terminal, it has one line each: SO PIN, label, user PIN. A PIN is as long as
TOKEN/info says: 4 to 1024 bytes, and 4 to 8 in the format of openCryptoki 3.8.

The SO PIN stays as it is: p11fs pin --so TOKEN changes it.

Where no daemon has the token, and its name is that of a kind (tpm, lite) or --device,
--protection or --cost is given, it is made first, as one of your own. With --uri that is
one whose keys are those of a token of ICSF on z/OS: the password of --binddn is asked for
first, and what is on the server stays. --list shows the tokens of that server instead, and
--new-password stores the server's new password for a token that is there.` + socketText,
		Example: `  p11fs init swtok
  p11fs init tpm --device unix:$HOME/swtpm/sock
  p11fs init icsf --uri ldaps://zos.example --binddn racfid=USER1,profiletype=user,cn=RACF
  p11fs init icsf --new-password
  printf '87654321\n1234abcd\n' | p11fs init swtok --label demo --yes`,
		Args: takes(1, 1),
	}
	first := initFlags(c)
	yes := c.Flags().BoolP("yes", "y", false, "do not ask whether the objects may be destroyed")
	maker := makerFlags(c, s)
	onDoor(c, maker.make, func(c *cobra.Command, d pinDoor, token string) error {
		made, _ := d.(*directoryDoor)
		if made == nil {
			if err := maker.unwanted(token); err != nil {
				return err
			}
		}
		ask := maker.ask()
		if ask.terminal {
			fmt.Fprintf(s.err, "Every object in %s goes.\n", token)
		}
		if !*yes && d.inUse(token) {
			if err := mayDestroy(c.Context(), ask, token); err != nil {
				return err
			}
		}
		if err := first.initialise(ask, d, token); err != nil || made == nil {
			return err
		}
		made.tell(s, token)
		return nil
	})
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if done, err := maker.server.instead(c, s, maker.ask, args[0], *first.pinFile); done {
			return err
		}
		return run(c, args)
	}
	return c
}

// An initialiser has what a token is initialised with.
type initialiser struct {
	c                      *cobra.Command
	label, soFile, pinFile *string
}

func initFlags(c *cobra.Command) initialiser {
	return initialiser{
		c:       c,
		label:   c.Flags().String("label", "", "the token's label, up to 32 bytes"),
		soFile:  c.Flags().String("so-pin-file", "", "read the SO PIN from the first line of this `FILE`"),
		pinFile: c.Flags().String("pin-file", "", "read the user's PIN from the first line of this `FILE`"),
	}
}

// initialise asks for what was not given, and initialises the token.
func (i initialiser) initialise(ask *asker, d pinDoor, token string) error {
	ctx := i.c.Context()
	prompt := "SO PIN (87654321 until it is changed)"
	if _, made := d.(*directoryDoor); made {
		prompt = "SO PIN (type 87654321, that of every new token; p11fs pin --so changes it later)"
	}
	soPIN, err := getPIN(ctx, ask, *i.soFile, prompt, false)
	if err != nil {
		return err
	}
	defer soPIN.Close()
	name := *i.label
	if !i.c.Flags().Changed("label") {
		if name, err = ask.text(ctx, "label"); err != nil {
			return err
		}
	}
	if strings.ContainsAny(name, "\n\x00") || strings.TrimSpace(name) == "" {
		return &usageError{err: errors.New("the label is not one line of text: write another")}
	}
	pin, err := getPIN(ctx, ask, *i.pinFile, "user PIN", true)
	if err != nil {
		return err
	}
	defer pin.Close()
	return initialise(d, token, soPIN, name, pin)
}

func newGenerate(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "generate [TOKEN] WHAT [ATTRIBUTE=VALUE...]",
		Short: "Generate a key or a key pair, and print the names made",
		Long: `Generate a key or a key pair in a token, as a line written to TOKEN/generate does,
and print the names of the objects made. TOKEN may be left out where there is one only.

WHAT is rsa:BITS, ec:CURVE (p256, p384, p521, secp256k1, brainpoolp256r1 and
others), ed25519, ed448, x25519, x448, dh:GROUP (ffdhe2048 and others),
dsa:BITS, aes:BITS, generic:BITS, another type of secret key (chacha20,
sha256-hmac:BITS), a parameter set of ML-DSA, SLH-DSA or ML-KEM (ml-dsa-65,
slh-dsa-sha2-128f, ml-kem-768, ibm-ml-kem-768) or a mechanism that makes keys. Attributes
are label, id, token, sign, extractable and all others that p11fs-tree(7) and PKCS#11
have. With NAME:=VALUE the value is all that stands there, whatever it is: "label:=$X"
takes quotes, blanks and commas too. Several values of one are joined by +, as in
allowed-mechanisms=sha256-rsa-pkcs+sha256-rsa-pkcs-pss.`,
		Example: `  p11fs generate swtok rsa:2048 label=web
  p11fs generate swtok ed25519 label=ssh id=0x01
  p11fs generate swtok aes:256 label=disk extractable=true`,
		Args: takes(1, math.MaxInt),
	}
	onToken(c, nil)
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := findTree(c.Flag("mount").Value.String(), os.Getenv)
		if err != nil {
			return err
		}
		var token string
		if named := len(args) > 1 && !strings.Contains(args[1], "="); named || slices.Contains(t.tokens(), args[0]) {
			t, token, err = tokenIn(t, args)
			args = args[1:]
		} else {
			t, token, err = tokenIn(t, nil)
		}
		if err != nil {
			return err
		}
		if len(args) == 0 {
			return &usageError{err: fmt.Errorf("%s: %s missing: write it as in %s", c.CommandPath(), missing(c, 0), exampleLine(c)), usage: c.UseLine()}
		}
		words := make([]string, len(args))
		for i, w := range args {
			words[i] = quoteWord(w)
		}
		answer, err := t.ask("generate "+token, token, "generate", []byte(strings.Join(words, " ")+"\n"))
		tree{filepath.Join(t.dir, token)}.printNames(s, answer)
		return err
	}
	first := c.ValidArgsFunction
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return first(c, args, word)
		case 1:
			return []cobra.Completion{"rsa:2048", "rsa:3072", "rsa:4096", "rsa:8192", "ec:p256", "ec:p384", "ec:p521", "ec:secp256k1", "ec:brainpoolp256r1", "ed25519", "ed448", "x25519", "x448", "dh:ffdhe2048", "dh:ffdhe3072", "dsa:2048", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87", "ml-kem-512", "ml-kem-768", "ml-kem-1024", "slh-dsa-sha2-128f", "slh-dsa-sha2-128s", "aes:128", "aes:256", "generic:256"},
				cobra.ShellCompDirectiveNoFileComp
		}
		return attributeWords(), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return c
}

// mayDestroy asks whether a token that is in use may be initialised.
func mayDestroy(ctx context.Context, ask *asker, token string) error {
	if !ask.terminal {
		return fmt.Errorf("%s is %w, and init destroys all that is in it, also what is not seen without a login: add --yes if you mean that", token, mountd.ErrBusy)
	}
	answer, err := ask.text(ctx, "It is in use. Type "+token+" to destroy all that is in it")
	if err == nil && answer != token {
		err = errors.New("that was not its name: nothing was changed")
	}
	return err
}

// quoteWord gives the value of a NAME=VALUE word the quotes that the shell took away, when
// it holds blanks; behind a mechanism, that of each of its parameters. A value that has
// quotes or braces stays as it is. That of NAME:=VALUE ends with the word, and so has quotes
// always.
func quoteWord(w string) string {
	key, value, ok := strings.Cut(w, "=")
	name, all := strings.CutSuffix(key, ":")
	switch {
	case ok && all && name != "" && !strings.ContainsAny(name, ", \t\r\n"):
		return name + "=" + inQuotes(value)
	case !ok || !strings.ContainsAny(value, " \t\r\n"): // which end a value
		return w
	case strings.Contains(key, ","):
		if strings.ContainsAny(value, `"'{`) {
			return w
		}
		params := strings.Split(w, ",")
		for i, p := range params {
			params[i] = quoteWord(p)
		}
		return strings.Join(params, ",")
	case strings.ContainsAny(value[:1], `"'{`):
		return w
	}
	return key + "=" + inQuotes(value)
}

// inQuotes is a value as a template takes it, whatever is in it.
func inQuotes(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

// onToken makes c a command that acts on the token that its first argument names.
func onToken(c *cobra.Command, act func(c *cobra.Command, t tree, token string, args []string) error) *cobra.Command {
	mount := mountFlag(c)
	c.ValidArgsFunction = completeTokens(mount)
	c.RunE = func(c *cobra.Command, args []string) error {
		t, token, err := tokenOf(*mount, args)
		if err != nil {
			return err
		}
		return act(c, t, token, args)
	}
	return c
}

// tokenOf finds the mount, and checks that it has the token, which may be left out if
// there is one only.
func tokenOf(mount string, args []string) (t tree, token string, err error) {
	if t, err = findTree(mount, os.Getenv); err != nil {
		return t, "", err
	}
	return tokenIn(t, args)
}

// tokenIn is tokenOf in a mount that was found.
func tokenIn(t tree, args []string) (_ tree, token string, err error) {
	if len(args) > 0 {
		return t, args[0], t.token(args[0])
	}
	switch all := t.tokens(); len(all) {
	case 0:
		return t, "", fmt.Errorf("%s has no token: p11fs status says why", t.dir)
	case 1:
		return t, all[0], nil
	default:
		return t, "", &usageError{err: fmt.Errorf("there are several tokens: name one of %s", strings.Join(all, ", "))}
	}
}

// getPIN reads a PIN from the file if one is named, else asks for it.
func getPIN(ctx context.Context, ask *asker, file, prompt string, isNew bool) (*secret.Bytes, error) {
	var pin *secret.Bytes
	var err error
	switch {
	case file != "":
		pin, err = secretFile(file)
	case isNew:
		pin, err = ask.newSecret(ctx, prompt)
	default:
		pin, err = ask.secret(ctx, prompt)
	}
	if err != nil {
		return nil, err
	}
	if pin.Len() == 0 {
		_ = pin.Close()
		return nil, fmt.Errorf("the %s is empty: write it on a line", prompt)
	}
	return pin, nil
}

// login logs this terminal in. what names the command that does it.
func (t tree) login(what, token, role string, pin *secret.Bytes) error {
	return t.command(what, token, "login", joinSecret(role+":", pin, ""))
}

// role is who this terminal is logged in as: public, user or so.
func (t tree) role(token string) string {
	who, _ := t.read(token, "login")
	return strings.TrimSpace(who)
}

// inUse reports whether there may be objects in the token. Nobody sees the private ones
// of others, but those have a PIN.
func (t tree) inUse(token string) bool {
	info, _ := t.read(token, "info")
	objects, _ := os.ReadDir(filepath.Join(t.dir, token, "objects"))
	return strings.Contains(info, "user-pin-initialized") || len(objects) > 0
}

func (t tree) logout(token string) error {
	return t.command("logout "+token, token, "logout", []byte("\n"))
}

// initialise makes the token usable, and leaves nobody logged in.
func initialise(d pinDoor, token string, soPIN *secret.Bytes, label string, pin *secret.Bytes) error {
	what := "init " + token
	// Only the token decides; but it is asked when its objects are gone already.
	shortest, longest, err := d.pinLengths(token)
	if n := pin.Len(); err == nil && (n < shortest || n > longest) {
		err = fmt.Errorf("the token takes user PINs of %d to %d bytes, not %d: choose another", shortest, longest, n)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was changed", what, err)
	}
	if err := d.initToken(what, token, soPIN, label); err != nil {
		return err
	}
	if err := d.login(what, token, "so", soPIN); err != nil {
		return fmt.Errorf("the token is initialised, but has no user PIN: %w", err)
	}
	if err = d.initPIN(what, token, pin); err != nil {
		err = fmt.Errorf("the token is initialised, but has no user PIN: %w", err)
	}
	return errors.Join(err, d.logout(token))
}

// pinLengths are the lengths of PINs that the token's info gives.
func (t tree) pinLengths(token string) (shortest, longest int, err error) {
	info, err := t.read(token, "info")
	longest = math.MaxInt // where it tells none
	for line := range strings.Lines(info) {
		var s, l int
		if n, _ := fmt.Sscanf(line, "pin-length: %d-%d", &s, &l); n == 2 {
			shortest, longest = s, l
		}
	}
	return shortest, longest, err
}

// joinSecret returns before, pin, after and a newline in one slice, which
// command wipes.
func joinSecret(before string, pin *secret.Bytes, after string) []byte {
	// One allocation, so that no copy of the PIN is left behind.
	b := make([]byte, 0, len(before)+pin.Len()+len(after)+1)
	b = append(b, before...)
	pin.Use(func(p []byte) { b = append(b, p...) })
	b = append(b, after...)
	return append(b, '\n')
}
