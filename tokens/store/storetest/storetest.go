// Package storetest has token directories that stock programs made, for tests.
package storetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
)

//go:embed testdata
var testdata embed.FS

// The PINs of the directories that have others than the manifest says: swold,
// swtok-be, lite-be, ep11tok-be and ccatok-be. The last two have their software card
// with them; "P11FS_GOLDEN=$PWD/tokens/store/storetest/testdata make test-s390x" has
// stock make them anew, which is for a format that is not yet released only.
const (
	SOPIN   = "76543210"
	UserPIN = "12345678"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Untar unpacks a token directory and returns where it is.
func Untar(t testing.TB, name string) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(read(t, name+".tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	root, top := t.TempDir(), ""
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(root, top)
		}
		if err != nil {
			t.Fatal(err)
		}
		if top == "" {
			top = filepath.Clean("/" + h.Name)
		}
		path := filepath.Join(root, filepath.Clean("/"+h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeReg:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// HexText is bytes that the manifest spells in hexadecimal.
type HexText []byte

// UnmarshalJSON reads it.
func (h *HexText) UnmarshalJSON(b []byte) (err error) {
	var s string
	if err = json.Unmarshal(b, &s); err == nil {
		*h, err = hex.DecodeString(s)
	}
	return err
}

// Manifest says what the stock programs put into swtok, swtok-pristine, ccatok and
// tpm.
type Manifest struct {
	SWTok struct {
		SOPIN     string   `json:"so_pin"`
		UserPIN   string   `json:"user_pin"`
		Label     string   `json:"token_label"`
		MasterKey HexText  `json:"master_key"`
		Flags     uint64   `json:"token_info_flags"`
		Next      string   `json:"next_token_object_name"`
		Index     []string `json:"obj_idx"`
		Objects   []Object
	}
	Pristine struct {
		SOPIN     string  `json:"so_pin"`
		MasterKey HexText `json:"master_key"`
		Flags     uint64  `json:"token_info_flags"`
	} `json:"swtok_pristine"`
	CCATok struct {
		UserPIN string  `json:"user_pin"`
		Master  HexText `json:"master_key_64"`
		Objects map[string]struct {
			Private bool
			Label   string
			Value   HexText
		}
	}
	TPM struct {
		Key     HexText `json:"object_key"`
		IV      HexText `json:"object_iv"`
		Objects map[string]struct {
			Label string
			Value HexText
		}
	}
	LoginFlags [][2]any `json:"login_flag_sequence"`
}

// Object is one object of swtok.
type Object struct {
	Name       string
	Private    bool
	Size       int `json:"file_size"`
	Label      string
	ID         HexText
	Class      uint64
	Attributes []struct {
		Type   uint64
		Stored int `json:"stored_len"`
		Value  HexText
	} `json:"attributes_in_file_order"`
}

// Attrs are the object's attributes.
func (o Object) Attrs() (a p11.Attributes) {
	for _, x := range o.Attributes {
		a = append(a, p11.Attribute{Type: p11.AttributeType(x.Type), Value: x.Value})
	}
	return a
}

// ReadManifest reads the manifest.
func ReadManifest(t testing.TB) (m Manifest) {
	t.Helper()
	if err := json.Unmarshal(read(t, "manifest.json"), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.SWTok.Objects) != 24 || len(m.LoginFlags) != 5 {
		t.Fatalf("the manifest has %d objects", len(m.SWTok.Objects))
	}
	return m
}

// Segment is the token's data of sw312 or sw312-v3.23 as the stock programs that made the
// directory had it in shared memory.
func Segment(t testing.TB, name string) []byte {
	t.Helper()
	return read(t, name+".segment")
}

// A Decoded is what an independent decoder found in one of the directories sw312,
// sw312-v3.23, swmig, swpqc (format 3.12) and swold (3.8).
type Decoded struct {
	Label   string
	Flags   uint64
	Master  HexText
	Objects []DecodedObject
}

// A DecodedObject is one object of them.
type DecodedObject struct {
	File       string
	Private    bool
	Attributes []DecodedAttribute
}

// A DecodedAttribute is an attribute as it stands in its file: its name, or its number,
// and the value.
type DecodedAttribute struct {
	Name  string
	Value HexText
	Array []DecodedAttribute // of an array of attributes
}

// UnmarshalJSON reads [name, value].
func (a *DecodedAttribute) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 {
		return errors.Join(err, errors.New("an attribute is a pair"))
	}
	if err := json.Unmarshal(pair[0], &a.Name); err != nil {
		return err
	}
	if pair[1][0] == '"' {
		return json.Unmarshal(pair[1], &a.Value)
	}
	var inner struct{ Array []DecodedAttribute }
	err := json.Unmarshal(pair[1], &inner)
	a.Array = inner.Array
	return err
}

// Attribute is the attribute as it is in memory.
func (a DecodedAttribute) Attribute() p11.Attribute {
	t, err := p11.ParseAttributeType(a.Name)
	if err != nil {
		panic(err)
	}
	v := []byte(a.Value)
	switch {
	case p11.KindOf(t) == p11.KindTemplate:
		v = p11.EncodeTemplate(attributes(a.Array))
	case p11.KindOf(t).IsUlong() && len(v) == 4:
		v = append(v, 0, 0, 0, 0)
	}
	return p11.Attribute{Type: t, Value: v}
}

func attributes(list []DecodedAttribute) (attrs p11.Attributes) {
	for _, a := range list {
		attrs = append(attrs, a.Attribute())
	}
	return attrs
}

// Attrs are the object's attributes.
func (o DecodedObject) Attrs() p11.Attributes { return attributes(o.Attributes) }

// ReadDecoded reads what is in the directories, by their names.
func ReadDecoded(t testing.TB) map[string]Decoded {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(read(t, "decoded.json.gz")))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]Decoded
	if err := json.NewDecoder(z).Decode(&all); err != nil || len(all) != 5 {
		t.Fatalf("%d directories, %v", len(all), err)
	}
	return all
}
