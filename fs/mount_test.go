package fs

import (
	"strings"
	"syscall"
	"testing"
)

// TestFirstSession is what a person does first.
func TestFirstSession(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.want("ls $P", "error\nkick\nmetrics\nresources\nslots\nstatus\ntok\nwho\n")
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

// TestChangingText has grep, which takes a file with holes for binary, read a text
// whose length changes each time somebody asks.
func TestChangingText(t *testing.T) {
	term := mount(t).terminal()
	term.want("for i in $(seq 30); do grep running $P/metrics; done | sort | uniq -c | tr -d ' '", "30running\n")
}

// TestPanicIsAnswered has one request panic: it gets EIO, and the tree lives on.
func TestPanicIsAnswered(t *testing.T) {
	m := mount(t, "P11FS_TEST_PANIC=1")
	term := m.terminal()
	term.fails("printf seed | cat > $T/random", syscall.EIO)
	term.ok("cat $P/status && echo abc > $T/digest/sha256 && cat $T/digest/sha256 >/dev/null && head -c 8 $T/random >/dev/null")
	_ = term.in.Close()
	_ = term.cmd.Wait()
	if got := m.last(); !strings.HasPrefix(got, "handles=0 panics=1 ") {
		t.Errorf("the daemon counted %s", got)
	}
}

// TestInterrupt kills programs in the middle of what they do.
func TestInterrupt(t *testing.T) {
	m := mount(t, "P11FS_TEST_SLOW=1")
	term := m.terminal("bash")
	term.login()
	term.run("timeout -s INT 0.1 sh -c 'echo rsa:1024 label=slow > $T/generate'")
	term.ok("sleep 0.5")
	if got := term.ok("ls $O"); got != "" && got != "slow.key\nslow.pub\n" {
		t.Errorf("after an interrupt there is %q", got)
	}
	term.run("rmdir $O/slow.*")
	term.run("sh -c 'echo lost; exec sleep 5' > $T/digest/sha256 & sleep 0.1; kill -9 $!; wait $!")
	term.ok("printf abc > $T/digest/sha256; cat $T/digest/sha256 | cmp - <(printf abc | openssl dgst -sha256 -binary)")
}

// TestShellForms is the ways in which shells and tools open files.
func TestShellForms(t *testing.T) {
	m := mount(t)
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			term := m.terminal(shell)
			term.login()
			term.ok("D=$T/digest/sha256; printf 'one\\n' > a; printf 'two\\n' > b; cat a b > ab; openssl dgst -sha256 -binary ab > want; openssl dgst -sha256 -binary a > wantA")
			for _, line := range []string{
				"cat ab > $D; cat $D > got; cmp want got",
				"cp ab $D; cp $D got2; cmp want got2",
				"(cat a; cat b) > $D; cat $D > got; cmp want got",
				"exec 3<>$D; cat ab >&3; cat <&3 > got; exec 3>&-; cmp want got",
				"exec 3<>$D; cat a >&3; cat b >&3; cat <&3 > got; exec 3>&-; cmp want got",
				"cat ab >> $D; cat $D > got; cmp want got",
				"dd if=ab of=$D bs=3 2>/dev/null; dd if=$D of=got bs=5 2>/dev/null; cmp want got",
				"dd if=ab of=$D bs=3 conv=notrunc,fsync 2>/dev/null; cat $D > got; cmp want got",
				"tee $D < ab >/dev/null; cat $D > got; cmp want got",
				"tee -a $D < ab >/dev/null; cat $D > got; cmp want got",
				"echo one > $D; cat $D > got; cmp wantA got",
				"printf 'one\\n' > $D; cat $D > got; cmp wantA got",
				"head -c 4 ab > $D; head -c 100 $D > got; cmp wantA got",
				"truncate -s 0 $D; cat a > $D; cat $D > got; cmp wantA got",
				"cat b > $D; : > $D; ! cat $D 2>/dev/null",
				"python3 -c 'import sys; f=open(sys.argv[1], \"r+b\", buffering=0); f.write(open(\"ab\",\"rb\").read()); sys.stdout.buffer.write(f.read())' $D > got; cmp want got",
				"openssl base64 -in ab -out $D; cat $D > got; openssl base64 -in ab | openssl dgst -sha256 -binary | cmp - got",
			} {
				term.ok("set -e; " + line)
				term.ok("set +e")
			}
		})
	}
}

