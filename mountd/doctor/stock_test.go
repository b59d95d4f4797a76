package doctor

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/shm"
	"p11fs/tokens/store/storetest"
)

// machine is a system on which nothing is wrong, below a directory: a token, its
// segment and locks, and a configuration, all of them the test's group's.
func machine(t *testing.T) (Examination, string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := Examination{
		Config: mountd.Config{Mode: mountd.System, Paths: mountd.SystemPaths(root), Kinds: kinds()}, Root: root,
		Libcrypto: func() (string, error) { return "3.0", nil },
		UID:       1000, User: "alice", Groups: []int{os.Getgid()},
		Group: func(string) (string, []string, error) {
			return strconv.Itoa(os.Getgid()), []string{"root", "alice"}, nil
		},
		CanRefuse: func() error { return nil },
	}
	token := filepath.Join(p.Paths.Data, "swtok")
	for path, mode := range map[string]os.FileMode{
		p.Paths.Config: 0o644, p.Paths.SlotDaemon: 0o755,
		filepath.Join(token, "NVTOK.DAT"): 0o660, filepath.Join(token, "TOK_OBJ/OBJ.IDX"): 0o660,
		filepath.Join(p.Paths.Locks, "LCK..APIlock"): 0o440, filepath.Join(p.Paths.Locks, "swtok/LCK..swtok"): 0o440,
		filepath.Join(root, "proc/locks"): 0o444, filepath.Join(root, "proc/sysvipc/shm"): 0o444, filepath.Join(root, "proc/net/unix"): 0o444,
		p.Paths.PIDFile: 0o644,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o770); err != nil {
			t.Fatal(err)
		}
		put(t, path, "", mode)
	}
	for _, dir := range []string{p.Paths.Data, token, filepath.Join(token, "TOK_OBJ")} {
		mode(t, dir, 0o770)
	}
	if err := os.MkdirAll(p.Paths.SharedMemory, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, segmentOf(p), string(make([]byte, shm.TokenSize)), 0o660)
	return p, root
}

func segmentOf(p Examination) string {
	return filepath.Join(p.Paths.SharedMemory, "var.lib.opencryptoki.swtok")
}

// segmentLine is a line of /proc/sysvipc/shm for the machine's slot manager.
func segmentLine(t *testing.T, p Examination, root string, size, attached, gid int) {
	t.Helper()
	key, err := shm.Key(p.Paths.SlotDaemon)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "proc/sysvipc/shm"), "       key      shmid perms size  cpid  lpid nattch   uid   gid\n"+
		fmt.Sprintf("%10d 0 660 %d 100 100 %d 0 %d 0 0 0 0 0 0 0\n", key, size, attached, gid), 0o644)
}

