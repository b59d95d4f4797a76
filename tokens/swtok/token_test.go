package swtok

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// TestToken runs the suite of all tokens with both libraries, and in both formats of
// directories.
func TestToken(t *testing.T) {
	all := providers(t)
	for i, p := range append(all, all[len(all)-1]) {
		var version p11.Version
		if i == len(all) {
			version = p11.Version{Major: 3, Minor: 12}
		}
		t.Run(fmt.Sprintf("%s %d.%d", p.Name(), version.Major, version.Minor), func(t *testing.T) {
			tokentest.Run(t, tokentest.Backend{
				SOPIN: "87654321",
				Open: func(t *testing.T, dir string) tokens.Token {
					t.Helper()
					lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = lock.Close() })
					tok, err := newKind(p, 100).Open(t.Context(), tokens.Place{
						Name: "mine", Dir: filepath.Join(dir, "token"), Lock: lock, Create: true, Group: locks.NoGroup,
						Format: version, Log: slog.New(slog.DiscardHandler), Now: time.Now,
					})
					if err != nil {
						t.Fatal(err)
					}
					if found := ownFormat(filepath.Join(dir, "token")); found != version {
						t.Errorf("the directory is taken for one of format %d.%d", found.Major, found.Minor)
					}
					if tok.Name() != "mine" || tok.Kind() != Kind || tok.(*token).provider != p {
						t.Errorf("%s, %s", tok.Name(), tok.Kind())
					}
					return tok
				},
			})
		})
	}
}

func TestLoadProvider(t *testing.T) {
	p := LoadProvider(slog.New(slog.DiscardHandler))
	if p.Name() == "" || p.Version() == "" {
		t.Errorf("name %q, version %q", p.Name(), p.Version())
	}
	if all := providers(t); p.Name() != all[len(all)-1].Name() {
		t.Errorf("%s is chosen, and %s is there", p.Name(), all[len(all)-1].Name())
	}
	if _, err := loadLibcrypto("libcrypto.so.no-such"); err == nil {
		t.Error("a library that is not there was loaded")
	}
}
