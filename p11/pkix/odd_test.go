package pkix_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// el is an ASN.1 element.
func el(tag byte, contents ...[]byte) []byte {
	body := bytes.Join(contents, nil)
	size := []byte{byte(len(body))}
	switch {
	case len(body) > 0xff:
		size = []byte{0x82, byte(len(body) >> 8), byte(len(body))}
	case len(body) > 0x7f:
		size = []byte{0x81, byte(len(body))}
	}
	return slices.Concat([]byte{tag}, size, body)
}

func seq(contents ...[]byte) []byte { return el(0x30, contents...) }

// A made is a certificate in its parts, each of which is an element.
type made struct {
	version, serial, alg, issuer, notBefore, notAfter, subject, spki, unique, extensions []byte

	outerAlg, signature []byte
}

func (m made) der() []byte {
	tbs := seq(m.version, m.serial, m.alg, m.issuer, seq(m.notBefore, m.notAfter), m.subject, m.spki, m.unique, m.extensions)
	return seq(tbs, m.outerAlg, m.signature)
}

// name is a distinguished name of one common name.
func name(tag byte, text string) []byte { return seq(rdn("\x55\x04\x03", tag, text)) }

func rdn(oid string, tag byte, text string) []byte {
	return el(0x31, seq(el(6, []byte(oid)), el(tag, []byte(text))))
}

func extensions(list ...[]byte) []byte { return el(0xa3, seq(list...)) }

func extension(oid string, more ...[]byte) []byte {
	return seq(append([][]byte{el(6, []byte(oid))}, more...)...)
}

// plainCertificate is one that nobody finds odd.
func plainCertificate(t testing.TB) made {
	t.Helper()
	block, _ := pem.Decode(readFile(t, "prime256v1.pub.pem"))
	alg := seq(el(6, []byte("\x2a\x86\x48\xce\x3d\x04\x03\x02")))
	return made{
		version: el(0xa0, el(2, []byte{2})), serial: el(2, []byte{7}), alg: alg, issuer: name(12, "issuer"),
		notBefore: el(23, []byte("260101000000Z")), notAfter: el(23, []byte("360101000000Z")),
		subject: name(12, "subject"), spki: block.Bytes, outerAlg: alg,
		signature: el(3, []byte{0}, seq(el(2, []byte{1}), el(2, []byte{1}))),
	}
}

