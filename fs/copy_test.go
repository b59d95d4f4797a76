package fs

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/tokentest/hooks"
)

// TestCopy makes copies of objects, each of which is one by itself.
func TestCopy(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	copied := func(object, template, want string) {
		t.Helper()
		p.must(p.echo(template, "tok/objects/"+object+"/copy"))
		p.reads("tok/objects/"+object+"/copy", want+"\n")
	}
	copied("web.key", "label=web2", "web2.key")
	copied("web.pub", "label=web2", "web2.pub")
	copied("disk.sec", `label="a disk" decrypt=false`, "a disk.sec")
	p.reads("tok/objects/a disk.sec/attr/decrypt", "false\n")
	p.reads("tok/objects/disk.sec/attr/decrypt", "true\n")
	p.must(p.echo("aes:128 label=a token=false", "tok/generate"))
	copied("a.sec", "label=b token=true", "b.sec")
	p.reads("tok/objects/b.sec/attr/token", "true\n")
	p.must(p.print("text", "tok/data/note"))
	copied("note.dat", "label=note2", "note2.dat")
	p.reads("tok/data/note2", "text")

	// It signs as the key it is a copy of.
	p.must(p.print("msg", "tok/objects/web2.key/sign"))
	sig, errno := p.cat("tok/objects/web2.key/sign")
	p.must(errno)
	p.must(p.print(sig+"msg", "tok/objects/web.pub/verify"))

	for _, bad := range []struct {
		object, template string
		want             syscall.Errno
	}{
		{"web.key", "", syscall.EEXIST},
		{"web.key", "label=tls", syscall.EEXIST},
		{"web.key", "label=x extractable=true", syscall.EPERM},
		{"web.key", "label=x private=false", syscall.EINVAL},
		{"web.key", "colour=red", syscall.EINVAL},
		{"disk.sec", "label=x class=public-key", syscall.EPERM},
	} {
		wantErrno(t, bad.object+" "+bad.template, p.echo(bad.template, "tok/objects/"+bad.object+"/copy"), bad.want)
	}
	wantErrno(t, "mkdir", p.mkdir("tok/objects/copy.key"), syscall.EPERM)
	if line, _ := p.cat("tok/error"); !strings.Contains(line, "p11fs cp copies one") {
		t.Errorf("error is %q", line)
	}
	p.must(p.echo("", "tok/logout"))
	wantErrno(t, "without a login", p.echo("label=x", "tok/objects/web.pub/copy"), syscall.EACCES)
}

// TestImportBytes makes secret keys of their bytes.
func TestImportBytes(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	value := "\x00\n123456789abcd\n" // which has line ends of its own
	for kind, want := range map[string]string{"aes": "aes", "generic": "generic-secret", "sha256-hmac": "sha256-hmac"} {
		file := "tok/import:" + kind + ",label=" + kind + ",sensitive=false,extractable=true"
		p.must(p.print(value, file))
		p.reads(file, kind+".sec\n")
		p.reads("tok/objects/"+kind+".sec/attr/key-type", want+"\n")
		p.reads("tok/objects/"+kind+".sec/value", value)
	}
	p.must(p.print(value, "tok/import:aes,label=guarded"))
	p.reads("tok/objects/guarded.sec/attr/sensitive", "true\n")
	p.reads("tok/objects/guarded.sec/attr/extractable", "false\n")
	wantErrno(t, "an AES key of 3 bytes", p.print("abc", "tok/import:aes,label=short"), syscall.EINVAL)
	wantErrno(t, "of another class", p.print(value, "tok/import:rsa"), syscall.EINVAL)
	if line, _ := p.cat("tok/error"); !strings.Contains(line, "such as aes or generic") {
		t.Errorf("error is %q", line)
	}
}

// TestOnlyMechanism: a key with one mechanism uses it where none is named.
func TestOnlyMechanism(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	for _, line := range []string{"rsa:2048 label=pss allowed-mechanisms=sha256-rsa-pkcs-pss", "ec:p256 label=ec allowed-mechanisms=ecdsa+ecdh1-derive",
		"rsa:2048 label=two allowed-mechanisms=rsa-pkcs+sha256-rsa-pkcs-pss", "rsa:2048 label=among allowed-mechanisms=sha256-rsa-pkcs+sha256-rsa-pkcs-pss",
		"aes:256 label=cbc allowed-mechanisms=aes-cbc-pad"} {
		p.must(p.echo(line, "tok/generate"))
	}
	signs := func(key, exact string) {
		t.Helper()
		p.must(p.print("msg", "tok/objects/"+key+".key/sign"))
		sig, errno := p.cat("tok/objects/" + key + ".key/sign")
		p.must(errno)
		p.must(p.print(sig+"msg", "tok/objects/"+key+".pub/verify"+exact))
	}
	signs("pss", "")
	signs("pss", ":sha256-rsa-pkcs-pss")
	signs("ec", "") // in DER, as without a list
	signs("among", ":sha256-rsa-pkcs")
	if can, _ := p.cat("tok/objects/pss.key/mechanisms"); can != "sign sha256-rsa-pkcs-pss default\n" {
		t.Errorf("pss.key does %q", can)
	}
	for _, file := range []string{"two.key/sign", "cbc.sec/encrypt"} { // which has no IV
		if errno := p.print("msg", "tok/objects/"+file); errno == 0 {
			t.Errorf("%s has taken a mechanism of its own choice", file)
		}
		if line, _ := p.cat("tok/error"); !strings.Contains(line, "name a mechanism behind a colon") {
			t.Errorf("%s: error is %q", file, line)
		}
	}
}

// TestRequest has keys ask for certificates.
func TestRequest(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	for _, line := range []string{"rsa:2048 label=pss allowed-mechanisms=sha256-rsa-pkcs-pss", "ec:p256 label=each always-authenticate=true"} {
		p.must(p.echo(line, "tok/generate"))
	}
	p.must(p.echo("context-specific:"+userPIN, "tok/login"))
	for _, key := range []string{"each", "web", "tls", "pss"} {
		file := "tok/objects/" + key + ".key/csr"
		p.must(p.print("/CN="+key+"/O=Exa\\/mple\ndns=a.example.org\ndns=b.example.org\nip=192.0.2.1\nemail=me+x@example.org\n", file))
		text, errno := p.cat(file)
		p.must(errno)
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			t.Fatalf("%s: %q", key, text)
		}
		r, err := x509.ParseCertificateRequest(block.Bytes)
		if err == nil {
			err = r.CheckSignature()
		}
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if r.Subject.String() != "CN="+key+",O=Exa/mple" || len(r.DNSNames) != 2 || len(r.IPAddresses) != 1 || r.EmailAddresses[0] != "me+x@example.org" {
			t.Errorf("%s: the request is for %v, %q, %q and %q", key, r.Subject, r.DNSNames, r.IPAddresses, r.EmailAddresses)
		}
	}
	for _, bad := range []string{"web", "/CN", "/XX=1", "/CN=a\n/CN=b", "ip=none", "dns=", "uri=x", "\n\n", "/CN=a\ndns=\xff"} {
		wantErrno(t, bad, p.print(bad, "tok/objects/web.key/csr"), syscall.EINVAL)
	}
	wantErrno(t, "without its PIN", p.echo("/CN=x", "tok/objects/each.key/csr"), syscall.EACCES)
	p.must(p.rmdir("tok/objects/tls.pub"))
	if errno := p.echo("/CN=x", "tok/objects/tls.key/csr"); errno != 0 {
		wantErrno(t, "half a pair", errno, syscall.ENOENT)
	}
}
