package p11

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What parses prints back the same, with nothing lost but secrets.
func checkTemplateText(t *testing.T, a Attributes) {
	t.Helper()
	if err := a.Validate(); err != nil {
		t.Fatalf("what parses is not valid: %v", err)
	}
	full := a.text(textOptions{full: true})
	again, err := ParseTemplate(full)
	if err != nil {
		t.Fatalf("%q does not read back: %v", full, err)
	}
	if diff := cmp.Diff(rawOf(a), rawOf(again)); diff != "" {
		t.Fatalf("%q reads back otherwise:\n%s", full, diff)
	}
	text := a.Text()
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || !utf8.ValidString(text) {
		t.Fatalf("%q is not one printable line", text)
	}
	seen, err := ParseTemplate(text)
	if err != nil {
		t.Fatalf("%q does not read back: %v", text, err)
	}
	for _, x := range seen {
		if KindOf(x.Type) == KindTemplate {
			continue // its secrets are left out
		}
		if v, _ := a.Get(x.Type); !bytes.Equal(v, x.Value) {
			t.Fatalf("%v is %x, printed as %x", x.Type, v, x.Value)
		}
	}
	for _, x := range a {
		if seen.Has(x.Type) == a.Secret(x.Type) {
			t.Fatalf("%v: printed %v", x.Type, seen.Has(x.Type))
		}
	}
	if seen.Text() != text {
		t.Fatalf("%q prints again as %q", text, seen.Text())
	}
	decoded, err := DecodeTemplate(EncodeTemplate(a))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rawOf(a), rawOf(decoded)); diff != "" {
		t.Fatalf("encoding loses:\n%s", diff)
	}
}

// checkErrorText wants one line that ends, whatever the input was.
func checkErrorText(t *testing.T, err error) {
	t.Helper()
	s := err.Error()
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) || len(s) > 400 || s == "" {
		t.Fatalf("error %q is not one short line", s)
	}
	switch RVOf(err) {
	case CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT,
		CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID:
	default:
		t.Fatalf("error %q is %v", s, RVOf(err))
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, s := range []string{
		``,
		`class=private-key key-type=rsa label="web server" id=0x01 sign=true`,
		`CKA_CLASS=CKO_SECRET_KEY,value-len=32,allowed-mechanisms=aes-cbc+aes-gcm`,
		`label="a\"b\\c\n\xff" start-date=2026-01-31 end-date=""`,
		`wrap-template={class=secret-key,unwrap-template={sign=true}} public-exponent=65537`,
		`0x80000077=0x01 value="secret" class=certificate ec-params=p-256`,
		`wrap-template={value=0x00`,
		`label=x,,`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseTemplate(s)
		if err != nil {
			checkErrorText(t, err)
			return
		}
		checkTemplateText(t, a)
	})
}

func FuzzParseValue(f *testing.F) {
	for _, c := range []struct {
		typ AttributeType
		s   string
	}{
		{CKA_LABEL, "web server"}, {CKA_LABEL, `"a\xff"`}, {CKA_ID, "0x0102"}, {CKA_ID, `"id"`}, {CKA_CLASS, "data"},
		{CKA_MODULUS_BITS, "2048"}, {CKA_SIGN, "yes"}, {CKA_START_DATE, "2026-01-31"}, {CKA_PUBLIC_EXPONENT, "65537"},
		{CKA_ALLOWED_MECHANISMS, "aes-cbc+sha1"}, {CKA_WRAP_TEMPLATE, "{sign=true}"}, {CKA_EC_PARAMS, "p-256"},
		{CKA_VALUE, "0x01"}, {0x80000077, "00"}, {CKA_KEY_GEN_MECHANISM, "unavailable"}, {CKA_TRUST_SERVER_AUTH, "trusted"},
	} {
		f.Add(uint64(c.typ), c.s)
	}
	f.Fuzz(func(t *testing.T, typ uint64, s string) {
		at := AttributeType(typ)
		v, err := ParseValue(at, s)
		if err != nil {
			checkErrorText(t, err)
			return
		}
		text := formatValue(at, v, true)
		again, err := ParseValue(at, text)
		if err != nil || !bytes.Equal(v, again) {
			t.Fatalf("%v: %x prints as %q, which reads as %x, %v", at, v, text, again, err)
		}
		if text != formatValue(at, again, true) {
			t.Fatalf("%q prints again as %q", text, formatValue(at, again, true))
		}
		if SecretValue(at) && shown(at, v) != redacted {
			t.Fatalf("%v shows as %q", at, shown(at, v))
		}
	})
}

