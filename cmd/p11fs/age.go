package main

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
	"github.com/spf13/cobra"
)

// agePlugin is the name of the plugin of age: by age-plugin-NAME the program is called.
const agePlugin = "p11fs"

// The data of an identity: the version, for later ones, the curve, and the public key.
const (
	ageVersion = 1
	ageX25519  = 1
	ageP256    = 2
)

// An ageKey is a key of a token that opens what age has encrypted, by its public half.
type ageKey struct{ public *ecdh.PublicKey }

func newAgeRecipient(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "age-recipient KEY",
		Short: "Print the recipient of a key for age, or its identity",
		Long: `Print the recipient of an X25519 key, or of an EC key on P-256, for which age encrypts:

  age -r "$(p11fs age-recipient swtok/box)" -o msg.age msg

That of an X25519 key is age's own, which every age takes; that of a P-256 key (age1tag1...)
is known to age from version 1.3, and to others by their plugin age-plugin-tag.

With --identity it is what opens the file again, by age-plugin-p11fs, which must be in PATH:
the same program under that name. It has the public key alone, and is no secret; the terminal
must be logged in to the token:

  p11fs age-recipient --identity swtok/box > box.txt
  age -d -i box.txt msg.age

What is encrypted for a P-256 key opens with derive=true alone, which the key is made with, or
gets by p11fs set KEY derive=true. A key without it is refused.` + keyText,
		Example: `  p11fs age-recipient swtok/box`,
		Args:    takes(1, 1),
	}
	mount := mountFlag(c)
	identity := c.Flags().Bool("identity", false, "print the identity, for age -d -i")
	suffixes := []string{".key", ".pub"}
	c.ValidArgsFunction = completeKeys(mount, suffixes)
	c.RunE = func(_ *cobra.Command, args []string) error {
		at, key, err := findKey(*mount, args[0], suffixes)
		if err != nil {
			return err
		}
		name := at.called(key)
		k, err := at.ageKey(key)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		unsure, err := at.opens(k, key, name)
		if err != nil {
			return err
		}
		r, err := k.recipient()
		if err != nil {
			return err
		}
		if unsure != "" {
			fmt.Fprintf(s.err, "p11fs: %s\n", printable(unsure))
		}
		if !*identity {
			_, err = fmt.Fprintln(s.out, r)
			return err
		}
		_, err = fmt.Fprintf(s.out, "# key: %s\n# recipient: %s\n%s\n", printableLine(name), r, k.identity())
		return err
	}
	return c
}

// opens refuses a key whose private half does not do what opens files, before anybody encrypts
// for it. It returns what there is to say where that half is not seen.
func (t tree) opens(k ageKey, key, name string) (unsure string, err error) {
	private := key
	if !strings.HasSuffix(key, ".key") {
		if private, err = k.in(t); err != nil {
			return "", err
		}
	}
	if private == "" { // another's, or one that a login shows
		if k.public.Curve() == ecdh.P256() && t.role("") == "public" {
			unsure = fmt.Sprintf("%s: whether its private key has derive=true, which opens what is encrypted, is seen after p11fs login %s", name, shellQuote(filepath.Base(t.dir)))
		}
		return unsure, nil
	}
	if derive, err := t.read(private, "attr/derive"); err != nil || derive == "true\n" {
		return "", err
	}
	name = t.called(private)
	return "", fmt.Errorf("%s has no derive=true, and would not open what is encrypted for it: p11fs set %s derive=true first", name, shellQuote(name))
}

// ageKey reads the public half of a key.
func (t tree) ageKey(key string) (k ageKey, err error) {
	text, err := t.read(key, "public.pem")
	if err != nil {
		return k, errors.New("there is no public half of it here: name an X25519 key, or an EC key on P-256")
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return k, errors.New("its file public.pem is no PEM: the daemon may be of another version, so restart it")
	}
	public, _ := x509.ParsePKIXPublicKey(block.Bytes) // nil of a key that Go does not know
	switch p := public.(type) {
	case *ecdh.PublicKey:
		k.public = p
	case *ecdsa.PublicKey:
		k.public, _ = p.ECDH()
	}
	if k.public == nil || k.public.Curve() != ecdh.X25519() && k.public.Curve() != ecdh.P256() {
		return k, errors.New("age has no recipients of its type: make a key with p11fs generate x25519, or p11fs generate ec:p256 derive=true")
	}
	return k, nil
}

