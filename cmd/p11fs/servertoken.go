package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"p11fs/secret"
	"p11fs/tokens/icsf"
	"p11fs/tokens/icsf/icsffile"
)

// serverFlags are the options of p11fs init for a token of ICSF.
type serverFlags struct{ uri, dn, name, ca, cert, key, passwordFile *string }

func newServerFlags(c *cobra.Command) serverFlags {
	return serverFlags{
		uri:          c.Flags().String("uri", "", "the directory server of a token of ICSF: `URI` is ldaps://HOST or ldap://HOST, with :PORT if it is not the usual one"),
		dn:           c.Flags().String("binddn", "", "the `DN` that the server knows you by; without it your certificate says who you are"),
		name:         c.Flags().String("icsf-token", "", "the `NAME` of the token on the server, if it has several"),
		ca:           c.Flags().String("cacert", "", "a `FILE` of certificates in PEM: who has signed the server's"),
		cert:         c.Flags().String("cert", "", "a `FILE` with your certificate for the server, in PEM"),
		key:          c.Flags().String("key", "", "a `FILE` with its key"),
		passwordFile: c.Flags().String("password-file", "", "read the server's password from the first line of this `FILE`"),
	}
}

// given says whether a token of a server is to be made.
func (f serverFlags) given() bool { return *f.uri != "" }

// prepare makes the files of a user's own token of ICSF. It asks for the server's password.
func (f serverFlags) prepare(ctx context.Context, ask *asker, token, dir string) error {
	if token != icsf.Kind {
		return &usageError{err: errors.New("a token of ICSF of your own is called icsf: name it so, or leave --uri out")}
	}
	c := icsffile.Config{Name: *f.name, Mech: icsffile.SASL, BindDN: *f.dn, URI: *f.uri, CACert: *f.ca, Cert: *f.cert, Key: *f.key}
	var password *secret.Bytes
	if c.BindDN != "" {
		c.Mech = icsffile.Simple
		var err error
		if password, err = getPIN(ctx, ask, *f.passwordFile, "server's password", false); err != nil {
			return err
		}
		defer password.Close()
	}
	return icsf.Prepare(ctx, dir, c, password)
}
