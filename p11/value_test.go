package p11

import (
	"bytes"
	"testing"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		typ   AttributeType
		in    string
		text  string // "" for the same
		value []byte
	}{
		{typ: CKA_LABEL, in: "web server, new", value: []byte("web server, new")},
		{typ: CKA_LABEL, in: "", value: []byte{}},
		{typ: CKA_LABEL, in: `"web server"`, text: "web server", value: []byte("web server")},
		{typ: CKA_LABEL, in: `" web"`, value: []byte(" web")},
		{typ: CKA_LABEL, in: ` web`, text: `" web"`, value: []byte(" web")},
		{typ: CKA_LABEL, in: `"\"web\""`, value: []byte(`"web"`)},
		{typ: CKA_LABEL, in: `web "new"`, value: []byte(`web "new"`)},
		{typ: CKA_LABEL, in: "a\nb", text: `"a\nb"`, value: []byte("a\nb")},
		{typ: CKA_LABEL, in: `a\nb`, value: []byte(`a\nb`)},
		{typ: CKA_LABEL, in: "\xff", text: `"\xff"`, value: []byte("\xff")},
		{typ: CKA_LABEL, in: "\u202eevil", text: `"\xe2\x80\xaeevil"`, value: []byte("\u202eevil")},
		{typ: CKA_SIGN, in: " true ", text: "true", value: Bool(true)},
		{typ: CKA_ID, in: "0x", value: []byte{}},
		{typ: CKA_ID, in: `"web"`, text: "0x776562", value: []byte("web")},
		{typ: CKA_MODULUS_BITS, in: "2048", value: Ulong(uint64(2048))},
		{typ: CKA_MODULUS_BITS, in: "unavailable", value: Ulong(uint64(CK_UNAVAILABLE_INFORMATION))},
		{typ: CKA_CLASS, in: "CKO_DATA", text: "data", value: Ulong(CKO_DATA)},
		{typ: CKA_HW_FEATURE_TYPE, in: "clock", value: Ulong(CKH_CLOCK)},
		{typ: CKA_JAVA_MIDP_SECURITY_DOMAIN, in: "operator", value: Ulong(CK_SECURITY_DOMAIN_OPERATOR)},
		{typ: CKA_PROFILE_ID, in: "baseline-provider", value: Ulong(CKP_BASELINE_PROVIDER)},
		{typ: CKA_TRUST_SERVER_AUTH, in: "trust-anchor", value: Ulong(CKT_TRUST_ANCHOR)},
		{typ: CKA_OTP_FORMAT, in: "decimal", value: Ulong(CK_OTP_FORMAT_DECIMAL)},
		{typ: CKA_OTP_PIN_REQUIREMENT, in: "mandatory", value: Ulong(CK_OTP_PARAM_MANDATORY)},
		{typ: CKA_VALIDATION_TYPE, in: "software", value: Ulong(CKV_TYPE_SOFTWARE)},
		{typ: CKA_VALIDATION_AUTHORITY_TYPE, in: "nist-cmvp", value: Ulong(CKV_AUTHORITY_TYPE_NIST_CMVP)},
		{typ: CKA_START_DATE, in: "2026-12-01", value: []byte("20261201")},
		{typ: CKA_START_DATE, in: "", value: []byte{}},
		{typ: CKA_ALLOWED_MECHANISMS, in: "aes-cbc, aes-gcm", text: "aes-cbc+aes-gcm", value: append(Ulong(CKM_AES_CBC), Ulong(CKM_AES_GCM)...)},
		{typ: CKA_WRAP_TEMPLATE, in: "sign=true, label=x", text: "{sign=true label=x}", value: EncodeTemplate(Attributes{{CKA_SIGN, Bool(true)}, {CKA_LABEL, []byte("x")}})},
		{typ: CKA_WRAP_TEMPLATE, in: "{}", value: []byte{}},
		{typ: CKA_EC_PARAMS, in: "ed25519", value: []byte("\x06\x03\x2b\x65\x70")},
		{typ: CKA_MODULUS, in: "0x00ff", value: []byte{0, 0xff}},
		{typ: 0x80000077, in: "00ff", text: "0x00ff", value: []byte{0, 0xff}},
	} {
		t.Run(c.typ.Short()+"/"+c.in, func(t *testing.T) {
			got, err := ParseValue(c.typ, c.in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.value) {
				t.Errorf("value %x, want %x", got, c.value)
			}
			want := c.text
			if want == "" {
				want = c.in
			}
			if text := shown(c.typ, got); text != want {
				t.Errorf("prints as %s, want %s", text, want)
			}
			again, err := ParseValue(c.typ, shown(c.typ, got))
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("read again as %x, %v", again, err)
			}
		})
	}
}

