package fs

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A message may give one result only where two would tell more: it goes on until
// its result is read.
func TestOneResult(t *testing.T) {
	p := quiet(t)
	const enc, dec = "tok/objects/disk.sec/encrypt", "tok/objects/disk.sec/decrypt"
	const gcm = ":aes-gcm,iv=0102030405060708090a0b0c,tag=128"
	for _, spec := range []string{"", gcm, ":stream"} {
		t.Run("read"+spec, func(t *testing.T) {
			f := p.opened(enc+spec, syscall.O_WRONLY)
			p.must(f.write("first "))
			p.must(f.flush())
			ct, errno := p.cat(enc + spec)
			p.must(errno)
			wantErrno(t, "more after the read", f.write("second"), syscall.EINVAL)
			if text, _ := p.cat("tok/error"); !strings.Contains(text, "one result") {
				t.Errorf("error says %q", text)
			}
			wantErrno(t, "and still more", f.write("third"), syscall.EINVAL)
			wantErrno(t, "the close", f.close(), 0)
			_, errno = p.cat(enc + spec)
			wantErrno(t, "the next read", errno, syscall.EINVAL)
			p.must(p.print(ct, dec+spec))
			p.reads(dec+spec, "first ")
		})
		t.Run("never read"+spec, func(t *testing.T) {
			for name, lost := range map[string]func(){
				"waits":     func() {},
				"expired":   func() { p.w.pass(61 * time.Second); _, _ = p.cat(enc + spec) },
				"cancelled": func() { p.must(p.echo("cancel", "tok/ctl")) },
			} {
				ct := p.goOn(enc+spec, syscall.O_WRONLY, []string{"first ", "second ", "third"}, func(_ int, errno syscall.Errno) {
					p.must(errno)
					lost()
				})
				p.must(p.print(ct, dec+spec))
				if got, errno := p.cat(dec + spec); got != "first second third" {
					t.Errorf("%s: %q, %v", name, got, errno)
				}
			}
		})
	}
	t.Run("after truncation", func(t *testing.T) {
		f := p.opened(enc, syscall.O_WRONLY)
		p.must(f.write("first "))
		p.must(f.flush())
		one, errno := p.cat(enc)
		p.must(errno)
		p.must(f.truncate(0))
		f.pos = 0
		p.must(f.write("second "))
		p.must(f.flush())
		p.must(f.write("third"))
		p.must(f.close())
		two, errno := p.cat(enc)
		p.must(errno)
		if one[:gcmIVLen] == two[:gcmIVLen] {
			t.Error("two messages have one nonce")
		}
		p.must(p.print(two, dec))
		p.reads(dec, "second third")
	})
	t.Run("one open", func(t *testing.T) {
		f := p.opened(enc, syscall.O_RDWR)
		defer f.release()
		seen := make(map[string]bool)
		for _, text := range []string{"first", "second"} {
			p.must(f.write(text[:2]))
			p.must(f.flush())
			p.must(f.write(text[2:]))
			p.must(f.flush())
			ct, errno := f.all()
			p.must(errno)
			p.must(p.print(ct, dec))
			p.reads(dec, text)
			seen[ct[:gcmIVLen]] = true
		}
		if len(seen) != 2 {
			t.Error("two messages have one nonce")
		}
	})
	t.Run("a key that wants its PIN each time", func(t *testing.T) {
		const sign, verify = "tok/objects/sure.key/sign", "tok/objects/sure.pub/verify"
		p.must(p.echo("ec:p256 label=sure always-authenticate=true", "tok/generate"))
		_, _ = p.cat("tok/generate")
		p.must(p.echo("context-specific:"+userPIN, "tok/login"))
		sig := p.goOn(sign, syscall.O_WRONLY, []string{"first ", "second"}, func(_ int, errno syscall.Errno) { p.must(errno) })
		p.must(p.print(sig+"first second", verify))
		p.reads(verify, "ok\n")

		p.must(p.echo("context-specific:"+userPIN, "tok/login"))
		f := p.opened(sign, syscall.O_WRONLY)
		p.must(f.write("first "))
		p.must(f.flush())
		_, errno := p.cat(sign)
		p.must(errno)
		wantErrno(t, "more after the read", f.write("second"), syscall.EINVAL)
		f.release()
		wantErrno(t, "another message", p.print("first", sign), syscall.EACCES)
	})
	p.nothingHeld()
}

// waiting is the result that waits for the reader of a file of the person's.
func (p person) waiting(path string) *output {
	p.w.t.Helper()
	s := p.session()
	node, _, errno := p.walk(path)
	p.must(errno)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exchanges[node.path].result.out
}

