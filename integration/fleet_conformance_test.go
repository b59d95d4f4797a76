package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/tokens"
	"p11fs/tokens/fleet"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/swtok"
)

// TestFleetConformance asks the rules of PKCS#11 of a token in etcd, through every door but
// that of openCryptoki's library, which does not see it: all rules through one of them, and
// through the others those that are about what the token stores, since its cryptography is
// the software token's. The daemon of each door is this test, in which a PIN takes no time,
// and has a prefix of its own in one cluster of three members.
func TestFleetConformance(t *testing.T) {
	if mount := flag.Arg(0); mount != "" {
		if err := serveKind(t.Context(), fleet.NewKind(swtok.GoProvider(), 1), mount); err != nil {
			t.Fatal(err)
		}
		return
	}
	if testing.Short() {
		t.Skip("asks each rule of a cluster, which takes a minute of processor time")
	}
	t.Parallel()
	c := daemonConfig{token: fleet.Kind, serve: []string{itself(), "-test.run=^TestFleetConformance$"}, fleet: etcdtest.Start(t, 3)}
	all := slices.Concat(conformanceRules(), pqcRules())
	stored := slices.Concat(sessionRules(), loginRules(), visibilityRules(), templateRules(), attributeRules())
	for _, d := range daemonDoors(c, tokens.DefaultSOPIN) {
		rules := stored
		if d.name == "libp11fs" || *everyRule {
			rules = all
		}
		conform(t, []door{d}, rules)
	}
}

// giveFleet has a daemon's token be in etcd, below a prefix that no other has.
func (d *daemon) giveFleet() {
	d.t.Helper()
	own := filepath.Join(d.tokenRoot(), d.c.token)
	err := os.Mkdir(own, 0o700)
	if err == nil {
		err = writeFleet(d.c.fleet, d.dir, own, "/p11fs/"+filepath.Base(d.dir)+"/")
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// writeFleet writes into dir what a machine of a fleet has, and into own, its token directory,
// where that is. All have the same key.
func writeFleet(c *etcdtest.Cluster, dir, own, prefix string) error {
	pair := c.Pair(filepath.Base(dir), time.Now().Add(time.Hour))
	sealKey, conf := filepath.Join(dir, "seal.key"), filepath.Join(dir, "web.conf")
	text := fmt.Sprintf("endpoint = %s\nprefix = %s\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\n",
		strings.Join(c.Endpoints(), "\nendpoint = "), prefix, c.CA(), pair.Cert, pair.Key, sealKey)
	for name, text := range map[string]string{sealKey: strings.Repeat("5e", 32), conf: text, filepath.Join(own, "fleet.conf"): fmt.Sprintf("fleet = %q\n", conf)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
