package p11

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// raw lets go-cmp see values that Attributes do not print.
type raw struct {
	Type  AttributeType
	Value string
}

func rawOf(a Attributes) []raw {
	var r []raw
	for _, x := range a {
		r = append(r, raw{x.Type, string(x.Value)})
	}
	return r
}

func sameAttributes(t *testing.T, got, want Attributes) {
	t.Helper()
	if diff := cmp.Diff(rawOf(want), rawOf(got)); diff != "" {
		t.Errorf("attributes differ (-want +got):\n%s", diff)
	}
}

func TestAttributesAccess(t *testing.T) {
	a := Attributes{
		{CKA_CLASS, Ulong(CKO_PRIVATE_KEY)},
		{CKA_KEY_TYPE, Ulong(CKK_EC)},
		{CKA_LABEL, []byte("web")},
		{CKA_SIGN, Bool(true)},
		{CKA_DECRYPT, Bool(false)},
		{CKA_MODULUS_BITS, []byte{1, 2}},
	}
	if c, ok := a.Class(); c != CKO_PRIVATE_KEY || !ok {
		t.Errorf("Class %v %v", c, ok)
	}
	if k, ok := a.KeyType(); k != CKK_EC || !ok {
		t.Errorf("KeyType %v %v", k, ok)
	}
	if a.Label() != "web" || (Attributes{}).Label() != "" {
		t.Errorf("Label %q", a.Label())
	}
	for typ, want := range map[AttributeType]bool{CKA_SIGN: true, CKA_DECRYPT: false, CKA_VERIFY: false, CKA_CLASS: false} {
		if a.Bool(typ) != want {
			t.Errorf("Bool(%v) is %v", typ, !want)
		}
	}
	if _, ok := a.Ulong(CKA_MODULUS_BITS); ok {
		t.Error("a short value is a CK_ULONG")
	}
	if _, ok := a.Ulong(CKA_VALUE_LEN); ok {
		t.Error("an absent value is a CK_ULONG")
	}
	if _, ok := (Attributes)(nil).Class(); ok {
		t.Error("nothing has a class")
	}
	if v, ok := a.Get(CKA_LABEL); !ok || string(v) != "web" {
		t.Errorf("Get gives %q %v", v, ok)
	}
	if a.Has(CKA_ID) || !a.Has(CKA_SIGN) {
		t.Error("Has is wrong")
	}
	if _, err := ToUlong([]byte{1}); RVOf(err) != CKR_ATTRIBUTE_VALUE_INVALID {
		t.Errorf("ToUlong of one byte: %v", err)
	}
	if v, err := ToUlong(Ulong(uint64(1) << 40)); v != 1<<40 || err != nil {
		t.Errorf("ToUlong gives %d, %v", v, err)
	}
}

func TestAttributesChange(t *testing.T) {
	a := Attributes{{CKA_LABEL, []byte("a")}, {CKA_ID, []byte{1}}, {CKA_SIGN, Bool(true)}}
	before := a.Clone()

	with := a.With(CKA_LABEL, []byte("b")).With(CKA_TOKEN, Bool(true))
	sameAttributes(t, with, Attributes{{CKA_LABEL, []byte("b")}, {CKA_ID, []byte{1}}, {CKA_SIGN, Bool(true)}, {CKA_TOKEN, Bool(true)}})
	merged := a.Merge(Attributes{{CKA_ID, []byte{2}}, {CKA_WRAP, Bool(false)}})
	sameAttributes(t, merged, Attributes{{CKA_LABEL, []byte("a")}, {CKA_ID, []byte{2}}, {CKA_SIGN, Bool(true)}, {CKA_WRAP, Bool(false)}})
	sameAttributes(t, a, before)

	// A copy outlives the wiping of what it came from.
	kept := a.With(CKA_TOKEN, Bool(true))
	clone := a.Clone()
	a.Wipe()
	if string(a[0].Value) != "\x00" || a.Bool(CKA_SIGN) {
		t.Error("Wipe left values")
	}
	sameAttributes(t, clone, before)
	if kept.Label() != "a" || merged.Label() != "a" {
		t.Error("Wipe reached a copy")
	}

	var s Attributes
	s.SetUlong(CKA_MODULUS_BITS, 2048)
	s.SetBool(CKA_SIGN, false)
	s.SetBool(CKA_SIGN, true)
	s.Set(CKA_LABEL, []byte("x"))
	sameAttributes(t, s, Attributes{{CKA_MODULUS_BITS, Ulong(uint64(2048))}, {CKA_SIGN, Bool(true)}, {CKA_LABEL, []byte("x")}})
	s.Delete(CKA_SIGN)
	s.Delete(CKA_SIGN)
	sameAttributes(t, s, Attributes{{CKA_MODULUS_BITS, Ulong(uint64(2048))}, {CKA_LABEL, []byte("x")}})
}

