package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p11fs/tokens/card"
	"p11fs/tokens/card/softcca"
	"p11fs/tokens/ccatok"
	"p11fs/tokens/ep11tok"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/icsf"
	"p11fs/tokens/lite"
	"p11fs/tokens/store/format"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm"
)

// The PINs of the tokens that tests make. The SO PIN is the one that a token
// of stock openCryptoki has before it is initialised.
const (
	soPIN   = "87654321"
	userPIN = "1234abcd"
)

// startTimeout is how long p11fs may take until it says that it is ready.
const startTimeout = 30 * time.Second

// A daemon is one `p11fs mount`, in its own directories.
type daemon struct {
	t    testing.TB
	c    daemonConfig
	dir  string // everything of this daemon
	mnt  string // mount point
	cmd  *exec.Cmd
	exit chan error
	log  string // file with what it wrote
	runs int
}

// daemonConfig says what to start. The zero value is user mode, as the user
// who runs the tests.
type daemonConfig struct {
	system bool                  // --root: every system path below the daemon's directory
	cred   *syscall.Credential   // the user it runs as
	wrap   []string              // a command that runs p11fs, such as unshare
	stock  bool                  // the token directory is the one stock openCryptoki made
	binary string                // "" is the one built for the tests
	serve  []string              // the command that is the daemon; nil is binary's mount
	token  string                // the name of the token; "" is swtok
	pins   string                // the protection of PINs of a token of the kind tpm, which then has a software TPM to itself; of icsf, that it has a server
	fleet  *etcdtest.Cluster     // where a token of the kind fleet is
	cards  string                // what ep11tok.conf says; "" is that there is none
	modern bool                  // user mode: the token is as p11fs makes it; else one of format 3.8, whose PINs take no time
	args   []string              // more arguments of mount
	start  func(*exec.Cmd) error // how it is started; nil is startPinned
}