func TestStockTroubles(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, p *Examination, root string)
		check func(Examination) Finding
		wrong string // empty if nothing is
		mend  string
		// part of what was found if nothing is wrong
		detail string
	}{
		{name: "member", check: Examination.member},
		{name: "root", check: Examination.member, spoil: func(_ *testing.T, p *Examination, _ string) { p.UID, p.User = 0, "root" }},
		{name: "no member", check: Examination.member, wrong: "user bob is not in the group pkcs11", mend: "usermod -aG pkcs11 bob",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.User = "bob" }},
		{name: "a user whose name only begins like a member's", check: Examination.member, wrong: "user al is not", mend: "usermod -aG pkcs11 al ",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.User = "al" }},
		{name: "member since this login", check: Examination.member, wrong: "after this login", mend: "newgrp pkcs11",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.Groups = nil }},
		{name: "segments", check: Examination.segments},
		{name: "segment of another version", check: Examination.segments, wrong: "another version", mend: "rm ",
			spoil: func(t *testing.T, p *Examination, _ string) { put(t, segmentOf(*p), "short", 0o660) }},
		{name: "segment open to everybody", check: Examination.segments, wrong: "open to everybody (mode 0666)", mend: "chmod 0660 ",
			spoil: func(t *testing.T, p *Examination, _ string) { mode(t, segmentOf(*p), 0o666) }},
		{name: "segment of another group", check: Examination.segments, wrong: "cannot attach", mend: "chgrp pkcs11 ",
			spoil: func(_ *testing.T, p *Examination, _ string) { otherGroup(p) }},
		{name: "slot manager in use", check: Examination.segments,
			spoil: func(t *testing.T, p *Examination, root string) {
				segmentLine(t, *p, root, shm.SlotManagerSize, 1, os.Getgid())
			}},
		{name: "slot manager of a crash", check: Examination.segments, wrong: "daemon that died", mend: "ipcrm -M 0x62",
			spoil: func(t *testing.T, p *Examination, root string) {
				segmentLine(t, *p, root, shm.SlotManagerSize, 0, os.Getgid())
			}},
		{name: "slot manager of another version", check: Examination.segments, wrong: "another version", mend: "ipcrm -M 0x62",
			spoil: func(t *testing.T, p *Examination, root string) { segmentLine(t, *p, root, 4096, 1, os.Getgid()) }},
		{name: "slot manager of another group", check: Examination.segments, wrong: "members of pkcs11 cannot attach", mend: "ipcrm -M 0x62",
			spoil: func(t *testing.T, p *Examination, root string) {
				segmentLine(t, *p, root, shm.SlotManagerSize, 1, os.Getgid()+1)
			}},
		{name: "locks", check: Examination.lockFiles},
		{name: "lock that is a directory", check: Examination.lockFiles, wrong: "is no lock file", mend: "rm -r ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				path := filepath.Join(p.Paths.Locks, "LCK..APIlock")
				if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o770)); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "lock closed to members", check: Examination.lockFiles, wrong: "has mode 0400", mend: "chmod 0440 ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				mode(t, filepath.Join(p.Paths.Locks, "swtok/LCK..swtok"), 0o400)
			}},
		{name: "lock of another group", check: Examination.lockFiles, wrong: "cannot lock it (and 1 more", mend: "chgrp pkcs11 ",
			spoil: func(_ *testing.T, p *Examination, _ string) { otherGroup(p) }},
		{name: "lock that is not given back", check: Examination.lockFiles, wrong: "locked all the time, by process 4711", mend: "kill 4711",
			spoil: func(t *testing.T, p *Examination, root string) {
				f, err := os.Open(filepath.Join(p.Paths.Locks, "LCK..APIlock"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = f.Close() })
				st, err := f.Stat()
				if err == nil {
					err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
				}
				if err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(root, "proc/locks"), fmt.Sprintf("1: POSIX  ADVISORY  WRITE 1 00:01:%d 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:01:%[1]d 0 EOF\n",
					st.Sys().(*syscall.Stat_t).Ino), 0o644)
			}},
		{name: "no socket", check: Examination.socket},
		{name: "socket of a crash", check: Examination.socket, wrong: "has died and left it", mend: "rm ",
			spoil: func(t *testing.T, p *Examination, _ string) { put(t, p.Paths.SlotSocket, "", 0o770) }},
		{name: "socket in use", check: Examination.socket, spoil: listening},
		{name: "socket of another group", check: Examination.socket, wrong: "stock clients refuse it", mend: "chgrp pkcs11 ",
			spoil: func(t *testing.T, p *Examination, root string) {
				listening(t, p, root)
				otherGroup(p)
			}},
		{name: "modes", check: Examination.modes},
		{name: "configuration that others write", check: Examination.modes, wrong: "can be written by others (mode 0666)", mend: "chmod 0644 ",
			spoil: func(t *testing.T, p *Examination, _ string) { mode(t, p.Paths.Config, 0o666) }},
		{name: "token open to everybody", check: Examination.modes, wrong: "swtok is open to everybody (mode 0777)", mend: "chmod 0770 ",
			spoil: func(t *testing.T, p *Examination, _ string) { mode(t, filepath.Join(p.Paths.Data, "swtok"), 0o777) }},
		{name: "token data open to everybody", check: Examination.modes, wrong: "NVTOK.DAT is open to everybody (mode 0664)", mend: "chmod 0660 ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				mode(t, filepath.Join(p.Paths.Data, "swtok/NVTOK.DAT"), 0o664)
			}},
		{name: "token data closed to members", check: Examination.modes, wrong: "NVTOK.DAT is closed to members of pkcs11 (mode 0600)", mend: "chmod 0660 ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				mode(t, filepath.Join(p.Paths.Data, "swtok/NVTOK.DAT"), 0o600)
			}},
		{name: "token of another group", check: Examination.modes, wrong: "cannot use it (and 3 more", mend: "chgrp -R pkcs11 ",
			spoil: func(_ *testing.T, p *Examination, _ string) { otherGroup(p) }},
		{name: "stock daemon", check: Examination.slotDaemon, wrong: "it runs", mend: "systemctl stop pkcsslotd",
			spoil: func(t *testing.T, p *Examination, root string) { running(t, p, root, "/usr/sbin/pkcsslotd.stock") }},
		{name: "a stock daemon can be refused", check: Examination.refusal, detail: "is refused",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.UID = 0 }},
		{name: "a stock daemon cannot be refused", check: Examination.refusal, detail: "no fanotify. Keep it from starting: ",
			spoil: func(_ *testing.T, p *Examination, _ string) {
				p.UID, p.CanRefuse = 0, func() error { return errors.New("no fanotify") }
			}},
		{name: "a stock daemon, asked by a user", check: Examination.refusal, detail: "only root"},
		{name: "p11fs as the slot daemon", detail: "is p11fs (process 4711)", check: Examination.slotDaemon,
			spoil: func(t *testing.T, p *Examination, root string) { running(t, p, root, "/proc/self/exe") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, root := machine(t)
			if c.spoil != nil {
				c.spoil(t, &p, root)
			}
			f := c.check(p)
			if c.wrong == "" {
				if f.Wrong != "" || f.Detail == "" || !strings.Contains(f.Detail, c.detail) {
					t.Errorf("%+v, want nothing wrong, and %q", f, c.detail)
				}
				return
			}
			if !strings.Contains(f.Wrong, c.wrong) || !strings.Contains(f.Mend, c.mend) {
				t.Errorf("%+v, want %q and %q", f, c.wrong, c.mend)
			}
		})
	}
}

