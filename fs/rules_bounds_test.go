package fs

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
)

func TestRule9OutputIsBounded(t *testing.T) {
	p := alone(t)
	const ctr = "tok/objects/disk.sec/encrypt:aes-ctr,counter=000102030405060708090a0b0c0d0e0f"
	chunk := strings.Repeat("x", 1<<20)
	f := p.opened(ctr, syscall.O_WRONLY)
	n := 0
	var errno syscall.Errno
	for ; n < 80 && errno == 0; n++ {
		errno = f.write(chunk)
	}
	wantErrno(t, "the write", errno, syscall.EFBIG)
	if why, _ := p.cat("tok/error"); !strings.Contains(why, "encrypt:stream") {
		t.Errorf("the error has no way for a big file: %s", why)
	}
	if n < 60 || n > 66 {
		t.Errorf("refused after %d MiB", n)
	}
	f.close()
	t.Run("unless it is read meanwhile", func(t *testing.T) {
		f := p.opened(ctr, syscall.O_RDWR)
		defer f.close()
		total := 0
		for range 80 {
			p.must(f.write(chunk))
			s, errno := f.read(len(chunk))
			p.must(errno)
			total += len(s)
		}
		rest, errno := f.all()
		p.must(errno)
		if total+len(rest) != 80<<20 {
			t.Errorf("%d bytes came out", total+len(rest))
		}
	})
	t.Run("in all sessions of a user", func(t *testing.T) {
		f := p.opened(ctr, syscall.O_RDWR)
		defer f.close()
		account := p.w.fs.config.Engine.Account(p.uid)
		rest := 192<<20 - int(account.Held())
		p.must(errnoFor(account.Take(rest)))
		errno := f.write(chunk)
		account.Give(rest)
		wantErrno(t, "the write", errno, syscall.EDQUOT)
	})
	t.Run("nothing stays held", func(t *testing.T) {
		_, _ = p.cat("tok/generate")
		p.nothingHeld()
	})
}

func TestRule10AnInterruptComesBeforeTheEffect(t *testing.T) {
	p := alone(t)
	p.w.fs.grace = 0
	cancel := make(chan struct{})
	close(cancel)
	interrupted := &fuse.Context{Caller: fuse.Caller{Owner: fuse.Owner{Uid: p.uid, Gid: p.uid}, Pid: uint32(p.pid)}, Cancel: cancel}
	before := len(p.ls("tok/objects"))
	text, _ := p.cat("tok/error")

	g := p.opened("tok/generate", syscall.O_WRONLY)
	_, errno := g.handle.(*handle).Write(interrupted, []byte("aes:128 label=new"), 0)
	wantErrno(t, "a command", errno, syscall.EINTR)
	if n := len(p.ls("tok/objects")); n != before {
		t.Error("the interrupted command made a key")
	}
	p.must(g.write("aes:128 label=new")) // it may be given again
	p.must(g.close())
	p.must(p.rmdir("tok/objects/new.sec"))

	f := p.opened(sha, syscall.O_RDWR)
	defer f.close()
	p.must(f.write("abc"))
	_, errno = f.handle.(*handle).Write(interrupted, []byte("lost"), 3)
	wantErrno(t, "a write", errno, syscall.EINTR)
	_, errno = f.handle.(*handle).Read(interrupted, make([]byte, 10), 3)
	wantErrno(t, "a read", errno, syscall.EINTR)
	wantErrno(t, "a close", f.handle.(*handle).Flush(interrupted), syscall.EINTR)
	p.must(f.write("def"))
	if got, errno := f.all(); got != digest("abcdef") {
		t.Errorf("after the interrupts: %x, %v", got, errno)
	}
	if after, _ := p.cat("tok/error"); after != text {
		t.Errorf("error tells of an interrupt: %q", after)
	}
	t.Run("who closes is nobody's rival", func(t *testing.T) {
		given := p.opened(sha, syscall.O_WRONLY)
		defer given.close()
		p.must(given.write("given up"))
		h := given.handle.(*handle)
		wantErrno(t, "a close", h.Flush(interrupted), syscall.EINTR)
		if !h.writer.idle { // TestWriterThatIsKilled shows what that is for
			t.Error("the writer whose close was interrupted is still at work")
		}
	})
	t.Run("a wait can be interrupted", func(t *testing.T) {
		h := f.handle.(*handle)
		h.busy.lock(context.Background())
		defer h.busy.unlock()
		ctx, stop := context.WithCancel(p.ctx())
		time.AfterFunc(10*time.Millisecond, stop)
		_, errno := h.Read(ctx, make([]byte, 10), 0)
		wantErrno(t, "a read that waits", errno, syscall.EINTR)
	})
}

