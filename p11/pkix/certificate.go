package pkix

import (
	"bytes"
	"encoding/pem"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// A shallow is what of a certificate is looked at (RFC 5280 §4.1): whole elements, and
// nothing in them. A token keeps certificates and is no judge of them: other programs
// read names, numbers and dates that no standard allows, and keys of any sort.
type shallow struct {
	serial, issuer, subject, spki []byte
	bits                          []byte // of subjectPublicKey
}

// readCertificate finds the parts of a certificate, in DER or, if need be, in BER. What
// comes after it is no part of it: n is its length.
func readCertificate(data []byte) (c shallow, n int, ok bool) {
	in := cryptobyte.String(data)
	var whole cryptobyte.String
	if in.ReadASN1Element(&whole, asn1.SEQUENCE) && c.read(whole) {
		return c, len(whole), true
	}
	der, rest, ok := berFirst(data)
	return c, len(data) - len(rest), ok && c.read(der)
}

// read finds the parts of a certificate.
func (c *shallow) read(der []byte) bool {
	in := cryptobyte.String(der)
	var cert, tbs, spki, bits cryptobyte.String
	ok := in.ReadASN1(&cert, asn1.SEQUENCE) && in.Empty() && cert.ReadASN1(&tbs, asn1.SEQUENCE) &&
		cert.SkipASN1(asn1.SEQUENCE) && cert.SkipASN1(asn1.BIT_STRING) && cert.Empty() &&
		tbs.SkipOptionalASN1(asn1.Tag(0).ContextSpecific().Constructed()) &&
		tbs.ReadASN1Element((*cryptobyte.String)(&c.serial), asn1.INTEGER) && tbs.SkipASN1(asn1.SEQUENCE) &&
		tbs.ReadASN1Element((*cryptobyte.String)(&c.issuer), asn1.SEQUENCE) && tbs.SkipASN1(asn1.SEQUENCE) &&
		tbs.ReadASN1Element((*cryptobyte.String)(&c.subject), asn1.SEQUENCE) &&
		tbs.ReadASN1Element((*cryptobyte.String)(&c.spki), asn1.SEQUENCE)
	spki = c.spki
	ok = ok && spki.ReadASN1(&spki, asn1.SEQUENCE) && spki.SkipASN1(asn1.SEQUENCE) && spki.ReadASN1(&bits, asn1.BIT_STRING) && len(bits) > 0
	if ok {
		c.bits = bits[1:] // behind how many bits do not count
	}
	return ok
}

// certificate takes a certificate as it came.
func (p *parser) certificate(data []byte, label string) error {
	c, n, ok := readCertificate(data)
	switch {
	case !ok && p.kind == Certificate: // nobody reads there what was left out
		return p11.Errorf(p11.CKR_DATA_INVALID, "a damaged certificate, or a request or revocation list in its place")
	case !ok:
		return p.skip("a damaged certificate, or a request or revocation list in its place")
	case n < len(data):
		if err := p.skip(strconv.Itoa(len(data)-n) + " bytes after a certificate"); err != nil {
			return err
		}
	}
	if label == "" {
		label = commonName(c.subject)
	}
	var a p11.Attributes
	a.SetUlong(p11.CKA_CERTIFICATE_TYPE, uint64(p11.CKC_X_509))
	a.Set(p11.CKA_SUBJECT, bytes.Clone(c.subject))
	a.Set(p11.CKA_ISSUER, bytes.Clone(c.issuer))
	a.Set(p11.CKA_SERIAL_NUMBER, bytes.Clone(c.serial))
	a.Set(p11.CKA_VALUE, bytes.Clone(data[:n]))
	return p.add(p11.CKO_CERTIFICATE, keyID(c.bits), label, a)
}

// CommonName is the label that a certificate gets where nobody gives it one.
func CommonName(attrs p11.Attributes) string {
	subject, _ := attrs.Get(p11.CKA_SUBJECT)
	return commonName(subject)
}

// commonName is the last common name of a subject that can be read.
func commonName(subject cryptobyte.String) (name string) {
	var set, one, oid, text cryptobyte.String
	var tag asn1.Tag
	if !subject.ReadASN1(&subject, asn1.SEQUENCE) {
		return ""
	}
	for subject.ReadASN1(&set, asn1.SET) {
		for set.ReadASN1(&one, asn1.SEQUENCE) {
			if !one.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || string(oid) != "\x55\x04\x03" || !one.ReadAnyASN1(&text, &tag) {
				continue
			}
			if label := cleanLabel(decodeText(tag, text)); label != "" {
				name = label
			}
		}
	}
	return name
}

// tagBMPString is a string of UTF-16.
const tagBMPString = asn1.Tag(30)

// decodeText reads a string of any of ASN.1's types. Bytes that should be ASCII and are
// not are taken for Latin-1, which is what writes them.
func decodeText(tag asn1.Tag, text []byte) string {
	if tag == tagBMPString && len(text)%2 == 0 {
		units := make([]uint16, len(text)/2)
		for i := range units {
			units[i] = uint16(text[2*i])<<8 | uint16(text[2*i+1])
		}
		return string(utf16.Decode(units))
	}
	if utf8.Valid(text) {
		return string(text)
	}
	latin := make([]rune, len(text))
	for i, b := range text {
		latin[i] = rune(b)
	}
	return string(latin)
}

// PublicOf returns the attributes that tell the public key of a certificate: those of
// every object of the pair that has them. ok is false for a key of another sort.
func PublicOf(cert p11.Attributes) (pub p11.Attributes, ok bool) {
	der, err := publicDER(cert)
	if err != nil {
		return nil, false
	}
	_, pub, ok = publicAttributes(der)
	return pub, ok
}

func certificateDER(attrs p11.Attributes) ([]byte, error) {
	if class, _ := attrs.Class(); class != p11.CKO_CERTIFICATE {
		return nil, p11.Errorf(p11.CKR_OBJECT_HANDLE_INVALID, "an object of class %s is not a certificate", class.Short())
	}
	if t, ok := attrs.Ulong(p11.CKA_CERTIFICATE_TYPE); !ok || p11.CertificateType(t) != p11.CKC_X_509 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "not an X.509 certificate")
	}
	der, ok := attrs.Get(p11.CKA_VALUE)
	if !ok || len(der) == 0 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the certificate object has no value")
	}
	return der, nil
}

// CertificatePEM prints an X.509 certificate object as a PEM block, which Parse takes
// back: the value as it is stored, if it is one.
func CertificatePEM(attrs p11.Attributes) ([]byte, error) {
	der, err := certificateDER(attrs)
	if err != nil {
		return nil, err
	}
	if _, _, ok := readCertificate(der); !ok {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the value is no certificate: the object's file value has it as it is")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// cleanLabel makes a label of text from a file: printable, trimmed, and at most
// 64 characters.
func cleanLabel(s string) string {
	if !utf8.ValidString(s) {
		return ""
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 64 {
		s = string(runes[:64])
	}
	return strings.TrimSpace(s)
}
