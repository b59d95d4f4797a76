package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A slotHost is a terminal on a machine of its own: private mount, IPC, network and
// process namespaces and a root directory of its own, with openCryptoki's
// directories fresh, a syslog that collects, and a /p11 to mount on. What
// /usr/sbin/pkcsslotd is there, the test says.
type slotHost struct {
	*terminal
	module string
	state  string // a directory that the host and the test both see
}

// hostSetup builds the machine below $R and enters it. The syslog writes each
// message without its time and process number.
const hostSetup = `
set -e
mount -t tmpfs tmpfs $R
for d in /*; do
	if [ -L "$d" ]; then cp -P "$d" $R/
	elif [ -d "$d" ]; then
		mkdir $R$d
		case $d in
		/dev | /run | /p11) ;;
		/proc | /sys) mount --rbind $d $R$d ;;
		*) mount --bind $d $R$d ;;
		esac
	fi
done
mkdir -p $R/p11 $R/run/lock $R/dev/shm $R/dev/pts
for f in null zero random urandom fuse tty; do : > $R/dev/$f; mount --bind /dev/$f $R/dev/$f; done
chmod 1777 $R/dev/shm $R/run/lock
mount -t tmpfs tmpfs $R/var/log
mount --bind $STATE/conf $R/etc/opencryptoki/opencryptoki.conf
mount --bind $STATE/tokens $R/var/lib/opencryptoki
mount --bind $STATE/group $R/etc/group
exec setsid chroot $R sh`

const syslogScript = `
import os, re, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('/dev/log')
os.chmod('/dev/log', 0o666)
out = open(os.environ['STATE'] + '/syslog', 'ab', 0)
while True:
    line = s.recv(65536).rstrip(b'\n\0')
    out.write(re.sub(rb'^(<\d+>)\w+ +\d+ [\d:]+ (\w+)(\[\d+\])?:', rb'\1\2:', line) + b'\n')
`

