package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

// TestAgeIdentity: an identity names the key that it was made of, and no other text is one.
func TestAgeIdentity(t *testing.T) {
	for _, curve := range []ecdh.Curve{ecdh.X25519(), ecdh.P256()} {
		private, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k := ageKey{private.PublicKey()}
		name, data, err := plugin.ParseIdentity(k.identity())
		if err != nil || name != agePlugin {
			t.Fatalf("%s: %q, %v", k.identity(), name, err)
		}
		again, err := parseAgeIdentity(data)
		if err != nil || !again.public.Equal(k.public) {
			t.Errorf("%s is %v, %v", k.identity(), again.public, err)
		}
		for n := range data {
			if got, err := parseAgeIdentity(data[:n]); err == nil {
				t.Errorf("the first %d bytes are the key %v", n, got.public)
			}
		}
		data[0]++
		if _, err := parseAgeIdentity(data); err == nil || !strings.Contains(err.Error(), "another version") {
			t.Errorf("of a later version: %v", err)
		}
	}
	off := append([]byte{ageVersion, ageP256, 2}, bytes.Repeat([]byte{0xff}, 32)...)
	if _, err := parseAgeIdentity(off); err == nil {
		t.Error("a point that is not on the curve is taken")
	}
}

// TestAgeStanzas: what is damaged in a file is an error before the token is asked, and what
// is for another key is none.
func TestAgeStanzas(t *testing.T) {
	b64 := base64.RawStdEncoding.EncodeToString
	body := make([]byte, wrappedSize)
	for _, c := range []struct {
		curve  ecdh.Curve
		stanza age.Stanza
		want   string // "" for one that is passed over
	}{
		{ecdh.X25519(), age.Stanza{Type: "scrypt", Args: []string{"x"}, Body: body}, ""},
		{ecdh.X25519(), age.Stanza{Type: "p256tag", Args: []string{"x"}, Body: body}, ""},
		{ecdh.P256(), age.Stanza{Type: "X25519", Args: []string{b64(body)}, Body: body}, ""},
		{ecdh.P256(), age.Stanza{Type: "p256tag", Args: []string{b64(body[:4]), b64(make([]byte, 65))}, Body: body}, ""},
		{ecdh.P256(), age.Stanza{Type: "p256tag", Args: []string{b64(body[:4]), b64(body)}, Body: body}, ""},
		{ecdh.X25519(), age.Stanza{Type: "X25519", Body: body}, "damaged"},
		{ecdh.X25519(), age.Stanza{Type: "X25519", Args: []string{b64(body)}, Body: body[1:]}, "damaged"},
		{ecdh.X25519(), age.Stanza{Type: "X25519", Args: []string{"!"}, Body: body}, "another form"},
		{ecdh.X25519(), age.Stanza{Type: "X25519", Args: []string{b64(body[:31])}, Body: body}, "invalid public key"},
		{ecdh.P256(), age.Stanza{Type: "p256tag", Args: []string{b64(body[:4])}, Body: body}, "damaged"},
		{ecdh.P256(), age.Stanza{Type: "p256tag", Args: []string{"!", b64(body)}, Body: body}, "another form"},
	} {
		private, err := c.curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i := &ageIdentity{ageKey: ageKey{private.PublicKey()}, getenv: func(string) string { return t.TempDir() }}
		_, err = i.Unwrap([]*age.Stanza{&c.stanza})
		if c.want == "" && !errors.Is(err, age.ErrIncorrectIdentity) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.stanza, err, c.want)
		}
	}
}
