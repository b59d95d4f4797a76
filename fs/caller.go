package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p11fs/cgroup"
	"p11fs/engine"
	"p11fs/p11"
)

// A caller is who makes a request, as the kernel says: the ids for file access,
// and a thread id, or 0 for a thread that the daemon cannot see.
type caller struct{ uid, gid, pid uint32 }

func callerOf(ctx context.Context) caller {
	c, ok := fuse.FromContext(ctx)
	if !ok {
		return caller{}
	}
	return caller{uid: c.Uid, gid: c.Gid, pid: c.Pid}
}

// maxApplications bounds the applications of one uid. Each costs a descriptor, so
// one uid also has a quarter of those that the process may have at most, and all
// together have half: the rest is for sockets, stores and locks.
const maxApplications = 4096

// A leader holds on to the leader of a POSIX session.
type leader interface {
	// alive reports whether the process lives. While it does, its session number
	// means no other session.
	alive() bool
	// wait returns when the process has ended or close was called.
	wait()
	close()
}

// processes is what callers asks of the system; tests have their own.
type processes struct {
	// session returns the POSIX session of a thread.
	session func(tid int) (int, error)
	// leader returns the leader of a session.
	leader func(sid int) (leader, error)
	// started returns when a process was started, in a form of its own.
	started func(pid int) string
	// stat returns what is known of a process (see statFields). nil knows nothing.
	stat func(pid int) []string
	// signalled reports whether a signal that ends the process of a thread was sent to it.
	// nil knows of none.
	signalled func(tid int) bool
	// process returns the process of a thread. nil takes each thread for one.
	process func(tid int) int
	// groups returns the real group of a thread, and the supplementary ones; nobody's and
	// none if they cannot be had.
	groups func(tid int) (group uint32, more []uint32)
	// unit returns the systemd unit of a process. nil knows of none.
	unit func(pid int) string
	// descriptors is how many descriptors this process may have; 0 is no limit.
	descriptors int
}

func systemProcesses() processes {
	p := processes{session: unix.Getsid, leader: openLeader, started: startTime, process: processOf, stat: statFields, signalled: signalled, groups: threadGroups, unit: unitOf}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < math.MaxInt32 {
		p.descriptors = int(limit.Cur)
	}
	return p
}

// An appKey tells applications apart. A session number is unique while its leader
// lives.
type appKey struct {
	uid uint32
	sid int
}

// An owner is whose inode of a file it is: a session that no other one is taken for,
// also when the kernel gives out its number again.
type owner struct {
	appKey
	started string // the leader
}

// A user is what one uid has in all its applications. It is kept for good: uids
// are few.
type user struct {
	applications int // guarded by callers.mu
}

// callers has the application of each caller.
type callers struct {
	engine *engine.Engine
	system processes
	most   int                 // applications of one uid
	nobody *engine.Application // sees public objects, never has a session
	// loginForToken: see engine.Owner.
	loginForToken bool

	mu     sync.Mutex // guards all below
	closed bool
	apps   map[appKey]*application
	users  map[uint32]*user
	wg     sync.WaitGroup // the goroutines that watch leaders
}

func newCallers(e *engine.Engine, system processes, loginForToken bool) *callers {
	most := maxApplications
	if n := system.descriptors; n > 0 {
		most = min(most, n/4)
	}
	return &callers{
		engine: e,
		system: system,
		most:   most,
		nobody: e.NewApplication(engine.Owner{UID: ^uint32(0), GID: ^uint32(0), Door: "files"}, engine.ForPeople),
		apps:   make(map[appKey]*application),
		users:  make(map[uint32]*user),

		loginForToken: loginForToken,
	}
}

// close ends all applications.
func (cs *callers) close() {
	cs.mu.Lock()
	cs.closed = true
	apps := slices.Collect(maps.Values(cs.apps))
	cs.mu.Unlock()
	for _, a := range apps {
		cs.end(a)
	}
	cs.wg.Wait()
	cs.nobody.Close()
}

// find returns the caller's application, or nil when it has none.
func (cs *callers) find(c caller) *application {
	a := cs.known(c)
	if a != nil && !a.leader.alive() {
		cs.end(a)
		return nil
	}
	return a
}

// known is find, whether or not the leader of the session lives.
func (cs *callers) known(c caller) *application {
	sid := cs.sessionOf(c)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.apps[appKey{c.uid, sid}]
}

