package icsf

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsftest/icsfrig"
	"p11fs/tokens/icsf/icsftest/icsfserver"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/tokentest"
)

// serveAt starts a server, with TLS by a certificate unless cert is empty, and with certificates
// of clients unless ca is, and returns its address.
func serveAt(t *testing.T, cert, ca string) string {
	t.Helper()
	var conf *tls.Config
	if cert != "" {
		var err error
		conf, err = icsfserver.TLS(cert, cert, ca)
		noError(t, err)
	}
	return icsfrig.Serve(t, conf, icsfserver.New(icsfserver.Config{DN: "cn=user", Password: password, Tokens: []string{"TESTTOKEN", "READONLY"}}))
}

// rootDSE answers searches alone, as a directory that has these operations, or tells them to
// nobody who is not bound.
func rootDSE(t *testing.T, code int, oids ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m, err := icsfwire.ReadMessage(c)
			var answer, done []byte
			if err == nil && len(oids) > 0 {
				answer, err = icsfwire.PrintEntry(m.ID, oids...)
			}
			if err == nil {
				done, err = icsfwire.PrintResult(m.ID, icsfwire.SearchDone, code, "", nil)
			}
			if err == nil {
				_, _ = c.Write(append(answer, done...))
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// TestCheck has each thing be wrong that keeps a token from being used, and doctor say what it
// is and what to do.
func TestCheck(t *testing.T) {
	t.Parallel()
	a := icsfrig.NewAuthority(t)
	other := icsfrig.NewAuthority(t)
	a.Sign(t, "server", &x509.Certificate{})
	a.Sign(t, "client", &x509.Certificate{Subject: pkix.Name{CommonName: "client"}})
	a.Sign(t, "old", &x509.Certificate{NotAfter: time.Now().Add(-time.Hour)})
	a.Sign(t, "elsewhere", &x509.Certificate{DNSNames: []string{"zos.example"}})
	a.Sign(t, "soon", &x509.Certificate{NotAfter: time.Now().Add(5 * 24 * time.Hour)})
	noError(t, os.WriteFile(a.File("text"), []byte("no certificate\n"), 0o600))
	plain, secure, mutual := serveAt(t, "", ""), serveAt(t, a.File("server"), ""), serveAt(t, a.File("server"), a.File("ca"))
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	noError(t, gone.Close())
	ldap := func(c *icsffile.Config) { c.URI = "ldap://" + plain }
	over := func(addr string, more func(*icsffile.Config)) func(*icsffile.Config) {
		return func(c *icsffile.Config) {
			c.URI, c.CACert = "ldaps://"+addr, a.File("ca")
			if more != nil {
				more(c)
			}
		}
	}
	sasl := func(addr string, more func(*icsffile.Config)) func(*icsffile.Config) {
		return over(addr, func(c *icsffile.Config) {
			c.Mech, c.BindDN, c.Cert, c.Key = icsffile.SASL, "", a.File("client"), a.File("client")
			if more != nil {
				more(c)
			}
		})
	}
	for name, c := range map[string]struct {
		conf        func(*icsffile.Config)
		spoil       func(t *testing.T, p *tokens.Place)
		wrong, mend string // empty: nothing is
		weak        string
	}{
		"a good server":            {conf: ldap},
		"a good one with TLS":      {conf: over(secure, nil)},
		"a good one by EXTERNAL":   {conf: sasl(mutual, nil)},
		"a word nobody knows":      {conf: ldap, spoil: rewrite("MECH", "MESH"), wrong: "is no key of it", mend: "write it without that line"},
		"no such way":              {conf: ldap, spoil: rewrite("SIMPLE", "COMPLEX"), wrong: "MECH is SIMPLE or SASL", mend: `write MECH = "SIMPLE"`},
		"no name":                  {conf: ldap, spoil: rewrite("cn=user", ""), wrong: "wants a BINDDN", mend: "write BINDDN = "},
		"no address":               {conf: ldap, spoil: rewrite("ldap://", "http://"), wrong: "URI is ldap://HOST", mend: "with one of these in front"},
		"no token":                 {conf: ldap, spoil: rewrite("TESTTOKEN", ""), wrong: "is no name of a token", mend: "write TOKEN_NAME = "},
		"a quote without end":      {conf: ldap, spoil: rewrite("\"\n}", "\n}"), wrong: "a quote does not end", mend: "write a second quote"},
		"a file that is not there": {conf: ldap, spoil: func(t *testing.T, p *tokens.Place) { p.Config += ".none" }, wrong: "no such file", mend: "behind confname"},
		"its own, others' to write": {conf: ldap, spoil: func(t *testing.T, p *tokens.Place) {
			noError(t, os.Rename(p.Config, filepath.Join(p.Dir, ownConfig)))
			noError(t, os.Chmod(filepath.Join(p.Dir, ownConfig), 0o666))
			noError(t, os.Chmod(p.Dir, 0o770))
			p.Config = ""
		}, wrong: "others may have written", mend: "nobody else write it"},
		"no password": {conf: ldap, spoil: without(passwordFile), wrong: "has no file RACF", mend: "pkcsicsf -a TESTTOKEN -m simple"},
		"no password of one's own": {conf: ldap, spoil: func(t *testing.T, p *tokens.Place) {
			without(passwordFile)(t, p)
			noError(t, os.Rename(p.Config, filepath.Join(p.Dir, ownConfig)))
			p.Config = ""
		}, wrong: "has no file RACF", mend: "p11fs init icsf --new-password"},
		"a password cut off":          {conf: ldap, spoil: func(t *testing.T, p *tokens.Place) { noError(t, os.Truncate(filepath.Join(p.Dir, passwordFile), 9)) }, wrong: "9 bytes", mend: "pkcsicsf"},
		"no master key":               {conf: ldap, spoil: without("MK_SO"), wrong: "neither MK_SO nor MK_USER", mend: "from a copy"},
		"nobody there":                {conf: func(c *icsffile.Config) { c.URI = "ldap://" + gone.Addr().String() }, wrong: "cannot be reached", mend: "ping 127.0.0.1;"},
		"no TLS there":                {conf: over(plain, nil), wrong: "there is no TLS", mend: "at which the server has TLS"},
		"TLS there":                   {conf: func(c *icsffile.Config) { c.URI = "ldap://" + secure }, wrong: "does not answer as a directory", mend: "begins with ldaps"},
		"another authority":           {conf: over(secure, func(c *icsffile.Config) { c.CACert = other.File("ca") }), wrong: "unknown authority", mend: "--cacert"},
		"an old certificate":          {conf: over(serveAt(t, a.File("old"), ""), nil), wrong: "expired", mend: "made anew"},
		"another's name":              {conf: over(serveAt(t, a.File("elsewhere"), ""), nil), wrong: "127.0.0.1", mend: "write a name in the URI"},
		"no file of CACERT":           {conf: over(secure, func(c *icsffile.Config) { c.CACert = a.File("none") }), wrong: "CACERT: open", mend: "--cacert"},
		"text for CACERT":             {conf: over(secure, func(c *icsffile.Config) { c.CACert = a.File("text") }), wrong: "no certificate in PEM", mend: "openssl x509"},
		"an old one here":             {conf: sasl(mutual, func(c *icsffile.Config) { c.Cert, c.Key = a.File("old"), a.File("old") }), wrong: "is of use from", mend: "have another one signed"},
		"another's key":               {conf: sasl(mutual, func(c *icsffile.Config) { c.Key = a.File("server") }), wrong: "CERT and KEY", mend: "belong together"},
		"no certificate here":         {conf: over(mutual, nil), wrong: "there is no TLS", mend: "name it with --cert"},
		"a stranger's":                {conf: sasl(secure, nil), wrong: "does not know the certificate CERT", mend: "map the certificate to a user"},
		"no services":                 {conf: func(c *icsffile.Config) { c.URI = "ldap://" + rootDSE(t, 0, "1.3.6.1.4.1.1466.20037") }, wrong: "has not the extended operation", mend: "load that"},
		"services for those it knows": {conf: func(c *icsffile.Config) { c.URI = "ldap://" + rootDSE(t, icsfwire.InsufficientAccess) }},
		"another token":               {conf: sasl(mutual, func(c *icsffile.Config) { c.Name = "ABSENT" }), wrong: "has the tokens READONLY, TESTTOKEN", mend: "write TOKEN_NAME"},
		"a protected token":           {conf: sasl(mutual, func(c *icsffile.Config) { c.Name = "READONLY" }), weak: "lets nobody write"},
		"an end that is near":         {conf: over(serveAt(t, a.File("soon"), ""), nil), weak: "ends on " + time.Now().Add(5*24*time.Hour).Format(time.DateOnly)},
		"a network that hears all":    {conf: func(c *icsffile.Config) { c.URI = "ldap://192.0.2.1:1" }, wrong: "cannot be reached", mend: "ping 192.0.2.1;", weak: "the network hears"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := tokens.Place{Dir: filepath.Join(dir, "token"), Config: filepath.Join(dir, "token.conf"), Slot: 3}
			conf := icsffile.Config{Name: "TESTTOKEN", Mech: icsffile.Simple, BindDN: "cn=user"}
			c.conf(&conf)
			noError(t, os.WriteFile(p.Config, conf.Print(3), 0o600))
			(&site{}).store(t, p.Dir)
			if c.spoil != nil {
				c.spoil(t, &p)
			}
			wrong, mend := check(p)
			if !strings.Contains(wrong, c.wrong) || !strings.Contains(mend, c.mend) || (c.wrong == "") != (wrong == "") || (wrong == "") != (mend == "") {
				t.Errorf("%q: %q; want %q: %q", wrong, mend, c.wrong, c.mend)
			}
			why, better := weak(p)
			if !strings.Contains(why, c.weak) || (c.weak == "") != (why == "") || (why == "") != (better == "") {
				t.Errorf("weak is %q: %q; want %q", why, better, c.weak)
			}
			if strings.Contains(wrong+mend+why+better, "\n") || strings.Contains(mend, "try again") {
				t.Errorf("it says\n%s: %s\n%s: %s", wrong, mend, why, better)
			}
		})
	}
}

// rewrite puts a word in the place of another in the configuration.
func rewrite(old, new string) func(*testing.T, *tokens.Place) {
	return func(t *testing.T, p *tokens.Place) {
		t.Helper()
		b, err := os.ReadFile(p.Config)
		noError(t, err)
		if !strings.Contains(string(b), old) {
			t.Fatalf("there is no %q in\n%s", old, b)
		}
		noError(t, os.WriteFile(p.Config, []byte(strings.Replace(string(b), old, new, 1)), 0o600))
	}
}

// without removes a file of the token directory.
func without(name string) func(*testing.T, *tokens.Place) {
	return func(t *testing.T, p *tokens.Place) {
		t.Helper()
		noError(t, os.Remove(filepath.Join(p.Dir, name)))
	}
}

// TestReplacePassword stores the server's new password with either PIN, and only one that the
// server takes.
func TestReplacePassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := icsffile.Config{Name: "TESTTOKEN", Mech: icsffile.Simple, BindDN: "cn=user", URI: "ldap://" + serveAt(t, "", "")}
	(&site{}).store(t, dir)
	noError(t, os.WriteFile(filepath.Join(dir, ownConfig), c.Print(0), 0o600))
	before, err := os.ReadFile(filepath.Join(dir, passwordFile))
	noError(t, err)
	for _, step := range []struct {
		pin, password string
		want          p11.RV
	}{
		{"wrong", password, p11.CKR_PIN_INCORRECT}, {tokens.DefaultSOPIN, "WRONG", p11.CKR_DEVICE_ERROR}, {tokens.DefaultSOPIN, strings.Repeat("x", 81), p11.CKR_DEVICE_ERROR},
	} {
		if err := ReplacePassword(t.Context(), dir, tokentest.PIN(t, step.pin), tokentest.PIN(t, step.password)); p11.RVOf(err) != step.want {
			t.Errorf("%q with %q: %v", step.password, step.pin, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, passwordFile))
	noError(t, err)
	if string(after) != string(before) {
		t.Error("what was refused has changed the file")
	}
	noError(t, ReplacePassword(t.Context(), dir, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, password)))
	after, err = os.ReadFile(filepath.Join(dir, passwordFile))
	noError(t, err)
	mk, err := os.ReadFile(filepath.Join(dir, "MK_SO"))
	noError(t, err)
	master, err := icsffile.OpenMaster(mk, tokentest.PIN(t, tokens.DefaultSOPIN))
	noError(t, err)
	defer master.Close()
	stored, err := icsffile.OpenPassword(after, master)
	noError(t, err)
	defer stored.Close()
	is := ""
	stored.Use(func(b []byte) { is = string(b) })
	if is != password || string(after) == string(before) {
		t.Errorf("%q is stored", is)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	noError(t, os.Remove(filepath.Join(dir, "MK_SO")))
	if err := ReplacePassword(t.Context(), dir, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, password)); p11.RVOf(err) != p11.CKR_TOKEN_NOT_PRESENT {
		t.Errorf("without a file that opens: %v", err)
	}
}

