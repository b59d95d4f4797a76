package fs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/tokens/tokentest/hooks"
)

func TestDataFiles(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	_, errno := p.open("tok/data/note", syscall.O_WRONLY|syscall.O_CREAT)
	wantErrno(t, "a private file without a login", errno, syscall.EACCES)
	p.must(p.echo(userPIN, "tok/login"))

	p.must(p.print("one", "tok/data/note"))
	p.reads("tok/data/note", "one")
	p.reads("tok/objects/note.dat/value", "one")
	p.reads("tok/objects/note.dat/attr/private", "true\n")
	p.reads("tok/objects/note.dat/attr/token", "true\n")
	_, out, _ := p.walk("tok/data/note")
	if out.Size != 3 {
		t.Errorf("the size is %d", out.Size)
	}
	t.Run("overwritten as a whole, at the close", func(t *testing.T) {
		f := p.opened("tok/data/note", syscall.O_WRONLY|syscall.O_TRUNC)
		p.must(f.write("something longer"))
		p.reads("tok/data/note", "one")
		p.must(f.close())
		p.reads("tok/data/note", "something longer")
		f = p.opened("tok/data/note", syscall.O_WRONLY|syscall.O_TRUNC)
		f.release() // a process that is killed
		p.reads("tok/data/note", "something longer")
	})
	t.Run("emptied", func(t *testing.T) {
		other := w.person(1000, 200)
		other.must(other.echo(userPIN, "tok/login"))
		for _, c := range []struct {
			name      string
			do        func(f *openFile)
			then, own string // what others see, and the application itself
		}{
			{"one close, as a shell's before it writes", func(f *openFile) { p.must(f.flush()) }, "was", ""},
			{"the write after it", func(f *openFile) { p.must(f.flush()); p.must(f.write("is")) }, "was", "was"},
			{"its close", func(f *openFile) { p.must(f.flush()); p.must(f.write("is")); p.must(f.flush()) }, "is", "is"},
			{"two closes, as a shell's that writes nothing", func(f *openFile) { p.must(f.flush()); p.must(f.flush()) }, "", ""},
			{"the end", func(f *openFile) { p.must(f.flush()); f.release() }, "", ""},
			{"no close", func(f *openFile) {}, "was", "was"},
		} {
			p.must(p.print("was", "tok/data/emptied"))
			f := p.opened("tok/data/emptied", syscall.O_WRONLY|syscall.O_TRUNC)
			c.do(f)
			if got, errno := other.cat("tok/data/emptied"); got != c.then || errno != 0 {
				t.Errorf("%s: another application reads %q (%v), want %q", c.name, got, errno, c.then)
			}
			if got, errno := p.cat("tok/objects/emptied.dat/value"); got != c.own || errno != 0 {
				t.Errorf("%s: the application reads %q (%v), want %q", c.name, got, errno, c.own)
			}
			if c.name != "the end" {
				f.release()
			}
			if n := len(w.fs.callers.find(callerOf(p.ctx())).emptied); n != 0 {
				t.Errorf("%s: %d files are still to be stored", c.name, n)
			}
		}
		p.must(p.unlink("tok/data/emptied"))
	})
	t.Run("opened when it has gone", func(t *testing.T) {
		p.must(p.print("x", "tok/data/going"))
		attr, _, errno := p.walk("tok/objects/going.dat/attr")
		if errno != 0 {
			t.Fatal(errno)
		}
		create := func(name string) syscall.Errno {
			var out fuse.EntryOut
			_, _, _, errno := attr.Create(p.ctx(), name, syscall.O_WRONLY|syscall.O_CREAT, 0o600, &out)
			return errno
		}
		wantErrno(t, "a file that the directory does not have", create("new"), syscall.EPERM)
		p.must(p.unlink("tok/data/going"))
		wantErrno(t, "a view of an object that has gone", create("application"), syscall.ENOENT)
	})
	t.Run("anywhere", func(t *testing.T) {
		f := p.opened("tok/data/note", syscall.O_RDWR)
		if _, errno := f.writeAt("SOME", 0); errno != 0 {
			t.Fatal(errno)
		}
		if _, errno := f.writeAt("!", 18); errno != 0 {
			t.Fatal(errno)
		}
		p.must(f.close())
		p.reads("tok/data/note", "SOMEthing longer\x00\x00!")
		f = p.opened("tok/data/note", syscall.O_WRONLY|syscall.O_APPEND)
		p.must(f.write("?"))
		p.must(f.close())
		p.reads("tok/data/note", "SOMEthing longer\x00\x00!?")
		p.must(p.truncate("tok/data/note", 4))
		p.reads("tok/data/note", "SOME")
		f = p.opened("tok/data/note", syscall.O_RDWR)
		p.must(f.truncate(6))
		p.must(f.close())
		p.reads("tok/data/note", "SOME\x00\x00")
	})
	t.Run("empty", func(t *testing.T) {
		p.must(p.print("", "tok/data/empty"))
		p.reads("tok/data/empty", "")
		p.must(p.print("", "tok/data/note"))
		p.reads("tok/data/note", "")
	})
	t.Run("too long", func(t *testing.T) {
		wantErrno(t, "the write", p.print(strings.Repeat("x", maxBlob+1), "tok/data/note"), syscall.EFBIG)
		wantErrno(t, "a length", p.truncate("tok/data/note", maxBlob+1), syscall.EFBIG)
		f := p.opened("tok/data/note", syscall.O_WRONLY)
		_, errno := f.writeAt("x", 1<<40)
		wantErrno(t, "far away", errno, syscall.EFBIG)
		f.close()
	})
	t.Run("half a file is not stored", func(t *testing.T) {
		p.must(p.print("whole", "tok/data/note"))
		f := p.opened("tok/data/note", syscall.O_WRONLY|syscall.O_TRUNC)
		p.must(f.write("half"))
		_, errno := f.writeAt("x", maxBlob)
		wantErrno(t, "the write", errno, syscall.EFBIG)
		wantErrno(t, "the close", f.close(), syscall.EFBIG)
		if line, _ := p.cat("tok/error"); !strings.Contains(line, "CKR_DATA_LEN_RANGE") {
			t.Errorf("error is %q", line)
		}
		p.reads("tok/data/note", "whole")
	})
	t.Run("mv and rm", func(t *testing.T) {
		p.must(p.print("a", "tok/data/a"))
		p.must(p.print("b", "tok/data/b b"))
		p.must(p.rename("tok/data/a", "tok/data/b b"))
		p.reads("tok/data/b b", "a")
		p.must(p.rename("tok/data/b b", "tok/data/%2Ehidden"))
		p.reads("tok/objects/%2Ehidden.dat/attr/label", ".hidden\n")
		for _, name := range p.ls("tok/data") {
			p.must(p.unlink("tok/data/" + name))
		}
		if got := p.ls("tok/objects"); len(got) != 0 {
			t.Errorf("left over: %q", got)
		}
	})
	t.Run("below a session", func(t *testing.T) {
		p.must(p.mkdir("tok/sessions/s"))
		p.must(p.print("x", "tok/sessions/s/data/x"))
		wantErrno(t, "rm", p.unlink("tok/sessions/s/data/x"), syscall.EPERM)
		p.must(p.unlink("tok/data/x"))
	})
}

