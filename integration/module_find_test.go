package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestModuleFindsTheMountsDaemon starts a user's daemon with and without a runtime
// directory, and looks for it with and without: p11fs path and libp11fs.so find the
// same one. All is done in a mount namespace that shows no other p11fs.
func TestModuleFindsTheMountsDaemon(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "unshare", "pkcs11-tool", "fusermount3")
	module := ownModule(t)
	const script = `set -e
for m in $(awk '/ - fuse\.p11fs /{ print $5 }' /proc/self/mountinfo); do umount -l "$m"; done
with() { if [ -n "$1" ]; then export XDG_RUNTIME_DIR="$1"; else unset XDG_RUNTIME_DIR; fi; shift; exec "$@"; }
(with "$START" "$0" mount > log 2>&1) & daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
for i in $(seq 600); do ! grep -qs ready: log || break; sleep 0.05; done
(with "$LOOK" "$0" path)
readlink "$(with "$LOOK" "$0" path)/rpc.sock"
(with "$LOOK" pkcs11-tool --module "$MODULE" --list-slots) | grep -o 'p11fs swtok'
(with "$LOOK" env P11FS_MOUNT="$("$0" path)" XDG_CACHE_HOME=/nowhere pkcs11-tool --module "$MODULE" --list-slots) | grep -o 'p11fs swtok'
`
	for name, c := range map[string]struct{ start, look, mount, socket string }{
		"both with":    {"/run", "/run", "/run/p11", "/run/p11fs/rpc.sock"},
		"started with": {"/run", "", "/run/p11", "/run/p11fs/rpc.sock"},
		"looked with":  {"", "/run", "/p11", "/.cache/p11fs/rpc.sock"},
		"both without": {"", "", "/p11", "/.cache/p11fs/rpc.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := workDir(t, "find")
			at := func(part string) string {
				if part == "" {
					return ""
				}
				return filepath.Join(dir, part)
			}
			if err := os.Mkdir(at("run"), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, binary())
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "START=" + at(c.start), "LOOK=" + at(c.look), "MODULE=" + module}
			out, err := cmd.CombinedOutput()
			want := at(c.mount) + "\n" + at(c.socket) + "\np11fs swtok\np11fs swtok\n"
			if err != nil || string(out) != want {
				log, _ := os.ReadFile(at("log"))
				t.Errorf("%v\n%s\nwant:\n%s\nthe daemon:\n%s", err, strings.TrimSpace(string(out)), want, log)
			}
		})
	}
}
