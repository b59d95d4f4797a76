package integration

import (
	"regexp"
	"strings"
	"testing"
)

// PINs of a length that no PIN can have count as tries: stock counts them, and its
// processes and these share one count.
func TestStockCountsPINsOfEveryLength(t *testing.T) {
	t.Parallel()
	tries := regexp.MustCompile(`user: tries=(\w+)`)
	for _, wrong := range []string{"1", "123456789", strings.Repeat("1", 300)} {
		root := workDir(t, "tokens")
		unpackToken(t, root)
		h := startStock(t, root)
		h.run("pkcs11-tool --module " + h.module + " --login --pin " + wrong + " --list-objects")
		said := h.ok("pkcs11-tool --module " + h.module + " --list-token-slots")
		h.stop()
		d, term := ready(t, daemonConfig{stock: true})
		term.ok("echo > $T/logout")
		term.run("/bin/echo " + wrong + " > $T/login")
		got := tries.FindStringSubmatch(term.ok("cat $T/pin"))
		d.stop()
		if counts := strings.Contains(said, "user PIN count low"); !counts || len(got) != 2 || got[1] != "some" {
			t.Errorf("a PIN of %d bytes: %q; stock counts it: %v\n%s", len(wrong), got, counts, said)
		}
	}
}
