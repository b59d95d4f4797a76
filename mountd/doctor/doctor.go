// Package doctor looks for what keeps p11fs from working on a machine, and says
// for each trouble the line that mends it. It changes nothing.
package doctor

import (
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
	Detail string // what was found, if nothing is wrong; empty where Weak says it all
	// Weak is what could be better, in lines that say with what; nothing is wrong for it.
	Weak []string
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
	checks := []func() Finding{e.device, e.helper, e.allowOther, e.group, e.member, e.configuration, e.policy, e.data, e.tokens, e.pins, e.strength, e.modes,
		e.slotDaemon, e.refusal, e.segments, e.lockFiles, e.socket, e.mount, e.libcrypto, e.libraries, e.mechanisms}
	findings := make([]Finding, len(checks))
	for i, check := range checks {
		findings[i] = check()
	}
	return findings
}

func (e Examination) path(abs string) string { return filepath.Join("/", e.Root, abs) }

// good is f when nothing is wrong.
func (f Finding) good(format string, args ...any) Finding {
	f.Detail = fmt.Sprintf(format, args...)
	return f
}

// wrong is f with what is wrong, and what mends it.
func (f Finding) wrong(mend, format string, args ...any) Finding {
	f.Wrong, f.Mend, f.Detail = fmt.Sprintf(format, args...), mend, ""
	return f
}

func (e Examination) device() Finding {
	f := Finding{Check: "/dev/fuse"}
	path := e.path("dev/fuse")
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.wrong("modprobe fuse (for a container: run it with --device /dev/fuse)",
			"it is missing: the kernel's FUSE is not loaded, or this container was not given it")
	case err != nil:
		return f.wrong("modprobe fuse", "%v", err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		_ = unix.Close(fd)
		return f.good("usable")
	case errors.Is(err, unix.EPERM):
		return f.wrong("run the container with --device /dev/fuse --cap-add SYS_ADMIN", "this container may not use it")
	case errors.Is(err, unix.EACCES):
		return f.wrong("chmod 0666 /dev/fuse", "it is closed to this user")
	}
	return f.wrong("modprobe fuse", "it cannot be opened: %v", err)
}

func (e Examination) helper() Finding {
	f := Finding{Check: "fusermount3"}
	path, err := e.lookHelper()
	if err != nil {
		return f.wrong("apt-get install fuse3", "it is not installed")
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return f.wrong("apt-get install fuse3", "%v", err)
	case e.UID != 0 && st.Mode()&fs.ModeSetuid == 0:
		return f.wrong("chmod u+s "+path, "%s is not setuid root, so it cannot mount for users", path)
	}
	return f.good("%s", path)
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
		return f.good("root needs no permission")
	case !e.AllowOther:
		return f.good("not wanted: the mount is yours alone")
	}
	b, err := os.ReadFile(e.path("etc/fuse.conf"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.wrong("chmod 0644 /etc/fuse.conf", "%v", err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return f.good("set")
		}
	}
	return f.wrong("echo user_allow_other >> /etc/fuse.conf", "/etc/fuse.conf does not let users share their mounts")
}

func (e Examination) group() Finding {
	f := Finding{Check: "group " + mountd.Group}
	if e.Mode != mountd.System {
		return f.good("not needed for your own tokens")
	}
	_, members, err := e.Group(mountd.Group)
	if err != nil {
		return f.wrong("groupadd --system "+mountd.Group, "it does not exist: nobody but root could use the tokens")
	}
	return f.good("exists (members: %s)", strings.Join(members, " "))
}

func (e Examination) configuration() Finding {
	f := Finding{Check: e.Paths.Config}
	_, warnings, err := config.Load(e.Paths.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.Mode == mountd.User:
		return f.good("absent, which is fine: each token directory is a slot")
	case errors.Is(err, fs.ErrNotExist):
		mend := "apt-get install opencryptoki"
		if usual := mountd.SystemPaths("").Config; e.Paths.Config != usual { // where no package puts one
			mend = fmt.Sprintf("install -D -m 0644 %s %s", usual, e.Paths.Config)
		}
		return f.wrong(mend+" (or write it: p11fs(5))", "it is missing")
	case err != nil:
		return f.wrong("editor "+e.Paths.Config, "%s", strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " "))
	}
	var all troubles
	for _, w := range warnings {
		all.add("editor "+e.Paths.Config, "%v", w)
	}
	return all.found(f.good("understood"))
}

// policy checks the files of the policy, with which, if they are wrong, no daemon starts.
func (e Examination) policy() Finding {
	f := Finding{Check: e.Paths.Policy}
	p, err := e.LoadPolicy()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return f.good("not seen: it is not for you to read")
	case err != nil:
		return f.wrong("editor "+e.Paths.Policy+" (p11fs(5) tells what stands in it), or remove it", "%v", err)
	case p == nil:
		return f.good("absent: all mechanisms and keys may be used")
	}
	return f.good("a policy is on: it allows %s", p)
}

