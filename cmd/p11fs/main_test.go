package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"p11fs/foreign"
	"p11fs/mountd"
	"p11fs/mountd/doctor"
	"p11fs/mountd/mountpoint"
	"p11fs/mountd/slotd"
)

// fakeTree is a directory with the files of a mounted token. Writing to it
// keeps what was written and does nothing.
func fakeTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "swtok"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"status": "version 1\n", "slots": "0 swtok swtok x\n",
		"swtok/login": "public\n", "swtok/logout": "", "swtok/ctl": "", "swtok/pin": "", "swtok/error": "0x00000000 CKR_OK\n",
		"swtok/info": "label: old\npin-length: 4-8\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// result is what one command did.
type result struct {
	out, err string
	code     int
}

// command runs one command with that standard input.
func command(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	in, err := os.CreateTemp(t.TempDir(), "in")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.WriteString(stdin); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	s := streams{in: in, out: &out, err: &errOut}
	failure := run(t.Context(), args, s)
	report(s, failure)
	return result{out.String(), errOut.String(), exitCode(failure)}
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExitCode(t *testing.T) {
	errno := func(e syscall.Errno) error {
		return &treeError{what: "login swtok", err: &os.PathError{Op: "write", Err: e}}
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("any"), 1},
		{errSilent, 1},
		{&usageError{err: errors.New("bad")}, 2},
		{fmt.Errorf("x: %w", &usageError{err: errors.New("bad")}), 2},
		{errNotMounted, 3},
		{fmt.Errorf("%w: x", errNotMounted), 3},
		{errno(syscall.EKEYREJECTED), 4},
		{errno(syscall.EACCES), 4},
		{errno(syscall.EBUSY), 5},
		{fmt.Errorf("x: %w", mountd.ErrBusy), 5},
		{fmt.Errorf("x: %w", slotd.ErrRunning), 5},
		{errno(syscall.EINVAL), 1},
		{&os.PathError{Op: "mkdir", Err: syscall.EACCES}, 1},
		{context.Canceled, 130},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Setenv(mountEnv, fakeTree(t))
	for _, args := range [][]string{
		{"frobnicate"},
		{"generate"},
		{"completion", "tcsh"},
		{"login", "swtok", "more"},
		{"login", "../swtok"},
		{"login", "--frob", "swtok"},
		{"generate", "swtok"},
		{"mount", "a", "b"},
		{"mount", "--log-level", "loud"},
		{"mount", "--provider", "magic", filepath.Join(t.TempDir(), "m")},
		{"status", "x"},
		{"init", "swtok", "--label", "", "--pin-file", "/dev/null"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r := command(t, "1\n2\n3\n", args...)
			if r.code != exitUsage {
				t.Errorf("exit code %d, want %d; it said %q", r.code, exitUsage, r.err)
			}
			if !strings.HasPrefix(r.err, "p11fs: ") {
				t.Errorf("it said %q", r.err)
			}
		})
	}
}

func TestReport(t *testing.T) {
	var said bytes.Buffer
	report(streams{err: &said}, fmt.Errorf("login: %w", context.Canceled))
	if want := "p11fs: interrupted\n"; said.String() != want {
		t.Errorf("an interrupt: it said %q, want %q", said.String(), want)
	}
	r := command(t, "", "statsu")
	want := "p11fs: unknown command \"statsu\" for \"p11fs\"\n" +
		"usage: p11fs COMMAND; p11fs --help lists them (did you mean status?)\n"
	if diff := cmp.Diff(want, r.err); diff != "" {
		t.Errorf("a misspelt command (-want +got):\n%s", diff)
	}
}

