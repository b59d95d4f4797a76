package fs

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestParallelScripts: of many scripts that use one file in one session each gets its
// own result or an error.
func TestParallelScripts(t *testing.T) {
	m := mount(t)
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			term := m.terminal(shell)
			term.ok("D=$T/digest/sha256; export D; for i in $(seq 200); do echo $i > m.$i; openssl dgst -sha256 -binary m.$i > want.$i; done")
			for _, script := range []string{
				"(cat m.$i > $D; cat $D > got.$i) 2>/dev/null &",
				"sh -c 'cat m.$0 > $D; cat $D > got.$0' $i 2>/dev/null &",
				"{ sh -c 'cat m.$0 > $D' $i; sh -c 'x=0; cat $D > got.$0' $i; } 2>/dev/null &",
				"(printf '%s\\n' $i > $D; a=$(base64 < $D); echo $a | base64 -d > got.$i) 2>/dev/null &",
			} {
				out := term.ok("rm -f got.*; for i in $(seq 200); do " + script + " done; wait; right=0 wrong=0; for i in $(seq 200); do if cmp -s got.$i want.$i; then right=$((right+1)); elif test -s got.$i; then wrong=$((wrong+1)); fi; done; echo $right $wrong")
				right, wrong, _ := strings.Cut(strings.TrimSpace(out), " ")
				if n, _ := strconv.Atoi(right); wrong != "0" || n == 0 {
					t.Errorf("%s\n%s get their own result, and %s another's", script, right, wrong)
				}
			}
			term.ok("for i in 1 2 3; do cat m.$i > $D; done; cat $D | cmp - want.3")
			term.ok("sh -c 'cat m.1 > $D'; sh -c 'cat $D' | cmp - want.1")
		})
	}
	t.Run("threads", func(t *testing.T) {
		m.terminal().ok(`cat > p.py <<'END'
import hashlib, os, threading
D, wrong, right = os.environ["T"] + "/digest/sha256", [], []
def one(i):
    b = b"%d" % i
    try:
        with open(D, "wb", buffering=0) as f: f.write(b)
        with open(D, "rb") as f: got = f.read()
    except OSError: return
    (right if got == hashlib.sha256(b).digest() else wrong).append(i)
all = [threading.Thread(target=one, args=(i,)) for i in range(200)]
for t in all: t.start()
for t in all: t.join()
assert not wrong and right, (len(wrong), len(right))
END
python3 p.py`)
	})
}

// TestWriterThatIsKilled: one who writes while a signal is still ending another, or who
// writes after one who closed without a write, gets the result; beside one who lives, nobody knows whose it is.
func TestWriterThatIsKilled(t *testing.T) {
	const exits, signaled = 0x4, 0x400 // PF_EXITING, PF_SIGNALED
	for name, c := range map[string]struct {
		flags        int
		exit         string
		closed, want bool
		signalled    bool
	}{
		"killed":                     {flags: exits, exit: "9", want: true},
		"killed, dumping core":       {flags: exits, exit: "139", want: true},
		"exiting":                    {flags: exits, exit: "256"},
		"exiting when a signal came": {flags: exits | signaled, exit: "256", signalled: true},
		"living":                     {exit: "0"},
		"living when a signal came":  {flags: signaled, exit: "0", signalled: true},
		"closed":                     {exit: "0", closed: true, want: true},
		"killed unseen":              {flags: exits | signaled, exit: "0", signalled: true, want: true},
		"a thread of one that exits": {flags: exits | signaled, exit: "0"},
		"exiting unseen":             {flags: exits, exit: "0", signalled: true},
	} {
		t.Run(name, func(t *testing.T) {
			fields := make([]string, statExit+1)
			fields[statFlags], fields[statExit] = strconv.Itoa(c.flags), c.exit
			cs := &callers{system: processes{signalled: func(int) bool { return c.signalled }, stat: func(pid int) []string {
				if pid != 7 {
					t.Errorf("process %d is asked for, want 7", pid)
				}
				return fields
			}}}
			s := &session{fs: &FS{callers: cs}, exchanges: make(map[string]*exchange)}
			shell := party{"1 10"}
			first, err := s.beginWriting("sign", append(slices.Clone(shell), "7 70"))
			if err != nil {
				t.Fatal(err)
			}
			first.rest(c.closed)
			w, err := s.beginWriting("sign", append(slices.Clone(shell), "8 80"))
			if err != nil {
				t.Fatal(err)
			}
			r := &result{generation: w.generation, by: w.by}
			s.mu.Lock()
			defer s.mu.Unlock()
			if got := s.isForLocked("sign", r, append(slices.Clone(shell), "9 90")); got != c.want {
				t.Errorf("the result is the reader's: %v, want %v", got, c.want)
			}
		})
	}
}

// TestThreadOpens has a program open the file in another thread than its first, after
// another program of the same shell.
func TestThreadOpens(t *testing.T) {
	shell := party{"1 10", "2 20"}
	s := &session{overtaken: []overtaken{{path: "sign", by: append(slices.Clone(shell), "3 30")}}}
	r := &result{generation: 2, by: append(slices.Clone(shell), "4 40", "41")}
	if !s.isForLocked("sign", r, append(slices.Clone(shell), "5 50")) {
		t.Error("the reader does not get it")
	}
}
