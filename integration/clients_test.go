package integration

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpmtest"
)

// clientTimeout is how long the script of one client may take.
const clientTimeout = 120 * time.Second

// A clientSection is what the tests know of a section of docs/clients.md whose
// lines they run.
type clientSection struct {
	heading string // of the section
	files   string // testdata/clients/FILES.before.sh and .after.sh; one of the two may be absent
	tools   []string
	needs   []string // files of libraries
	// key is the type and the label of the key that the lines make. There are others
	// of its type in the token, without identifiers, and in a second token one of its
	// label, or of twin.
	key, label, twin string
	noModule         bool // in its lines, which are then run once
}

// engineLibrary is the file of libengine-pkcs11-openssl.
const engineLibrary = "/usr/lib/*/engines-3/pkcs11.so"

func clientSections() []clientSection {
	return []clientSection{
		{heading: "pkcs11-tool", files: "pkcs11-tool", tools: []string{"openssl"}, key: "EC:prime256v1", label: "tool"},
		{heading: "p11tool and certtool", files: "p11tool", tools: []string{"p11tool", "certtool", "openssl"}, key: "rsa:2048", label: "ca"},
		{heading: "openssl", files: "openssl", tools: []string{"openssl"}, needs: []string{engineLibrary}, key: "rsa:2048", label: "mail"},
		{heading: "ssh", files: "ssh", tools: []string{"ssh", "sshd", "ssh-agent", "git"}, key: "EC:prime256v1", label: "login", twin: "login2"},
		{heading: "p11fs agent", files: "agent", tools: []string{"ssh", "sshd", "ssh-agent", "git"}, key: "EC:prime256v1", label: "laptop", noModule: true},
		{heading: "git", files: "git", tools: []string{"ssh-keygen", "git"}, key: "EC:prime256v1", label: "commits", noModule: true},
		{heading: "curl", files: "curl", tools: []string{"curl", "openssl", "python3"}, needs: []string{engineLibrary}, key: "EC:prime256v1", label: "curl"},
		{heading: "nginx", files: "nginx", tools: []string{"nginx", "curl", "openssl"}, needs: []string{engineLibrary}, key: "EC:prime256v1", label: "nginx"},
		{heading: "Java", files: "java", tools: []string{"java", "keytool"}, key: "EC:prime256v1", label: "java"},
		{heading: "NSS", files: "nss", tools: []string{"certutil", "modutil", "openssl"}, key: "EC:prime256v1", label: "nss"},
	}
}

// TestClients runs the lines of docs/clients.md, section by section, through
// both modules, with what testdata/clients adds before (servers, an askpass)
// and after them (more checks). Each section has a daemon: OpenSSL's engine fails
// when another program destroys an object while it lists them.
func TestClients(t *testing.T) {
	t.Parallel()
	doc := readDoc(t, "clients.md", "sh")
	sections := clientSections()
	for heading, script := range doc {
		known := slices.ContainsFunc(sections, func(s clientSection) bool { return s.heading == heading })
		if script != "" && !known && heading != "Set-up" {
			t.Errorf("no test runs the lines of %q", heading)
		}
	}
	for _, m := range modules() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for _, s := range sections {
				if s.noModule && m.name != "libp11fs" {
					continue
				}
				t.Run(s.heading, func(t *testing.T) {
					t.Parallel()
					s.tooled(t)
					d := companyDaemon(t, daemonConfig{}, doc)
					s.run(t, d, m, doc)
				})
			}
		})
	}
}

// TestClientsTPM runs the lines of some sections with keys in a TPM, which all have one
// token. It takes 15 s, of which most are PINs' and swtpm's.
func TestClientsTPM(t *testing.T) {
	t.Parallel()
	needTools(t, "swtpm")
	soft := tpmtest.Start(t, nil)
	doc := readDoc(t, "clients.md", "sh")
	d := companyDaemon(t, tpmDaemon(soft), doc)
	d.terminal().ok("echo " + userPIN + " > $T/login") // what is made of the PIN is then there for all
	for _, s := range clientSections() {
		if slices.Contains([]string{"openssl", "ssh", "nginx", "Java"}, s.heading) {
			t.Run(s.heading, func(t *testing.T) {
				s.tooled(t)
				s.run(t, d, module{"libp11fs", ownModule}, doc)
			})
		}
	}
}

// tooled is need for a section.
func (s clientSection) tooled(t *testing.T) {
	t.Helper()
	needTools(t, append(s.tools, "pkcs11-tool")...)
	for _, pattern := range s.needs {
		found, _ := filepath.Glob(pattern)
		need(t, len(found) > 0, pattern)
	}
}

