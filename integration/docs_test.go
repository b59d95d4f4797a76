package integration

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docBlock is a block of a section of a page, which must be there.
func docBlock(t testing.TB, page, language, heading string) string {
	t.Helper()
	text := readDoc(t, page, language)[heading]
	if text == "" {
		t.Fatalf("docs/%s has no %s in %q", page, language, heading)
	}
	return text
}

// TestEveryBlockIsRun: each page with lines for a shell is read by a test, which then has to do
// with every heading of it.
func TestEveryBlockIsRun(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	for _, pattern := range []string{"*_test.go", "../docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) < 10 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if pattern == "*_test.go" {
				source.Write(b)
			} else if strings.Contains(string(b), "\n```sh\n") && !strings.Contains(source.String(), `(t, "`+filepath.Base(name)+`"`) && filepath.Base(name) != "tasks.md" {
				t.Errorf("no test runs the lines of %s", name)
			}
		}
	}
}

// TestLoginDoc runs the lines of docs/login.md, each where the page says: in the terminal, in
// another one, as sudo, after the terminal, and as a unit.
func TestLoginDoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "ssh-agent", "ssh-keygen", "systemd-analyze")
	d := startDaemon(t, daemonConfig{})
	term := d.terminal("bash")
	d.initToken(term)
	block := func(heading string) string { t.Helper(); return docBlock(t, "login.md", "sh", heading) }
	// A PIN that is typed comes from a pipe; and there is no login when a pipe brings one.
	top := strings.Replace(block(""), "(umask", "echo "+userPIN+" | (umask", 1)
	top = strings.Replace(top, "\n(cat pin;", "\np11fs logout swtok\n(cat pin;", 1)
	out := term.ok("set -e\n" + top)
	for _, want := range []string{"public\n", "login swtok public", fmt.Sprintf("\n%X\n", sha256.Sum256([]byte("msg\n")))} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in what the lines print:\n%s", want, out)
		}
	}
	term.ok("p11fs generate swtok ec:p256 label=web && cat $O/web.pub/public.pem > web.pem && cp web.pem pin ~ && echo hello > msg && cp msg ~")
	verify := func(where, sig string) {
		t.Helper()
		if r := where; term.run("cd "+r+" && openssl dgst -sha256 -verify web.pem -signature "+sig+" msg && cd -").status != 0 {
			t.Errorf("%s is no signature", sig)
		}
	}

	t.Run("another pane", func(t *testing.T) {
		script := block("tmux, screen, IDE terminals")
		i := strings.Index(script, "export ")
		if i < 0 {
			t.Fatal("the page does not say what other panes have to set")
		}
		term.ok(script[:i])
		pane := d.terminal("bash")
		pane.want("cat $T/login", "public\n")
		pane.ok(script[i:] + `ssh-add -L > web.pub && echo hello > msg && ssh-keygen -q -Y sign -f web.pub -n file msg && grep -q "BEGIN SSH SIGNATURE" msg.sig`)
		pane.close()
	})
	t.Run("sudo", func(t *testing.T) {
		// sudo begins a session here, too; and the PIN is typed into a pipe.
		script := strings.ReplaceAll(block("sudo and su"), "/etc/", "./")
		one, two, _ := strings.Cut(script, "\n")
		term.ok("sudo() { setsid --wait \"$@\"; }; set -e; rm -f msg.sig\n" + one)
		verify(".", "msg.sig")
		term.ok("set -e; rm msg.sig; cat pin |\n" + two)
		verify(".", "msg.sig")
	})
	t.Run("what outlives the terminal", func(t *testing.T) {
		shell := d.terminal("bash")
		shell.ok("cp ~/msg ~/pin ~/web.pem . && ln $PWD/msg $PWD/here")
		dir := strings.TrimSpace(shell.ok("pwd"))
		shell.ok(block("nohup, setsid, and what outlives the terminal"))
		shell.ok("while pgrep -s 0 -x setsid > pids; do sleep 0.05; done") // it begins a session after setsid -f has ended
		shell.close()
		eventually(t, "the job to sign", func() bool { b, err := os.ReadFile(filepath.Join(dir, "msg.sig")); return err == nil && len(b) > 60 })
		verify(dir, "msg.sig")
	})
	t.Run("systemd", func(t *testing.T) {
		unit := docBlock(t, "login.md", "ini", "systemd")
		dir := workDir(t, "unit")
		if err := os.WriteFile(filepath.Join(dir, "job.service"), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "job.service")); strings.Contains(out, "job.service") {
			t.Errorf("systemd-analyze verify (%v): %s", err, out)
		}
		_, line, _ := strings.Cut(unit, "ExecStart=")
		line = strings.NewReplacer("%d", "$HOME", "/usr/local/bin/job", "./job").Replace(strings.TrimSpace(line))
		term.ok("echo 'p11fs sign swtok/web < msg > unit.sig' > job && chmod +x job && p11fs logout swtok && setsid --wait " + strings.Replace(line, "sh -c '", "sh -c 'exec 2>&1; ", 1))
		verify(".", "unit.sig")
	})
	term.close()
	d.stop()
}

// TestCronDoc starts a daemon by the line of docs/login.md for cron, and signs by the other: with
// cron's environment, where there is little.
func TestCronDoc(t *testing.T) {
	t.Parallel()
	// The mounts of other tests are the same user's: p11fs is not to find them.
	needRoot(t)
	needTools(t, "openssl", "unshare")
	bin := workDir(t, "bin")
	if err := os.Symlink(plainBinary(t), filepath.Join(bin, "p11fs")); err != nil {
		t.Fatal(err)
	}
	var jobs []string // at the start, and later
	path := ""
	for _, line := range lines(docBlock(t, "login.md", "crontab", "cron")) {
		if rest, ok := strings.CutPrefix(line, "PATH="); ok {
			path = strings.Replace(rest, "/usr/local/bin", bin, 1)
		} else if m := regexp.MustCompile(`^(?:@reboot|0 3 \* \* \*) (.*)$`).FindStringSubmatch(line); m != nil {
			jobs = append(jobs, m[1])
		} else if line != "" {
			t.Fatalf("what is the line %q?", line)
		}
	}
	if len(jobs) != 2 || path == "" {
		t.Fatalf("the page has the jobs %q and PATH=%s", jobs, path)
	}
	home := workDir(t, "home")
	term := newTerminal(t, terminalConfig{dir: home, shell: []string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh"}})
	term.ok(`while read -r _ at kind _; do case $kind in fuse*) umount -l "$at" ;; esac; done < /proc/self/mounts`)
	term.ok("job() { env -i HOME=" + home + " PATH=" + path + " SHELL=/bin/sh LOGNAME=x setsid --wait sh -c \"$1\"; }")
	term.ok("job 'exec " + jobs[1] + "' > mount.log 2>&1 & echo $! > started")
	term.t.Cleanup(func() {
		_, _ = command("env", "HOME="+home, filepath.Join(bin, "p11fs"), "umount", filepath.Join(home, "p11"))
	})
	eventually(t, "the mount", func() bool { return term.run("job 'p11fs path swtok' > path 2>&1").status == 0 })
	term.want("cat path", filepath.Join(home, "p11", "swtok")+"\n")
	term.ok("printf '%s\\n' " + soPIN + " cron " + userPIN + " | job 'p11fs init swtok' && echo " + userPIN + " > pin && echo hello > msg")
	term.ok("job 'p11fs login --pin-file pin && p11fs generate ec:p256 label=web && cat ~/p11/swtok/objects/web.pub/public.pem > web.pem'")
	term.ok("job '" + jobs[0] + "' && openssl dgst -sha256 -verify web.pem -signature msg.sig msg")
	term.ok("job 'p11fs umount' && wait")
	term.close()
}

// TestMechanismsDoc runs the lines of docs/mechanisms.md, makes a key of each kind that its
// tables name, and looks each mechanism up.
func TestMechanismsDoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{binary: plainBinary(t)})
	term.ok("head -c 100000 /dev/urandom > app.tar")
	doc := readDoc(t, "mechanisms.md", "sh")
	for _, heading := range []string{"Sign", "Encrypt", "Agree on a key, derive one", "Take a key elsewhere", "Digest"} {
		if doc[heading] == "" {
			t.Fatalf("docs/mechanisms.md has no lines for %q", heading)
		}
		term.ok("(set -e\n" + doc[heading] + ")")
	}
	term.ok("cmp app.tar app.copy && openssl dgst -sha3-256 -binary app.tar | cmp - app.tar.sha3")
	term.ok("test -e $O/session.sec && test -e $O/mail.sec && test -s cargo.wrapped")
	if r := term.run("p11fs sign swtok/modern --mechanism sha256-rsa-pkcs < app.tar > sig"); r.status == 0 {
		t.Error("a key that may do PSS alone does something else")
	}

	made := 0
	code := regexp.MustCompile("`([^`]+)`")
	var columns []string
	b, err := os.ReadFile("../docs/mechanisms.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(string(b)) {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			columns = nil
		case columns == nil:
			columns = cells
		}
		for i, cell := range cells {
			if columns == nil || slices.Equal(columns, cells) || i >= len(columns) {
				continue
			}
			for _, m := range code.FindAllStringSubmatch(cell, -1) {
				name, _, _ := strings.Cut(m[1], ",")
				switch {
				case strings.HasPrefix(columns[i], "make") && !strings.Contains(m[1], "…"):
					made++
					term.ok(fmt.Sprintf("p11fs generate swtok %s label=made-%d", m[1], made))
				case (strings.HasPrefix(columns[i], "mechanism") || columns[i] == "avoid") && !notMechanisms.MatchString(name):
					term.ok("p11fs mechanisms " + name + " > told")
				}
			}
		}
	}
	if made < 15 {
		t.Errorf("%d keys were made of the tables", made)
	}
	d.stop()
}

