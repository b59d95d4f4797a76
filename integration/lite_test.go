package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/tokens/lite"
	"p11fs/tokens/store/storetest"
)

// TestLiteConformance asks the rules of PKCS#11 of a lite token, through every door; the
// race detector watches the doors in TestConformance.
func TestLiteConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the software token's cryptography and store, once more")
	}
	t.Parallel()
	conform(t, daemonDoors(daemonConfig{token: lite.Kind, binary: plainBinary(t)}, soPIN), slices.Concat(conformanceRules(), pqcRules()))
}

// TestLiteSlot serves the token directory of a mainframe in the slot that the mainframe's
// configuration has for it.
func TestLiteSlot(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d := newDaemon(t, daemonConfig{token: lite.Kind})
	dir := filepath.Join(d.tokenRoot(), lite.Kind)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(storetest.Untar(t, "lite-be"))); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(d.dir, "conf")
	if err := os.WriteFile(conf, []byte("slot 1\n{\nstdll = libpkcs11_ica.so\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.c.args = []string{"--config", conf}
	d.start()
	term := d.terminal()
	term.want("grep -E '^(kind|model|slot):' "+d.path("info"), "model: IBM ICA\nkind: lite\nslot: 1\n")
	if got := term.ok("head -1 " + d.path("mechanisms")); !strings.Contains(got, "rsa-pkcs-key-pair-gen") {
		t.Errorf("the list begins with %s", got)
	}
	term.ok("T=" + d.path() + " && echo " + storetest.UserPIN + " > $T/login && echo message > msg")
	term.ok("cat msg > $T/objects/rsa1.key/sign && cat $T/objects/rsa1.key/sign > sig && openssl dgst -sha256 -verify $T/objects/rsa1.pub/public.pem -signature sig msg")
}
