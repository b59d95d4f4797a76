package fs

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/tokens/tokentest/hooks"
)

// view is all that p can learn by looking: each name with its inode number,
// mode, owner, size and link, and what the texts say.
func (p person) view() []string {
	p.w.t.Helper()
	var lines []string
	var walk func(path string)
	walk = func(path string) {
		for _, name := range p.ls(path) {
			full := strings.TrimPrefix(path+"/"+name, "/")
			node, out, errno := p.walk(full)
			if errno != 0 {
				p.w.t.Fatalf("%s is listed and gives %v", full, errno)
			}
			line := fmt.Sprintf("%s ino=%d mode=%o uid=%d gid=%d nlink=%d size=%d", full, out.Ino, out.Mode, out.Uid, out.Gid, out.Nlink, out.Size)
			switch {
			case node.link != nil:
				target, errno := node.Readlink(p.ctx())
				line += fmt.Sprintf(" -> %s %v", target, errno)
			case node.file != nil && node.file.open == nil: // a text
				text, errno := p.cat(full)
				line += fmt.Sprintf(" %q %v", text, errno)
			}
			lines = append(lines, line)
			if node.dir != nil {
				walk(full)
			}
		}
	}
	walk("")
	return lines
}

// work does in secret what others must not see.
func (p person) work() {
	p.w.t.Helper()
	p.must(p.echo(userPIN, "tok/login"))
	p.must(p.echo("aes:256 label=hidden", "tok/generate"))
	p.must(p.echo("generic:256 label=mine id=07", "tok/generate"))
	p.must(p.print("secret", "tok/data/hidden"))
	p.must(p.mkdir("tok/sessions/hidden"))
	p.must(p.echo("aes:128 label=passing token=false private=false", "tok/sessions/hidden/generate"))
	p.must(p.print("waiting", sha))
	wantErrno(p.w.t.(*testing.T), "a wrong command", p.echo("class=nonsense", "tok/find"), syscall.EINVAL)
}

func TestOthersSeeNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		who   bool // the file who is for this one
		other func(w *world) person
	}{
		{"another terminal", true, func(w *world) person { return w.person(1000, 200) }},
		{"another user", false, func(w *world) person { return w.person(2000, 200) }},
		{"root", true, func(w *world) person { return w.person(0, 200) }},
		{"a caller in another PID namespace", false, func(w *world) person { return person{w, 1000, 0} }},
		{"sudo in the same terminal", true, func(w *world) person { return person{w, 0, 100} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, hooks.Options{})
			p, other := w.person(1000, 100), c.other(w)
			p.must(p.echo(userPIN, "tok/login"))
			p.must(p.echo("ec:p256 label=mine id=07", "tok/generate")) // the public half is for all
			_, _ = p.cat("tok/generate")
			p.must(p.echo("", "tok/logout"))
			view := func() []string {
				return slices.DeleteFunc(other.view(), func(line string) bool { return c.who && strings.HasPrefix(line, "who ") })
			}
			before := view()
			beforeError, _ := other.cat("tok/error")
			p.work()
			if d := cmp.Diff(before, view()); d != "" {
				t.Errorf("what shows of another's work:\n%s", d)
			}
			if after, _ := other.cat("tok/error"); after != beforeError {
				t.Errorf("another's error shows: %q, before %q", after, beforeError)
			}
			other.reads("tok/login", "public\n")
			p.reads("tok/login", "user\n")
			for _, name := range []string{
				"tok/objects/hidden.sec", "tok/objects/hidden.sec/encrypt", "tok/data/hidden", "tok/sessions/hidden",
				"tok/sessions/1", "tok/objects/passing.sec", "tok/objects/mine.key", "tok/by-id/07.sec",
			} {
				if _, _, errno := other.walk(name); errno != syscall.ENOENT {
					t.Errorf("%s gives %v, want ENOENT", name, errno)
				}
			}
			_, errno := other.cat(sha)
			wantErrno(t, "a result of another's", errno, syscall.ENODATA)
			p.reads(sha, digest("waiting"))
		})
	}
}

