package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11/pkix"
)

// TestStockDH has stock derive with a Diffie-Hellman key that p11fs made, and p11fs with
// one that stock made: what openssl(1) derives, with the other key.
func TestStockDH(t *testing.T) {
	t.Parallel()
	needStock(t)
	script, err := filepath.Abs("testdata/stock_dh.py")
	if err != nil {
		t.Fatal(err)
	}
	d, term := ready(t, daemonConfig{system: true})
	term.ok("openssl genpkey -algorithm DH -pkeyopt group:modp_1536 -out peer.pem && openssl pkey -in peer.pem -pubout -out peer.pub")
	term.ok("echo 'dh:modp1536 label=ours' > $T/generate && cat $O/ours.pub/public.pem > ours.pub")
	const spec = "derive:dh-pkcs-derive,key-type=generic-secret,value-len=32,sensitive=false,extractable=true,token=false,label="
	derived := func(key string) {
		t.Helper()
		term.ok(fmt.Sprintf("openssl pkeyutl -derive -inkey peer.pem -peerkey %s.pub | tail -c 32 > want", key))
		term.ok(fmt.Sprintf("cat peer.pub > $O/%[1]s.key/%[2]s%[1]s && cat $O/%[1]s.key/%[2]s%[1]s && cmp want $O/%[1]s.sec/value", key, spec))
	}
	derived("ours")
	want := strings.TrimSpace(term.ok("od -An -v -tx1 want | tr -d ' \\n'"))
	peer := strings.TrimSpace(term.ok("openssl pkey -pubin -in peer.pub -outform DER | tail -c 192 | od -An -v -tx1 | tr -d ' \\n'"))
	d.stop()

	g, ok := pkix.GroupNamed("modp1536")
	if !ok {
		t.Fatal("no group")
	}
	host := startStock(t, d.tokenRoot())
	python := "python3 " + quote(script) + " " + host.module + " " + userPIN
	// Stock gives the whole secret, whatever CKA_VALUE_LEN is.
	if got := strings.TrimSpace(host.ok(python + " derive ours " + peer)); len(got) != 2*192 || !strings.HasSuffix(got, want) {
		t.Errorf("stock derives %s, which does not end in %s", got, want)
	}
	host.ok(fmt.Sprintf("%s pair theirs %x %x", python, g.P.Bytes(), g.G.Bytes()))
	host.stop()

	d.start()
	term.ok("echo " + userPIN + " > $T/login && cat $O/theirs.pub/public.pem > theirs.pub")
	derived("theirs")
}