// data checks who may come to the token directories. In user mode they are
// their owner's alone; in system mode the group pkcs11 works in them.
func (e Examination) data() Finding {
	dir := e.Paths.Data
	f := Finding{Check: dir}
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	mode, own := st.Mode&0o777, e.Mode == mountd.User
	switch {
	case errors.Is(err, unix.ENOENT) && own:
		return f.good("absent; p11fs mount makes it")
	case errors.Is(err, unix.ENOENT):
		return f.wrong(fmt.Sprintf("install -d -m 0770 -g %s %s", mountd.Group, dir), "it is missing")
	case err != nil:
		return f.wrong("ls -ld "+dir, "%v", err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return f.wrong("ls -ld "+dir, "it is no directory")
	case own && int(st.Uid) != e.UID:
		return f.wrong(fmt.Sprintf("chown -R %d %s", e.UID, dir), "it belongs to user %d", st.Uid)
	case own && mode&0o022 != 0:
		return f.wrong("chmod go-w "+dir, "others may write to it (mode %04o)", mode)
	case own && mode&0o700 != 0o700:
		return f.wrong("chmod u+rwx "+dir, "you may not use it yourself (mode %04o)", mode)
	case !own && mode&0o002 != 0:
		return f.wrong("chmod o-w "+dir, "everybody may write to it (mode %04o)", mode)
	}
	return f.good("mode %04o", mode)
}

// slotDaemon looks for a stock slot daemon, whose place a system daemon takes.
func (e Examination) slotDaemon() Finding {
	f := Finding{Check: "pkcsslotd", Detail: "does not run"}
	if e.Mode != mountd.System {
		return f.good("not in the way of your own tokens")
	}
	b, _ := os.ReadFile(e.Paths.PIDFile)
	// The file outlives the process, and numbers are given out again.
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return f
	}
	name, err := os.ReadFile(e.path(fmt.Sprintf("proc/%d/comm", pid)))
	switch {
	case err != nil: // there is no such process
	case slotd.IsStock(e.path("proc"), pid, e.Paths.SlotDaemon):
		return f.wrong(fmt.Sprintf("systemctl stop pkcsslotd (or kill %d)", pid), "it runs, and p11fs has to take its place")
	case slices.Contains([]string{"pkcsslotd", "p11fs"}, strings.TrimSpace(string(name))):
		return f.good("is p11fs (process %d)", pid)
	}
	return f
}

func (e Examination) mount() Finding {
	f := Finding{Check: e.Paths.Mount}
	path, err := mountpoint.Resolve(e.Paths.Mount)
	if err != nil {
		return f.wrong("p11fs mount ANOTHER-DIRECTORY", "%v", err)
	}
	state, err := mountpoint.Probe(path)
	if err != nil {
		return f.wrong("mount -t proc proc /proc", "%v", err)
	}
	switch state {
	case mountpoint.Live:
		status, err := readWithin(answerTime, filepath.Join(path, "status"))
		if errors.Is(err, fs.ErrPermission) {
			return f.good("p11fs is mounted, and closed to you: only who may use it sees how it is")
		}
		if err != nil {
			return f.wrong("p11fs umount "+path, "p11fs is mounted and gives no status (%v)", err)
		}
		return notServed(f.good("p11fs is mounted"), status)
	case mountpoint.Stale:
		return f.wrong("p11fs umount "+path+" (p11fs mount does it too)", "its daemon has died and left the mount behind")
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.good("not mounted; p11fs mount makes the directory")
	case err != nil:
		return f.wrong("p11fs mount ANOTHER-DIRECTORY", "%v", err)
	case !st.IsDir():
		return f.wrong("rm "+path, "it is no directory")
	case e.UID != 0 && unix.Access(path, unix.W_OK) != nil:
		// fusermount3 lets a user cover only what they could change anyway.
		return f.wrong(fmt.Sprintf("chown %d %s", e.UID, path), "you may not write to it, so you may not mount on it")
	}
	return f.good("not mounted")
}

func (e Examination) libcrypto() Finding {
	f := Finding{Check: "libcrypto"}
	version, err := e.Libcrypto()
	if err != nil {
		return f.wrong("apt-get install libssl3", "it cannot be used (%v), so RSA is slower", err)
	}
	return f.good("%s", version)
}

// mechanisms tells which there are not here. That is no trouble, but for who needs one.
func (e Examination) mechanisms() Finding {
	f := Finding{Check: "mechanisms"}
	lacking := e.Lacking()
	if len(lacking) == 0 {
		return f.good("all are there")
	}
	return f.good("not all are there: %s", strings.Join(lacking, "; "))
}

// groupOf looks a group up, with the members that the group database lists.
func groupOf(name string) (string, []string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", nil, err
	}
	b, _ := os.ReadFile("/etc/group") // the members are told only where they are known
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) == 4 && fields[0] == name && fields[3] != "" {
			return g.Gid, strings.Split(fields[3], ","), nil
		}
	}
	return g.Gid, nil, nil
}
