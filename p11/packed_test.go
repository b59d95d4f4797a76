package p11

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPacked(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 70_000)
	for name, a := range map[string]Attributes{
		"none":  {},
		"empty": {{CKA_LABEL, []byte{}}},
		"some":  {{CKA_LABEL, []byte("web")}, {CKA_ID, []byte{1}}, {CKA_TOKEN, Bool(true)}},
		"long":  {{CKA_VALUE, long}, {CKA_LABEL, []byte("long")}},
		"types": {{0, []byte{1}}, {^AttributeType(0), []byte{2}}, {CKA_VENDOR_DEFINED, []byte{3}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := a.Pack()
			if len(p) > cap(p) || cap(p) > len(p)+8 {
				t.Errorf("%d bytes in %d", len(p), cap(p))
			}
			got := p.Unpack()
			if len(got) != len(a) {
				t.Fatalf("%d attributes", len(got))
			}
			for i := range a {
				if got[i].Type != a[i].Type || !bytes.Equal(got[i].Value, a[i].Value) || got[i].Value == nil || cap(got[i].Value) != len(a[i].Value) {
					t.Errorf("attribute %d is %#x, %x", i, got[i].Type, got[i].Value)
				}
			}
			if all := slices.Collect(p.All()); !slices.EqualFunc(all, got, func(x, y Attribute) bool { return x.Type == y.Type && bytes.Equal(x.Value, y.Value) }) {
				t.Errorf("one by one they are %v", all)
			}
			for range p.All() {
				break
			}
			templates := []Attributes{
				nil, a, {{CKA_LABEL, []byte("web")}}, {{CKA_ID, []byte{2}}}, {{CKA_ID, []byte{1}}, {CKA_LABEL, []byte("web")}},
				{{CKA_LABEL, []byte("web")}, {CKA_ISSUER, nil}}, {{CKA_LABEL, nil}}, {{CKA_LABEL, []byte("we")}},
			}
			var packed, plain []bool
			for _, template := range templates {
				packed, plain = append(packed, p.Match(template)), append(plain, a.Match(template))
			}
			if d := cmp.Diff(plain, packed); d != "" {
				t.Errorf("Match: %s", d)
			}
			clear(p)
			for _, x := range got {
				if bytes.Count(x.Value, []byte{0}) != len(x.Value) {
					t.Errorf("%#x is not wiped", x.Type)
				}
			}
		})
	}
}
