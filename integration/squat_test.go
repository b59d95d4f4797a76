package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// twoUsers starts a daemon with an initialised token, and terminals of two users of
// it; where the tests do not run as root, of one user.
func twoUsers(t *testing.T, args ...string) (d *daemon, owner, spy *terminal) {
	t.Helper()
	root := os.Geteuid() == 0
	d = startDaemon(t, daemonConfig{system: root, args: args})
	d.initToken(d.terminal())
	if root {
		owner, spy = d.terminalOf(anotherUser(t, "nobody", "pkcs11")), d.terminalOf(anotherUser(t, "daemon", "pkcs11"))
	} else {
		owner, spy = d.terminal(), d.terminal()
	}
	owner.ok("echo " + userPIN + " > $T/login")
	return d, owner, spy
}

// TestSquatting: somebody without the PIN makes public objects by the names that the
// owner is going to use.
func TestSquatting(t *testing.T) {
	t.Parallel()
	d, owner, spy := twoUsers(t, "--open-token")
	spy.ok("echo 'aes:256 label=backup private=false sensitive=false extractable=true' > $T/generate")
	owner.ok("echo 'aes:256 label=backup' > $T/generate")
	owner.ok("echo plan > $O/backup.sec/encrypt && cat $O/backup.sec/encrypt > plan.enc && cat plan.enc > $O/backup.sec/decrypt")
	owner.want("cat $O/backup.sec/attr/private $O/backup.sec/decrypt", "true\nplan\n")
	spy.want("cat $O/backup.sec/attr/private", "false\n")

	// So with files, whichever door the public one came through.
	module := ownModule(t)
	needTools(t, "pkcs11-tool")
	socket := filepath.Join(d.dir, "p11fs", "rpc.sock")
	if d.c.system {
		socket = filepath.Join(d.dir, "run", "p11fs", "rpc.sock")
	}
	spy.ok("export P11FS_SOCKET=" + socket + "; printf old > value; tool='pkcs11-tool --module " + module + " --write-object value --type data --label'")
	for _, name := range []string{"payroll", "log", "draft", "shared"} {
		spy.ok("$tool " + name)
	}
	stored := strings.TrimSpace(owner.ok("basename $(find $T/by-uid -lname '*/shared.dat')"))
	owner.want("cat $T/data/payroll", "old")
	owner.ok("echo salaries > $T/data/payroll")
	owner.ok("printf new >> $T/data/log")
	owner.ok("echo salaries > $T/data/new && mv $T/data/new $T/data/draft")
	owner.want("cat $T/data/payroll $T/data/log $T/data/draft", "salaries\noldnewsalaries\n")
	owner.want("stat -c %s $T/data/payroll", "9\n")
	owner.want("cat $T/error", "0x00000000 CKR_OK\n")
	owner.ok("ls $T/data | grep '^payroll~'")
	spy.want("cat $T/data/payroll $T/data/log $T/data/draft", "oldoldold")

	// Who names the public one with its uid means it.
	owner.ok("echo for all > $T/data/shared~" + stored)
	spy.want("cat $T/data/shared", "for all\n")
}

// TestSwapping: without the PIN nothing public in the token is made, replaced or
// destroyed through the mount.
func TestSwapping(t *testing.T) {
	t.Parallel()
	_, owner, spy := twoUsers(t)
	owner.ok("echo 'rsa:2048 label=r' > $T/generate")
	owner.ok("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca 2>/dev/null && cp ca.pem $T/certs/")
	before := spy.ok("cat $O/r.pub/public.pem $T/certs/ca.pem")
	spy.ok("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca 2>/dev/null && openssl pkey -in ca.key -pubout -out r.pem")
	for _, line := range []string{
		"p11io write $T/certs/ca.pem < ca.pem",
		"cp ca.pem $T/certs/other.pem",
		"p11io write $T/import:pub,label=r < r.pem",
		"echo 'aes:256 label=backup private=false' | p11io write $T/generate",
		"echo s | p11io write $O/r.pub/attr/label",
		"mv $O/r.pub $O/s.pub",
		"mv $T/certs/ca.pem $T/certs/cb.pem",
		"rmdir $O/r.pub",
		"rm -f $T/certs/ca.pem",
	} {
		spy.fails(line, syscall.EACCES)
	}
	spy.want("cat $O/r.pub/public.pem $T/certs/ca.pem", before)
	spy.want("ls $O", "ca.crt\nr.pub\n")
	spy.ok("echo plan > $O/r.pub/encrypt && cat $O/r.pub/encrypt > /dev/null")
	spy.ok("echo 'aes:256 label=mine token=false private=false' > $T/generate")
}
