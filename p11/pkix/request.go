package pkix

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"

	"p11fs/p11"
)

// maxNames bounds how many names a request has.
const maxNames = 256

// ParseRequest reads whom a certificate request is for: a subject as [ParseSubject] takes
// it, and other names, one a line:
//
//	/CN=web/O=Example
//	dns=www.example.org
//	ip=192.0.2.1
//	email=me@example.org
//
// There must be one of them at least. The error wraps CKR_ARGUMENTS_BAD.
func ParseRequest(text string) (*x509.CertificateRequest, error) {
	r := &x509.CertificateRequest{}
	names := 0
	bad := func(line, what string) error {
		return p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%q %s", clip(line), what), "write a subject as /CN=web/O=Example, and each other name on a line as dns=NAME, ip=ADDRESS or email=ADDRESS")
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			continue
		}
		if names++; names > maxNames {
			return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the request has more than %d names", maxNames)
		}
		if strings.HasPrefix(line, "/") {
			if r.Subject.ExtraNames != nil {
				return nil, bad(line, "is a second subject")
			}
			subject, err := ParseSubject(line)
			if err != nil {
				return nil, err
			}
			r.Subject = subject
			continue
		}
		kind, value, _ := strings.Cut(line, "=")
		switch ip := net.ParseIP(value); {
		case value == "":
			return nil, bad(line, "is no name")
		case kind == "dns":
			r.DNSNames = append(r.DNSNames, value)
		case kind == "email":
			r.EmailAddresses = append(r.EmailAddresses, value)
		case kind == "ip" && ip != nil:
			r.IPAddresses = append(r.IPAddresses, ip)
		case kind == "ip":
			return nil, bad(line, "has no address")
		default:
			return nil, bad(line, "is no name of a kind that is known here")
		}
	}
	if names == 0 {
		return nil, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "nobody knows whose it is"), "write a subject, such as /CN=web, or a line such as dns=www.example.org")
	}
	return r, nil
}

// subjectTypes are the short names of RFC 4514 §3, and those that openssl has besides.
func subjectTypes() map[string]asn1.ObjectIdentifier {
	return map[string]asn1.ObjectIdentifier{
		"CN": {2, 5, 4, 3}, "serialNumber": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "street": {2, 5, 4, 9},
		"O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "title": {2, 5, 4, 12}, "SN": {2, 5, 4, 4}, "GN": {2, 5, 4, 42},
		"UID": {0, 9, 2342, 19200300, 100, 1, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25}, "emailAddress": {1, 2, 840, 113549, 1, 9, 1},
	}
}

// ParseSubject reads a name as openssl's option -subj has it: /TYPE=VALUE/..., where a
// backslash stands before a slash that is in a value. The error wraps CKR_ARGUMENTS_BAD.
func ParseSubject(text string) (name pkix.Name, err error) {
	bad := func(format string, args ...any) (pkix.Name, error) {
		return name, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, format, args...), "write it as /CN=web/O=Example")
	}
	if !strings.HasPrefix(text, "/") {
		return bad("the subject %q does not begin with a slash", clip(text))
	}
	known := subjectTypes()
	var words []string
	var word strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case text[i] == '/':
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteByte(text[i])
		}
	}
	if words = append(words, word.String()); len(words) > maxNames {
		return bad("the subject has more than %d parts", maxNames)
	}
	for _, w := range words {
		kind, value, ok := strings.Cut(w, "=")
		oid, isKnown := known[kind]
		switch {
		case !ok || value == "":
			return bad("the subject has %q, which is no TYPE=VALUE", clip(w))
		case !isKnown:
			return bad("the subject has the type %q, which is not known here", clip(kind))
		}
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: oid, Value: value})
	}
	return name, nil
}
