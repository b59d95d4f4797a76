package tpm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpm12"
	"p11fs/tokens/tpm/tpmtest"
)

// TestOld has an empty directory become a token of the TPM 1.2 that the device is, and be
// told by its files from then on, also while the TPM is away.
func TestOld(t *testing.T) {
	t.Setenv("OCK_SRK_MODE", "TSS_SECRET_MODE_SHA1")
	t.Setenv("OCK_SRK_SECRET", strings.Repeat("0", 40))
	state, err := os.ReadFile("tpm12/testdata/tpm12.tar.gz") // of a TPM with an owner
	if err != nil {
		t.Fatal(err)
	}
	soft := tpmtest.Start12(t, state)
	kind := NewKind(swtok.GoProvider(), soft.Device())
	dir := t.TempDir()
	p := place(t, dir, DA)
	if err := os.WriteFile(p.Config, []byte("user = somebody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !kind.Unshared(p) || kind.Owner(p) != "" || kind.OwnFormat(p.Dir) != (p11.Version{Major: 3, Minor: 12}) {
		t.Error("where there is nothing, there is a token of a TPM 1.2")
	}
	tok, err := kind.Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	so := tokentest.PIN(t, "so-pin-1")
	if err := tok.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "old"); err != nil {
		t.Error(err)
	}
	if err := tok.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN), so); err != nil {
		t.Error(err)
	}
	info, err := tok.Info(t.Context())
	if err != nil || info.Model != "TPM v1.1 Token" || tok.Kind() != Kind {
		t.Errorf("%+v, %v", info, err)
	}
	if lines := tok.(tokens.Describer).Describe(t.Context()); len(lines) != 3 || !strings.Contains(lines[0], "TPM 1.2 at "+soft.Device()) || !strings.Contains(lines[0], "somebody") {
		t.Errorf("%q", lines)
	}
	if err := tok.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(p.Dir, "somebody", tpm12.PublicRootFile)); err != nil {
		t.Error(err)
	}
	soft.Kill()
	if kind.Unshared(p) || kind.Owner(p) != "somebody" || kind.OwnFormat(p.Dir) != (p11.Version{}) || vacant(p) != "" {
		t.Error("it is not taken for a token of a TPM 1.2")
	}
	if why, _ := kind.Weak(p); !strings.Contains(why, "key of zeros") {
		t.Errorf("what is weak: %q", why)
	}
	if tok, err = kind.Open(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Login(t.Context(), p11.CKU_SO, so); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("a login without the TPM: %v", err)
	}
	if tok.(tokens.Offliner).Offline() == nil {
		t.Error("the TPM is not known to be away")
	}
	if err := tok.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("OCK_SRK_SECRET", "zz")
	if _, err := kind.Open(t.Context(), p); err == nil || strings.Contains(err.Error(), "zz") {
		t.Errorf("a secret that is none: %v", err)
	}
	for text, wrong := range map[string]bool{"user = alice\n": false, "user = ../x\n": true, "user = TOK_OBJ\n": true, "user =\n": true} {
		if err := os.WriteFile(p.Config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSettings(p.Config); (err != nil) != wrong {
			t.Errorf("%q: %v", text, err)
		}
	}
}