const aCertificate = `-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUMGZKWMgTkQTZHN4jrqfrGqxb8mcwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKc2l0ZS50ZXN0MDAeFw0yNjAxMDEwMDAwMDBaFw0zNjAxMDEw
-----END CERTIFICATE-----
`

func TestBrokenCertificate(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	wantErrno(t, "a cut certificate", p.print(aCertificate, "tok/certs/x.pem"), syscall.EINVAL)
	if got := p.ls("tok/certs"); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
	_, errno := p.cat("tok/certs/x.pem")
	wantErrno(t, "the read", errno, syscall.ENOENT)
}

func TestAdministration(t *testing.T) {
	w := newWorld(t, hooks.Options{Blank: true})
	p := w.person(1000, 100)
	p.must(p.print("seed", sha)) // makes the default session, which is not in the way
	p.must(p.echo("init "+soPIN+" my  token", "tok/ctl"))
	if text, _ := p.cat("tok/info"); !strings.Contains(text, "label: my  token\n") {
		t.Errorf("info is %q", text)
	}
	p.reads("tok/pin", "user: tries=many pin=unset\nso: tries=many pin=to-be-changed\n")
	wantErrno(t, "a login without a PIN", p.echo("1234", "tok/login"), syscall.EACCES)
	p.must(p.echo("so:"+soPIN, "tok/login"))
	p.reads("tok/login", "so\n")
	p.must(p.echo("init-pin 1234", "tok/ctl"))
	p.must(p.echo(soPIN+" 135790", "tok/pin"))
	p.must(p.echo("logout", "tok/logout"))
	p.must(p.echo("user:1234", "tok/login"))
	p.must(p.echo("1234 567890", "tok/pin"))
	p.must(p.echo("", "tok/logout"))
	wantErrno(t, "the old PIN", p.echo("1234", "tok/login"), syscall.EKEYREJECTED)
	if text, _ := p.cat("tok/pin"); !strings.HasPrefix(text, "user: tries=") || strings.HasPrefix(text, "user: tries=0") {
		t.Errorf("pin is %q", text)
	}
	for range 3 {
		_ = p.echo("wrong", "tok/login")
	}
	who := regexp.MustCompile(`^user: tries=0 pin=set\n(user: wrong=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ uid=1000 pid=100 door=files command=".*"\n){3}so: tries=many pin=set\n$`)
	if text, _ := p.cat("tok/pin"); !who.MatchString(text) {
		t.Errorf("pin is %q", text)
	}
	wantErrno(t, "a locked PIN", p.echo("567890", "tok/login"), syscall.EKEYREJECTED)
	if text, _ := p.cat("tok/error"); !strings.Contains(text, "CKR_PIN_LOCKED") {
		t.Errorf("error is %q", text)
	}
	t.Run("close-all and cancel", func(t *testing.T) {
		p.must(p.mkdir("tok/sessions/x"))
		p.must(p.print("a", sha))
		p.must(p.echo("cancel", "tok/ctl"))
		_, errno := p.cat(sha)
		wantErrno(t, "a cancelled result", errno, syscall.ENODATA)
		p.must(p.echo("close-all", "tok/ctl"))
		if got := p.ls("tok/sessions"); !slices.Equal(got, []string{}) {
			t.Errorf("the sessions are %q", got)
		}
	})
}

