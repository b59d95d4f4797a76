package fs

import (
	"errors"
	"fmt"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
)

// Of the names that the kernel is told a bounded number stays, the newest.
func TestRecentNames(t *testing.T) {
	r, dir := newRecentNames(), new(gofs.Inode)
	name := func(i int) string { return fmt.Sprintf("import:label=%d", i) }
	for i := range maxRecentNames + maxGoneNames {
		if err := r.add(dir, name(i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := r.add(dir, name(maxGoneNames)); err != nil { // which is known
		t.Error(err)
	}
	if len(r.known) != maxRecentNames || len(r.gone) != maxGoneNames || (<-r.gone).name != name(0) {
		t.Errorf("%d names stay, and %d go", len(r.known), len(r.gone))
	}
	if err := r.add(dir, "import:label=x"); err != nil {
		t.Error(err)
	}
	// Where the kernel does not let the old ones go, there are no new ones but those
	// that are listed.
	if err := r.add(dir, "import:label=y"); !errors.Is(err, errNames) {
		t.Errorf("one name too many: %v", err)
	}
	if err := r.add(dir, "sign"); err != nil {
		t.Error(err)
	}
}
