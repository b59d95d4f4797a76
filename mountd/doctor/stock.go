package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd"
	"p11fs/shm"
)

// The troubles of a machine whose tokens stock openCryptoki shares. A user's own
// daemon has none of them.

// troubles are what is wrong where a check may find several things.
type troubles []Finding

func (t *troubles) add(mend, format string, args ...any) {
	*t = append(*t, Finding{}.wrong(mend, format, args...))
}

// found is f with the first trouble, and how many others there are.
func (t troubles) found(f Finding) Finding {
	switch len(t) {
	case 0:
		return f
	case 1:
		return f.wrong(t[0].Mend, "%s", t[0].Wrong)
	}
	return f.wrong(t[0].Mend, "%s (and %d more)", t[0].Wrong, len(t)-1)
}

// shellWord is a path as a shell reads it, in one line: others may make files of any name
// there, and the lines that mend are to be pasted.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%=", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(path) {
		if plain(rune(c)) || c == ' ' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\%03o", c)
		}
	}
	return b.String() + "'"
}

// gid is the number of the group pkcs11, or -1.
func (e Examination) gid() int {
	gid, _, err := e.Group(mountd.Group)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(gid)
	if err != nil {
		return -1
	}
	return n
}

// member checks that the user may use the tokens. Stock clients look for the name in
// the group's list of members, and the kernel for the group among those of the process.
func (e Examination) member() Finding {
	f := Finding{Check: "your membership in " + mountd.Group}
	if e.Mode != mountd.System {
		return f.good("not needed for your own tokens")
	}
	_, members, err := e.Group(mountd.Group)
	switch {
	case e.UID == 0:
		return f.good("root needs none")
	case err != nil:
		return f.good("there is no such group") // told already
	case !slices.Contains(members, e.User):
		return f.wrong(fmt.Sprintf("usermod -aG %s %s (as root; then log in anew)", mountd.Group, e.User),
			"user %s is not in the group %s, and gets nothing of the tokens", e.User, mountd.Group)
	case !slices.Contains(e.Groups, e.gid()):
		return f.wrong("newgrp "+mountd.Group+" (or log in anew)", "you became a member after this login, which does not have the group yet")
	}
	return f.good("%s is a member", e.User)
}

// refusal checks whether p11fs can keep a stock slot daemon from starting beside it.
// It is not wrong if it cannot: it serves all the same.
func (e Examination) refusal() Finding {
	f := Finding{Check: "a stock pkcsslotd beside p11fs", Detail: "is refused when it starts"}
	switch {
	case e.Mode != mountd.System:
		return f.good("not in the way of your own tokens")
	case e.UID != 0:
		return f.good("only root can tell whether it is refused")
	}
	if err := e.CanRefuse(); err != nil {
		return f.good("takes its place: %v. Keep it from starting: systemctl mask pkcsslotd", err)
	}
	return f
}

// segments looks for shared memory of a crash, of another version, or open to
// everybody.
func (e Examination) segments() Finding {
	f := Finding{Check: "shared memory", Detail: "nothing in the way"}
	if e.Mode != mountd.System {
		return f.good("your own tokens use none")
	}
	all := e.slotManager()
	paths, _ := filepath.Glob(filepath.Join(e.Paths.SharedMemory, "var.lib.opencryptoki.*"))
	gid := e.gid()
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			continue // gone meanwhile
		}
		name := shellWord(path)
		switch mode := st.Mode & 0o777; {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			all.add("rm -r "+name, "%s is no shared memory", name)
		case st.Size != shm.TokenSize && e.of312(path, name, &f, &all): // and what mode is right is theirs to say
		case st.Size != shm.TokenSize:
			all.add("rm "+name+" (when no program uses the token)",
				"%s has %d bytes, not the %d of openCryptoki 3.8: another version made it", name, st.Size, shm.TokenSize)
		case mode&0o007 != 0:
			all.add("chmod 0660 "+name, "%s is open to everybody (mode %04o), PIN hashes and all", name, mode)
		case gid >= 0 && int(st.Gid) != gid:
			all.add("chgrp "+mountd.Group+" "+name, "%s belongs to group %d, so members of %s cannot attach", name, st.Gid, mountd.Group)
		}
	}
	return all.found(f)
}