// TestGraceAfterAnInterrupt interrupts what is quick, and what waits.
func TestGraceAfterAnInterrupt(t *testing.T) {
	p := alone(t)
	p.w.fs.grace = 50 * time.Millisecond
	cancel := make(chan struct{})
	close(cancel)
	interrupted := &fuse.Context{Caller: fuse.Caller{Owner: fuse.Owner{Uid: p.uid, Gid: p.uid}, Pid: uint32(p.pid)}, Cancel: cancel}
	f := p.opened(sha, syscall.O_WRONLY)
	h := f.handle.(*handle)
	if _, errno := h.Write(interrupted, []byte("abc"), 0); errno != 0 {
		t.Errorf("a quick write: %v", errno)
	}
	wantErrno(t, "a quick close", h.Flush(interrupted), 0)
	p.reads(sha, digest("abc"))
	h.busy.lock(context.Background())
	start := time.Now()
	_, errno := h.Write(interrupted, []byte("abc"), 3)
	wantErrno(t, "a write that waits", errno, syscall.EINTR)
	if d := time.Since(start); d < 40*time.Millisecond || d > 5*time.Second {
		t.Errorf("it was given up after %v", d)
	}
	h.busy.unlock()
	f.release()

	ctx, end := p.w.fs.withGrace(context.Background())
	done := ctx.Done()
	end()
	select {
	case <-done:
		t.Error("a request that has ended counts as interrupted")
	case <-time.After(70 * time.Millisecond):
	}
	if ctx.Err() != nil {
		t.Error(ctx.Err())
	}
}

// TestOpenFilesCount: what open files hold counts in the account of the uid, those
// that are read only too, and is given back.
func TestOpenFilesCount(t *testing.T) {
	p := alone(t)
	account := p.w.fs.config.Engine.Account(p.uid)
	content := strings.Repeat("x", 1<<19)
	before := account.Held()
	var files []*openFile
	for range 3 {
		f := p.opened("tok/data/long", syscall.O_WRONLY|syscall.O_CREAT)
		p.must(f.write(content))
		files = append(files, f)
	}
	if n := account.Held() - before; n < 3<<19 || n > 3<<20 {
		t.Errorf("3 files of half a MiB that are written count as %d bytes", n)
	}
	for _, f := range files {
		f.close()
	}
	if n := account.Held(); n != before {
		t.Errorf("%d bytes count when the files are closed", n-before)
	}
	r := p.opened("tok/data/long", syscall.O_RDONLY)
	if n := account.Held() - before; n < 1<<19 {
		t.Errorf("a file of half a MiB that is read counts as %d bytes", n)
	}
	rest := 192<<20 - int(account.Held())
	p.must(errnoFor(account.Take(rest)))
	_, errno := p.cat("tok/data/long")
	account.Give(rest)
	wantErrno(t, "one more", errno, syscall.EDQUOT)
	r.close()
	if n := account.Held(); n != before {
		t.Errorf("%d bytes count when the reader is closed", n-before)
	}
}

// TestStatCopiesNothing: who looks for a name, asks for a length, or opens a file that
// the account has no room for, has no copy made of what is in it.
func TestStatCopiesNothing(t *testing.T) {
	p := alone(t)
	const long = 1 << 20
	p.must(p.print(strings.Repeat("x", long), "tok/data/long"))
	names := []string{"tok/data/long", "tok/objects/long.dat/value", "tok/objects/long.dat/attr/value"}
	for _, uid := range p.ls("tok/by-uid") {
		if _, _, errno := p.walk("tok/data/long~" + uid); errno == 0 {
			names = append(names, "tok/data/long~"+uid)
		}
	}
	if len(names) != 4 {
		t.Fatalf("the file has not two names: %q", names)
	}
	account := p.w.fs.config.Engine.Account(p.uid)
	for _, name := range names {
		t.Run(strings.ReplaceAll(strings.TrimPrefix(name, "tok/"), "/", " "), func(t *testing.T) {
			rest := 192<<20 - int(account.Held()) - long/2
			p.must(errnoFor(account.Take(rest)))
			defer account.Give(rest)
			const times = 4
			before := allocated()
			for range times {
				node, out, errno := p.walk(name)
				p.must(errno)
				var attr fuse.AttrOut
				p.must(node.Getattr(p.ctx(), nil, &attr))
				_, _, errno = node.Open(p.ctx(), syscall.O_RDONLY)
				if strings.Contains(name, "attr") {
					wantErrno(t, "the open", errno, syscall.EPERM)
					continue
				}
				wantErrno(t, "the open", errno, syscall.EDQUOT)
				if out.Size != long || attr.Size != long {
					t.Errorf("it is %d or %d bytes long", out.Size, attr.Size)
				}
			}
			if n := (allocated() - before) / times; n > long/4 {
				t.Errorf("%d bytes are made each time", n)
			}
		})
	}
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestWhatWaitsCounts: each open file counts, and so does what is written while that
// waits, though nothing of it is kept.
func TestWhatWaitsCounts(t *testing.T) {
	p := alone(t)
	account := p.w.fs.config.Engine.Account(p.uid)
	closed := account.Held()
	f := p.opened(sha, syscall.O_RDWR)
	open := account.Held()
	if open < closed+512 {
		t.Errorf("an open file counts as %d bytes", open-closed)
	}
	h := f.handle.(*handle)
	h.busy.lock(context.Background())
	done := make(chan syscall.Errno)
	go func() { done <- f.write(strings.Repeat("x", 1<<20)) }()
	for start := time.Now(); account.Held() < open+1<<20; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatal("a write that waits does not count")
		}
	}
	h.busy.unlock()
	p.must(<-done)
	rest := 192<<20 - int(account.Held()) - 100
	p.must(errnoFor(account.Take(rest)))
	_, errno := p.open("tok/find", syscall.O_RDONLY)
	wantErrno(t, "one more open file", errno, syscall.EDQUOT)
	wantErrno(t, "one more write", f.write(strings.Repeat("x", 1000)), syscall.EDQUOT)
	account.Give(rest)
	p.must(f.close())
	if n := account.Held(); n != closed {
		t.Errorf("%d bytes count when the file is closed", n-closed)
	}
}

