package rpc

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPeer(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := peerOf(c.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var groups []int
	for _, g := range p.Groups {
		groups = append(groups, int(g))
	}
	slices.Sort(own)
	slices.Sort(groups)
	if int(p.UID) != os.Getuid() || int(p.GID) != os.Getgid() || int(p.PID) != os.Getpid() || !slices.Equal(own, groups) {
		t.Errorf("%+v, want uid %d, gid %d, pid %d, groups %v", p, os.Getuid(), os.Getgid(), os.Getpid(), own)
	}
}