// slotManager looks at the System V segment.
func (e Examination) slotManager() (all troubles) {
	key, err := shm.Key(e.Paths.SlotDaemon)
	if err != nil {
		return nil // no file, no stock client
	}
	b, err := os.ReadFile(e.path("proc/sysvipc/shm"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		// key shmid perms size cpid lpid nattch uid gid …
		s := strings.Fields(line)
		if len(s) < 9 || s[0] != strconv.Itoa(key) {
			continue
		}
		mend := fmt.Sprintf("ipcrm -M %#x", uint32(key))
		switch {
		case s[3] != strconv.Itoa(shm.SlotManagerSize):
			all.add(mend, "the slot manager's segment has %s bytes, not %d: another version made it", s[3], shm.SlotManagerSize)
		case s[6] == "0":
			all.add(mend+" (p11fs does it too when it starts)", "the slot manager's segment was left by a daemon that died: nobody is attached")
		case s[8] != strconv.Itoa(e.gid()):
			all.add(mend+" (then restart the daemon)", "the slot manager's segment belongs to group %s, so members of %s cannot attach", s[8], mountd.Group)
		}
	}
	return all
}

// How long a lock may be held before it counts as stuck, and how often that is tried.
const (
	lockWait = time.Second
	lockPoll = 50 * time.Millisecond
)

// lockFiles looks for lock files that members cannot open and for locks that are
// not given back.
func (e Examination) lockFiles() Finding {
	f := Finding{Check: e.Paths.Locks, Detail: "free"}
	if e.Mode != mountd.System {
		return f
	}
	paths, _ := filepath.Glob(filepath.Join(e.Paths.Locks, "LCK..APIlock"))
	more, _ := filepath.Glob(filepath.Join(e.Paths.Locks, "*", "LCK..*"))
	gid := e.gid()
	var all troubles
	for _, path := range append(paths, more...) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			continue
		}
		name := shellWord(path)
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			all.add("rm -r "+name, "%s is no lock file", name)
		case st.Mode&0o440 != 0o440 || st.Mode&0o007 != 0:
			all.add("chmod 0440 "+name, "%s has mode %04o", name, st.Mode&0o777)
		case gid >= 0 && int(st.Gid) != gid:
			all.add("chgrp "+mountd.Group+" "+name, "%s belongs to group %d, so members of %s cannot lock it", name, st.Gid, mountd.Group)
		case stuck(path):
			if pid, err := locks.Holder(e.path("proc"), path); err == nil && pid > 0 {
				all.add(fmt.Sprintf("kill %d (after: ps -fp %[1]d)", pid), "%s is locked all the time, by process %d", name, pid)
			} else {
				all.add("fuser -v "+name, "%s is locked all the time", name)
			}
		}
	}
	return all.found(f)
}

// stuck reports whether a lock is held all the time. A file that may not even be
// opened is another check's.
func stuck(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }() // which gives the lock back
	for begin := time.Now(); ; time.Sleep(lockPoll) {
		if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return false
		}
		if time.Since(begin) > lockWait {
			return true
		}
	}
}

// socket looks for a slot socket whose daemon has died, or that clients refuse.
// It does not connect: a client that connects and goes ends an idle stock daemon.
func (e Examination) socket() Finding {
	path := e.Paths.SlotSocket
	if e.Mode != mountd.System {
		return Finding{Check: "slot socket", Detail: "your own tokens have none"}
	}
	f := Finding{Check: path}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return f.good("not there: no slot daemon serves")
	}
	b, err := os.ReadFile(e.path("proc/net/unix"))
	gid := e.gid()
	switch {
	case err == nil && !slices.ContainsFunc(strings.Split(string(b), "\n"), func(line string) bool {
		s := strings.Fields(line)
		return len(s) == 8 && (s[7] == path || "/var"+s[7] == path)
	}):
		return f.wrong("rm "+path+" (p11fs does it too when it starts)", "its daemon has died and left it behind")
	case gid >= 0 && int(st.Gid) != gid:
		return f.wrong("chgrp "+mountd.Group+" "+path, "it belongs to group %d, so stock clients refuse it", st.Gid)
	}
	return f.good("a slot daemon serves")
}

// modes looks at what lies in the token directories and at the configuration.
// Only root finds what only root can see.
func (e Examination) modes() Finding {
	f := Finding{Check: "modes of tokens", Detail: "as they should be"}
	if e.Mode != mountd.System {
		return f
	}
	if dir := e.hidden(); dir != "" {
		return f.good("not seen: %s is closed to you", dir)
	}
	var all troubles
	gid := e.gid()
	var st unix.Stat_t
	if unix.Lstat(e.Paths.Config, &st) == nil && st.Mode&0o022 != 0 {
		all.add("chmod 0644 "+e.Paths.Config,
			"%s can be written by others (mode %04o), and says which libraries stock programs load", e.Paths.Config, st.Mode&0o777)
	}
	_ = filepath.WalkDir(e.Paths.Data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == e.Paths.Data {
			return nil // may not be seen; or has a check of its own
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		mode, want, name := st.Mode&0o777, uint32(0o660), shellWord(path)
		if entry.IsDir() {
			want = 0o770
		}
		switch {
		case mode&0o007 != 0:
			all.add(fmt.Sprintf("chmod %04o %s", want, name), "%s is open to everybody (mode %04o)", name, mode)
		case gid >= 0 && int(st.Gid) != gid:
			all.add("chgrp -R "+mountd.Group+" "+name, "%s belongs to group %d, so members of %s cannot use it", name, st.Gid, mountd.Group)
		case mode&want != want:
			all.add(fmt.Sprintf("chmod %04o %s", want, name), "%s is closed to members of %s (mode %04o)", name, mountd.Group, mode)
		}
		return nil
	})
	return all.found(f)
}
