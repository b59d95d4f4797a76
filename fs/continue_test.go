package fs

import (
	"context"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"p11fs/p11"
)

// Messages that go on after a close of one of several descriptors, as in
// (cat a; cat b; cat c) > sign.

// parts are three pieces of a message, each long and none a whole number of
// blocks.
func parts() []string {
	r := rand.New(rand.NewPCG(1, 2))
	var list []string
	for _, n := range []int{700001, 1<<20 + 3, 499999} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		list = append(list, string(b))
	}
	return list
}

// thirds are three pieces of a text that need not be long.
func thirds(s string) []string { return []string{s[:len(s)/3], s[len(s)/3 : len(s)/2], s[len(s)/2:]} }

// goOn writes the parts, with a close after each, and returns what is read in
// the end. between runs after each close but the last, with the close's errno.
func (p person) goOn(path string, flags int, parts []string, between func(part int, errno syscall.Errno)) string {
	p.w.t.Helper()
	f := p.opened(path, flags)
	defer f.release()
	for i, part := range parts {
		for len(part) > 0 { // as the kernel cuts it
			n := min(len(part), 128<<10)
			p.must(f.write(part[:n]))
			part = part[n:]
		}
		errno := f.flush()
		if i == len(parts)-1 {
			p.must(errno)
		} else {
			between(i, errno)
		}
	}
	if flags == syscall.O_RDWR {
		got, errno := f.all()
		p.must(errno)
		return got
	}
	got, errno := p.cat(path)
	p.must(errno)
	return got
}

// quiet returns a person at a token with keys, for whom nothing waits.
func quiet(t *testing.T) person {
	t.Helper()
	p := alone(t)
	p.reads("tok/generate", "disk.sec\n")
	return p
}

// session is the person's default session.
func (p person) session() *session {
	return place{fs: p.w.fs, slot: p.w.engine.Slots()[0]}.sessionIfOpen(caller{uid: p.uid, pid: uint32(p.pid)})
}

