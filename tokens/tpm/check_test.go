package tpm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpmtest"
)

// TestVacant: whose a slot of the machine's configuration is.
func TestVacant(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  []string
		config string
		vacant bool
	}{
		"no TPM, as most machines":  {vacant: true},
		"a directory of stock's":    {files: []string{"TOK_OBJ"}, vacant: true},
		"a token of stock's":        {files: []string{"NVTOK.DAT"}, config: "tpm.conf", vacant: true},
		"settings, and no token":    {config: "tpm.conf"},
		"a token of ours":           {files: []string{"NVTOK.DAT", chipFile}},
		"a token that is half made": {files: []string{chipFile}, config: "tpm.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, f := range c.files {
				must(t, writeFile(filepath.Join(dir, f), "x"))
			}
			if why := vacant(tokens.Place{Dir: dir, Config: c.config}); (why != "") != c.vacant {
				t.Errorf("it says %q", why)
			}
		})
	}
}

// TestCheck: what keeps a token of a TPM from being opened is told before.
func TestCheck(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	kind := NewKind(swtok.GoProvider(), soft.Device())
	p := tokens.Place{Dir: t.TempDir()}
	says := func(k tokens.Kind, want string) {
		t.Helper()
		if wrong, mend := k.Check(p); !strings.Contains(wrong, want) || (wrong == "") != (mend == "") || want == "" && wrong != "" {
			t.Errorf("it says %q, %q; want %q", wrong, mend, want)
		}
	}
	says(kind, "")
	says(NewKind(swtok.GoProvider(), "unix:/nonexistent/sock"), "no software TPM listens at unix:/nonexistent/sock")
	says(NewKind(swtok.GoProvider(), "/nonexistent/tpm"), "there is no TPM at /nonexistent/tpm")
	p.Config = filepath.Join(p.Dir, "absent.conf")
	says(kind, "the TPM's configuration")
	p.Config = ""
	must(t, os.WriteFile(filepath.Join(p.Dir, chipFile), []byte("no such file"), 0o600))
	says(kind, "stays closed")
}

// TestWeak: a TPM whose lockout or owner has no password does not guard PINs as it could.
func TestWeak(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	p := place(t, t.TempDir(), DA)
	tok := opened(t, soft, p)
	kind := NewKind(swtok.GoProvider(), soft.Device())
	says := func(want, mended string) {
		t.Helper()
		must(t, tok.Close())
		if why, mend := kind.Weak(p); !strings.Contains(why, want) || !strings.Contains(mend, mended) || want == "" && why != "" {
			t.Errorf("it says %q, %q; want %q", why, mend, want)
		}
	}
	says("neither the TPM's lockout nor its owner has a password", "-c lockout")
	soft.Password(t, tpmtest.Lockout)
	says("the TPM's owner has no password", "-c owner")
	soft.Password(t, tpmtest.Owner)
	says("", "")
	if why, mend := kind.Weak(tokens.Place{Dir: t.TempDir()}); why != "" || mend != "" {
		t.Errorf("of no token it says %q, %q", why, mend)
	}
}

// TestOwnerPassword: a token is made, and its PINs are changed, also where the owner has a
// password, if the storage key is there; and what needs the owner says so.
func TestOwnerPassword(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	old := place(t, t.TempDir(), DA)
	made := opened(t, soft, old)
	ready(t, made)
	must(t, made.Close())
	soft.Persist(t)
	soft.Password(t, tpmtest.Owner)
	made = opened(t, soft, old) // whose storage key was not persistent when it was made
	if rv := try(t, made, userPIN); rv != 0 {
		t.Errorf("a token from before the password: %v", rv)
	}
	must(t, made.Close())
	for protection, want := range map[string]string{DA: "", PINFail: "its owner has a password"} {
		p := place(t, t.TempDir(), protection)
		tok, err := NewKind(swtok.GoProvider(), soft.Device()).Open(t.Context(), p)
		if err == nil {
			ready(t, tok.(*token))
			must(t, tok.Close())
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", protection, err, want)
		}
		if _, serr := os.Stat(filepath.Join(p.Dir, chipFile)); (serr == nil) != (err == nil) {
			t.Errorf("%s: the directory has a token: %v", protection, serr)
		}
	}
}
