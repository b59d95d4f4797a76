package icsf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsffile"
)

// lookTime bounds how long a server is looked for.
const lookTime = 5 * time.Second

// connOf is how the server of a configuration is called, but for a password.
func connOf(c *icsffile.Config) icsfconn.Config {
	return icsfconn.Config{URI: c.URI, DN: c.BindDN, External: c.Mech == icsffile.SASL, CACert: c.CACert, Cert: c.Cert, Key: c.Key}
}

// check is tokens.Kind's: that the configuration and the server can be used, as far as that is
// known without a PIN. With SIMPLE that leaves open whether the server takes the password and
// has the token, which the first login tells.
func check(place tokens.Place) (wrong, mend string) {
	if _, err := os.Lstat(configOf(place)); errors.Is(err, os.ErrNotExist) && place.Config == "" || errors.Is(err, os.ErrPermission) {
		return "", ""
	}
	c, err := readConfig(place)
	if err != nil {
		return err.Error(), "editor " + configOf(place) + ": " + p11.AdviceOf(err)
	}
	if wrong, mend = checkPassword(place, c); wrong != "" {
		return wrong, mend
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	if _, err = icsfconn.Examine(ctx, connOf(c)); err == nil && c.Mech == icsffile.SASL {
		_, err = theToken(ctx, *c)
	}
	if err != nil {
		return err.Error() + ": its keys cannot be used", p11.AdviceOf(err)
	}
	return "", ""
}

// checkPassword looks at the files with the server's password and its key.
func checkPassword(place tokens.Place, c *icsffile.Config) (wrong, mend string) {
	if c.Mech != icsffile.Simple {
		return "", ""
	}
	again := "p11fs init icsf --new-password"
	if place.Config != "" {
		again = "pkcsicsf -a " + c.Name + " -m simple -b '" + c.BindDN + "' -u " + c.URI
	}
	sizes := map[string]int64{passwordFile: 0, "MK_SO": 0, "MK_USER": 0}
	for name := range sizes {
		switch st, err := os.Lstat(filepath.Join(place.Dir, name)); {
		case err == nil:
			sizes[name] = st.Size()
		case !errors.Is(err, os.ErrNotExist):
			return "", "" // of which another check tells
		}
	}
	switch n := sizes[passwordFile]; {
	case sizes["MK_SO"] != icsffile.KeyFileSize && sizes["MK_USER"] != icsffile.KeyFileSize:
		return "neither MK_SO nor MK_USER in " + place.Dir + " is whole: no PIN opens the server's password", noKeys(place.Dir)
	case n == 0:
		return fmt.Sprintf("%s has no file %s with the server's password: the token stays closed", place.Dir, passwordFile), again
	case !icsffile.MayBePassword(n):
		return fmt.Sprintf("%s in %s has %d bytes, and is no stored password", passwordFile, place.Dir, n), again
	}
	return "", ""
}

// noKeys is what is to be done with a directory whose password nothing opens.
func noKeys(dir string) string {
	return "put them back from a copy of the directory, or move " + dir + " away and make it anew with p11fs init icsf --uri URI; the objects are on the server"
}

// theToken is the token of a configuration as the server has it, to which the certificate says
// who asks.
func theToken(ctx context.Context, c icsffile.Config) (Offered, error) {
	list, err := Tokens(ctx, c, nil)
	if err != nil {
		return Offered{}, err
	}
	return choose(list, c.Name, `write TOKEN_NAME = "NAME" with one of them`)
}

// choose is the token of that name among those of a server, or the only one where name is
// empty.
func choose(list []Offered, name, advice string) (Offered, error) {
	var names []string
	for _, one := range list {
		names = append(names, one.Name)
		if one.Name == name || name == "" && len(list) == 1 {
			return one, nil
		}
	}
	if names == nil {
		return Offered{}, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server shows no token"), "have its administrator make one, and permit it in the class CRYPTOZ")
	}
	return Offered{}, p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server has the tokens %s", strings.Join(names, ", ")), advice)
}

// endsSoon is how long before its end a certificate is worth a word.
const endsSoon = 30 * 24 * time.Hour

// weak is tokens.Kind's.
func weak(place tokens.Place) (why, mend string) {
	c, err := readConfig(place)
	if err != nil {
		return "", "" // of which check tells
	}
	u, err := url.Parse(c.URI)
	if err != nil {
		return "", ""
	}
	if u.Scheme == "ldap" && !isHere(u.Hostname()) {
		return "the network hears the server's password and what keys encrypt and decrypt", "write a URI that begins with ldaps in " + configOf(place)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	found, err := icsfconn.Examine(ctx, connOf(c))
	if err != nil {
		return "", ""
	}
	if !found.Ends.IsZero() && time.Until(found.Ends) < endsSoon {
		return "a certificate of the connection to " + u.Host + " ends on " + found.Ends.Format(time.DateOnly), "have it made anew before: openssl s_client -connect " + u.Host + " shows the server's, and CERT is this side's"
	}
	if c.Mech == icsffile.SASL {
		if one, err := theToken(ctx, *c); err == nil && one.Protected {
			return "the server lets nobody write to the token " + c.Name, "have its administrator take the protection off, where objects are to be made"
		}
	}
	return "", ""
}

// isHere says whether a host is this machine.
func isHere(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }
