package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"p11fs/tokens/store/storetest"
)

// cardFolder is where the machine has the card's socket, the libraries and the judge.
const cardFolder = "/run/card"

// goldenEnv names a directory into which token directories are written that stock made, as
// those are of package storetest.
const goldenEnv = "P11FS_GOLDEN"

// A cardHost is an s390x machine whose one token has its keys in a software card on this
// machine, whose byte order is another.
type cardHost struct {
	s390xHost
	kind    string // ep11 or cca
	tokens  string // /var/lib/opencryptoki there
	cards   string // the card's directory
	folder  string // what is cardFolder there
	native  string // runs the judge of this machine
	foreign string // that of the other, over stock's library
	extra   string // what else the judge of this machine does
}

// crossCompiled builds for s390x the cards' libraries, what stock's tokens lack that are to
// load them, and the judge.
func crossCompiled(t *testing.T, dir string) {
	t.Helper()
	const cc = "s390x-linux-gnu-gcc"
	needTools(t, cc)
	for _, args := range [][]string{
		{"make", "-s", "-C", "..", "-f", "cmd/libcard/build.mk", "libcard", "LIBCARD=" + dir, "CC=" + cc},
		{cc, "-shared", "-fPIC", "-o", filepath.Join(dir, "shim.so"), "testdata/card_shim.c"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	compileJudge(t, dir, cc)
}

// needS390X is the directory that contrib/s390x.sh made.
func needS390X(t testing.TB, env string) string {
	t.Helper()
	root := os.Getenv(env)
	if _, err := os.Stat(filepath.Join(root, "qemu")); root == "" || err != nil {
		t.Skip("needs stock s390x programs: make test-s390x fetches them")
	}
	return root
}

func startCardHost(t *testing.T, kind, conf string) *cardHost {
	t.Helper()
	root := needS390X(t, s390xEnv)
	h := &cardHost{kind: kind, tokens: workDir(t, "tokens")}
	if err := os.MkdirAll(filepath.Join(h.tokens, kind+"tok", "TOK_OBJ"), 0o770); err != nil { // which the package makes
		t.Fatal(err)
	}
	h.boot(t, chrootConfig{root: root, conf: conf, daemon: "/qemu -0 pkcsslotd", socket: "/run/pkcsslotd.socket", more: "mount --bind /etc/group $R/etc/group\n"}, "APQN_WHITELIST\n0 1\nEND\n")
	h.native = h.judge(t, "$R/run/p11fs/rpc.sock")
	return h
}

// boot starts a machine over h.tokens, without a slot daemon, and a card of its token's kind.
func (h *cardHost) boot(t *testing.T, c chrootConfig, ep11 string) {
	t.Helper()
	h.cards, h.folder = filepath.Join(workDir(t, "card"), "cards"), workDir(t, "libraries")
	crossCompiled(t, h.folder)
	if err := os.WriteFile(h.ep11(), []byte(ep11), 0o644); err != nil {
		t.Fatal(err)
	}
	c.tokens, c.library = h.tokens, "/usr/lib/s390x-linux-gnu/opencryptoki/libopencryptoki.so.0"
	c.run = "/qemu -E LD_PRELOAD=" + cardFolder + "/shim.so -E LD_LIBRARY_PATH=" + cardFolder
	c.more = "mkdir -p $R" + cardFolder + " $R/run/p11fs\nmount --bind " + h.folder + " $R" + cardFolder +
		"\nln -s " + cardFolder + "/socket $R/run/p11fs/card." + h.kind +
		"\n: >> $R/etc/opencryptoki/ep11tok.conf\nmount --bind " + h.ep11() + " $R/etc/opencryptoki/ep11tok.conf\n" + c.more
	h.s390xHost = s390xHost{startChroot(t, c)}
	h.ok(quote(binary()) + " card serve --kind " + h.kind + " --dir " + h.cards + " --socket " + h.folder + "/socket >$R/tmp/card.out 2>$R/tmp/card.log & card=$!")
	h.ok("for i in $(seq 600); do grep -q 'answer at' $R/tmp/card.out && break; sleep 0.05; done; grep -q 'answer at' $R/tmp/card.out")
	h.foreign = "on " + cardFolder + "/judge $LIBRARY 0 " + storetest.UserPIN + " " + h.kind + "-stock " + cardFolder + "/given "
}

// ep11 is the configuration of an EP11 token.
func (h *cardHost) ep11() string { return filepath.Join(h.folder, "ep11tok.conf") }

// judge runs the judge of this machine over our module, at a socket.
func (h *cardHost) judge(t *testing.T, socket string) string {
	t.Helper()
	dir := workDir(t, "judge")
	compileJudge(t, dir, "gcc")
	return "P11FS_SOCKET=" + socket + " " + dir + "/judge " + ownModule(t) + " 0 " + storetest.UserPIN + " " + h.kind + " " + h.folder + "/given "
}

// initToken gives the token the PINs of the golden directories.
func (h *cardHost) initToken() {
	h.t.Helper()
	h.ok("printf '" + soPIN + `\ntest token\n' | on /usr/sbin/pkcsconf -c 0 -I`)
	h.ok("on /usr/sbin/pkcsconf -c 0 -P -S " + soPIN + " -n " + storetest.SOPIN)
	h.ok("on /usr/sbin/pkcsconf -c 0 -u -S " + storetest.SOPIN + " -n " + storetest.UserPIN)
}

// golden keeps the token directory with the card in it, if that is wanted.
func (h *cardHost) golden() {
	h.t.Helper()
	if to := os.Getenv(goldenEnv); to != "" {
		h.ok("T=" + h.kind + "tok && cd $R/tmp && mkdir golden && cp -r " + h.tokens + "/$T golden && cp -r " + h.cards + " golden/$T/card && tar --sort=name --owner=0 --group=0 --numeric-owner -C golden -czf " + quote(to) + "/$T-be.tar.gz $T")
	}
}

// judged has stock's token alone, and then beside ours, on one directory and at the same
// time, use a card. What of it openssl can tell it checks.
func (h *cardHost) judged(t *testing.T, want map[string]int, padding ...string) {
	t.Helper()
	c := newCourt(t, h.folder)
	h.startSlotd()
	h.initToken()
	c.hear(h.ok(h.foreign+"make:theirs"), 18)
	h.golden()
	c.hear(h.ok(h.foreign+"use:theirs functions session:more"), 9000)
	h.endSlotd()

	h.ours()
	h.startSlotd()
	h.ok("for i in $(seq 600); do [ -S $R/run/p11fs/rpc.sock ] && break; sleep 0.05; done; [ -S $R/run/p11fs/rpc.sock ]")
	h.ok(h.foreign + "use:theirs make:live touch:" + cardFolder + "/made wait:" + cardFolder + "/used use:ours >$R/tmp/stock.out & stock=$!")
	c.hear(h.ok(h.native+"wait:"+h.folder+"/made use:live use:theirs make:ours use:ours touch:"+h.folder+"/used functions "+h.extra), 8000)
	c.hear(h.ok("wait $stock && cat $R/tmp/stock.out"), 5000)
	c.hear(h.ok(h.native+c.sealed("theirs", padding...)), 10)
	c.hear(h.ok(h.foreign+c.sealed("ours", padding...)), 10)
	c.counted(want)
}

// TestS390XEP11 has stock's EP11 token of s390x judge libep11.so, the software card, and our
// token beside it.
func TestS390XEP11(t *testing.T) {
	t.Parallel()
	h := startCardHost(t, "ep11", `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_ep11.so
confname = ep11tok.conf
}
`)
	h.extra = "session:extra " // on all curves, of which p11fs without libcrypto has three itself
	h.judged(t, map[string]int{"signature": 600, "cipher": 90, "derived": 20, "dh": 6, "dsa": 6, "digest": 24, "opened": 8}, "pkcs", "oaep")

	wk := quote(binary()) + " card wk --dir " + h.cards + " "
	h.ok(wk + "new && " + wk + "commit && " + wk + "activate --force")
	h.ok("seq 20 > $R/tmp/note; ! tool --slot 0 --login --pin " + storetest.UserPIN + " --sign --mechanism SHA256-RSA-PKCS --label theirs-rsa -i /tmp/note -o /tmp/sig 2> $R/tmp/why; grep -i 80010001 $R/tmp/why || { cat $R/tmp/why; false; }")
	h.endSlotd()
	h.close()
}

// TestS390XCCA has stock's CCA token of s390x judge libcsulcca.so, the software card, and our
// token beside it.
func TestS390XCCA(t *testing.T) {
	t.Parallel()
	h := startCardHost(t, "cca", ccaConfig)
	h.judged(t, map[string]int{"signature": 400, "cipher": 80, "digest": 16, "opened": 4}, "pkcs")
	h.endSlotd()
	h.close()
}