// TestPrepareWhereASwapWas: who may write above the token's directory puts another one in its
// place while the server is asked. The files go where the maker looked.
func TestPrepareWhereASwapWas(t *testing.T) {
	t.Parallel()
	above := t.TempDir()
	dir, others := filepath.Join(above, "icsf"), filepath.Join(above, "others")
	noError(t, errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(others, 0o700)))
	root, err := os.OpenRoot(dir)
	noError(t, err)
	defer root.Close()
	noError(t, errors.Join(os.Rename(dir, dir+".away"), os.Symlink(others, dir)))
	c := icsffile.Config{Name: "TESTTOKEN", Mech: icsffile.Simple, BindDN: "cn=user", URI: "ldap://" + serveAt(t, "", "")}
	noError(t, Prepare(t.Context(), root, c, tokentest.PIN(t, password)))
	for path, want := range map[string]int{others: 0, dir + ".away": 3} {
		if list, err := os.ReadDir(path); err != nil || len(list) != want {
			t.Errorf("%s has %v, %v; want %d files", path, list, err, want)
		}
	}
	noError(t, errors.Join(root.Remove("MK_SO"), root.Symlink(filepath.Join(others, "x"), "MK_SO"), root.Remove(passwordFile), root.Remove(ownConfig)))
	if err := Prepare(t.Context(), root, c, tokentest.PIN(t, password)); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
		t.Errorf("through a link: %v", err)
	}
}
