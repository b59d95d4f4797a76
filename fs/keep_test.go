package fs

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestNothingIsLost: what several append is all there, a file that several make is one,
// and what cannot be stored leaves what was.
func TestNothingIsLost(t *testing.T) {
	m := mount(t)
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			term := m.terminal(shell)
			term.login()
			term.ok("for i in $(seq 64); do (echo $i >> $T/data/log) & done; wait; seq 64 > want; sort -n $T/data/log | cmp - want; rm $T/data/log")
			term.ok("mkdir $T/sessions/a; for i in $(seq 32); do (echo $i >> $T/data/log) & (echo $((i+32)) >> $T/sessions/a/data/log) & done; wait; sort -n $T/data/log | cmp - want; rm $T/data/log; rmdir $T/sessions/a")
			term.ok("for i in 1 2 3 4 5 6 7 8; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c$i.pem -subj /CN=c$i -days 9 2>/dev/null; done")
			term.ok("for i in 1 2 3 4 5 6 7 8; do cp c1.pem $T/certs/same.pem & done; wait; test \"$(ls $O)\" = same.crt; cmp c1.pem $T/certs/same.pem")
			term.ok("for i in 1 2 3 4 5 6 7 8; do cp c$i.pem $T/certs/same.pem & done; wait; test \"$(ls $O)\" = same.crt; rm $T/certs/same.pem")

			term.ok("head -c 1048577 /dev/zero > big; echo secret > $T/data/k")
			for _, line := range []string{"cat big > $T/data/k", "cp big $T/data/k", "dd if=big of=$T/data/k bs=2M", "cat big >> $T/data/k", "tee $T/data/k < big > /dev/null", "truncate -s 2M $T/data/k"} {
				if _, _, status := term.run(line); status == 0 {
					t.Errorf("%s succeeds", line)
				}
				term.want("cat $T/data/k", "secret\n")
			}
			term.ok("echo new > $T/data/k")
			term.want("cat $T/data/k", "new\n")
			term.ok(": > $T/data/k")
			term.want("cat $T/data/k; rm $T/data/k", "")
		})
	}
}

// TestReadsAtAPlace: a result is read at any place until its end was read.
func TestReadsAtAPlace(t *testing.T) {
	p := alone(t)
	p.must(p.print("abc", sha))
	f := p.opened(sha, syscall.O_RDONLY)
	defer f.release()
	at := func(off int64, want string, errno syscall.Errno) {
		t.Helper()
		f.pos = off
		if got, e := f.read(8); got != want || e != errno {
			t.Errorf("at %d it reads %x (%v), want %x (%v)", off, got, e, want, errno)
		}
	}
	d := digest("abc")
	at(16, d[16:24], 0)
	at(0, d[:8], 0)
	at(40, "", 0)
	at(0, "", syscall.EINVAL)
	if text, _ := p.cat("tok/error"); !strings.Contains(text, "read once") {
		t.Errorf("error says %q", text)
	}
}

// TestKilledWriters: half of what somebody wanted to write is nothing.
func TestKilledWriters(t *testing.T) {
	term := mount(t).terminal("bash")
	term.login()
	term.ok("for i in 1 2; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out c$i.pem -subj /CN=$i -days 9 2>/dev/null; done; cat c1.pem c2.pem > two.pem")
	term.ok("printf old > $T/data/k; cp c1.pem $T/certs/k.pem; ls $O > before; mkfifo pipe")
	const dies = "os.kill(os.getpid(), 9)' F"
	for _, line := range []string{
		"sh -c 'printf half; exec sleep 9' > F & sleep 0.2; kill -9 $!; wait $!",
		"sh -c 'printf half; exec sleep 9' >> F & sleep 0.2; kill $!; wait $!",
		"exec 4<>pipe; timeout -s INT 2 cat c2.pem pipe > F; exec 4>&-",
		"python3 -c 'import os, sys; f=open(sys.argv[1], \"wb\", 0); f.write(open(\"c2.pem\", \"rb\").read()); " + dies,
		"python3 -c 'import os, sys; f=open(sys.argv[1], \"wb\", 0); os.close(os.dup(f.fileno())); " + dies,
	} {
		for _, file := range []string{"$T/data/k", "$T/certs/k.pem", "$T/import"} {
			term.run(strings.ReplaceAll(line, "F", file))
			term.ok("printf old | cmp - $T/data/k && cmp c1.pem $T/certs/k.pem && ls $O | cmp - before")
		}
	}
	// Who is killed and has not written spoils nothing.
	term.ok("(sleep 9 & kill -9 $!; wait $! || cat two.pem) > $T/certs/k.pem; test $(ls $O | grep -c crt) = 2")
	term.ok("(echo one; sleep 9 & kill -9 $!; wait $! || echo two) > $T/data/k; printf 'one\ntwo\n' | cmp - $T/data/k")
}

// TestMadeOnce: of many who make one file at once one makes it, and none writes into what
// somebody else has put there for all to read.
func TestMadeOnce(t *testing.T) {
	p := alone(t)
	p.w.publicData("note", "public")
	dir, _, errno := p.walk("tok/data")
	p.must(errno)
	create := func(name string, flags uint32) syscall.Errno {
		var out fuse.EntryOut
		_, fh, _, errno := dir.Create(p.ctx(), name, syscall.O_WRONLY|syscall.O_CREAT|flags, 0o600, &out)
		if errno == 0 {
			f := &openFile{p: p, handle: fh}
			_, errno = f.writeAt("secret", 0)
			p.must(errno)
			f.close()
		}
		return errno
	}
	var made atomic.Int64
	var wg sync.WaitGroup
	public, _, errno := p.walk("tok/data/note")
	p.must(errno)
	for range 16 {
		wg.Go(func() {
			if _, _, errno := public.Open(p.ctx(), syscall.O_WRONLY|syscall.O_APPEND); errno != syscall.ESTALE {
				t.Errorf("a public file opens for a secret: %v", errno)
			}
			if create("new", syscall.O_EXCL) == 0 {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if got := p.ls("tok/data"); made.Load() != 1 || len(got) != 3 {
		t.Errorf("%d have made the file; there is %q", made.Load(), got)
	}
	p.w.publicData("late", "public")
	p.must(create("late", 0)) // when the kernel has not seen that it is there
	p.reads("tok/data/late", "secret")
}
