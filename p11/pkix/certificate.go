package pkix

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"p11fs/p11"
)

// certificate reads an X.509 certificate.
func (p *parser) certificate(der []byte, label string) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formCertificate, err)
	}
	_, bits, ok := readSPKI(cert.RawSubjectPublicKeyInfo)
	if !ok {
		return invalid(formCertificate)
	}
	var serial cryptobyte.Builder
	serial.AddASN1BigInt(cert.SerialNumber)
	serialDER, err := serial.Bytes()
	if err != nil {
		return invalid(formCertificate)
	}
	if label == "" {
		label = cleanLabel(cert.Subject.CommonName)
	}
	var a p11.Attributes
	a.SetUlong(p11.CKA_CERTIFICATE_TYPE, uint64(p11.CKC_X_509))
	a.Set(p11.CKA_SUBJECT, bytes.Clone(cert.RawSubject))
	a.Set(p11.CKA_ISSUER, bytes.Clone(cert.RawIssuer))
	a.Set(p11.CKA_SERIAL_NUMBER, serialDER)
	a.Set(p11.CKA_VALUE, bytes.Clone(cert.Raw))
	return p.add(p11.CKO_CERTIFICATE, keyID(bits), label, a)
}

// objectCertificate parses CKA_VALUE of a certificate object.
func objectCertificate(attrs p11.Attributes) (*x509.Certificate, error) {
	der, err := certificateDER(attrs)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "certificate: %v", err)
	}
	return cert, nil
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

// CertificatePEM prints an X.509 certificate object as a PEM block. The value is
// printed as it is stored, whether or not it parses.
func CertificatePEM(attrs p11.Attributes) ([]byte, error) {
	der, err := certificateDER(attrs)
	if err != nil {
		return nil, err
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
