package fs

import (
	"crypto/sha256"
	"strings"
	"syscall"
	"testing"
	"time"

	"p11fs/tokens/tokentest/hooks"
)

const sha = "tok/digest/sha256"

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return string(sum[:])
}

// alone returns a person at a token with keys.
func alone(t *testing.T) person {
	t.Helper()
	p := newWorld(t, hooks.Options{}).person(1000, 100)
	p.keys()
	return p
}

func (p person) opened(path string, flags int) *openFile {
	p.w.t.Helper()
	f, errno := p.open(path, flags)
	if errno != 0 {
		p.w.t.Fatalf("opening %s: %v", path, errno)
	}
	return f
}

func wantErrno(t *testing.T, what string, got, want syscall.Errno) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// The rules of a file transaction, by number.

func TestRule1ReadWriteOpenIsPrivate(t *testing.T) {
	p := alone(t)
	f := p.opened(sha, syscall.O_RDWR)
	defer f.close()
	p.must(f.write("abc"))
	if _, errno := p.cat(sha); errno != syscall.ENODATA {
		t.Errorf("another open reads %v, want ENODATA", errno)
	}
	if got, errno := f.all(); errno != 0 || got != digest("abc") {
		t.Errorf("%x, %v", got, errno)
	}
	if _, errno := p.cat(sha); errno != syscall.ENODATA {
		t.Errorf("another open reads %v, want ENODATA", errno)
	}
	t.Run("again on the same descriptor", func(t *testing.T) {
		p.must(f.write("def"))
		if got, errno := f.all(); errno != 0 || got != digest("def") {
			t.Errorf("%x, %v", got, errno)
		}
		if _, errno := f.writeAt("ghi", 0); errno != 0 {
			t.Errorf("a write at the start after a read: %v", errno)
		}
		f.pos = 0
		if got, errno := f.all(); errno != 0 || got != digest("ghi") {
			t.Errorf("%x, %v", got, errno)
		}
	})
	t.Run("it does not take what waits", func(t *testing.T) {
		p.must(p.print("shared", sha))
		g := p.opened(sha, syscall.O_RDWR)
		defer g.close()
		if _, errno := g.read(10); errno != syscall.ENODATA {
			t.Errorf("before a write it reads %v, want ENODATA", errno)
		}
		p.must(g.write("x"))
		p.reads(sha, digest("shared"))
	})
}

func TestRule2TwoOpensMeetInTheSession(t *testing.T) {
	p := alone(t)
	p.must(p.print("abc", sha))
	p.reads(sha, digest("abc"))
	t.Run("read once", func(t *testing.T) {
		if _, errno := p.cat(sha); errno != syscall.ENODATA {
			t.Errorf("a second read: %v, want ENODATA", errno)
		}
	})
	t.Run("60 seconds", func(t *testing.T) {
		p.must(p.print("abc", sha))
		p.w.pass(59 * time.Second)
		p.reads(sha, digest("abc"))
		p.must(p.print("abc", sha))
		p.w.pass(60 * time.Second)
		if _, errno := p.cat(sha); errno != syscall.ENODATA {
			t.Errorf("after a minute: %v, want ENODATA", errno)
		}
	})
	t.Run("nobody else's", func(t *testing.T) {
		other, child := p.w.person(1000, 200), p.child(101)
		root := p.w.person(0, 300)
		p.must(p.print("abc", sha))
		for _, q := range []person{other, root} {
			if _, errno := q.cat(sha); errno != syscall.ENODATA {
				t.Errorf("another application reads %v, want ENODATA", errno)
			}
		}
		child.reads(sha, digest("abc"))
	})
	t.Run("of its file", func(t *testing.T) {
		p.must(p.print("abc", sha))
		if _, errno := p.cat("tok/digest/sha512"); errno != syscall.ENODATA {
			t.Errorf("another file reads %v, want ENODATA", errno)
		}
		p.reads(sha, digest("abc"))
	})
	t.Run("an open takes nothing before it reads", func(t *testing.T) {
		p.must(p.print("abc", sha))
		f := p.opened(sha, syscall.O_RDONLY)
		f.close()
		p.reads(sha, digest("abc"))
	})
}

