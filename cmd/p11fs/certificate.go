package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p11fs/p11/pkix"
)

// A certificate begins a little before now, for the clocks of others.
const clockSkew = 5 * time.Minute

// maxRequestFile bounds the file of a request or a certificate.
const maxRequestFile = 1 << 20

// nameFlags are the options that say whom a certificate is for.
type nameFlags struct {
	subject     string
	dns, emails []string
	ips         []net.IP
}

func (n *nameFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&n.subject, "subject", "", "the `NAME` of the owner, as openssl has it: /CN=web/O=Example")
	f.StringArrayVar(&n.dns, "dns", nil, "a `NAME` of the host, such as www.example.org or *.example.org; may be given several times")
	f.IPSliceVar(&n.ips, "ip", nil, "an address of the host; may be given several times")
	f.StringArrayVar(&n.emails, "email", nil, "a mail `ADDRESS`; may be given several times")
}

// name is the subject. Without one there must be another name.
func (n *nameFlags) name() (x509pkix.Name, error) {
	if n.subject == "" {
		if len(n.dns)+len(n.ips)+len(n.emails) == 0 {
			return x509pkix.Name{}, &usageError{err: errors.New("nobody knows whose it is: add --subject /CN=NAME, or --dns")}
		}
		return x509pkix.Name{}, nil
	}
	name, err := pkix.ParseSubject(n.subject)
	if err != nil {
		err = &usageError{err: withAdvice(err)}
	}
	return name, err
}

// lines are the names as the file csr of a key takes them.
func (n *nameFlags) lines() []byte {
	var b strings.Builder
	if n.subject != "" {
		fmt.Fprintln(&b, n.subject)
	}
	for _, name := range n.dns {
		fmt.Fprintf(&b, "dns=%s\n", name)
	}
	for _, ip := range n.ips {
		fmt.Fprintf(&b, "ip=%s\n", ip)
	}
	for _, address := range n.emails {
		fmt.Fprintf(&b, "email=%s\n", address)
	}
	return []byte(b.String())
}

func newRequest(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "csr KEY",
		Short: "Write a certificate request (PKCS #10) for a private key, in PEM",
		Long: `Write a certificate request (PKCS #10) for a private key, in PEM, for a CA to sign. RSA
keys, EC keys on P-256, P-384 and P-521, and Ed25519. The key's file csr makes it.` + keyText,
		Example: `  p11fs csr swtok/web --subject /CN=web --dns www.example.org > web.csr`,
		Args:    takes(1, 1),
	}
	mount := mountFlag(c)
	var names nameFlags
	names.add(c)
	c.ValidArgsFunction = completeKeys(mount, []string{".key"})
	c.RunE = func(_ *cobra.Command, args []string) error {
		if _, err := names.name(); err != nil {
			return err
		}
		at, key, err := findKey(*mount, args[0], []string{".key"})
		if err != nil {
			return err
		}
		request, err := at.ask("csr "+args[0], "", filepath.Join(key, "csr"), names.lines())
		fmt.Fprint(s.out, request)
		return err
	}
	return c
}

// findSigner is findKey for a private key that signs.
func findSigner(mount, name string) (*signer, error) {
	at, key, err := findKey(mount, name, []string{".key"})
	if err != nil {
		return nil, err
	}
	return newSigner(at, key)
}

