package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/icsf"
)

// TestICSFDoc runs the lines of docs/icsf.md: a token is made on a server where no daemon is,
// served, and used, and the server goes away and is back. It takes 2 s.
func TestICSFDoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "pkcs11-tool")
	doc := readDoc(t, "icsf.md", "sh")
	start, use, found := strings.Cut(doc["Quick start"], "T=$(p11fs path icsf) &&\n")
	if !found || !strings.Contains(start, "p11fs init icsf") || !strings.Contains(use, "pkcs11-tool") {
		t.Fatal("docs/icsf.md has no quick start")
	}
	server, uri := serveICSF(t, icsfName, "OTHERTOKEN")
	d := newDaemon(t, daemonConfig{token: icsf.Kind, modern: true})
	dir := filepath.Join(d.tokenRoot(), icsf.Kind)
	term := d.terminal()
	term.ok("p11fs() { " + d.c.binary + " \"$@\"; }; URI=" + uri + " MODULE=" + ownModule(t))
	refuses := func(line, want string) {
		t.Helper()
		if r := term.run("! " + line); r.status != 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: status %d, %q; want %q", line, r.status, r.err, want)
		}
	}
	const pins = "87654321 mainframe " + userPIN + " | p11fs init "
	refuses("printf '%s\\n' RACFPASS "+pins+"icsf --uri $URI --binddn "+icsfDN, "the server has the tokens OTHERTOKEN, TESTTOKEN")
	refuses("printf '%s\\n' WRONG "+pins+"icsf --uri $URI --binddn "+icsfDN, "refused the password for racfid=")
	refuses("printf '%s\\n' RACFPASS "+pins+"icsf --uri ldap://127.0.0.1:1 --binddn "+icsfDN, "cannot be reached")
	refuses("printf '%s\\n' RACFPASS "+pins+"icsf --uri zos.example --binddn "+icsfDN, "as in ldaps://zos.example")
	refuses("printf '%s\\n' RACFPASS "+pins+"other --uri $URI --binddn "+icsfDN, "name it so")
	refuses("printf '%s\\n' "+pins+"icsf", "nothing says which server has the token")
	if _, err := os.Lstat(filepath.Join(dir, "token.conf")); !os.IsNotExist(err) {
		t.Errorf("what was refused has left a file: %v", err)
	}
	term.ok("(set -e\n" + start + ")")
	refuses("printf '%s\\n' RACFPASS "+pins+"icsf --uri $URI --binddn "+icsfDN+" --icsf-token TESTTOKEN", "has the token icsf already")
	d.start()
	if said := term.run("(set -e\ncd\nT=$(p11fs path icsf)\n" + use + ")"); said.status != 0 || strings.Contains(said.err, "warning") {
		t.Errorf("the quick start ends with %d and says\n%s%s", said.status, said.out, said.err)
	}
	if got := len(server.Objects(icsfName)); got != 5 {
		t.Errorf("the server has %d objects", got)
	}
	for _, what := range []string{"backup icsf file", "check icsf"} {
		refuses("echo phrase | p11fs "+what, "its objects are on the server")
	}
	term.ok("printf '%s\\n' 87654321 other " + userPIN + " | p11fs token new swtok && echo " + userPIN + " | p11fs login swtok")
	for _, what := range []string{"always-authenticate=true", "copyable=false", "destroyable=false", "allowed-mechanisms=ecdsa"} {
		refuses("p11fs generate icsf ec:p256 label=guarded "+what, "ICSF keeps no such objects")
	}
	refuses("p11fs set icsf/web copyable=false", "ICSF keeps no such objects")
	refuses("echo hello | p11fs import icsf - --as generic --label guarded -a copyable=false", "ICSF keeps no such objects")
	term.ok("p11fs generate swtok aes:256 label=goes extractable=true")
	refuses("p11fs cp swtok/goes icsf", "p11fs import icsf --as aes FILE")
	term.ok("p11fs generate icsf aes:256 label=free extractable=true")
	refuses("p11fs cp icsf/free swtok", "save the server's tokens (ICSF's TKDS)")
	term.ok("p11fs rm --yes icsf/free")
	refuses("p11fs cp icsf/mail swtok", "save the server's tokens (ICSF's TKDS), and copy the directory")
	if got := term.run("p11fs doctor"); strings.Contains(got.out+got.err, "icsf") && strings.Contains(got.out+got.err, "cannot be") {
		t.Errorf("doctor says\n%s%s", got.out, got.err)
	}
	term.ok("p11fs status | grep -q icsf")
	const list = "printf '%s\\n' RACFPASS | p11fs init icsf --uri $URI --list --binddn " + icsfDN
	if got := term.ok(list); !strings.Contains(got, "TESTTOKEN") || !strings.Contains(got, "ICSF TKDS") || !strings.Contains(got, "OTHERTOKEN") {
		t.Errorf("the tokens of the server are\n%s", got)
	}
	refuses("printf '%s\\n' OTHER "+userPIN+" | p11fs init icsf --new-password", "refused the password for racfid=")
	refuses("printf '%s\\n' RACFPASS 99999999 | p11fs init icsf --new-password", "neither the user's PIN nor the SO's")
	term.ok("printf '%s\\n' RACFPASS " + userPIN + " | p11fs init icsf --new-password")

	// The connection is lost between uses, and found again.
	server.Cut()
	term.ok("cd && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig && openssl dgst -sha256 -verify $O/web.pub/public.pem -signature sig msg")
	term.ok("echo > $T/logout")
	if got := term.ok("ls $O"); strings.Contains(got, "web.key") {
		t.Errorf("after the logout there is\n%s", got)
	}
	d.stop()
	d.start()
	term.ok("echo " + userPIN + " > $T/login && rmdir $O/web.key && ! test -e $O/web.key")
	if got := len(server.Objects(icsfName)); got != 4 {
		t.Errorf("the server has %d objects once one is destroyed", got)
	}
	d.stop()
}
