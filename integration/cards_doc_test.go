package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/ccatok"
	"p11fs/tokens/ep11tok"
)

// TestCardsDoc runs the lines of docs/cards.md: a software card is started, a token made on
// it, used as files and by pkcs11-tool, and the wrapping key changed. It takes 3 s.
func TestCardsDoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "pkcs11-tool")
	doc := readDoc(t, "cards.md", "sh")
	start, use, found := strings.Cut(doc["Quick start"], "T=$(p11fs path ep11tok)\n")
	change := doc["Another wrapping key"]
	if !found || !strings.Contains(start, "p11fs init ep11tok") || !strings.Contains(change, "p11fs card finalize") {
		t.Fatal("docs/cards.md has no quick start, or no change of the wrapping key")
	}
	d := newDaemon(t, daemonConfig{token: ep11tok.Kind, modern: true})
	dir := filepath.Join(d.tokenRoot(), ep11tok.Kind)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	term := d.terminal()
	defer term.run("kill $CARD; wait $CARD")
	term.ok("p11fs() { " + d.c.binary + " \"$@\"; }")
	// The card is a child of the terminal itself, which ends it: so the lines are ended, each
	// of which must succeed, and not the terminal.
	all := func(lines string) string {
		t.Helper()
		return term.ok("(set -e\n" + lines + ")")
	}
	serve, rest, found := strings.Cut(start, "\n")
	if !found || !strings.HasSuffix(serve, "&") {
		t.Fatalf("the quick start begins with %q", serve)
	}
	term.ok(serve + "\nCARD=$!")
	all(rest + "ls -l " + filepath.Join(dir, "ep11tok.conf") + "\n")
	d.start()
	term.ok("cd && T=$(p11fs path ep11tok)")
	all(use)

	if said := term.ok("cat $T/card"); !strings.HasPrefix(said, "any.0001 online mode=ep11 serial=") || strings.Contains(said, "wk=- ") {
		t.Errorf("the card is shown as %s", said)
	}
	programs := strings.ReplaceAll(doc["Programs"], "/usr/local/lib/pkcs11/libp11fs.so", ownModule(t))
	if said := term.ok(programs); !strings.Contains(said, "Verified OK") || !strings.Contains(said, "vault") {
		t.Errorf("the session of pkcs11-tool says %s", said)
	}
	refused := term.run("echo 1234abcd | p11fs card reencipher ep11tok")
	if refused.status == 0 || !strings.Contains(refused.err, "no next wrapping key that is committed") {
		t.Errorf("without a next key: %d, %s", refused.status, refused.err)
	}
	before := term.ok("p11fs card status --dir ~/card | grep -o ' wk=[0-9a-f]*'")
	if said := all(change); !strings.Contains(said, "keys of ep11tok are under the new master key") || strings.Contains(said, strings.TrimSpace(before)) {
		t.Errorf("the change says %s", said)
	}
	all("p11fs card wk new --dir ~/card; p11fs card wk commit --dir ~/card; echo 1234abcd | p11fs card reencipher ep11tok\n" + doc["Taking a change back"])
	if refused := term.run("p11fs card wk activate --dir ~/card"); refused.status == 0 || !strings.Contains(refused.err, "no next key that is committed") {
		t.Errorf("activate behind cancel and clear: %d, %s", refused.status, refused.err)
	}
	term.ok("cat msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig")

	// A key leaves the card under a trusted one, which the SO alone makes.
	trust, found := doc["Keys that leave the card under a trusted key"]
	if !found {
		t.Fatal("docs/cards.md has no key that is trusted")
	}
	all(trust)
	term.ok("test $(wc -c < guarded.wrapped) = 256; grep -q '^trusted=true$' $T/objects/carrier.pub/info")

	// No pass phrase is asked for where there is no backup.
	if r := term.run("p11fs backup ep11tok saved < /dev/null"); r.status == 0 || !strings.Contains(r.err, "its keys open with its cards alone") || !strings.Contains(r.err, "cp -a") {
		t.Errorf("a backup: %d, %s", r.status, r.err)
	}

	// Without the card objects are listed, and with it all is well again.
	term.ok("p11fs card offline 00.0001 --dir ~/card")
	if r := term.run("cat msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig2"); r.status == 0 {
		t.Error("a card that is away signs")
	}
	term.ok("grep -q offline $T/card; ls $T/objects/web.key/attr > list; p11fs status | grep ep11tok; p11fs card online 00.0001 --dir ~/card")
	term.ok("n=0; until cat msg > $T/objects/web.key/sign && cat $T/objects/web.key/sign > sig2; do n=$((n+1)); test $n -lt 300 || exit 1; sleep 0.1; done")
}

// TestCCADoc runs the lines of docs/cards.md on a card in CCA mode: a file is encrypted and signed
// by keys of the card, and a key goes out under one of RSA and comes back. It takes 3 s.
func TestCCADoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	begin, use, found := strings.Cut(readDoc(t, "cards.md", "sh")["A card in CCA mode"], "C=$(p11fs path ccatok) &&\n")
	if !found || !strings.Contains(begin, "p11fs init ccatok --card new") {
		t.Fatal("docs/cards.md makes no token of a CCA card")
	}
	d := newDaemon(t, daemonConfig{token: ccatok.Kind, modern: true})
	if err := os.RemoveAll(filepath.Join(d.tokenRoot(), ccatok.Kind)); err != nil {
		t.Fatal(err)
	}
	term := d.terminal()
	term.ok("p11fs() { " + d.c.binary + " \"$@\"; }")
	term.ok(begin)
	d.start()
	term.ok("cd && C=$(p11fs path ccatok)")
	if said := term.ok("(set -e\n" + use + ")"); !strings.Contains(said, "Signature Verified Successfully") || !strings.Contains(said, "arrived.sec") {
		t.Errorf("the session says %s", said)
	}
	term.ok("cmp msg opened && cmp msg arrived && ! cmp -s msg sealed && test $(wc -c < sealed) -eq $((12 + 6 + 16))")
	// A key of another token comes by a file, which is what cp says.
	term.ok("printf '%s\\n' 87654321 soft 1234abcd | p11fs token new soft && echo 1234abcd | p11fs login soft && p11fs generate soft ec:p256 label=site extractable=true && echo phrase > phrase")
	if r := term.run("p11fs cp soft/site ccatok"); r.status == 0 || !strings.Contains(r.err, "p11fs export soft/site.key --output FILE, and bring that with p11fs import ccatok FILE") {
		t.Errorf("cp to a card: %d, %s", r.status, r.err)
	}
	term.ok("p11fs export soft/site.key --passphrase-file phrase --output FILE && p11fs import ccatok FILE --passphrase-file phrase --label site && echo msg | p11fs sign ccatok/site > sig && echo msg | p11fs verify soft/site sig")
	if r := term.run("printf x >> sealed; cat sealed > $C/objects/disk.sec/decrypt && cat $C/objects/disk.sec/decrypt"); r.status == 0 {
		t.Errorf("what was changed is opened as %q", r.out)
	}
}
