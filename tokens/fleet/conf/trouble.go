package conf

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"p11fs/p11"
)

// maxTrouble is how long Trouble waits for members.
const maxTrouble = 2 * time.Second

// Trouble says which certificate keeps this machine from members of etcd: its own, or a member's.
// It asks them, since a client of etcd tells no more than that nobody answers. It is nil where
// no certificate does.
func (c *Config) Trouble(ctx context.Context) error {
	if err := c.Check(time.Now()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxTrouble)
	defer cancel()
	all := make([]error, len(c.Endpoints))
	var asking sync.WaitGroup
	for i, at := range c.Endpoints {
		asking.Go(func() { all[i] = c.TroubleOf(ctx, at) })
	}
	asking.Wait()
	return cmp.Or(all...)
}

// TroubleOf is Trouble with one member, whose endpoint is at.
func (c *Config) TroubleOf(ctx context.Context, at string) error {
	conf, err := c.tls()
	if err != nil {
		return err
	}
	u, err := url.Parse(at)
	if err != nil {
		return nil // there is no such member
	}
	conf.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	if err == nil {
		defer conn.Close()
		// What the member says of this machine's certificate comes behind the handshake; else
		// it says something of HTTP at once. Nobody waits for it any longer than for ctx: a lease
		// that was got meanwhile is short.
		defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
		_, err = conn.Read(make([]byte, 1))
	}
	return c.trouble(at, err)
}

// trouble is what an error of a connection to a member says of certificates.
func (c *Config) trouble(at string, err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var told *net.OpError
	switch {
	case errors.As(err, &unknown):
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate of %s is signed by another authority than that in %s", at, c.CA), "write into that file what signs for etcd; if that is what it has, see who answers at this address")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate of %s begins at %s", at, day(invalid.Cert.NotBefore)), "set the clock of this machine, or that of etcd's authority")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate of %s has ended at %s", at, day(invalid.Cert.NotAfter)), "have the authority sign another one, and put it there (etcd --cert-file); etcd takes it by itself, and the token comes back")
	case errors.As(err, &name):
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate of %s is of another name: %w", at, name), "write the endpoint as the certificate has it, or have the authority sign one for that member with this name")
	case errors.As(err, &told) && told.Op == "remote error" && strings.Contains(told.Err.Error(), "expired"):
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%s says that the certificate %s has ended", at, c.Cert), "compare the clocks of both machines: by this one's it has not")
	case errors.As(err, &told) && told.Op == "remote error" && strings.Contains(told.Err.Error(), "certificate"):
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%s does not take the certificate %s: %w", at, c.Cert, told.Err), "have the authority that etcd was started with (--trusted-ca-file) sign one for this machine, and put it there; p11fs takes it by itself")
	}
	return nil
}

// day is a time in an error.
func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }
