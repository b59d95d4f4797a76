// Package cardtest has cards in processes of their own, for tests that end them at once, and
// what a token whose keys are in a card must do then.
package cardtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
)

// Of a process that is a card: the directory of its cards, and its socket.
const dirEnv, socketEnv = "P11FS_CARDTEST_DIR", "P11FS_CARDTEST_SOCKET"

// Main is TestMain's: it runs the tests, or, in a process that a test has started, cards of a
// directory, which open makes of its set.
func Main(m *testing.M, abi card.ABI, open func(*soft.Set) card.Transport) {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := serve(dir, os.Getenv(socketEnv), abi, open); err != nil {
		fmt.Fprintln(os.Stderr, "cards:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve answers for cards until standard input ends, as it does with the test.
func serve(dir, socket string, abi card.ABI, open func(*soft.Set) card.Transport) error {
	set, err := soft.OpenSet(dir)
	if err != nil {
		return err
	}
	via := open(set)      // which closes the set
	_ = os.Remove(socket) // of the process before
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	s := &card.Server{ABI: abi, Card: via, Log: slog.New(slog.DiscardHandler)}
	return errors.Join(s.Serve(ctx, l), via.Close())
}

// A Process is cards in one.
type Process struct {
	Dir, Socket string

	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
}

// Start starts a process for the cards of a directory.
func Start(t *testing.T, dir string) *Process {
	t.Helper()
	place, err := os.MkdirTemp("", "card") // whose name is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Dir: dir, Socket: filepath.Join(place, "socket"), t: t}
	t.Cleanup(func() {
		p.Kill()
		_ = os.RemoveAll(place)
	})
	p.Again()
	return p
}

// Again starts it after Kill.
func (p *Process) Again() {
	p.t.Helper()
	for _, args := range [][]string{{os.Args[0]}, {"qemu-" + runtime.GOARCH + "-static", os.Args[0]}} {
		var said strings.Builder
		p.cmd = exec.Command(args[0], args[1:]...)
		p.cmd.Env = append(os.Environ(), dirEnv+"="+p.Dir, socketEnv+"="+p.Socket)
		p.cmd.Stderr = &said
		in, err := p.cmd.StdinPipe()
		if err != nil {
			p.t.Fatal(err)
		}
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			p.t.Fatal(err)
		}
		err = p.cmd.Start()
		if errors.Is(err, syscall.ENOEXEC) {
			continue // another machine's program
		}
		if err != nil {
			p.t.Fatal(err)
		}
		p.in = in
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			p.Kill()
			p.t.Fatalf("the cards say %q, %v: %s", line, err, &said)
		}
		return
	}
	p.t.Fatal("this program cannot start itself")
}

// Kill ends it by SIGKILL. One that has ended stays so.
func (p *Process) Kill() {
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill() // one that has ended by itself is waited for all the same
	_ = p.cmd.Wait()         // which says that it was killed
	_ = p.in.Close()
}

// A hook is a transport that does something before a call.
type hook struct {
	card.Transport

	mu   sync.Mutex // guards all below
	left int        // calls up to that one; 0 is none
	do   func()
}

// at has do be done before the call that is the nth from now.
func (h *hook) at(n int, do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left, h.do = n, do
}

// waits says whether that call has not come.
func (h *hook) waits() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left > 0
}

func (h *hook) Call(ctx context.Context, c *card.Call) error {
	h.mu.Lock()
	do := func() {}
	if h.left > 0 {
		if h.left--; h.left == 0 {
			do = h.do
		}
	}
	h.mu.Unlock()
	do()
	return h.Transport.Call(ctx, c)
}
