package pkix_test

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// kinds are the objects in words: the key type of a secret key, the class of others.
func kinds(list []p11.Attributes) string {
	var words []string
	for _, a := range list {
		class, _ := a.Class()
		word := class.Short()
		if class == p11.CKO_SECRET_KEY {
			kt, _ := a.KeyType()
			word = kt.Short()
		}
		if l := a.Label(); l != "" {
			word += "=" + l
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// TestBundles reads files of several things, of which some are no key or certificate:
// those are named, and the others come in.
func TestBundles(t *testing.T) {
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	cert := readFile(t, "rsa.crt.pem")
	odd := readFile(t, "serial-negative.pem")
	tests := []struct {
		name, pass string
		data       []byte
		want       string
		skipped    []string
	}{
		{"of HAProxy", "", readFile(t, "haproxy.pem"), "certificate=p12test private-key=p12test public-key=p12test", []string{`"X9.42 DH PARAMETERS"`}},
		{"with a byte order mark", "", append([]byte("\xef\xbb\xbf"), cert...), "certificate=web.example.org", nil},
		{"with one in the middle", "", slices.Concat(odd, []byte("\xef\xbb\xbf"), cert), "certificate=odd certificate=web.example.org", nil},
		{"with lists and requests", "", slices.Concat(block("X509 CRL", []byte{0x30, 0}), cert, block("CERTIFICATE REQUEST", []byte{0x30, 0})),
			"certificate=web.example.org", []string{`"X509 CRL"`, `"CERTIFICATE REQUEST"`}},
		{"with a damaged certificate", "", slices.Concat(block("CERTIFICATE", []byte{0x30, 0}), cert), "certificate=web.example.org", []string{"a damaged certificate"}},
		{"with an odd certificate", "", slices.Concat(odd, cert), "certificate=odd certificate=web.example.org", nil},
		{"of NSS, in BER", "secret", readFile(t, "nss.p12"), "private-key=my name public-key=my name certificate=my name", nil},
		{"of Java, with secret keys", "secret12", readFile(t, "java.p12"),
			"aes=disk generic-secret=mac private-key=web public-key=web certificate=web", []string{`1.3.14.3.2.17, "old"`}},
		{"key with an odd certificate", passphrase, readFile(t, "odd.p12"), "certificate=odd private-key=odd public-key=odd", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opt := options(t, test.pass)
			var skipped []string
			opt.Skipped = func(what string) { skipped = append(skipped, what) }
			got, err := pkix.Parse(pkix.Auto, test.data, opt)
			if err != nil {
				t.Fatal(err)
			}
			if said := kinds(got); said != test.want {
				t.Errorf("%s, want %s", said, test.want)
			}
			if !slices.EqualFunc(skipped, test.skipped, strings.Contains) {
				t.Errorf("%q are named, want %q", skipped, test.skipped)
			}
		})
	}
	t.Run("132 roots", func(t *testing.T) {
		var roots []byte
		for i := range 131 {
			m := plainCertificate(t)
			m.serial = el(2, []byte{1, byte(i)})
			roots = append(roots, block("CERTIFICATE", m.der())...)
		}
		if got, err := pkix.Parse(pkix.Certificate, append(roots, odd...), pkix.Options{}); err != nil || len(got) != 132 {
			t.Errorf("%d certificates, %v", len(got), err)
		}
	})
	t.Run("the key of the certificate is found", func(t *testing.T) {
		for _, name := range []string{"rsa", "prime256v1"} {
			pub, ok := pkix.PublicOf(parse(t, name+".crt.pem", "")[0])
			if key := parse(t, name+".pem", "")[1]; !ok || !key.Match(pub) {
				t.Errorf("%s: %v", name, pub)
			}
		}
	})
}

// TestBER checks the forms of X.690 that DER has not.
func TestBER(t *testing.T) {
	for ber, want := range map[string]string{
		"\x30\x00":                                           "\x30\x00",
		"\x30\x80\x00\x00":                                   "\x30\x00",
		"\x30\x81\x03\x02\x01\x05":                           "\x30\x03\x02\x01\x05",
		"\x30\x82\x00\x03\x02\x01\x05":                       "\x30\x03\x02\x01\x05",
		"\x24\x80\x04\x01a\x04\x01b\x00\x00":                 "\x04\x02ab",
		"\x24\x06\x04\x01a\x04\x01b":                         "\x04\x02ab",
		"\x24\x80\x24\x80\x04\x01a\x00\x00\x04\x01b\x00\x00": "\x04\x02ab",
		"\x2c\x06\x04\x01a\x0c\x01b":                         "\x0c\x02ab",
		"\x23\x08\x03\x02\x00a\x03\x02\x04b":                 "\x03\x03\x04ab",
		"\xa0\x80\x04\x01a\x04\x01b\x00\x00":                 "\xa0\x06\x04\x01a\x04\x01b",
		"\xbf\x81\x01\x80\x05\x00\x00\x00":                   "\xbf\x81\x01\x02\x05\x00",
		"":                                                   "no",
		"\x30":                                               "no",
		"\x30\x80":                                           "no",
		"\x30\x80\x00":                                       "no",
		"\x04\x80\x00\x00":                                   "no", // primitive, without a length
		"\x30\x02\x02\x01":                                   "no",
		"\x30\x84\xff\xff\xff\xff":                           "no",
		"\x30\xff":                                           "no",
		"\x24\x03\x02\x01a":                                  "no", // a number in a string
		"\x23\x08\x03\x02\x04a\x03\x02\x00b":                 "no", // bits that do not count, in the middle
		"\x30\x00\x00":                                       "no", // more behind it
		string(bytes.Repeat([]byte("\x30\x80"), 40)) + string(make([]byte, 80)): "no", // too deep
	} {
		der, ok := pkix.ToDER([]byte(ber))
		if got := string(der); ok && got != want || ok != (want != "no") {
			t.Errorf("%x: %x, %v", ber, got, ok)
		}
	}
}
