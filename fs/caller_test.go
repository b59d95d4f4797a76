package fs

import (
	"os"
	"slices"
	"testing"
)

func TestThreadGroups(t *testing.T) {
	own, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	var groups []int
	for _, g := range threadGroups(os.Getpid()) {
		groups = append(groups, int(g))
	}
	slices.Sort(own)
	slices.Sort(groups)
	if !slices.Equal(own, groups) {
		t.Errorf("%v, want %v", groups, own)
	}
	if g := threadGroups(-1); g != nil {
		t.Errorf("no process has the groups %v", g)
	}
}