// oddities are certificates that somebody has issued, or could: one thing is odd in each.
func oddities(t testing.TB) map[string]func(m *made) {
	const keyUsage = "\x55\x1d\x0f"
	spki := func(file string) func(m *made) {
		return func(m *made) {
			block, _ := pem.Decode(readFile(t, file))
			m.spki = block.Bytes
		}
	}
	subject := func(tag byte, text string) func(m *made) { return func(m *made) { m.subject = name(tag, text) } }
	from := func(tag byte, text string) func(m *made) {
		return func(m *made) { m.notBefore = el(tag, []byte(text)) }
	}
	serial := func(b ...byte) func(m *made) { return func(m *made) { m.serial = el(2, b) } }
	extended := func(list ...[]byte) func(m *made) { return func(m *made) { m.extensions = extensions(list...) } }
	dsaKey := func(m *made) { // of numbers that do not matter
		m.spki = seq(seq(el(6, []byte("\x2a\x86\x48\xce\x38\x04\x01")), seq(el(2, []byte{23}), el(2, []byte{11}), el(2, []byte{4}))), el(3, []byte{0}, el(2, []byte{9})))
	}
	return map[string]func(m *made){
		"nothing":                    func(*made) {},
		"negative serial":            serial(0xff),
		"long negative serial":       serial(bytes.Repeat([]byte{0x9c}, 16)...),
		"serial zero":                serial(0),
		"serial of 40 bytes":         serial(append([]byte{1}, make([]byte, 39)...)...),
		"padded serial":              serial(0, 7),
		"empty serial":               serial(),
		"version 1":                  func(m *made) { m.version = nil },
		"version 1, spelt out":       func(m *made) { m.version = el(0xa0, el(2, []byte{0})) },
		"version 2":                  func(m *made) { m.version = el(0xa0, el(2, []byte{1})) },
		"version 6":                  func(m *made) { m.version = el(0xa0, el(2, []byte{5})) },
		"empty issuer":               func(m *made) { m.issuer = seq() },
		"empty subject":              func(m *made) { m.subject = seq() },
		"empty names":                func(m *made) { m.subject, m.issuer = seq(), seq() },
		"IA5String with high bytes":  subject(22, "Z\xfcrich"),
		"PrintableString with an @":  subject(19, "a@b_c*"),
		"UTF8String that is none":    subject(12, "Z\xfcrich"),
		"T61String":                  subject(20, "Z\xfcrich"),
		"BMPString":                  subject(30, "\x00Z\x00\xfc"),
		"BMPString of an odd length": subject(30, "\x00Z\x00"),
		"UniversalString":            subject(28, "\x00\x00\x00Z"),
		"NUL in the name":            subject(12, "web\x00.example.org"),
		"name of 300 characters":     subject(12, strings.Repeat("long ", 60)),
		"name that is a number":      subject(2, "\x05"),
		"country of three letters":   func(m *made) { m.subject = seq(rdn("\x55\x04\x06", 19, "DEU")) },
		"e-mail in the name":         func(m *made) { m.subject = seq(rdn("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", 22, "a@b")) },
		"attribute of a huge number": func(m *made) { m.subject = seq(rdn("\x69\x83\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 12, "x")) },
		"several values in one": func(m *made) {
			m.subject = seq(el(0x31, seq(el(6, []byte("\x55\x04\x03")), el(12, []byte("a"))), seq(el(6, []byte("\x55\x04\x0a")), el(12, []byte("b")))))
		},
		"an empty set in the name":     func(m *made) { m.subject = seq(el(0x31)) },
		"UTCTime without seconds":      from(23, "2601010000Z"),
		"UTCTime with an offset":       from(23, "260101000000+0100"),
		"month 13":                     from(23, "261301000000Z"),
		"year 0000":                    from(24, "00000101000000Z"),
		"GeneralizedTime before 2050":  from(24, "20260101000000Z"),
		"fractions of seconds":         from(24, "20260101000000.5Z"),
		"local time":                   from(24, "20260101000000"),
		"a time that is none":          from(23, "yesterday"),
		"ends before it begins":        from(23, "400101000000Z"),
		"Brainpool":                    spki("brainpoolP256r1.pub.pem"),
		"secp256k1":                    spki("secp256k1.pub.pem"),
		"compressed point":             spki("prime256v1.compressed.pub.pem"),
		"Ed25519":                      spki("ed25519.pub.pem"),
		"DSA":                          dsaKey,
		"key of an unknown algorithm":  func(m *made) { m.spki = seq(seq(el(6, []byte{0x2a, 3, 4})), el(3, []byte{0, 1, 2, 3})) },
		"key that is no key":           func(m *made) { m.spki = seq(seq(el(6, []byte(oidRSABytes)), el(5)), el(3, []byte{0, 1, 2, 3})) },
		"key of 13 bits":               func(m *made) { m.spki = seq(seq(el(6, []byte{0x2a, 3, 4})), el(3, []byte{3, 1, 8})) },
		"empty key":                    func(m *made) { m.spki = seq(seq(el(6, []byte{0x2a, 3, 4})), el(3, []byte{0})) },
		"two signature algorithms":     func(m *made) { m.outerAlg = seq(el(6, []byte(oidRSABytes)), el(5)) },
		"unknown signature algorithm":  func(m *made) { m.alg = seq(el(6, []byte{0x2a, 3, 4})); m.outerAlg = m.alg },
		"empty signature":              func(m *made) { m.signature = el(3, []byte{0}) },
		"signature in pieces":          func(m *made) { m.signature = el(0x23, el(3, []byte{0, 1}), el(3, []byte{0, 2})) },
		"unique identifier":            func(m *made) { m.unique = el(0x81, []byte{0, 1}) },
		"an extension twice":           extended(extension(keyUsage, el(4, el(3, []byte{7, 0x80}))), extension(keyUsage, el(4, el(3, []byte{7, 0x80})))),
		"unknown critical extension":   extended(extension("\x2a\x03\x04", el(1, []byte{0xff}), el(4))),
		"extension with garbage":       extended(extension(keyUsage, el(4, []byte("garbage")))),
		"critical is 1":                extended(extension(keyUsage, el(1, []byte{1}), el(4, el(3, []byte{7, 0x80})))),
		"critical is false, spelt out": extended(extension(keyUsage, el(1, []byte{0}), el(4, el(3, []byte{7, 0x80})))),
		"no extension in extensions":   extended(),
		"extensions in version 1":      func(m *made) { m.version = nil; m.extensions = extensions(extension(keyUsage, el(4))) },
	}
}

const oidRSABytes = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"

// TestOddCertificates has the openssl command for a judge: what it reads, a token keeps,
// as it came.
func TestOddCertificates(t *testing.T) {
	variants := make(map[string][]byte)
	for name, odd := range oddities(t) {
		m := plainCertificate(t)
		odd(&m)
		variants[name] = m.der()
	}
	whole := plainCertificate(t).der()
	inside := contents(t, whole)
	tbs := inside[:len(inside)-len(rest(t, inside))]
	end := []byte{0, 0}
	variants["indefinite length"] = slices.Concat([]byte{0x30, 0x80}, inside, end)
	variants["indefinite length within"] = seq([]byte{0x30, 0x80}, contents(t, tbs), end, rest(t, inside))
	variants["a length longer than need be"] = slices.Concat([]byte{0x30, 0x83, 0, byte(len(inside) >> 8), byte(len(inside))}, inside)
	variants["bytes behind it"] = slices.Concat(whole, []byte("\n"))
	variants["cut"] = whole[:len(whole)-1]
	for _, name := range []string{"serial-negative.pem", "ec-bp256.pem", "ia5-high.pem"} {
		variants[name] = pemBytes(t, name)
	}
	dir, read := t.TempDir(), 0
	openssl(t, "version")
	for name, der := range variants {
		path := filepath.Join(dir, "c.der")
		if err := os.WriteFile(path, der, 0o600); err != nil {
			t.Fatal(err)
		}
		judged := exec.Command("openssl", "x509", "-in", path, "-inform", "DER", "-noout").Run() == nil
		got, err := pkix.Parse(pkix.Certificate, der, pkix.Options{})
		switch {
		case judged && err != nil:
			t.Errorf("%s: openssl reads it, and here it is refused: %v", name, err)
		case !judged:
			continue
		}
		read++
		if err != nil {
			continue
		}
		value, _ := got[0].Get(p11.CKA_VALUE)
		if len(got) != 1 || !bytes.HasPrefix(der, value) || len(der)-len(value) > 1 {
			t.Errorf("%s: %d objects, and a value that is not as it came", name, len(got))
		}
		// What is shown can be put back.
		shown, err := pkix.CertificatePEM(got[0])
		if err != nil {
			t.Fatal(err)
		}
		again, err := pkix.Parse(pkix.Certificate, shown, pkix.Options{})
		if err != nil || len(again) != 1 || !got[0].Match(again[0]) {
			t.Errorf("%s: does not come back: %v, %v", name, again, err)
		}
		if _, err := pkix.PublicPEM(got[0]); err != nil {
			t.Errorf("%s: its public key: %v", name, err)
		}
	}
	if read < 45 {
		t.Errorf("openssl reads %d of %d", read, len(variants))
	}
}

// contents is what the first element holds, and rest what is behind it.
func contents(t *testing.T, der []byte) []byte {
	t.Helper()
	var v asn1.RawValue
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		t.Fatal(err)
	}
	return v.Bytes
}

func rest(t *testing.T, der []byte) []byte {
	t.Helper()
	var v asn1.RawValue
	left, err := asn1.Unmarshal(der, &v)
	if err != nil {
		t.Fatal(err)
	}
	return left
}
