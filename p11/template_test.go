package p11

import (
	"strings"
	"testing"
)

func TestParseTemplate(t *testing.T) {
	for _, c := range []struct {
		in   string
		text string // "" for the same
		want Attributes
	}{
		{in: ``, want: nil},
		{in: " \t ", text: ``, want: nil},
		{
			in: `class=private-key key-type=rsa label="web server" id=0x01 sign=true`,
			want: Attributes{{CKA_CLASS, Ulong(CKO_PRIVATE_KEY)}, {CKA_KEY_TYPE, Ulong(CKK_RSA)},
				{CKA_LABEL, []byte("web server")}, {CKA_ID, []byte{1}}, {CKA_SIGN, Bool(true)}},
		},
		{
			in:   `CKA_CLASS=CKO_SECRET_KEY,cka_key_type=ckk_aes ,	value-len=0x20, token=YES private=0`,
			text: `class=secret-key key-type=aes value-len=32 token=true private=false`,
			want: Attributes{{CKA_CLASS, Ulong(CKO_SECRET_KEY)}, {CKA_KEY_TYPE, Ulong(CKK_AES)},
				{CKA_VALUE_LEN, Ulong(uint64(32))}, {CKA_TOKEN, Bool(true)}, {CKA_PRIVATE, Bool(false)}},
		},
		{in: `label="a\"b\\c\n\x00\xffä"`, want: Attributes{{CKA_LABEL, []byte("a\"b\\c\n\x00\xffä")}}},
		{in: `label="a\rb\tc"`, want: Attributes{{CKA_LABEL, []byte("a\rb\tc")}}},
		{in: `label="0x41"`, text: `label=0x41`, want: Attributes{{CKA_LABEL, []byte("0x41")}}},
		{in: `label=`, text: `label=""`, want: Attributes{{CKA_LABEL, []byte{}}}},
		{in: `label=a=b`, text: `label="a=b"`, want: Attributes{{CKA_LABEL, []byte("a=b")}}},
		{in: `label=Größe`, text: `label="Größe"`, want: Attributes{{CKA_LABEL, []byte("Größe")}}},
		{in: `label="a, b" id=""`, want: Attributes{{CKA_LABEL, []byte("a, b")}, {CKA_ID, []byte{}}}, text: `label="a, b" id=0x`},
		{in: `sign=true label:=a, "b' {c}\=:= ,` + "\t\r ", text: `sign=true label="a, \"b' {c}\\=:= ,\t\r "`,
			want: Attributes{{CKA_SIGN, Bool(true)}, {CKA_LABEL, []byte("a, \"b' {c}\\=:= ,\t\r ")}}},
		{in: "label:=two\nsign=true", text: `label="two\nsign=true"`, want: Attributes{{CKA_LABEL, []byte("two\nsign=true")}}},
		{in: `label:=`, text: `label=""`, want: Attributes{{CKA_LABEL, []byte{}}}},
		{in: `id:=web`, text: `id=0x776562`, want: Attributes{{CKA_ID, []byte("web")}}},
		{in: `wrap-template={label:=x y}`, text: `wrap-template={label="x y"}`,
			want: Attributes{{CKA_WRAP_TEMPLATE, EncodeTemplate(Attributes{{CKA_LABEL, []byte("x y")}})}}},
		{in: `class=4 key-type=31 key-gen-mechanism=4224`, text: `class=secret-key key-type=aes key-gen-mechanism=aes-key-gen`,
			want: Attributes{{CKA_CLASS, Ulong(CKO_SECRET_KEY)}, {CKA_KEY_TYPE, Ulong(CKK_AES)}, {CKA_KEY_GEN_MECHANISM, Ulong(CKM_AES_KEY_GEN)}}},
		{in: `id=CAFE`, text: `id=0xcafe`, want: Attributes{{CKA_ID, []byte{0xca, 0xfe}}}},
		{in: `id="web"`, text: `id=0x776562`, want: Attributes{{CKA_ID, []byte("web")}}},
		{in: `start-date=2026-01-31 end-date=""`, want: Attributes{{CKA_START_DATE, []byte("20260131")}, {CKA_END_DATE, []byte{}}}},
		{in: `public-exponent=65537`, text: `public-exponent=0x010001`, want: Attributes{{CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}}}},
		{in: `public-exponent=0x10001`, text: `public-exponent=0x010001`, want: Attributes{{CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}}}},
		{in: `public-exponent=0`, text: `public-exponent=0x00`, want: Attributes{{CKA_PUBLIC_EXPONENT, []byte{0}}}},
		{
			in:   `allowed-mechanisms=rsa-pkcs+CKM_SHA256_RSA_PKCS+0x80000077`,
			text: `allowed-mechanisms=rsa-pkcs+sha256-rsa-pkcs+0x80000077`,
			want: Attributes{{CKA_ALLOWED_MECHANISMS, append(append(Ulong(CKM_RSA_PKCS), Ulong(CKM_SHA256_RSA_PKCS)...), Ulong(uint64(0x80000077))...)}},
		},
		{in: `allowed-mechanisms=""`, want: Attributes{{CKA_ALLOWED_MECHANISMS, []byte{}}}},
		{in: `0x80000077=0x01 0x80000001=0x02`, text: `0x80000077=0x01`, want: Attributes{{0x80000077, []byte{1}}, {CKA_IBM_OPAQUE, []byte{2}}}},
		{in: `class=0x80000007`, want: Attributes{{CKA_CLASS, Ulong(uint64(0x80000007))}}},
		{in: `key-gen-mechanism=unavailable`, want: Attributes{{CKA_KEY_GEN_MECHANISM, Ulong(uint64(CK_UNAVAILABLE_INFORMATION))}}},
		{in: `ec-params=P-256`, text: `ec-params=secp256r1`, want: Attributes{{CKA_EC_PARAMS, []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")}}},
		{in: `ec-params=0x0603`, want: Attributes{{CKA_EC_PARAMS, []byte{6, 3}}}},
		{in: `ecdsa-params=0x06082a8648ce3d030107`, text: `ec-params=secp256r1`, want: Attributes{{CKA_EC_PARAMS, []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")}}},
		{in: `certificate-type=x509 certificate-category=authority`, text: `certificate-type=x-509 certificate-category=authority`,
			want: Attributes{{CKA_CERTIFICATE_TYPE, Ulong(CKC_X_509)}, {CKA_CERTIFICATE_CATEGORY, Ulong(CK_CERTIFICATE_CATEGORY_AUTHORITY)}}},
		{
			in:   `wrap-template={class=secret-key, label="}{"} unwrap-template={}`,
			text: `wrap-template={class=secret-key label="}{"} unwrap-template={}`,
			want: Attributes{{CKA_WRAP_TEMPLATE, EncodeTemplate(Attributes{{CKA_CLASS, Ulong(CKO_SECRET_KEY)}, {CKA_LABEL, []byte("}{")}})}, {CKA_UNWRAP_TEMPLATE, []byte{}}},
		},
		{in: `value=0x0102 class=certificate`, text: `value=0x0102 class=certificate`, want: Attributes{{CKA_VALUE, []byte{1, 2}}, {CKA_CLASS, Ulong(CKO_CERTIFICATE)}}},
		{in: `value="hush" label=x`, text: `label=x`, want: Attributes{{CKA_VALUE, []byte("hush")}, {CKA_LABEL, []byte("x")}}},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := ParseTemplate(c.in)
			if err != nil {
				t.Fatal(err)
			}
			sameAttributes(t, got, c.want)
			want := c.text
			if want == "" && strings.TrimSpace(c.in) != "" {
				want = c.in
			}
			if got.Text() != want {
				t.Errorf("prints as %s, want %s", got.Text(), want)
			}
		})
	}
}

func TestParseTemplateErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		rv   RV
		text string
	}{
		{`lable=x`, CKR_ATTRIBUTE_TYPE_INVALID, `word 1: unknown attribute "lable"; did you mean label?`},
		{`label=web server`, CKR_ATTRIBUTE_TYPE_INVALID, `word 2, "server", is no attribute with a value (name=value)`},
		{`label=x sign`, CKR_ARGUMENTS_BAD, `word 2, "sign": =value is missing`},
		{`=x`, CKR_ARGUMENTS_BAD, `word 1: a name is missing before "="`},
		{`"label"=x`, CKR_ARGUMENTS_BAD, `word 1: a name is missing before "\""`},
		{`label"x"`, CKR_ARGUMENTS_BAD, `word 1: "\"" may stand only where a value begins`},
		{`label="x`, CKR_ARGUMENTS_BAD, `word 1, "label": a closing double quote is missing`},
		{`label="x\q"`, CKR_ARGUMENTS_BAD, `word 1, "label": an escape is not one of \\ \" \n \r \t \xHH`},
		{`label="x\x4"`, CKR_ARGUMENTS_BAD, `word 1, "label": an escape is not one of \\ \" \n \r \t \xHH`},
		{`label="x"y`, CKR_ARGUMENTS_BAD, `word 1, "label": put the whole value in double quotes, with \ before quotes in it`},
		{`label=x"y`, CKR_ARGUMENTS_BAD, `word 1, "label": put the whole value in double quotes, with \ before quotes in it`},
		{"label=x\x00", CKR_ARGUMENTS_BAD, `word 1, "label": put the whole value in double quotes, with \ before quotes in it`},
		{`label=x,,sign=true`, CKR_ARGUMENTS_BAD, `word 2 is empty: a comma stands only between two words`},
		{`,label=x`, CKR_ARGUMENTS_BAD, `word 1 is empty: a comma stands only between two words`},
		{`label=x,`, CKR_ARGUMENTS_BAD, `word 2 is empty: a comma stands only between two words`},
		{`label=x :=y`, CKR_ARGUMENTS_BAD, `word 2: a name is missing before ":="`},
		{`lable:=x`, CKR_ATTRIBUTE_TYPE_INVALID, `word 1: unknown attribute "lable"; did you mean label?`},
		{`sign:=maybe`, CKR_ATTRIBUTE_VALUE_INVALID, `sign: wants true or false, not "maybe"`},
		{`label=x label:=y`, CKR_TEMPLATE_INCONSISTENT, `label is given twice`},
		{`class=18446744073709551616`, CKR_ATTRIBUTE_VALUE_INVALID, `class: wants a number, not "18446744073709551616"`},
		{`label=x label=y`, CKR_TEMPLATE_INCONSISTENT, `label is given twice`},
		{`sign=maybe`, CKR_ATTRIBUTE_VALUE_INVALID, `sign: wants true or false, not "maybe"`},
		{`modulus-bits=20x8`, CKR_ATTRIBUTE_VALUE_INVALID, `modulus-bits: wants a number, not "20x8"`},
		{`modulus-bits=-1`, CKR_ATTRIBUTE_VALUE_INVALID, `modulus-bits: wants a number, not "-1"`},
		{`modulus-bits=18446744073709551616`, CKR_ATTRIBUTE_VALUE_INVALID, `modulus-bits: wants a number, not "18446744073709551616"`},
		{`class=key`, CKR_ATTRIBUTE_VALUE_INVALID, `class: unknown class "key"`},
		{`key-type=""`, CKR_ATTRIBUTE_VALUE_INVALID, `key-type: unknown key type ""`},
		{`start-date=2026-02-30`, CKR_ATTRIBUTE_VALUE_INVALID, `start-date: wants a date such as 2026-01-31, not "2026-02-30"`},
		{`id=0x1`, CKR_ATTRIBUTE_VALUE_INVALID, `id: wants hexadecimal digits in pairs, such as 0x01ff, or characters in double quotes`},
		{`id=`, CKR_ATTRIBUTE_VALUE_INVALID, `id: wants hexadecimal digits in pairs, such as 0x01ff, or characters in double quotes`},
		{`id="0x01"`, CKR_ATTRIBUTE_VALUE_INVALID, `id: write hexadecimal without the quotes; in quotes stand characters`},
		{`ec-params=p-257`, CKR_ATTRIBUTE_VALUE_INVALID, `ec-params: unknown curve "p-257"; write secp256r1, secp384r1, ed25519 or 0x with the DER of the parameters`},
		{`allowed-mechanisms=rsa+aes`, CKR_ATTRIBUTE_VALUE_INVALID, `allowed-mechanisms: unknown mechanism "rsa"`},
		{`wrap-template=sign`, CKR_ATTRIBUTE_VALUE_INVALID, `wrap-template: word 1, "sign": =value is missing`},
		{`wrap-template={sign=maybe}`, CKR_ATTRIBUTE_VALUE_INVALID, `wrap-template: sign: wants true or false, not "maybe"`},
		{`wrap-template={sign=true`, CKR_ARGUMENTS_BAD, `word 1, "wrap-template": a closing } is missing`},
		{`label={x=y}`, CKR_ATTRIBUTE_VALUE_INVALID, `label: takes no template in braces`},
		{strings.Repeat("wrap-template={", 6) + strings.Repeat("}", 6), CKR_ATTRIBUTE_VALUE_INVALID,
			strings.Repeat("wrap-template: ", 5) + "templates stand too deep in templates"},
	} {
		t.Run(c.in, func(t *testing.T) {
			a, err := ParseTemplate(c.in)
			if err == nil {
				t.Fatalf("parses as %v", a)
			}
			if err.Error() != c.text || RVOf(err) != c.rv {
				t.Errorf("error %v\n%s, want %v\n%s", RVOf(err), err, c.rv, c.text)
			}
		})
	}
}