// sessionOf returns the number of the caller's POSIX session, 0 if it is not known.
func (cs *callers) sessionOf(c caller) int {
	if c.pid == 0 {
		return 0
	}
	sid, err := cs.system.session(int(c.pid))
	if err != nil {
		return 0
	}
	return sid
}

// leaderless reports whether the leader of the caller's POSIX session has ended. The
// caller can have no application then.
func (cs *callers) leaderless(c caller) bool {
	l, err := cs.system.leader(cs.sessionOf(c))
	if err == nil {
		l.close()
	}
	return errors.Is(err, syscall.ESRCH)
}

// ownerOf returns whose files the caller sees.
func (cs *callers) ownerOf(c caller) owner {
	if a := cs.find(c); a != nil {
		return a.owner
	}
	return cs.leads(c.uid, cs.sessionOf(c))
}

func (cs *callers) leads(uid uint32, sid int) owner {
	o := owner{appKey: appKey{uid, sid}}
	if sid != 0 && cs.system.started != nil {
		o.started = cs.system.started(sid)
	}
	return o
}

// get returns the caller's application, which is made if there is none. It fails
// for a caller whose POSIX session is not known.
func (cs *callers) get(c caller) (*application, error) {
	if a := cs.find(c); a != nil {
		return a, nil
	}
	sid := cs.sessionOf(c)
	if sid == 0 {
		return nil, errNobody
	}
	l, err := cs.system.leader(sid)
	if err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil, errNobody
		}
		return nil, p11.Errorf(p11.CKR_HOST_MEMORY, "the leader of session %d cannot be watched: %v", sid, err)
	}
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", sid)) // it may have gone
	who := engine.Owner{
		UID: c.uid, GID: c.gid, PID: sid, Door: "files", Command: strings.TrimSpace(string(command)),
		LoginForToken: cs.loginForToken,
	}
	if cs.system.groups != nil {
		// Not that of a setgid program: its user's other processes have the application, too.
		who.GID, who.Groups = cs.system.groups(int(c.pid))
	}
	if cs.system.unit != nil {
		who.Unit = cs.system.unit(sid)
	}
	// The caller is in the session that this leader leads only if it still
	// is in the session of that number now that the leader is held. And all that was
	// read is of this leader and this caller.
	if cs.sessionOf(c) != sid || !l.alive() {
		l.close()
		return nil, errNobody
	}
	a, err := cs.add(who, cs.leads(c.uid, sid), l)
	if err != nil || a.leader != l {
		l.close()
	}
	return a, err
}

// add returns the owner's application, which is made if there is none.
func (cs *callers) add(who engine.Owner, files owner, l leader) (*application, error) {
	key := files.appKey
	cs.mu.Lock()
	defer cs.mu.Unlock()
	u := cs.users[key.uid]
	if u == nil {
		u = new(user)
		cs.users[key.uid] = u
	}
	switch a := cs.apps[key]; {
	case cs.closed:
		return nil, p11.Errorf(p11.CKR_CRYPTOKI_NOT_INITIALIZED, "the daemon is stopping")
	case a != nil:
		return a, nil
	case u.applications >= cs.most:
		return nil, refuse(syscall.EDQUOT, p11.CKR_HOST_MEMORY, fmt.Sprintf("uid %d has %d applications already: end some terminals or services", key.uid, cs.most))
	case cs.system.descriptors > 0 && len(cs.apps) >= cs.system.descriptors/2:
		return nil, refuse(syscall.EDQUOT, p11.CKR_HOST_MEMORY, "all users together have as many applications as there are descriptors for: raise the daemon's limit on open files")
	}
	a := &application{
		owner:   files,
		leader:  l,
		account: cs.engine.Account(key.uid),
		slots:   make(map[*engine.Slot]*appSlot),
		emptied: make(map[*blob]struct{}),
		writing: make(map[*blob]struct{}),
		eng:     cs.engine.NewApplication(who, engine.ForPeople),
	}
	cs.apps[key] = a
	u.applications++
	cs.wg.Add(1)
	go func() {
		defer cs.wg.Done()
		l.wait()
		cs.end(a)
	}()
	return a, nil
}

// end ends an application. It may be called again.
func (cs *callers) end(a *application) {
	// First, so that who finds no application any more finds nothing of it either.
	a.close()
	cs.mu.Lock()
	if cs.apps[a.owner.appKey] == a {
		delete(cs.apps, a.owner.appKey)
		cs.users[a.owner.uid].applications--
	}
	cs.mu.Unlock()
	a.leader.close()
}