func TestWriteProtectedToken(t *testing.T) {
	w := newWorld(t, hooks.Options{WriteProtected: true})
	p := w.person(1000, 100)
	p.must(p.print("abc", sha))
	p.reads(sha, digest("abc"))
	p.must(p.echo(userPIN, "tok/login"))
	wantErrno(t, "a new key", p.echo("aes:128", "tok/generate"), syscall.EROFS)
	_, errno := p.open("tok/data/x", syscall.O_WRONLY|syscall.O_CREAT)
	wantErrno(t, "a new data file", errno, syscall.EROFS)
}

func TestRandom(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	got, errno := p.cat("tok/random")
	p.must(errno)
	if len(got) != maxRandom {
		t.Errorf("%d bytes come before the end, want %d", len(got), maxRandom)
	}
	if again, _ := p.cat("tok/random"); again == got {
		t.Error("twice the same")
	}
}

// TestCounter has each read of the counter be another, and a look at the file none.
func TestCounter(t *testing.T) {
	taken := 0
	w := newWorld(t, hooks.Options{Before: func(method string) error {
		if method == "NextCount" {
			taken++
		}
		return nil
	}})
	p := w.person(1000, 100)
	next := func(p person) uint64 {
		t.Helper()
		text, errno := p.cat("tok/counter")
		p.must(errno)
		n, err := strconv.ParseUint(strings.TrimSuffix(text, "\n"), 10, 64)
		if err != nil {
			t.Fatalf("the counter says %q", text)
		}
		return n
	}
	first := next(p)
	if n := next(w.person(1001, 101)); n <= first {
		t.Errorf("%d comes after %d", n, first)
	}
	if names := p.ls("tok"); !slices.Contains(names, "counter") {
		t.Errorf("there is %q", names)
	}
	if node, _, errno := p.walk("tok/counter"); errno != 0 || node.Getattr(p.ctx(), nil, new(fuse.AttrOut)) != 0 {
		t.Error("the file cannot be looked at")
	}
	if taken != 2 {
		t.Errorf("%d values are taken, and 2 were read", taken)
	}
	wantErrno(t, "a number for the counter", p.echo("1", "tok/counter"), syscall.EACCES)
}