// A mistake in or after a secret value shows no part of it.
func TestErrorsHoldNoSecrets(t *testing.T) {
	for _, in := range []string{
		`value=0xhunter2`, `value=hunter2`, `value="hunter2`, `value="hunter2\q"`, `value={hunter2=1}`,
		`value=0x0 hunter2`, `value=0x00 hunter2`, `value=0x00 hunter2=1`, `value=0x00 hunter2="1`, `value=0x00 hunter2"`,
		`value=0x00 hunter2="1"2`, `value="0xhunter2"`, `prime-1=hunter2`, `private-exponent=0xhunter2`,
		`label=x value=hunter2 label=y`, `class=secret-key value=ab"hunter2`, `value="a"hunter2`,
		`wrap-template={value=hunter2}`, `wrap-template={value=0x00 hunter2}`, `0x80000001=hunter2`,
	} {
		t.Run(in, func(t *testing.T) {
			_, err := ParseTemplate(in)
			if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("ParseTemplate: %v", err)
			}
			_, _, err = ParseOperation("aes-key-wrap," + in)
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("ParseOperation: %v", err)
			}
		})
	}
	for _, in := range []string{`0xhunter2`, `hunter2`, `"hunter2`, `"hunter2"x`, `{hunter2}`} {
		for _, typ := range []AttributeType{CKA_VALUE, CKA_PRIME_1, CKA_IBM_OPAQUE} {
			if _, err := ParseValue(typ, in); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("ParseValue(%v, %q): %v", typ, in, err)
			}
		}
	}
}

func TestParseTemplateAnd(t *testing.T) {
	var bits, curve string
	words := map[string]*string{"bits": &bits, "curve": &curve}
	a, err := ParseTemplateAnd(`bits=2048, label="curve=x bits" id=01`, words)
	if err != nil || a.Text() != `label="curve=x bits" id=0x01` || bits != "2048" || curve != "" {
		t.Errorf("%q, bits %q, curve %q, %v", a.Text(), bits, curve, err)
	}
	for _, text := range []string{"bits=1 bits=2", "bits", "bits=", `bits=""`, "bits=1,,label=x", "other=1"} {
		bits = ""
		if a, err := ParseTemplateAnd(text, words); err == nil {
			t.Errorf("%q is taken as %q and %q", text, a.Text(), bits)
		}
	}
}
