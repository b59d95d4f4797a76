package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/store"
)

// knownAES is the file of the private AES key whose value the manifest
// tells, labelled known-aes-256.
const knownAES = "A0000000"

// TestStockToken mounts the token directory that stock 3.8.1 made: every
// object of its manifest is there with its attributes, and its keys work.
func TestStockToken(t *testing.T) {
	t.Parallel()
	want := readManifest(t)
	d, term := ready(t, daemonConfig{stock: true})
	term.ok("echo > $T/data/new && rm $T/data/new && echo > $T/logout") // so that the key of the names is on the disk
	key, err := os.ReadFile(filepath.Join(d.tokenRoot(), "swtok", ".p11fs.names"))
	if err != nil {
		t.Fatal(err)
	}
	knownAES := store.ShownName(key, knownAES)
	for i, o := range want.Objects {
		want.Objects[i].Name = store.ShownName(key, o.Name)
	}
	var public, all []string
	for _, o := range want.Objects {
		all = append(all, o.Name)
		if !o.Private {
			public = append(public, o.Name)
		}
	}
	slices.Sort(all)
	slices.Sort(public)
	if got := lines(term.ok("ls $T/by-uid | LC_ALL=C sort")); !slices.Equal(got, public) {
		t.Errorf("before login the objects are %q, want %q", got, public)
	}
	term.ok("echo " + want.UserPIN + " > $T/login")
	views := viewObjects(t, term)
	if got := lines(term.ok("ls $T/by-uid | LC_ALL=C sort")); !slices.Equal(got, all) {
		t.Errorf("after login the objects are %q, want %q", got, all)
	}
	for _, o := range want.Objects {
		t.Run(o.Name, func(t *testing.T) { checkManifestObject(t, term, o, views[o.Name]) })
	}
	if got := term.ok("cat $T/info"); !strings.Contains(got, want.Label) {
		t.Errorf("info does not name the token %q:\n%s", want.Label, got)
	}

	t.Run("decrypts what openssl encrypted", func(t *testing.T) {
		value := want.object(t, knownAES).attr("VALUE")
		const iv = "000102030405060708090a0b0c0d0e0f"
		term.ok("seq 1000 > msg && openssl enc -aes-256-cbc -K " + value + " -iv " + iv + " -in msg -out c")
		term.ok("k=$T/by-uid/" + knownAES + "/decrypt:aes-cbc-pad,iv=" + iv + "; cat c > $k && cat $k | cmp - msg")
		term.ok("k=$T/by-uid/" + knownAES + "/encrypt:aes-cbc-pad,iv=" + iv + "; cat msg > $k && cat $k | cmp - c")
	})
	t.Run("signs", func(t *testing.T) {
		for _, label := range []string{"tool-rsa", "own-rsa"} {
			term.ok("cat $O/" + label + ".pub/public.pem > pub.pem && cat msg > $O/" + label + ".key/sign && cat $O/" + label + ".key/sign > sig")
			term.ok("openssl dgst -sha256 -verify pub.pem -signature sig msg")
			term.ok("cat sig msg > $O/" + label + ".pub/verify && cat $O/" + label + ".pub/verify")
		}
		term.ok("cat $O/own-ec.pub/public.pem > ec.pem && cat msg > $O/own-ec.key/sign && cat $O/own-ec.key/sign > sig")
		term.ok("openssl dgst -sha256 -verify ec.pem -signature sig msg")
	})
}

// checkManifestObject compares what the mount shows with what stock stored.
func checkManifestObject(t *testing.T, term *terminal, o manifestObject, view objectView) {
	t.Helper()
	for _, a := range o.Attributes {
		at := p11.AttributeType(a.Type)
		file := "$T/by-uid/" + o.Name + "/attr/" + at.Short()
		got, shown := view[number(at)]
		switch {
		case slices.Contains(o.Sensitive, a.Name):
			if r := term.run("p11io read " + file); r.status == 0 {
				t.Errorf("the sensitive %s can be read: %q", a.Name, r.out)
			}
		case !shown && p11.SecretValue(at):
			// Key material does not read back from files, sensitive or not.
		case !shown:
			if o.attr("CLASS") == "0000000000000000" && a.Name == "VALUE" {
				continue // the file value
			}
			t.Errorf("%s is not shown", a.Name)
		case got != a.Value:
			t.Errorf("%s is %s, want %s", a.Name, got, a.Value)
		}
	}
	if o.attr("CLASS") == "0000000000000000" {
		if got := strings.TrimSpace(term.ok("od -An -v -tx1 $T/by-uid/" + o.Name + "/value | tr -d ' \\n'")); got != o.attr("VALUE") {
			t.Errorf("the file value holds %s, want %s", got, o.attr("VALUE"))
		}
	}
}

// TestStockAndP11fs hands one token directory to and fro: whatever one side
// adds, changes, renames and destroys, the other lists exactly, and can sign
// with.
func TestStockAndP11fs(t *testing.T) {
	t.Parallel()
	needStock(t)
	d, term := ready(t, daemonConfig{system: true, stock: true})
	pin := readManifest(t).UserPIN

	// p11fs adds, changes, renames, destroys.
	for _, line := range []string{
		"echo 'rsa:2048 label=ours id=0x5a01' > $T/generate && cat $T/generate",
		"echo 'ec:p256 label=our-ec id=0x5a02' > $T/generate && cat $T/generate",
		"echo 'aes:256 label=our-aes id=0x5a03 private=true' > $T/generate && cat $T/generate",
		"for k in ed25519 ed448 x25519 x448; do echo $k label=our-$k > $T/generate; cat $T/generate || exit; done", // which it knows nothing of
		"echo our secret > $T/data/our-note",
		"openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -subj /CN=ours.example -days 2 -out c.pem",
		"cp c.pem $T/certs/our-cert.pem",
		"cat k.pem > $T/import:label=imported && cat $T/import:label=imported",
		"mv $O/own-ec.pub $O/renamed-ec.pub && mv $O/own-ec.key $O/renamed-ec.key",
		"echo 0xbeef > $O/own-rsa.key/attr/id",
		"echo changed value > $T/data/our-note",
		"rmdir $O/tool-aes.sec && rmdir $O/generic.sec",
		"cat $O/ours.pub/public.pem > ours.pem && seq 1000 > msg",
	} {
		term.ok(line)
	}
	views := viewObjects(t, term)
	d.stop()

	host := startStock(t, d.tokenRoot())
	host.ok("cd " + term.cmd.Dir)
	if got := host.ok("pkcsconf -t"); !strings.Contains(got, "fixture token") {
		t.Errorf("pkcsconf -t:\n%s", got)
	}
	sameObjects(t, views, host.objects(pin))
	listed := host.tool(pin, "--list-objects")
	for _, label := range []string{"ours", "our-ec", "our-aes", "our-note", "imported", "renamed-ec"} {
		if !strings.Contains(listed, "label:      "+label+"\n") && !strings.Contains(listed, "'"+label+"'") {
			t.Errorf("pkcs11-tool does not list %s:\n%s", label, listed)
		}
	}
	for _, gone := range []string{"tool-aes", "generic", "own-ec"} {
		if strings.Contains(listed, " "+gone+"\n") {
			t.Errorf("pkcs11-tool still lists %s", gone)
		}
	}
	host.tool(pin, "--sign --mechanism SHA1-RSA-PKCS --id 5a01 --input-file msg --output-file stock.sig")
	host.ok("openssl dgst -sha1 -verify ours.pem -signature stock.sig msg")
	host.ok("grep -q . stock.sig")

	// Stock adds, changes, destroys, and changes the PIN.
	const newPIN = "stockpin"
	host.tool(pin, "--keypairgen --key-type rsa:2048 --label theirs --id 5b01")
	host.ok("echo their secret > note && seq 10 > pub-note")
	host.tool(pin, "--write-object note --type data --label their-note --private")
	host.tool(pin, "--write-object pub-note --type data --label their-public-note")
	host.tool(pin, "--delete-object --type secrkey --label our-aes")
	host.tool(pin, "--delete-object --type data --label our-note")
	host.tool(pin, "--sign --mechanism SHA1-RSA-PKCS --id 5b01 --input-file msg --output-file theirs.sig")
	host.ok("pkcs11-tool --module " + host.module + " --login --pin " + pin + " --change-pin --new-pin " + newPIN)
	theirs := host.objects(newPIN)
	host.stop()

	d.start()
	term.fails("sh -c '/bin/echo "+pin+" > $T/login'", syscall.EKEYREJECTED)
	term.ok("echo " + newPIN + " > $T/login")
	sameObjects(t, viewObjects(t, term), theirs)
	term.ok("cat theirs.sig msg > $O/theirs.pub/verify:sha1-rsa-pkcs && cat $O/theirs.pub/verify:sha1-rsa-pkcs")
	term.ok("cat $O/theirs.pub/public.pem > theirs.pem && cat msg > $O/theirs.key/sign && cat $O/theirs.key/sign > sig && openssl dgst -sha256 -verify theirs.pem -signature sig msg")
	term.ok("cmp note $T/data/their-note && cmp pub-note $T/data/their-public-note")

	// And the PIN that p11fs sets is the one stock asks for.
	term.ok("echo '" + newPIN + " backpin1' > $T/pin")
	views = viewObjects(t, term)
	d.stop()
	host = startStock(t, d.tokenRoot())
	sameObjects(t, views, host.objects("backpin1"))
	host.stop()
}