func (p person) held() int64 {
	p.w.t.Helper()
	s := p.session()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (p person) nothingHeld() {
	p.w.t.Helper()
	if n := p.held(); n != 0 {
		p.w.t.Errorf("%d bytes are held", n)
	}
}

func TestMessagesGoOn(t *testing.T) {
	p := quiet(t)
	p.must(p.echo("generic:256 label=mac", "tok/generate"))
	p.reads("tok/generate", "mac.sec\n")
	message := parts()
	whole := strings.Join(message, "")
	verified := func(t *testing.T, path, sig, message string) {
		t.Helper()
		p.must(p.print(sig+message, path))
		p.reads(path, "ok\n")
	}
	closed := func(_ int, errno syscall.Errno) { p.must(errno) }
	cut := func(_ int, errno syscall.Errno) { // of what is no whole message yet
		if errno != 0 && errno != syscall.EBADMSG && errno != syscall.EINVAL {
			t.Errorf("a close of a part: %v", errno)
		}
	}
	modes := []struct {
		name  string
		flags int
	}{{"two opens", syscall.O_WRONLY}, {"one open", syscall.O_RDWR}}

	for _, mode := range modes {
		t.Run("digest in "+mode.name, func(t *testing.T) {
			if got := p.goOn(sha, mode.flags, message, closed); got != digest(whole) {
				t.Errorf("%x", got)
			}
		})
	}
	t.Run("digest read on its way", func(t *testing.T) {
		got := p.goOn(sha, syscall.O_WRONLY, message, func(i int, errno syscall.Errno) {
			p.must(errno)
			p.reads(sha, digest(strings.Join(message[:i+1], "")))
		})
		if got != digest(whole) {
			t.Errorf("%x", got)
		}
	})
	for _, key := range []struct{ name, sign, verify string }{
		{"rsa", "tok/objects/web.key/sign", "tok/objects/web.pub/verify"},
		{"ecdsa", "tok/objects/tls.key/sign", "tok/objects/tls.pub/verify"},
		{"ecdsa exact", "tok/objects/tls.key/sign:ecdsa-sha256", "tok/objects/tls.pub/verify:ecdsa-sha256"},
		{"hmac", "tok/objects/mac.sec/sign", "tok/objects/mac.sec/verify"},
	} {
		for _, mode := range modes {
			t.Run(key.name+" in "+mode.name, func(t *testing.T) {
				sig := p.goOn(key.sign, mode.flags, message, closed)
				verified(t, key.verify, sig, whole)
				seen := 0
				ok := p.goOn(key.verify, mode.flags, append([]string{sig[:11], sig[11:]}, message...), func(_ int, errno syscall.Errno) {
					seen++
					wantErrno(t, "a close of a part", errno, syscall.EBADMSG)
					if mode.flags == syscall.O_WRONLY {
						_, errno := p.cat(key.verify)
						wantErrno(t, "the read of a part", errno, syscall.EBADMSG)
					}
				})
				if ok != "ok\n" || seen != 4 {
					t.Errorf("verify reads %q after %d closes before", ok, seen)
				}
			})
		}
		t.Run(key.name+" read on its way", func(t *testing.T) {
			sig := p.goOn(key.sign, syscall.O_WRONLY, message, func(i int, errno syscall.Errno) {
				p.must(errno)
				sig, errno := p.cat(key.sign)
				p.must(errno)
				verified(t, key.verify, sig, strings.Join(message[:i+1], ""))
			})
			verified(t, key.verify, sig, whole)
		})
	}
	const zero = "00000000000000000000000000000000"
	for _, spec := range []string{"", ":stream", ":aes-gcm,iv=000000000000000000000000,tag=96", ":aes-cbc-pad,iv=" + zero, ":aes-ctr,counter=" + zero} {
		enc, dec := "tok/objects/disk.sec/encrypt"+spec, "tok/objects/disk.sec/decrypt"+spec
		decrypted := func(t *testing.T, ct, plain string) {
			t.Helper()
			p.must(p.print(ct, dec))
			if got, errno := p.cat(dec); got != plain {
				t.Errorf("%d bytes come back wrong, %v", len(got), errno)
			}
		}
		for _, mode := range modes {
			t.Run("encrypt"+spec+" in "+mode.name, func(t *testing.T) {
				ct := p.goOn(enc, mode.flags, message, closed)
				decrypted(t, ct, whole)
				if got := p.goOn(dec, mode.flags, thirds(ct), cut); got != whole {
					t.Errorf("%d bytes come back wrong", len(got))
				}
			})
		}
		if strings.Contains(spec, "gcm") || spec == "" || spec == ":stream" {
			continue
		}
		t.Run("encrypt"+spec+" read on its way", func(t *testing.T) {
			ct := p.goOn(enc, syscall.O_WRONLY, message, func(i int, errno syscall.Errno) {
				p.must(errno)
				ct, errno := p.cat(enc)
				p.must(errno)
				decrypted(t, ct, strings.Join(message[:i+1], ""))
			})
			decrypted(t, ct, whole)
		})
	}
	t.Run("rsa encryption", func(t *testing.T) {
		ct := p.goOn("tok/objects/web.pub/encrypt", syscall.O_WRONLY, thirds("a short message"), closed)
		if got := p.goOn("tok/objects/web.key/decrypt", syscall.O_WRONLY, thirds(ct), cut); got != "a short message" {
			t.Errorf("%q", got)
		}
	})
	p.nothingHeld()
}

// What a message keeps does not grow with it.
func TestMessageTakesNoRoom(t *testing.T) {
	p := quiet(t)
	chunk := strings.Repeat("x", 1<<20)
	f := p.opened(sha, syscall.O_WRONLY)
	for range 8 {
		p.must(f.write(chunk))
		p.must(f.flush())
		if n := p.held(); n != 32 {
			t.Errorf("%d bytes are held for a digest", n)
		}
	}
	f.release()
	p.reads(sha, digest(strings.Repeat(chunk, 8)))
	p.nothingHeld()
}

func TestMessageEndsWithTheLogin(t *testing.T) {
	p := quiet(t)
	const sign = "tok/objects/web.key/sign"
	f := p.opened(sign, syscall.O_WRONLY)
	p.must(f.write("first "))
	p.must(f.flush())
	p.must(p.echo("", "tok/logout"))
	p.must(p.echo(userPIN, "tok/login"))
	_, errno := p.cat(sign)
	wantErrno(t, "the result of before", errno, syscall.ENODATA)
	wantErrno(t, "more", f.write("second"), syscall.EACCES)
	wantErrno(t, "and more", f.write("third"), syscall.EACCES)
	f.release()
	p.nothingHeld()
}

// A newer open takes over: the older message has no result any more.
func TestNewerOpenEndsTheMessage(t *testing.T) {
	p := quiet(t)
	f := p.opened(sha, syscall.O_WRONLY)
	p.must(f.write("first "))
	p.must(f.flush())
	p.must(p.print("another", sha))
	p.must(f.write("second"))
	wantErrno(t, "the close", f.flush(), syscall.EBUSY)
	wantErrno(t, "more", f.write("third"), syscall.EBUSY)
	f.release()
	p.reads(sha, digest("another"))
	p.nothingHeld()
}

// A failed close of a part leaves what came before it as it was.
func TestFailedCloseIsNoEnd(t *testing.T) {
	p := quiet(t)
	const enc, dec = "tok/objects/disk.sec/encrypt:aes-cbc,iv=00000000000000000000000000000000", "tok/objects/disk.sec/decrypt:aes-cbc,iv=00000000000000000000000000000000"
	for _, flags := range []int{syscall.O_WRONLY, syscall.O_RDWR} {
		f := p.opened(enc, flags)
		p.must(f.write("half a b"))
		wantErrno(t, "the close", f.flush(), syscall.EFBIG)
		p.must(f.write("lock is "))
		p.must(f.flush())
		p.must(f.write("no whole"))
		wantErrno(t, "the close", f.flush(), syscall.EFBIG)
		text, _ := p.cat("tok/error")
		if !strings.Contains(text, "CKR_DATA_LEN_RANGE") {
			t.Errorf("error says %q", text)
		}
		if flags == syscall.O_RDWR {
			_, errno := f.read(10)
			wantErrno(t, "the read", errno, syscall.EFBIG)
			p.must(f.write("a new one begins")) // the read was the end
			ct, errno := f.all()
			p.must(errno)
			p.must(p.print(ct, dec))
			p.reads(dec, "a new one begins")
			f.release()
			continue
		}
		_, errno := p.cat(enc)
		wantErrno(t, "the read", errno, syscall.EFBIG)
		p.must(f.write(" at last"))
		p.must(f.close())
		ct, errno := p.cat(enc)
		p.must(errno)
		p.must(p.print(ct, dec))
		p.reads(dec, "half a block is no whole at last")
	}
	p.nothingHeld()
}

// interruptedOnce is a transform of which one update is interrupted.
type interruptedOnce struct {
	transform
	interrupt bool // the next one
}

func (t *interruptedOnce) update(ctx context.Context, part []byte) ([]byte, error) {
	if t.interrupt {
		t.interrupt = false
		return nil, context.Canceled
	}
	return t.transform.update(ctx, part)
}

// A write that is interrupted takes no result away for good.
func TestInterruptedWriteKeepsTheResult(t *testing.T) {
	p := quiet(t)
	in := &interruptedOnce{}
	data := &stream{
		place: place{fs: p.w.fs, slot: p.w.engine.Slots()[0]}, path: "digest/sha256",
		start: func(ctx context.Context, s *session) (start, error) {
			op, err := s.eng.Begin(ctx, p11.CKF_DIGEST, p11.Mechanism{Type: p11.CKM_SHA256}, 0)
			in.transform = &use{op: op}
			return start{transform: in}, err
		},
	}
	h, err := data.open(p.ctx(), callerOf(p.ctx()), syscall.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	f := &openFile{p: p}
	f.handle, _ = h.opened()
	p.must(f.write("abc"))
	p.must(f.flush())
	in.interrupt = true
	wantErrno(t, "the write", f.write("def"), syscall.EINTR)
	p.must(f.flush())
	p.reads(sha, digest("abc"))
	p.must(f.write("def"))
	p.must(f.close())
	p.reads(sha, digest("abcdef"))
	p.nothingHeld()
}
