package shm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLists312 reads dumps of stock openCryptoki 3.23 and 3.27, cut short at each length and
// with counts that are too large, too. What has another length is none.
func TestLists312(t *testing.T) {
	for file, want := range map[string][2]string{
		"shm-v3.23.bin.gz": {"OBhkL1cJ OBENgAso OBBNWjHw OBh2O2BN OB5hQnAK OBNqA28f", "OBEWozM1 OBAnFCHX OB5CTgHG OBHdehiN OBkXczyJ OB4eIP0e OB2OqDsa OBTvpP8q"},
		"shm-v3.27.bin.gz": {"OBS0W3bl OBjjGa0W OBtNXwn4 OBs0Saoh OBQ9DpgQ OBMSgpe9 OBaydp4g OBqPR9fd", "OBmS89DA OB6FLx9Q OBp7dZgU OBdFxjKm OB1jA0Y6 OB8LLgPM OB0jghSv OBeah04P OBf2hmTD OBUNuGVW OBSbuLKX OBmwnBA3 OB0n0Fsx"},
	} {
		b := dump(t, file)
		names, loaded, ok := Lists312(b)
		got := [2]string{strings.Join(names[Public], " "), strings.Join(names[Private], " ")}
		if d := cmp.Diff(want, got); d != "" || !ok || loaded != [2]bool{true, true} {
			t.Errorf("%s: %v %v %s", file, ok, loaded, d)
		}
		for n := 0; n < len(b); n += 61 {
			if _, _, ok := Lists312(b[:n]); ok {
				t.Errorf("%s: %d bytes of it are a segment", file, n)
			}
		}
		for _, count := range []int{offPublicCount312, offPrivateCount312} {
			bad := bytes.Clone(b)
			copy(bad[count:], "\x7f\xff\xff\x7f")
			if _, _, ok := Lists312(bad); ok {
				t.Errorf("%s: a count is too large, and taken", file)
			}
		}
	}
	if _, _, ok := Lists312(dump(t, "shm-live.bin.gz")); ok {
		t.Error("a segment of 3.8 is taken for a later one's")
	}
}