// TestStockUsesOurToken lets stock work on a token directory that p11fs made
// and initialised, and p11fs on one that stock initialised again.
func TestStockUsesOurToken(t *testing.T) {
	t.Parallel()
	needStock(t)
	d, term := ready(t, daemonConfig{system: true})
	prepareKeys(term)
	views := viewObjects(t, term)
	d.stop()

	host := startStock(t, d.tokenRoot())
	host.ok("cd " + term.cmd.Dir)
	sameObjects(t, views, host.objects(userPIN))
	const so, pin = "87651234", "stockpin"
	tool := "pkcs11-tool --module " + host.module
	host.ok(tool + " --login --login-type so --so-pin " + soPIN + " --init-pin --pin " + pin)
	sameObjects(t, views, host.objects(pin))
	host.ok(tool + " --login --login-type so --so-pin " + soPIN + " --change-pin --new-pin " + so)
	host.stop()

	d.start()
	term.ok("echo " + pin + " > $T/login && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig && openssl dgst -sha256 -verify web.pem -signature sig msg")
	term.ok("echo > $T/logout && echo so:" + so + " > $T/login && echo init-pin " + userPIN + " > $T/ctl && echo > $T/logout && echo " + userPIN + " > $T/login && test -e $O/web.key")
	d.stop()

	// C_InitToken of stock empties the token.
	host = startStock(t, d.tokenRoot())
	host.ok(tool + " --init-token --slot-index 0 --so-pin " + so + " --label 'by stock'")
	host.stop()
	d.start()
	if got := term.ok("cat $T/info; ls $T/by-uid"); !strings.Contains(got, "by stock") || strings.Contains(got, "00000000") {
		t.Errorf("after stock initialised the token: %s", got)
	}
	// Stock wraps the new master key under the default SO PIN whatever PIN is
	// given (the specification's D13), which p11fs takes and mends.
	term.ok("echo so:" + so + " > $T/login && echo init-pin " + userPIN + " > $T/ctl && echo > $T/logout && echo " + userPIN + " > $T/login")
	term.ok("echo again > $T/data/note && test \"$(cat $T/data/note)\" = again")
	d.stop()
	host = startStock(t, d.tokenRoot())
	if got := host.objects(userPIN); len(got) != 1 {
		t.Errorf("stock lists %d objects, want the note only", len(got))
	}
	host.stop()
}
