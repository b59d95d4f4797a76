package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// orders is a program, in a session of its own, that takes one order a line
// and answers each with one line.
type orders struct {
	t       testing.TB
	kill    func() error
	in      io.Writer
	answers *bufio.Reader
}

// newOrders starts such a program as the daemon's user.
func newOrders(t testing.TB, d *daemon, name string, args ...string) *orders {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: d.c.cred, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), d.env()...)
	return runOrders(t, cmd)
}

// runOrders starts it as it is told.
func runOrders(t testing.TB, cmd *exec.Cmd) *orders {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startPinned(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &orders{t, cmd.Process.Kill, in, bufio.NewReader(out)}
}

// begin gives an order and returns a function that waits for the answer.
func (o *orders) begin(order string) func() string {
	o.t.Helper()
	if _, err := fmt.Fprintln(o.in, order); err != nil {
		o.t.Fatal(err)
	}
	return func() string {
		o.t.Helper()
		timer := time.AfterFunc(lineTimeout, func() { _ = o.kill() })
		defer timer.Stop()
		answer, err := o.answers.ReadString('\n')
		if err != nil {
			o.t.Fatalf("%s: no answer: %v", order, err)
		}
		return strings.TrimSuffix(answer, "\n")
	}
}

// order gives an order whose answer must begin with want.
func (o *orders) order(order, want string) {
	o.t.Helper()
	if got := o.begin(order)(); !strings.HasPrefix(got, want) {
		o.t.Fatalf("%s: %s, want %s", order, got, want)
	}
}
