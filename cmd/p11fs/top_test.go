package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A fakeMount is a directory with files as a daemon has them.
type fakeMount struct {
	t   testing.TB
	dir string
}

func newFakeMount(t testing.TB) fakeMount {
	t.Helper()
	m := fakeMount{t, t.TempDir()}
	m.write("status", "")
	m.write("metrics", "# nothing\n")
	m.write("who", "")
	return m
}

// write gives a file its content at once.
func (m fakeMount) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
}

const (
	topWho = `1 uid=4200000001 pid=11 command="busy\tone" door=rpc since=2020-01-02T03:04:05Z sessions=2 operations=1 calls=1000 errors=0 seconds=1.000000
2 uid=4200000002 pid=12 command="\x1b[31mred" door=files since=2020-01-02T03:04:05Z sessions=1 operations=0 calls=5 errors=1 seconds=0.500000 busy="a:b:generate:rsa-pkcs-key-pair-gen:1.250000" lock="a:b:2.500000:77" waits=processor:3,long:2 login="a:user:2020-01-02T03:04:05Z"
`
	topMetrics = `# TYPE p11fs_sessions gauge
p11fs_sessions 3
# TYPE p11fs_start_time_seconds gauge
p11fs_start_time_seconds 1
# TYPE p11fs_token_call_seconds histogram
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="0.001"} 10
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="0.002"} 10
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="+Inf"} 10
p11fs_token_call_seconds_sum{door="rpc",mechanism="sha256",token="swtok"} 0.001
p11fs_token_call_seconds_count{door="rpc",mechanism="sha256",token="swtok"} 10
# TYPE p11fs_token_call_errors_total counter
p11fs_token_call_errors_total{door="rpc",mechanism="sha256",token="swtok"} 0
`
	topMetricsLater = `# TYPE p11fs_sessions gauge
p11fs_sessions 3
# TYPE p11fs_start_time_seconds gauge
p11fs_start_time_seconds 1
# TYPE p11fs_token_call_seconds histogram
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="0.001"} 1000
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="0.002"} 1009
p11fs_token_call_seconds_bucket{door="rpc",mechanism="sha256",token="swtok",le="+Inf"} 1010
p11fs_token_call_seconds_sum{door="rpc",mechanism="sha256",token="swtok"} 1.001
p11fs_token_call_seconds_count{door="rpc",mechanism="sha256",token="swtok"} 1010
# TYPE p11fs_token_call_errors_total counter
p11fs_token_call_errors_total{door="rpc",mechanism="sha256",token="swtok"} 4
`
)

