package fs

import (
	"strings"
	"syscall"
	"testing"
)

// One who writes and reads with O_NONBLOCK learns by EAGAIN that there is no output
// yet, and ends the message with fsync, also an empty one.
func TestNonblock(t *testing.T) {
	p := quiet(t)
	const enc, dec = "tok/objects/disk.sec/encrypt:stream", "tok/objects/disk.sec/decrypt:stream"
	const flags = syscall.O_RDWR | syscall.O_NONBLOCK
	through := func(path, data string) string {
		f := p.opened(path, flags)
		defer f.release()
		var out strings.Builder
		for data != "" {
			n := min(len(data), 300<<10)
			p.must(f.write(data[:n]))
			data = data[n:]
			for {
				got, errno := f.read(1 << 20)
				if errno == syscall.EAGAIN {
					break
				}
				p.must(errno)
				out.WriteString(got)
			}
		}
		_, errno := f.read(1)
		wantErrno(t, "a read before the end", errno, syscall.EAGAIN)
		p.must(f.sync())
		rest, errno := f.all()
		p.must(errno)
		return out.String() + rest
	}
	long := strings.Repeat("0123456789abcdef", 200_000)
	for _, text := range []string{"", "short", long} {
		if got := through(dec, through(enc, text)); got != text {
			t.Errorf("%d bytes come back as %d", len(text), len(got))
		}
	}
	if got := through(sha, ""); got != digest("") {
		t.Errorf("the digest of nothing is %x", got)
	}
	p.reads("tok/error", "0x00000000 CKR_OK\n")

	f := p.opened(dec, flags)
	p.must(f.write(through(enc, long)[:1<<20]))
	wantErrno(t, "the end of a stream that was cut off", f.sync(), syscall.EBADMSG)
	wantErrno(t, "and a read", second(f.read(1)), syscall.EBADMSG)
	if text, _ := p.cat("tok/error"); !strings.Contains(text, "cut off, behind segment 0") {
		t.Errorf("error says %q", text)
	}
	f.release()
	p.nothingHeld()
}

func second(_ string, errno syscall.Errno) syscall.Errno { return errno }
