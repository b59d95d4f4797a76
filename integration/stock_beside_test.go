package integration

import (
	"fmt"
	"strings"
	"testing"
)

// besideHost is a machine whose /usr/sbin/pkcsslotd is stock's and whose
// configuration is in a directory of its own, where it can be replaced. What is
// started as ours goes by the name of p11fs.
type besideHost struct{ *slotHost }

func newBesideHost(t *testing.T) besideHost {
	t.Helper()
	h := besideHost{newSlotHost(t, stockConfig)}
	h.stock()
	h.ok("umount /etc/opencryptoki/opencryptoki.conf && mount -t tmpfs tmpfs /etc/opencryptoki && cp $STATE/conf /etc/opencryptoki/opencryptoki.conf")
	return h
}

// mount starts ours, as a service does.
func (h besideHost) mount() {
	h.t.Helper()
	h.ok(": > $STATE/log; setsid p11fs mount --system 2>>$STATE/log & p11fs=$!")
	h.ok("for i in $(seq 300); do grep -q ready: $STATE/log && break; sleep 0.1; done; grep ready: $STATE/log")
}

func (h besideHost) umount() {
	h.t.Helper()
	h.ok("kill -TERM $p11fs; wait $p11fs")
	h.want("ipcs -m | grep -c '^0x62'; ls -d /run/pkcsslotd.socket /run/pkcsslotd.pid 2>/dev/null; true", "0\n")
}

// place is what stock clients find: the segment and the socket.
func (h besideHost) place() string {
	h.t.Helper()
	return h.ok("ipcs -m | awk '/^0x62/ { print $1, $2 }'; stat -c %i /run/pkcsslotd.socket")
}

// refused starts stock's daemon by a command line, which ours does not allow, and
// finds what clients use untouched.
func (h besideHost) refused(t *testing.T, line string) {
	t.Helper()
	before := h.place()
	h.syslog()
	if r := h.run("timeout 20 " + line); r.status != 1 {
		t.Errorf("%s ends with %d, want 1: %s%s", line, r.status, r.out, r.err)
	}
	// What collects the log may be behind.
	h.run("for i in $(seq 100); do grep -q 'Failed to read config file.' $STATE/syslog && break; sleep 0.1; done")
	if said := h.syslog(); !strings.Contains(said, "Failed to read config file.") {
		t.Errorf("stock says in syslog: %s", said)
	}
	if after := h.place(); after != before {
		t.Errorf("segment and socket were\n%s, now\n%s", before, after)
	}
	h.ok("pkcsconf -t")
}

// TestStockBesideOurs starts the stock daemon beside ours, which has it end before
// it takes anything away.
func TestStockBesideOurs(t *testing.T) {
	t.Parallel()
	h := newBesideHost(t)
	h.mount()
	// A stock process from before stays, with a session.
	h.dumper()
	h.ok("$dump hold " + h.module + " 0 1 0 > /run/held & tool=$!; for i in $(seq 200); do [ -s /run/held ] && break; sleep 0.05; done; [ -s /run/held ]")
	sessions := func() string {
		return h.ok("grep ^sessions /p11/status; awk '/slot-manager/ { print $2, $4, $5 }' /p11/resources")
	}
	before := sessions()

	t.Run("by its own name", func(t *testing.T) {
		h.refused(t, "pkcsslotd")
		h.refused(t, "/usr/sbin/pkcsslotd -f")
		h.want("grep -c 'level=WARN msg=\"a stock slot daemon was refused.*kill '$p11fs $STATE/log", "2\n")
	})
	t.Run("by another", func(t *testing.T) {
		h.ok("cp /usr/sbin/pkcsslotd /run/pkcsslotd.stock")
		h.refused(t, "/run/pkcsslotd.stock")
	})
	t.Run("other programs read the configuration", func(t *testing.T) {
		h.ok("cmp $STATE/conf /etc/opencryptoki/opencryptoki.conf && grep -q swtok /etc/opencryptoki/*.conf && p11fs doctor --system --quiet")
	})
	t.Run("after the configuration was edited", func(t *testing.T) {
		h.ok("cd /etc/opencryptoki && sed -i 's/^version.*/version edited/' opencryptoki.conf && grep -q edited opencryptoki.conf")
		h.refused(t, "pkcsslotd")
		h.ok("echo '# appended' >> opencryptoki.conf")
		h.refused(t, "pkcsslotd")
		h.ok("mv opencryptoki.conf moved && cp moved opencryptoki.conf && rm moved")
		h.refused(t, "pkcsslotd")
		h.ok("cd /")
	})
	t.Run("in another mount namespace, with our shared memory", func(t *testing.T) {
		h.refused(t, "unshare --mount sh -c 'mount -t tmpfs tmpfs /run && mkdir /run/lock && exec pkcsslotd'")
	})
	t.Run("in another IPC namespace, with our socket", func(t *testing.T) {
		h.refused(t, "unshare --ipc pkcsslotd")
	})
	t.Run("in a container", func(t *testing.T) {
		// With neither it is in nobody's way, and reads the same file.
		before := h.place()
		h.ok("unshare --mount --ipc --pid --fork --kill-child --mount-proc sh -c 'mount -t tmpfs tmpfs /run && mkdir /run/lock && mount -t tmpfs tmpfs /dev/shm &&" +
			" pkcsslotd && pkcsconf -s'")
		if after := h.place(); after != before {
			t.Errorf("segment and socket were\n%s, now\n%s", before, after)
		}
	})
	t.Run("status", func(t *testing.T) {
		h.want("grep ^slot-daemon /p11/status", "slot-daemon on; a stock one that starts is refused\n")
		if after := sessions(); after != before {
			t.Errorf("before\n%safter\n%s", before, after)
		}
		h.ok("[ -d /proc/$tool ] && kill $tool")
	})
	t.Run("lost all the same", func(t *testing.T) {
		h.ok("mv /run/pkcsslotd.socket /run/ours")
		h.want("grep ^slot-daemon /p11/status", "slot-daemon lost: stock programs do not reach this daemon: somebody took away the socket; restart p11fs\n")
		h.want("awk '/^socket.slots/ { print $5 }' /p11/resources", "failed\n")
		h.ok("mv /run/ours /run/pkcsslotd.socket")
		h.want("grep ^slot-daemon /p11/status", "slot-daemon on; a stock one that starts is refused\n")
	})
	t.Run("our end", func(t *testing.T) {
		h.umount()
		h.startSlotd()
		h.ok("pkcsconf -t")
		h.endSlotd()
		h.ok("rm -f /run/pkcsslotd.pid")
	})
	t.Run("our death lets go who waits for us", func(t *testing.T) {
		h.mount()
		// Each of its threads, of which any may answer.
		h.ok("kill -STOP $p11fs; for i in $(seq 200); do runs=$(grep -L '^State:.T' /proc/$p11fs/task/*/status); [ -z \"$runs\" ] && break; sleep 0.05; done; [ -z \"$runs\" ]")
		h.ok("cat /etc/opencryptoki/opencryptoki.conf > /run/copy & cat=$!; sleep 0.5; [ ! -s /run/copy ] && [ -d /proc/$cat ]")
		h.ok("kill -KILL $p11fs; wait $cat && cmp /run/copy /etc/opencryptoki/opencryptoki.conf")
		h.startSlotd() // over the segment and the socket of the dead
		h.ok("pkcsconf -t")
		h.endSlotd()
		h.ok("rm -f /run/pkcsslotd.pid; p11fs umount /p11")
	})
	h.stop()
}

