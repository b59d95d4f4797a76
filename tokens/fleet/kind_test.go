package fleet

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// confFile writes the configuration of a machine's token.
func confFile(t testing.TB, c *etcdtest.Cluster, sealKey, more string) string {
	t.Helper()
	pair := c.Pair(filepath.Base(t.TempDir()), time.Now().Add(time.Hour))
	var text strings.Builder
	for _, e := range c.Endpoints() {
		fmt.Fprintf(&text, "endpoint = %s\n", e)
	}
	fmt.Fprintf(&text, "prefix = /p11fs/web/\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\n%s\n", c.CA(), pair.Cert, pair.Key, sealKey, more)
	path := filepath.Join(t.TempDir(), "web.conf")
	noError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	return path
}

func place(t testing.TB, config string) tokens.Place {
	return tokens.Place{Name: "web", Dir: t.TempDir(), Config: config, Create: true, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

// begin opens the token of a place as a daemon does, with PINs that take no time.
func begin(t testing.TB, p tokens.Place) tokens.Token {
	t.Helper()
	tok := must[tokens.Token](t)(NewKind(swtok.GoProvider(), iterations).Open(t.Context(), p))
	t.Cleanup(func() { _ = tok.Close() })
	return tok
}

// Two machines with the same configuration have one token: a key that one makes, the other
// signs with, and no more once it is destroyed.
func TestTwoMachines(t *testing.T) {
	c := etcdtest.Start(t, 3)
	sealKey := filepath.Join(t.TempDir(), "seal.key")
	noError(t, seal.WriteKey(sealKey))
	one := begin(t, place(t, confFile(t, c, sealKey, "host = one")))
	two := begin(t, place(t, confFile(t, c, sealKey, "host = two\nreadalone = yes")))
	noError(t, one.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "web"))
	noError(t, one.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, soPIN)))
	so := must[tokens.Login](t)(one.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, soPIN)))
	noError(t, one.InitPIN(t.Context(), so, tokentest.PIN(t, userPIN)))
	must[tokens.Login](t)(one.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))
	must[tokens.Login](t)(two.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)))

	template := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(true)}, {Type: p11.CKA_SIGN, Value: p11.Bool(true)},
		{Type: p11.CKA_LABEL, Value: []byte("web")}, {Type: p11.CKA_VALUE, Value: []byte("0123456789abcdef0123456789abcdef")},
	}
	made := must[*tokens.Object](t)(one.Create(t.Context(), template))
	label := p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("web")}}
	found := must[[]*tokens.Object](t)(two.Find(t.Context(), label, true))
	if len(found) != 1 || found[0].Name != made.Name {
		t.Fatalf("the other machine found %v", found)
	}
	sum := func(tok tokens.Token, key *tokens.Object) string {
		o, err := tok.Begin(t.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, key)
		noError(t, err)
		defer o.Close()
		_, err = o.Update(t.Context(), []byte("message"))
		noError(t, err)
		return string(must[[]byte](t)(o.Final(t.Context(), nil)))
	}
	if sum(one, made) != sum(two, found[0]) {
		t.Error("the two machines sign with different keys")
	}
	noError(t, one.Destroy(t.Context(), made.Handle, func(p11.Attributes) error { return nil }))
	// Destroy returned, and so it is gone here, without asking.
	if _, err := two.ByHandle(found[0].Handle); p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
		t.Errorf("a key whose destroy has returned elsewhere: %v", err)
	}
}

// A user's own token is found again by what it was made with, and says what is missing.
func TestOwnToken(t *testing.T) {
	c := etcdtest.Start(t, 1)
	sealKey := filepath.Join(t.TempDir(), "seal.key")
	noError(t, seal.WriteKey(sealKey))
	conf := confFile(t, c, sealKey, "")
	settings := filepath.Join(t.TempDir(), "settings")
	noError(t, os.WriteFile(settings, []byte("fleet = "+conf+"\n"), 0o600))
	p := place(t, settings)
	kind := NewKind(swtok.GoProvider(), iterations)
	if kind.Made(p.Dir) {
		t.Error("an empty directory is a token's")
	}
	noError(t, begin(t, p).Close())
	if !kind.Made(p.Dir) {
		t.Error("what was made is not known again")
	}
	p.Config = ""
	noError(t, begin(t, p).Close())
	if wrong, _ := kind.Check(p); wrong != "" {
		t.Errorf("wrong: %s", wrong)
	}
	noError(t, os.Remove(sealKey))
	if _, err := kind.Open(t.Context(), p); err == nil {
		t.Error("it opens without the fleet's key")
	}
	noError(t, os.Remove(conf))
	if wrong, mend := kind.Check(p); wrong == "" || mend == "" {
		t.Errorf("without its configuration: %q, %q", wrong, mend)
	}
	p.Dir = t.TempDir()
	if _, err := kind.Open(t.Context(), p); p11.RVOf(err) != p11.CKR_TOKEN_NOT_PRESENT {
		t.Errorf("nothing says which fleet: %v", err)
	}
}
