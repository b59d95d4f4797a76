package integration

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/icsf"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsftest/icsfserver"
)

// icsfRules are the rules of every token but for those that want what ICSF's services have not.
func icsfRules() []tokenRule {
	without := map[string]string{
		"the past of an unwrapped key": "wraps with AES in ECB", "a key that stays is not wrapped": "wraps with AES in ECB",
		"a key that there is not": "wraps with AES in ECB", "an unwrapped key is made as any other": "wraps with AES in ECB",
		"a key that does not wrap": "wraps with AES in ECB", "a key that does not unwrap": "wraps with AES in ECB",
		"both sides derive one secret": "derives", "a point that is none of the curve": "derives", "no point": "derives",
		"a derived key is as safe as what it comes from": "derives", "a derived key is made as any other": "derives", "a key that does not derive": "derives",
		"check values":                             "computes one of a key whose value is here",
		"keys in forms of other programs":          "imports keys of HMAC types",
		"a question for a length computes nothing": "wants the output of AES part by part",
	}
	return slices.DeleteFunc(elsewhereRules(), func(r tokenRule) bool { return without[r.name] != "" })
}

// TestICSFConformance asks the rules of PKCS#11 of a token of ICSF, through every door. Its
// server knows it by a certificate, as the rules want objects without a login too.
func TestICSFConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("asks each rule of a server, which takes a minute of processor time")
	}
	t.Parallel()
	conform(t, daemonDoors(daemonConfig{token: icsf.Kind, modern: true, binary: plainBinary(t), pins: icsffile.SASL}, tokens.DefaultSOPIN), icsfRules())
}

// giveICSF gives a daemon's token a server to itself.
func (d *daemon) giveICSF() {
	d.t.Helper()
	cert := filepath.Join(d.dir, "cert.pem")
	text, err := icsfserver.Certificate()
	if err == nil {
		err = os.WriteFile(cert, text, 0o600)
	}
	var conf *tls.Config
	if err == nil {
		conf, err = icsfserver.TLS(cert, cert, cert)
	}
	var l net.Listener
	if err == nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		d.t.Fatal(err)
	}
	runICSF(d.t, icsfserver.New(icsfserver.Config{Tokens: []string{icsfName}}), tls.NewListener(l, conf))
	c := icsffile.Config{
		Name: icsfName, Manufacturer: "IBM z/OS ICSF", Model: "ICSF TKDS", Serial: "SER0", Mech: icsffile.SASL,
		URI: "ldaps://" + l.Addr().String(), CACert: cert, Cert: cert, Key: cert,
	}
	file := filepath.Join(d.dir, "opencryptoki.conf")
	for name, text := range map[string][]byte{
		file:                              []byte("slot 1\n{\nstdll = libpkcs11_icsf.so\nconfname = icsf.conf\n}\n"),
		filepath.Join(d.dir, "icsf.conf"): c.Print(1),
	} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	d.c.args = append(slices.Clone(d.c.args), "--config", file)
}
