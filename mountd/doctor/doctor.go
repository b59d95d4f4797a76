// Package doctor looks for what keeps p11fs from working on a machine, and says
// for each trouble the line that mends it. It changes nothing.
package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/mountd/config"
	"p11fs/mountd/mountpoint"
	"p11fs/mountd/slotd"
)

// A Finding is the result of one check.
type Finding struct {
	Check  string // what was looked at
	Wrong  string // what is wrong with it, in one line; empty if nothing is
	Mend   string // the line that mends it
	Detail string // what was found, if nothing is wrong
}

// An Examination looks at a daemon before it is started, and at the machine.
type Examination struct {
	mountd.Config
	// Libcrypto tells the version of the system's libcrypto, or why it
	// cannot be used.
	Libcrypto func() (string, error)

	Root   string // where /dev, /etc and /usr are; empty is /
	UID    int    // who asks
	User   string // the name
	Groups []int  // the groups that the process has
	Group  func(name string) (gid string, members []string, err error)
	// CanRefuse is nil, or why no stock daemon can be refused.
	CanRefuse func() error
}

// New is the examination of a daemon that this process would start.
func New(daemon mountd.Config, libcrypto func() (string, error)) Examination {
	e := Examination{
		Config: daemon, Libcrypto: libcrypto,
		UID: os.Geteuid(), User: strconv.Itoa(os.Geteuid()), Group: groupOf, CanRefuse: slotd.CanRefuse,
	}
	if u, err := user.LookupId(e.User); err == nil {
		e.User = u.Username
	}
	e.Groups, _ = os.Getgroups() // without them the check says what is missing
	e.Groups = append(e.Groups, os.Getegid())
	return e
}

// Run makes all checks, in the order in which their troubles are met.
func (e Examination) Run() []Finding {
	checks := []func() Finding{e.device, e.helper, e.allowOther, e.group, e.member, e.configuration, e.data, e.tokens, e.modes,
		e.slotDaemon, e.refusal, e.segments, e.lockFiles, e.socket, e.mount, e.libcrypto}
	findings := make([]Finding, len(checks))
	for i, check := range checks {
		findings[i] = check()
	}
	return findings
}

func (e Examination) path(abs string) string { return filepath.Join("/", e.Root, abs) }

func (e Examination) device() Finding {
	f := Finding{Check: "/dev/fuse"}
	path := e.path("dev/fuse")
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Wrong = "it is missing: the kernel's FUSE is not loaded, or this container was not given it"
		f.Mend = "modprobe fuse (for a container: run it with --device /dev/fuse)"
		return f
	case err != nil:
		f.Wrong, f.Mend = err.Error(), "modprobe fuse"
		return f
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		_ = unix.Close(fd)
		f.Detail = "usable"
	case errors.Is(err, unix.EPERM):
		f.Wrong = "this container may not use it"
		f.Mend = "run the container with --device /dev/fuse --cap-add SYS_ADMIN"
	case errors.Is(err, unix.EACCES):
		f.Wrong = "it is closed to this user"
		f.Mend = "chmod 0666 /dev/fuse"
	default:
		f.Wrong, f.Mend = "it cannot be opened: "+err.Error(), "modprobe fuse"
	}
	return f
}

func (e Examination) helper() Finding {
	f := Finding{Check: "fusermount3", Mend: "apt-get install fuse3"}
	path, err := e.lookHelper()
	if err != nil {
		f.Wrong = "it is not installed"
		return f
	}
	st, err := os.Stat(path)
	if err != nil {
		f.Wrong = err.Error()
		return f
	}
	if e.UID != 0 && st.Mode()&fs.ModeSetuid == 0 {
		f.Wrong = path + " is not setuid root, so it cannot mount for users"
		f.Mend = "chmod u+s " + path
		return f
	}
	f.Detail, f.Mend = path, ""
	return f
}

func (e Examination) lookHelper() (string, error) {
	if e.Root == "" {
		return mountpoint.Helper()
	}
	return exec.LookPath(e.path("usr/bin/fusermount3"))
}

