package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// watch opens a file of events.
func (p person) watch(path string) *openFile {
	p.w.t.Helper()
	f, errno := p.open(path, syscall.O_RDONLY)
	p.must(errno)
	return f
}

// told is what a file of events has, without the time and the uid of each line.
func (f *openFile) told() string {
	var lines []string
	for f.handle.(*handle).nonblock = true; ; {
		s, errno := f.read(4096)
		if errno == syscall.EAGAIN || s == "" {
			return strings.Join(lines, "\n")
		}
		f.p.must(errno)
		for line := range strings.Lines(s) {
			_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
			line, _, _ = strings.Cut(line, " uid=")
			lines = append(lines, line)
		}
	}
}

// TestEventsFile: each is told of what he may see, and of his own logins.
func TestEventsFile(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	alice, bob := w.person(1000, 10), w.person(1001, 20)
	job := w.person(1000, 30)
	mine, all, theirs, jobs := alice.watch("tok/events"), alice.watch("events"), bob.watch("tok/events"), job.watch("events")
	alice.must(alice.echo(userPIN, "tok/login"))
	alice.must(alice.echo("aes:256 label=web id=0x01", "tok/generate"))
	alice.must(alice.echo("aes:256 label=web private=false id=0x02", "tok/generate"))
	alice.must(alice.rename("tok/objects/web.sec", "tok/objects/new.sec"))
	alice.must(alice.rmdir("tok/objects/new.sec"))
	const public = `tok made class=secret-key label="web" id=0x02`
	want := strings.Join([]string{
		"tok login user=user", `tok made class=secret-key label="web" id=0x01`, public,
		`tok changed class=secret-key label="new" id=0x01`, `tok gone class=secret-key label="new" id=0x01`,
	}, "\n")
	for who, f := range map[string]*openFile{"the token's file": mine, "that of all": all} {
		if got := f.told(); got != want {
			t.Errorf("%s tells\n%s\nwant\n%s", who, got, want)
		}
	}
	for who, f := range map[string]*openFile{"another user": theirs, "another session of the user": jobs} {
		if got := f.told(); got != public {
			t.Errorf("%s is told\n%s", who, got)
		}
	}
	// What was not read before a logout is told no more, and is not missing in silence.
	alice.must(alice.echo("aes:256 label=late", "tok/generate"))
	alice.must(alice.echo("", "tok/logout"))
	if got := mine.told(); got != "- lost events=1\ntok logout user=user" {
		t.Errorf("after a logout the token's file tells\n%s", got)
	}
	for _, p := range []string{"", "tok"} {
		if slices.Contains(alice.ls(p), "events") {
			t.Errorf("%q lists the file, and who reads a whole tree waits without end", p)
		}
	}
	if _, errno := alice.open("events", syscall.O_WRONLY); errno != syscall.EACCES {
		t.Errorf("opened for writing: %v", errno)
	}
	for _, f := range []*openFile{mine, all, theirs, jobs} {
		f.p.must(f.close())
	}
}

// TestEventsAreReadInParts: lines come whole, however little is read at once.
func TestEventsAreReadInParts(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	alice := w.person(1000, 10)
	f := alice.watch("tok/events")
	defer f.close()
	for range 3 {
		alice.must(alice.echo(userPIN, "tok/login"))
		alice.must(alice.echo("", "tok/logout"))
	}
	var text strings.Builder
	f.handle.(*handle).nonblock = true
	for {
		s, errno := f.read(7)
		if errno == syscall.EAGAIN {
			break
		}
		alice.must(errno)
		text.WriteString(s)
	}
	if n := strings.Count(text.String(), " tok log"); n != 6 || strings.Count(text.String(), "\n") != 6 {
		t.Errorf("read in parts:\n%s", text.String())
	}
}

// TestEventsWait: a read waits for the next event, and gives up when it is interrupted or
// who opened the file has gone; other requests go on meanwhile.
func TestEventsWait(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	alice := w.person(1000, 10)
	reading := func(f *openFile, ctx context.Context) <-chan string {
		done := make(chan string, 1)
		go func() {
			dest := make([]byte, 4096)
			r, errno := f.handle.(gofs.FileReader).Read(ctx, dest, 0)
			if errno != 0 {
				done <- errno.Error()
				return
			}
			b, _ := r.Bytes(dest)
			done <- string(b)
		}()
		return done
	}
	await := func(what string, done <-chan string) string {
		select {
		case s := <-done:
			return s
		case <-time.After(30 * time.Second):
			t.Fatal(what + ": the read still waits")
		}
		return ""
	}
	f := alice.watch("tok/events")
	first := reading(f, alice.ctx())
	ctx, interrupt := context.WithCancel(alice.ctx())
	second := reading(f, ctx)
	interrupt()
	if s := await("interrupted", second); s != syscall.EINTR.Error() {
		t.Errorf("interrupted: %q", s)
	}
	alice.must(alice.echo(userPIN, "tok/login"))
	if s := await("after a login", first); !strings.HasSuffix(s, " tok login user=user\n") {
		t.Errorf("after a login: %q", s)
	}
	third := reading(f, alice.ctx())
	alice.dies()
	if s := await("without its session", third); !strings.HasSuffix(s, " tok logout user=user\n") && s != "" {
		t.Errorf("without its session: %q", s)
	}
	f.release()
}

// TestManyEventReaders: readers count to their uid, and are refused beyond its share.
func TestManyEventReaders(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	alice := w.person(1000, 10)
	account := w.fs.config.Engine.Account(1000)
	before := account.Held()
	alice.must(alice.echo(userPIN, "tok/login"))
	var files []*openFile
	for range 100 {
		files = append(files, alice.watch("events"))
	}
	if held := account.Held() - before; held < 100*openSize {
		t.Errorf("%d bytes are counted for 100 readers", held)
	}
	for i := range 50 {
		alice.must(alice.echo(fmt.Sprintf("aes:256 label=k%d private=false", i), "tok/generate"))
	}
	for _, f := range files {
		f.release()
	}
	alice.dies()
	for end := time.Now().Add(30 * time.Second); account.Held() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes stay counted", account.Held())
		}
	}
}

// TestControlIsTheOwners: who does not own the tree brings no token and takes none away, and
// reads why.
func TestControlIsTheOwners(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	var lines []string
	w.fs.config.Control = func(_ context.Context, by engine.Owner, line string) error {
		lines = append(lines, fmt.Sprint(by.UID, " ", line))
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "refused by the test")
	}
	w.root = w.fs.rootNode()
	gofs.NewNodeFS(w.root, &gofs.Options{NullPermissions: true})
	alice, root := w.person(1000, 10), w.person(0, 20)
	if errno := alice.echo("remove tok force", "ctl"); errno != syscall.EPERM {
		t.Errorf("somebody else: %v", errno)
	}
	if errno := root.echo("add tok", "ctl"); errno != syscall.EINVAL {
		t.Errorf("root: %v", errno)
	}
	if !slices.Equal(lines, []string{"0 add tok"}) {
		t.Errorf("orders: %q", lines)
	}
	for p, why := range map[person]string{alice: "only root and the owner", root: "refused by the test"} {
		if text, errno := p.cat("error"); errno != 0 || !strings.Contains(text, why) {
			t.Errorf("error of %d: %q, %v", p.uid, text, errno)
		}
	}
	root.reads("tok/error", "0x00000000 CKR_OK\n")
}