func TestFormatMalformedValue(t *testing.T) {
	for _, c := range []struct {
		typ   AttributeType
		value []byte
		want  string
	}{
		{CKA_CLASS, []byte{1, 2}, "invalid:0x0102"},
		{CKA_SIGN, nil, "invalid:0x"},
		{CKA_SIGN, []byte{2}, "invalid:0x02"},
		{CKA_START_DATE, []byte("2026"), "invalid:0x32303236"},
		{CKA_ALLOWED_MECHANISMS, []byte{1}, "invalid:0x01"},
		{CKA_WRAP_TEMPLATE, []byte{1}, "invalid"},
	} {
		if got := shown(c.typ, c.value); got != c.want {
			t.Errorf("%v %x prints as %s, want %s", c.typ, c.value, got, c.want)
		}
	}
	cert := Attributes{{CKA_CLASS, Ulong(CKO_CERTIFICATE)}, {CKA_VALUE, []byte{1}}}
	if got := cert.FormatValue(CKA_VALUE); got != "0x01" {
		t.Errorf("a certificate prints as %s", got)
	}
	if got := cert.FormatValue(CKA_ID); got != "" {
		t.Errorf("an absent attribute prints as %s", got)
	}
}

func TestParseValueErrors(t *testing.T) {
	for _, c := range []struct {
		typ  AttributeType
		in   string
		rv   RV
		text string
	}{
		{CKA_LABEL, `"web" server`, CKR_ATTRIBUTE_VALUE_INVALID, `label: text after the closing double quote`},
		{CKA_LABEL, `"web`, CKR_ATTRIBUTE_VALUE_INVALID, `label: a closing double quote is missing`},
		{CKA_WRAP_TEMPLATE, `{sign=true} x`, CKR_ATTRIBUTE_VALUE_INVALID, `wrap-template: text after the closing }`},
		{CKA_WRAP_TEMPLATE, `{sign=true`, CKR_ATTRIBUTE_VALUE_INVALID, `wrap-template: a closing } is missing`},
		{CKA_SIGN, ``, CKR_ATTRIBUTE_VALUE_INVALID, `sign: wants true or false, not ""`},
		{CKA_MODULUS, `abc`, CKR_ATTRIBUTE_VALUE_INVALID, `modulus: wants 0x and hexadecimal digits, or a decimal number`},
	} {
		t.Run(c.typ.Short()+"/"+c.in, func(t *testing.T) {
			v, err := ParseValue(c.typ, c.in)
			if err == nil || err.Error() != c.text || RVOf(err) != c.rv {
				t.Errorf("%x, error %v, want %s", v, err, c.text)
			}
		})
	}
}

func TestCurves(t *testing.T) {
	for _, name := range []string{"secp192r1", "secp224r1", "secp256r1", "secp384r1", "secp521r1", "secp256k1",
		"brainpoolp224r1", "brainpoolp256r1", "brainpoolp320r1", "brainpoolp384r1", "brainpoolp512r1",
		"x25519", "x448", "ed25519", "ed448"} {
		der, ok := CurveParams(name)
		if !ok || CurveName(der) != name {
			t.Errorf("%s: %x %v %s", name, der, ok, CurveName(der))
		}
		if len(der) < 2 || der[0] != 6 || int(der[1]) != len(der)-2 {
			t.Errorf("%s: %x is no object identifier", name, der)
		}
	}
	if _, ok := CurveParams(""); ok || CurveName(nil) != "" {
		t.Error("no name is a curve")
	}
}

func TestMechanismsAttribute(t *testing.T) {
	a := mustTemplate(t, "allowed-mechanisms=rsa-pkcs+sha256-rsa-pkcs")
	got, ok := a.Mechanisms()
	if !ok || len(got) != 2 || got[0] != CKM_RSA_PKCS || got[1] != CKM_SHA256_RSA_PKCS {
		t.Errorf("%v %v", got, ok)
	}
	if got, ok := (Attributes{{CKA_ALLOWED_MECHANISMS, nil}}).Mechanisms(); ok || len(got) != 0 {
		t.Errorf("the empty list: %v %v", got, ok)
	}
	if _, ok := (Attributes{}).Mechanisms(); ok {
		t.Error("the absent list is there")
	}
}

// shown is the value as its attribute's file shows it.
func shown(t AttributeType, v []byte) string { return Attributes{{t, v}}.FormatValue(t) }
