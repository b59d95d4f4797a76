package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// withCredential has the daemon be given the PIN of its token as a credential.
func (d *daemon) withCredential(t *testing.T) {
	t.Helper()
	credentials := filepath.Join(d.dir, "credentials")
	if err := os.MkdirAll(credentials, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(credentials, "pin.swtok"), []byte(userPIN+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	d.c.wrap = []string{"env", "CREDENTIALS_DIRECTORY=" + credentials}
}

// reload has the daemon take its grants anew, and waits until it says so n times in all.
func (d *daemon) reload(says string, n int) {
	d.t.Helper()
	if err := syscall.Kill(d.pid(), syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, "the grants to be read", func() bool { return strings.Count(d.said(), says) >= n })
}

// services is a web server and a job that use a key each by grants.
type services struct {
	d                     *daemon
	root, www, job, other *terminal
	nginx                 string // the file with its process's number
	doc                   map[string]string
}

// lines are those of a section of docs/services.md, for the directories of the daemon.
func (s *services) lines(heading string) string {
	s.d.t.Helper()
	if s.doc[heading] == "" {
		s.d.t.Fatalf("docs/services.md has no lines for %q", heading)
	}
	text := strings.ReplaceAll(s.doc[heading], "/etc/p11fs", s.d.dir+"/etc/p11fs")
	text = strings.ReplaceAll(text, "--system", "--root "+s.d.dir)
	return "sh -e -c " + quote(strings.ReplaceAll(text, "systemctl reload p11fs", "true"))
}

// TestServices runs the lines of docs/services.md as the users that it names: a web server
// and a job use one key each, after the daemon was started anew, and nothing else.
func TestServices(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "nginx", "curl", "openssl", "pkcs11-tool", "ssh")
	found, _ := filepath.Glob(engineLibrary)
	need(t, len(found) > 0, engineLibrary)
	s := &services{d: newDaemon(t, daemonConfig{system: true}), doc: readDoc(t, "services.md", "sh")}
	made := s.makeKeys()
	s.d.withCredential(t)
	s.d.start()
	s.grant()
	s.begin(made)
	s.mountRefuses()
	s.modulesRefuse()
	s.agentSigns()
	s.startAnew()
	s.mistake()
	s.takeAway()
	for _, term := range []*terminal{s.www, s.job, s.other, s.root} {
		term.close()
	}
	s.d.stop()
}

// makeKeys makes the keys with the PIN, and ends the daemon. It returns where the
// certificates are.
func (s *services) makeKeys() string {
	s.d.t.Helper()
	s.d.start()
	root := s.d.terminal()
	root.ok("printf '%s\\n' " + soPIN + " demo " + userPIN + " | p11fs init swtok && echo " + userPIN + " > $T/login")
	root.ok("echo 'aes:256 label=other' > $T/generate; echo secret > $T/data/note")
	root.ok(s.lines("The key"))
	root.ok("chmod 0644 *.pem")
	made := strings.TrimSpace(root.ok("pwd"))
	s.d.stop()
	return made
}

// grant writes the grants.
func (s *services) grant() {
	s.d.t.Helper()
	s.root = s.d.terminal()
	s.root.ok(s.lines("The grants"))
	s.d.reload("msg=grants ", 1)
	s.root.want("cat $T/login", "public\n")
	if status := s.root.ok("cat $P/status"); !strings.Contains(status, "unlocked swtok since") || !strings.Contains(status, "grants 2 from ") {
		s.d.t.Errorf("status:\n%s", status)
	}
	if strings.Contains(s.root.ok("ls $O"), ".key") {
		s.d.t.Error("root sees a key by grants of others")
	}
}

// begin has the services do their work.
func (s *services) begin(made string) {
	t := s.d.t
	t.Helper()
	for name, term := range map[string]**terminal{"www-data": &s.www, "backup": &s.job, "nobody": &s.other} {
		*term = s.d.terminalOf(anotherUser(t, name, "pkcs11"))
		(*term).ok("cp " + made + "/*.pem . && eval \"$(p11fs env --root " + s.d.dir + ")\" && export M=" + ownModule(t) + fmt.Sprintf(" PORT=%d", freePort(t)))
		if r := (*term).run("cat " + filepath.Join(s.d.dir, "credentials/pin.swtok")); r.status == 0 {
			t.Errorf("%s reads the PIN", name)
		}
		(*term).want("cat $T/login", "public\n")
	}
	s.www.ok(engineLines(t, readDoc(t, "clients.md", "sh")))
	s.nginx = filepath.Join(strings.TrimSpace(s.www.ok("pwd")), "nginx.pid")
	t.Cleanup(func() { endProcess(t, s.nginx) })
	s.www.ok(s.lines("nginx"))
	if got := s.job.ok(s.lines("A job of cron")); !strings.Contains(got, "Verified OK") || !strings.Contains(got, "nightly.key\n") || strings.Contains(got, "other") || strings.Contains(got, "web.key") {
		t.Errorf("the job sees:\n%s", got)
	}
}

// mountRefuses: another user, another key, another mechanism, a change, through the mount.
func (s *services) mountRefuses() {
	s.d.t.Helper()
	s.other.fails("stat $O/web.key", syscall.ENOENT)
	s.job.fails("stat $O/web.key", syscall.ENOENT)
	s.www.want("ls $O", "nightly.pub\nweb.key\nweb.pub\n")
	s.www.want("ls $T/data", "")
	s.www.fails("sh -c '/bin/echo x > $O/web.key/sign:ecdsa-sha256'", syscall.EOPNOTSUPP)
	s.www.fails("sh -c '/bin/echo mine > $O/web.key/attr/label'", syscall.EPERM)
	s.www.fails("rmdir $O/web.key", syscall.EPERM)
	s.www.fails("mv $O/web.key $O/mine.key", syscall.EPERM)
	s.www.want("grep -E '^(sensitive|extractable|derive|allowed-mechanisms)=' $O/web.key/info | sort", "allowed-mechanisms=ecdsa\nderive=false\nextractable=false\nsensitive=true\n")
	if got := s.www.ok("cat $T/grants"); !strings.Contains(got, "user=www-data token=swtok label=web functions=sign mechanisms=ecdsa # ") || strings.Contains(got, "backup") {
		s.d.t.Errorf("$T/grants of the service:\n%s", got)
	}
	s.other.want("cat $T/grants", "")
	if got := s.root.ok("cat $T/grants"); strings.Count(got, "functions=") != 2 {
		s.d.t.Errorf("$T/grants of root:\n%s", got)
	}
	s.www.fails("sh -c '/bin/echo lock > $T/ctl'", syscall.EACCES)
	if said := s.d.said(); !strings.Contains(said, `grant="user=33 token=swtok label=web id=0x01 functions=sign mechanisms=ecdsa-sha256"`) {
		s.d.t.Errorf("the log has no line that allows it:\n%s", said)
	}
}

// modulesRefuse: likewise through both modules.
func (s *services) modulesRefuse() {
	s.d.t.Helper()
	s.www.ok("head -c 32 /dev/zero > hash")
	for _, m := range modules() {
		tool := "pkcs11-tool --module " + m.path(s.d.t) + " "
		s.www.ok(tool + "--sign --mechanism ECDSA --id 01 -i hash -o sig.raw && [ -s sig.raw ]")
		if got := s.www.ok(tool + "-O"); strings.Count(got, "Private Key Object") != 1 || strings.Contains(got, "Secret Key") || strings.Contains(got, "note") {
			s.d.t.Errorf("%s: the service sees\n%s", m.name, got)
		}
		if got := s.other.ok(tool + "-O"); strings.Contains(got, "Private Key Object") {
			s.d.t.Errorf("%s: another user sees\n%s", m.name, got)
		}
		for _, line := range []string{
			"--sign --mechanism ECDSA --id 02 -i hash -o no",
			"--sign --mechanism ECDSA-SHA256 --id 01 -i hash -o no",
			"--derive --mechanism ECDH1-DERIVE --id 01 -i nightly.pem -o no",
			"--delete-object --type privkey --id 01",
			"--set-id 09 --type privkey --id 01",
		} {
			if r := s.www.run(tool + line); r.status == 0 {
				s.d.t.Errorf("%s: %s succeeded: %s", m.name, line, r.out)
			}
		}
	}
}

// agentSigns: an agent of the service's user offers its key, and signs.
func (s *services) agentSigns() {
	s.d.t.Helper()
	if got := s.job.ok("XDG_RUNTIME_DIR=$PWD p11fs agent ssh-add -L > nightly.ssh; cat nightly.ssh"); strings.Count(got, "ecdsa-sha2-nistp256") != 1 || !strings.Contains(got, "nightly") || len(lines(strings.TrimSpace(got))) != 1 {
		s.d.t.Errorf("the agent offers\n%s", got)
	}
	s.job.ok("XDG_RUNTIME_DIR=$PWD p11fs agent ssh-keygen -Y sign -f nightly.ssh -n file < report > report.ssh && [ -s report.ssh ]")
}

// startAnew: with the next daemon, and a start of the server beside it, all goes on.
func (s *services) startAnew() {
	s.d.t.Helper()
	endProcess(s.d.t, s.nginx)
	s.d.stop()
	s.d.start()
	s.www.ok("OPENSSL_CONF=$PWD/engine.cnf nginx -c $PWD/nginx.conf -e $PWD/error.log && curl -sS --cacert server.pem https://localhost:$PORT/")
}

// mistake: a file with a mistake changes nothing, and is named.
func (s *services) mistake() {
	s.d.t.Helper()
	grants := filepath.Join(s.d.dir, "etc/p11fs/grants.d")
	s.root.ok("echo user=www-data token=swtk > " + grants + "/bad")
	s.d.reload("grants not taken", 1)
	if said := s.d.said(); !strings.Contains(said, grants+`/bad:1: there is no token \"swtk\" here: write one of swtok`) {
		s.d.t.Errorf("the log does not say what to write:\n%s", said)
	}
	s.www.ok("curl -sS --cacert server.pem https://localhost:$PORT/")
	if r := s.root.run("p11fs grants check --root " + s.d.dir); r.status == 0 || !strings.Contains(r.err, grants+"/bad:1: ") {
		s.d.t.Errorf("check: %d %s", r.status, r.err)
	}
}

// takeAway: without the grant the next operation is refused, also one that has begun.
func (s *services) takeAway() {
	s.d.t.Helper()
	grants := filepath.Join(s.d.dir, "etc/p11fs/grants.d")
	s.job.ok("exec 3<>$O/nightly.key/sign && echo data >&3")
	s.root.ok("rm " + grants + "/bad " + grants + "/nightly " + grants + "/web")
	s.d.reload("msg=grants ", 2) // the first is the start's
	if r := s.job.run("cat <&3"); r.status == 0 {
		s.d.t.Error("a signature goes on without its grant")
	}
	s.job.fails("stat $O/nightly.key", syscall.ENOENT)
	if r := s.job.run("p11fs sign swtok/nightly < report"); r.status == 0 {
		s.d.t.Error("the job signs without a grant")
	}
	if r := s.www.run("curl -sS --cacert server.pem https://localhost:$PORT/"); r.status == 0 {
		s.d.t.Error("nginx signs without a grant")
	}
}

// endProcess ends a process that has left its number in a file.
func endProcess(t testing.TB, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		return // it was not started, or has ended
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= 1 {
		t.Errorf("%s: %q", file, b)
		return
	}
	if err := syscall.Kill(n, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	eventually(t, "the server to end", func() bool { return syscall.Kill(n, 0) != nil })
}

// unitGroup makes the control group of a unit, and returns the file that takes processes
// into it.
func unitGroup(t *testing.T, unit string) string {
	t.Helper()
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(top + "/systemd/cgroup.procs"); err == nil { // version 1
		top += "/systemd"
	}
	group := filepath.Join(top, unit)
	need(t, os.Mkdir(group, 0o755) == nil, "control groups that can be made")
	t.Cleanup(func() {
		eventually(t, "the control group to be empty", func() bool { return os.Remove(group) == nil })
	})
	return filepath.Join(group, "cgroup.procs")
}

// TestUnits is a grant of a systemd unit: on the mount, and through both modules, what runs in
// it has it, and the same user elsewhere has not.
func TestUnits(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "pkcs11-tool")
	unit := fmt.Sprintf("p11fs-test-%d.service", os.Getpid())
	procs := unitGroup(t, unit)
	d := newDaemon(t, daemonConfig{system: true})
	d.start()
	root := d.terminal()
	d.initToken(root)
	root.ok("echo " + userPIN + " > $T/login && echo 'ec:p256 label=web id=0x01' > $T/generate && echo > $T/logout && echo unlock " + userPIN + " > $T/ctl")
	root.ok("mkdir -p " + d.dir + "/etc/p11fs/grants.d && echo unit=" + unit + " user=daemon token=swtok label=web functions=sign > " + d.dir + "/etc/p11fs/grants.d/unit")
	d.reload("msg=grants ", 1)
	user := anotherUser(t, "daemon", "pkcs11")
	inside, outside := d.terminalOf(user, "sh", "-c", "read go; exec sh"), d.terminalOf(user)
	if err := os.WriteFile(procs, fmt.Append(nil, inside.pid()), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(inside.in, "go"); err != nil {
		t.Fatal(err)
	}
	inside.ok("echo msg > $O/web.key/sign && cat $O/web.key/sign > sig")
	outside.fails("stat $O/web.key", syscall.ENOENT)
	for _, term := range []*terminal{inside, outside} {
		term.ok("eval \"$(p11fs env --root " + d.dir + ")\"")
	}
	for _, m := range modules() {
		list := "pkcs11-tool --module " + m.path(t) + " -O --type privkey"
		if got := inside.ok(list); !strings.Contains(got, "web") {
			t.Errorf("%s: the unit does not see its key: %s", m.name, got)
		}
		if got := outside.ok(list); strings.Contains(got, "web") {
			t.Errorf("%s: its user sees it elsewhere: %s", m.name, got)
		}
	}
	for _, term := range []*terminal{inside, outside, root} {
		term.close()
	}
	d.stop()
}

// TestHoldAtStart is a file with a PIN: the right one is taken at each start, and a wrong one
// is tried once, and not until it locks the PIN.
func TestHoldAtStart(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, daemonConfig{})
	file := filepath.Join(d.dir, "pin")
	write := func(pin string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	term := d.terminal()
	d.initToken(term)
	term.close()
	d.stop()
	d.c.args = []string{"--hold", "swtok=" + file}
	started := func(pin, tries, says string, held bool) {
		t.Helper()
		write(pin)
		d.start()
		term := d.terminal()
		if got := term.ok("cat $T/pin"); !strings.Contains(got, "user: tries="+tries) {
			t.Errorf("pin: %s", got)
		}
		if got := strings.Contains(term.ok("cat $P/status"), "\nunlocked swtok since "); got != held || !strings.Contains(d.said(), says) {
			t.Errorf("held is %v\n%s", got, d.said())
		}
		term.ok("echo " + userPIN + " > $T/login && echo > $T/logout")
		term.close()
		d.stop()
	}
	for range 4 {
		write("wrong123")
		d.start()
		term := d.terminal()
		if got := term.ok("cat $T/pin; cat $P/status"); !strings.Contains(got, "user: tries=some") || strings.Contains(got, "\nunlocked") {
			t.Errorf("after a wrong PIN:\n%s\n%s", got, d.said())
		}
		term.close()
		d.stop()
	}
	if !strings.Contains(d.said(), "some tries are left: log in by hand first") {
		t.Errorf("the log does not say what to do:\n%s", d.said())
	}
	started(userPIN, "some", "log in by hand first", false)
	started(userPIN, "many", "the daemon holds a login", true)
}

// TestUnlock is a login that the daemon holds by a user's word, and its ends.
func TestUnlock(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	term.ok("echo 'aes:256 label=box' > $T/generate && echo > $T/logout")
	dir := filepath.Join(d.dir, "config/p11fs/grants.d")
	unlocked := func() bool { return strings.Contains(term.ok("cat $P/status"), "\nunlocked swtok since ") }
	term.ok(fmt.Sprintf("mkdir -p %s && echo user=$(id -u) token=swtok label=box functions=encrypt > %[1]s/box", dir))
	var listed []struct {
		Label     string
		Functions []string
	}
	if err := json.Unmarshal([]byte(term.ok("p11fs grants list --json")), &listed); err != nil || len(listed) != 1 || listed[0].Label != "box" || !slices.Equal(listed[0].Functions, []string{"encrypt"}) {
		t.Errorf("%+v, %v", listed, err)
	}
	d.reload("msg=grants ", 1)
	term.fails("stat $O/box.sec", syscall.ENOENT)
	if r := term.run("echo wrong1 | p11fs unlock swtok"); r.status != 4 || unlocked() {
		t.Errorf("a wrong PIN: %d %s", r.status, r.err)
	}
	term.ok("echo " + userPIN + " | p11fs unlock swtok")
	if !unlocked() {
		t.Error("unlocked, and status does not say so")
	}
	term.ok("[ -e $O/box.sec/encrypt ] && [ ! -e $O/box.sec/decrypt ] && echo data > $O/box.sec/encrypt && cat $O/box.sec/encrypt > out")
	// Under the IV of the message its ciphertext encrypts to the message.
	for _, again := range []string{"aes-gcm,iv=$iv", "aes-ctr,counter=${iv}00000002", "aes-ecb"} {
		if r := term.run("iv=$(head -c 12 out | od -An -tx1 | tr -d ' \n'); tail -c +13 out | head -c 5 > $O/box.sec/encrypt:" + again); r.status == 0 {
			t.Errorf("who may encrypt alone decrypts with %s: %q", again, term.ok("cat $O/box.sec/encrypt:"+again))
		}
	}
	// What waits is gone with the login.
	term.ok("echo data > $O/box.sec/encrypt && p11fs lock swtok")
	if r := term.run("cat $O/box.sec/encrypt"); r.status == 0 || unlocked() {
		t.Error("locked, and there is a result")
	}
	for name, line := range map[string]string{
		"a change of the PIN":  "echo " + userPIN + " other123 > $T/pin && echo other123 " + userPIN + " > $T/pin",
		"the security officer": "echo so:" + soPIN + " > $T/login && echo init-pin " + userPIN + " > $T/ctl && echo > $T/logout",
	} {
		term.ok("echo unlock " + userPIN + " > $T/ctl")
		if !unlocked() {
			t.Fatalf("%s: not unlocked", name)
		}
		term.ok(line)
		if unlocked() {
			t.Errorf("%s: still unlocked", name)
		}
	}
	if !strings.Contains(d.said(), `reason="the PIN was changed"`) {
		t.Errorf("the log does not say why:\n%s", d.said())
	}
	term.close()
	d.stop()
}