// TestRequestsEndWithTheTree: what waits, for a lock that another holds, does not keep
// the daemon from ending.
func TestRequestsEndWithTheTree(t *testing.T) {
	p := alone(t)
	p.w.fs.grace = interruptGrace
	f := p.opened(sha, syscall.O_RDWR)
	h := f.handle.(*handle)
	h.busy.lock(context.Background())
	defer func() {
		h.busy.unlock()
		f.release()
	}()
	done := make(chan syscall.Errno)
	go func() { done <- f.write("abc") }()
	select {
	case errno := <-done:
		t.Fatalf("it does not wait: %v", errno)
	case <-time.After(20 * time.Millisecond):
	}
	if err := p.w.fs.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case errno := <-done:
		wantErrno(t, "a write that waits", errno, syscall.EINTR)
	case <-time.After(5 * time.Second):
		t.Error("it waits on")
	}
}

// TestRequestsTakeTurns: a request of a uid that has used more than another one, and that
// works already, waits.
func TestRequestsTakeTurns(t *testing.T) {
	p := alone(t)
	more, less := p.w.fs.config.Engine.Account(p.uid), p.w.fs.config.Engine.Account(p.uid+1)
	early := 0
	for range 20 {
		for range 4 {
			n := more.Turn(t.Context())
			time.Sleep(2 * time.Millisecond)
			n.End()
		}
		less.Turn(t.Context()).End()
		begun := time.Now()
		turns := []*engine.Turn{less.Turn(t.Context()), more.Turn(t.Context())} // one for each processor
		_, _, errno := p.walk("tok/objects")
		p.must(errno)
		if time.Since(begun) < 8*time.Millisecond { // a turn is waited for for 10
			early++
		}
		for _, n := range turns {
			n.End()
		}
	}
	if early > 2 {
		t.Errorf("%d of 20 requests did not wait", early)
	}
}

// TestImportsTakeTurns: one import of a uid waits for another on the same token, and no
// other uid does.
func TestImportsTakeTurns(t *testing.T) {
	p := alone(t)
	pem, errno := p.cat("tok/objects/web.pub/public.pem")
	p.must(errno)
	slot, err := p.w.fs.config.Engine.SlotNamed("tok")
	if err != nil {
		t.Fatal(err)
	}
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	p.w.fs.imports.Store(importer{slot, p.w.fs.config.Engine.Account(p.uid)}, turn)
	sibling, other := p.w.person(p.uid, 200), p.w.person(1001, 300)
	for _, who := range []person{sibling, other} {
		p.must(who.echo(userPIN, "tok/login"))
	}
	done := make(chan syscall.Errno, 1)
	go func() { done <- sibling.print(pem, "tok/import:label=waited") }()
	other.must(other.print(pem, "tok/import:label=soon"))
	select {
	case errno := <-done:
		t.Errorf("an import did not wait for its turn: %v", errno)
	case <-time.After(50 * time.Millisecond):
	}
	if names := p.ls("tok/objects"); slices.Contains(names, "waited.pub") || !slices.Contains(names, "soon.pub") {
		t.Errorf("there is %q", names)
	}
	<-turn
	sibling.must(<-done)
	sibling.reads("tok/import:label=waited", "waited.pub\n")
	if len(turn) != 0 {
		t.Error("the turn was not given back")
	}
}
