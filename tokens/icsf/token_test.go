package icsf

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsftest/icsfrig"
	"p11fs/tokens/icsf/icsftest/icsfserver"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

const (
	dn       = "racfid=USER1,profiletype=user,cn=RACF"
	password = "RACFPASS"
)

// certificate writes a certificate to a file, with its key.
func certificate(t testing.TB) string {
	t.Helper()
	text, err := icsfserver.Certificate()
	name := filepath.Join(t.TempDir(), "cert.pem")
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// A site is a server and the configuration of its token.
type site struct {
	server *icsfserver.Server
	conf   icsffile.Config
	before atomic.Pointer[func(*icsfwire.Request)] // is called with each request
}

// newSite starts a server with one token.
func newSite(t testing.TB, mech string) *site {
	t.Helper()
	s := &site{conf: icsffile.Config{Name: "TESTTOKEN", Manufacturer: "IBM z/OS ICSF", Model: "ICSF TKDS", Serial: "SER0", Mech: mech}}
	scheme, secure := "ldap://", (*tls.Config)(nil)
	if mech == icsffile.SASL {
		cert := certificate(t)
		c, err := icsfserver.TLS(cert, cert, cert)
		if err != nil {
			t.Fatal(err)
		}
		scheme, secure = "ldaps://", c
		s.conf.CACert, s.conf.Cert, s.conf.Key = cert, cert, cert
	} else {
		s.conf.BindDN = dn
	}
	s.server = icsfserver.New(icsfserver.Config{DN: dn, Password: password, Tokens: []string{"TESTTOKEN"}, Before: func(r *icsfwire.Request) {
		if f := s.before.Load(); f != nil {
			(*f)(r)
		}
	}})
	s.conf.URI = scheme + icsfrig.Serve(t, secure, s.server)
	return s
}

// place is where a token of the site is, below dir. With SIMPLE the server's password is
// stored there.
func (s *site) place(t testing.TB, dir string) tokens.Place {
	t.Helper()
	lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	config := filepath.Join(dir, "token.conf")
	if err := os.WriteFile(config, s.conf.Print(3), 0o600); err != nil {
		t.Fatal(err)
	}
	p := tokens.Place{
		Name: "mine", Dir: filepath.Join(dir, "token"), Config: config, Slot: 3, Lock: lock, Create: true, Group: locks.NoGroup,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	if _, err := os.Stat(p.Dir); s.conf.Mech == icsffile.Simple && err != nil {
		s.store(t, p.Dir)
	}
	return p
}

// store stores the server's password under the SO's first PIN.
func (s *site) store(t testing.TB, dir string) {
	t.Helper()
	master, err := secret.New(make([]byte, icsffile.MasterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	mk, err := icsffile.SealMaster(rand.Reader, tokentest.PIN(t, tokens.DefaultSOPIN), master)
	if err != nil {
		t.Fatal(err)
	}
	racf, err := icsffile.SealPassword(rand.Reader, master, tokentest.PIN(t, password))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"MK_SO": mk, passwordFile: racf} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestToken runs the suite of all tokens, each directory of which is that of a token of a
// server of its own.
func TestToken(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	sites := make(map[string]*site)
	kind := newKind(swtok.GoProvider(), times{}, "")
	t.Cleanup(func() { asked(t, sites) })
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN,
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			mu.Lock()
			s := sites[dir]
			if s == nil {
				s = newSite(t, icsffile.SASL)
				sites[dir] = s
			}
			mu.Unlock()
			tok, err := kind.Open(context.Background(), s.place(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			return tok
		},
	})
}
