package mountd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd/mountpoint"
	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// childEnv makes the test binary a daemon in the directory that it names: a
// test that kills a daemon needs one of its own.
const childEnv = "P11FS_TEST_DAEMON"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		c := userConfig(dir)
		c.Ready = func(Ready) { fmt.Println("ready") }
		if err := Run(context.Background(), c); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if mode := os.Getenv(hardenEnv); mode != "" {
		printHardened(mode)
		os.Exit(0)
	}
	if os.Getenv(processorsEnv) != "" {
		fmt.Println(runtime.GOMAXPROCS(0), Processors(), runtime.GOMAXPROCS(0))
		os.Exit(0)
	}
	if move := os.Getenv(moveEnv); move != "" {
		killedMove(move)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// userConfig is a user daemon below dir.
func userConfig(dir string) Config {
	data := filepath.Join(dir, "data")
	return Config{
		Paths: Paths{
			Config: filepath.Join(dir, "conf"), Data: data, Locks: filepath.Join(data, ".lock"),
			Guard: filepath.Join(data, ".lock", "LCK..p11fs"), Mount: filepath.Join(dir, "mnt"),
		},
		Kinds: kinds(), Log: slog.New(slog.DiscardHandler),
	}
}

// kinds are those of the program, with new tokens of format 3.8, which are made in no
// time.
func kinds() []tokens.Kind {
	k := swtok.NewKind(swtok.GoProvider())
	k.OwnFormat = nil
	return []tokens.Kind{k}
}

// needFUSE skips where nothing can be mounted.
func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	_ = f.Close()
	if _, err := mountpoint.Helper(); err != nil {
		t.Skip(err)
	}
}

// tempDir is a directory whose mounts are gone when the test ends, or it fails.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountsBelow(t, dir) {
			t.Errorf("%s is still mounted", m)
			_ = mountpoint.Detach(context.Background(), m)
		}
	})
	return dir
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	ours, err := mountpoint.Ours()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range ours {
		if strings.HasPrefix(m.Path, dir+"/") {
			found = append(found, m.Path)
		}
	}
	return found
}

