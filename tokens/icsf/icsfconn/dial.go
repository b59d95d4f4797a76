package icsfconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// dial makes a connection to the server.
func (c *Conn) dial(ctx context.Context) (_ net.Conn, host string, err error) {
	u, err := url.Parse(c.conf.URI)
	if err != nil {
		return nil, "", p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the server's URI: %w", err), "write ldaps://HOST or ldap://HOST")
	}
	port := "389"
	if u.Scheme == "ldaps" {
		port = "636"
	}
	if u.Port() != "" {
		port = u.Port()
	}
	within, cancel := context.WithTimeout(ctx, c.conf.timeout())
	defer cancel()
	conf, err := c.tls(u.Hostname())
	if err != nil {
		return nil, "", err
	}
	raw, err := (&net.Dialer{}).DialContext(within, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, "", p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server %s cannot be reached: %w", u.Host, err), "ping "+u.Hostname()+"; if it answers, see that its directory server listens at port "+port)
	}
	if u.Scheme != "ldaps" {
		return raw, u.Host, nil
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(within); err != nil {
		_ = raw.Close()
		return nil, "", noTLS(u.Host, err)
	}
	return t, u.Host, nil
}

// noTLS is the error of a handshake, with what to do about it.
func noTLS(host string, err error) error {
	advice := "see that the URI has the port at which the server has TLS, usually 636"
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var alert *net.OpError
	switch {
	case errors.As(err, &unknown):
		advice = "name a file with the certificate of who has signed the server's: --cacert, or CACERT in the configuration"
	case errors.As(err, &name):
		advice = "write a name in the URI that the server's certificate has, or have a certificate made with this one"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		advice = "have the server's certificate made anew, or set this machine's clock, which says " + time.Now().Format(time.DateOnly)
	case errors.As(err, &alert) && alert.Op == "remote error":
		advice = "the server takes no client without a certificate that it knows: name it with --cert and --key, or CERT and KEY in the configuration"
	}
	return p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no TLS with %s: %w", host, err), advice)
}

// noDirectory is the error of a server with which there is a connection, and no more.
func noDirectory(host string, err error) error {
	var alert *net.OpError
	switch {
	case errors.As(err, &alert) && alert.Op == "remote error": // to a certificate, with TLS 1.3
		return noTLS(host, err)
	case p11.RVOf(err) == p11.CKR_GENERAL_ERROR: // no words of ours
		return p11.Advise(p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "the server %s does not answer as a directory does: %w", host, err), "see that the URI has the port of the directory server; where that has TLS, the URI begins with ldaps://")
	}
	return err
}

// maxPEM bounds a file of certificates.
const maxPEM = 1 << 20

func (c *Conn) tls(host string) (*tls.Config, error) {
	conf := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.conf.CACert != "" {
		f, err := os.Open(c.conf.CACert)
		if err != nil {
			return nil, badFile("CACERT: %w", err, "name a file in PEM that can be read: --cacert, or CACERT in the configuration")
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxPEM))
		if err != nil {
			return nil, badFile("CACERT: %w", err, "name a file in PEM that can be read: --cacert, or CACERT in the configuration")
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "CACERT: %s has no certificate in PEM", c.conf.CACert), "openssl x509 -in FILE -inform DER makes PEM of a certificate")
		}
	}
	if c.conf.Cert == "" {
		return conf, nil
	}
	pair, err := tls.LoadX509KeyPair(c.conf.Cert, c.conf.Key)
	if err != nil {
		return nil, badFile("CERT and KEY: %w", err, "name files in PEM that can be read and belong together: --cert and --key, or CERT and KEY in the configuration")
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "CERT: the certificate in %s is of use from %s to %s", c.conf.Cert, pair.Leaf.NotBefore.Format(time.DateOnly), pair.Leaf.NotAfter.Format(time.DateOnly)),
			"have another one signed, and put it there")
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, nil
}

func badFile(format string, err error, advice string) error {
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, format, err), advice)
}

// Found is what a server that can be used has told.
type Found struct {
	// Ends is when its certificate ends, or the client's if that is earlier; zero without TLS.
	Ends time.Time
}

// Examine says whether a server can be used: whether there is a connection, with TLS if the
// URI says so, the server takes the certificate of a client that has one in the place of a
// password, and has the services. With a password it is not bound to, and a server that
// tells its services to nobody then is taken for one that has them.
func Examine(ctx context.Context, conf Config) (f Found, err error) {
	conn, host, err := New(conf).dial(ctx)
	if err != nil {
		return f, err
	}
	if t, ok := conn.(*tls.Conn); ok {
		f.Ends = t.ConnectionState().PeerCertificates[0].NotAfter
	}
	if pair, perr := tls.LoadX509KeyPair(conf.Cert, conf.Key); perr == nil && pair.Leaf.NotAfter.Before(f.Ends) {
		f.Ends = pair.Leaf.NotAfter
	}
	l := newLink(conn, &conf)
	defer l.Close()
	if conf.External {
		return f, noDirectory(host, l.bind(ctx))
	}
	has, result, err := l.services(ctx)
	if err != nil {
		return f, noDirectory(host, err)
	}
	if result.Code == icsfwire.Success && len(has) > 0 {
		err = hasICSF(has)
	}
	return f, err
}

// services are the extended operations that the server says it has.
func (l *Link) services(ctx context.Context) (has []string, r icsfwire.Result, err error) {
	entries, m, err := l.ask(ctx, icsfwire.SearchDone, icsfwire.Search)
	if err == nil {
		r, err = icsfwire.ParseResult(m.Body)
	}
	if err != nil {
		return nil, r, err
	}
	for _, e := range entries {
		list, err := icsfwire.Extensions(e.Body)
		if err != nil {
			return nil, r, err
		}
		has = append(has, list...)
	}
	return has, r, nil
}

// hasICSF is nil if the services are among extended operations.
func hasICSF(has []string) error {
	if slices.ContainsFunc(has, func(x string) bool { return strings.HasPrefix(x, icsfwire.RequestOID) }) {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the server has not the extended operation %s: it is no directory server of z/OS with the plug-in for ICSF", icsfwire.RequestOID),
		"have its administrator load that, or write the URI of another server")
}