// notMechanisms are what the tables name in those columns besides: commands, files, options,
// kinds of key, and the beginnings of several names.
var notMechanisms = regexp.MustCompile(`^(p11fs .*|encrypt|encapsulate|decapsulate|p11fs-stream|--.*|.*\*|p192|p224|dsa:.*|dh:.*|kdf)$`)

// TestDocs makes the site as make docs does: of all manual pages, also those that the program
// writes, and with each link of them.
func TestDocs(t *testing.T) {
	t.Parallel()
	needTools(t, "mandoc")
	dir := workDir(t, "docs")
	man, site := filepath.Join(dir, "man"), filepath.Join(dir, "html")
	if out, err := command("sh", "-ec", `"$0" man "$1" && cp ../docs/man/*.[1-8] "$1"`, binary(), man); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("go", "run", "../contrib/docsite", "-root", "..", "-man", man, "-out", site).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"index.html":              `src="p11fs.svg"`,
		"p11fs-generate.1.html":   `<a href="p11fs.1.html">`,
		"p11fs-mechanisms.7.html": "CKM_AES_GCM",
		"login.html":              `href="p11fs-login.1.html"`,
	} {
		if b, err := os.ReadFile(filepath.Join(site, name)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s has no %s (%v)", name, want, err)
		}
	}
}

// TestOneExamplePIN: whoever goes from one page to the next goes on with the PIN that he has.
func TestOneExamplePIN(t *testing.T) {
	t.Parallel()
	given := regexp.MustCompile(`--pin ([^\s.…]+)|pin-value=(\w+)|echo '?([^'|>\n]+?)'? (?:\| p11fs (?:login|check|card|pin)|> \$\w+/login)|printf '%s\\e?n' (?:\S+ )?87654321 \S+ (.+?) \| p11fs`)
	found := 0
	for _, pattern := range []string{"../README.md", "../docs/*.md", "../docs/man/*"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatal(pattern, err)
		}
		for _, page := range pages {
			b, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range given.FindAllStringSubmatch(string(b), -1) {
				found++
				if pin := strings.Join(m[1:], ""); pin != userPIN && pin != "87654321" {
					t.Errorf("%s has the PIN %s, in %q", page, pin, m[0])
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("%d PINs were found: the pages write them otherwise now", found)
	}
}