// start starts a daemon, and closes it with the test.
func start(t *testing.T, c Config) *Daemon {
	t.Helper()
	d, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// cat reads a file of the mount in another process: one that reads its own mount
// may wait for itself.
func cat(t *testing.T, elem ...string) string {
	t.Helper()
	out, err := exec.Command("cat", filepath.Join(elem...)).Output()
	if err != nil {
		t.Errorf("cat %s: %v", filepath.Join(elem...), err)
	}
	return string(out)
}

// descriptors counts the open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestDaemon(t *testing.T) {
	needFUSE(t)
	dir := tempDir(t)
	c := userConfig(dir)
	var said []Ready
	c.Ready = func(r Ready) { said = append(said, r) }
	d := start(t, c)
	if diff := cmp.Diff(Ready{Mount: filepath.Join(dir, "mnt"), Tokens: []string{"swtok"}, Fresh: "swtok"}, said[0]); diff != "" {
		t.Errorf("ready (-want +got):\n%s", diff)
	}
	if got := mountsBelow(t, dir); len(got) != 1 {
		t.Errorf("mounts: %v", got)
	}
	status := cat(t, dir, "mnt/status")
	for _, want := range []string{"version " + Version + "\n", "mode user\n", "tokens 1\n", "store swtok " + dir + "/data/swtok\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("status has no %q:\n%s", want, status)
		}
	}
	metrics := cat(t, dir, "mnt/metrics")
	for _, want := range []string{"p11fs_info{", "p11fs_panics_total 0\n", "p11fs_tokens 1\n", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics has no %q", want)
		}
	}
	t.Run("memory is not for all to see", func(t *testing.T) {
		text, err := d.metrics()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text(false)) {
			if !strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "p11fs_") {
				t.Errorf("metrics shows %q", line)
			}
		}
	})
	t.Run("mechanisms are not for all to see", func(t *testing.T) {
		text, err := d.metrics()
		if err != nil {
			t.Fatal(err)
		}
		digest := exec.Command("sh", "-c", "cd "+dir+"/mnt/swtok/digest && echo > sha256 && cat sha256")
		digest.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // that of the tests may have no leader
		if out, err := digest.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		const begin = `p11fs_token_call_seconds_count{door="files",mechanism="sha256",token="swtok"} `
		if all := text(true); !strings.Contains(all, begin) || !strings.Contains(all, `p11fs_token_call_errors_total{`) {
			t.Errorf("metrics has no %q:\n%s", begin, all)
		}
		if some := text(false); strings.Contains(some, "sha256") || strings.Contains(some, ownerNames) {
			t.Errorf("metrics shows to others:\n%s", some)
		}
	})
	t.Run("the store is in use", func(t *testing.T) {
		other := c
		other.Paths.Mount = filepath.Join(dir, "other")
		if _, err := New(t.Context(), other); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
	})
	t.Run("the mount point is in use", func(t *testing.T) {
		other := userConfig(filepath.Join(dir, "second"))
		other.Paths.Mount = c.Paths.Mount
		if _, err := New(t.Context(), other); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
	})
	t.Run("a second daemon elsewhere", func(t *testing.T) {
		second := start(t, userConfig(filepath.Join(dir, "second")))
		if got := cat(t, dir, "second/mnt/status"); !strings.Contains(got, "store swtok "+dir+"/second") {
			t.Errorf("status of the second: %s", got)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if got := mountsBelow(t, dir); len(got) != 0 {
		t.Errorf("mounts after Close: %v", got)
	}
}

// faulty is a token that panics where it is asked for its data.
type faulty struct {
	tokens.Token
	on *atomic.Bool
}

func (f faulty) Info(ctx context.Context) (p11.TokenInfo, error) {
	if f.on.Load() {
		panic("a fault of ours")
	}
	return f.Token.Info(ctx)
}

// TestCountsCalls: metrics tells what PKCS#11 programs did, and what of it was a
// fault of the daemon.
func TestCountsCalls(t *testing.T) {
	needFUSE(t)
	dir := tempDir(t)
	c := userConfig(dir)
	c.Paths.RPC = shortName(t)
	var on atomic.Bool
	kind := kinds()[0]
	open := kind.Open
	kind.Open = func(ctx context.Context, p tokens.Place) (tokens.Token, error) {
		token, err := open(ctx, p)
		return faulty{token, &on}, err
	}
	c.Kinds = []tokens.Kind{kind}
	start(t, c)
	on.Store(true)

	client, err := net.Dial("unix", c.Paths.RPC)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte{byte(wire.V0)}); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(client)
	if _, err := r.ReadByte(); err != nil { // the version
		t.Fatal(err)
	}
	for i, call := range []struct {
		call wire.Call
		args func(*wiretest.Writer)
	}{
		{wire.CallInitialize, func(w *wiretest.Writer) {
			w.Array(wire.Array{Data: []byte(wire.Handshake)})
			w.Byte(0)
			w.Array(wire.Array{Data: []byte{0}})
		}},
		{wire.CallGetTokenInfo, func(w *wiretest.Writer) { w.Ulong(0) }},
		{wire.CallGetTokenInfo, func(w *wiretest.Writer) { w.Ulong(0) }},
	} {
		b, at := wire.AppendFrame(nil, uint32(i), "")
		w := wiretest.NewWriter(b, wire.V0)
		signature, _ := wire.Signatures(call.call)
		w.Header(uint32(call.call), signature.Request)
		call.args(w)
		if err := wire.EndFrame(w.B, at); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(w.B); err != nil {
			t.Fatal(err)
		}
		if _, _, err := wire.ReadFrame(r, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	metrics := cat(t, dir, "mnt/metrics")
	for _, want := range []string{
		"p11fs_rpc_panics_total 2\n", "p11fs_rpc_calls_total 3\n", "p11fs_rpc_connections_total 1\n", "p11fs_rpc_connections 1\n",
		"p11fs_panics_total 0\n", "p11fs_callers ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics has no %q:\n%s", want, metrics)
		}
	}
}

// inNamespace runs the test once more in a process with a mount namespace of its own, and
// reports whether this one is to do no more. Where another process makes a namespace, that
// has a copy of each mount it sees, and what serves the mount goes on for as long as the
// copy is there (see TestMountCopiedByANamespace). A user's namespaces let go by themselves.
func inNamespace(t *testing.T) (done bool) {
	t.Helper()
	const env = "P11FS_TEST_NAMESPACE"
	if os.Geteuid() != 0 || os.Getenv(env) != "" {
		return false
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Errorf("in a mount namespace of its own: %v\n%s", err, out)
	}
	return true
}

func TestNothingIsLeft(t *testing.T) {
	needFUSE(t)
	if inNamespace(t) {
		return
	}
	dir := tempDir(t)
	cycle := func() {
		d := start(t, userConfig(dir))
		cat(t, dir, "mnt/metrics")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The FUSE library keeps a few pipes for its next reply.
	for range 3 {
		cycle()
	}
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 5 {
		cycle()
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if descriptors(t) <= fds && runtime.NumGoroutine() <= goroutines {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d descriptors and %d goroutines were left, of %d and %d before:\n%s",
				descriptors(t), runtime.NumGoroutine(), fds, goroutines, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestSystemDaemon(t *testing.T) {
	needFUSE(t)
	dir := tempDir(t)
	c := Config{Mode: System, Paths: SystemPaths(dir), Kinds: kinds()}
	if _, err := New(t.Context(), c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v without a configuration", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.Paths.Config), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := "slot 0\n{\nstdll = libpkcs11_tpm.so\n}\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\nslot 4\n{\nstdll = libpkcs11_sw.so\ntokname = bad\n}\nslot 5\n{\nstdll = libpkcs11_ep11.so\nconfname = ep11tok.conf\n}\n"
	if err := os.WriteFile(c.Paths.Config, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	// A token that cannot be opened leaves the others alone, and is not written.
	bad := filepath.Join(c.Paths.Data, "bad", "NVTOK.DAT")
	if err := os.MkdirAll(filepath.Dir(bad), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("too short"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, c)
	status := d.status(true)
	for _, want := range []string{"mode system\n", "slot-daemon off\n", "slots 4\n", "tokens 1\n", "store slot-0 absent: ", "store swtok " + dir, "store bad failed: "} {
		if !strings.Contains(status, want) {
			t.Errorf("status has no %q:\n%s", want, status)
		}
	}
	if b, err := os.ReadFile(bad); err != nil || string(b) != "too short" {
		t.Errorf("the bad token is now %q, %v", b, err)
	}
	var names []string
	for line := range strings.Lines(d.resources()) {
		f := strings.Fields(line)
		if len(f) != 5 {
			t.Errorf("a line of resources has %d columns: %q", len(f), line)
			continue
		}
		names = append(names, f[0]+" "+f[4])
	}
	want := []string{
		"name state",
		"shm/slot-manager off", "shm/swtok off",
		"socket/slots off", "socket/rpc on",
		"lock/api absent", "lock/daemon on", "lock/swtok on",
		"trace off",
		"config/opencryptoki.conf on", "config/ep11tok.conf absent",
		"token/swtok/NVTOK.DAT on", "token/swtok/MK_SO on", "token/swtok/MK_USER absent",
		"token/bad/NVTOK.DAT failed", "token/bad/MK_SO failed", "token/bad/MK_USER failed",
		"objects/swtok/OBJ.IDX absent", "objects/swtok/public on", "objects/swtok/private hidden",
		"mutex/applications on", "mutex/engine on", "mutex/sessions on", "mutex/tokens on",
		"tree/sessions on", "tree/session-objects on", "tree/public-token-objects on",
		"tree/private-token-objects hidden", "tree/object-handles on",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	if os.Geteuid() == 0 && d.group() != locks.NoGroup {
		var st syscall.Stat_t
		for _, path := range []string{c.Paths.Locks, filepath.Join(c.Paths.Data, "swtok")} {
			if err := syscall.Stat(path, &st); err != nil || int(st.Gid) != d.group() || st.Mode&0o777 != 0o770 {
				t.Errorf("%s: group %d, mode %o, %v; want group %d, mode 770", path, st.Gid, st.Mode&0o777, err, d.group())
			}
		}
	}
}

func TestRun(t *testing.T) {
	needFUSE(t)
	for name, end := range map[string]func(cancel func(), mount string) error{
		"ends with the context": func(cancel func(), _ string) error { cancel(); return nil },
		"ends with the mount": func(_ func(), mount string) error {
			return mountpoint.Unmount(context.Background(), mount)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: shortName(t), Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			t.Setenv("NOTIFY_SOCKET", socket.LocalAddr().String())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := userConfig(dir)
			ready := make(chan struct{})
			c.Ready = func(Ready) { close(ready) }
			done := make(chan error, 1)
			go func() { done <- Run(ctx, c) }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			expect(t, socket, "READY=1")
			if err := end(cancel, c.Paths.Mount); err != nil {
				t.Fatal(err)
			}
			expect(t, socket, "STOPPING=1")
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// shortName is a path short enough for a socket.
func shortName(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// expect waits for a notice whose first line is want.
func expect(t *testing.T, socket *net.UnixConn, want string) {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := socket.Read(buf)
	if err != nil {
		t.Fatalf("waiting for %s: %v", want, err)
	}
	if got, _, _ := strings.Cut(string(buf[:n]), "\n"); got != want {
		t.Errorf("notified %q, want %q", got, want)
	}
}

// TestMountPointNotEmpty: files that go out of sight are worth a word.
func TestMountPointNotEmpty(t *testing.T) {
	needFUSE(t)
	for name, files := range map[string]int{"empty": 0, "not empty": 2} {
		t.Run(name, func(t *testing.T) {
			c := userConfig(tempDir(t))
			var log bytes.Buffer
			c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if err := os.MkdirAll(c.Paths.Mount, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range files {
				if err := os.WriteFile(filepath.Join(c.Paths.Mount, fmt.Sprint(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := start(t, c)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), "not empty"); got != (files > 0) {
				t.Errorf("warned %v:\n%s", got, log.String())
			}
		})
	}
}

func TestStaleMount(t *testing.T) {
	needFUSE(t)
	dir := tempDir(t)
	c := userConfig(dir)
	// Twice over, one stale mount upon the other, cannot be made by p11fs
	// itself; each start cleans what the one before left.
	for range 2 {
		killedDaemon(t, dir)
		if state, err := mountpoint.Probe(c.Paths.Mount); err != nil || state != mountpoint.Stale {
			t.Fatalf("after a kill the mount is %v, %v; want stale", state, err)
		}
		d := start(t, c)
		if state, err := mountpoint.Probe(c.Paths.Mount); err != nil || state != mountpoint.Live {
			t.Errorf("after a start the mount is %v, %v; want live", state, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if state, err := mountpoint.Probe(c.Paths.Mount); err != nil || state != mountpoint.Free {
		t.Errorf("at the end the mount is %v, %v; want free", state, err)
	}
}

// killedDaemon runs a daemon below dir in another process and kills it.
func killedDaemon(t *testing.T, dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, _ := out.Read(buf)
	if got := string(buf[:n]); got != "ready\n" {
		t.Errorf("the daemon said %q", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
}

// TestFailedStart starts daemons that fail at each step, and looks whether they
// leave anything.
func TestFailedStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string, c *Config)
	}{
		{"configuration", func(t *testing.T, dir string, _ *Config) {
			if err := os.WriteFile(filepath.Join(dir, "conf"), []byte("slot 1 {\n}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"data is a file", func(t *testing.T, dir string, _ *Config) {
			if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"mount point is a file", func(t *testing.T, dir string, _ *Config) {
			if err := os.WriteFile(filepath.Join(dir, "mnt"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"no kind of token", func(_ *testing.T, _ string, c *Config) { c.Kinds = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tempDir(t)
			conf := userConfig(dir)
			c.spoil(t, dir, &conf)
			before := descriptors(t)
			if d, err := New(t.Context(), conf); err == nil {
				_ = d.Close()
				t.Fatal("it started")
			}
			if after := descriptors(t); after > before {
				t.Errorf("%d descriptors were left", after-before)
			}
			if got := mountsBelow(t, dir); len(got) != 0 {
				t.Errorf("mounts: %v", got)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := New(ctx, userConfig(tempDir(t))); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestStartWithHeldLocks has others hold the locks of two tokens of three for good: the
// daemon starts and serves the third, and says who holds the others.
func TestStartWithHeldLocks(t *testing.T) {
	needFUSE(t)
	dir := tempDir(t)
	c := userConfig(dir)
	var log bytes.Buffer
	c.Log, c.startWait = slog.New(slog.NewTextHandler(&log, nil)), 300*time.Millisecond
	for _, name := range []string{"a", "b", "c"} {
		if err := os.MkdirAll(filepath.Join(c.Paths.Data, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		l, err := locks.Open(filepath.Join(c.Paths.Locks, name, "LCK.."+name), locks.NoGroup)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		unlock, err := l.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unlock() }()
	}
	d, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.ReadFile(filepath.Join(c.Paths.Mount, "c", "info")); err != nil {
		t.Error(err)
	}
	if _, err := d.all()[2].token.Info(t.Context()); err != nil {
		t.Error(err)
	}
	for _, s := range d.all()[:2] {
		if !errors.Is(s.err, locks.ErrHeld) || !strings.Contains(s.err.Error(), fmt.Sprintf("(process %d)", os.Getpid())) {
			t.Errorf("%s: %v", s.Place.Name, s.err)
		}
	}
	if n := strings.Count(log.String(), "token not usable"); n != 2 {
		t.Errorf("%d tokens are told of: %s", n, log.String())
	}
}

// TestTwoStartsAtOnce starts two daemons with different stores on one mount
// point: exactly one of them gets it.
func TestTwoStartsAtOnce(t *testing.T) {
	needFUSE(t)
	for range 2 { // the loser waits a while for one who ends
		dir := tempDir(t)
		type result struct {
			d   *Daemon
			err error
		}
		results := make(chan result, 2)
		for _, name := range []string{"a", "b"} {
			c := userConfig(filepath.Join(dir, name))
			c.Paths.Mount = filepath.Join(dir, "mnt")
			go func() {
				d, err := New(t.Context(), c)
				results <- result{d, err}
			}()
		}
		a, b := <-results, <-results
		if (a.err == nil) == (b.err == nil) {
			t.Errorf("two starts: %v and %v; want that one succeeds", a.err, b.err)
		}
		for _, r := range []result{a, b} {
			if r.err != nil && !errors.Is(r.err, ErrBusy) {
				t.Errorf("refused with %v, want ErrBusy", r.err)
			}
			if r.d != nil {
				if err := r.d.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// What is above a directory of the machine lets everybody through, whatever the
// umask; above a user's own, nobody.
func TestMakeDirectory(t *testing.T) {
	for _, umask := range []int{0o077, 0o022} {
		old := unix.Umask(umask)
		defer unix.Umask(old)
		for mode, above := range map[os.FileMode]os.FileMode{0o770: 0o755, 0o755: 0o755, 0o700: 0o700} {
			dir := filepath.Join(tempDir(t), "above", "dir")
			if err := locks.MakeDirectory(dir, mode, locks.NoGroup); err != nil {
				t.Fatal(err)
			}
			for path, want := range map[string]os.FileMode{dir: mode, filepath.Dir(dir): above} {
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if st.Mode().Perm() != want {
					t.Errorf("umask %o: %s has mode %o, want %o", umask, path, st.Mode().Perm(), want)
				}
			}
		}
	}
}
