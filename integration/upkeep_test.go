package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// describeAll is a line that prints what may be seen of all objects.
const describeAll = `for f in $O/*/info; do echo "$f"; cat "$f"; done`

// TestMigrate migrates a token that stock openCryptoki made while the daemon serves it, and
// rolls it back. Objects are as they were; the terminal's login ends each time.
func TestMigrate(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	d, term := ready(t, daemonConfig{stock: true})
	migrate := "printf '" + m.SOPIN + "\\n" + m.UserPIN + "\\n' | p11fs migrate swtok"
	login := "echo " + m.UserPIN + " > $T/login"
	term.ok(describeAll + " > before && test $(grep -c '^/' before) -ge 24")
	term.ok("p11fs doctor > doctor.out; grep 'tokens: 1 found' doctor.out")
	term.ok("printf 'wrong\\n" + m.UserPIN + "\\n' | p11fs migrate swtok 2>said; test $? = 4 && grep -q 'SO PIN' said")
	term.ok(migrate + " > out && grep -q '24 objects' out")
	term.ok("test \"$(cat $T/login)\" = public && " + login)
	term.ok(describeAll + " > after && diff before after")
	term.ok("p11fs check swtok && echo " + m.UserPIN + " | p11fs check --login swtok")
	term.ok("p11fs doctor > doctor.out; grep 'weak hashes of its PINs: p11fs migrate swtok --forget-backup' doctor.out")
	term.ok(migrate + " | grep already")
	const long = "a longer PIN than any of openCryptoki 3.8"
	term.ok("echo 'rsa:2048 label=new' > $T/generate && ls $O | grep new.key")
	term.ok("echo '" + m.UserPIN + " " + strings.ReplaceAll(long, " ", "-") + "' > $T/pin")

	term.ok("p11fs migrate --rollback swtok 2>said; test $? = 2 && grep -q yes said")
	term.ok("p11fs migrate --rollback --yes swtok")
	term.ok("test \"$(cat $T/login)\" = public && " + login + " && " + describeAll + " > after && diff before after")
	term.ok("p11fs doctor > doctor.out; ! grep 'wrong.*migration' doctor.out && grep '^weak .*when that was rolled back: p11fs migrate swtok migrates anew' doctor.out")
	term.ok(migrate + " 2>said; test $? = 2 && grep -q 'before a rollback' said && test -d $XDG_DATA_HOME/p11fs/.swtok.migration")
	term.ok("p11fs migrate --forget-backup --yes swtok && p11fs migrate --forget-backup swtok")
	term.ok(migrate + " && p11fs migrate --forget-backup --yes swtok")
	d.stop()
	d.start()
	term = d.terminal()
	term.ok(login + " && " + describeAll + " > after")
	term.ok("test $(grep -c '^/' after) -ge 24 && test \"$(ls -A $XDG_DATA_HOME/p11fs)\" = \"$(printf '.lock\\nswtok')\"")
}

// TestMigrateKill kills the command while it works; the token always opens.
func TestMigrateKill(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	d := newDaemon(t, daemonConfig{stock: true})
	run := func(in string, kill time.Duration, args ...string) error {
		cmd := exec.Command(binary(), args...)
		cmd.Env = append(os.Environ(), d.env()...)
		cmd.Stdin = strings.NewReader(in)
		if kill == 0 {
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%v: %w\n%s", args, err, out)
			}
			return nil
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		timer := time.AfterFunc(kill, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		return cmd.Wait()
	}
	kills, rounds := 0, 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		if run(m.SOPIN+"\n"+m.UserPIN+"\n", time.Duration(rand.Int64N(int64(2*time.Second))), "migrate", "--yes", "swtok") != nil {
			kills++
		}
		if err := run(m.UserPIN+"\n", 0, "check", "--login", "swtok"); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(m.SOPIN+"\n"+m.UserPIN+"\n", 0, "migrate", "--yes", "swtok"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(d.tokenRoot(), "swtok/NVTOK.DAT")); err != nil || st.Size() != 592 {
		t.Errorf("%v %v", st, err)
	}
	t.Logf("%d kills", kills)
}

// TestMigrateSystem migrates a token of the machine: the daemon must have ended, and
// tokversion is written into the configuration.
func TestMigrateSystem(t *testing.T) {
	t.Parallel()
	needRoot(t)
	m := readManifest(t)
	d, term := ready(t, daemonConfig{system: true, stock: true})
	conf := filepath.Join(d.dir, "etc/opencryptoki/opencryptoki.conf")
	term.ok("cp " + conf + " old.conf && " + describeAll + " > before")
	migrate := "printf '" + m.SOPIN + "\\n" + m.UserPIN + "\\n' | p11fs migrate --root " + d.dir + " swtok"
	term.ok(migrate + " 2>said; test $? = 5 && grep -q 'stop it first' said")
	d.stop()
	term = d.terminal()
	term.ok("cp " + conf + " old.conf")
	term.ok(migrate + " && grep -q 'tokversion = 3.12' " + conf)
	d.start()
	term.ok("echo " + m.UserPIN + " > $T/login && test $(ls $O | wc -l) -ge 24")
	d.stop()
	term.ok("p11fs migrate --rollback --yes --root " + d.dir + " swtok && cmp old.conf " + conf)
	d.start()
	term.ok("echo " + m.UserPIN + " > $T/login && test $(ls $O | wc -l) -ge 24")
}

// TestBackupLoad takes backups while shells make, change and destroy objects. Each of them
// restores to a token in which all is well.
func TestBackupLoad(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	d, term := ready(t, daemonConfig{stock: true})
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t, "backups")
	if err := os.WriteFile(filepath.Join(dir, "key.txt"), []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var ends []func() result
	for n := range 3 {
		loop := d.terminal()

		ends = append(ends, loop.start(fmt.Sprintf(`echo %s > $T/login
i=0; while ! test -e %s/stop; do i=$((i+1))
echo "$i" > $T/data/d%[3]d.$i && echo "aes:256 label=k%[3]d" > $T/generate && echo again > $T/data/d%[3]d.$i &&
rmdir $O/k%[3]d.sec && rm $T/data/d%[3]d.$i || exit 1; done; echo $i`, m.UserPIN, dir, n)))
	}
	const rounds = 2 // TestStockLoad has more
	for n := range rounds {
		term.ok(fmt.Sprintf("p11fs backup swtok %s/b%d --recipient %s", dir, n, key.Recipient()))
		time.Sleep(100 * time.Millisecond)
	}
	term.ok("touch " + dir + "/stop")
	for _, end := range ends {
		if r := end(); r.status != 0 || strings.TrimSpace(r.out) == "0" {
			t.Errorf("a loop ended with %+v", r)
		}
	}
	for n := range rounds {
		term.ok(fmt.Sprintf("p11fs restore %s/b%d copy%d --identity %[1]s/key.txt", dir, n, n))
		term.ok(fmt.Sprintf("echo %s | p11fs check --login copy%d > found && grep -q '^good .* 2[4-9] objects\\|^good .* 3[0-9] objects' found && ! grep note found || { cat found; false; }", m.UserPIN, n))
	}
}
