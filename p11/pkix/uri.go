package pkix

import (
	"strings"

	"p11fs/p11"
)

// URI names an object on a token by the path attributes of RFC 7512 §2.3:
// model, manufacturer, serial and token of the token, id, object and type of
// the object. What the object or the token does not have is left out, so that
// the URI also finds the object through libraries that fill it in.
//
// Text is percent-encoded but for letters, digits and "-._~"; the bytes of the
// identifier are encoded all.
func URI(token p11.TokenInfo, attrs p11.Attributes) string {
	var b strings.Builder
	b.WriteString("pkcs11:")
	sep := ""
	put := func(name, value string, all bool) {
		if value == "" {
			return
		}
		b.WriteString(sep)
		sep = ";"
		b.WriteString(name)
		b.WriteByte('=')
		percent(&b, value, all)
	}
	put("model", token.Model, false)
	put("manufacturer", token.Manufacturer, false)
	put("serial", token.Serial, false)
	put("token", token.Label, false)
	id, _ := attrs.Get(p11.CKA_ID)
	put("id", string(id), true)
	put("object", attrs.Label(), false)
	class, _ := attrs.Class()
	switch class {
	case p11.CKO_CERTIFICATE:
		put("type", "cert", false)
	case p11.CKO_DATA:
		// CKO_DATA is 0, which is also the class of attributes without one.
		if attrs.Has(p11.CKA_CLASS) {
			put("type", "data", false)
		}
	case p11.CKO_PRIVATE_KEY:
		put("type", "private", false)
	case p11.CKO_PUBLIC_KEY:
		put("type", "public", false)
	case p11.CKO_SECRET_KEY:
		put("type", "secret-key", false)
	}
	return b.String()
}

// percent writes s percent-encoded, all bytes or those that are not unreserved
// (RFC 3986 §2.3).
func percent(b *strings.Builder, s string, all bool) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
		if plain && !all {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
}