func (e Examination) allowOther() Finding {
	f := Finding{Check: "user_allow_other"}
	switch {
	case e.UID == 0:
		f.Detail = "root needs no permission"
		return f
	case !e.AllowOther:
		f.Detail = "not wanted: the mount is yours alone"
		return f
	}
	path := e.path("etc/fuse.conf")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Wrong, f.Mend = err.Error(), "chmod 0644 /etc/fuse.conf"
		return f
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			f.Detail = "set"
			return f
		}
	}
	f.Wrong = "/etc/fuse.conf does not let users share their mounts"
	f.Mend = "echo user_allow_other >> /etc/fuse.conf"
	return f
}

func (e Examination) group() Finding {
	f := Finding{Check: "group " + mountd.Group}
	if e.Mode != mountd.System {
		f.Detail = "not needed for your own tokens"
		return f
	}
	_, members, err := e.Group(mountd.Group)
	if err != nil {
		f.Wrong = "it does not exist: nobody but root could use the tokens"
		f.Mend = "groupadd --system " + mountd.Group
		return f
	}
	f.Detail = fmt.Sprintf("exists (members: %s)", strings.Join(members, " "))
	return f
}

func (e Examination) configuration() Finding {
	f := Finding{Check: e.Paths.Config}
	_, warnings, err := config.Load(e.Paths.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.Mode == mountd.User:
		f.Detail = "absent, which is fine: each token directory is a slot"
	case errors.Is(err, fs.ErrNotExist):
		f.Wrong = "it is missing"
		f.Mend = "apt-get install opencryptoki (or write it: p11fs(5))"
		if usual := mountd.SystemPaths("").Config; e.Paths.Config != usual { // where no package puts one
			f.Mend = fmt.Sprintf("install -D -m 0644 %s %s (or write it: p11fs(5))", usual, e.Paths.Config)
		}
	case err != nil:
		f.Wrong = strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
		f.Mend = "editor " + e.Paths.Config
	case len(warnings) > 0:
		f.Wrong = warnings[0].Error()
		if more := len(warnings) - 1; more > 0 {
			f.Wrong += fmt.Sprintf(" (and %d more)", more)
		}
		f.Mend = "editor " + e.Paths.Config
	default:
		f.Detail = "understood"
	}
	return f
}

// data checks who may come to the token directories. In user mode they are
// their owner's alone; in system mode the group pkcs11 works in them.
func (e Examination) data() Finding {
	f := Finding{Check: e.Paths.Data}
	var st unix.Stat_t
	err := unix.Lstat(e.Paths.Data, &st)
	switch {
	case errors.Is(err, unix.ENOENT) && e.Mode == mountd.User:
		f.Detail = "absent; p11fs mount makes it"
		return f
	case errors.Is(err, unix.ENOENT):
		f.Wrong = "it is missing"
		f.Mend = fmt.Sprintf("install -d -m 0770 -g %s %s", mountd.Group, e.Paths.Data)
		return f
	case err != nil:
		f.Wrong, f.Mend = err.Error(), "ls -ld "+e.Paths.Data
		return f
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		f.Wrong, f.Mend = "it is no directory", "ls -ld "+e.Paths.Data
		return f
	}
	mode := st.Mode & 0o777
	switch {
	case e.Mode == mountd.User && int(st.Uid) != e.UID:
		f.Wrong = fmt.Sprintf("it belongs to user %d", st.Uid)
		f.Mend = fmt.Sprintf("chown -R %d %s", e.UID, e.Paths.Data)
	case e.Mode == mountd.User && mode&0o022 != 0:
		f.Wrong = fmt.Sprintf("others may write to it (mode %04o)", mode)
		f.Mend = "chmod go-w " + e.Paths.Data
	case e.Mode == mountd.User && mode&0o700 != 0o700:
		f.Wrong = fmt.Sprintf("you may not use it yourself (mode %04o)", mode)
		f.Mend = "chmod u+rwx " + e.Paths.Data
	case e.Mode == mountd.System && mode&0o002 != 0:
		f.Wrong = fmt.Sprintf("everybody may write to it (mode %04o)", mode)
		f.Mend = "chmod o-w " + e.Paths.Data
	default:
		f.Detail = fmt.Sprintf("mode %04o", mode)
	}
	return f
}

