package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"p11fs/mountd"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/icsf"
	"p11fs/tokens/icsf/icsffile"
)

// serverFlags are the options of p11fs init for a token of ICSF.
type serverFlags struct {
	uri, dn, name, ca, cert, key, passwordFile *string
	list, newPassword                          *bool
}

func newServerFlags(c *cobra.Command) serverFlags {
	return serverFlags{
		uri:          c.Flags().String("uri", "", "the directory server of a token of ICSF: `URI` is ldaps://HOST or ldap://HOST, with :PORT if it is not the usual one"),
		dn:           c.Flags().String("binddn", "", "the `DN` that the server knows you by; without it your certificate says who you are"),
		name:         c.Flags().String("icsf-token", "", "the `NAME` of the token on the server, if it has several"),
		ca:           c.Flags().String("cacert", "", "a `FILE` of certificates in PEM: who has signed the server's"),
		cert:         c.Flags().String("cert", "", "a `FILE` with your certificate for the server, in PEM"),
		key:          c.Flags().String("key", "", "a `FILE` with its key"),
		list:         c.Flags().Bool("list", false, "show the tokens of the server that --uri says, and make none"),
		newPassword:  c.Flags().Bool("new-password", false, "store another password of the server for a token of ICSF that is there, and change nothing else"),
		passwordFile: c.Flags().String("password-file", "", "read the server's password from the first line of this `FILE`"),
	}
}

// given says whether a token of a server is to be made.
func (f serverFlags) given() bool { return *f.uri != "" }

// instead does what is done in the place of making a token, if the options say so.
func (f serverFlags) instead(c *cobra.Command, s streams, ask func() *asker, token, pinFile string) (done bool, err error) {
	switch {
	case *f.list && *f.newPassword:
		return true, &usageError{err: errors.New("--list and --new-password do two things: name one of them")}
	case (*f.list || *f.newPassword) && token != icsf.Kind:
		return true, &usageError{err: errors.New("a token of ICSF of your own is called icsf: name it so")}
	case *f.list && !f.given():
		return true, &usageError{err: errors.New("--list wants the server: add --uri")}
	case *f.newPassword && f.given():
		return true, &usageError{err: errors.New("--new-password is for the server that the token has: leave --uri out")}
	case *f.list:
		err = f.show(c.Context(), s, ask())
	case *f.newPassword:
		err = f.replace(c.Context(), s, ask(), pinFile)
	default:
		return false, nil
	}
	if err != nil {
		err = fmt.Errorf("init icsf: %w", withAdvice(err))
	}
	return true, err
}

// server is what the options say of the server, and its password, nil with a certificate.
func (f serverFlags) server(ctx context.Context, ask *asker) (c icsffile.Config, password *secret.Bytes, err error) {
	c = icsffile.Config{Name: *f.name, Mech: icsffile.SASL, BindDN: *f.dn, URI: *f.uri, CACert: *f.ca, Cert: *f.cert, Key: *f.key}
	switch {
	case c.BindDN == "" && (c.Cert == "" || c.Key == ""):
		return c, nil, &usageError{err: errors.New("the server knows you by a name or by a certificate: add --binddn, or --cert and --key")}
	case c.BindDN != "":
		c.Mech = icsffile.Simple
	}
	if err := c.CheckServer(); err != nil { // before anybody types a password
		return c, nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%w", err)
	}
	if c.Mech == icsffile.Simple {
		password, err = getPIN(ctx, ask, *f.passwordFile, "server's password", false)
	}
	return c, password, err
}

// show lists the tokens of the server.
func (f serverFlags) show(ctx context.Context, s streams, ask *asker) error {
	c, password, err := f.server(ctx, ask)
	if err != nil {
		return err
	}
	defer password.Close()
	list, err := icsf.Tokens(ctx, c, password)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tMANUFACTURER\tMODEL\tSERIAL\t")
	for _, one := range list {
		note := ""
		if one.Protected {
			note = "write-protected"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printableLine(one.Name), printableLine(one.Manufacturer), printableLine(one.Model), printableLine(one.Serial), note)
	}
	return w.Flush()
}

// replace stores another password of the server.
func (f serverFlags) replace(ctx context.Context, s streams, ask *asker, pinFile string) error {
	home, _ := os.UserHomeDir()
	paths, err := mountd.UserPaths(os.Getenv, home)
	if err != nil {
		return err
	}
	password, err := getPIN(ctx, ask, *f.passwordFile, "server's new password", false)
	if err != nil {
		return err
	}
	defer password.Close()
	pin, err := getPIN(ctx, ask, pinFile, "user or SO PIN", false)
	if err != nil {
		return err
	}
	defer pin.Close()
	dir := filepath.Join(paths.Data, icsf.Kind)
	if err := icsf.ReplacePassword(ctx, dir, pin, password); err != nil {
		return err
	}
	fmt.Fprintln(s.err, "p11fs: the server has taken the password, and it is stored; a daemon that runs takes it from now on")
	return nil
}

// prepare makes the files of a user's own token of ICSF. It asks for the server's password.
func (f serverFlags) prepare(ctx context.Context, ask *asker, token string, dir *os.Root) error {
	if token != icsf.Kind {
		return &usageError{err: errors.New("a token of ICSF of your own is called icsf: name it so, or leave --uri out")}
	}
	c, password, err := f.server(ctx, ask)
	if err != nil {
		return err
	}
	defer password.Close()
	return icsf.Prepare(ctx, dir, c, password)
}