// TestSegment312: a segment of stock openCryptoki from 3.12 on is told where it hides objects or
// has some that are gone, with how many; and that it will, where it does not yet.
func TestSegment312(t *testing.T) {
	for file, token := range map[string]string{"shm-v3.23.bin.gz": "sw312-v3.23", "shm-v3.27.bin.gz": "sw312"} {
		t.Run(token, func(t *testing.T) {
			p, _ := machine(t)
			put(t, p.Paths.Config, "slot 3 {\nstdll = libpkcs11_sw.so\ntokversion = 3.12\n}\n", 0o644)
			p.Paths.Data = filepath.Dir(storetest.Untar(t, token))
			dir := filepath.Join(p.Paths.Data, "swtok")
			if err := os.Rename(filepath.Join(p.Paths.Data, token), dir); err != nil {
				if _, there := os.Stat(dir); there != nil {
					t.Fatal(err)
				}
			}
			put(t, segmentOf(p), string(unzipped(t, "../../shm/testdata/"+file)), 0o660)
			f := p.segments()
			if f.Wrong != "" || len(f.Weak) != 1 || !strings.Contains(f.Weak[0], "whatever p11fs makes and destroys: rm ") {
				t.Errorf("as it was: %+v", f)
			}
			index, err := os.ReadFile(filepath.Join(dir, "TOK_OBJ/OBJ.IDX"))
			if err != nil {
				t.Fatal(err)
			}
			names := strings.Fields(string(index))
			for _, kind := range []string{"\x00\x03\x00\x0c\x00", "\x00\x03\x00\x0c\x01"} { // of each one more
				name := fmt.Sprintf("OBmore%02d", len(names))
				names = append(names, name)
				put(t, filepath.Join(dir, "TOK_OBJ", name), kind, 0o660)
			}
			put(t, filepath.Join(dir, "TOK_OBJ/OBJ.IDX"), strings.Join(names[1:], "\n")+"\n", 0o660)
			if f := p.segments(); !strings.Contains(f.Wrong, "hides 2, and has 1 that are gone") || !strings.HasPrefix(f.Mend, "rm ") {
				t.Errorf("two more and one less: %+v", f)
			}
			put(t, p.Paths.Config, "slot 3 {\nstdll = libpkcs11_sw.so\n}\n", 0o644)
			if f := p.segments(); !strings.Contains(f.Wrong, "another version made it") {
				t.Errorf("of a token of 3.8: %+v", f)
			}
		})
	}
}