// companyDaemon is a daemon whose token docs/clients.md has set up, with a software token
// called twin beside it.
func companyDaemon(t *testing.T, c daemonConfig, doc map[string]string) *daemon {
	t.Helper()
	d := newDaemon(t, c)
	oldToken(t, filepath.Join(d.tokenRoot(), "twin"), swtok.Kind)
	d.start()
	runClient(t, d, "", d.lines(doc["Set-up"]), nil)
	return d
}

// lines are lines that name the token of a document, for that of the daemon.
func (d *daemon) lines(text string) string { return strings.ReplaceAll(text, swtok.Kind, d.c.token) }

// run runs the lines of the section.
func (s clientSection) run(t *testing.T, d *daemon, m module, doc map[string]string) {
	t.Helper()
	if doc[s.heading] == "" {
		t.Fatal("docs/clients.md has no lines for it")
	}
	script := clientFile(t, "company.sh") + clientFile(t, s.files+".before.sh") + d.lines(doc[s.heading]+clientFile(t, s.files+".after.sh"))
	script = fmt.Sprintf("KEY=%s LABEL=%s TWIN=%s\n%s", s.key, s.label, cmp.Or(s.twin, s.label), script)
	runClient(t, d, m.path(t), script, map[string]string{"engine.sh": engineLines(t, doc)})
}

// readDoc returns the lines in a language of each section of a page in docs.
func readDoc(t testing.TB, page, language string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]string{}
	heading, code := "", false
	for _, line := range lines(string(b)) {
		switch {
		case code && line == "```":
			code = false
		case code:
			doc[heading] += line + "\n"
		case line == "```"+language:
			code = true
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimPrefix(line, "## ")
		}
	}
	return doc
}

// engineLines are the lines of the openssl section that write engine.cnf.
func engineLines(t testing.TB, doc map[string]string) string {
	t.Helper()
	before, _, ok := strings.Cut(doc["openssl"], "\nEND\n")
	if !ok || !strings.HasPrefix(before, "cat > engine.cnf") {
		t.Fatal("the section on openssl does not begin with engine.cnf")
	}
	return before + "\nEND\n"
}

// clientFile returns a file of testdata/clients, or nothing if there is none.
func clientFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "clients", name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// A module is one that PKCS#11 programs load to reach the daemon.
type module struct {
	name string
	path func(testing.TB) string
}

func modules() []module {
	return []module{
		{"p11-kit-client", func(t testing.TB) string {
			t.Helper()
			found, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
			need(t, len(found) > 0, "p11-kit-client.so")
			return found[0]
		}},
		{"libp11fs", ownModule},
	}
}

// ownModule builds libp11fs.so, once for the run.
func ownModule(t testing.TB) string {
	t.Helper()
	needTools(t, "make", "gcc")
	path := filepath.Join(runDir(), "bin", "libp11fs.so")
	ownModuleBuild.once.Do(func() {
		cmd := exec.Command("make", "-s", "-f", "cmd/libp11fs/build.mk", "libp11fs", "LIBP11FS="+path)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			ownModuleBuild.err = fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	})
	if ownModuleBuild.err != nil {
		t.Fatal(ownModuleBuild.err)
	}
	return path
}

var ownModuleBuild struct {
	once sync.Once
	err  error
}

// newClientDaemon starts a daemon and makes its token usable by a script.
func newClientDaemon(t testing.TB, setUp string) *daemon {
	t.Helper()
	if setUp == "" {
		t.Fatal("docs/clients.md has no lines for the set-up")
	}
	d := startDaemon(t, daemonConfig{})
	runClient(t, d, "", setUp, nil)
	return d
}

// runClient runs a script in a directory of its own, which is its user's home,
// and in a POSIX session of its own; files are put there first. M is the
// module, PORT a free port, and the modules' variables are set.
func runClient(t testing.TB, d *daemon, module, script string, files map[string]string) string {
	t.Helper()
	dir := workDir(t, "client")
	files = mapWith(files, "script.sh", "eval \"$(p11fs env)\"\n"+script)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	own, err := filepath.Abs(filepath.Join("testdata", "clients"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ex", "script.sh")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), d.env()...),
		"HOME="+dir, "TMPDIR="+dir, "M="+module, "CLIENTS="+own, fmt.Sprintf("PORT=%d", freePort(t)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := startPinned(cmd); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	// What the script started in its group and did not end.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if err != nil {
		said := lines(out.String())
		t.Fatalf("%v; it wrote last\n%s", err, strings.Join(said[max(0, len(said)-60):], "\n"))
	}
	return out.String()
}

func mapWith(m map[string]string, key, value string) map[string]string {
	with := map[string]string{key: value}
	for k, v := range m {
		with[k] = v
	}
	return with
}

// freePort is a port of 127.0.0.1 that nobody listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
