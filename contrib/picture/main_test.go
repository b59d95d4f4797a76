package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// TestPicture: the picture is the one that the program draws, is well-formed, fetches nothing,
// and has all kinds of tokens and the colours of both modes.
func TestPicture(t *testing.T) {
	drawn := draw()
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, drawn) {
		t.Errorf("%s is not what is drawn (%v): go generate ./contrib/picture", file, err)
	}
	d := xml.NewDecoder(bytes.NewReader(drawn))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && (e.Name.Local == "image" || e.Name.Local == "script" || e.Name.Local == "use") {
			t.Errorf("the picture has <%s>", e.Name.Local)
		}
	}
	for _, want := range []string{"prefers-color-scheme:dark", "swtok", "tpm", "ep11tok", "ccatok", "icsf", "lite", "<title"} {
		if !strings.Contains(string(drawn), want) {
			t.Errorf("the picture lacks %s", want)
		}
	}
}
