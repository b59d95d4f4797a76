package fs

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipes is one open as a pipe: one process writes while another reads.
func TestPipes(t *testing.T) {
	m := mount(t)
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			term := m.terminal(shell)
			term.login()
			term.ok("echo aes:256 label=disk > $T/generate; cat $T/generate; D=$T/digest/sha256 E=$O/disk.sec/encrypt X=$O/disk.sec/decrypt I=iv=000102030405060708090a0b0c0d0e0f")
			term.ok("printf 'a\\nb\\n' > ab; openssl dgst -sha256 -binary ab > want; head -c 3000000 /dev/urandom > long; head -c 80000000 /dev/zero > big")
			for _, line := range []string{
				// The reader waits for who writes slowly.
				"exec 3<>$D; (echo a; sleep 0.5; echo b) >&3 & cat <&3 > got; exec 3>&-; wait; cmp want got",
				"exec 3<>$E; (echo a; sleep 0.5; echo b) >&3 & cat <&3 > c; exec 3>&-; wait; cat c > $X; cat $X | cmp - ab",
				"exec 3<>$E:aes-cbc-pad,$I; (cat long; sleep 0.3; echo b) >&3 & cat <&3 > c; exec 3>&-; wait $! || s=$?; cat c > $X:aes-cbc-pad,$I; cat $X:aes-cbc-pad,$I > got; cat long > one; (cat long; echo b) > two; cmp one got || cmp two got",
				// And begins before it.
				"exec 3<>$D; cat <&3 > got & sleep 0.3; cat ab >&3; exec 3>&-; wait; cmp want got",
				// By a process of its own for each part, which close theirs: the last one counts.
				"exec 3<>$D; (cat ab; cat long) >&3; cat <&3 > got; exec 3>&-; cat ab long | openssl dgst -sha256 -binary | cmp - got",
				// A process that has not written ends nothing.
				"exec 3<>$D; (printf a; /bin/true; sh -c : ; sleep 0.2; printf b) >&3 & cat <&3 > got; exec 3>&-; wait; printf ab | openssl dgst -sha256 -binary | cmp - got",
				// Who writes waits for who reads.
				"exec 3<>$E:aes-ctr,counter=00000000000000000000000000000000; cat big >&3 & (sleep 0.3; cat) <&3 > c; exec 3>&-; wait $!; test $(wc -c < c) = 80000000",
				"exec 3<>$E:aes-ctr,counter=00000000000000000000000000000000; cat big >&3 & (head -c 1000 > c; sleep 1; cat >> c) <&3; exec 3>&-; wait $!; test $(wc -c < c) = 80000000",
				// The next message, and none under the same IV.
				"exec 3<>$D; cat ab >&3; cat <&3 > got; cmp want got; cat ab >&3; cat <&3 > got; exec 3>&-; cmp want got",
				"exec 3<>$E:aes-ctr,counter=00000000000000000000000000000000; cat ab >&3; cat <&3 > c; ! cat ab >&3; grep -q 'IV' $T/error; ! cat <&3; exec 3>&-",
				"exec 3<>$D; cat ab >&3; head -c 10 <&3 > got; ! cat long >&3; cat <&3 >> got; cmp want got; cat ab >&3; cat <&3 > got; exec 3>&-; cmp want got",
			} {
				term.ok("set -e; " + line)
				term.ok("set +e")
			}
			for _, line := range []string{
				"exec 3<>$D; timeout -s INT 0.3 cat <&3; test $? = 124",
				"exec 3<>$D; timeout -s KILL 0.3 cat <&3; test $? = 137",
				"exec 3<>$D; ! read x <&3", // who opened it would wait for itself
				// A writer that is killed is at its end; so is who waits for a reader that does not read.
				"exec 3<>$D; sh -c 'printf a; exec sleep 9' >&3 & w=$!; (sleep 0.3; kill -9 $w) & cat <&3 > got; exec 3>&-; printf a | openssl dgst -sha256 -binary | cmp - got",
				"exec 3<>$E; cat big >&3 & w=$!; head -c 10 <&3 >/dev/null; timeout 0.5 sh -c 'head -c 10; exec sleep 9' <&3 > /dev/null; kill -9 $w; wait $w; test $? = 137",
			} {
				if _, complaint, status := term.run(line + "\nexec 3>&-"); status != 0 {
					t.Errorf("%s\nended with %d: %s", line, status, complaint)
				}
			}
			term.ok("exec 3<>$D; python3 -c 'import os, sys\nos.set_blocking(3, False)\ntry: os.read(3, 9)\nexcept BlockingIOError: sys.exit(0)\nsys.exit(1)' && exec 3>&-")
		})
	}
}

// TestWaitsEnd: whatever a reader waits for, it has an end.
func TestWaitsEnd(t *testing.T) {
	for name, ends := range map[string]func(p person, f *openFile){
		"the close of who writes": func(_ person, f *openFile) { f.flush() },
		"the end of the session":  func(p person, _ *openFile) { p.must(p.echo("close-all", "tok/ctl")) },
		"the end of the terminal": func(p person, _ *openFile) { p.w.fs.callers.end(p.w.fs.callers.find(callerOf(p.ctx()))) },
		"a failed write":          func(_ person, f *openFile) { _ = f.write(strings.Repeat("x", 100)) },
		"truncation":              func(p person, f *openFile) { p.must(f.truncate(0)); f.pos = 0; p.must(f.write("y")); f.flush() },
	} {
		t.Run(name, func(t *testing.T) {
			p := alone(t)
			f := p.opened("tok/objects/web.pub/encrypt", syscall.O_RDWR)
			p.must(f.write(strings.Repeat("x", 180)))
			other := &openFile{p: p.child(101), node: f.node, handle: f.handle}
			done := make(chan syscall.Errno)
			go func() {
				_, errno := other.read(1000)
				done <- errno
			}()
			select {
			case errno := <-done:
				t.Errorf("a read while another writes: %v", errno)
			case <-time.After(50 * time.Millisecond):
			}
			ends(p, f)
			select {
			case errno := <-done:
				t.Logf("the read ends with %v", errno)
			case <-time.After(10 * time.Second):
				t.Error("a read waits for ever")
			}
			f.release()
		})
	}
}
