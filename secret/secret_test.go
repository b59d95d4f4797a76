package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"p11fs/secret"
)

const pin = "hunter2!"

func newSecret(t *testing.T) *secret.Bytes {
	t.Helper()
	s, err := secret.New([]byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// shows fails if text has the secret in it, in any way of writing its bytes.
func shows(t *testing.T, how, text string) {
	t.Helper()
	for _, trace := range []string{
		pin, fmt.Sprintf("%x", pin), fmt.Sprintf("%X", pin), fmt.Sprintf("% x", pin), fmt.Sprintf("%#x", pin),
		"104 117 110 116 101 114 50 33", "aHVudGVyMi", // in decimal, in base64
	} {
		if strings.Contains(text, trace) {
			t.Fatalf("%s shows it: %.100q", how, text)
		}
	}
}

// A holder has a secret where reflection finds it.
type holder struct {
	Name string
	PIN  *secret.Bytes
	pin  *secret.Bytes
}

func TestDoesNotPrint(t *testing.T) {
	s := newSecret(t)
	for _, verb := range "bcdefgopqstvwxEFGOTUX" {
		for _, flags := range []string{"", "+", "#", "-20", "020", " ", ".3", "+#"} {
			format := "%" + flags + string(verb)
			for _, v := range []any{s, &s, []*secret.Bytes{s}, map[string]*secret.Bytes{"a": s}, holder{PIN: s, pin: s}, &holder{PIN: s, pin: s}, struct{ any }{s}} {
				shows(t, fmt.Sprintf("%s of a %T", format, v), fmt.Sprintf(format, v))
			}
		}
	}
	for _, v := range []any{s, holder{PIN: s, pin: s}} {
		shows(t, "Sprint", fmt.Sprint(v))
		shows(t, "Errorf", fmt.Errorf("a PIN %v", v).Error())
		shows(t, "panic", func() (text string) {
			defer func() { text = fmt.Sprint(recover()) }()
			panic(v)
		}())
	}
	if got := s.String(); got != "[secret]" {
		t.Errorf("String is %q", got)
	}
	shows(t, "errors.Join", errors.Join(fmt.Errorf("%v", s), fmt.Errorf("%s", s)).Error())
}

func TestDoesNotLog(t *testing.T) {
	s := newSecret(t)
	var out bytes.Buffer
	options := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, options), slog.NewJSONHandler(&out, options)} {
		log := slog.New(h).With("with", s)
		log.Info("a PIN", "pin", s, "pointer", &s, "list", []*secret.Bytes{s}, "holder", holder{PIN: s, pin: s}, slog.Group("group", "pin", s))
		log.Error("an error", "err", fmt.Errorf("PIN %v", s))
	}
	shows(t, "slog", out.String())
	if !strings.Contains(out.String(), "[secret]") {
		t.Errorf("what is hidden is not said to be: %s", out.String())
	}
}

func TestDoesNotMarshal(t *testing.T) {
	s := newSecret(t)
	v := struct {
		Name string
		PIN  *secret.Bytes
	}{"a", s}
	for name, marshal := range map[string]func() ([]byte, error){
		"json":      func() ([]byte, error) { return json.Marshal(v) },
		"json key":  func() ([]byte, error) { return json.Marshal(map[string]any{"pin": s}) },
		"json list": func() ([]byte, error) { return json.MarshalIndent([]*secret.Bytes{s}, "", " ") },
		"xml":       func() ([]byte, error) { return xml.Marshal(v) },
		"gob": func() ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return b.Bytes(), err
		},
		"text": s.MarshalText,
	} {
		b, err := marshal() // xml and gob take no such type
		shows(t, name, string(b)+fmt.Sprint(err))
	}
}

func TestNil(t *testing.T) {
	var s *secret.Bytes
	s.Use(func(b []byte) {
		if len(b) != 0 {
			t.Errorf("an absent secret has %d bytes", len(b))
		}
	})
	if s.Len() != 0 || fmt.Sprint(s) != "[secret]" || s.Close() != nil {
		t.Errorf("an absent secret is %v of %d bytes", s, s.Len())
	}
}

// What is given away is wiped, and so is the secret when it is closed.
func TestWipes(t *testing.T) {
	given := []byte(pin)
	s, err := secret.New(given)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(given, make([]byte, len(pin))) {
		t.Errorf("what it was made of is still %q", given)
	}
	c, err := s.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Equal(c) || !c.Equal(s) || !s.Equal(s) || s.Len() != len(pin) {
		t.Error("a copy is not equal")
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s.Use(func(b []byte) {
		if len(b) != 0 {
			t.Errorf("a closed secret has %d bytes", len(b))
		}
	})
	if s.Len() != 0 || s.Equal(c) {
		t.Error("a closed secret is something")
	}
	c.Use(func(b []byte) {
		if string(b) != pin {
			t.Errorf("the copy went with the secret: %q", b)
		}
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