func newCertificate(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "cert {--self-signed KEY | --ca KEY REQUEST}",
		Short: "Write a certificate: of a key by itself, or of a request by the key of a CA",
		Long: `Write a certificate in PEM. With --self-signed it is one of a private key, made by that
key; with --authority it may sign others. With --ca it is made of the certificate request in
the file REQUEST, whose signature is checked, by the key of a CA: the subject and the
names are the request's, what else it asks for is not looked at. The certificate of the CA is
the object beside the key that has its name, or in the file that --ca-cert names.

What comes out is for TLS servers and clients, unless it is a CA's. To have it in the token,
write it to TOKEN/certs/NAME.pem.` + keyText,
		Example: `  p11fs cert --self-signed swtok/ca --authority --subject '/CN=my CA' --days 3650 > "$(p11fs path swtok)/certs/ca.pem"
  p11fs cert --ca swtok/ca web.csr --days 90 > web.pem`,
		Args: takes(1, 1),
	}
	mount := mountFlag(c)
	var names nameFlags
	names.add(c)
	self := c.Flags().Bool("self-signed", false, "the certificate is of the key that signs it")
	authority := c.Flags().Bool("authority", false, "the certificate is of a CA, which signs others")
	ca := c.Flags().String("ca", "", "the private `KEY` of the CA that signs")
	caFile := c.Flags().String("ca-cert", "", "the `FILE` with the certificate of the CA")
	days := c.Flags().Int("days", 365, "how many days it is good for, and not longer than the CA's")
	keys := completeKeys(mount, []string{".key"})
	completeFlag(c, "ca", func(c *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return keys(c, nil, word)
	})
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if *ca != "" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return keys(c, args, word)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if *self == (*ca != "") {
			return &usageError{err: errors.New("a certificate is signed by its own key or by a CA's: give one of --self-signed and --ca KEY")}
		}
		if *days < 1 {
			return &usageError{err: errors.New("a certificate is good for a day at least: give --days a number of 1 or more")}
		}
		template := &x509.Certificate{BasicConstraintsValid: true, IsCA: *authority, NotBefore: time.Now().Add(-clockSkew), NotAfter: time.Now().AddDate(0, 0, *days)}
		var der []byte
		var err error
		if *self {
			der, err = selfSigned(*mount, args[0], &names, template)
		} else {
			der, err = issued(*mount, args[0], *ca, *caFile, &names, template, c.Flags().Changed("days"))
		}
		if err != nil {
			return err
		}
		return pem.Encode(s.out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return c
}

// selfSigned makes a certificate of the key called name.
func selfSigned(mount, name string, names *nameFlags, template *x509.Certificate) (der []byte, err error) {
	if template.Subject, err = names.name(); err != nil {
		return nil, err
	}
	template.DNSNames, template.IPAddresses, template.EmailAddresses = names.dns, names.ips, names.emails
	key, err := findSigner(mount, name)
	if err != nil {
		return nil, err
	}
	uses(template, key.public)
	return x509.CreateCertificate(rand.Reader, template, template, key.public, key)
}

// issued makes a certificate of the request in file by the key ca. Without days it ends with
// that of the CA, if that is before.
func issued(mount, file, ca, caFile string, names *nameFlags, template *x509.Certificate, days bool) ([]byte, error) {
	if names.subject != "" || len(names.dns)+len(names.ips)+len(names.emails) > 0 {
		return nil, &usageError{err: errors.New("the names are those of the request: leave them out, or make another request")}
	}
	block, err := readPEM(file, "CERTIFICATE REQUEST")
	if err != nil {
		return nil, err
	}
	request, err := x509.ParseCertificateRequest(block)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	key, err := findSigner(mount, ca)
	if err != nil {
		return nil, err
	}
	if caFile == "" {
		caFile = filepath.Join(key.at.dir, strings.TrimSuffix(key.key, ".key")+".crt", "cert.pem")
	}
	block, err = readPEM(caFile, "CERTIFICATE")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no certificate of the CA beside %s: make it with p11fs cert --self-signed --authority, or name its file with --ca-cert", key.name)
	}
	if err != nil {
		return nil, err
	}
	parent, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caFile, err)
	}
	if !parent.IsCA {
		return nil, fmt.Errorf("%s is the certificate of no CA: make one with --authority", caFile)
	}
	if !days && template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter // nobody has said how long
	}
	if template.NotAfter.After(parent.NotAfter) {
		return nil, fmt.Errorf("the CA's certificate ends on %s: give --days a smaller number, or make that anew", parent.NotAfter.Format(time.DateOnly))
	}
	template.RawSubject = request.RawSubject
	template.DNSNames, template.IPAddresses, template.EmailAddresses, template.URIs = request.DNSNames, request.IPAddresses, request.EmailAddresses, request.URIs
	uses(template, request.PublicKey)
	return x509.CreateCertificate(rand.Reader, template, parent, request.PublicKey, key)
}

// uses says what a certificate is good for.
func uses(c *x509.Certificate, public any) {
	if c.IsCA {
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		return
	}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	if _, ok := public.(*rsa.PublicKey); ok {
		c.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// readPEM reads the first block of that type in a file, which may be DER as well.
func readPEM(path, kind string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRequestFile))
	if err != nil {
		return nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return text, nil
		}
		if block.Type == kind || block.Type == "NEW "+kind {
			return block.Bytes, nil
		}
	}
}
