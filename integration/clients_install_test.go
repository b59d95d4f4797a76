package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall installs below a directory and looks whether p11-kit's programs
// find the tokens by the module file alone, and whether uninstall leaves
// anything.
func TestInstall(t *testing.T) {
	t.Parallel()
	needTools(t, "make", "gcc", "p11-kit", "p11tool")
	prefix := workDir(t, "prefix")
	built := workDir(t, "built")
	run := func(target string) {
		t.Helper()
		cmd := exec.Command("make", "-s", target, "PREFIX="+prefix, "BIN="+built+"/p11fs", "BUILD="+built, "LIBP11FS="+built+"/libp11fs.so", "SLOTD=")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	run("install")
	for name, line := range map[string]string{
		"share/p11-kit/modules/p11fs.module":      "module: " + prefix + "/lib/pkcs11/libp11fs.so",
		"lib/systemd/system/p11fs.service":        "ExecStart=" + prefix + "/bin/p11fs mount --system",
		"lib/systemd/system/p11fs-rpc.socket":     "ListenStream=/run/p11fs/rpc.sock",
		"share/bash-completion/completions/p11fs": "",
	} {
		b, err := os.ReadFile(filepath.Join(prefix, name))
		if err != nil {
			t.Error(err)
		} else if line != "" && !strings.Contains("\n"+string(b), "\n"+line+"\n") {
			t.Errorf("%s has no line %q:\n%s", name, line, b)
		}
	}
	d := newClientDaemon(t, readDoc(t, "clients.md", "sh")["Set-up"])
	// p11-kit reads a user's own directory, but not root's; root can put
	// another in the place of the system's for one process.
	script := "mkdir -p $HOME/.config/pkcs11\nln -s " + prefix + "/share/p11-kit/modules $HOME/.config/pkcs11/modules\n" +
		"unset XDG_CONFIG_HOME\nwith() { \"$@\"; }\n"
	if os.Geteuid() == 0 {
		needTools(t, "unshare")
		script = `with() { unshare --mount sh -c 'mount --bind "$0" /usr/share/p11-kit/modules && exec "$@"' ` +
			prefix + "/share/p11-kit/modules \"$@\"; }\n"
	}
	out := runClient(t, d, "", script+"with p11-kit list-modules\nwith p11tool --list-tokens\n", nil)
	for _, want := range []string{"p11fs: " + prefix + "/lib/pkcs11/libp11fs.so", "token: demo", "pkcs11:model=IBM%20SoftTok;manufacturer=IBM%20Corp.;serial="} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	run("uninstall")
	var left []string
	err := filepath.WalkDir(prefix, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if err != nil || len(left) > 0 {
		t.Errorf("uninstall left %v (%v)", left, err)
	}
}

// TestSocketActivation starts the daemon with a socket that was there before it,
// as a service manager does. The daemon serves it, and leaves it in its place
// when it ends.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	needTools(t, "python3", "pkcs11-tool")
	d := newDaemon(t, daemonConfig{})
	socket := filepath.Join(d.dir, "early.sock")
	d.c.wrap = []string{"python3", "-c", activate, socket}
	for run := range 2 {
		d.start()
		term := d.terminal()
		r := term.run(fmt.Sprintf("P11FS_SOCKET=%s pkcs11-tool --module %s --list-slots", socket, ownModule(t)))
		if r.status != 0 || !strings.Contains(r.out, "p11fs swtok") {
			t.Errorf("run %d: status %d\n%s%s", run, r.status, r.out, r.err)
		}
		term.close()
		d.stop()
		if _, err := os.Stat(socket); err != nil {
			t.Errorf("run %d: the daemon took the socket away: %v", run, err)
		}
		if err := os.Remove(socket); err != nil {
			t.Error(err)
		}
	}
}

// TestFirstClientStarts: behind a socket of the service manager there is no daemon, until the
// first program connects; it is then answered like any other.
func TestFirstClientStarts(t *testing.T) {
	t.Parallel()
	needTools(t, "systemd-socket-activate", "pkcs11-tool")
	d := newDaemon(t, daemonConfig{})
	socket := filepath.Join(d.dir, "early.sock")
	term := d.terminal()
	term.ok("systemd-socket-activate --listen " + socket + " --fdname rpc.sock -E HOME -E XDG_RUNTIME_DIR -E XDG_DATA_HOME -E XDG_CONFIG_HOME -E XDG_STATE_HOME -E XDG_CACHE_HOME " +
		d.c.binary + " mount " + d.mnt + " > log 2>&1 &")
	eventually(t, "the socket", func() bool { _, err := os.Stat(socket); return err == nil })
	if m := mountsBelow(d.mnt); len(m) > 0 {
		t.Errorf("%q is mounted before there was a client", m)
	}
	if out := term.ok("P11FS_SOCKET=" + socket + " pkcs11-tool --module " + ownModule(t) + " --list-slots"); !strings.Contains(out, "p11fs swtok") {
		t.Errorf("the first client has\n%s", out)
	}
	term.ok("p11fs status && p11fs umount " + d.mnt + " && wait")
	term.close()
}

// activate binds a socket and becomes the program of the further arguments, as
// sd_listen_fds(3) has it.
const activate = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
if s.fileno() != 3:
    os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="rpc.sock")
os.execv(sys.argv[2], sys.argv[2:])
`