// readingOf is what a mount with these files tells at a time.
func readingOf(t testing.TB, who, metrics string, at time.Time) reading {
	t.Helper()
	m := newFakeMount(t)
	m.write("who", who)
	m.write("metrics", metrics)
	r, err := tree{m.dir}.reading(at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTopRates: what has changed between two readings, of callers that were there, have come,
// have come back, and of a daemon that has begun anew.
func TestTopRates(t *testing.T) {
	at := time.Date(2020, 1, 2, 4, 0, 0, 0, time.UTC)
	before := readingOf(t, topWho, topMetrics, at)
	later := strings.NewReplacer("calls=1000", "calls=1200", "seconds=1.0", "seconds=1.1", "calls=5 errors=1", "calls=6 errors=2").Replace(topWho) +
		"3 uid=1 pid=13 command=\"new\" door=rpc since=2020-01-02T04:00:01Z sessions=1 operations=0 calls=50 errors=0 seconds=5.0\n" +
		"4 uid=1 pid=14 command=\"back\" door=rpc since=2020-01-01T04:00:01Z sessions=1 operations=0 calls=50 errors=0 seconds=5.0\n"
	v := compare(before, readingOf(t, later, topMetricsLater, at.Add(2*time.Second)))
	for i, want := range []rates{{100, 0.0005, 0}, {0.5, 0, 0.5}, {25, 0.1, 0}, {}} {
		got := v.Callers[i].rates
		if got.Calls != want.Calls || got.Errors != want.Errors || math.Abs(got.Latency-want.Latency) > 1e-9 {
			t.Errorf("%d: %+v, want %+v", i, got, want)
		}
	}
	if len(v.Tokens) != 1 || v.Tokens[0].Calls != 500 || v.Tokens[0].Errors != 2 || math.Abs(v.Tokens[0].Latency-0.001) > 1e-9 || v.Tokens[0].P99 != 0.001 || v.Tokens[0].Token != "swtok" {
		t.Errorf("%+v", v.Tokens)
	}
	if got := percentile(nil, []callBucket{{1, 5}, {2, 9}, {4, 10}}, 0.99); got != 4 {
		t.Errorf("one of ten takes 4 s, and the percentile is %v", got)
	}
	anew := strings.NewReplacer("start_time_seconds 1", "start_time_seconds 2").Replace(topMetrics)
	v = compare(before, readingOf(t, strings.ReplaceAll(topWho, "T03:", "T05:"), anew, at.Add(2*time.Second)))
	if v.Callers[0].rates.Calls != 500 || v.Tokens[0].Calls != 5 {
		t.Errorf("a daemon that has begun anew: %+v", v)
	}
	if v := compare(before, before); v.Callers[0].rates != (rates{}) {
		t.Errorf("no time has gone by: %+v", v.Callers[0].rates)
	}
}

// TestTopOrder sorts by each key, and by all the other way round.
func TestTopOrder(t *testing.T) {
	v := topView{Callers: []topCall{
		{presence{Number: 1, User: "b", PID: 3, Sessions: 1, Operations: 1}, rates{1, 9, 0}},
		{presence{Number: 2, User: "a", PID: 9, Sessions: 7, Busy: &busyEntry{Seconds: 3}}, rates{5, 2, 0}},
		{presence{Number: 3, User: "c", PID: 1, Sessions: 2}, rates{2, 1, 8}},
	}}
	for name, want := range map[string]uint64{"calls": 2, "latency": 1, "errors": 3, "sessions": 2, "operations": 1, "waits": 2, "user": 2, "process": 3} {
		o, err := topOrderNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		v.sort(o, false)
		if got := v.Callers[0].Number; got != want {
			t.Errorf("by %s: first %d, want %d", name, got, want)
		}
		v.sort(o, true)
		if got := v.Callers[2].Number; got != want && name != "errors" && name != "operations" && name != "waits" { // of which two are alike
			t.Errorf("by %s, reversed: last %d, want %d", name, got, want)
		}
	}
	if _, err := topOrderNamed("beauty"); exitCode(err) != 2 {
		t.Errorf("beauty: %v", err)
	}
}

// TestTopPage: a page has never more lines than there is room for, whatever there is to tell.
func TestTopPage(t *testing.T) {
	v := topView{}
	for n := range uint64(40) {
		v.Callers = append(v.Callers, topCall{presence{Number: n}, rates{Calls: 1}})
		v.Tokens = append(v.Tokens, topToken{tokenCalls{Token: "t"}, rates{Calls: 1}, 0})
	}
	for room := range 100 {
		if got := len(v.page(room, "help")); got > room+1 {
			t.Errorf("%d lines, and room for %d", got, room+1)
		}
	}
	page := v.page(30, "help")
	text := ""
	for _, l := range page {
		text += l.text + "\n"
	}
	if !strings.Contains(text, "… 25 more\n\nTOKEN") || !strings.HasSuffix(text, "… 32 more\nhelp\n") || len(page) != 31 {
		t.Errorf("%s", text)
	}
}

// TestTopOnce: a table for scripts, and JSON, without colours or orders to a terminal.
func TestTopOnce(t *testing.T) {
	m := newFakeMount(t)
	m.write("who", topWho)
	m.write("metrics", topMetrics)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"top", "--mount", m.dir, "--once", "-d", "0.1", "--sort", "process"}, streams{in: os.Stdin, out: &out}); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, want := range []string{"sessions 3", "WAITS FOR", "busy one", "a:b: generate rsa-pkcs-key-pair-gen, 1.25s; a processor (3); long work (2)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.ContainsAny(got, "\x1b\t") {
		t.Errorf("it gives orders to the terminal: %q", got)
	}
	out.Reset()
	if err := run(t.Context(), []string{"top", "--mount", m.dir, "--once", "--json", "-d", "0.1"}, streams{in: os.Stdin, out: &out}); err != nil {
		t.Fatal(err)
	}
	var v topView
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Callers) != 2 || v.Callers[1].Busy == nil || *v.Callers[1].Busy != (busyEntry{"a:b", "generate", "rsa-pkcs-key-pair-gen", 1.25}) || v.Callers[1].Lock == nil || *v.Callers[1].Lock != (lockEntry{"a:b", 2.5, 77}) || v.Callers[1].Waits != (waitEntry{3, 2}) || len(v.Tokens) != 1 {
		t.Errorf("%s", out.String())
	}
	for _, delay := range []string{"0", "-1", "NaN", "1e9"} {
		if err := run(t.Context(), []string{"top", "--mount", m.dir, "-d", delay}, streams{in: os.Stdin, out: &out}); exitCode(err) != 2 {
			t.Errorf("a delay of %s: %v", delay, err)
		}
	}
}

// A screen is what stands on the pages that a program has drawn.
type screen struct {
	t    *testing.T
	read <-chan []byte
	all  []byte
}

// newScreen reads the master's end of a terminal until the test ends.
func newScreen(t *testing.T, master *os.File) *screen {
	read := make(chan []byte)
	go func() {
		defer close(read)
		for buf := make([]byte, 64<<10); ; {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			select {
			case read <- bytes.Clone(buf[:n]):
			case <-t.Context().Done():
				return
			}
		}
	}()
	return &screen{t: t, read: read}
}