func FuzzParseMechanism(f *testing.F) {
	for _, s := range mechanismSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMechanism(s)
		if err != nil {
			checkErrorText(t, err)
			return
		}
		checkMechanismText(t, m)
	})
}

func FuzzParseOperation(f *testing.F) {
	for _, s := range mechanismSeeds() {
		f.Add(s)
		f.Add(s + `,class=secret-key,key-type=aes,label="x y",value=0x00`)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, a, err := ParseOperation(s)
		if err != nil {
			checkErrorText(t, err)
			return
		}
		checkMechanismText(t, m)
		checkTemplateText(t, a)
		whole := m.String()
		if text := a.text(textOptions{full: true}); text != "" {
			whole += "," + text
		}
		m2, a2, err := ParseOperation(whole)
		if err != nil {
			t.Fatalf("%q does not read back: %v", whole, err)
		}
		if diff := cmp.Diff(m, m2); diff != "" {
			t.Fatalf("mechanism of %q:\n%s", whole, diff)
		}
		if diff := cmp.Diff(rawOf(a), rawOf(a2)); diff != "" {
			t.Fatalf("attributes of %q:\n%s", whole, diff)
		}
	})
}

func mechanismSeeds() []string {
	return []string{
		"sha256-rsa-pkcs", "sha256-rsa-pkcs-pss,salt=32", "rsa-pkcs-pss,hash=sha1,mgf=sha256,salt=0",
		`rsa-pkcs-oaep,hash=sha256,source="label"`, "aes-cbc-pad,iv=" + iv16, "aes-gcm,iv=00,aad=0x01,tag=96",
		"aes-ctr,counter=" + iv16 + ",bits=32", "ecdh1-derive,kdf=sha256,shared=0x02,public=0x04",
		"sha256-hmac-general,mac=16", "rsa-aes-key-wrap,bits=128", "xor-base-and-data,data=0x00",
		"aes-cbc-encrypt-data,iv=" + iv16 + ",data=" + iv16, "dh-pkcs-derive,public=0x05", "0x80000077,param=0x01",
		"aes-gcm,,", "rot13",
	}
}

func checkMechanismText(t *testing.T, m Mechanism) {
	t.Helper()
	text := m.text(true)
	again, err := ParseMechanism(text)
	if err != nil {
		t.Fatalf("%q does not read back: %v", text, err)
	}
	if diff := cmp.Diff(m, again); diff != "" {
		t.Fatalf("%q reads back otherwise:\n%s", text, diff)
	}
	if again.text(true) != text {
		t.Fatalf("%q prints again as %q", text, again.text(true))
	}
}

// Decoding what a client sent never panics, and encodes back to the same.
func FuzzDecodeTemplate(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodeTemplate(mustTemplate(f, `class=data label=x wrap-template={sign=true}`)))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeTemplate(b)
		if err != nil {
			checkErrorText(t, err)
			return
		}
		if got := EncodeTemplate(a); !bytes.Equal(got, b) {
			t.Fatalf("%x encodes back as %x", b, got)
		}
		text := a.String()
		if err := a.Validate(); err == nil && !slices.ContainsFunc(a, func(x Attribute) bool { return a.Secret(x.Type) }) {
			if _, err := ParseTemplate(text); err != nil {
				t.Fatalf("%q does not read back: %v", text, err)
			}
		}
	})
}
