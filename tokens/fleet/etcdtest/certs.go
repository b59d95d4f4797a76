package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A Pair is a certificate and its key, as PEM files.
type Pair struct{ Cert, Key string }

// An Authority signs the certificates of a cluster.
type Authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

// NewAuthority makes one, whose certificate is dir/ca.pem.
func NewAuthority(t T, dir string) *Authority {
	t.Helper()
	a := &Authority{dir: dir}
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	a.cert = a.sign(t, "ca", tmpl, tmpl, a.key, time.Now().Add(24*time.Hour))
	return a
}

// CA is the path of its certificate.
func (a *Authority) CA() string { return filepath.Join(a.dir, "ca.pem") }

// Pair makes a certificate for both ends of a connection, which ends at the time given. It is
// of this machine's own address, and of more.
func (a *Authority) Pair(t T, name string, end time.Time, more ...net.IP) Pair {
	t.Helper()
	key := newKey(t)
	a.sign(t, name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: append(more, net.IPv4(127, 0, 0, 1)),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key, end)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")}
	writePEM(t, p.Key, "PRIVATE KEY", der)
	return p
}

// sign makes the certificate of key and writes it to name.pem.
func (a *Authority) sign(t T, name string, tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey, end time.Time) *x509.Certificate {
	t.Helper()
	tmpl.SerialNumber = big.NewInt(a.serial.Add(1))
	tmpl.NotBefore, tmpl.NotAfter = end.Add(-48*time.Hour), end
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(a.dir, name+".pem"), "CERTIFICATE", der)
	return cert
}

func newKey(t T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
