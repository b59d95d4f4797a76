package libp11fs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs a program on the daemon and returns all that it says.
func (d *daemon) tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.Command(need(t, name), args...)
	c.Env = append(environment(d.socket), "GNUTLS_PIN="+userPIN)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, out)
	}
	return string(out)
}

// testTools runs real programs through the module.
func testTools(t *testing.T, b build) {
	t.Run("pkcs11-tool", func(t *testing.T) {
		d := serve(t)
		dir := t.TempDir()
		msg, signature := filepath.Join(dir, "msg"), filepath.Join(dir, "sig")
		if err := os.WriteFile(msg, []byte("attack at dawn"), 0o600); err != nil {
			t.Fatal(err)
		}
		tool := func(args ...string) string {
			t.Helper()
			return d.tool(t, "pkcs11-tool", append([]string{"--module", b.module}, args...)...)
		}
		in := func(args ...string) string {
			t.Helper()
			return tool(append([]string{"--login", "--pin", userPIN}, args...)...)
		}
		if out := tool("--show-info"); !strings.Contains(out, "p11fs token daemon") {
			t.Error(out)
		}
		if out := tool("--list-slots"); !strings.Contains(out, "token label        : test") {
			t.Error(out)
		}
		if out := tool("--list-mechanisms"); !strings.Contains(out, "AES-GCM") {
			t.Error(out)
		}
		in("--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "ec")
		in("--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "rsa", "--usage-sign", "--usage-decrypt")
		in("--keygen", "--key-type", "aes:32", "--id", "03", "--label", "aes")
		if out := in("--list-objects"); strings.Count(out, "Private Key Object") != 2 || !strings.Contains(out, "Secret Key Object; AES length 32") {
			t.Error(out)
		}
		in("--sign", "--mechanism", "ECDSA-SHA256", "--id", "01", "--input-file", msg, "--output-file", signature)
		if out := in("--verify", "--mechanism", "ECDSA-SHA256", "--id", "01", "--input-file", msg, "--signature-file", signature); !strings.Contains(out, "Signature is valid") {
			t.Error(out)
		}
		in("--sign", "--mechanism", "SHA256-RSA-PKCS-PSS", "--id", "02", "--input-file", msg, "--output-file", signature)
		if out := in("--test"); !strings.Contains(out, "No errors") {
			t.Error(out)
		}
		in("--delete-object", "--type", "privkey", "--id", "01")
	})
	t.Run("p11tool", func(t *testing.T) {
		d := serve(t)
		if out := d.tool(t, "p11tool", "--provider", b.module, "--list-tokens"); !strings.Contains(out, "token=test") {
			t.Error(out)
		}
		d.tool(t, "p11tool", "--batch", "--provider", b.module, "--login", "--generate-privkey=ecdsa", "--curve=secp256r1", "--label=gnutls", "pkcs11:token=test")
		if out := d.tool(t, "p11tool", "--batch", "--provider", b.module, "--login", "--list-privkeys", "pkcs11:token=test"); !strings.Contains(out, "gnutls") {
			t.Error(out)
		}
	})
}
