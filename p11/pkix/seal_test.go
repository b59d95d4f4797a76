package pkix_test

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// TestSeal has openssl(1) make a key and open what SealPKCS8 makes of it; so does Parse.
func TestSeal(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	dir := t.TempDir()
	plain, err := exec.Command("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256").Output()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(plain)
	pass := options(t, "open it").Passphrase
	sealed, err := pkix.SealPKCS8(block.Bytes, pass)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sealed.pem")
	if err := os.WriteFile(file, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := exec.Command("openssl", "pkey", "-in", file, "-passin", "pass:open it").Output()
	if err != nil || string(opened) != string(plain) {
		t.Errorf("openssl: %v", err)
	}
	list, err := pkix.Parse(pkix.PKCS8, sealed, options(t, "open it"))
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := pkix.Parse(pkix.PKCS8, sealed, options(t, "open")); p11.RVOf(err) != p11.CKR_PIN_INCORRECT {
		t.Errorf("another pass phrase: %v", err)
	}
	if again, err := pkix.SealPKCS8(block.Bytes, pass); err != nil || string(again) == string(sealed) {
		t.Errorf("the same again: %v", err)
	}
}
