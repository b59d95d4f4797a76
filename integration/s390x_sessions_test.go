package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/ep11tok"
	"p11fs/tokens/store/storetest"
)

// laterEnv names the directory that contrib/s390x.sh made of a later release, whose stock EP11
// token has login sessions.
const laterEnv = "P11FS_S390X_LATER"

// ep11Slot is a slot with an EP11 token, for stock of later releases.
const ep11Slot = `version opencryptoki-3.23
slot 0
{
stdll = libpkcs11_ep11.so
confname = ep11tok.conf
}
`

// sysfs is what the kernel tells of the card, and the directory that a slot daemon needs that
// starts as its own user: it would start itself again, which qemu cannot.
const sysfs = `
mount -t tmpfs tmpfs $R/sys
S=$R/sys/devices/ap/card00
mkdir -p $S/00.0001
for f in online config 00.0001/online; do echo 1 > $S/$f; done
for f in hwtype raw_hwtype; do echo 14 > $S/$f; done
echo 0 > $S/chkstop; echo 0x04000000 > $S/ap_functions; echo CEX8P > $S/type
mkdir $R/run/opencryptoki; chown 997:998 $R/run/opencryptoki; chmod 710 $R/run/opencryptoki
`

// unbound is a configuration that binds no keys. Under qemu libica has no SHA-256.
const unbound = "APQN_ALLOWLIST\n0 1\nEND\nDIGEST_LIBICA OFF\n"

// A boundHost is a cardHost of a later release with a daemon of ours on the same token directory,
// whose keys are bound to logins.
type boundHost struct {
	*cardHost
	d   *daemon
	c   *court
	via card.Transport // to the card
}

