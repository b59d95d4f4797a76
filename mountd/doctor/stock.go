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

// trouble is one thing that is wrong, of which a check may find several.
type trouble struct{ wrong, mend string }

// add puts the first trouble into f, and counts the others.
func (f Finding) add(troubles []trouble) Finding {
	if len(troubles) == 0 {
		return f
	}
	f.Wrong, f.Mend = troubles[0].wrong, troubles[0].mend
	if more := len(troubles) - 1; more > 0 {
		f.Wrong += fmt.Sprintf(" (and %d more like it)", more)
	}
	return f
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
		f.Detail = "not needed for your own tokens"
		return f
	}
	_, members, err := e.Group(mountd.Group)
	switch {
	case e.UID == 0:
		f.Detail = "root needs none"
	case err != nil:
		f.Detail = "there is no such group" // told already
	case !slices.Contains(members, e.User):
		f.Wrong = fmt.Sprintf("user %s is not in the group %s, and gets nothing of the tokens", e.User, mountd.Group)
		f.Mend = fmt.Sprintf("usermod -aG %s %s (as root; then log in anew)", mountd.Group, e.User)
	case !slices.Contains(e.Groups, e.gid()):
		f.Wrong = "you became a member after this login, which does not have the group yet"
		f.Mend = "newgrp " + mountd.Group + " (or log in anew)"
	default:
		f.Detail = e.User + " is a member"
	}
	return f
}

// refusal checks whether p11fs can keep a stock slot daemon from starting beside it.
// It is not wrong if it cannot: it serves all the same.
func (e Examination) refusal() Finding {
	f := Finding{Check: "a stock pkcsslotd beside p11fs", Detail: "is refused when it starts"}
	switch {
	case e.Mode != mountd.System:
		f.Detail = "not in the way of your own tokens"
	case e.UID != 0:
		f.Detail = "only root can tell whether it is refused"
	default:
		if err := e.CanRefuse(); err != nil {
			f.Detail = "takes its place: " + err.Error() + ". Keep it from starting: systemctl mask pkcsslotd"
		}
	}
	return f
}

// segments looks for shared memory of a crash, of another version, or open to
// everybody.
func (e Examination) segments() Finding {
	f := Finding{Check: "shared memory", Detail: "nothing in the way"}
	if e.Mode != mountd.System {
		f.Detail = "your own tokens use none"
		return f
	}
	troubles := e.slotManager()
	paths, _ := filepath.Glob(filepath.Join(e.Paths.SharedMemory, "var.lib.opencryptoki.*"))
	gid := e.gid()
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			continue // gone meanwhile
		}
		switch mode := st.Mode & 0o777; {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			troubles = append(troubles, trouble{path + " is no shared memory", "rm -r " + path})
		case st.Size != shm.TokenSize:
			troubles = append(troubles, trouble{
				fmt.Sprintf("%s has %d bytes, not the %d of openCryptoki 3.8: another version made it", path, st.Size, shm.TokenSize),
				"rm " + path + " (when no program uses the token)",
			})
		case mode&0o007 != 0:
			troubles = append(troubles, trouble{
				fmt.Sprintf("%s is open to everybody (mode %04o), PIN hashes and all", path, mode), "chmod 0660 " + path,
			})
		case gid >= 0 && int(st.Gid) != gid:
			troubles = append(troubles, trouble{
				fmt.Sprintf("%s belongs to group %d, so members of %s cannot attach", path, st.Gid, mountd.Group),
				fmt.Sprintf("chgrp %s %s", mountd.Group, path),
			})
		}
	}
	return f.add(troubles)
}

