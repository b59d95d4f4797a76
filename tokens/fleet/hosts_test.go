package fleet

import (
	"testing"
)

// A machine whose daemon was killed and runs again is there twice until the lease of the one that was killed
// ends, and it shows which one that is.
func TestKilledHost(t *testing.T) {
	k := newKeepers(t)
	killed := k.open("/a/").host.ID()
	again := k.open("/a/")
	hosts := again.Fleet(t.Context()).Hosts
	if len(hosts) != 2 {
		t.Fatalf("%+v", hosts)
	}
	for _, h := range hosts {
		if h.Earlier != (h.ID == killed) || h.Here == h.Earlier {
			t.Errorf("%+v", h)
		}
	}
}