// newDaemon lays the directories of a daemon out and does not start it.
func newDaemon(t testing.TB, c daemonConfig) *daemon {
	t.Helper()
	needTools(t, "fusermount3")
	_, err := os.Stat("/dev/fuse")
	need(t, err == nil, "/dev/fuse")
	if c.binary == "" {
		c.binary = binary()
		if c.modern { // the race detector has what is made of a PIN take six times as long
			c.binary = plainBinary(t)
		}
	}
	if c.serve == nil {
		c.serve = []string{c.binary, "mount"}
	}
	if c.token == "" {
		c.token = "swtok"
	}
	d := &daemon{t: t, c: c, dir: workDir(t, "p")}
	d.mnt = filepath.Join(d.dir, "mnt")
	dirs := []string{d.mnt, d.tokenRoot()}
	if c.system {
		dirs = append(dirs, filepath.Join(d.dir, "etc/opencryptoki"), filepath.Join(d.dir, "run"), filepath.Join(d.dir, "var/lock"), filepath.Join(d.dir, "var/log"))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if c.system {
		if err := os.WriteFile(filepath.Join(d.dir, "etc/opencryptoki/opencryptoki.conf"), []byte(stockConfig), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	switch {
	case c.stock:
		unpackToken(t, d.tokenRoot())
	case c.token == tpm.Kind: // an empty directory becomes a token of the kind
		if err := os.Mkdir(filepath.Join(d.tokenRoot(), c.token), 0o700); err != nil {
			t.Fatal(err)
		}
		if c.pins != "" {
			d.giveTPM()
		}
	case c.token == icsf.Kind && c.pins != "":
		d.giveICSF()
	case c.fleet != nil:
		d.giveFleet()
	case !c.system && !c.modern && (c.token == swtok.Kind || c.token == lite.Kind || c.token == ep11tok.Kind || c.token == ccatok.Kind):
		oldToken(t, filepath.Join(d.tokenRoot(), c.token), c.token)
	}
	if c.token == ep11tok.Kind { // which has a software card of its own
		trustingCard(t, filepath.Join(d.tokenRoot(), c.token, "card"))
	}
	if c.cards != "" {
		if err := os.WriteFile(filepath.Join(d.tokenRoot(), c.token, "ep11tok.conf"), []byte(c.cards), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.token == ccatok.Kind { // likewise
		if err := softcca.MakeSet(filepath.Join(d.tokenRoot(), c.token, "card"), []card.APQN{{Adapter: 0, Domain: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	if c.cred != nil {
		own(t, d.dir, c.cred)
	}
	t.Cleanup(d.kill)
	return d
}

// oldToken makes a token of a kind, in format 3.8, that was never initialised.
func oldToken(t testing.TB, dir, name string) {
	t.Helper()
	kind, _ := format.KindOf(name)
	f := format.V38(kind, rand.Reader)
	d, key, err := f.NewToken(t.Context())
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	for name, b := range map[string][]byte{"MK_SO": key, "NVTOK.DAT": f.PrintFile(d)} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// startDaemon starts a daemon and stops it with the test.
func startDaemon(t testing.TB, c daemonConfig) *daemon {
	t.Helper()
	d := newDaemon(t, c)
	d.start()
	return d
}

// own gives a directory and all below it to a user.
func own(t testing.TB, dir string, cred *syscall.Credential) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(cred.Uid), int(cred.Gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tokenRoot is the directory with one directory a token.
func (d *daemon) tokenRoot() string {
	if d.c.system {
		return filepath.Join(d.dir, "var/lib/opencryptoki")
	}
	return filepath.Join(d.dir, "data/p11fs")
}

// env is the environment of the daemon and of its user's terminals: in user
// mode all directories are below the daemon's own.
func (d *daemon) env() []string {
	return []string{
		"HOME=" + d.dir,
		"XDG_DATA_HOME=" + filepath.Join(d.dir, "data"),
		"XDG_CONFIG_HOME=" + filepath.Join(d.dir, "config"),
		"XDG_STATE_HOME=" + filepath.Join(d.dir, "state"),
		"XDG_CACHE_HOME=" + filepath.Join(d.dir, "cache"),
		"XDG_RUNTIME_DIR=" + d.dir,
		"P11FS_MOUNT=" + d.mnt,
		"P=" + d.mnt,
		"T=" + d.path(),
		"O=" + d.path("objects"),
	}
}

// path returns a path below the token's folder in the mount.
func (d *daemon) path(elem ...string) string {
	return filepath.Join(append([]string{d.mnt, d.c.token}, elem...)...)
}

// start runs p11fs mount and returns once it has said that it is ready, by
// sd_notify and on standard error.
func (d *daemon) start() {
	d.t.Helper()
	d.runs++
	socket := filepath.Join(d.dir, "n")
	_ = os.Remove(socket)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		d.t.Fatal(err)
	}
	defer notify.Close()
	if err := os.Chmod(socket, 0o777); err != nil {
		d.t.Fatal(err)
	}
	args := append([]string{}, d.c.wrap...)
	args = append(args, d.c.serve...)
	if d.c.system {
		args = append(args, "--root", d.dir)
	}
	args = append(append(args, d.c.args...), d.mnt)
	d.log = filepath.Join(d.dir, fmt.Sprintf("log.%d", d.runs))
	log, err := os.Create(d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Env = append(append(os.Environ(), d.env()...), "NOTIFY_SOCKET="+socket)
	d.cmd.Dir = "/"
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: d.c.cred, Pdeathsig: syscall.SIGTERM}
	start := startPinned
	if d.c.start != nil {
		start = d.c.start
	}
	if err := start(d.cmd); err != nil {
		d.t.Fatal(err)
	}
	d.exit = make(chan error, 1)
	go func(cmd *exec.Cmd, exit chan error) {
		exit <- cmd.Wait()
		_ = notify.Close()
	}(d.cmd, d.exit)
	if err := waitReady(notify); err != nil {
		d.kill()
		d.t.Fatalf("p11fs did not say that it is ready: %v\n%s", err, d.said())
	}
	if len(mountsBelow(d.mnt)) != 1 {
		d.t.Fatalf("p11fs says that it is ready and %s is no mount\n%s", d.mnt, d.said())
	}
}

// waitReady waits for READY=1.
func waitReady(notify *net.UnixConn) error {
	if err := notify.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return err
		}
		for _, line := range lines(string(buf[:n])) {
			if line == "READY=1" {
				return nil
			}
		}
	}
}

// said returns what the daemon wrote.
func (d *daemon) said() string {
	b, _ := os.ReadFile(d.log)
	return string(b)
}

// stop asks the daemon to end, and checks that it left nothing.
func (d *daemon) stop() {
	d.t.Helper()
	if d.cmd == nil {
		return
	}
	if err := syscall.Kill(d.pid(), syscall.SIGTERM); err != nil {
		d.t.Errorf("SIGTERM: %v", err)
	}
	d.ended()
}

// ended waits for the daemon to end, and checks that it left nothing.
func (d *daemon) ended() {
	d.t.Helper()
	// A ticker leaves out the ticks of a machine that stood still.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ticks, ended := 0, false; !ended; {
		select {
		case err := <-d.exit:
			if ended = true; err != nil {
				d.t.Errorf("p11fs ended with %v\n%s", err, d.said())
			}
		case <-tick.C:
			if ticks++; ticks < 200 {
				continue
			}
			// SIGQUIT has it write what it waits for.
			_ = syscall.Kill(d.pid(), syscall.SIGQUIT)
			time.Sleep(time.Second)
			d.t.Errorf("p11fs did not end within 20 s\n%s", d.said())
			d.kill()
			ended = true
		}
	}
	d.cmd = nil
	d.checkLog()
	if m := mountsBelow(d.mnt); len(m) > 0 {
		d.t.Errorf("p11fs ended and left %q mounted", m)
	}
}

// checkLog fails the test for what a daemon must never write.
func (d *daemon) checkLog() {
	d.t.Helper()
	b, _ := os.ReadFile(d.log)
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine ", userPIN, soPIN} {
		if bytes.Contains(b, []byte(bad)) {
			d.t.Errorf("p11fs wrote %q:\n%s", bad, b)
		}
	}
}

// kill ends the daemon at once, if it runs, and takes its mount away.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	if !d.t.Failed() {
		d.stop()
		return
	}
	d.t.Logf("p11fs wrote:\n%s", d.said())
	d.crash()
	for range mountsBelow(d.mnt) {
		_ = syscall.Unmount(d.mnt, syscall.MNT_DETACH)
		_ = exec.Command("fusermount3", "-u", "-z", d.mnt).Run()
	}
}

// crash kills the daemon and leaves everything as it falls.
func (d *daemon) crash() {
	_ = syscall.Kill(d.pid(), syscall.SIGKILL)
	<-d.exit //nolint:errcheck // killed
	d.cmd = nil
}

// pid is the process of the daemon itself, below the command it is wrapped in.
func (d *daemon) pid() int {
	if d.c.wrap == nil {
		return d.cmd.Process.Pid
	}
	for _, pid := range processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && exe == d.c.binary && ancestor(d.cmd.Process.Pid, pid) {
			return pid
		}
	}
	return d.cmd.Process.Pid
}

// ancestor reports whether pid is below top in the process tree.
func ancestor(top, pid int) bool {
	for pid > 1 {
		if pid == top {
			return true
		}
		n, err := strconv.Atoi(procStatus(pid, "PPid"))
		if err != nil {
			return false
		}
		pid = n
	}
	return false
}

// procStatus returns one value of /proc/PID/status.
func procStatus(pid int, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, line := range lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// resident is the daemon's resident memory in bytes.
func (d *daemon) resident() int64 {
	d.t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(procStatus(d.pid(), "VmRSS"), " kB"), 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n << 10
}

// terminal opens a terminal of the daemon's user.
func (d *daemon) terminal(shell ...string) *terminal {
	d.t.Helper()
	return d.terminalOf(d.c.cred, shell...)
}

// terminalOf opens a terminal of another user. Its working directory is empty
// and its own.
func (d *daemon) terminalOf(cred *syscall.Credential, shell ...string) *terminal {
	d.t.Helper()
	dir := workDir(d.t, "cwd")
	if cred != nil {
		own(d.t, dir, cred)
	}
	return newTerminal(d.t, terminalConfig{shell: shell, cred: cred, env: d.env(), dir: dir})
}

// initToken gives the token its PINs, and leaves the terminal logged out.
func (d *daemon) initToken(term *terminal) {
	d.t.Helper()
	term.ok("echo init " + soPIN + " 'test token' > $T/ctl")
	term.ok("echo so:" + soPIN + " > $T/login")
	term.ok("echo init-pin " + userPIN + " > $T/ctl")
	term.ok("echo > $T/logout")
}

// ready starts a daemon with an initialised token, and a terminal that is
// logged in as its user.
func ready(t testing.TB, c daemonConfig) (*daemon, *terminal) {
	t.Helper()
	d := startDaemon(t, c)
	term := d.terminal()
	pin := userPIN
	if c.stock {
		pin = readManifest(t).UserPIN
	} else {
		d.initToken(term)
	}
	term.ok("echo " + pin + " > $T/login")
	return d, term
}

// anotherUser returns the credentials of an account that every system has.
// Tests that need it run as root.
func anotherUser(t testing.TB, name string, groups ...string) *syscall.Credential {
	t.Helper()
	needRoot(t)
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	id := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	cred := &syscall.Credential{Uid: id(u.Uid), Gid: id(u.Gid)}
	for _, name := range groups {
		g, err := user.LookupGroup(name)
		need(t, err == nil, "the group "+name)
		cred.Groups = append(cred.Groups, id(g.Gid))
	}
	return cred
}

// command runs a program to its end.
func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}