// unzipped is a dump of a segment, as stock programs would have made it on a machine of this
// byte order.
func unzipped(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		for _, at := range []int{260, 856, 860} { // its length, and how many objects are listed
			slices.Reverse(b[at : at+4])
		}
	}
	return b
}

// TestMendLines does what some findings say, and looks again.
func TestMendLines(t *testing.T) {
	p, _ := machine(t)
	mode(t, segmentOf(p), 0o666)
	mode(t, filepath.Join(p.Paths.Data, "swtok/NVTOK.DAT"), 0o600)
	mode(t, filepath.Join(p.Paths.Locks, "LCK..APIlock"), 0o600)
	mode(t, p.Paths.Config, 0o666)
	for _, check := range []func(Examination) Finding{Examination.segments, Examination.lockFiles, Examination.modes, Examination.modes} {
		f := check(p)
		if f.Wrong == "" {
			t.Fatalf("%s: nothing wrong", f.Check)
		}
		if out, err := exec.Command("sh", "-c", f.Mend).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", f.Mend, err, out)
		}
	}
	for _, check := range []func(Examination) Finding{Examination.segments, Examination.lockFiles, Examination.modes} {
		if f := check(p); f.Wrong != "" {
			t.Errorf("still wrong: %+v", f)
		}
	}
}

// otherGroup makes pkcs11 another group than the one that all files have.
func otherGroup(p *Examination) {
	p.Group = func(string) (string, []string, error) { return strconv.Itoa(os.Getgid() + 1), []string{"alice"}, nil }
}

func listening(t *testing.T, p *Examination, root string) {
	t.Helper()
	l, err := net.Listen("unix", p.Paths.SlotSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	put(t, filepath.Join(root, "proc/net/unix"), "Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 4711 "+p.Paths.SlotSocket+"\n", 0o644)
}

// running makes process 4711 one that is called pkcsslotd.
func running(t *testing.T, p *Examination, root, exe string) {
	t.Helper()
	dir := filepath.Join(root, "proc/4711")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(exe, filepath.Join(dir, "exe"))); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "comm"), "pkcsslotd\n", 0o644)
	put(t, p.Paths.PIDFile, "4711", 0o644)
}

// TestHostileNames: anybody may make files in /dev/shm, and the group in the directories of
// tokens and locks: what root is to paste runs nothing of theirs.
func TestHostileNames(t *testing.T) {
	p, _ := machine(t)
	const hostile = "x; touch pwned\n$(touch pwned)'`touch pwned`\x1b]0;\x07"
	for dir, check := range map[string]func(Examination) Finding{
		filepath.Join(p.Paths.Data, "swtok/TOK_OBJ"):                 Examination.modes,
		filepath.Join(p.Paths.SharedMemory, "var.lib.opencryptoki."): Examination.segments,
		filepath.Join(p.Paths.Locks, "swtok/LCK.."):                  Examination.lockFiles,
	} {
		path := dir + hostile
		put(t, path, "", 0o666)
		f := check(p)
		if f.Wrong == "" || strings.ContainsAny(f.Wrong+f.Mend, "\n\x1b`;") {
			t.Errorf("%q, %q", f.Wrong, f.Mend)
		}
		word := f.Mend[strings.Index(f.Mend, "$'"):]
		word = word[:strings.LastIndex(word, "'")+1]
		out, err := exec.Command("bash", "-c", "printf %s "+word).Output()
		if err != nil || string(out) != path {
			t.Errorf("bash reads %q of %s, %v", out, word, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