// TestNobody is a caller without a session that the daemon can see.
func TestNobody(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	nobody := person{w, 1000, 0}
	if got := nobody.ls("tok/objects"); !slices.Equal(got, []string{"web.pub", "tls.pub"}) {
		t.Errorf("nobody sees %q", got)
	}
	nobody.reads("tok/login", "public\n")
	if text, errno := nobody.cat("tok/error"); errno != 0 || !strings.Contains(text, "PID namespace") {
		t.Errorf("error says %q, %v", text, errno)
	}
	for _, path := range []string{"tok/login", "tok/logout", "tok/pin", "tok/ctl", "tok/find", "tok/generate", "tok/passphrase", "tok/import:auto", sha, "tok/random", "tok/objects/web.pub/verify"} {
		_, errno := nobody.open(path, syscall.O_WRONLY)
		wantErrno(t, "writing "+path, errno, syscall.EOPNOTSUPP)
	}
	_, errno := nobody.cat("tok/sessions/new")
	wantErrno(t, "reading sessions/new", errno, syscall.EOPNOTSUPP)
	wantErrno(t, "mkdir", nobody.mkdir("tok/sessions/x"), syscall.EOPNOTSUPP)
	wantErrno(t, "rmdir", nobody.rmdir("tok/objects/web.pub"), syscall.EOPNOTSUPP)
	_, errno = nobody.open("tok/data/x", syscall.O_WRONLY|syscall.O_CREAT)
	wantErrno(t, "a new data file", errno, syscall.EOPNOTSUPP)
	_, errno = nobody.cat(sha)
	wantErrno(t, "reading a result", errno, syscall.ENODATA)
}

func TestApplicationEndsWithItsLeader(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	heir := p.child(101)
	p.work()
	heir.reads("tok/login", "user\n")
	f := heir.opened("tok/objects/hidden.sec/encrypt", syscall.O_WRONLY)
	p.dies()
	heir.reads("tok/login", "public\n")
	if got := heir.ls("tok/sessions"); !slices.Equal(got, []string{}) {
		t.Errorf("the sessions are %q", got)
	}
	_, errno := heir.cat(sha)
	wantErrno(t, "a result that waited", errno, syscall.ENODATA)
	wantErrno(t, "a write", heir.echo(userPIN, "tok/login"), syscall.EOPNOTSUPP)
	wantErrno(t, "a write to what was open", f.write("x"), syscall.ENOENT)
	f.release()
	if n := w.fs.Stats().Applications; n != 0 {
		t.Errorf("%d applications are left", n)
	}
	t.Run("a session with the same number is another", func(t *testing.T) {
		again := w.person(1000, 100)
		again.reads("tok/login", "public\n")
		again.must(again.echo(userPIN, "tok/login"))
		again.reads("tok/login", "user\n")
		again.must(again.echo("", "tok/logout"))
	})
}

// TestLeaderThatEndsUnnoticed has a number given out again before the watch of
// the old leader is over.
func TestLeaderThatEndsUnnoticed(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	w.mu.Lock()
	close(w.leaders[100].ended)
	w.mu.Unlock()
	again := w.person(1000, 100)
	again.reads("tok/login", "public\n")
}

func TestSessionDirectories(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	p.must(p.mkdir("tok/sessions/job"))
	number, errno := p.cat("tok/sessions/new")
	p.must(errno)
	number = strings.TrimSpace(number)
	if got := p.ls("tok/sessions"); !slices.Equal(got, []string{"self", "1", "job", number}) {
		t.Errorf("the sessions are %q", got)
	}
	_, out, errno := p.walk("tok/sessions/job")
	p.must(errno)
	if out.Mode != fuse.S_IFDIR|0o700 || out.Uid != 1000 || out.Gid != 1000 {
		t.Errorf("mode %o of %d:%d", out.Mode, out.Uid, out.Gid)
	}
	p.reads("tok/sessions/self/login", "user\n")
	t.Run("results are each session's own", func(t *testing.T) {
		p.must(p.print("a", "tok/sessions/job/digest/sha256"))
		p.must(p.print("b", "tok/sessions/"+number+"/digest/sha256"))
		p.must(p.print("c", sha))
		p.reads("tok/sessions/"+number+"/digest/sha256", digest("b"))
		p.reads("tok/sessions/job/digest/sha256", digest("a"))
		p.reads("tok/sessions/self/digest/sha256", digest("c"))
	})
	t.Run("errors too", func(t *testing.T) {
		wantErrno(t, "a wrong command", p.echo("class=x", "tok/sessions/job/find"), syscall.EINVAL)
		if text, _ := p.cat("tok/sessions/job/error"); !strings.Contains(text, "CKR_ATTRIBUTE_VALUE_INVALID") {
			t.Errorf("error is %q", text)
		}
		p.reads("tok/error", "0x00000000 CKR_OK\n")
	})
	t.Run("names", func(t *testing.T) {
		for name, want := range map[string]syscall.Errno{
			"12": syscall.EINVAL, "new": syscall.EINVAL, "self": syscall.EINVAL, ".x": syscall.EINVAL, "a b": syscall.EINVAL,
			"": syscall.EINVAL, "é": syscall.EINVAL, strings.Repeat("x", 65): syscall.EINVAL, "job": syscall.EEXIST,
		} {
			wantErrno(t, "mkdir "+name, p.mkdir("tok/sessions/"+name), want)
		}
	})
	t.Run("session objects", func(t *testing.T) {
		p.must(p.echo("aes:128 label=passing token=false", "tok/sessions/job/generate"))
		p.reads("tok/sessions/job/generate", "passing.sec\n")
		if !slices.Contains(p.ls("tok/objects"), "passing.sec") {
			t.Error("the application's other sessions do not see it")
		}
	})
	t.Run("rm -r of one removes no token object", func(t *testing.T) {
		wantErrno(t, "rmdir", p.rmdir("tok/sessions/job/objects/web.key"), syscall.EPERM)
		p.must(p.rmdir("tok/sessions/job/objects/passing.sec"))
	})
	t.Run("rmdir closes it", func(t *testing.T) {
		f := p.opened("tok/sessions/job/objects/web.key/sign", syscall.O_WRONLY)
		p.must(f.write("x"))
		p.must(p.rmdir("tok/sessions/job"))
		wantErrno(t, "what was open", f.write("y"), syscall.ENOENT)
		if line, _ := p.cat("tok/error"); !strings.Contains(line, "CKR_SESSION_HANDLE_INVALID") {
			t.Errorf("error is %q", line)
		}
		f.release()
		for _, name := range []string{"tok/sessions/job", "tok/sessions/job/digest/sha256"} {
			_, _, errno := p.walk(name)
			wantErrno(t, name, errno, syscall.ENOENT)
		}
		p.reads("tok/login", "user\n")
		p.must(p.rmdir("tok/sessions/" + number))
		p.must(p.rmdir("tok/sessions/1"))
		p.reads("tok/login", "public\n") // the last session is closed
		if got := p.ls("tok/sessions"); !slices.Equal(got, []string{}) {
			t.Errorf("the sessions are %q", got)
		}
	})
}

