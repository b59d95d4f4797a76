package integration

import (
	"slices"
	"strings"
	"testing"
)

// walkers are the programs that people point at any tree. What they make of a
// file that refuses to be read is theirs; that they end is ours.
var walkers = []string{
	"ls -lR $P",
	"ls -laiR $T",
	"find $P",
	"find $P -type f -exec cat {} + | head -c 10000000",
	"find $P -type f -size +0",
	"tree -a $P",
	"grep -r . $P",
	"grep -rl sign $P",
	"cp -r $P copy-r",
	"cp -a $P copy-a",
	"rsync -a $P/ copy-rsync/",
	"du -sh $P",
	"du -a --apparent-size $P",
	"tar -cf walk.tar -C $P .",
	"wc -c $T/*",
	"file $T/* || true",
	"stat -f $P",
	"df $P",
	"md5sum $O/*/*",
	"python3 -c 'import os,sys\nfor d, ds, fs in os.walk(sys.argv[1]):\n for f in fs: os.stat(os.path.join(d, f))' $P",
}

// lookers are those of them that read no file.
var lookers = []string{"ls -lR $P", "ls -laiR $T", "find $P", "tree -a $P", "du -sh $P", "du -a --apparent-size $P", "find $P -type f -size +0"}

// TestWalkers points each of them at a mount with objects, a login, a session
// directory and a waiting result, and looks whether all is still there.
func TestWalkers(t *testing.T) {
	t.Parallel()
	needTools(t, "tree", "rsync", "tar", "find", "grep", "du")
	// Tens of thousands of requests one after the other: the race detector would
	// see little of them, and take minutes.
	_, term := ready(t, daemonConfig{binary: plainBinary(t)})
	prepareKeys(term)
	term.ok("echo secret > $T/data/note && mkdir $T/sessions/walk && echo 'aes:128 label=temporary token=false' > $T/sessions/walk/generate")
	const state = "ls -R $O $T/data $T/certs $T/by-id $T/by-uid && cat $T/login && ls $T/sessions $T/sessions/walk/objects && cat $T/data/note && stat $T/sessions/walk >/dev/null"
	before := term.ok(state)
	for _, line := range walkers {
		t.Run(strings.Fields(line)[0], func(t *testing.T) {
			term.ok("cat msg > $O/web.key/sign")
			res := term.run("timeout -k 1 120 sh -c " + quote(line))
			if res.status == 124 || res.status == 137 {
				t.Fatalf("%s does not end", line)
			}
			// Those that only look find nothing to complain about.
			if slices.Contains(lookers, line) && (res.status != 0 || res.err != "") {
				t.Errorf("%s ended with status %d:\n%s", line, res.status, trace(res.err))
			}
			if strings.Contains(res.err, "Input/output error") {
				t.Errorf("%s met EIO:\n%s", line, trace(res.err))
			}
			if after := term.ok(state); after != before {
				t.Errorf("%s changed what is there:\n%s", line, difference(before, after))
			}
			term.run("rm -rf copy-* walk.tar")
		})
	}
	// Only looking, by name and by attribute, takes no waiting result away.
	term.ok("cat msg > $O/web.key/sign")
	for _, line := range lookers {
		term.run(line)
	}
	term.ok("cat $O/web.key/sign > sig && openssl dgst -sha256 -verify web.pem -signature sig msg")

	// Nor does a walk make a result: nothing was written.
	term.run("grep -r . $P; tar -cf /dev/null -C $P .")
	term.run("cp -r $O/ec.key copied")
	if got := term.run("wc -c < copied/sign").out; strings.TrimSpace(got) != "0" && got != "" {
		t.Errorf("cp -r read %s bytes out of sign", got)
	}
}

// TestRemoveObject destroys one object with rm -r, which unlinks the files of
// the directory first.
func TestRemoveObject(t *testing.T) {
	t.Parallel()
	_, term := ready(t, daemonConfig{})
	prepareKeys(term)
	before := lines(term.ok("ls $O"))
	term.ok("rm -r $O/web.key")
	var want []string
	for _, name := range before {
		if name != "web.key" {
			want = append(want, name)
		}
	}
	if got := term.ok("ls $O"); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("after rm -r web.key the objects are %q, want %q", got, want)
	}
	term.ok("cat $O/web.pub/public.pem | cmp - web.pem")
	term.ok("rm -rf $O/aes.sec && test ! -e $O/aes.sec && test -e $O/ec.key/sign")
}

// TestMoveOut moves keys out of the tree, which mv does by a copy and rm -r: of a
// key there is no copy, so it stays, whatever it may be used for.
func TestMoveOut(t *testing.T) {
	t.Parallel()
	_, term := ready(t, daemonConfig{})
	prepareKeys(term)
	term.ok("echo 'rsa:1024 label=idle sign=false decrypt=false unwrap=false' > $T/generate && echo 'aes:128 label=idle encrypt=false decrypt=false' > $T/generate")
	before := term.ok("ls $O")
	for _, key := range []string{"web.key", "ec.key", "aes.sec", "idle.key", "idle.sec"} {
		term.ok("mkdir out")
		if res := term.run("mv $O/" + key + " out"); res.status == 0 {
			t.Errorf("mv takes %s away", key)
		}
		term.ok("rm -rf out")
	}
	if after := term.ok("ls $O"); after != before {
		t.Errorf("mv changed what is there:\n%s", difference(before, after))
	}
}