// newSlotHost boots a machine without a slot daemon.
func newSlotHost(t testing.TB, conf string) *slotHost {
	t.Helper()
	h := &slotHost{module: needStock(t), state: workDir(t, "host")}
	root := filepath.Join(h.state, "root")
	tokens := filepath.Join(h.state, "tokens")
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{root, tokens} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"conf": conf, "group": string(group), "syslog": "", "syslog.py": syslogScript} {
		if err := os.WriteFile(filepath.Join(h.state, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.terminal = newTerminal(t, terminalConfig{
		shell: []string{
			"unshare", "--mount", "--ipc", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c", hostSetup,
		},
		env: []string{"R=" + root, "STATE=" + h.state},
	})
	h.ok("python3 $STATE/syslog.py & syslog=$!")
	h.ok("for i in $(seq 100); do [ -S /dev/log ] && break; sleep 0.05; done; [ -S /dev/log ]")
	h.ok("chgrp pkcs11 /var/lib/opencryptoki && chmod 0770 /var/lib/opencryptoki")
	h.ours()
	return h
}

// ours makes /usr/sbin/pkcsslotd the program under test.
func (h *slotHost) ours() {
	h.t.Helper()
	h.ok("mount --bind " + quote(binary()) + " /usr/sbin/pkcsslotd")
}

// stock makes it the stock one again.
func (h *slotHost) stock() {
	h.t.Helper()
	h.ok("umount /usr/sbin/pkcsslotd")
}

// startSlotd starts the slot daemon as an init script does.
func (h *slotHost) startSlotd() {
	h.t.Helper()
	h.ok("pkcsslotd")
	// The stock one writes its number when its starter has ended.
	h.ok("for i in $(seq 200); do slotd=$(cat /run/pkcsslotd.pid 2>/dev/null); [ -n \"$slotd\" ] && [ -d /proc/$slotd ] && break; sleep 0.05; done;" +
		" [ -n \"$slotd\" ] && [ -d /proc/$slotd ] || { cat $STATE/syslog; false; }")
}

// endSlotd ends the slot daemon, and waits for it.
func (h *slotHost) endSlotd() {
	h.t.Helper()
	h.ok("kill -TERM $slotd; for i in $(seq 400); do [ -d /proc/$slotd ] || break; sleep 0.05; done; [ ! -d /proc/$slotd ]")
}

// syslog returns what was logged since it was last asked.
func (h *slotHost) syslog() string {
	h.t.Helper()
	return h.ok("sleep 0.1; cat $STATE/syslog; : > $STATE/syslog")
}

func (h *slotHost) stop() {
	h.t.Helper()
	h.ok("kill $syslog")
	h.close()
}

// TestDropInStart starts the stock daemon and ours in the same bad and good
// situations: the exit code is the same, and what stock says in syslog ours
// says too.
func TestDropInStart(t *testing.T) {
	t.Parallel()
	h := newSlotHost(t, stockConfig)
	h.ok("ulimit -c 0; cp /etc/opencryptoki/opencryptoki.conf /run/good")
	clean := `pid=$(cat /run/pkcsslotd.pid 2>/dev/null) && kill $pid 2>/dev/null && for i in $(seq 200); do [ -d /proc/$pid ] || break; sleep 0.05; done
		rm -rf /run/pkcsslotd.* /run/lock/opencryptoki /run/log; ipcs -m | awk '/^0x/ { print $2 }' | xargs -r -n1 ipcrm -m
		cat /run/good > $STATE/conf; true`
	slot := func(n, rest string) string { return `slot ` + n + `\n{\n` + rest + `}\n` }
	const library = `stdll = libpkcs11_sw.so\n`
	for _, c := range []struct {
		name    string
		prepare string
		line    string // pkcsslotd unless given
		undo    string
		code    int
		chatty  bool // ours complains on the terminal where stock does not, or the reverse
	}{
		{name: "good"},
		{name: "verbose", line: "pkcsslotd -vvv"},
		{name: "help", line: "pkcsslotd -h"},
		{name: "log file", line: "pkcsslotd -l /run/log && grep -q 'INFO.*Shared memory file is /usr/sbin/pkcsslotd' /run/log"},
		{name: "unknown option", line: "pkcsslotd -x"},
		{name: "log file that cannot be made", line: "pkcsslotd -l /nowhere/log", chatty: true},
		{name: "configuration unreadable", prepare: "umount /etc/opencryptoki/opencryptoki.conf; mkdir /run/empty; mount --bind /run/empty /etc/opencryptoki",
			undo: "umount /etc/opencryptoki; mount --bind $STATE/conf /etc/opencryptoki/opencryptoki.conf", code: 1},
		{name: "empty configuration", prepare: ": > $STATE/conf"},
		{name: "syntax error", prepare: `printf 'slot 0\n{\n\n}\n' > $STATE/conf`},
		{name: "slot without a library", prepare: "printf '" + slot("0", `tokname = a\n`) + "' > $STATE/conf", code: 6},
		{name: "one slot twice", prepare: "printf '" + slot("0", library) + slot("0", library) + "' > $STATE/conf", code: 6},
		{name: "one tokname twice", prepare: "printf '" + slot("0", library+`tokname = a\n`) + slot("1", library+`tokname = a\n`) + "' > $STATE/conf", code: 13},
		{name: "no token directories", prepare: "mkdir /run/lib; mount --bind /run/lib /var/lib", undo: "umount /var/lib", code: 2},
		{name: "no root", line: "setpriv --reuid=65534 --regid=65534 --clear-groups pkcsslotd", code: 1},
		{name: "root in another group", line: "setpriv --regid=65534 --clear-groups pkcsslotd", code: 1},
		{name: "no group", prepare: "grep -v pkcs11 /etc/group > /run/group; mount --bind /run/group /etc/group", undo: "umount /etc/group", code: 1},
		{name: "a directory in the place of the socket", prepare: "mkdir -p /run/pkcsslotd.socket/x", code: 5},
		{name: "segment of a crash", prepare: "pkcsslotd && kill -KILL $(cat /run/pkcsslotd.pid) && sleep 0.1; rm -f /run/pkcsslotd.pid; : > $STATE/syslog"},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := c.line
			if line == "" {
				line = "pkcsslotd"
			}
			once := func() (result, string) {
				h.ok(clean)
				h.syslog()
				if c.prepare != "" {
					h.ok(c.prepare)
				}
				r := h.run(line)
				said := h.syslog()
				if c.undo != "" {
					h.ok(c.undo)
				}
				return r, said
			}
			ours, weSaid := once()
			h.ok(clean)
			h.stock()
			theirs, theySaid := once()
			h.ok(clean)
			h.ours()
			if theirs.status != c.code {
				t.Errorf("the stock daemon ends with %d, not %d: %s", theirs.status, c.code, theirs.err)
			}
			if ours.status != c.code {
				t.Errorf("ends with %d, want %d: %s", ours.status, c.code, ours.err)
			}
			if (ours.err == "") != (theirs.err == "") && !c.chatty {
				t.Errorf("standard error is %q, with stock %q", ours.err, theirs.err)
			}
			for _, line := range lines(theySaid) {
				if !saysLine(weSaid, line) {
					t.Errorf("stock says %q in syslog, ours\n%s", line, weSaid)
				}
			}
		})
	}
	h.ok(clean)
	h.stop()
}

// saysLine says whether one of the lines begins with want, but for its blanks
// and for the numbers that differ from run to run.
func saysLine(all, want string) bool {
	want = strings.Join(strings.Fields(want), " ")
	for _, numbered := range []string{"SHMID", "Reclaiming 0x"} {
		if s, _, ok := strings.Cut(want, numbered); ok {
			want = s + numbered
		}
	}
	if s, _, ok := strings.Cut(want, ", errno"); ok {
		want = s // the reason follows in words
	}
	for _, l := range lines(all) {
		if strings.HasPrefix(strings.Join(strings.Fields(l), " "), want) {
			return true
		}
	}
	return false
}

