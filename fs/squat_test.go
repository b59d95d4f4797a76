package fs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"syscall"
	"testing"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// module makes a public token object as somebody does without a login, who comes
// through another door than the files.
func (w *world) module(class p11.ObjectClass, label string, more ...p11.Attribute) {
	w.t.Helper()
	app := w.engine.NewApplication(engine.Owner{UID: 2000, Door: "rpc"}, engine.ForPrograms)
	defer app.Close()
	s, err := app.OpenSession(context.Background(), w.engine.Slots()[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		w.t.Fatal(err)
	}
	template := ofClass(class)
	template.SetBool(p11.CKA_TOKEN, true)
	template.SetBool(p11.CKA_PRIVATE, false)
	template.Set(p11.CKA_LABEL, []byte(label))
	if _, err := s.CreateObject(context.Background(), append(template, more...)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publicKey(label string) {
	w.module(p11.CKO_SECRET_KEY, label, p11.Attribute{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_AES)},
		p11.Attribute{Type: p11.CKA_VALUE, Value: []byte("0123456789abcdef")}, p11.Attribute{Type: p11.CKA_ID, Value: []byte{0xaa}},
		p11.Attribute{Type: p11.CKA_ENCRYPT, Value: []byte{1}}, p11.Attribute{Type: p11.CKA_DERIVE, Value: []byte{1}},
		p11.Attribute{Type: p11.CKA_UNWRAP, Value: []byte{1}})
}

func (w *world) publicData(label, value string) {
	w.module(p11.CKO_DATA, label, p11.Attribute{Type: p11.CKA_VALUE, Value: []byte(value)})
}

// changes are the ways to make, change and destroy a public token object, each
// of which works for who may do it.
var changes = []struct {
	name string
	do   func(p person) syscall.Errno
}{
	{"generate", func(p person) syscall.Errno { return p.echo("aes:128 label=new private=false", "tok/generate") }},
	{"import", func(p person) syscall.Errno { return p.print(wholeCertificate(p.w.t), "tok/import") }},
	{"import with attributes", func(p person) syscall.Errno { return p.print(wholeCertificate(p.w.t), "tok/import:cert,label=new") }},
	{"a new certificate", func(p person) syscall.Errno { return p.print(wholeCertificate(p.w.t), "tok/certs/new.pem") }},
	{"an empty certificate", func(p person) syscall.Errno { return p.print("", "tok/certs/empty.pem") }},
	{"a data object by name", func(p person) syscall.Errno { return p.print("text", "tok/data/"+p.fullName("note")) }},
	{"a data object cut", func(p person) syscall.Errno { return p.truncate("tok/data/"+p.fullName("note"), 1) }},
	{"an attribute", func(p person) syscall.Errno { return p.echo("06", "tok/objects/shared.sec/attr/id") }},
	{"a value", func(p person) syscall.Errno { return p.echo("06", "tok/objects/note.dat/attr/value") }},
	{"mv of an object", func(p person) syscall.Errno { return p.rename("tok/objects/shared.sec", "tok/objects/moved.sec") }},
	{"mv of a file", func(p person) syscall.Errno { return p.rename("tok/data/note", "tok/data/moved") }},
	{"rm", func(p person) syscall.Errno { return p.unlink("tok/data/note") }},
	{"rmdir", func(p person) syscall.Errno { return p.rmdir("tok/objects/shared.sec") }},
}

// fullName is the name, with its uid, of the data object that has that label.
func (p person) fullName(label string) string {
	p.w.t.Helper()
	for _, uid := range p.ls("tok/by-uid") {
		if node, _, errno := p.walk("tok/by-uid/" + uid); errno == 0 {
			target, _ := node.Readlink(p.ctx())
			if strings.HasPrefix(string(target), "../objects/"+label) && strings.HasSuffix(string(target), ".dat") {
				return label + "~" + uid
			}
		}
	}
	p.w.t.Fatalf("there is no data object %s", label)
	return ""
}

// TestTokenObjectsNeedALogin: through the files token objects are made, changed and
// destroyed after a login only, unless the configuration says otherwise.
func TestTokenObjectsNeedALogin(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, hooks.Options{})
			w.publicKey("shared")
			w.publicData("note", "old")
			p, stranger := w.person(1000, 100), w.person(2000, 200)
			before := strings.Join(stranger.view(), "\n")
			wantErrno(t, "without a login", c.do(stranger), syscall.EACCES)
			if text, _ := stranger.cat("tok/error"); !strings.Contains(text, "CKR_USER_NOT_LOGGED_IN") || !strings.Contains(text, "write the PIN to the file login") {
				t.Errorf("error is %q", text)
			}
			p.must(p.echo(userPIN, "tok/login")) // which is not the stranger's
			wantErrno(t, "without a login", c.do(stranger), syscall.EACCES)
			for _, dir := range []string{"objects", "data", "certs"} {
				for _, name := range stranger.ls("tok/" + dir) {
					if !strings.Contains(before, name) {
						t.Errorf("there is a new %s/%s", dir, name)
					}
				}
			}
			stranger.reads("tok/data/note", "old")
			stranger.reads("tok/objects/shared.sec/attr/id", "0xaa\n")
			p.must(c.do(p))
		})
		t.Run(c.name+" of an open token", func(t *testing.T) {
			w := newWorld(t, hooks.Options{})
			w.fs.callers.loginForToken = false
			w.publicKey("shared")
			w.publicData("note", "old")
			p := w.person(2000, 200)
			p.must(c.do(p))
		})
	}
}

