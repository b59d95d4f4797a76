package fs

import (
	"strings"
	"testing"
)

// TestFirstSession is what a person does first.
func TestFirstSession(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.want("ls $P", "metrics\nresources\nslots\nstatus\ntok\n")
	term.want("cat $P/status", "running\n")
	term.want("cat $P/slots", "1 tok test a test slot\n")
	term.want("cat $T/login", "public\n")
	term.want("cat $T/error", "0x00000000 CKR_OK\n")
	term.ok("ls -la $T $T/objects $T/sessions $T/digest")
	term.login()
	term.want("cat $T/login", "user\n")
	term.ok("echo rsa:2048 label=web > $T/generate")
	term.want("cat $T/generate", "web.key\nweb.pub\n")
	term.ok("echo hello > msg; cat msg > $O/web.key/sign; cat $O/web.key/sign > sig")
	term.ok("openssl dgst -sha256 -verify $O/web.pub/public.pem -signature sig msg")
	term.ok("cat sig msg > $O/web.pub/verify")
	term.want("cat $O/web.pub/verify", "ok\n")
	term.ok("echo ec:p256 label=tls > $T/generate && cat $T/generate")
	term.ok("cat msg > $O/tls.key/sign; cat $O/tls.key/sign > sig; openssl dgst -sha256 -verify $O/tls.pub/public.pem -signature sig msg")
	term.ok("echo aes:256 label=disk > $T/generate && cat $T/generate")
	term.ok("cat msg > $O/disk.sec/encrypt; cat $O/disk.sec/encrypt > c; cat c > $O/disk.sec/decrypt; cat $O/disk.sec/decrypt | cmp - msg")
	term.ok("echo secret > $T/data/note")
	term.want("cat $T/data/note", "secret\n")
	if got := term.ok("ls $O"); got != "disk.sec\nnote.dat\ntls.key\ntls.pub\nweb.key\nweb.pub\n" {
		t.Errorf("the objects are %q", got)
	}
	term.ok("cat $O/web.key/info $O/web.key/uri $O/web.key/mechanisms $O/web.key/attr/label $O/web.pub/public.ssh")
	term.ok("rmdir $O/disk.sec && test ! -e $O/disk.sec")
	term.ok("echo > $T/logout")
	if got := term.ok("ls $O"); strings.Contains(got, ".key") {
		t.Errorf("after the logout there is %q", got)
	}
}