// TestInodesTellNothing checks that numbers are stable, differ, and depend on
// the daemon, those of files on the application too.
func TestInodesTellNothing(t *testing.T) {
	w, w2 := newWorld(t, hooks.Options{}), newWorld(t, hooks.Options{})
	p, q := w.person(1000, 100), w.person(1000, 200)
	p.keys()
	q.must(q.echo(userPIN, "tok/login"))
	seen := make(map[uint64]string)
	for _, line := range p.view() {
		var path string
		var ino uint64
		if _, err := fmt.Sscanf(line, "%s ino=%d", &path, &ino); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if other, twice := seen[ino]; twice {
			t.Errorf("%s and %s have the number %d", path, other, ino)
		}
		seen[ino] = path
		if strings.HasPrefix(path, "tok/sessions/") {
			continue
		}
		node, out, errno := q.walk(path)
		if errno != 0 || (node.file == nil) != (out.Ino == ino) {
			t.Errorf("%s has the number %d for one and %d for another of those who see it, %v", path, ino, out.Ino, errno)
		}
		if _, out, _ := p.walk(path); out.Ino != ino {
			t.Errorf("%s has the number %d, and then %d", path, ino, out.Ino)
		}
	}
	if w.fs.ino("1/objects") == w2.fs.ino("1/objects") {
		t.Error("two daemons number alike")
	}
}

// Where descriptors are short, no uid takes them all, nor do all together.
func TestDescriptorsAreShared(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	system := w.fs.callers.system
	w.fs.callers.close()
	system.descriptors = 8
	w.fs.callers = newCallers(w.engine, system, true)
	uses := func(p person, want syscall.Errno) {
		t.Helper()
		if errno := p.echo("label=x", "tok/find"); errno != want {
			t.Errorf("uid %d, session %d: %v, want %v", p.uid, p.pid, errno, want)
		}
	}
	first := w.person(1000, 100)
	uses(first, 0)
	uses(w.person(1000, 101), 0)
	uses(w.person(1000, 102), syscall.EDQUOT)
	uses(w.person(1001, 200), 0)
	uses(w.person(1001, 201), 0)
	other := w.person(1002, 300)
	uses(other, syscall.EDQUOT)
	first.dies()
	for deadline := time.Now().Add(5 * time.Second); other.echo("label=x", "tok/find") != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an application that ended still counts")
		}
	}
}

// TestMetricsAreForTheOwner: what the daemon's memory shows of others' work is for root
// and the owner of the tree.
func TestMetricsAreForTheOwner(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	w.fs.config.UID = 1000
	w.fs.config.Metrics = func(owner bool) string { return fmt.Sprint(owner) }
	w.root = w.fs.rootNode()
	gofs.NewNodeFS(w.root, &gofs.Options{NullPermissions: true})
	for uid, want := range map[uint32]string{0: "true", 1000: "true", 2000: "false"} {
		w.person(uid, int(uid)+1).reads("metrics", want)
	}
}
