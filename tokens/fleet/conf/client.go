package conf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"p11fs/p11"
)

// Client is a client of the fleet's etcd, which connects when it is used. The certificate is
// read anew for each connection, so one that was renewed needs no restart.
func (c *Config) Client() (*Client, error) {
	conf, err := c.tls()
	if err != nil {
		return nil, err
	}
	cli := newClient()
	cli.Client, err = clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: conf,
		// A member that does not answer is left for another one; 10 s is the least that etcd allows.
		DialKeepAliveTime: max(c.Lease/3, 10*time.Second), DialKeepAliveTimeout: c.Lease / 3, PermitWithoutStream: true,
		// However long no member answered, the next try is soon.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}, MinConnectTimeout: 5 * time.Second,
		}), grpc.WithContextDialer(cli.dial), grpc.WithChainUnaryInterceptor(cli.ask)},
		Logger: zap.NewNop(), // what fails is said by who has asked
	})
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "a client of etcd: %w", err), "mend the endpoints of the token's configuration")
	}
	return cli, nil
}

// Check says what is wrong with the certificates at a time.
func (c *Config) Check(now time.Time) error {
	if _, err := c.authority(); err != nil {
		return err
	}
	_, err := c.certificate(now)
	return err
}

func (c *Config) tls() (*tls.Config, error) {
	pool, err := c.authority()
	if err != nil {
		return nil, err
	}
	if _, err := c.certificate(time.Now()); err != nil {
		return nil, err
	}
	return &tls.Config{
		RootCAs: pool, MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.certificate(time.Now()) },
	}, nil
}

// authority is what members' certificates are signed with.
func (c *Config) authority() (*x509.CertPool, error) {
	b, err := readPEM(c.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s has no certificate in it", c.CA), "write there, as PEM, what the certificates of etcd's members are signed with (etcd --trusted-ca-file)")
	}
	return pool, nil
}

// certificate is this machine's.
func (c *Config) certificate(now time.Time) (*tls.Certificate, error) {
	cert, err := readPEM(c.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(c.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s and %s are no certificate and its key: %w", c.Cert, c.Key, err), "have the authority of etcd sign a certificate for a key of this machine's, and name both, as PEM")
	}
	const renew = "have the authority sign another one, and put it there; p11fs takes it by itself"
	switch {
	case now.After(pair.Leaf.NotAfter):
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate %s has ended at %s", c.Cert, day(pair.Leaf.NotAfter)), renew)
	case now.Before(pair.Leaf.NotBefore):
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the certificate %s begins at %s, and here it is %s", c.Cert, day(pair.Leaf.NotBefore), day(now)), "set this machine's clock")
	}
	return &pair, nil
}

// maxPEM bounds a file of certificates.
const maxPEM = 1 << 20

func readPEM(path string) ([]byte, error) {
	const advice = "make it a PEM file that the daemon may read"
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "a file of the fleet's configuration: %w", err), advice)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s has more than %d bytes", path, maxPEM)
	}
	if err != nil {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "a file of the fleet's configuration: %w", err), advice)
	}
	return b, nil
}
