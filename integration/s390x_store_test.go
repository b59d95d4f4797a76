package integration

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
	"p11fs/tokens/store/storetest"
)

// openS390X opens a token directory of the big-endian machine on this one, and logs
// the user in.
func openS390X(t *testing.T, root, kind, pin string) *store.Store {
	t.Helper()
	k, ok := format.KindOf(kind)
	if !ok {
		t.Fatalf("there is no %s", kind)
	}
	lock, err := locks.Open(filepath.Join(t.TempDir(), "LCK"), locks.Options{Group: locks.NoGroup})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	s, err := store.Open(t.Context(), store.Config{
		Dir: filepath.Join(root, kind), Format: format.V38(k, rand.Reader), Lock: lock, Group: store.NoGroup,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Login(t.Context(), p11.CKU_USER, secretPIN(t, pin)); err != nil {
		t.Fatal(err)
	}
	return s
}

func secretPIN(t *testing.T, text string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestS390XStore hands token directories to and fro between stock programs on the
// big-endian machine and our store on this one.
func TestS390XStore(t *testing.T) {
	t.Parallel()
	root := workDir(t, "tokens")
	kinds := []string{"swtok", "lite"}
	for _, kind := range kinds {
		if err := os.CopyFS(filepath.Join(root, kind), os.DirFS(storetest.Untar(t, kind+"-be"))); err != nil {
			t.Fatal(err)
		}
	}
	h := startS390X(t, root)
	const newPIN = "1357"
	for _, kind := range kinds {
		s := openS390X(t, root, kind, storetest.UserPIN)
		for _, text := range []string{
			"class=data label=our-note private=true application=ours",
			"class=data label=our-public-note private=false application=ours",
			"class=secret-key key-type=aes label=our-aes id=0x5a private=true sensitive=true extractable=false encrypt=true decrypt=true value-len=16",
		} {
			attrs, err := p11.ParseTemplate(text + " token=true modifiable=true")
			if err != nil {
				t.Fatal(err)
			}
			attrs.Set(p11.CKA_VALUE, []byte("0123456789abcdef"))
			if _, err := s.Create(t.Context(), attrs); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SetPIN(t.Context(), p11.CKU_USER, secretPIN(t, storetest.UserPIN), secretPIN(t, newPIN)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	h.startSlotd()
	for slot, kind := range kinds {
		tool := "tool --slot " + []string{"0", "1"}[slot] + " --login --pin " + newPIN + " "
		n := map[string]string{"swtok": "3", "lite": "1"}[kind]
		h.lists(tool, "RSA 2048 bits", "rsa"+n, "aes"+n, "dat"+n, "our-note", "our-public-note", "our-aes", "AES length 16")
		h.ok(tool + "--read-object --type pubkey --id 01 -o /tmp/pub.der && openssl pkey -pubin -inform DER -in $R/tmp/pub.der -out $R/tmp/pub.pem")
		h.signs(tool, "01", "$R/tmp/pub.pem")
		h.ok(tool + "--read-object --type data --label our-note -o /tmp/note && test \"$(cat $R/tmp/note)\" = 0123456789abcdef")
		h.makeObjects(tool)
		h.ok(tool + "--delete-object --type data --label our-public-note")
	}
	h.endSlotd()
	h.close()

	for _, kind := range kinds {
		s := openS390X(t, root, kind, newPIN)
		if d := s.Damaged(); len(d) > 0 {
			t.Errorf("%s: damaged %v", kind, d)
		}
		found, err := s.Find(t.Context(), nil, true)
		if err != nil {
			t.Fatal(err)
		}
		var labels []string
		for _, o := range found {
			attrs, err := o.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			labels = append(labels, attrs.Label())
			o.Release()
		}
		for _, want := range []string{"our-note", "our-aes", "theirs", "their-aes", "their-note", "their-public-note"} {
			if !slices.Contains(labels, want) {
				t.Errorf("%s: there is no %s among %q", kind, want, labels)
			}
		}
		if len(labels) != 11 || slices.Contains(labels, "our-public-note") {
			t.Errorf("%s: objects %q", kind, labels)
		}
	}
}