// TestImportAndCertificates brings in what openssl makes.
func TestImportAndCertificates(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.login()
	term.ok("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=site.test -days 9 2>/dev/null")
	term.ok("openssl pkcs8 -topk8 -in key.pem -out key.p8 -passout pass:open && openssl pkcs12 -export -in cert.pem -inkey key.pem -name bundle -out both.p12 -passout pass:open")
	term.ok("echo hello > msg; openssl pkey -in key.pem -pubout -out pub.pem")
	signs := "cat msg > $O/%.key/sign; cat $O/%.key/sign > sig; openssl dgst -sha256 -verify pub.pem -signature sig msg"

	term.ok("cat key.pem > $T/import:label=plain && test \"$(cat $T/import:label=plain)\" = \"plain.key\nplain.pub\"")
	term.ok(strings.ReplaceAll(signs, "%", "plain"))
	term.fails("cat key.p8 > $T/import:pkcs8,label=locked", syscall.EKEYREJECTED)
	term.ok("echo open > $T/passphrase; cat key.p8 > $T/import:pkcs8,label=locked; cat $T/import:pkcs8,label=locked")
	term.ok(strings.ReplaceAll(signs, "%", "locked"))
	term.ok("echo open > $T/passphrase; cp both.p12 $T/import; cat $T/import > names; grep -q bundle.key names; grep -q bundle.crt names")
	term.ok(strings.ReplaceAll(signs, "%", "bundle"))
	term.fails("cp both.p12 $T/import", syscall.EKEYREJECTED) // the pass phrase was for one import
	term.ok("cat pub.pem > $T/import:pub,label=only; test -e $O/only.pub/verify")
	term.ok("test \"$(cat $O/plain.key/attr/sensitive $O/plain.key/attr/extractable $O/plain.key/attr/private | tr '\\n' ' ')\" = 'true false true '")

	term.ok("cp cert.pem $T/certs/plain.pem && cmp cert.pem $T/certs/plain.pem && test -e $O/plain.crt/cert.pem")
	term.ok("openssl x509 -in cert.pem -outform DER -out cert.der && cp cert.der $T/certs/der.crt && cmp cert.pem $T/certs/der.pem && cmp cert.pem $T/certs/der.crt")
	term.ok("openssl req -x509 -key key.pem -out new.pem -subj /CN=new.test -days 9 && cp new.pem $T/certs/der.pem && cmp new.pem $T/certs/der.pem")
	if got := term.ok("ls $T/certs"); got != "bundle.pem\nder.pem\nplain.pem\n" {
		t.Errorf("the certificates are %q", got)
	}
	term.ok("mv $T/certs/der.pem $T/certs/other.pem && rm $T/certs/other.pem && ! test -e $T/certs/other.pem")
	term.ok("openssl x509 -in $T/certs/plain.pem -noout -subject | grep -q site.test")
	if got := term.ok("ls $T/by-id | wc -l"); strings.TrimSpace(got) == "0" {
		t.Error("nothing by id")
	}
	term.ok("for f in $T/by-id/* $T/by-uid/*; do cat $f/info > /dev/null || exit 1; done")
}

// TestImportAgain imports what is there, in one form and another: it says so, and makes
// nothing.
func TestImportAgain(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.login()
	term.ok("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -subj /CN=site.test -days 9 2>/dev/null")
	term.ok("printf -- '-----BEGIN DH PARAMETERS-----\\nMAYCAQsCAQI=\\n-----END DH PARAMETERS-----\\n' > dh.pem; cat cert.pem key.pem dh.pem > all.pem; openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der")
	in := func(file, to string) string { return "cat " + file + " > $T/import" + to + "; cat $T/import" + to }
	const dh = "# left out: a PEM block of type \"DH PARAMETERS\"\n"
	term.want(in("key.pem", ":label=web,id=0x0102"), "web.key\nweb.pub\n")
	term.want(in("all.pem", ""), "site.test.crt\n# already there as web.key\n# already there as web.pub\n"+dh)
	term.want("cat $O/site.test.crt/attr/id", "0x0102\n") // that of its key
	term.want(in("all.pem", ""), "# already there as site.test.crt\n# already there as web.key\n# already there as web.pub\n"+dh)
	term.want(in("key.der", ":pkcs8"), "# already there as web.key\n# already there as web.pub\n")
	term.want(in("key.der", ":label=other"), "other.key\nother.pub\n")
	term.ok("openssl dsaparam -out dsa.par 1024 2>/dev/null; openssl gendsa -out dsa1.pem dsa.par 2>/dev/null; openssl gendsa -out dsa2.pem dsa.par 2>/dev/null")
	term.want(in("dsa1.pem", ":label=dsa"), "dsa.key\ndsa.pub\n")
	term.want(in("dsa1.pem", ":label=dsa"), "# already there as dsa.key\n# already there as dsa.pub\n")
	term.want(in("dsa2.pem", ":label=dsa")+" | grep -c '^dsa~'", "2\n")    // another key of the same name
	term.ok(in("cert.pem", ":id=0x03") + " | grep -q '^site.test~.*crt$'") // another, as was asked
	term.ok("cp cert.pem $T/certs/a.pem; cp cert.pem $T/certs/a.pem; cmp cert.pem $T/certs/a.pem; test $(cat $O/a.crt/attr/id) = 0x0102")
	term.want("ls $O | grep -c '^a.*crt'", "1\n")
	term.ok("for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'echo " + userPIN + " > $T/login; cp cert.pem $T/certs/same.pem' & done; wait")
	term.want("ls $O | grep -c '^same.*crt'", "1\n")
}

// TestRemovingAnObject destroys one object and nothing else.
func TestRemovingAnObject(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.login()
	for _, what := range []string{"rsa:1024 label=web", "aes:128 label=a", "aes:128 label=b"} {
		term.ok("echo " + what + " > $T/generate")
	}
	term.ok("rm -r $O/web.key")
	term.want("ls $O", "a.sec\nb.sec\nweb.pub\n")
	term.ok("rm -rf $O/a.sec")
	term.want("ls $O", "b.sec\nweb.pub\n")
	term.ok("mkdir $T/sessions/mine")
	term.run("rm -rf $T/sessions/mine")
	term.want("ls $O", "b.sec\nweb.pub\n")
	term.ok("rmdir $T/sessions/mine; cp -r $O/b.sec copy 2>/dev/null; test -s copy/info; test ! -s copy/encrypt")
	term.want("ls $O; cat $T/login", "b.sec\nweb.pub\nuser\n")
}

// TestManyCallers works in many terminals at once.
func TestManyCallers(t *testing.T) {
	m := mount(t)
	term := m.terminal()
	term.ok("for i in $(seq 24); do setsid -w sh -c 'echo " + userPIN + " > $T/login; for j in 1 2 3 4 5 6 7 8; do echo $0 $j > $T/digest/sha256; cat $T/digest/sha256 > $0.got; echo $0 $j | openssl dgst -sha256 -binary | cmp - $0.got || echo bad >> bad; done; echo > $T/logout' $i & done; wait; test ! -e bad")
}