// slotDaemon looks for a stock slot daemon, whose place a system daemon takes.
func (e Examination) slotDaemon() Finding {
	f := Finding{Check: "pkcsslotd", Detail: "does not run"}
	if e.Mode != mountd.System {
		f.Detail = "not in the way of your own tokens"
		return f
	}
	b, err := os.ReadFile(e.Paths.PIDFile)
	if err != nil {
		return f
	}
	// The file outlives the process, and numbers are given out again.
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return f
	}
	name, err := os.ReadFile(e.path(fmt.Sprintf("proc/%d/comm", pid)))
	switch {
	case err != nil: // there is no such process
	case slotd.IsStock(e.path("proc"), pid, e.Paths.SlotDaemon):
		f.Wrong = "it runs, and p11fs has to take its place"
		f.Mend = fmt.Sprintf("systemctl stop pkcsslotd (or kill %d)", pid)
		f.Detail = ""
	case slices.Contains([]string{"pkcsslotd", "p11fs"}, strings.TrimSpace(string(name))):
		f.Detail = fmt.Sprintf("is p11fs (process %d)", pid)
	}
	return f
}

func (e Examination) mount() Finding {
	f := Finding{Check: e.Paths.Mount}
	path, err := mountpoint.Resolve(e.Paths.Mount)
	if err != nil {
		f.Wrong, f.Mend = err.Error(), "p11fs mount ANOTHER-DIRECTORY"
		return f
	}
	state, err := mountpoint.Probe(path)
	if err != nil {
		f.Wrong, f.Mend = err.Error(), "mount -t proc proc /proc"
		return f
	}
	switch state {
	case mountpoint.Live:
		f.Detail = "p11fs is mounted"
		status, err := readWithin(answerTime, filepath.Join(path, "status"))
		if err != nil {
			f.Wrong, f.Mend = fmt.Sprintf("p11fs is mounted and gives no status (%v)", err), "p11fs umount "+path
		} else if why := notServed(status); why != "" {
			f.Wrong, f.Mend = why, "restart the daemon once that is mended"
		}
		return f
	case mountpoint.Stale:
		f.Wrong = "its daemon has died and left the mount behind"
		f.Mend = "p11fs umount " + path + " (p11fs mount does it too)"
		return f
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Detail = "not mounted; p11fs mount makes the directory"
	case err != nil:
		f.Wrong, f.Mend = err.Error(), "p11fs mount ANOTHER-DIRECTORY"
	case !st.IsDir():
		f.Wrong, f.Mend = "it is no directory", "rm "+path
	case e.UID != 0 && unix.Access(path, unix.W_OK) != nil:
		// fusermount3 lets a user cover only what they could change anyway.
		f.Wrong = "you may not write to it, so you may not mount on it"
		f.Mend = fmt.Sprintf("chown %d %s", e.UID, path)
	default:
		f.Detail = "not mounted"
	}
	return f
}

func (e Examination) libcrypto() Finding {
	f := Finding{Check: "libcrypto"}
	version, err := e.Libcrypto()
	if err != nil {
		f.Wrong = fmt.Sprintf("it cannot be used (%v), so RSA is slower", err)
		f.Mend = "apt-get install libssl3"
		return f
	}
	f.Detail = version
	return f
}

// groupOf looks a group up, with the members that the group database lists.
func groupOf(name string) (string, []string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", nil, err
	}
	f, err := os.Open("/etc/group")
	if err != nil {
		return g.Gid, nil, nil // the members are told only where they are known
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 4 && fields[0] == name && fields[3] != "" {
			return g.Gid, strings.Split(fields[3], ","), nil
		}
	}
	return g.Gid, nil, nil
}
