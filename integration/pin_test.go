package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPINCount gives three wrong PINs, each at another door, and has the daemon killed
// while it looks at one of them: then the PIN is locked at every door, and the security
// officer unlocks it.
func TestPINCount(t *testing.T) {
	t.Parallel()
	needTools(t, "pkcs11-tool")
	for name, c := range map[string]daemonConfig{"3.8": {}, "3.12": {modern: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			countPINs(t, c)
		})
	}
}

func countPINs(t *testing.T, c daemonConfig) {
	d := startDaemon(t, c)
	term := d.terminal()
	d.initToken(term)
	const next = "2468abcd"
	// What each door says of a login with a PIN.
	doors := map[string]func(pin string) string{
		"files": func(pin string) string {
			term.run("/bin/echo " + pin + " > $T/login")
			said := term.ok("cat $T/error")
			term.run("echo > $T/logout")
			return said
		},
	}
	for _, m := range modules() {
		path := m.path(t)
		doors[m.name] = func(pin string) string {
			r := term.run("eval \"$(p11fs env)\"; pkcs11-tool --module " + path + " --login --pin " + pin + " --list-objects 2>&1")
			if r.status == 0 {
				return "CKR_OK"
			}
			return r.out
		}
	}
	login := func(door, pin, want string) {
		t.Helper()
		if said := doors[door](pin); !strings.Contains(said, want) {
			t.Errorf("%s says %q of %s, want %s", door, said, pin, want)
		}
	}
	// What all doors tell of the count.
	count := func(tries, flag string) {
		t.Helper()
		if said := term.ok("cat $T/pin"); !strings.HasPrefix(said, "user: tries="+tries+" ") {
			t.Errorf("%s are left, says pin: %s", tries, said)
		}
		for _, m := range modules() {
			said := term.ok("eval \"$(p11fs env)\"; pkcs11-tool --module " + m.path(t) + " --list-token-slots")
			for _, f := range []string{"user PIN count low", "final user PIN try", "user PIN locked"} {
				if strings.Contains(said, f) != (f == flag) {
					t.Errorf("%s: the flag %q is wrong, want %q: %s", m.name, f, flag, said)
				}
			}
		}
	}
	login("libp11fs", "wrong-1", "CKR_PIN_INCORRECT")
	count("some", "user PIN count low")

	// The second one is on the disk before anybody looks at it.
	data := filepath.Join(d.tokenRoot(), "swtok", "NVTOK.DAT")
	before := changed(t, data)
	wrong := term.start("/bin/echo wrong-2 > $T/login")
	eventually(t, "NVTOK.DAT to count", func() bool { return changed(t, data) != before })
	d.crash()
	_ = wrong()
	d.start()
	term = d.terminal()
	count("1", "final user PIN try")

	login("p11-kit-client", "wrong-3", "CKR_PIN_INCORRECT")
	count("0", "user PIN locked")
	for door := range doors {
		login(door, userPIN, "CKR_PIN_LOCKED")
	}
	r := term.run("echo " + userPIN + " | p11fs login swtok")
	if r.status != 4 || !strings.Contains(r.err, "p11fs pin --unlock swtok") {
		t.Errorf("p11fs login ends with %d: %s", r.status, r.err)
	}

	term.ok(`printf '%s\n' ` + soPIN + " " + next + " | p11fs pin --unlock swtok")
	count("many", "")
	for door := range doors {
		login(door, next, "CKR_OK")
	}
	term.ok(`printf '%s\n' ` + next + " " + userPIN + " | p11fs pin swtok")
	login("files", userPIN, "CKR_OK")
	term.ok(`printf '%s\n' ` + soPIN + " 13572468 | p11fs pin --so swtok && grep -q 'so: tries=many pin=set' $T/pin && grep -q public $T/login")
}

// changed is something that changes with each version of a file.
func changed(t testing.TB, path string) string {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(st.Sys().(*syscall.Stat_t).Ino, st.ModTime().Format(time.RFC3339Nano))
}