// TestDropInServes is a machine whose pkcsslotd is ours, used by stock programs
// and through the mount, from its start to its end.
func TestDropInServes(t *testing.T) {
	t.Parallel()
	h := newSlotHost(t, stockConfig)
	h.ok("cd $STATE")
	h.startSlotd()
	h.want("cat /proc/$slotd/comm", "pkcsslotd\n")
	h.want("ps -o ppid= -o sid= -p $slotd | tr -s ' '; ps -o tty= -p $slotd", h.ok("echo \" 1 $slotd\"; echo '?'"))
	h.want("readlink /proc/$slotd/fd/0 /proc/$slotd/fd/1 /proc/$slotd/fd/2 /proc/$slotd/cwd", "/dev/null\n/dev/null\n/dev/null\n/\n")
	h.want("stat -c '%a %G' /run/pkcsslotd.socket /run/pkcsslotd.pid /var/log/opencryptoki", "770 pkcs11\n644 root\n770 pkcs11\n")
	h.want("printf %s $slotd | cmp - /run/pkcsslotd.pid", "")

	if out := h.ok("pkcsconf -s"); !strings.Contains(out, "Linux") {
		t.Errorf("pkcsconf -s: %s", out)
	}
	h.ok("echo init " + soPIN + " 'drop in' > /p11/swtok/ctl && echo so:" + soPIN + " > /p11/swtok/login && echo init-pin " + userPIN + " > /p11/swtok/ctl")
	h.ok("echo > /p11/swtok/logout && echo " + userPIN + " > /p11/swtok/login")
	h.ok("pkcs11-tool --module " + h.module + " --login --pin " + userPIN + " --keypairgen --key-type rsa:2048 --label theirs --id 01")
	h.ok("seq 100 > msg && cat msg > /p11/swtok/objects/theirs.key/sign && cat /p11/swtok/objects/theirs.key/sign > sig")
	h.ok("openssl dgst -sha256 -verify /p11/swtok/objects/theirs.pub/public.pem -signature sig msg")

	t.Run("a second one is refused", func(t *testing.T) {
		r := h.run("pkcsslotd")
		if r.status != 1 || !strings.Contains(r.err, "running already") {
			t.Errorf("status %d, %q", r.status, r.err)
		}
		h.ok("[ -d /proc/$slotd ] && pkcsconf -t")
	})
	t.Run("after a crash", func(t *testing.T) {
		h.ok("kill -KILL $slotd; for i in $(seq 100); do [ -d /proc/$slotd ] || break; sleep 0.05; done")
		r := h.run("p11fs doctor --system --quiet")
		for _, want := range []string{"segment was left by a daemon that died", "pkcsslotd.socket: its daemon has died", "left the mount behind"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("the doctor says\n%swant %q", r.out, want)
			}
		}
		h.ok("mends=$(p11fs doctor --system --quiet | sed -n 's/^ *mend it with: //; s/ (.*//p' | grep -E '^(ipcrm|rm|p11fs umount)'); echo \"$mends\"; eval \"$mends\"")
		h.ok("p11fs doctor --system --quiet")
		h.startSlotd()
		h.ok("p11fs doctor --system --quiet && pkcsconf -t && cat /p11/swtok/info")
	})
	t.Run("the end", func(t *testing.T) {
		h.syslog()
		h.endSlotd()
		h.want("cat /proc/mounts | grep -c ' /p11 ' || true; ls /run | grep pkcsslotd || true; ipcs -m | grep -c ^0x || true", "0\n0\n")
		if said := h.syslog(); !strings.Contains(said, "<14>pkcsslotd: Exiting on SIGTERM (15; 0xf)") || strings.Contains(said, userPIN) || strings.Contains(said, soPIN) {
			t.Errorf("syslog: %s", said)
		}
	})
	t.Run("beside a stock daemon", func(t *testing.T) {
		h.stock()
		h.startSlotd()
		h.ok("ln -s " + quote(binary()) + " $STATE/pkcsslotd")
		r := h.run("$STATE/pkcsslotd")
		if r.status != 1 || !strings.Contains(r.err, "pkcsslotd with process id "+strings.TrimSpace(h.ok("echo $slotd"))) {
			t.Errorf("status %d, %q", r.status, r.err)
		}
		h.ok("pkcsconf -s && rm $STATE/pkcsslotd")
		h.endSlotd()
		h.ours()
	})
	t.Run("without a mount point", func(t *testing.T) {
		h.ok("rmdir /p11")
		h.startSlotd()
		h.want("grep -c ' /p11 ' /proc/mounts || true", "0\n")
		h.ok("[ ! -e /p11 ] && pkcsconf -t && pkcs11-tool --module " + h.module + " -O")
		h.endSlotd()
	})
	t.Run("without the kernel's FUSE", func(t *testing.T) {
		h.ok("mkdir /p11 && umount /dev/fuse && rm /dev/fuse && pkcsslotd; slotd=$(cat /run/pkcsslotd.pid)")
		if said := h.syslog(); !strings.Contains(said, "<11>pkcsslotd: the tree is not mounted") {
			t.Errorf("syslog: %s", said)
		}
		h.ok("pkcsconf -t")
		h.endSlotd()
	})
	h.stop()
}
