package integration

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestSeparateWrapping: with the switch no door makes a key that both wraps and
// decrypts, and without it the tree makes one when it is told to only.
func TestSeparateWrapping(t *testing.T) {
	t.Parallel()
	needTools(t, "pkcs11-tool")
	d := startDaemon(t, daemonConfig{args: []string{"--separate-wrapping"}})
	term := d.terminal()
	d.initToken(term)
	term.ok("echo " + userPIN + " > $T/login")
	term.fails("sh -c \"/bin/echo 'aes:256 label=both wrap=true decrypt=true' > $T/generate\"", syscall.EINVAL)
	term.fails("sh -c \"/bin/echo 'rsa:2048 label=both wrap=true decrypt=true' > $T/generate\"", syscall.EINVAL)
	term.ok("echo 'aes:256 label=kek wrap=true unwrap=true' > $T/generate && echo 'aes:256 label=key extractable=true' > $T/generate")
	term.fails("sh -c '/bin/echo true > $O/kek.sec/attr/decrypt'", syscall.EPERM)
	term.ok("echo key.sec > $O/kek.sec/wrap && cat $O/kek.sec/wrap > wrapped")
	term.fails("sh -c 'cat wrapped > $O/kek.sec/unwrap:aes-key-wrap-kwp,sensitive=false'", syscall.EINVAL)

	socket := filepath.Join(d.dir, "p11fs", "rpc.sock")
	term.ok("export P11FS_SOCKET=" + socket + "; tool='pkcs11-tool --module " + ownModule(t) + " --login --pin " + userPIN + " --keygen --key-type AES:32'")
	if r := term.run("$tool --label both --usage-decrypt --usage-wrap"); r.status == 0 {
		t.Errorf("a module made a key with both usages: %s", r.out)
	}
	term.ok("$tool --label plain && $tool --label wraps --usage-wrap")
	term.want("cat $O/plain.sec/attr/decrypt $O/plain.sec/attr/wrap", "true\nfalse\n")
	term.want("cat $O/wraps.sec/attr/decrypt $O/wraps.sec/attr/wrap", "false\ntrue\n")
}
