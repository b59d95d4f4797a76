package stocktpm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/desk"
	"p11fs/tokens/tpm/tpm12"
	"p11fs/tokens/tpm/tpmtest"
)

// A golden is a token directory that stock's token made over a TPM 1.2.
type golden struct {
	SOPIN      string `json:"so_pin"`
	UserPIN    string `json:"user_pin"`
	Signatures map[string]string

	tpm    *tpmtest.TPM
	device desk.Device // by which several have the TPM
	dir    string
}

// archive is the TPM's state and the directory, of package tpm12's tests.
func archive(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../tpm12/testdata/tpm12.tar.gz")
	noError(t, err)
	return b
}

func eachFile(t testing.TB, f func(*tar.Header, []byte)) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive(t)))
	noError(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		noError(t, err)
		b, err := io.ReadAll(r)
		noError(t, err)
		if h.Typeflag == tar.TypeReg {
			f(h, b)
		}
	}
}

// startTPM starts a TPM 1.2 that has an owner and a storage root key, with secrets of zeros.
func startTPM(t testing.TB) *tpmtest.TPM {
	t.Helper()
	return tpmtest.Start12(t, archive(t))
}

// readGolden unpacks stock's directory, and starts its TPM.
func readGolden(t testing.TB) golden {
	t.Helper()
	var g golden
	text, err := os.ReadFile("../tpm12/testdata/manifest.json")
	noError(t, err)
	noError(t, json.Unmarshal(text, &g))
	g.dir = t.TempDir()
	unpackToken(t, g.dir)
	g.tpm = startTPM(t)
	g.device = desk.Device("unix:" + g.tpm.Share(t))
	return g
}

// unpackToken unpacks stock's directory below dir.
func unpackToken(t testing.TB, dir string) {
	t.Helper()
	noError(t, os.MkdirAll(filepath.Join(dir, "token", "root", "TOK_OBJ"), 0o700))
	eachFile(t, func(h *tar.Header, b []byte) {
		if name, ok := strings.CutPrefix(filepath.Clean(h.Name), "tpm/"); ok {
			file := filepath.Join(dir, "token", name)
			noError(t, os.MkdirAll(filepath.Dir(file), 0o700))
			noError(t, os.WriteFile(file, b, 0o600))
		}
	})
}

// keptFile is what a directory holds of a PIN whose file that is.
func keptFile(file []byte) format.Kept { return format.Kept{File: file} }

// openAt opens the token below dir, of the user root.
func openAt(t testing.TB, dir string, device desk.Device) (tokens.Token, error) {
	t.Helper()
	lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
	noError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	chip := tpm12.Open(device, tpm12.Auth{})
	tok, err := Open(t.Context(), tokens.Place{
		Name: "tpm", Dir: filepath.Join(dir, "token"), Lock: lock, Create: true, Group: locks.NoGroup,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}, Config{Kind: "tpm", Provider: swtok.GoProvider(), TPM: chip, Release: chip.Close, User: "root"})
	if err != nil {
		chip.Close()
	}
	return tok, err
}

func open(t testing.TB, dir string, device desk.Device) *token {
	t.Helper()
	tok, err := openAt(t, dir, device)
	noError(t, err)
	t.Cleanup(func() { noError(t, tok.Close()) })
	return tok.(*token)
}

func (g golden) open(t testing.TB) *token {
	t.Helper()
	tok := open(t, g.dir, g.device)
	tok.root, tok.leaf = pooledRoots(t), 1024
	return tok
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantRV(t testing.TB, what string, err error, want p11.RV) {
	t.Helper()
	if got := p11.RVOf(err); got != want || err == nil {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

func pin(t testing.TB, text string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(text))
	noError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func login(t testing.TB, tok *token, u p11.UserType, text string) tokens.Login {
	t.Helper()
	l, err := tok.Login(t.Context(), u, pin(t, text))
	noError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// find returns the object of a class with a label.
func find(t testing.TB, tok *token, class p11.ObjectClass, label string) *tokens.Object {
	t.Helper()
	list, err := tok.Find(t.Context(), p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}, {Type: p11.CKA_LABEL, Value: []byte(label)},
	}, true)
	noError(t, err)
	if len(list) != 1 {
		t.Fatalf("%d objects %s", len(list), label)
	}
	return list[0]
}

// do does a whole operation.
func do(t testing.TB, tok *token, use p11.Flags, m p11.MechanismType, key *tokens.Object, data, signature []byte) ([]byte, error) {
	t.Helper()
	op, err := tok.Begin(t.Context(), use, p11.Mechanism{Type: m}, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	out, err := op.Update(t.Context(), data)
	if err != nil {
		return nil, err
	}
	rest, err := op.Final(t.Context(), signature)
	return append(out, rest...), err
}

// pooledRoots makes root keys quickly: the two of a token are two.
func pooledRoots(t testing.TB) func() (*rsa.PrivateKey, error) {
	t.Helper()
	keys := rootKeys()
	var n atomic.Int32
	return func() (*rsa.PrivateKey, error) { return keys[int(n.Add(1))%len(keys)], nil }
}

// rootKeys are made once.
var rootKeys = sync.OnceValue(func() (keys []*rsa.PrivateKey) {
	for range 3 {
		k, err := newRoot()
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})
