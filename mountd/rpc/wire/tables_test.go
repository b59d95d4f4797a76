package wire

import (
	"slices"
	"testing"

	"p11fs/p11"
)

func TestTablesAscend(t *testing.T) {
	for name, list := range map[string][]p11.MechanismType{"bare0": bare0, "bare1": bare1, "param0": param0, "param1": param1} {
		if !slices.IsSorted(list) {
			t.Errorf("%s is not in ascending order", name)
		}
	}
	if len(bare0)+len(param0) != 91 || len(bare1)+len(bare0) != 124 {
		t.Errorf("%d mechanisms of protocol 0 and %d without parameter of protocol 1", len(bare0)+len(param0), len(bare1)+len(bare0))
	}
}