// compressed is the public key in its short form (SEC 1 §2.3.3); that of X25519 has but one.
func (k ageKey) compressed() []byte {
	b := k.public.Bytes()
	if k.public.Curve() == ecdh.X25519() {
		return b
	}
	return append([]byte{2 + b[len(b)-1]&1}, b[1:33]...)
}

// An ageRecipient prints as age takes it.
type ageRecipient interface {
	age.Recipient
	fmt.Stringer
}

// recipient is that of the key.
func (k ageKey) recipient() (ageRecipient, error) {
	if k.public.Curve() == ecdh.P256() {
		return tag.NewClassicRecipient(k.compressed())
	}
	text, err := plugin.EncodeX25519Recipient(k.public)
	if err != nil {
		return nil, err
	}
	return age.ParseX25519Recipient(text)
}

// identity names the key for the plugin.
func (k ageKey) identity() string {
	curve := byte(ageX25519)
	if k.public.Curve() == ecdh.P256() {
		curve = ageP256
	}
	return plugin.EncodeIdentity(agePlugin, append([]byte{ageVersion, curve}, k.compressed()...))
}

// parseAgeIdentity reads the data of an identity.
func parseAgeIdentity(data []byte) (k ageKey, err error) {
	switch {
	case len(data) == 2+32 && data[0] == ageVersion && data[1] == ageX25519:
		k.public, err = ecdh.X25519().NewPublicKey(data[2:])
	case len(data) == 2+33 && data[0] == ageVersion && data[1] == ageP256:
		k.public, err = uncompressed(data[2:])
	default:
		err = errors.New("the identity is of another version of p11fs: make it anew with p11fs age-recipient --identity")
	}
	return k, err
}

// isAgePlugin reports whether the program was called as the plugin of age.
func isAgePlugin(arg0 string) bool { return filepath.Base(arg0) == "age-plugin-"+agePlugin }

// agePluginMain is the plugin, and returns the exit code.
func agePluginMain(s streams, getenv func(string) string) int {
	p, err := plugin.New(agePlugin)
	if err != nil {
		fmt.Fprintln(s.err, "age-plugin-p11fs:", err)
		return exitFailure
	}
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		k, err := parseAgeIdentity(data)
		return &ageIdentity{ageKey: k, getenv: getenv}, err
	})
	p.HandleIdentityAsRecipient(func(data []byte) (age.Recipient, error) {
		k, err := parseAgeIdentity(data)
		if err != nil {
			return nil, err
		}
		return k.recipient()
	})
	return p.Main()
}

// find finds the private key whose public half is k.
func (k ageKey) find(getenv func(string) string) (at tree, key string, err error) {
	t, err := findTree("", getenv)
	if err != nil {
		return at, "", err
	}
	var public []string
	for _, token := range t.tokens() {
		at := tree{filepath.Join(t.dir, token)}
		key, err := k.in(at)
		if err != nil {
			continue // a slot without a token
		}
		if key != "" {
			return at, key, nil
		}
		if t.role(token) == "public" {
			public = append(public, "p11fs login "+shellQuote(token))
		}
	}
	if len(public) > 0 {
		return at, "", fmt.Errorf("the key is not in a token that this terminal is logged in to: log in first (%s)", strings.Join(public, " or "))
	}
	return at, "", errors.New("the key is in no token here: it may have been destroyed, or be in another user's")
}

// in finds the private key in the token whose folder t is, or "".
func (k ageKey) in(t tree) (key string, err error) {
	kind := "ec-montgomery"
	if k.public.Curve() == ecdh.P256() {
		kind = "ec"
	}
	names, err := t.ask("find the key", "", "find", []byte("class=private-key key-type="+kind+"\n"))
	if err != nil {
		return "", err
	}
	for name := range strings.Lines(names) {
		key := filepath.Join("objects", strings.TrimSuffix(name, "\n"))
		if found, err := t.ageKey(key); err == nil && found.public.Equal(k.public) {
			return key, nil
		}
	}
	return "", nil
}