// more waits for what is drawn next; what is what is waited for.
func (s *screen) more(what string) {
	s.t.Helper()
	select {
	case b := <-s.read:
		s.all = append(s.all, b...)
	case <-time.After(time.Minute):
		s.t.Fatalf("%s does not come; read so far: %q", what, s.all)
	}
}

// await waits until the newest whole page is as it is wanted, and returns its lines.
func (s *screen) await(what string, is func(page []string) bool) []string {
	s.t.Helper()
	for ; ; s.more(what) {
		pages := strings.Split(string(s.all), home)
		if last := pages[len(pages)-1]; len(pages) > 1 && strings.HasSuffix(last, below) {
			if page := strings.Split(strings.TrimSuffix(last, below), "\r\n"); is(page) {
				return page
			}
		}
	}
}

// startTop starts the command at a terminal, without what main has around it, which leaves a
// slow command behind.
func startTop(ctx context.Context, t *testing.T, slave *os.File, m fakeMount) (done <-chan error) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	c := newRoot(streams{in: slave, out: slave, err: slave})
	c.SetArgs([]string{"top", "--mount", m.dir, "--delay", "0.1"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	return ended
}

// TestTopLive is a session at a terminal of a fixed size: what is shown, keys, another size,
// and the end, after which the terminal is as it was.
func TestTopLive(t *testing.T) {
	m := newFakeMount(t)
	m.write("who", topWho)
	for _, end := range []string{"q", "\x03", "signal"} {
		master, slave := openTerminal(t)
		resize := func(rows, columns uint16) {
			if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
				t.Fatal(err)
			}
		}
		resize(12, 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := startTop(ctx, t, slave, m)
		s := newScreen(t, master)
		first := func(name string) func(page []string) bool {
			return func(page []string) bool { return len(page) > 4 && strings.Contains(page[3], name) }
		}
		page := s.await("a table", first("busy one"))
		if echoes(t, slave) || !strings.Contains(page[2], colourHead) || !strings.Contains(page[4], colourWait) {
			t.Errorf("%q", page)
		}
		for _, line := range page {
			if n := utf8.RuneCountInString(line); n > 100+len(colourWait)+len("\x1b[0m")+len(toEnd) {
				t.Errorf("a line of %d: %q", n, line)
			}
		}
		if _, err := master.WriteString("w"); err != nil {
			t.Fatal(err)
		}
		s.await("by what waits", first("red"))
		if _, err := master.WriteString("r"); err != nil {
			t.Fatal(err)
		}
		s.await("the other way round", first("busy one"))
		resize(4, 20)
		_ = unix.Kill(os.Getpid(), unix.SIGWINCH) // it is the controlling terminal's to tell
		s.await("four lines", func(page []string) bool { return len(page) <= 4 })
		if end == "signal" {
			cancel()
		} else if _, err := master.WriteString(end); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%q: %v", end, err)
		}
		if !echoes(t, slave) {
			t.Errorf("%q: the terminal does not show what is typed", end)
		}
		for !bytes.Contains(s.all, []byte(pageOff)) {
			s.more("the page of before")
		}
		cancel()
	}
}

// TestTopDaemonGone: the end of the mount ends it, with the terminal as it was.
func TestTopDaemonGone(t *testing.T) {
	m := newFakeMount(t)
	_, slave := openTerminal(t)
	done := startTop(t.Context(), t, slave, m)
	waitNoEcho(t, slave)
	if err := os.Remove(filepath.Join(m.dir, "who")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; exitCode(err) != exitNotMounted {
		t.Errorf("%v", err)
	}
	if !echoes(t, slave) {
		t.Error("the terminal does not show what is typed")
	}
}

// FuzzTop: whatever a daemon tells, which may be another user's, no page is too long, and no
// line gives orders to the terminal.
func FuzzTop(f *testing.F) {
	f.Add(topWho, topMetrics, 10)
	f.Add("9 command=\"a\\nb\" busy=\"x:y\" lock=\"x:y\" waits=processor:-1,long:99999999999999999999\n", "p11fs_sessions NaN\n", 3)
	f.Fuzz(func(t *testing.T, who, metrics string, height int) {
		var r reading
		for line := range strings.Lines(who) {
			if p, err := parsePresence(line); err == nil {
				r.who = append(r.who, p)
			}
		}
		var err error
		if r.numbers, r.calls, err = parseMetrics(metrics); err != nil {
			return
		}
		r.at = time.Unix(1000, 0)
		v := compare(reading{at: time.Unix(0, 0)}, r)
		v.sort(topOrders()[0], true)
		room := max(0, height%200)
		page := v.page(room, "help")
		if len(page) > room+1 {
			t.Errorf("%d lines, and room for %d", len(page), room+1)
		}
		if slices.ContainsFunc(page, func(l topLine) bool { return printable(l.text) != l.text || strings.ContainsAny(l.text, "\n\t") }) {
			t.Errorf("%q", page)
		}
	})
}
