package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A stockHost is a terminal on a machine of its own: private mount, IPC and
// process namespaces, where the stock pkcsslotd 3.8.1 runs over a token root
// of the test's, and nothing it does reaches the real one.
type stockHost struct {
	*terminal
	module string
}

// stockConfig is the configuration of the stock daemon: one soft token.
const stockConfig = `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_sw.so
tokname = swtok
}
`

// needStock skips or fails without the stock programs.
func needStock(t testing.TB) string {
	t.Helper()
	needRoot(t)
	needTools(t, "unshare", "pkcsslotd", "pkcsconf", "pkcs11-tool", "python3")
	found, _ := filepath.Glob("/usr/lib/*/opencryptoki/libopencryptoki.so*")
	need(t, len(found) > 0, "libopencryptoki.so")
	return found[0]
}

// startStock boots a stockHost whose /var/lib/opencryptoki is tokenRoot.
func startStock(t testing.TB, tokenRoot string) *stockHost {
	t.Helper()
	h := &stockHost{module: needStock(t)}
	conf := filepath.Join(workDir(t, "stock"), "opencryptoki.conf")
	if err := os.WriteFile(conf, []byte(stockConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	h.terminal = newTerminal(t, terminalConfig{shell: []string{
		"unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh",
	}})
	h.ok("mount -t tmpfs tmpfs /run && mkdir /run/lock && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /var/log")
	h.ok("mount --bind " + quote(conf) + " /etc/opencryptoki/opencryptoki.conf")
	h.ok("mount --bind " + quote(tokenRoot) + " /var/lib/opencryptoki")
	// In the foreground, so that it stays this shell's child.
	h.ok("pkcsslotd -f & slotd=$!")
	h.ok("for i in $(seq 100); do [ -S /run/pkcsslotd.socket ] && break; sleep 0.05; done; [ -S /run/pkcsslotd.socket ]")
	return h
}

// stop ends the slot daemon as its own signal handler does, and the host.
func (h *stockHost) stop() {
	h.t.Helper()
	h.ok("kill -TERM $slotd; wait $slotd")
	h.close()
}

// tool runs pkcs11-tool as the logged-in user and returns its output.
func (h *stockHost) tool(pin, args string) string {
	h.t.Helper()
	return h.ok("pkcs11-tool --module " + h.module + " --login --pin " + quote(pin) + " " + args)
}

// A stockObject is an object as the stock library tells it: values in
// hexadecimal by attribute number ("0x3"), or "sensitive".
type stockObject map[string]string

// objects lists everything that the stock library shows to the user.
func (h *stockHost) objects(pin string) []stockObject {
	h.t.Helper()
	script, err := filepath.Abs("testdata/stock.py")
	if err != nil {
		h.t.Fatal(err)
	}
	var objects []stockObject
	if err := json.Unmarshal([]byte(h.ok("python3 "+script+" "+h.module+" "+quote(pin))), &objects); err != nil {
		h.t.Fatal(err)
	}
	return objects
}

// unpackToken lays the stock token directory out below root, owned as stock
// does.
func unpackToken(t testing.TB, root string) {
	t.Helper()
	if out, err := exec.Command("tar", "-xzf", storeTestdata+"swtok.tar.gz", "-C", root).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

// The harness itself: the stock library sees its own fixture whole.
func TestStockReadsItsOwnToken(t *testing.T) {
	t.Parallel()
	root := workDir(t, "tokens")
	unpackToken(t, root)
	h := startStock(t, root)
	if got := h.ok("pkcsconf -t"); !strings.Contains(got, "fixture token") {
		t.Errorf("pkcsconf -t does not name the token:\n%s", got)
	}
	want := readManifest(t)
	got := h.objects(want.UserPIN)
	if len(got) != len(want.Objects) {
		t.Errorf("stock lists %d objects, the manifest %d", len(got), len(want.Objects))
	}
	if out := h.tool(want.UserPIN, "--list-objects"); !strings.Contains(out, "tool-rsa") {
		t.Errorf("pkcs11-tool does not list tool-rsa:\n%s", out)
	}
	h.stop()
}
