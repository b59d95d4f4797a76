package integration

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/tokens/store/storetest"
)

// TestCardGolden opens token directories that stock programs of a big-endian machine made
// over our cards, each with its card: their keys sign, decrypt and derive, and there is place
// for new ones.
func TestCardGolden(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ep11", "cca"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, daemonConfig{modern: true})
			if err := os.CopyFS(filepath.Join(d.tokenRoot(), kind+"tok"), os.DirFS(storetest.Untar(t, kind+"tok-be"))); err != nil {
				t.Fatal(err)
			}
			d.start()
			dir := workDir(t, "judge")
			compileJudge(t, dir, "gcc")
			c := newCourt(t, dir)
			term := d.terminal()
			term.ok("export P11FS_SOCKET=" + filepath.Join(d.dir, "p11fs", "rpc.sock"))
			judge := quote(dir+"/judge") + " " + quote(ownModule(t)) + " 0 " + storetest.UserPIN + " " + kind + " " + quote(dir+"/given") + " "
			c.hear(term.ok(judge+"use:theirs make:new"), 3500)
			c.counted(map[string]int{"signature": 65, "cipher": 12})
			c.hear(term.ok(judge+c.sealed("theirs", "pkcs")), 5)
		})
	}
}
