package integration

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fleetNet is a network of machines, which are network namespaces with a link each to a
// switch. It goes with the test, whatever becomes of that: the namespaces have no names.
type fleetNet struct {
	t     testing.TB
	hub   *netns
	links int
}

// A netns is a network namespace, and the thread that lives in it.
type netns struct {
	tid  int
	work chan func()
	addr net.IP
	link string // the switch's end of its link
	hub  *netns
}

// newNetns makes one with nothing but the loopback device.
func newNetns(t testing.TB) *netns {
	t.Helper()
	n := &netns{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its goroutine
		n.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if made <- err; err != nil {
			return
		}
		for f := range n.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Skip("needs a network namespace: " + err.Error())
	}
	t.Cleanup(func() { close(n.work) })
	n.command(t, "ip link set lo up")
	return n
}

// do runs something in the namespace.
func (n *netns) do(f func() error) error {
	done := make(chan error)
	n.work <- func() { done <- f() }
	return <-done
}

// command runs a program there.
func (n *netns) command(t testing.TB, line string) {
	t.Helper()
	words := strings.Fields(line)
	var out []byte
	err := n.do(func() (err error) {
		out, err = exec.Command(words[0], words[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

func newFleetNet(t testing.TB) *fleetNet {
	t.Helper()
	needTools(t, "ip", "tc")
	f := &fleetNet{t: t, hub: newNetns(t)}
	f.hub.command(t, "ip link add hub type bridge")
	f.hub.command(t, "ip link set hub up")
	return f
}

// machine is another machine on the switch.
func (f *fleetNet) machine() *netns {
	f.t.Helper()
	f.links++
	n := newNetns(f.t)
	n.hub, n.link, n.addr = f.hub, fmt.Sprintf("link%d", f.links), net.IPv4(10, 0, 0, byte(f.links))
	f.hub.command(f.t, fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", n.link, n.tid))
	f.hub.command(f.t, "ip link set "+n.link+" master hub up")
	n.command(f.t, "ip addr add "+n.addr.String()+"/24 dev eth0")
	n.command(f.t, "ip link set eth0 up")
	return n
}

// cut has the network lose all that the machine sends, all that comes to it, or both.
func (n *netns) cut(t testing.TB, out, in bool) {
	t.Helper()
	if out {
		n.command(t, "tc qdisc add dev eth0 root blackhole")
	}
	if in {
		n.hub.command(t, "tc qdisc add dev "+n.link+" root blackhole")
	}
}

// heal is the end of a cut.
func (n *netns) heal(t testing.TB, out, in bool) {
	t.Helper()
	if out {
		n.command(t, "tc qdisc del dev eth0 root")
	}
	if in {
		n.hub.command(t, "tc qdisc del dev "+n.link+" root")
	}
}

// listen listens there.
func (n *netns) listen(port int) (l net.Listener, err error) {
	err = n.do(func() (err error) {
		l, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: n.addr, Port: port})
		return err
	})
	return l, err
}

// start starts a program there, which ends no later than the test.
func (n *netns) start(cmd *exec.Cmd) error { return n.do(cmd.Start) }

// TestNetworkOfMachines is that what the tests of fleets cut is cut, and nothing else.
func TestNetworkOfMachines(t *testing.T) {
	t.Parallel()
	needRoot(t)
	f := newFleetNet(t)
	a, b := f.machine(), f.machine()
	hears := func(patience time.Duration) bool {
		l, err := b.listen(0) // a child that is being started may have the one before for a moment
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return a.do(func() error {
			c, err := net.DialTimeout("tcp4", l.Addr().String(), patience)
			if err == nil {
				err = c.Close()
			}
			return err
		}) == nil
	}
	if !hears(startTimeout) {
		t.Fatal("two machines do not hear one another")
	}
	for _, way := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		for _, n := range []*netns{a, b} {
			n.cut(t, way[0], way[1])
			if hears(50 * time.Millisecond) {
				t.Errorf("%v: they hear one another", way)
			}
			n.heal(t, way[0], way[1])
		}
	}
	if !hears(startTimeout) {
		t.Error("two machines do not hear one another any more")
	}
}
