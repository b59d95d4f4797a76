package rpc

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/cgroup"
)

// peerHelper has this test's program connect there, hand the connection on, and end.
const peerHelper = "P11FS_TEST_PEER"

// TestPeerUnit: the unit is that of the process that connected while that lives, and nobody's
// once it has ended, since its number may be another's.
func TestPeerUnit(t *testing.T) {
	if path := os.Getenv(peerHelper); path != "" {
		handOn(t, path)
		return
	}
	if runtime.GOARCH == "s390x" {
		t.Skip("a program under qemu cannot start itself")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := func() Peer {
		t.Helper()
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p, err := peerOf(c)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if p, want := peer(), cgroup.Unit(os.Getpid(), uint32(os.Geteuid())); p.Unit != want || int(p.PID) != os.Getpid() {
		t.Errorf("%+v, want unit %q", p, want)
	}

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	defer unix.Close(pair[0])
	cmd := exec.Command(os.Args[0], "-test.run=^TestPeerUnit$")
	cmd.Env = append(os.Environ(), peerHelper+"="+l.Addr().String())
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	_ = theirs.Close()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	oob := make([]byte, unix.CmsgSpace(4))
	if _, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC); err != nil || n == 0 {
		t.Fatalf("no connection: %d bytes, %v", n, err)
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	if p := peer(); p.Unit != "" || int(p.PID) != cmd.Process.Pid || p.UID != uint32(os.Getuid()) {
		t.Errorf("of a process that has ended: %+v", p)
	}
}

// handOn connects, and gives the connection to who has the other end of descriptor 3.
func handOn(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}
