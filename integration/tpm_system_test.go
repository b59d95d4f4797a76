package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/tpm/tpmtest"
)

// TestTPMSystem serves the machine's slots for a TPM: that whose confname names one of
// version 2.0 has a token, and that of openCryptoki's usual configuration is empty, and
// nothing is made of it.
func TestTPMSystem(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "swtpm")
	soft := tpmtest.Start(t, nil)
	d := newDaemon(t, daemonConfig{system: true, modern: true})
	etc := filepath.Join(d.dir, "etc/opencryptoki")
	for name, text := range map[string]string{
		"opencryptoki.conf": "version opencryptoki-3.8\nslot 0\n{\nstdll = libpkcs11_tpm.so\n}\n" + strings.TrimPrefix(strings.Replace(stockConfig, "slot 0", "slot 3", 1), "version opencryptoki-3.8\n") +
			"slot 5\n{\nstdll = libpkcs11_tpm.so\ntokname = chip\nconfname = p11fs-tpm.conf\n}\n",
		"p11fs-tpm.conf": "device = " + soft.Device() + "\nprotection = da\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.c.token = "chip"
	d.start()
	term := d.terminal()
	d.initToken(term)
	term.ok("echo " + userPIN + " > $T/login; echo hello > msg; echo ec:p256 label=web > $T/generate && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig")
	term.ok("openssl dgst -sha256 -verify $O/web.pub/public.pem -signature sig msg")
	term.ok("grep 'device chip: protection da' $P/status && grep 'weak chip: neither the TPM.s lockout nor' $P/status")
	term.ok("grep 'store slot-0 absent: it is the slot of openCryptoki.s token of a TPM 1.2' $P/status")
	if said := term.run("p11fs doctor --root " + d.dir + " " + d.mnt); !strings.Contains(said.out, "weak   chip: neither the TPM's lockout nor its owner has a password") {
		t.Errorf("doctor says %s%s", said.out, said.err)
	}
	d.stop()
	if strings.Contains(d.said(), "level=ERROR") {
		t.Errorf("the daemon wrote\n%s", d.said())
	}
	if _, err := os.Stat(filepath.Join(d.tokenRoot(), "tpm")); !os.IsNotExist(err) {
		t.Errorf("the empty slot has a directory: %v", err)
	}
}