func startBound(t *testing.T) *boundHost {
	t.Helper()
	root := needS390X(t, laterEnv)
	h := &boundHost{d: newDaemon(t, daemonConfig{modern: true})}
	h.cardHost = &cardHost{kind: "ep11", tokens: h.d.tokenRoot()}
	h.boot(t, chrootConfig{
		root: root, conf: ep11Slot, daemon: "/qemu -0 pkcsslotd", as: "--userspec=997:998",
		socket: "/run/opencryptoki/pkcsslotd.socket", more: tmpfiles(ep11tok.Kind) + sysfs,
	}, unbound)
	h.native = h.judge(t, filepath.Join(h.d.dir, "p11fs/rpc.sock"))
	h.c = newCourt(t, h.folder)
	h.via = card.Dial(filepath.Join(h.folder, "socket"), card.EP11)
	t.Cleanup(func() { _ = h.via.Close() })
	conf := filepath.Join(h.d.dir, "config/p11fs/opencryptoki.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(strings.Replace(ep11Slot, "ep11tok.conf", h.ep11(), 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// at is a command for a judge: a file by which it tells others something, or is told.
func (h *boundHost) at(dir, word, file string) string {
	return word + ":" + filepath.Join(dir, file) + " "
}

// bind has stock's tool set the PIN of the login that all share, and makes keys bound to logins.
func (h *boundHost) bind() {
	h.t.Helper()
	h.ok("printf '" + storetest.UserPIN + "\\nvhsm-pin\\nvhsm-pin\\n' | on /usr/sbin/pkcsep11_session vhsmpin -slot 0")
	if err := os.WriteFile(h.ep11(), []byte(unbound+"STRICT_MODE\nVHSM_MODE\n#p11fs: card = "+h.folder+"/socket\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// knows checks which blobs the card uses, of all that judges have printed, whoever has them.
func (h *boundHost) knows(when string, names ...string) {
	h.t.Helper()
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(make([]byte, 16))}
	for name, blob := range h.c.blobs {
		_, err := ep11.EncryptSingle(h.t.Context(), h.via, card.Target{{Adapter: 0, Domain: 1}}, blob, m, make([]byte, 16))
		switch known := slices.Contains(names, name); {
		case known && err != nil:
			h.t.Errorf("%s: %s: %v", when, name, err)
		case !known && p11.RVOf(err) != p11.CKR_SESSION_CLOSED:
			h.t.Errorf("%s: the card takes %s, whose login has ended: %v", when, name, err)
		}
	}
}

// logins checks how many the card knows.
func (h *boundHost) logins(when string, want int) {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.cards, "sessions/*.*/*"))
	if err != nil || len(found) != want {
		h.t.Errorf("%s: the card knows %d logins, not %d (%v)", when, len(found), want, err)
	}
}

// until waits for a file that a judge makes, and takes the blobs that one has printed by then.
func (h *boundHost) until(file, printed string) {
	h.t.Helper()
	h.ok("for i in $(seq 3000); do [ -e " + h.folder + "/" + file + " ] && break; sleep 0.04; done; [ -e " + h.folder + "/" + file + " ]")
	for _, line := range strings.Split(h.ok("grep ^blob $R/tmp/"+printed+" || :"), "\n") {
		if f := strings.Fields(line); len(f) == 3 {
			h.c.blobs[f[1]] = unhexed(f[2])
		}
	}
}

func (h *boundHost) tell(file string) {
	h.t.Helper()
	h.ok(": > " + h.folder + "/" + file)
}

// TestS390XEP11Sessions has stock's EP11 token of a later release judge our card with STRICT_MODE
// and VHSM_MODE, and our token beside it on one directory: the keys of a login work as long as it
// lasts, and no longer, whoever asks the card; the keys of the login that all share are used by
// both at the same time, also after the other has ended it; and what a killed daemon has left,
// stock's tool removes.
func TestS390XEP11Sessions(t *testing.T) {
	t.Parallel()
	h := startBound(t)
	h.startSlotd()
	h.initToken()
	h.bind()
	there := func(word, file string) string { return h.at(cardFolder, word, file) }
	here := func(word, file string) string { return h.at(h.folder, word, file) }
	h.ok(h.foreign + "make:theirs session:brief blob:brief-aes blob:theirs-aes " + there("touch", "made") +
		there("wait", "used") + "use:theirs " + there("touch", "still") + there("wait", "leave") + "logout gone:brief-aes " + there("touch", "left") +
		there("wait", "back") + "login gone:brief-aes use:theirs >$R/tmp/stock.out & stock=$!")
	h.until("made", "stock.out")
	h.d.start()
	h.logins("stock is logged in", 2)
	h.knows("stock is logged in", "brief-aes", "theirs-aes")

	// Ours comes, and goes: stock goes on.
	h.c.hear(h.ok(h.native+"use:theirs make:ours use:ours brief:extra blob:extra-aes blob:ours-aes"), 6000)
	h.knows("ours has gone", "brief-aes")
	h.tell("used")
	h.until("still", "stock.out")
	h.knows("stock goes on", "brief-aes", "theirs-aes", "ours-aes")

	// Ours stays, and stock goes.
	h.ok(h.native + "use:theirs brief:later blob:later-aes " + here("touch", "in") + here("wait", "left") + "use:theirs use:ours " +
		here("touch", "on") + here("wait", "end") + "logout gone:ours-aes gone:later-aes >$R/tmp/ours.out & ours=$!")
	h.until("in", "ours.out")
	h.logins("both are logged in", 3)
	h.knows("both are logged in", "brief-aes", "later-aes", "theirs-aes", "ours-aes")
	h.tell("leave")
	h.until("left", "stock.out")
	h.until("on", "ours.out")
	h.knows("stock has gone", "later-aes", "theirs-aes", "ours-aes")
	h.tell("end")
	h.c.hear(h.ok("wait $ours && cat $R/tmp/ours.out"), 8000)
	h.logins("nobody is logged in", 0)
	h.knows("nobody is logged in")
	h.tell("back")
	h.c.hear(h.ok("wait $stock && cat $R/tmp/stock.out"), 8000)
	h.logins("all have gone", 0)
	h.knows("all have gone")

	// What a daemon has left that was killed, stock's tool removes.
	term := h.d.terminal()
	term.ok("echo " + storetest.UserPIN + " > " + filepath.Join(h.d.mnt, ep11tok.Kind, "login"))
	h.logins("ours is logged in", 2)
	h.d.crash()
	h.logins("ours was killed", 2)
	h.endSlotd()
	h.ok("rm $R/dev/shm/var.lib.opencryptoki." + ep11tok.Kind) // stock's list of the objects outlives its processes
	h.startSlotd()
	if said := h.ok("echo " + storetest.UserPIN + " | on /usr/sbin/pkcsep11_session logout -slot 0"); !strings.Contains(said, "1 EP11-Sessions logged out") {
		t.Errorf("pkcsep11_session says\n%s", said)
	}
	h.logins("stock has seen to it", 0)

	// What ours has made in the token, stock uses, and ours again.
	h.c.hear(h.ok(h.foreign+"use:ours use:theirs "+h.c.sealed("ours", "pkcs", "oaep")), 8000)
	h.endSlotd()
	h.d.start()
	h.c.hear(h.ok(h.native+"use:theirs "+h.c.sealed("theirs", "pkcs", "oaep")), 4000)
	h.c.counted(map[string]int{"signature": 600, "cipher": 90, "derived": 20, "opened": 8})
	h.d.stop()
	h.close()
}
