package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/tokens/icsf"
	"p11fs/tokens/icsf/icsfwire"
)

// besideScript is what both sides of TestICSFBeside run.
const besideScript = "icsf_beside.py"

// TestICSFBeside has stock's icsf token and ours on one directory and one server at the same
// time, each asked by a process that stays: keys of each kind, certificates and data that one
// makes, changes and destroys the other uses and sees, by every service.
func TestICSFBeside(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, daemonConfig{modern: true})
	h := newICSF(t, d.tokenRoot())
	h.slotd()
	h.ok(h.with + "pkcs11-tool --module " + h.module + " --login --login-type so --so-pin 87654321 --init-pin --pin " + userPIN)
	conf := filepath.Join(d.dir, "opencryptoki.conf")
	if err := os.WriteFile(conf, []byte("slot 0\n{\nstdll = libpkcs11_icsf.so\ntokname = "+icsf.Kind+"\nconfname = icsf.conf\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.ok("cp /etc/opencryptoki/" + icsfName + ".conf " + d.dir + "/icsf.conf")
	d.c.args = []string{"--config", conf}
	d.start()
	sides := map[string]*client{
		"stock": h.process(0, h.with, besideScript, h.module+groupNumbers()),
		"ours":  h.process(1, "P11FS_SOCKET="+filepath.Join(d.dir, "p11fs/rpc.sock")+" ", besideScript, ownModule(t)+groupNumbers()),
	}
	for _, c := range sides {
		c.want("login "+userPIN, "ok")
	}
	for one, other := range map[string]string{"stock": "ours", "ours": "stock"} {
		t.Run(one+" makes", func(t *testing.T) { besides(t, h, one, sides[one], sides[other]) })
	}
	for _, c := range sides {
		c.want("close", "ok")
		c.end()
	}
	for _, o := range h.server.Objects(icsfName) {
		if o.IsSession() {
			t.Errorf("the sessions are closed, and their object %q is there", o)
		}
	}
	d.stop()
	h.ok("kill $slotd; wait $slotd; true")
	h.close()
}

// besides has one make objects, and the other use, change and destroy them.
func besides(t *testing.T, h *icsfHost, name string, one, other *client) {
	// seen is what a side answers once it sees what the other has made or changed.
	seen := func(c *client, command string) string {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if answer := c.do(command); !strings.HasPrefix(answer, "no key") || time.Now().After(deadline) {
				return answer
			}
		}
	}
	one.want("make "+name, "ok")
	uses := one.do("use " + name)
	if !strings.HasPrefix(uses, "ok {") || strings.Count(uses, `": `) < 60 {
		t.Fatalf("its maker uses it: %s", uses)
	}
	services := []icsfwire.Service{icsfwire.DMK, icsfwire.DVK, icsfwire.HMG, icsfwire.HMV, icsfwire.PKS, icsfwire.SKD, icsfwire.SKE, icsfwire.TRD, icsfwire.UWK, icsfwire.WPK}
	before := make(map[icsfwire.Service]int)
	for _, s := range services {
		before[s] = h.server.Calls(s)
	}
	if got := seen(other, "use "+name); got != uses {
		t.Errorf("the other has other results: %s, not %s", got, uses)
	}
	for _, s := range services {
		if h.server.Calls(s) == before[s] {
			t.Errorf("the other has not asked for %s", s)
		}
	}
	for _, pair := range [][2]*client{{one, other}, {other, one}} {
		signatures, ok := strings.CutPrefix(pair[0].do("sign "+name), "ok ")
		if !ok {
			t.Fatal(signatures)
		}
		pair[1].want("check "+name+" "+signatures, "ok")
	}
	other.want("change "+name, "ok")
	one.want("touch "+name, "ok") // ours knows for a minute what an object is, or until it changes it
	if got := seen(one, "use new-"+name); got != uses {
		t.Errorf("with new names its maker has other results: %s, not %s", got, uses)
	}
	other.want("remove new-"+name, "ok")
	for _, c := range []*client{one, other} {
		for deadline := time.Now().Add(time.Minute); c.do("list") != "ok "; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("what was destroyed is there: %s", c.do("list"))
			}
		}
	}
}
