package main

import (
	"os"
	"testing"

	"p11fs/mountd"
	"p11fs/tokens/card"
)

// TestSocketOf: tokens look for cards where p11fs card serve has them, of a user as of root.
func TestSocketOf(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	own := "/run/user/1000/p11fs/card."
	if os.Geteuid() == 0 { // whose cards are the machine's
		own = "/run/p11fs/card."
	}
	for mode, want := range map[mountd.Mode]string{mountd.User: own, mountd.System: "/run/p11fs/card."} {
		for abi, kind := range map[card.ABI]string{card.EP11: "ep11", card.CCA: "cca"} {
			if got := socketOf(mode, abi); got != want+kind {
				t.Errorf("%v %v: %s", mode, abi, got)
			}
		}
	}
}