// TestStockAndOursAtOnce starts both daemons at the same moment: one serves, the
// other one ends.
func TestStockAndOursAtOnce(t *testing.T) {
	t.Parallel()
	h := newBesideHost(t)
	h.ok("cp -P /usr/sbin/pkcsslotd /run/stock-file")
	ours := 0
	const rounds = 12
	for i := range rounds {
		// From well before to well after our look at who runs.
		delay := fmt.Sprintf("%.3f", float64(i)*0.03)
		h.ok(": > $STATE/log; setsid p11fs mount --system 2>>$STATE/log & p11fs=$!; sleep " + delay + "; pkcsslotd -f & slotd=$!")
		h.ok("for i in $(seq 300); do grep -q ready: $STATE/log && break; [ -d /proc/$p11fs ] || break; sleep 0.1; done;" +
			" for i in $(seq 100); do [ -d /proc/$p11fs ] && [ -d /proc/$slotd ] || break; sleep 0.1; done; sleep 0.2")
		weServe := h.run("[ -d /proc/$p11fs ]").status == 0
		theyServe := h.run("[ -d /proc/$slotd ]").status == 0
		if weServe == theyServe {
			t.Errorf("after %s s: ours serves: %v, stock serves: %v\n%s", delay, weServe, theyServe, h.ok("cat $STATE/log"))
		}
		h.ok("pkcsconf -t")
		if weServe {
			ours++
			h.want("grep ^slot-daemon /p11/status", "slot-daemon on; a stock one that starts is refused\n")
			h.umount()
		} else if r := h.run("grep -q 'a slot daemon is running: pkcsslotd with process id '$slotd $STATE/log"); r.status != 0 {
			t.Errorf("ours says %s", h.ok("cat $STATE/log"))
		}
		h.ok("kill $slotd 2>/dev/null; wait $slotd; kill -KILL $p11fs 2>/dev/null; wait $p11fs; rm -f /run/pkcsslotd.*; ipcs -m | awk '/^0x62/ { print $2 }' | xargs -r -n1 ipcrm -m")
	}
	t.Logf("ours had the place in %d of %d rounds", ours, rounds)
	if ours == 0 {
		t.Error("ours never served, also when it had served before stock began")
	}
	h.stop()
}

// TestStockTakesOver is ours without the right to refuse: it starts, says so, and
// tells when stock has taken its place.
func TestStockTakesOver(t *testing.T) {
	t.Parallel()
	needTools(t, "setpriv")
	h := newBesideHost(t)
	h.ok("rmdir /p11") // which could not be mounted on
	h.ok("mkdir /run/bin && ln -s " + quote(binary()) + " /run/bin/pkcsslotd; setpriv --bounding-set -sys_admin /run/bin/pkcsslotd; ours=$(cat /run/pkcsslotd.pid)")
	h.ok("pkcsconf -t")
	if said := h.syslog(); !strings.Contains(said, "cannot be refused: no CAP_SYS_ADMIN") {
		t.Errorf("at the start it says %s", said)
	}
	h.ok("rm /run/pkcsslotd.pid") // to see when stock has written its own
	h.startSlotd()
	said := h.ok("for i in $(seq 200); do grep -q 'is lost' $STATE/syslog && break; sleep 0.1; done; cat $STATE/syslog")
	if want := "pkcsslotd with process id " + strings.TrimSpace(h.ok("echo $slotd")) + " took the socket and the shared memory"; !strings.Contains(said, want) {
		t.Errorf("it says %q, want %q", said, want)
	}
	// Its end leaves what is stock's.
	h.ok("kill $ours; for i in $(seq 200); do [ -d /proc/$ours ] || break; sleep 0.05; done; [ ! -d /proc/$ours ]")
	h.ok("pkcsconf -t")
	h.want("[ \"$(cat /run/pkcsslotd.pid)\" = $slotd ]; echo $?", "0\n")
	h.endSlotd()
	h.stop()
}
