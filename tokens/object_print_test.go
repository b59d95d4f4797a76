package tokens_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// An object in a message or a log shows none of its attributes.
func TestObjectDoesNotPrint(t *testing.T) {
	secret := []byte("hunter2!")
	o := tokens.NewObject(0x1234, "", p11.Attributes{{Type: p11.CKA_VALUE, Value: bytes.Clone(secret)}})
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&out, verb+"\n", o)
		fmt.Fprintf(&out, verb+"\n", []*tokens.Object{o})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "object", o)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "object", o)
	if !strings.Contains(out.String(), "object 0x1234") {
		t.Errorf("the handle is not named:\n%s", out.String())
	}
	for _, trace := range []string{"hunter2", fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint(secret), "[]")} { //nolint:staticcheck // the bytes as fmt prints them are what is looked for
		if strings.Contains(out.String(), trace) {
			t.Errorf("%q shows in:\n%s", trace, out.String())
		}
	}
}
