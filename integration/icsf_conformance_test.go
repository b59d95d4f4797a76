package integration

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsftest/icsfrig"
	"p11fs/tokens/icsf/icsftest/icsfserver"
)

// icsfRules are the rules of every token, but for those that want what the protocol of ICSF,
// as stock's token has it, has no words for.
func icsfRules() []tokenRule {
	const agrees = "wants ECDH: the protocol agrees by Diffie-Hellman in a group of numbers alone"
	without := map[string]string{
		"both sides derive one secret": agrees, "a point that is none of the curve": agrees, "no point": agrees,
		"a derived key is as safe as what it comes from": agrees, "a derived key is made as any other": agrees, "a key that does not derive": agrees,
	}
	kit := func(steps ...string) deviation {
		return deviation{kitParameters, kitDerives(steps...)["p11-kit-client"].are}
	}
	none := func(step string, rv p11.RV) deviation {
		return deviation{"ICSF has no such key", map[string]string{step: rv.String()}}
	}
	// What doors do otherwise than with other tokens.
	otherwise := map[string]map[string]deviation{
		"check values": {},
		"keys in forms of other programs": {
			"libp11fs": none("a key of HMAC over SHA-512/256", p11.CKR_ATTRIBUTE_VALUE_INVALID), "p11-kit-client": none("a key of HMAC over SHA-512/256", p11.CKR_ATTRIBUTE_VALUE_INVALID),
		},
		// p11-kit's client does not pass on the initialisation vector of AES in CBC.
		"a key that does not wrap": {"p11-kit-client": kit("wrap")}, "a key that does not unwrap": {"p11-kit-client": kit("unwrap")},
		"a key that stays is not wrapped":       {"p11-kit-client": kit("not extractable", "sensitive")},
		"a key that there is not":               {"p11-kit-client": kit("wrapped", "wrapping", "unwrapping")},
		"an unwrapped key is made as any other": {"p11-kit-client": kit("wrap")}, "the past of an unwrapped key": {"p11-kit-client": kit("wrap")},
	}
	for _, d := range daemonDoors(daemonConfig{}, "") {
		otherwise["check values"][d.name] = deviation{"ICSF tells none, and the value is not here", map[string]string{"of AES": p11.CKR_ATTRIBUTE_TYPE_INVALID.String()}}
	}
	rules := slices.DeleteFunc(elsewhereRules(), func(r tokenRule) bool { return without[r.name] != "" })
	for i, r := range rules {
		rules[i].wraps = mech(p11.CKM_AES_CBC_PAD, make([]byte, 16)...) // ECB wraps nothing
		for door, d := range otherwise[r.name] {
			rules[i].deviates = and(rules[i].deviates, door, d.why, d.are)
		}
	}
	return rules
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
	icsfrig.Answer(d.t, icsfserver.New(icsfserver.Config{Tokens: []string{icsfName}}), tls.NewListener(l, conf))
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
