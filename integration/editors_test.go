package integration

import (
	"bytes"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An edit is what a program does to a file, under the variables F (the file) and
// NEW (the text that it is to have).
type edit struct{ name, line string }

// typed is a line that types keys, one after the other, at a program that wants a
// terminal.
const typed = `python3 -c '
import os, pty, select, subprocess, sys
ours, its = pty.openpty() # no session of its own: that would be another application
p = subprocess.Popen(sys.argv[2:], stdin=its, stdout=its, stderr=its, env=dict(os.environ, TERM="xterm"))
os.close(its)
def read(wait):
    while select.select([ours], [], [], wait)[0]:
        try:
            if not os.read(ours, 65536): return
        except OSError: return
for keys in sys.argv[1].split("|"):
    read(0.3)
    os.write(ours, keys.encode().decode("unicode_escape").encode())
read(10)
sys.exit(p.wait())' `

// replacing is how programs replace a file by a whole new one, whose name begins with
// what follows.
const replacing = `python3 -c 'import os, sys, tempfile
f, name = tempfile.mkstemp(dir=os.path.dirname(sys.argv[2]), prefix=sys.argv[1])
os.write(f, sys.argv[3].encode()); os.fsync(f); os.close(f); os.replace(name, sys.argv[2])' `

func edits() []edit {
	return []edit{
		{"shell", `printf "%s" "$NEW" > $F`},
		// The file becomes the backup, and a new one is written.
		{"vim-rename", `vim.tiny -es -N -u NONE -i NONE --cmd 'set backup backupcopy=no' -c "%s/.*/$NEW/" -c 'set noeol nofixeol binary' -c wq $F`},
		{"vim-copy", `vim.tiny -es -N -u NONE -i NONE --cmd 'set backup backupcopy=yes' -c "%s/.*/$NEW/" -c 'set noeol nofixeol binary' -c 'preserve' -c wq $F`},
		{"vim-plain", `vim.tiny -es -N -u NONE -i NONE -c "%s/.*/$NEW/" -c 'set noeol nofixeol binary' -c wq $F`},
		{"nano", typed + `'\x0b|'"$NEW"'|\x0f|\r|\x18' nano -I -L -B -G -J 1000 $F`},
		{"rsync", `mkdir -p src.$$ && printf "%s" "$NEW" > src.$$/${F##*/} && rsync -a src.$$/* ${F%/*}/; r=$?; rm -r src.$$; test $r = 0`},
		{"rsync-backup", `mkdir -p src.$$ && printf "%s" "$NEW" > src.$$/${F##*/} && rsync -a --backup src.$$/* ${F%/*}/; r=$?; rm -r src.$$; test $r = 0`},
		{"cp-backup", `printf "%s" "$NEW" > new.$$ && cp --backup new.$$ $F && cp --backup=numbered new.$$ $F; r=$?; rm new.$$; test $r = 0`},
		{"sed", `sed -i "s|.*|$NEW|" $F`},
		{"sed-backup", `sed -i.bak "s|.*|$NEW|" $F`},
		{"python", replacing + `. $F "$NEW"`},
		{"python-plain", replacing + `tmp $F "$NEW"`},
	}
}

// TestEditors: what editors and copying programs keep beside a file is the caller's
// alone and in memory, and the file is whole after it.
func TestEditors(t *testing.T) {
	t.Parallel()
	needTools(t, "vim.tiny", "nano", "rsync", "python3")
	d, owner, spy := twoUsers(t)
	began := time.Now().Add(-time.Second)
	mark := "mark" + rand.Text()
	home := workDir(t, "home")
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	owner.ok("export HOME=" + home + " TMPDIR=" + home)
	for _, e := range edits() { // of another length: rsync takes what is as long and of one second for the same
		owner.ok("F=$T/data/" + e.name + " && printf older-" + mark + " > $F && NEW=new-" + mark + " && " + e.line)
		owner.want("cat $F; echo; cat $T/error", "new-"+mark+"\n0x00000000 CKR_OK\n")
		owner.want("ls $T/objects | grep -c '^"+e.name+".dat$'", "1\n")
		spy.want("ls -A $T/data", "")
	}
	searchFor(t, mark, began, owner.dir, home, d.tokenRoot(), d.dir, os.TempDir(), "/tmp", "/var/tmp", "/dev/shm", "/run")
}

// TestCertificateCopies: copying programs and editors replace a certificate by a whole
// new one.
func TestCertificateCopies(t *testing.T) {
	t.Parallel()
	needTools(t, "vim.tiny", "rsync", "python3", "openssl")
	_, term := ready(t, daemonConfig{})
	term.ok("for n in older newer-one; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=$n -out $n.pem 2>/dev/null; done; NEW=$PWD/newer-one.pem")
	for name, line := range map[string]string{
		"cp":           `cp $NEW $F`,
		"install":      `install -m 600 $NEW $F`,
		"rsync":        `mkdir src && cp $NEW src/${F##*/} && rsync -a src/ ${F%/*}/; r=$?; rm -r src; test $r = 0`,
		"rsync-backup": `mkdir src && cp $NEW src/${F##*/} && rsync -a --backup src/ ${F%/*}/; r=$?; rm -r src; test $r = 0`,
		"cp-backup":    `cp --backup $NEW $F && cp --backup=numbered $NEW $F`,
		"sed":          `sed -n -i "1r $NEW" $F`,
		"vim":          `vim.tiny -es -N -u NONE -i NONE --cmd 'set backup backupcopy=no' -c '%d' -c "0r $NEW" -c 'g/^$/d' -c wq $F`,
		"python":       replacing + `. $F "$(cat $NEW)"`,
		"mv":           `cp $NEW $T/certs/.new && mv $T/certs/.new $F`,
	} {
		t.Run(name, func(t *testing.T) {
			term.t = t
			term.ok("F=$T/certs/" + name + ".pem && cp older.pem $F && " + line)
			term.ok("cmp $NEW $F && test \"$(cat $T/error)\" = '0x00000000 CKR_OK' && ls $O | grep -qx '" + name + ".crt'")
		})
	}
	term.want("ls -A $T/certs | grep '^[.]'; true", "")
}

// TestTemporaries: files with the names of temporary ones are bounded, and end with the
// login.
func TestTemporaries(t *testing.T) {
	t.Parallel()
	d, owner, spy := twoUsers(t)
	owner.ok("cd $T/data && echo one > .a.swp && echo two > 'b~' && cp .a.swp '#c#'")
	owner.want("cat .a.swp 'b~' '#c#'; ls -A; stat -c %s .a.swp", "one\ntwo\none\n#c#\n.a.swp\nb~\n4\n")
	spy.want("ls -A $T/data", "")
	spy.fails("cat $T/data/.a.swp", syscall.ENOENT)
	// One that another terminal has by the same name is another file.
	spy.ok("echo theirs > $T/data/.a.swp")
	owner.want("cat .a.swp", "one\n")
	owner.want("mv -n .a.swp 'b~'; cat .a.swp 'b~'", "one\ntwo\n")
	owner.want("ls $T/objects", "")
	owner.ok("mv .a.swp 'b~' && cat 'b~' && mv 'b~' real")
	owner.want("cat real; ls -A; ls $T/objects", "one\n#c#\nreal\nreal.dat\n")

	// The old value stays if the new one cannot be stored.
	owner.ok("head -c 2000000 /dev/zero > .big")
	owner.fails("mv .big real", syscall.EFBIG)
	owner.want("cat real; stat -c %s .big", "one\n2000000\n")

	// A backup is an object with that label until the new file is there.
	owner.ok("mv real 'real~' && cat 'real~' && echo new > real && rm 'real~'")
	owner.want("cat real; ls $T/objects", "new\nreal.dat\n")

	// A file that was renamed takes nothing more.
	owner.fails("exec 3> .late && echo x >&3 && mv .late late && echo y | cat >&3", syscall.ESTALE)
	owner.want("exec 3>&-; cat late", "x\n")

	owner.fails("(for i in $(seq 65); do echo x > .many$i || exit; done)", syscall.EDQUOT)
	owner.ok("rm .many* && head -c 8388608 /dev/zero > .huge")
	owner.fails("printf x | cat >> .huge", syscall.EFBIG)

	// Certificates likewise.
	owner.ok("cd $T/certs && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=x -out .x.pem.new && mv .x.pem.new x.pem")
	owner.want("ls -A; openssl x509 -noout -subject -in x.pem", "x.pem\nsubject=CN = x\n")
	owner.fails("echo rubbish > .x.pem.new && mv .x.pem.new x.pem", syscall.EPERM)
	owner.want("ls -A; openssl x509 -noout -subject -in x.pem", ".x.pem.new\nx.pem\nsubject=CN = x\n")

	owner.ok("exec 3< $T/data/.huge; echo > $T/logout")
	owner.fails("cat <&3", syscall.EACCES)
	owner.want("exec 3<&-; ls -A $T/data $T/certs", d.path("certs")+":\nx.pem\n\n"+d.path("data")+":\n")
}

// searchFor fails if a file that was written since then, below one of the directories
// but the first, holds text.
func searchFor(t *testing.T, text string, since time.Time, not string, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == not {
				return fs.SkipDir
			}
			var system unix.Statfs_t
			if e.IsDir() && filepath.Dir(path) != dir && unix.Statfs(path, &system) == nil && system.Type == unix.FUSE_SUPER_MAGIC {
				return fs.SkipDir // another test's tree, where who looks opens sessions
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || info.ModTime().Before(since) || info.Size() > 64<<20 {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
				t.Errorf("%s holds what was secret", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
