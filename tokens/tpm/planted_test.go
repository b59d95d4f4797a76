package tpm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpmtest"
)

// TestPlantedDevice: a TPM that only a file names which others may write gets no PIN.
func TestPlantedDevice(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	p := place(t, t.TempDir(), DA)
	tok := opened(t, soft, p)
	ready(t, tok)
	must(t, tok.Close())
	kind := NewKind(swtok.GoProvider(), "")
	opens := func(want p11.RV) {
		t.Helper()
		tok, err := kind.Open(t.Context(), p)
		if rv := p11.RVOf(err); rv != want {
			t.Errorf("it opens with %v", err)
		}
		if err == nil {
			must(t, tok.Close())
		}
		if wrong, mend := kind.Check(p); (wrong == "") != (want == p11.CKR_OK) || (mend == "") != (want == p11.CKR_OK) {
			t.Errorf("check says %q, %q", wrong, mend)
		}
	}
	file := filepath.Join(p.Dir, chipFile)
	opens(p11.CKR_OK)
	must(t, os.Chmod(file, 0o660))
	opens(p11.CKR_TOKEN_NOT_RECOGNIZED)
	must(t, os.Chmod(file, 0o600))
	must(t, os.Chmod(p.Dir, 0o770))
	opens(p11.CKR_TOKEN_NOT_RECOGNIZED)
	must(t, writeFile(p.Config, strings.Join([]string{"protection = da", "device = " + soft.Device(), ""}, "\n")))
	opens(p11.CKR_OK)
}

// TestPlantedKeyFile: what stands in the place of a PIN's file is not waited for, nor read
// to an end that it does not have.
func TestPlantedKeyFile(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(file string) error{
		"fifo": func(file string) error { return unix.Mkfifo(file, 0o600) },
		"large": func(file string) error {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(file, 1<<40)
		},
		"link": func(file string) error { return os.Symlink("/dev/zero", file) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, plant(filepath.Join(dir, "MK_SO")))
			done := make(chan error, 1)
			go func() { done <- (&keeper{dir: dir}).sweep(t.Context()) }()
			select {
			case err := <-done:
				must(t, err)
			case <-time.After(time.Minute):
				t.Error("it is waited for")
			}
		})
	}
}
