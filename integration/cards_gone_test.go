package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/ccatok"
	"p11fs/tokens/ep11tok"
)

// TestCardComesBack kills the process of a software card under a token that signs, and
// starts it again: who does nothing but sign has an error meanwhile, and then signatures. It
// takes 2 s.
func TestCardComesBack(t *testing.T) {
	t.Parallel()
	for token, kind := range map[string]string{ep11tok.Kind: "ep11", ccatok.Kind: "cca"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, daemonConfig{token: token, binary: plainBinary(t)})
			if err := os.RemoveAll(filepath.Join(d.tokenRoot(), token)); err != nil {
				t.Fatal(err)
			}
			term := d.terminal()
			defer term.run("kill $CARD")
			term.ok("p11fs() { " + d.c.binary + " \"$@\"; }\n" +
				// A function in the background would be a child that has the card as its child.
				"card() { " + d.c.binary + " card serve --kind " + kind + " --dir ~/card --socket ~/card.socket > ~/card.log & CARD=$!; n=0; until grep -q 'cards answer' ~/card.log; do n=$((n+1)); test $n -lt 600 || return 1; sleep 0.1; done; }")
			term.ok("card; printf '%s\\n' 87654321 cards " + userPIN + " | p11fs init " + token + " --card ~/card.socket")
			d.start()
			term.ok("T=$(p11fs path " + token + "); echo " + userPIN + " > $T/login; p11fs generate " + token + " ec:p256 label=web; echo hello > msg")
			const sign = "cat msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig"
			const verify = "openssl dgst -sha256 -verify $T/objects/web.pub/public.pem -signature sig msg"
			term.ok(sign + " && " + verify)
			term.ok("kill -9 $CARD; wait $CARD 2> killed || :")
			if r := term.run(sign); r.status == 0 || !strings.Contains(r.err, "No such device") {
				t.Errorf("without the card: %d, %s", r.status, r.err)
			}
			if said := term.ok("p11fs status"); !strings.Contains(said, "offline: "+token) && !strings.Contains(said, "offline "+token) {
				t.Errorf("status does not say it: %s", said)
			}
			term.ok("card; n=0; until " + sign + "; do n=$((n+1)); test $n -lt 300 || exit 1; sleep 0.1; done 2> tried; " + verify)
		})
	}
}
