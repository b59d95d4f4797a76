package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStockUsers is a machine with a member of the group pkcs11, daemon, and one
// who is not, nobody: the member can do what stock allows, the other gets
// nothing out of files, segments, sockets and mount, and is told why.
func TestStockUsers(t *testing.T) {
	t.Parallel()
	needTools(t, "setpriv", "flock", "ipcrm")
	h := newSlotHost(t, stockConfig)
	h.dumper()
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, line := range lines(string(group)) {
		if strings.HasPrefix(line, "pkcs11:") {
			line = strings.Join(append(strings.Split(line, ":")[:3], "root,daemon"), ":")
		}
		changed = append(changed, line)
	}
	// Bound over /etc/group: written in place.
	if err := os.WriteFile(filepath.Join(h.state, "group"), []byte(strings.Join(changed, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.startSlotd()
	h.ok("T=/p11/swtok; echo init " + soPIN + " 'users' > $T/ctl && echo so:" + soPIN + " > $T/login && echo init-pin " + userPIN + " > $T/ctl && echo > $T/logout && echo " + userPIN + " > $T/login")
	h.ok("echo 'rsa:2048 label=web id=0x01' > $T/generate && seq 100 > msg && chmod 0644 msg && cat $T/objects/web.pub/public.pem > web.pem")
	h.ok("mkdir work && chmod 0777 work && cd work")
	as := func(user, line string) string {
		return "setpriv --reuid=" + user + " --regid=$(id -g " + user + ") --init-groups sh -c " + quote(line)
	}
	tool := "pkcs11-tool --module " + h.module + " "

	t.Run("member", func(t *testing.T) {
		for _, line := range []string{
			"pkcsconf -t | grep -q users",
			"pkcsconf -s && pkcsconf -m -c 0 | grep -q CKM_RSA_PKCS",
			tool + "--login --pin " + userPIN + " -O | grep -q web",
			tool + "--login --pin " + userPIN + " --keypairgen --key-type rsa:2048 --label members --id 02",
			tool + "--login --pin " + userPIN + " --sign --mechanism SHA1-RSA-PKCS --id 02 --input-file ../msg --output-file sig",
			"echo note > note && " + tool + "--login --pin " + userPIN + " --write-object note --type data --label note --private",
			"cat $T/info $T/mechanisms /p11/resources /p11/status > all",
			"echo " + userPIN + " > $T/login && cat $T/login",
			"cat ../msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig && openssl dgst -sha256 -verify ../web.pem -signature sig ../msg",
			"cat ../msg > $T/objects/members.key/sign && cat $T/objects/members.key/sign > sig",
			"echo 'aes:256 label=theirs' > $T/generate && rmdir $T/objects/theirs.sec && rmdir $T/objects/members.key $T/objects/members.pub",
			"P11_KIT_SERVER_ADDRESS=unix:path=/run/p11fs/rpc.sock pkcs11-tool --module /usr/lib/*/pkcs11/p11-kit-client.so -L | grep -q users",
			"p11fs status --mount /p11 > all",
			"p11fs doctor --system",
			"cat /var/lib/opencryptoki/swtok/NVTOK.DAT > all && ls /var/lock/opencryptoki > all",
			"$dump sysv /usr/sbin/pkcsslotd > all && $dump socket /run/pkcsslotd.socket > all && cat /dev/shm/var.lib.opencryptoki.swtok > all",
			"echo > $T/logout",
		} {
			if r := h.run("export T dump; " + as("daemon", line)); r.status != 0 {
				t.Errorf("%s\nended with status %d\n%s%s", line, r.status, r.out, r.err)
			}
		}
		h.ok(tool + "--login --pin " + userPIN + " -O | grep -q note && ! " + tool + "--login --pin " + userPIN + " -O | grep -q members")
	})
	t.Run("the doctor finds nothing", func(t *testing.T) {
		if r := h.run("p11fs doctor --system --quiet"); r.status != 0 {
			t.Errorf("status %d\n%s%s", r.status, r.out, r.err)
		}
	})
	t.Run("member's login is the member's", func(t *testing.T) {
		h.ok("export T; " + as("daemon", "cat $T/login") + " | grep -q public && grep -q user $T/login")
	})
	t.Run("member cannot harm", func(t *testing.T) {
		for _, line := range []string{
			"kill -TERM $slotd",
			"rm /run/pkcsslotd.socket",
			"rm /run/p11fs/rpc.sock",
			"rm /dev/shm/var.lib.opencryptoki.swtok",
			"ipcrm -a; ipcs -m | grep -q ^0x || exit 0; exit 1",
			"cat /proc/$slotd/environ",
			"head -c 1 /proc/$slotd/mem",
			"umount /p11",
			"cat /var/lock/opencryptoki/LCK..p11fs",
			"echo x > /etc/opencryptoki/opencryptoki.conf",
		} {
			if r := h.run("export slotd; " + as("daemon", line)); r.status == 0 {
				t.Errorf("%s succeeded: %s", line, r.out)
			}
		}
		h.ok("pkcsconf -t")
	})
	t.Run("outsider", func(t *testing.T) {
		for _, c := range []struct{ line, says string }{
			{"ls /var/lib/opencryptoki", "Permission denied"},
			{"cat /var/lib/opencryptoki/swtok/NVTOK.DAT", "Permission denied"},
			{"cat /var/lib/opencryptoki/swtok/TOK_OBJ/OBJ.IDX", "Permission denied"},
			{"ls /var/lock/opencryptoki", "Permission denied"},
			{"flock --nonblock /var/lock/opencryptoki/LCK..APIlock true", "Permission denied"},
			{"ls /var/log/opencryptoki", "Permission denied"},
			{"cat /dev/shm/var.lib.opencryptoki.swtok", "Permission denied"},
			{"$dump sysv /usr/sbin/pkcsslotd", "Permission denied"},
			{"$dump socket /run/pkcsslotd.socket", "Permission denied"},
			{"$dump socket /run/p11fs/rpc.sock", "Permission denied"},
			{"ls /p11", "Permission denied"},
			{"stat /p11/swtok", "Permission denied"},
			{"cat /p11/status", "Permission denied"},
			{"cat /p11/slots", "Permission denied"},
			{"echo " + userPIN + " > /p11/swtok/login", "Permission denied"},
			{"P11_KIT_SERVER_ADDRESS=unix:path=/run/p11fs/rpc.sock pkcs11-tool --module /usr/lib/*/pkcs11/p11-kit-client.so -O", ""},
			{tool + "-O", ""},
			{"pkcsconf -t", ""},
			{"p11fs status --mount /p11", "usermod -aG pkcs11 nobody"},
			{"p11fs login --mount /p11 swtok", "usermod -aG pkcs11 nobody"},
			{"p11fs doctor --system", "usermod -aG pkcs11 nobody"},
		} {
			r := h.run("export dump; " + as("nobody", c.line))
			if r.status == 0 {
				t.Errorf("%s succeeded: %s", c.line, r.out)
			}
			if !strings.Contains(r.out+r.err, c.says) {
				t.Errorf("%s says\n%s%swant %q", c.line, r.out, r.err, c.says)
			}
			if strings.Contains(r.out, "web") {
				t.Errorf("%s tells of an object: %s", c.line, r.out)
			}
		}
	})
	h.endSlotd()
	h.stop()
}