// TestWordsOfItsOwn: no wording of a library comes through.
func TestWordsOfItsOwn(t *testing.T) {
	t.Setenv(mountEnv, fakeTree(t))
	for line, want := range map[string]string{
		"login --frob":        "there is no option frob: p11fs login --help lists them\nusage: p11fs login [TOKEN] [flags]\n",
		"login -x":            "there is no option x: ",
		"login --mount":       "the option --mount stands without its value: ",
		"umount --lazy=x":     "\"x\" is nothing for the option --lazy: ",
		"login a b":           "p11fs login does not know what to do with \"b\": leave it out\nusage: ",
		"generate":            "p11fs generate: WHAT is missing: write it as in p11fs generate swtok rsa:2048 label=web\nusage: ",
		"generate swtok":      "p11fs generate: WHAT is missing: write it as in p11fs generate ",
		"verify swtok/web":    "p11fs verify: SIGNATURE is missing: write it as in p11fs verify swtok/web msg.sig < msg\n",
		"restore":             "p11fs restore: FILE is missing: ",
		"completion bash x":   "p11fs completion bash does not know what to do with \"x\"",
		"completion tcsh":     "p11fs completion does not know what to do with \"tcsh\": leave it out\nusage: p11fs completion COMMAND; ",
		"mount --log-level x": "there is no log level \"x\": name ",
	} {
		if r := command(t, "", strings.Fields(line)...); r.code != exitUsage || !strings.HasPrefix(r.err, "p11fs: "+want) {
			t.Errorf("%s: exit code %d and %q, want %q", line, r.code, r.err, want)
		}
	}
}

func TestLogin(t *testing.T) {
	dir := fakeTree(t)
	pinFile := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pinFile, []byte("from a file\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		stdin string
		args  []string
		want  string
		code  int
	}{
		{"first line", "1234\n5678\n", nil, "user:1234\n", 0},
		{"no newline", "1234", nil, "user:1234\n", 0},
		{"line of another system", "\xef\xbb\xbf1234\r\n", nil, "user:1234\n", 0},
		{"looks like a role", "so:1\n", nil, "user:so:1\n", 0},
		{"security officer", "1234\n", []string{"--so"}, "so:1234\n", 0},
		{"file", "", []string{"--pin-file", pinFile}, "user:from a file\n", 0},
		{"empty", "\n", nil, "", 1},
		{"nothing", "", nil, "", 1},
		{"far too long", strings.Repeat("x", 5000) + "\n", nil, "", 1},
		{"absent file", "", []string{"--pin-file", pinFile + "x"}, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "swtok/login"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r := command(t, c.stdin, append([]string{"login", "--mount", dir, "swtok"}, c.args...)...)
			if r.code != c.code {
				t.Errorf("exit code %d, want %d; it said %q", r.code, c.code, r.err)
			}
			if got := read(t, dir, "swtok/login"); got != c.want {
				t.Errorf("wrote %q, want %q", got, c.want)
			}
			if strings.Contains(r.err+r.out, "1234") {
				t.Errorf("the PIN was printed: %q %q", r.out, r.err)
			}
		})
	}
}

// TestWhoIsIn: what is so already is no failure, and no PIN is read for it.
func TestWhoIsIn(t *testing.T) {
	dir := fakeTree(t)
	t.Setenv(mountEnv, dir)
	for _, c := range []struct {
		name, who string
		args      []string
		says      string
		code      int
		wrote     string
	}{
		{"the only token", "public\n", []string{"login"}, "", 0, "user:1234\n"},
		{"twice", "user\n", []string{"login", "swtok"}, "no PIN was looked at", 0, "user\n"},
		{"the SO twice", "so\n", []string{"login", "--so"}, "no PIN was looked at", 0, "so\n"},
		{"in another role", "so\n", []string{"login"}, "", 0, "user:1234\n"},
		{"out", "public\n", []string{"logout"}, "", 0, "public\n"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "swtok/login"), []byte(c.who), 0o600); err != nil {
			t.Fatal(err)
		}
		r := command(t, "1234\n", c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.says) || c.says == "" && r.err != "" {
			t.Errorf("%s: %+v", c.name, r)
		}
		if got := read(t, dir, "swtok/login"); got != c.wrote {
			t.Errorf("%s: login holds %q", c.name, got)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "1234\n", "login"); r.code != exitUsage || !strings.Contains(r.err, "other, swtok") {
		t.Errorf("of two tokens: %+v", r)
	}
}

