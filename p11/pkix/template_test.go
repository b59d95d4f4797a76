package pkix_test

import (
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

func TestTemplates(t *testing.T) {
	file := []byte("# two\n\nclass=secret-key key-type=aes label=\"a b\" value=0x00112233445566778899aabbccddeeff\r\n  class=data value=0x61 label=d")
	before := string(file)
	list, err := pkix.Parse(pkix.Template, file, pkix.Options{})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if v, _ := list[0].Get(p11.CKA_VALUE); list[0].Label() != "a b" || len(v) != 16 || v[15] != 0xff {
		t.Errorf("%v", list[0])
	}
	if v, _ := list[1].Get(p11.CKA_VALUE); string(v) != "a" || len(list[1]) != 3 {
		t.Errorf("%v", list[1])
	}
	if string(file) != before {
		t.Error("Parse changed its input")
	}
	clear(file) // as the caller does: no value is part of it
	if v, _ := list[0].Get(p11.CKA_VALUE); v[15] != 0xff || list[0].Label() != "a b" || list[1].Label() != "d" {
		t.Errorf("the templates changed with the file: %v", list)
	}
	for text, want := range map[string]struct {
		rv  p11.RV
		say string
	}{
		"# nothing": {p11.CKR_DATA_INVALID, "no template"},
		"label=x":   {p11.CKR_TEMPLATE_INCOMPLETE, "line 1: class is missing"},
		"class=data label=x\nclass=secret-key value=0x12345 label=1": {p11.CKR_ATTRIBUTE_VALUE_INVALID, "line 2"},
		"class=data frob=1":                 {p11.CKR_ATTRIBUTE_TYPE_INVALID, "line 1"},
		strings.Repeat("class=data\n", 257): {p11.CKR_DATA_LEN_RANGE, "256"},
	} {
		list, err := pkix.Parse(pkix.Template, []byte(text), pkix.Options{})
		if p11.RVOf(err) != want.rv || !strings.Contains(err.Error(), want.say) || list != nil || strings.Contains(err.Error(), "12345") {
			t.Errorf("%.30q: %v, %v", text, list, err)
		}
	}
	if list, err := pkix.Parse(pkix.Auto, []byte("class=data label=x"), pkix.Options{}); err == nil {
		t.Errorf("a template is taken for %v", list)
	}
}