// process returns the caller's process.
func (cs *callers) process(c caller) int {
	if cs.system.process == nil {
		return int(c.pid)
	}
	return cs.system.process(int(c.pid))
}

// count returns the number of applications.
func (cs *callers) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.apps)
}

// pidfd is a leader held by a descriptor that the runtime's poller watches: a
// thousand of them cost no thread.
type pidfd struct {
	file *os.File
	conn syscall.RawConn
}

// openLeader returns ESRCH when the session has no living leader.
func openLeader(sid int) (leader, error) {
	fd, err := unix.PidfdOpen(sid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	p := &pidfd{file: file, conn: conn}
	// A process of that number that leads no session is another one.
	if s, err := unix.Getsid(sid); err != nil || s != sid || !p.alive() {
		p.close()
		return nil, syscall.ESRCH
	}
	return p, nil
}

func (p *pidfd) alive() bool {
	alive := false
	err := p.conn.Control(func(fd uintptr) { alive = !exited(fd) })
	return err == nil && alive
}

func (p *pidfd) wait() {
	// After close it fails, which ends the wait as well.
	_ = p.conn.Read(exited)
}

func (p *pidfd) close() {
	_ = p.file.Close() // which fails if it was closed before
}

// statFields are what /proc/PID/stat says behind the name, which may have anything in
// it. What cannot be read is nil.
func statFields(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// Fields of a process: its parent; flags; when it was started, which tells two processes of
// one number apart; and its exit code, 0 if this process may not see it.
const (
	statParent = 1
	statFlags  = 6
	statStart  = 19
	statExit   = 49
)

// killed reports whether a process is ending because of a signal. The exit code says so,
// but not of another user's process to one without CAP_SYS_PTRACE. Then it is the mark of
// a signal, which threads also bear that end with another's exit(2), and the signal itself.
func (cs *callers) killed(pid int) bool {
	if cs.system.stat == nil || pid == 0 {
		return false
	}
	const exiting, signaled = 0x4, 0x400 // PF_EXITING, PF_SIGNALED
	f := cs.system.stat(pid)
	if len(f) <= statExit {
		return false
	}
	flags, _ := strconv.ParseUint(f[statFlags], 10, 64)
	exit, _ := strconv.ParseUint(f[statExit], 10, 64)
	switch {
	case flags&exiting == 0:
		return false
	case exit != 0:
		return exit&0x7f != 0
	}
	return flags&signaled != 0 && cs.system.signalled != nil && cs.system.signalled(pid)
}

// startTime is empty where it cannot be read.
func startTime(pid int) string {
	if f := statFields(pid); len(f) > statStart {
		return f[statStart]
	}
	return ""
}

// statusLine are the words of a line of what /proc tells of a thread: no system call
// tells another's.
func statusLine(tid int, key string) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if list, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(list)
		}
	}
	return nil
}

func statusNumbers(tid int, key string) (numbers []uint32) {
	for _, word := range statusLine(tid, key) {
		if n, err := strconv.ParseUint(word, 10, 32); err == nil {
			numbers = append(numbers, uint32(n))
		}
	}
	return numbers
}

// signalled reports whether a signal to the whole process is pending that the thread
// neither blocks, ignores nor catches: one that ends the process stays so until its end.
func signalled(tid int) bool {
	mask := func(key string) (n uint64) {
		for _, word := range statusLine(tid, key) {
			n, _ = strconv.ParseUint(word, 16, 64)
		}
		return n
	}
	return mask("ShdPnd")&^(mask("SigBlk")|mask("SigIgn")|mask("SigCgt")) != 0
}

func unitOf(pid int) string { return cgroup.Unit(pid, uint32(os.Geteuid())) }

func threadGroups(tid int) (group uint32, more []uint32) {
	for _, real := range statusNumbers(tid, "Gid") { // then the effective one and others
		return real, statusNumbers(tid, "Groups")
	}
	return ^uint32(0), nil
}

func processOf(tid int) int {
	// Signal 0 asks whether the first thread is this one, and does not send anything.
	if errors.Is(unix.Tgkill(tid, tid, 0), unix.ESRCH) {
		for _, n := range statusNumbers(tid, "Tgid") {
			return int(n)
		}
	}
	return tid
}

// exited reports whether the process has ended: then its pidfd is readable.
func exited(fd uintptr) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
