package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A liveHost is a machine of its own, as stockHost is, where p11fs has the place
// of pkcsslotd: it serves its mount and the stock library's processes at once.
// Its terminal is one application to p11fs and also starts the stock processes.
type liveHost struct {
	*terminal
	module string
	log    string
}

// startLive boots a liveHost over the token that stock made.
func startLive(t testing.TB) *liveHost {
	t.Helper()
	root := workDir(t, "tokens")
	unpackToken(t, root)
	return startLiveOver(t, root)
}

// startLiveOver boots a liveHost whose /var/lib/opencryptoki is root.
func startLiveOver(t testing.TB, root string) *liveHost {
	t.Helper()
	h := newLive(t, root, "swtok", stockConfig)
	h.serve()
	return h
}

// newLive boots a liveHost without a daemon, whose configuration conf has the token; and
// with more options of unshare.
func newLive(t testing.TB, root, token, conf string, more ...string) *liveHost {
	t.Helper()
	h := &liveHost{module: needStock(t)}
	dir := workDir(t, "live")
	file, mnt := filepath.Join(dir, "opencryptoki.conf"), filepath.Join(dir, "p11")
	h.log = filepath.Join(dir, "log")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	h.terminal = newTerminal(t, terminalConfig{
		// The shell leads a session within its namespaces, as p11fs asks of an
		// application.
		shell: slices.Concat([]string{"unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}, more, []string{"setsid", "sh"}),
		env:   []string{"P=" + mnt, "T=" + mnt + "/" + token, "O=" + mnt + "/" + token + "/objects"},
		dir:   dir,
	})
	h.ok("mount -t tmpfs tmpfs /run && mkdir /run/lock && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /var/log")
	h.ok("mount --bind " + quote(file) + " /etc/opencryptoki/opencryptoki.conf")
	h.ok("mount --bind " + quote(root) + " /var/lib/opencryptoki")
	return h
}

// serve starts the daemon.
func (h *liveHost) serve() {
	h.t.Helper()
	h.ok("setsid " + quote(binary()) + " mount --system $P 2>>" + quote(h.log) + " & p11fs=$!")
	h.ok("for i in $(seq 300); do grep -q ready: " + quote(h.log) + " && break; sleep 0.1; done; grep ready: " + quote(h.log))
}

// stop ends the daemon, and checks what it wrote and left.
func (h *liveHost) stop() {
	h.t.Helper()
	h.stopDaemon()
	h.close()
}

// stopDaemon is stop while the machine goes on.
func (h *liveHost) stopDaemon() {
	h.t.Helper()
	h.ok("kill -TERM $p11fs; wait $p11fs")
	h.want("ipcs -m | grep -c '^0x62'; ls /run/pkcsslotd.socket 2>/dev/null; mountpoint -q $P && echo mounted; true", "0\n")
	b, err := os.ReadFile(h.log)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(string(b), bad) {
			h.t.Errorf("p11fs wrote %q:\n%s", bad, b)
		}
	}
}

// A client is a stock process that stays, at two descriptors of the shell.
type client struct {
	h       *liveHost
	in, out int
}

// client starts the n-th stock process and gives it a session.
func (h *liveHost) client(n int) *client {
	h.t.Helper()
	return h.clientOf(n, h.module)
}

// ownClient is client with our module in the place of the stock library.
func (h *liveHost) ownClient(n int) *client {
	h.t.Helper()
	h.ok("export P11FS_SOCKET=/run/p11fs/rpc.sock")
	return h.clientOf(n, ownModule(h.t))
}

func (h *liveHost) clientOf(n int, module string) *client {
	h.t.Helper()
	return h.process(n, "", "stock_client.py", module)
}

// process starts a client of a script, with what stands in front of its command.
func (h *liveHost) process(n int, with, name, args string) *client {
	h.t.Helper()
	c := &client{h: h, in: 3 + 2*n, out: 4 + 2*n}
	script, err := filepath.Abs("testdata/" + name)
	if err != nil {
		h.t.Fatal(err)
	}
	h.ok(fmt.Sprintf("rm -f in%d out%d && mkfifo in%d out%d", n, n, n, n))
	h.ok(fmt.Sprintf("%spython3 %s %s <in%d >out%d & client%d=$!", with, script, args, n, n, n))
	h.ok(fmt.Sprintf("exec %d>in%d %d<out%d; read -r line <&%d; [ \"$line\" = ok ]", c.in, n, c.out, n, c.out))
	c.want("open", "ok")
	return c
}

// do gives the client a command and returns its answer.
func (c *client) do(command string) string {
	c.h.t.Helper()
	return strings.TrimSuffix(c.h.ok(fmt.Sprintf("echo %s >&%d; IFS= read -r line <&%d; printf '%%s\\n' \"$line\"", quote(command), c.in, c.out)), "\n")
}

func (c *client) want(command, answer string) {
	c.h.t.Helper()
	if got := c.do(command); got != answer {
		c.h.t.Errorf("stock: %s: %q, want %q", command, got, answer)
	}
}

// end finalises the library and ends the process.
func (c *client) end() {
	c.h.t.Helper()
	c.want("end", "ok")
	c.h.ok(fmt.Sprintf("exec %d>&- %d<&-", c.in, c.out))
}

// wantObject says whether both sides list an object, called name.dat in the
// mount.
func (c *client) wantObject(name string, there bool) {
	c.h.t.Helper()
	listed := lines(c.h.ok("ls $O"))
	if slices.Contains(listed, name+".dat") != there {
		c.h.t.Errorf("%s in the mount: %v, want %v; there is %q", name, !there, there, listed)
	}
	if r := c.h.run("test -e $O/" + name + ".dat"); (r.status == 0) != there {
		c.h.t.Errorf("%s by its name in the mount: %v, want %v", name, !there, there)
	}
	if got := c.do("list"); slices.Contains(strings.Fields(got), name) != there {
		c.h.t.Errorf("%s for stock: %v, want %v; there is %s", name, !there, there, got)
	}
}

// TestStockLive lets a logged-in shell and two stock processes, which have listed
// the token's objects and stay, change one token: each change is seen by the
// others at once.
func TestStockLive(t *testing.T) {
	t.Parallel()
	h := startLive(t)
	m := readManifest(t)
	h.ok("echo " + m.UserPIN + " > $T/login")
	h.ok("ls $O")
	a, b := h.client(0), h.client(1)
	for _, c := range []*client{a, b} {
		c.want("login "+m.UserPIN, "ok")
		c.do("list")
	}

	t.Run("create", func(t *testing.T) {
		a.want("create theirs-public one 0", "ok")
		a.want("create theirs-private two 1", "ok")
		for _, c := range []*client{a, b} {
			c.wantObject("theirs-public", true)
			c.wantObject("theirs-private", true)
		}
		h.want("cat $O/theirs-public.dat/value $O/theirs-private.dat/value", "onetwo")
		h.ok("echo three > $T/data/ours")
		h.ok("echo four > n && cat n > $T/data/ours-2")
		for _, c := range []*client{a, b} {
			c.wantObject("ours", true)
			c.want("value ours", "ok three")
			c.want("value ours-2", "ok four")
		}
	})
	t.Run("change", func(t *testing.T) {
		a.want("hold theirs-public", "ok")
		b.want("hold theirs-public", "ok")
		for i := range 4 {
			was := fmt.Sprintf("by-mount-%d", i-1)
			if i == 0 {
				was = "theirs-public"
			}
			stock, mount := fmt.Sprintf("by-stock-%d", i), fmt.Sprintf("by-mount-%d", i)
			[]*client{a, b}[i%2].want("relabel "+was+" "+stock, "ok")
			h.want("cat $O/"+stock+".dat/attr/label", stock+"\n")
			if r := h.run("test -e $O/" + was + ".dat"); r.status == 0 {
				t.Errorf("%s is still there", was)
			}
			h.ok("mv $O/" + stock + ".dat $O/" + mount + ".dat")
			a.want("held", "ok "+mount+" one")
			b.want("held", "ok "+mount+" one")
		}
	})
	t.Run("destroy", func(t *testing.T) {
		a.want("destroy theirs-private", "ok")
		h.ok("rm $T/data/ours")
		h.ok("rmdir $O/by-mount-3.dat")
		for _, name := range []string{"theirs-private", "ours", "by-mount-3"} {
			a.wantObject(name, false)
			b.wantObject(name, false)
		}
		a.want("held", "0x82")
	})
	t.Run("keys", func(t *testing.T) {
		h.ok("echo 'rsa:2048 label=live id=0x77' > $T/generate && cat $T/generate && cat $O/live.pub/public.pem > live.pem")
		sig := strings.TrimPrefix(a.do("sign live data"), "ok ")
		h.ok("printf data > data && printf " + sig + " | python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))' > sig")
		h.ok("openssl dgst -sha1 -verify live.pem -signature sig data")
		h.ok("pkcs11-tool --module " + h.module + " --login --pin " + m.UserPIN + " --keypairgen --key-type rsa:2048 --label stock-key --id 78")
		h.ok("cat $O/stock-key.pub/public.pem > s.pem && cat data > $O/stock-key.key/sign && cat $O/stock-key.key/sign > sig && openssl dgst -sha256 -verify s.pem -signature sig data")
	})
	pin := m.UserPIN
	t.Run("PIN", func(t *testing.T) {
		a.want("setpin "+pin+" stockpin", "ok")
		h.want("cat $T/login", "user\n")
		h.fails("setsid -w sh -c '/bin/echo "+pin+" > $T/login'", syscall.EKEYREJECTED)
		h.want("setsid -w sh -c 'echo stockpin > $T/login && cat $T/login'", "user\n")
		h.ok("echo 'stockpin mountpin' > $T/pin")
		b.want("logout", "ok")
		b.want("login stockpin", "0xa0")
		b.want("login mountpin", "ok")
		pin = "mountpin"
	})
	t.Run("locked by stock", func(t *testing.T) {
		b.want("logout", "ok")
		for range 3 {
			b.want("login wrong", "0xa0")
		}
		h.want("cat $T/login", "public\n")
		if got := h.ok("ls $O"); strings.Contains(got, "ours-2") {
			t.Errorf("a private object is listed:\n%s", got)
		}
		h.fails("sh -c '/bin/echo "+pin+" > $T/login'", syscall.EKEYREJECTED)
		if got := h.ok("cat $T/pin"); !strings.Contains(got, "user: tries=0") {
			t.Errorf("pin says %q", got)
		}
		h.ok("setsid -w sh -c 'echo so:" + m.SOPIN + " > $T/login && echo init-pin " + pin + " > $T/ctl'")
		b.want("login "+pin, "ok")
		b.want("value ours-2", "ok four")
		h.ok("echo " + pin + " > $T/login")
		h.want("cat $T/data/ours-2", "four\n")
	})
	t.Run("locked by the mount", func(t *testing.T) {
		h.ok("echo > $T/logout")
		h.fails("sh -c '/bin/echo wrong > $T/login'", syscall.EKEYREJECTED)
		// Wrong PINs count wherever one is asked for.
		h.fails("sh -c '/bin/echo wrong newpin > $T/pin'", syscall.EKEYREJECTED)
		h.fails("sh -c '/bin/echo wrong > $T/login'", syscall.EKEYREJECTED)
		b.want("logout", "ok")
		b.want("login "+pin, "0xa4")
		h.ok("echo so:" + m.SOPIN + " > $T/login && echo init-pin " + pin + " > $T/ctl && echo > $T/logout && echo " + pin + " > $T/login")
		b.want("login "+pin, "ok")
	})
	t.Run("locked at three doors", func(t *testing.T) {
		h.ok("echo > $T/logout")
		b.want("logout", "ok")
		b.want("login wrong", "0xa0")
		h.fails("sh -c '/bin/echo wrong > $T/login'", syscall.EKEYREJECTED)
		said := h.run("P11FS_SOCKET=/run/p11fs/rpc.sock pkcs11-tool --module " + ownModule(t) + " --login --pin wrong --list-objects 2>&1").out
		if !strings.Contains(said, "CKR_PIN_INCORRECT") {
			t.Errorf("the module says %s", said)
		}
		b.want("login "+pin, "0xa4")
		h.fails("sh -c '/bin/echo "+pin+" > $T/login'", syscall.EKEYREJECTED)
		h.ok("printf '%s\\n' " + m.SOPIN + " " + pin + " | setsid -w " + quote(binary()) + " pin --mount $P --unlock && echo " + pin + " > $T/login")
		b.want("login "+pin, "ok")
	})
	t.Run("initialised by the mount", func(t *testing.T) {
		h.ok("for s in $T/sessions/[0-9]*; do rmdir $s; done")
		h.fails("sh -c '/bin/echo init "+m.SOPIN+" by-mount > $T/ctl'", syscall.EBUSY)
		a.want("close", "ok")
		b.want("close", "ok")
		h.ok("echo init " + m.SOPIN + " by-mount > $T/ctl")
		a.want("info", "ok by-mount flags=0x80445")
		for _, c := range []*client{a, b} {
			c.want("open", "ok")
			c.want("list", "ok ")
		}
	})
	t.Run("initialised by stock", func(t *testing.T) {
		h.ok("echo so:" + m.SOPIN + " > $T/login && echo init-pin " + pin + " > $T/ctl && echo > $T/logout && echo " + pin + " > $T/login && echo five > $T/data/again")
		a.want("login "+pin, "ok")
		a.wantObject("again", true)
		a.want("create again-2 six 0", "ok")
		h.ok("for s in $T/sessions/[0-9]*; do rmdir $s; done; ls $O")
		a.end()
		b.end()
		h.ok("pkcs11-tool --module " + h.module + " --init-token --slot-index 0 --so-pin " + m.SOPIN + " --label 'by stock'")
		h.want("ls $O; ls $T/by-uid; grep label $T/info", "label: by stock\n")
		// And all goes on.
		h.ok("echo so:" + m.SOPIN + " > $T/login && echo init-pin " + pin + " > $T/ctl && echo > $T/logout && echo " + pin + " > $T/login && echo seven > $T/data/last")
		if got := h.ok("pkcs11-tool --module " + h.module + " --login --pin " + pin + " --list-objects --type data"); !strings.Contains(got, "'last'") {
			t.Errorf("stock lists %s", got)
		}
	})
	h.stop()
}