// TestInitAsks: what is in use is initialised only on being told so.
func TestInitAsks(t *testing.T) {
	for name, use := range map[string]func(dir string) error{
		"a PIN": func(dir string) error {
			return os.WriteFile(dir+"/swtok/info", []byte("flags: rng,user-pin-initialized\n"), 0o600)
		},
		"an object": func(dir string) error { return os.MkdirAll(dir+"/swtok/objects/a.pub", 0o700) },
	} {
		dir := fakeTree(t)
		if err := use(dir); err != nil {
			t.Fatal(err)
		}
		const answers = "87654321\nlabel\n1234\n"
		if r := command(t, answers, "init", "--mount", dir, "swtok"); r.code != exitBusy || !strings.Contains(r.err, "swtok is in use") || !strings.Contains(r.err, "--yes") || read(t, dir, "swtok/ctl") != "" {
			t.Errorf("%s: %+v, and ctl has %q", name, r, read(t, dir, "swtok/ctl"))
		}
		if r := command(t, answers, "init", "--mount", dir, "swtok", "--yes"); r.code != 0 {
			t.Errorf("%s, with --yes: %+v", name, r)
		}
	}
}

// TestNoAnswer: a command that waits for a daemon which hangs can be interrupted.
func TestNoAnswer(t *testing.T) {
	dir := fakeTree(t)
	if err := errors.Join(os.Remove(dir+"/status"), syscall.Mkfifo(dir+"/status", 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	var out bytes.Buffer
	if err := run(ctx, []string{"status", "--mount", dir}, streams{in: os.Stdin, out: &out, err: &out}); exitCode(err) != exitInterrupted {
		t.Errorf("it ended with %v", err)
	}
	f, err := os.OpenFile(dir+"/status", os.O_WRONLY, 0) // which lets it go
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestInit(t *testing.T) {
	for _, c := range []struct {
		name  string
		stdin string
		args  []string
		code  int
	}{
		{"all from standard input", "87654321\nmy token\n1234\n", nil, 0},
		{"label by flag", "87654321\n1234\n", []string{"--label", "my token"}, 0},
		{"too few lines", "87654321\nmy token\n", nil, 1},
		{"empty PIN", "87654321\nmy token\n\n", nil, 1},
		{"short PIN", "87654321\nmy token\n123\n", nil, 1},
		{"long PIN", "87654321\nmy token\n123456789\n", nil, 1},
		{"SO PIN with blanks", "8765 4321\nmy token\n1234\n", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeTree(t)
			r := command(t, c.stdin, append([]string{"init", "--mount", dir, "swtok"}, c.args...)...)
			if r.code != c.code {
				t.Fatalf("exit code %d, want %d; it said %q", r.code, c.code, r.err)
			}
			if c.code != 0 {
				if got := read(t, dir, "swtok/ctl"); got != "" {
					t.Errorf("it wrote %q", got)
				}
				return
			}
			// Each file shows the last command written to it.
			got := []string{read(t, dir, "swtok/ctl"), read(t, dir, "swtok/login"), read(t, dir, "swtok/logout")}
			so, _, _ := strings.Cut(c.stdin, "\n")
			if diff := cmp.Diff([]string{"init-pin 1234\n", "so:" + so + "\n", "\n"}, got); diff != "" {
				t.Errorf("ctl, login, logout (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	dir := fakeTree(t)
	// A directory where a file should be refuses the open.
	if err := os.Remove(filepath.Join(dir, "swtok/login")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "swtok/login"), 0o700); err != nil {
		t.Fatal(err)
	}
	why := "0x000000a0 CKR_PIN_INCORRECT: 2 tries left"
	if err := os.WriteFile(filepath.Join(dir, "swtok/error"), []byte(why+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := command(t, "1234\n", "login", "--mount", dir, "swtok")
	if want := "p11fs: login swtok: " + why + "\n"; r.err != want || r.code != exitFailure {
		t.Errorf("exit code %d and %q, want %q", r.code, r.err, want)
	}
	r = command(t, "1234\n", "login", "--mount", dir, "nothing")
	if !strings.Contains(r.err, `no token "nothing" (it has: swtok)`) || r.code != exitFailure {
		t.Errorf("exit code %d and %q for a token that is not there", r.code, r.err)
	}
	r = command(t, "1234\n", "login", "--mount", dir+"x", "swtok")
	if r.code != exitNotMounted {
		t.Errorf("exit code %d and %q without a mount", r.code, r.err)
	}
}

// TestNoBytesAtATerminal: bytes that are no text do not go to a terminal.
func TestNoBytesAtATerminal(t *testing.T) {
	t.Setenv(mountEnv, fakeTree(t))
	_, slave := openTerminal(t)
	for line, want := range map[string]int{
		"encrypt swtok/x": exitUsage, "sign swtok/x": exitUsage, "digest": exitUsage,
		"decrypt swtok/x": exitAuth, "digest --output /dev/null": exitFailure, "sign swtok/x -o /dev/null": exitAuth,
	} {
		in, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		err = run(t.Context(), strings.Fields(line), streams{in: in, out: slave, err: &bytes.Buffer{}})
		_ = in.Close()
		if exitCode(err) != want || (want == exitUsage) != strings.Contains(err.Error(), "a terminal") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestOutputIsNamed: an error of what a command writes names the file that was asked for.
func TestOutputIsNamed(t *testing.T) {
	dir := t.TempDir()
	if _, err := createOutput(dir+"/none/out", nil, 0o666); err == nil || !strings.Contains(err.Error(), dir+"/none/out: no such file") {
		t.Errorf("a directory that is not there: %v", err)
	}
	for name, fail := range map[string]func(o *output) error{
		"write":  func(o *output) error { _, err := o.Write([]byte("x")); return err },
		"commit": func(o *output) error { return o.commit() },
	} {
		o, err := createOutput(filepath.Join(dir, name), nil, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.file.Close(); err != nil {
			t.Fatal(err)
		}
		if err := fail(o); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)+": ") || strings.Contains(err.Error(), ".p11fs-") {
			t.Errorf("%s: %v", name, err)
		}
		o.discard()
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestPrivateOutput: keys and backups go into files of their own, whatever others put there
// meanwhile.
func TestPrivateOutput(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(path string, replace bool, before func()) error {
		o, err := createPrivate(path, replace)
		if err != nil {
			t.Fatal(err)
		}
		defer o.discard()
		if _, err := o.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		before()
		return o.commit()
	}
	link := func(name string) (path string, plant func()) {
		path = filepath.Join(dir, name)
		return path, func() {
			if err := os.Symlink(victim, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	path, plant := link("early")
	plant()
	if err := write(path, false, func() {}); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a link: %v", err)
	}
	path, plant = link("late")
	if err := write(path, false, plant); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a link that came meanwhile: %v", err)
	}
	path, plant = link("forced")
	if err := write(path, true, plant); err != nil {
		t.Errorf("in the place of a link: %v", err)
	}
	for name, want := range map[string]string{"victim": "kept", "forced": "new"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if left, _ := filepath.Glob(dir + "/.p11fs-*"); left != nil {
		t.Errorf("%v is left", left)
	}
}

func TestStatusAndPath(t *testing.T) {
	dir := fakeTree(t)
	t.Setenv(mountEnv, dir)
	if r := command(t, "", "status"); r.code != 0 || r.out != "version 1\n0 swtok swtok x\nlogin swtok public\nlabel swtok old\n" {
		t.Errorf("status: %+v", r)
	}
	pins := "user: tries=0 pin=set\nuser: wrong=2026-01-02T03:04:05Z uid=0 pid=1 door=fuse command=\"tries=1 pin=x\"\nso: tries=1 pin=to-be-changed\n"
	if err := os.WriteFile(filepath.Join(dir, "swtok/pin"), []byte(pins), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "label swtok old\npin swtok user: locked: p11fs pin --unlock swtok\npin swtok so: 1 try left, to be changed: p11fs pin --so swtok\n"
	if r := command(t, "", "status"); r.code != 0 || !strings.HasSuffix(r.out, want) {
		t.Errorf("status: %+v, want %q at its end", r, want)
	}
	if r := command(t, "", "path"); r.code != 0 || r.out != dir+"\n" {
		t.Errorf("path: %+v", r)
	}
	if r := command(t, "", "path", "swtok"); r.code != 0 || r.out != dir+"/swtok\n" {
		t.Errorf("path swtok: %+v", r)
	}
	if r := command(t, "", "path", "other"); r.code != exitFailure {
		t.Errorf("path other: %+v", r)
	}
	for _, word := range []string{"version", "--version"} {
		if r := command(t, "", word); r.code != 0 || !strings.HasPrefix(r.out, "p11fs "+mountd.Version) {
			t.Errorf("%s: %+v", word, r)
		}
	}
}

func TestChooseMount(t *testing.T) {
	mount := func(path, uid string) mountpoint.Mount {
		return mountpoint.Mount{Path: path, Type: mountpoint.Type, Options: []string{"user_id=" + uid}}
	}
	for _, c := range []struct {
		name   string
		mounts []mountpoint.Mount
		want   string
		code   int
	}{
		{"none", nil, "", exitNotMounted},
		{"usual place first", []mountpoint.Mount{mount("/a", "7"), mount("/usual", "7")}, "/usual", 0},
		{"the only own one", []mountpoint.Mount{mount("/a", "7"), mount("/b", "8"), mount("/p11", "0")}, "/a", 0},
		{"several own ones", []mountpoint.Mount{mount("/a", "7"), mount("/b", "7")}, "", exitUsage},
		{"the system's", []mountpoint.Mount{mount("/b", "8"), mount("/p11", "0")}, "/p11", 0},
		{"another's at the usual place", []mountpoint.Mount{mount("/usual", "8")}, "", exitNotMounted},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := chooseMount(c.mounts, "/usual", "/p11", "7")
			if got != c.want || exitCode(err) != c.code {
				t.Errorf("got %q, %v; want %q, exit code %d", got, err, c.want, c.code)
			}
		})
	}
}

func TestQuoteWord(t *testing.T) {
	for in, want := range map[string]string{
		"rsa:2048": "rsa:2048", "label=web": "label=web", "label=web server": `label="web server"`,
		`label="web server"`: `label="web server"`, `label=a "b" \c`: `label="a \"b\" \\c"`, "two words": "two words",
		"label=a\nextractable=true": "label=\"a\nextractable=true\"",
		"label='web server'":        "label='web server'", "unwrap-template={sign=true label=x}": "unwrap-template={sign=true label=x}",
		"pkcs5-pbkd2,salt=0x01,password=a b,iterations=1000": `pkcs5-pbkd2,salt=0x01,password="a b",iterations=1000`,
		"label:=a,b": `label="a,b"`, `label:="a" \`: `label="\"a\" \\"`, "label:=a\nsign=true": "label=\"a\nsign=true\"", "label:=": `label=""`,
		`pkcs5-pbkd2,salt=0x01,password="a, b"`: `pkcs5-pbkd2,salt=0x01,password="a, b"`,
	} {
		if got := quoteWord(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// TestImportReport has an object with a name that gives orders to a terminal.
func TestImportReport(t *testing.T) {
	r := &importReport{}
	r.add(foreign.Object{Place: "a\x1b[31m\ncame   b\x9b"}, outcomeLeft, "", errors.New("\x07"))
	var out bytes.Buffer
	if err := r.print(streams{out: &out}, false, true); err != nil || strings.ContainsAny(out.String(), "\x1b\x07") || !utf8.Valid(out.Bytes()) || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("%v: %q", err, out.String())
	}
}

func TestWelcome(t *testing.T) {
	fresh := welcome(mountd.Ready{Mount: "/mnt/it's mine", Tokens: []string{"awork", "swtok"}, Fresh: "swtok"})
	for _, want := range []string{`T='/mnt/it'\''s mine/swtok'`, " init swtok\n", "1234abcd > $T/login"} {
		if !strings.Contains(fresh, want) {
			t.Errorf("the first session has no %q:\n%s", want, fresh)
		}
	}
	used := welcome(mountd.Ready{Mount: "/mnt", Tokens: []string{"swtok"}})
	if strings.Contains(used, "init") || !strings.Contains(used, "web.key ] || echo 'rsa:2048") || !strings.Contains(used, " login swtok\n") || !strings.Contains(used, "T=/mnt/swtok\n") {
		t.Errorf("for a token in use:\n%s", used)
	}
	if none := welcome(mountd.Ready{Mount: "/mnt"}); strings.Contains(none, "swtok") {
		t.Errorf("without a token:\n%s", none)
	}
}

func TestPrintFindings(t *testing.T) {
	var out bytes.Buffer
	s := streams{out: &out}
	findings := []doctor.Finding{
		{Check: "a", Detail: "fine", Weak: []string{"old: migrate it"}},
		{Check: "c", Weak: []string{"the so PIN of old: locked"}},
		{Check: "b", Wrong: "broken", Mend: "mend b"},
	}
	if err := printFindings(s, findings, false); exitCode(err) != exitFailure {
		t.Errorf("got %v, want failure", err)
	}
	want := "good   a: fine\nweak   old: migrate it\nweak   the so PIN of old: locked\nwrong  b: broken\n       mend it with: mend b\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	if err := printFindings(s, []doctor.Finding{{Check: "a", Detail: "fine"}}, true); err != nil || out.Len() != 0 {
		t.Errorf("got %v and %q for a healthy machine, quietly", err, out.String())
	}
	if err := printFindings(s, findings[:2], true); err != nil || out.String() != "weak   old: migrate it\nweak   the so PIN of old: locked\n" {
		t.Errorf("got %v and %q for a token that works and could be kept better, quietly", err, out.String())
	}
}

func TestColours(t *testing.T) {
	// No terminal, no colours, whatever the environment says.
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if colours(streams{out: f}, func(string) string { return "" }) {
		t.Error("a file gets colours")
	}
}

// TestEveryCommandIsDocumented finds commands without a description, and flags
// without a word.
func TestEveryCommandIsDocumented(t *testing.T) {
	var visit func(c *cobra.Command)
	n := 0
	visit = func(c *cobra.Command) {
		n++
		if c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(streams{}))
	if n < 12 {
		t.Errorf("%d commands, want all of them", n)
	}
}

func TestMan(t *testing.T) {
	dir := t.TempDir()
	if r := command(t, "", "man", dir); r.code != 0 {
		t.Fatalf("man: %+v", r)
	}
	for _, page := range []string{"p11fs.1", "p11fs-mount.1", "p11fs-login.1", "p11fs-doctor.1"} {
		if text := read(t, dir, page); !strings.Contains(text, ".TH") {
			t.Errorf("%s is no manual page", page)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "p11fs-man.1")); err == nil {
		t.Error("the hidden command has a page")
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := command(t, "", "completion", shell); r.code != 0 || !strings.Contains(r.out, "p11fs") {
			t.Errorf("%s: exit code %d, %d bytes, %q", shell, r.code, len(r.out), r.err)
		}
	}
}

func TestCompleteTokens(t *testing.T) {
	t.Setenv(mountEnv, fakeTree(t))
	r := command(t, "", "__complete", "login", "")
	if want := "swtok\n:4\n"; r.code != 0 || r.out != want {
		t.Errorf("got %+v, want %q", r, want)
	}
	if r := command(t, "", "__complete", "login", "swtok", ""); r.out != ":4\n" {
		t.Errorf("a second argument: %+v", r)
	}
}
