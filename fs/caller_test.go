package fs

import (
	"os"
	"slices"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

func TestThreadGroups(t *testing.T) {
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var groups []int
	group, more := threadGroups(os.Getpid())
	for _, g := range more {
		groups = append(groups, int(g))
	}
	if int(group) != os.Getgid() {
		t.Errorf("the group is %d, want %d", group, os.Getgid())
	}
	slices.Sort(own)
	slices.Sort(groups)
	if !slices.Equal(own, groups) {
		t.Errorf("%v, want %v", groups, own)
	}
	if group, g := threadGroups(-1); g != nil || group != ^uint32(0) {
		t.Errorf("no process has the groups %d, %v", group, g)
	}
}

// A setgid program is the first of a session to use the mount: the application, which the other
// processes of its user have as well, is not of the program's group.
func TestSetgid(t *testing.T) {
	const group, program = 100, 1004
	w := newWorld(t, hooks.Options{})
	w.fs.callers.system.groups = func(int) (uint32, []uint32) { return group, []uint32{group} }
	p := w.person(1000, 50)
	a, err := w.fs.callers.get(caller{uid: p.uid, gid: program, pid: uint32(p.pid)})
	if err != nil {
		t.Fatal(err)
	}
	if o := a.eng.Owner(); o.GID != group || slices.Contains(o.Groups, program) {
		t.Errorf("the application is of the groups %d and %d, want %d alone", o.GID, o.Groups, group)
	}
}
