package main

import (
	"testing"

	"p11fs/mountd"
	"p11fs/tokens/card"
)

// TestSocketOf: tokens look for cards where p11fs card serve has them, of a user as of root.
func TestSocketOf(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	for mode, want := range map[mountd.Mode]string{mountd.User: "/run/user/1000/p11fs/card.", mountd.System: "/run/p11fs/card."} {
		for abi, kind := range map[card.ABI]string{card.EP11: "ep11", card.CCA: "cca"} {
			if got := socketOf(mode, abi); got != want+kind {
				t.Errorf("%v %v: %s", mode, abi, got)
			}
		}
	}
}
