// Command runfleet starts etcd with three members and two daemons of p11fs that have one token
// in it, on this machine, for trying. It ends with ^C, and leaves nothing behind.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "runfleet: name the p11fs to run: make run-fleet does")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runfleet:", err)
		os.Exit(1)
	}
}

// A host is an etcdtest.T.
type host struct {
	dir   string
	undo  []func()
	dirs  int
	ended chan error
}

// fatal ends run.
type fatal struct{ error }

func (h *host) Helper()          {}
func (h *host) Cleanup(f func()) { h.undo = append(h.undo, f) }
func (h *host) Fatal(args ...any) {
	panic(fatal{errors.New(fmt.Sprint(args...))})
}
func (h *host) Context() context.Context { return context.Background() }
func (h *host) Skip(args ...any)         { h.Fatal(args...) }

func (h *host) TempDir() string {
	h.dirs++
	dir := filepath.Join(h.dir, fmt.Sprint("etcd", h.dirs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		h.Fatal(err)
	}
	return dir
}

// PINs of the token.
const (
	soPIN = "87654321"
	pin   = "12345678"
)

// run serves until ctx ends.
func run(ctx context.Context, p11fs string) (err error) {
	dir, err := os.MkdirTemp("", "p11fs-fleet-")
	if err != nil {
		return err
	}
	h := &host{dir: dir, ended: make(chan error, 2)}
	defer func() {
		f := recover()
		if why, ok := f.(fatal); ok {
			err, f = errors.Join(err, why), nil
		}
		for _, f := range slices.Backward(h.undo) {
			f()
		}
		err = errors.Join(err, os.RemoveAll(dir))
		if f != nil {
			panic(f)
		}
	}()
	fmt.Println("starting three members of etcd, and two machines")
	c := etcdtest.Start(h, 3)
	sealKey := filepath.Join(dir, "fleet.key")
	if err := seal.WriteKey(sealKey); err != nil {
		return err
	}
	for _, name := range []string{"one", "two"} {
		if err := h.machine(ctx, c, p11fs, name, sealKey); err != nil {
			return err
		}
	}
	one, two := filepath.Join(dir, "one/mnt"), filepath.Join(dir, "two/mnt")
	fmt.Printf(`
Two machines have the token web, with the PIN %s. Try, in another terminal:

    ONE=%s TWO=%s
    echo %[1]s > $ONE/web/login; echo %[1]s > $TWO/web/login
    echo 'ec:p256 label=key' > $ONE/web/generate
    echo hello > $TWO/web/objects/key.key/sign; cat $TWO/web/objects/key.key/sign | wc -c
    %[4]s who --fleet --mount $ONE

Type 1, 2 or 3 and Enter here to end that member of etcd, or to start it again; ^C ends all.
`, pin, one, two, p11fs)
	return h.serve(ctx, c)
}

// serve ends and starts members as they are typed, until ctx ends or a daemon does.
func (h *host) serve(ctx context.Context, c *etcdtest.Cluster) error {
	typed := make(chan int)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if n, err := strconv.Atoi(strings.TrimSpace(in.Text())); err == nil && n >= 1 && n <= 3 {
				typed <- n - 1
			}
		}
	}()
	var gone [3]bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-h.ended:
			return fmt.Errorf("a daemon has ended: %w", err)
		case n := <-typed:
			if gone[n] {
				c.Restart(n)
			} else {
				c.Kill(n)
			}
			gone[n] = !gone[n]
			fmt.Printf("member %d is there: %v\n", n+1, !gone[n])
		}
	}
}

// machine makes the token or joins it, and starts a daemon, which ends with the host.
func (h *host) machine(ctx context.Context, c *etcdtest.Cluster, p11fs, name, sealKey string) error {
	home := filepath.Join(h.dir, name)
	for _, dir := range []string{home, filepath.Join(home, "mnt"), filepath.Join(home, "run")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	pair := c.Pair(name, time.Now().Add(24*time.Hour))
	conf := filepath.Join(home, "web.conf")
	text := fmt.Sprintf("endpoint = %s\nprefix = /p11fs/web/\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\nhost = %s\n",
		strings.Join(c.Endpoints(), "\nendpoint = "), c.CA(), pair.Cert, pair.Key, sealKey, name)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(p11fs, args...)
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+filepath.Join(home, "data"), "XDG_RUNTIME_DIR="+filepath.Join(home, "run"), "P11FS_MOUNT=", "P11FS_SOCKET=")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for us, who end it
		return cmd
	}
	first := command("token", "new", "web", "--fleet", conf)
	first.Stdin = strings.NewReader(soPIN + "\nweb farm\n" + pin + "\n")
	if name != "one" {
		first = command("token", "new", "web", "--fleet", conf, "--adopt")
	}
	if err := first.Run(); err != nil {
		return fmt.Errorf("the token of machine %s: %w", name, err)
	}
	mount := filepath.Join(home, "mnt")
	daemon := command("mount", mount)
	if err := daemon.Start(); err != nil {
		return err
	}
	var ended error // once done is closed
	done := make(chan struct{})
	go func() {
		ended = daemon.Wait()
		close(done)
		h.ended <- ended
	}()
	h.undo = append(h.undo, func() {
		_ = daemon.Process.Signal(syscall.SIGTERM) // which may have ended
		<-done
	})
	for {
		if _, err := os.Stat(filepath.Join(mount, "web", "info")); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return fmt.Errorf("the daemon of machine %s: %w", name, ended)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