func TestRule3EveryOpenForWritingIsAGeneration(t *testing.T) {
	p := alone(t)
	t.Run("an open drops what waits", func(t *testing.T) {
		p.must(p.print("abc", sha))
		f := p.opened(sha, syscall.O_WRONLY)
		f.close()
		if _, errno := p.cat(sha); errno != syscall.ENODATA {
			t.Errorf("%v, want ENODATA", errno)
		}
	})
	t.Run("the newest wins", func(t *testing.T) {
		a, b := p.opened(sha, syscall.O_WRONLY), p.opened(sha, syscall.O_WRONLY)
		p.must(a.write("a"))
		p.must(b.write("b"))
		p.must(b.close())
		wantErrno(t, "the close of the older", a.close(), syscall.EBUSY)
		p.reads(sha, digest("b"))
	})
	for _, c := range []struct {
		name string
		cut  func(f *openFile) syscall.Errno
	}{
		{"truncation with a handle", func(f *openFile) syscall.Errno { return f.truncate(0) }},
		{"truncation by name", func(*openFile) syscall.Errno { return p.truncate(sha, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := p.opened(sha, syscall.O_WRONLY)
			p.must(c.cut(f)) // as O_TRUNC comes: after the open, before the data
			p.must(f.write("abc"))
			p.must(c.cut(f))
			f.pos = 0
			p.must(f.write("def"))
			p.must(f.close())
			p.reads(sha, digest("def"))

			p.must(p.print("abc", sha))
			p.must(p.truncate(sha, 0))
			if _, errno := p.cat(sha); errno != syscall.ENODATA {
				t.Errorf("what waited reads %v, want ENODATA", errno)
			}
		})
	}
	t.Run("other truncation", func(t *testing.T) {
		f := p.opened(sha, syscall.O_WRONLY)
		defer f.close()
		wantErrno(t, "with a handle", f.truncate(3), syscall.EINVAL)
		wantErrno(t, "by name", p.truncate(sha, 1), syscall.EINVAL)
	})
	t.Run("gaps and rewinds", func(t *testing.T) {
		for _, off := range []int64{1, 2, 4, 1 << 40} {
			f := p.opened(sha, syscall.O_WRONLY)
			p.must(f.write("abc"))
			_, errno := f.writeAt("d", off)
			wantErrno(t, "a write elsewhere", errno, syscall.EINVAL)
			f.close()
			_, errno = p.cat(sha)
			wantErrno(t, "the read", errno, syscall.EINVAL)
		}
	})
	t.Run("append", func(t *testing.T) {
		for range 2 { // the second time the kernel thinks that the file is longer
			f := p.opened(sha, syscall.O_WRONLY|syscall.O_APPEND)
			f.pos = 17
			p.must(f.write("abc"))
			p.must(f.write("def"))
			p.must(f.close())
			p.reads(sha, digest("abcdef"))
		}
	})
}

func TestRule4CommandsRunInWrite(t *testing.T) {
	p := alone(t)
	f := p.opened("tok/find", syscall.O_WRONLY)
	p.must(f.write("label=disk\n"))
	wantErrno(t, "a second command", f.write("label=web\n"), syscall.EINVAL)
	p.must(f.close())
	p.reads("tok/find", "disk.sec\n")
	t.Run("the errno is the write's", func(t *testing.T) {
		f := p.opened("tok/find", syscall.O_WRONLY)
		wantErrno(t, "write", f.write("class=nonsense\n"), syscall.EINVAL)
		wantErrno(t, "close", f.close(), 0)
	})
	t.Run("with and without a newline", func(t *testing.T) {
		p.must(p.print("label=disk", "tok/find"))
		p.reads("tok/find", "disk.sec\n")
		f := p.opened("tok/find", syscall.O_RDWR)
		defer f.close()
		p.must(f.write("label=disk\n"))
		if got, errno := f.all(); got != "disk.sec\n" {
			t.Errorf("%q, %v", got, errno)
		}
	})
	t.Run("an attribute", func(t *testing.T) {
		p.must(p.echo("other disk", "tok/objects/disk.sec/attr/label"))
		p.reads("tok/objects/other disk.sec/attr/label", "other disk\n")
		p.must(p.rename("tok/objects/other disk.sec", "tok/objects/disk.sec"))
		p.reads("tok/objects/disk.sec/attr/label", "disk\n")
	})
}

func TestRule5DataStreams(t *testing.T) {
	p := alone(t)
	t.Run("an empty flush does nothing", func(t *testing.T) {
		f := p.opened(sha, syscall.O_WRONLY)
		p.must(f.flush())
		if _, errno := p.cat(sha); errno != syscall.ENODATA {
			t.Errorf("%v, want ENODATA", errno)
		}
		p.must(f.write("abc"))
		p.must(f.flush())
		p.must(f.flush())
		p.must(f.close())
		p.reads(sha, digest("abc"))
	})
	t.Run("data after a flush goes on", func(t *testing.T) {
		for _, flags := range []int{syscall.O_WRONLY, syscall.O_RDWR} {
			f := p.opened(sha, flags)
			for _, part := range []string{"a", "b", "c"} {
				p.must(f.write(part))
				p.must(f.flush())
			}
			if flags == syscall.O_RDWR {
				if got, errno := f.all(); got != digest("abc") {
					t.Errorf("%x, %v", got, errno)
				}
			} else {
				p.reads(sha, digest("abc"))
			}
			p.must(f.close())
		}
	})
	t.Run("a signature of both parts", func(t *testing.T) {
		f := p.opened("tok/objects/web.key/sign", syscall.O_WRONLY)
		p.must(f.write("hello "))
		p.must(f.flush())
		p.must(f.write("world"))
		p.must(f.close())
		sig, errno := p.cat("tok/objects/web.key/sign")
		p.must(errno)
		p.must(p.print(sig+"hello world", "tok/objects/web.pub/verify"))
		p.reads("tok/objects/web.pub/verify", "ok\n")
	})
	t.Run("release makes nothing", func(t *testing.T) {
		f := p.opened(sha, syscall.O_WRONLY)
		p.must(f.write("abc"))
		f.release()
		if _, errno := p.cat(sha); errno != syscall.ENODATA {
			t.Errorf("%v, want ENODATA", errno)
		}
	})
	t.Run("import makes once", func(t *testing.T) {
		pem, errno := p.cat("tok/objects/web.pub/public.pem")
		p.must(errno)
		before := len(p.ls("tok/objects"))
		f := p.opened("tok/import:label=once", syscall.O_RDWR)
		p.must(f.write(pem))
		p.must(f.flush())
		p.must(f.flush())
		if got, errno := f.all(); got != "once.pub\n" {
			t.Errorf("%q, %v", got, errno)
		}
		p.must(f.close())
		if n := len(p.ls("tok/objects")); n != before+1 {
			t.Errorf("%d objects were made", n-before)
		}
		p.must(p.rmdir("tok/objects/once.pub"))
	})
	t.Run("a second piece is imported by itself", func(t *testing.T) {
		pem, errno := p.cat("tok/objects/web.pub/public.pem")
		p.must(errno)
		f := p.opened("tok/import:label=piece", syscall.O_WRONLY)
		p.must(f.write(pem))
		p.must(f.flush())
		pem, errno = p.cat("tok/objects/tls.pub/public.pem")
		p.must(errno)
		p.must(f.write(pem))
		p.must(f.close())
		got, errno := p.cat("tok/import:label=piece")
		p.must(errno)
		names := strings.Fields(got)
		if len(names) != 2 || names[0] != "piece.pub" || !strings.HasPrefix(names[1], "piece~") {
			t.Errorf("made %q", names)
		}
		for _, name := range names {
			p.must(p.rmdir("tok/objects/" + name))
		}
	})
}

func TestRule6AFailedFlushFailsTheRead(t *testing.T) {
	p := alone(t)
	const verify = "tok/objects/web.pub/verify"
	bad := strings.Repeat("s", 256) + "message"
	wantErrno(t, "the close", p.print(bad, verify), syscall.EBADMSG)
	_, errno := p.cat(verify)
	wantErrno(t, "the read", errno, syscall.EBADMSG)
	text, _ := p.cat("tok/error")
	if !strings.HasPrefix(text, "0x000000c0 CKR_SIGNATURE_INVALID: ") || strings.Count(text, "\n") != 1 {
		t.Errorf("error is %q", text)
	}
	_, errno = p.cat(verify)
	wantErrno(t, "the next read", errno, syscall.ENODATA)
	t.Run("on one descriptor", func(t *testing.T) {
		f := p.opened(verify, syscall.O_RDWR)
		defer f.close()
		p.must(f.write(bad))
		wantErrno(t, "flush", f.flush(), syscall.EBADMSG)
		_, errno := f.read(10)
		wantErrno(t, "read", errno, syscall.EBADMSG)
	})
	t.Run("a failed write", func(t *testing.T) {
		const path = "tok/objects/web.pub/encrypt"
		wantErrno(t, "the write or close", p.print(strings.Repeat("x", 1000), path), syscall.EFBIG)
		_, errno := p.cat(path)
		wantErrno(t, "the read", errno, syscall.EFBIG)
	})
}

func TestRule7ReadsHaveTheirOwnCursor(t *testing.T) {
	p := alone(t)
	f := p.opened(sha, syscall.O_RDWR)
	defer f.close()
	p.must(f.write("abc"))
	var got strings.Builder
	for range 5 { // at offsets after what was written, as with exec 3<>
		s, errno := f.read(7)
		p.must(errno)
		got.WriteString(s)
	}
	if got.String() != digest("abc") {
		t.Errorf("%x", got.String())
	}
	if s, errno := f.read(7); s != "" || errno != 0 {
		t.Errorf("the end is %q, %v", s, errno)
	}
	t.Run("nothing is cached", func(t *testing.T) {
		for path, want := range map[string]time.Duration{
			"tok":                            cacheTime,
			"tok/objects":                    cacheTime,
			"tok/objects/web.key":            0,
			"tok/objects/web.key/sign":       0,
			"tok/objects/web.key/attr":       0,
			"tok/objects/web.pub/public.pem": 0,
			"tok/by-id":                      cacheTime,
			"tok/sessions/new":               0,
			"tok/login":                      0,
		} {
			_, out, errno := p.walk(path)
			p.must(errno)
			if got := out.EntryTimeout(); got != want {
				t.Errorf("the name %s is kept for %v, want %v", path, got, want)
			}
		}
		for path, want := range map[string]time.Duration{"tok/login": 0, "tok/error": 0, "tok/objects/web.key/sign": cacheTime, "tok/info": 0} {
			_, out, errno := p.walk(path)
			p.must(errno)
			if got := out.AttrTimeout(); got != want {
				t.Errorf("the attributes of %s are kept for %v, want %v", path, got, want)
			}
		}
	})
}

func TestRule8RightsAreThoseOfTheOpen(t *testing.T) {
	p := alone(t)
	f := p.opened("tok/objects/web.key/sign", syscall.O_RDWR)
	p.must(f.write("abc"))
	p.must(f.flush()) // until then another process waits
	stranger := p.w.person(2000, 500)
	given := &openFile{p: stranger, node: f.node, handle: f.handle, pos: f.pos}
	if sig, errno := given.all(); errno != 0 || len(sig) != 256 {
		t.Errorf("who was given the descriptor reads %d bytes, %v", len(sig), errno)
	}
	p.must(f.write("def"))
	p.must(f.flush())
	g := p.opened("tok/objects/web.key/sign", syscall.O_WRONLY)
	p.must(g.write("x"))
	d := p.opened("tok/data/note", syscall.O_RDWR|syscall.O_CREAT)
	p.must(d.write("secret"))
	p.must(d.flush())
	r := p.opened("tok/data/note", syscall.O_RDONLY)
	p.must(p.print("waiting", "tok/objects/web.key/sign:sha256-rsa-pkcs-pss"))
	p.must(p.echo("", "tok/logout"))
	_, errno := f.read(10)
	wantErrno(t, "a result after the logout", errno, syscall.EACCES)
	wantErrno(t, "a write after the logout", g.write("y"), syscall.EACCES)
	_, errno = d.read(10)
	wantErrno(t, "a data file after the logout", errno, syscall.EACCES)
	_, errno = r.read(10)
	wantErrno(t, "a data file open for reading after the logout", errno, syscall.EACCES)
	wantErrno(t, "a message after the logout", p.print("z", "tok/objects/web.key/sign"), syscall.ENOENT)
	for _, f := range []*openFile{f, g, d, r} {
		f.release()
	}
	p.must(p.echo(userPIN, "tok/login"))
	_, errno = p.cat("tok/objects/web.key/sign:sha256-rsa-pkcs-pss")
	wantErrno(t, "what waited, after the next login", errno, syscall.ENODATA)
}