// TestPublicUseNeedsNoLogin: what changes nothing in the token needs none.
func TestPublicUseNeedsNoLogin(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	w.publicKey("shared")
	p := w.person(2000, 200)
	p.must(p.echo("aes:128 label=mine token=false private=false", "tok/generate"))
	p.must(p.print("plan", "tok/objects/shared.sec/encrypt"))
	p.must(p.rename("tok/objects/mine.sec", "tok/objects/own.sec"))
	p.must(p.rmdir("tok/objects/own.sec"))
}

// TestSecurityOfficerChanges: that login will do, too.
func TestSecurityOfficerChanges(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	w.publicKey("shared")
	p := w.person(1000, 100)
	p.must(p.echo("so:"+soPIN, "tok/login"))
	p.must(p.rmdir("tok/objects/shared.sec"))
}

// TestPrivateNamesFirst: with a login no public object, however old, has a name
// that a private one could have.
func TestPrivateNamesFirst(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	w.publicKey("backup")
	w.publicKey("07") // a label like the name of a key that has no label
	w.publicData("payroll", "")
	p, stranger := w.person(1000, 100), w.person(2000, 200)
	p.must(p.echo(userPIN, "tok/login"))
	p.must(p.echo("aes:256 label=backup id=aa", "tok/generate"))
	p.must(p.echo("aes:256 id=07", "tok/generate"))
	for _, name := range []string{"backup.sec", "07.sec"} {
		p.reads("tok/objects/"+name+"/attr/private", "true\n")
		stranger.reads("tok/objects/"+name+"/attr/private", "false\n")
	}
	node, _, errno := p.walk("tok/by-id/aa.sec")
	p.must(errno)
	if target, _ := node.Readlink(p.ctx()); string(target) != "../objects/backup.sec" {
		t.Errorf("by-id leads to %s", target)
	}
	for _, dir := range []string{"objects", "by-id"} {
		full := 0
		for _, name := range p.ls("tok/" + dir) {
			if _, _, errno := p.walk("tok/" + dir + "/" + name); errno != 0 {
				t.Errorf("%s/%s is listed and gives %v", dir, name, errno)
			}
			if strings.Contains(name, "~") {
				full++
			}
		}
		if full != 2 {
			t.Errorf("%d names of %s have a uid, want those of the public keys: %q", full, dir, p.ls("tok/"+dir))
		}
	}

	// Nor does it keep the name from one that is renamed.
	p.must(p.echo("aes:256 label=other", "tok/generate"))
	w.publicKey("wanted")
	p.must(p.rename("tok/objects/other.sec", "tok/objects/wanted.sec"))
	p.reads("tok/objects/wanted.sec/attr/private", "true\n")
	p.must(p.print("salaries", "tok/data/draft"))
	p.must(p.rename("tok/data/draft", "tok/data/payroll"))
	p.reads("tok/data/payroll", "salaries")
	stranger.reads("tok/data/payroll", "")
}

// wholeCertificate is a certificate in PEM.
func wholeCertificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
