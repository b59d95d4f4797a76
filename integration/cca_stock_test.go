package integration

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/tokens/store/storetest"
)

// ccaConfig is the configuration with a CCA token.
const ccaConfig = `version opencryptoki-3.8
slot 0
{
stdll = libpkcs11_cca.so
tokname = ccatok
}
`

// A ccaHost is a liveHost with a software card in CCA mode, where stock's CCA token can be
// loaded: with a preloaded library that has what it wants, and with our libcsulcca.so.
type ccaHost struct {
	*liveHost
	with string // runs a stock program
}

func newCCA(t testing.TB) *ccaHost {
	t.Helper()
	needStock(t)
	needTools(t, "gcc", "make")
	libraries, _ := filepath.Glob("/usr/lib/*/opencryptoki/stdll/libpkcs11_cca.so.0")
	need(t, len(libraries) > 0, "libpkcs11_cca.so.0")
	root := workDir(t, "tokens")
	if err := os.CopyFS(filepath.Join(root, "ccatok"), os.DirFS(storetest.Untar(t, "ccatok"))); err != nil {
		t.Fatal(err)
	}
	h := &ccaHost{liveHost: newLive(t, root, "ccatok", ccaConfig)}
	h.ok("chgrp -R pkcs11 /var/lib/opencryptoki && chmod -R g+rwX /var/lib/opencryptoki")
	source, err := filepath.Abs("testdata/card_shim.c")
	if err != nil {
		t.Fatal(err)
	}
	project, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	h.ok("gcc -shared -fPIC -o shim.so " + quote(source) + " && make -s -f " + quote(project+"/cmd/libcard/build.mk") + " libcard LIBCARD=$PWD/card")
	h.with = "LD_PRELOAD=$PWD/shim.so LD_LIBRARY_PATH=$PWD/card "
	h.card()
	return h
}

// card starts the card.
func (h *ccaHost) card() {
	h.t.Helper()
	h.ok("mkdir -p /run/p11fs && chmod 755 /run/p11fs && " + quote(binary()) + " card serve --kind cca --dir $PWD/cards --socket /run/p11fs/card.cca >card.out 2>card.log & card=$!")
	h.ok("for i in $(seq 600); do grep -q 'answer at' card.out && break; sleep 0.05; done; grep -q 'answer at' card.out")
}

// TestCCAStock has stock's CCA token judge our card and our library, beside p11fs on the
// same directory and at the same time: what one makes the other uses. Stock is at home on
// big-endian machines, and here has right of its keys only the secret ones.
func TestCCAStock(t *testing.T) {
	if testing.Short() {
		t.Skip("starts stock's programs and compiles libraries, which takes some seconds of processor time")
	}
	t.Parallel()
	h := newCCA(t)
	dir := workDir(t, "judge")
	compileJudge(t, dir, "gcc")
	c := newCourt(t, dir)
	judge := func(module, kind, commands string) string {
		return quote(dir+"/judge") + " " + quote(module) + " 0 " + storetest.UserPIN + " " + kind + " " + quote(dir+"/given") + " " + commands
	}
	h.serve()
	h.ok("export P11FS_SOCKET=/run/p11fs/rpc.sock MADE=$PWD/made USED=$PWD/used")
	h.ok(h.with + judge(h.module, "cca-stock-secrets", "functions make:theirs session:more use:theirs touch:$MADE wait:$USED use:ours") + " >stock.out & stock=$!")
	c.hear(h.ok(judge(ownModule(t), "cca-secrets", "wait:$MADE use:theirs make:ours use:ours touch:$USED")), 1800)
	c.hear(h.ok("wait $stock && cat stock.out"), 2500)
	c.hear(h.ok(judge(ownModule(t), "cca", "functions session:extra")), 4000)
	c.counted(map[string]int{"signature": 200, "cipher": 50, "digest": 16})
	h.ok("kill $card; wait $card; true")
	h.stop()
}