func TestMatch(t *testing.T) {
	a := mustTemplate(t, `class=private-key key-type=rsa label="web server" id=0x01 sign=true value=0xaabb`)
	for _, c := range []struct {
		template string
		want     bool
	}{
		{``, true},
		{`class=private-key`, true},
		{`class=public-key`, false},
		{`label="web server" sign=true`, true},
		{`label=web`, false},
		{`label="web server "`, false},
		{`id=0x01`, true},
		{`id=0x0100`, false},
		{`id=""`, false},
		{`sign=false`, false},
		{`decrypt=false`, false}, // absent is no match
		{`subject=""`, false},
		{`value=0xaabb`, true},
		{`class=private-key id=0x02`, false},
	} {
		t.Run(c.template, func(t *testing.T) {
			if got := a.Match(mustTemplate(t, c.template)); got != c.want {
				t.Errorf("Match is %v", got)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name  string
		attrs Attributes
		rv    RV
	}{
		{"none", nil, CKR_OK},
		{"good", mustTemplate(t, `class=data label=x value=0x00 start-date=2026-02-28 end-date="" modifiable=false allowed-mechanisms=aes-cbc+0x80000099 wrap-template={sign=true}`), CKR_OK},
		{"twice", Attributes{{CKA_ID, nil}, {CKA_ID, nil}}, CKR_TEMPLATE_INCONSISTENT},
		{"short class", Attributes{{CKA_CLASS, []byte{1, 0, 0, 0}}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"empty bool", Attributes{{CKA_TOKEN, nil}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"bool of two", Attributes{{CKA_TOKEN, []byte{2}}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"long bool", Attributes{{CKA_TOKEN, []byte{1, 0}}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"no date", Attributes{{CKA_START_DATE, []byte("20260230")}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"short date", Attributes{{CKA_START_DATE, []byte("2026")}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"half a mechanism", Attributes{{CKA_ALLOWED_MECHANISMS, make([]byte, 12)}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"template cut off", Attributes{{CKA_WRAP_TEMPLATE, make([]byte, 15)}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"template with a huge length", Attributes{{CKA_WRAP_TEMPLATE, bytes.Repeat([]byte{0xff}, 16)}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"template with a bad bool", Attributes{{CKA_WRAP_TEMPLATE, EncodeTemplate(Attributes{{CKA_SIGN, nil}})}}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"templates too deep", Attributes{deepTemplate(MaxTemplateDepth + 1)}, CKR_ATTRIBUTE_VALUE_INVALID},
		{"templates deep", Attributes{deepTemplate(MaxTemplateDepth)}, CKR_OK},
		{"too many", manyAttributes(MaxAttributes + 1), CKR_TEMPLATE_INCONSISTENT},
		{"many", manyAttributes(MaxAttributes), CKR_OK},
		{"too long", Attributes{{CKA_VALUE, make([]byte, MaxTemplateBytes)}, {CKA_ID, []byte{1}}}, CKR_TEMPLATE_INCONSISTENT},
		{"long", Attributes{{CKA_VALUE, make([]byte, MaxTemplateBytes)}}, CKR_OK},
		{"unknown", Attributes{{0x80009999, []byte("anything")}}, CKR_OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.attrs.Validate(); RVOf(err) != c.rv {
				t.Errorf("Validate: %v, want %v", err, c.rv)
			}
		})
	}
}

func deepTemplate(depth int) Attribute {
	a := Attribute{CKA_WRAP_TEMPLATE, nil}
	for range depth - 1 {
		a.Value = EncodeTemplate(Attributes{a})
	}
	return a
}

func manyAttributes(n int) (a Attributes) {
	for i := range n {
		a = append(a, Attribute{AttributeType(0x90000000 + i), nil})
	}
	return a
}

func TestEncodeTemplate(t *testing.T) {
	a := mustTemplate(t, `class=secret-key label="x y" id=""`)
	got, err := DecodeTemplate(EncodeTemplate(a))
	if err != nil {
		t.Fatal(err)
	}
	sameAttributes(t, got, a)
	b := EncodeTemplate(Attributes{{CKA_ID, []byte{7}}})
	if want := "\x02\x01\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07"; string(b) != want {
		t.Errorf("encoding %q, want %q", b, want)
	}
	if _, err := DecodeTemplate(append(b, b...)); RVOf(err) != CKR_TEMPLATE_INCONSISTENT {
		t.Errorf("the same attribute twice: %v", err)
	}
	if _, err := DecodeTemplate(EncodeTemplate(manyAttributes(MaxAttributes + 1))); RVOf(err) != CKR_TEMPLATE_INCONSISTENT {
		t.Errorf("too many attributes: %v", err)
	}
}

// No verb (%w is not one for these: go vet refuses it), logger or encoder shows a secret value, alone, in Attributes, or
// anywhere in an exported structure around them.
func TestSecretsDoNotPrint(t *testing.T) {
	const secret = "hunter2!"
	for _, typ := range AllAttributeTypes() {
		if !SecretValue(typ) {
			continue
		}
		x := Attribute{typ, []byte(secret)}
		a := Attributes{{CKA_CLASS, Ulong(CKO_SECRET_KEY)}, x, {CKA_UNWRAP_TEMPLATE, EncodeTemplate(Attributes{x})}}
		type around struct {
			A Attributes
			P *Attributes
			X []Attribute
			M map[string]Attribute
		}
		things := map[string]any{
			"attribute": x, "pointer": &x, "attributes": a, "attributes pointer": &a,
			"struct": around{a, &a, []Attribute{x}, map[string]Attribute{"x": x}},
		}
		for what, v := range things {
			t.Run(typ.Short()+"/"+what, func(t *testing.T) {
				var out strings.Builder
				for _, verb := range "vsqxXdtbcoOUeEfFgG" {
					for _, flag := range []string{"", "+", "#", " ", "0", "-40", ".3"} {
						fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", v)
					}
				}
				fmt.Fprintln(&out, v)
				slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
				slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
				j, err := json.Marshal(v)
				if err != nil {
					t.Error(err)
				}
				out.Write(j)
				for _, trace := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret),
					strings.Trim(fmt.Sprint([]byte(secret)), "[]"), "aHVudGVyMiE", "0x68, 0x75"} { //nolint:staticcheck // the bytes as fmt prints them are what is looked for
					if strings.Contains(out.String(), trace) {
						t.Errorf("%q shows in:\n%.400s", trace, out.String())
					}
				}
			})
		}
		if s := shown(typ, []byte(secret)); s != redacted {
			t.Errorf("%v alone is shown as %q", typ, s)
		}
		if s := a.FormatValue(typ); s != redacted {
			t.Errorf("Attributes.FormatValue(%v) is %q", typ, s)
		}
	}
}

func TestSecret(t *testing.T) {
	for _, c := range []struct {
		class ObjectClass
		typ   AttributeType
		want  bool
	}{
		{CKO_SECRET_KEY, CKA_VALUE, true},
		{CKO_PRIVATE_KEY, CKA_VALUE, true},
		{CKO_DATA, CKA_VALUE, true},
		{CKO_CERTIFICATE, CKA_VALUE, false},
		{CKO_PUBLIC_KEY, CKA_VALUE, false},
		{CKO_PRIVATE_KEY, CKA_PRIVATE_EXPONENT, true},
		{CKO_PRIVATE_KEY, CKA_MODULUS, false},
		{CKO_PUBLIC_KEY, CKA_IBM_OPAQUE, true},
	} {
		a := Attributes{{CKA_CLASS, Ulong(c.class)}, {c.typ, []byte{1}}}
		if got := a.Secret(c.typ); got != c.want {
			t.Errorf("%v of %v: secret %v", c.typ, c.class, got)
		}
		if got := strings.Contains(a.Text(), c.typ.Short()+"="); got == c.want {
			t.Errorf("%v of %v: in the text %v", c.typ, c.class, got)
		}
	}
	if !(Attributes{{CKA_VALUE, nil}}).Secret(CKA_VALUE) {
		t.Error("CKA_VALUE without a class is not secret")
	}
}

func mustTemplate(t testing.TB, s string) Attributes {
	t.Helper()
	a, err := ParseTemplate(s)
	if err != nil {
		t.Fatalf("ParseTemplate(%q): %v", s, err)
	}
	return a
}