// The output of a message is shared by who writes it and who reads what there
// was of it, and stays counted and unchanged until the last of them is done.
func TestOutputIsShared(t *testing.T) {
	p := quiet(t)
	const ctr = "tok/objects/disk.sec/encrypt:aes-ctr,counter=000102030405060708090a0b0c0d0e0f"
	const dec = "tok/objects/disk.sec/decrypt:aes-ctr,counter=000102030405060708090a0b0c0d0e0f"
	chunk := strings.Repeat("x", 1<<20)
	const first, second = 20, 23

	f := p.opened(ctr, syscall.O_WRONLY)
	for range first {
		p.must(f.write(chunk))
	}
	p.must(f.flush())
	if n := p.held(); n != first<<20 {
		t.Errorf("%d bytes are held for a result of %d", n, first<<20)
	}
	given := p.waiting(ctr).data
	r := p.opened(ctr, syscall.O_RDONLY)
	begun, errno := r.read(10)
	p.must(errno)
	for range second {
		p.must(f.write(chunk))
	}
	if n := p.held(); n != (2*first+second)<<20 {
		t.Errorf("%d bytes are held, while one reads %d MiB and another writes %d", n, first, first+second)
	}
	p.must(f.flush())
	rest, errno := r.all()
	p.must(errno)
	if n := p.held(); n != (first+second)<<20 {
		t.Errorf("%d bytes are held after the first reader's end", n)
	}
	if bytes.Count(given, []byte{0}) != len(given) {
		t.Error("what was read is not wiped")
	}
	kept := p.waiting(ctr).data
	whole, errno := p.cat(ctr)
	p.must(errno)
	if len(whole) != (first+second)<<20 || whole[:first<<20] != begun+rest {
		t.Errorf("%d bytes, which do not begin with the %d read before", len(whole), len(begun+rest))
	}
	if len(kept) != len(whole) || string(kept[:10]) != begun {
		t.Error("the writer does not keep what it may have to give again")
	}
	p.must(f.close())
	r.release()
	if bytes.Count(kept, []byte{0}) != len(kept) {
		t.Error("what was written is not wiped")
	}
	p.nothingHeld()

	t.Run("no room for two", func(t *testing.T) {
		f := p.opened(ctr, syscall.O_WRONLY)
		for range 40 {
			p.must(f.write(chunk))
		}
		p.must(f.flush())
		r := p.opened(ctr, syscall.O_RDONLY)
		_, errno := r.read(10)
		p.must(errno)
		wantErrno(t, "more", f.write(chunk), syscall.EFBIG)
		rest, errno := r.all()
		if errno != 0 || len(rest) != 40<<20-10 {
			t.Errorf("the reader gets %d bytes more, %v", len(rest), errno)
		}
		f.release()
		r.release()
		p.nothingHeld()
	})
	t.Run("read in between, by the writer", func(t *testing.T) {
		f := p.opened(ctr, syscall.O_RDWR)
		p.must(f.write(chunk))
		ct, errno := f.read(1 << 19)
		p.must(errno)
		p.must(f.write(chunk))
		p.must(f.flush())
		p.must(f.write(chunk))
		rest, errno := f.all()
		p.must(errno)
		f.release()
		p.must(p.print(ct+rest, dec))
		if got, errno := p.cat(dec); got != chunk+chunk+chunk {
			t.Errorf("%d bytes come back wrong, %v", len(got), errno)
		}
	})
	p.nothingHeld()
}

// Who reads behind the writing holds what is between, however long the message.
func TestReadBehindTheWriting(t *testing.T) {
	p := quiet(t)
	const ctr = "tok/objects/disk.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000"
	const part = 1 << 20
	chunk := strings.Repeat("\x00", part)
	there, back := p.opened(ctr, syscall.O_RDWR), p.opened(ctr, syscall.O_RDWR) // which are each other's inverse
	total, came := 0, 0
	check := func(ct string) {
		t.Helper()
		if len(ct) == 0 {
			return
		}
		p.must(back.write(ct))
		got, errno := back.read(len(ct))
		p.must(errno)
		if got != chunk[:len(ct)] {
			t.Fatalf("the bytes from %d on come back wrong", came)
		}
		came += len(got)
	}
	for total < maxHeld+8*part {
		p.must(there.write(chunk))
		total += part
		ct, errno := there.read(part - 16)
		p.must(errno)
		check(ct)
		if n := p.held(); n > 8*part {
			t.Fatalf("%d bytes are held after %d", n, total)
		}
	}
	rest, errno := there.all()
	p.must(errno)
	check(rest)
	if came != total {
		t.Errorf("%d bytes came of %d", came, total)
	}
	there.release()
	back.release()
	p.nothingHeld()
}