// TestViews reads what an object's directory shows.
func TestViews(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	for path, want := range map[string][]string{
		"tok/objects/web.key":  {"attr", "info", "uri", "mechanisms", "public.pem", "public.ssh", "value", "sign", "decrypt", "csr"},
		"tok/objects/web.pub":  {"attr", "info", "uri", "mechanisms", "public.pem", "public.ssh", "verify", "encrypt"},
		"tok/objects/disk.sec": {"attr", "info", "uri", "mechanisms", "value", "encrypt", "decrypt", "wrap", "unwrap"},
	} {
		if got := p.ls(path); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	for _, key := range []string{"web.key", "disk.sec"} {
		_, errno := p.cat("tok/objects/" + key + "/value")
		wantErrno(t, key, errno, syscall.EPERM)
	}
	pem, errno := p.cat("tok/objects/web.key/public.pem")
	p.must(errno)
	p.reads("tok/objects/web.pub/public.pem", pem)
	ssh, errno := p.cat("tok/objects/tls.key/public.ssh")
	p.must(errno)
	if !strings.HasPrefix(ssh, "ecdsa-sha2-nistp256 ") || !strings.HasSuffix(ssh, " tls\n") {
		t.Errorf("public.ssh is %q", ssh)
	}
	info, errno := p.cat("tok/objects/web.key/info")
	p.must(errno)
	for _, secret := range []string{"private-exponent", "prime-1", "coefficient"} {
		if strings.Contains(info, secret) || slices.Contains(p.ls("tok/objects/web.key/attr"), secret) {
			t.Errorf("%s is shown", secret)
		}
	}
	if mechanisms, _ := p.cat("tok/objects/web.key/mechanisms"); !strings.Contains(mechanisms, "sign sha256-rsa-pkcs default\n") || strings.Contains(mechanisms, "ecdsa") {
		t.Errorf("mechanisms is %q", mechanisms)
	}
	t.Run("removing the views destroys nothing", func(t *testing.T) {
		for _, name := range p.ls("tok/objects/disk.sec/attr") {
			p.must(p.unlink("tok/objects/disk.sec/attr/" + name))
		}
		p.must(p.rmdir("tok/objects/disk.sec/attr"))
		for _, name := range p.ls("tok/objects/disk.sec") {
			if name != "attr" {
				p.must(p.unlink("tok/objects/disk.sec/" + name))
			}
		}
		p.reads("tok/objects/disk.sec/attr/label", "disk\n")
		p.must(p.rmdir("tok/objects/disk.sec"))
		_, _, errno := p.walk("tok/objects/disk.sec")
		wantErrno(t, "after rmdir", errno, syscall.ENOENT)
		p.reads("tok/objects/web.pub/public.pem", pem)
	})
	t.Run("ecdh", func(t *testing.T) {
		p.must(p.echo("ec:p256 label=peer derive=true", "tok/generate"))
		peer, _ := p.cat("tok/objects/peer.pub/public.pem")
		own, _ := p.cat("tok/objects/tls.pub/public.pem")
		const spec = "derive:ecdh1-derive,class=secret-key,key-type=generic-secret,value-len=32,sensitive=false,extractable=true,label="
		p.must(p.print(peer, "tok/objects/tls.key/"+spec+"a"))
		p.reads("tok/objects/tls.key/"+spec+"a", "a.sec\n")
		p.must(p.print(own, "tok/objects/peer.key/"+spec+"b"))
		a, errno := p.cat("tok/objects/a.sec/value")
		p.must(errno)
		p.reads("tok/objects/b.sec/value", a)
		if len(a) != 32 {
			t.Errorf("%d bytes were derived", len(a))
		}
	})
	t.Run("public half", func(t *testing.T) {
		const file = "tok/objects/web.key/derive:pub-key-from-priv-key,label=half"
		p.must(p.print("\n", file))
		p.reads(file, "half.pub\n")
		pem, _ := p.cat("tok/objects/web.pub/public.pem")
		p.reads("tok/objects/half.pub/public.pem", pem)
		_, _, errno := p.walk("tok/objects/web.key/derive:ecdh1-derive") // which has no derive=true
		wantErrno(t, "another derivation", errno, syscall.EPERM)
		p.must(p.rmdir("tok/objects/half.pub"))
	})
	t.Run("encapsulate with an EC key", func(t *testing.T) {
		p.must(p.echo("ec:p256 label=kem encapsulate=true decapsulate=true", "tok/generate"))
		const key = " key-type=generic-secret value-len=32 sensitive=false extractable=true"
		f := p.opened("tok/objects/kem.pub/encapsulate", syscall.O_RDWR)
		p.must(f.write("label=told" + key + "\n"))
		ciphertext, errno := f.all()
		p.must(errno)
		p.must(f.close())
		if len(ciphertext) != 65 {
			t.Errorf("the ciphertext has %d bytes, not those of a point", len(ciphertext))
		}
		decapsulate := "tok/objects/kem.key/decapsulate:ecdh1-derive,kdf=sha256-kdf," + strings.ReplaceAll("label=heard"+key, " ", ",")
		p.must(p.print(ciphertext, decapsulate))
		p.reads(decapsulate, "heard.sec\n")
		a, _ := p.cat("tok/objects/told.sec/value")
		p.reads("tok/objects/heard.sec/value", a)
		for _, name := range []string{"kem.pub", "kem.key", "told.sec", "heard.sec"} {
			p.must(p.rmdir("tok/objects/" + name))
		}
	})
	t.Run("wrap with an EC key", func(t *testing.T) {
		p.must(p.echo("ec:p256 label=kek-ec wrap=true unwrap=true", "tok/generate"))
		f := p.opened("tok/objects/kek-ec.pub/wrap", syscall.O_RDWR)
		p.must(f.write("a.sec\n"))
		wrapped, errno := f.all()
		p.must(errno)
		p.must(f.close())
		const unwrap = "tok/objects/kek-ec.key/unwrap:ecdh-aes-key-wrap,key-type=generic-secret,label=ecdh,sensitive=false,extractable=true"
		p.must(p.print(wrapped, unwrap))
		p.reads(unwrap, "ecdh.sec\n")
		a, _ := p.cat("tok/objects/a.sec/value")
		p.reads("tok/objects/ecdh.sec/value", a)
		for _, name := range []string{"kek-ec.pub", "kek-ec.key", "ecdh.sec"} {
			p.must(p.rmdir("tok/objects/" + name))
		}
	})
	t.Run("wrap and unwrap", func(t *testing.T) {
		p.must(p.echo("aes:256 label=kek wrap=true unwrap=true", "tok/generate"))
		const m = ":aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f"
		f := p.opened("tok/objects/kek.sec/wrap"+m, syscall.O_RDWR)
		p.must(f.write("a.sec\n"))
		wrapped, errno := f.all()
		p.must(errno)
		p.must(f.close())
		p.must(p.print(wrapped, "tok/objects/kek.sec/unwrap"+m+",key-type=generic-secret,label=back,sensitive=false,extractable=true"))
		p.reads("tok/objects/kek.sec/unwrap"+m+",key-type=generic-secret,label=back,sensitive=false,extractable=true", "back.sec\n")
		a, _ := p.cat("tok/objects/a.sec/value")
		p.reads("tok/objects/back.sec/value", a)
	})
}

func TestKeyThatWantsThePINEachTime(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	p.must(p.echo("rsa:1024 label=strict always-authenticate=true", "tok/generate"))
	const sign = "tok/objects/strict.key/sign"
	for _, pin := range []struct {
		pin  string
		want syscall.Errno
	}{{"", syscall.EACCES}, {"wrong", syscall.EKEYREJECTED}, {userPIN, 0}, {"", syscall.EACCES}} {
		if pin.pin != "" {
			p.must(p.echo("context-specific:"+pin.pin, "tok/login"))
		}
		wantErrno(t, "signing after "+pin.pin, p.print("message", sign), pin.want)
		if text, _ := p.cat("tok/error"); pin.want == syscall.EACCES && !strings.Contains(text, "write context-specific:PIN to the file login") {
			t.Errorf("error says %q", text)
		}
	}
	p.must(p.echo("context-specific:"+userPIN, "tok/login"))
	p.must(p.print("message", sign))
	if sig, errno := p.cat(sign); errno != 0 || len(sig) != 128 {
		t.Errorf("%d bytes, %v", len(sig), errno)
	}
	p.reads("tok/login", "user\n")
}

// TestPINFromAFile: the end of a line of another system and a byte order mark are no
// part of a PIN.
func TestPINFromAFile(t *testing.T) {
	p := newWorld(t, hooks.Options{}).person(1000, 100)
	for _, text := range []string{userPIN + "\r\n", "\xef\xbb\xbf" + userPIN, "\xef\xbb\xbfuser:" + userPIN + "\r"} {
		if errno := p.print(text, "tok/login"); errno != 0 {
			t.Errorf("%q: %v", text, errno)
			continue
		}
		p.must(p.echo("", "tok/logout"))
	}
	p.must(p.print(userPIN+" 1234567\r\n", "tok/pin"))
	p.must(p.echo("1234567", "tok/login"))
}