// slotManager looks at the System V segment.
func (e Examination) slotManager() []trouble {
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
			return []trouble{{fmt.Sprintf("the slot manager's segment has %s bytes, not %d: another version made it", s[3], shm.SlotManagerSize), mend}}
		case s[6] == "0":
			return []trouble{{"the slot manager's segment was left by a daemon that died: nobody is attached", mend + " (p11fs does it too when it starts)"}}
		case s[8] != strconv.Itoa(e.gid()):
			return []trouble{{fmt.Sprintf("the slot manager's segment belongs to group %s, so members of %s cannot attach", s[8], mountd.Group), mend + " (then restart the daemon)"}}
		}
	}
	return nil
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
	var troubles []trouble
	for _, path := range append(paths, more...) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			continue
		}
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			troubles = append(troubles, trouble{path + " is no lock file", "rm -r " + path})
		case st.Mode&0o440 != 0o440 || st.Mode&0o007 != 0:
			troubles = append(troubles, trouble{fmt.Sprintf("%s has mode %04o", path, st.Mode&0o777), "chmod 0440 " + path})
		case gid >= 0 && int(st.Gid) != gid:
			troubles = append(troubles, trouble{
				fmt.Sprintf("%s belongs to group %d, so members of %s cannot lock it", path, st.Gid, mountd.Group),
				fmt.Sprintf("chgrp %s %s", mountd.Group, path),
			})
		case stuck(path):
			t := trouble{path + " is locked all the time", "fuser -v " + path}
			if pid, err := locks.Holder(e.path("proc"), path); err == nil && pid > 0 {
				t = trouble{fmt.Sprintf("%s is locked all the time, by process %d", path, pid), fmt.Sprintf("kill %d (after: ps -fp %[1]d)", pid)}
			}
			troubles = append(troubles, t)
		}
	}
	return f.add(troubles)
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
	f := Finding{Check: e.Paths.SlotSocket, Detail: "not there: no slot daemon serves"}
	if e.Mode != mountd.System {
		f.Check, f.Detail = "slot socket", "your own tokens have none"
		return f
	}
	var st unix.Stat_t
	if err := unix.Lstat(e.Paths.SlotSocket, &st); err != nil {
		return f
	}
	b, err := os.ReadFile(e.path("proc/net/unix"))
	gid := e.gid()
	switch {
	case err == nil && !slices.ContainsFunc(strings.Split(string(b), "\n"), func(line string) bool {
		s := strings.Fields(line)
		return len(s) == 8 && (s[7] == e.Paths.SlotSocket || "/var"+s[7] == e.Paths.SlotSocket)
	}):
		f.Wrong, f.Mend = "its daemon has died and left it behind", "rm "+e.Paths.SlotSocket+" (p11fs does it too when it starts)"
	case gid >= 0 && int(st.Gid) != gid:
		f.Wrong = fmt.Sprintf("it belongs to group %d, so stock clients refuse it", st.Gid)
		f.Mend = fmt.Sprintf("chgrp %s %s", mountd.Group, e.Paths.SlotSocket)
	default:
		f.Detail = "a slot daemon serves"
	}
	return f
}

// modes looks at what lies in the token directories and at the configuration.
// Only root finds what only root can see.
func (e Examination) modes() Finding {
	f := Finding{Check: "modes of tokens", Detail: "as they should be"}
	if e.Mode != mountd.System {
		return f
	}
	if dir := e.hidden(); dir != "" {
		f.Detail = "not seen: " + dir + " is closed to you"
		return f
	}
	var troubles []trouble
	gid := e.gid()
	var st unix.Stat_t
	if unix.Lstat(e.Paths.Config, &st) == nil && st.Mode&0o022 != 0 {
		troubles = append(troubles, trouble{
			fmt.Sprintf("%s can be written by others (mode %04o), and says which libraries stock programs load", e.Paths.Config, st.Mode&0o777),
			"chmod 0644 " + e.Paths.Config,
		})
	}
	_ = filepath.WalkDir(e.Paths.Data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == e.Paths.Data {
			return nil // may not be seen; or has a check of its own
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		mode, want := st.Mode&0o777, uint32(0o660)
		if entry.IsDir() {
			want = 0o770
		}
		switch {
		case mode&0o007 != 0:
			troubles = append(troubles, trouble{fmt.Sprintf("%s is open to everybody (mode %04o)", path, mode), fmt.Sprintf("chmod %04o %s", want, path)})
		case gid >= 0 && int(st.Gid) != gid:
			troubles = append(troubles, trouble{
				fmt.Sprintf("%s belongs to group %d, so members of %s cannot use it", path, st.Gid, mountd.Group),
				fmt.Sprintf("chgrp -R %s %s", mountd.Group, path),
			})
		case mode&want != want:
			troubles = append(troubles, trouble{fmt.Sprintf("%s is closed to members of %s (mode %04o)", path, mountd.Group, mode), fmt.Sprintf("chmod %04o %s", want, path)})
		}
		return nil
	})
	return f.add(troubles)
}
