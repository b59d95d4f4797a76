package integration

import (
	"encoding/json"
	"os"
	"testing"
)

// storeTestdata has token directories that stock programs made, and says what is in
// them.
const storeTestdata = "../tokens/store/storetest/testdata/"

// A manifest says what the stock token directory holds.
type manifest struct {
	SOPIN   string           `json:"so_pin"`
	UserPIN string           `json:"user_pin"`
	Label   string           `json:"token_label"`
	Objects []manifestObject `json:"objects"`
}

type manifestObject struct {
	Name       string              `json:"name"`
	Private    bool                `json:"private"`
	Label      string              `json:"label"`
	ID         string              `json:"id"`
	Class      int                 `json:"class"`
	Attributes []manifestAttribute `json:"attributes_in_file_order"`
	Sensitive  []string            `json:"sensitive_attributes"`
}

type manifestAttribute struct {
	Type  uint64 `json:"type"`
	Name  string `json:"name"` // in capitals, without CKA_
	Value string `json:"value"`
}

// attr returns the value in hexadecimal of one attribute.
func (o manifestObject) attr(name string) string {
	for _, a := range o.Attributes {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

func readManifest(t testing.TB) manifest {
	t.Helper()
	b, err := os.ReadFile(storeTestdata + "manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Swtok manifest }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Swtok
}

// object returns the object of that stored name.
func (m manifest) object(t testing.TB, name string) manifestObject {
	t.Helper()
	for _, o := range m.Objects {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("the manifest has no object %s", name)
	return manifestObject{}
}
