package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/mountd/config"
	"p11fs/mountd/slotd"
	"p11fs/shm"
)

// slotDaemonName is the name by which the program is openCryptoki's slot daemon.
const slotDaemonName = "pkcsslotd"

// readyVariable tells the process that stays at which descriptor its starter waits.
const readyVariable = "P11FS_PKCSSLOTD_READY"

// The exit codes of pkcsslotd 3.8.1, where ours say the same.
const (
	slotdFailure  = 1 // wrong user or group, no configuration, no shared memory, in use
	slotdNoData   = 2 // no /var/lib/opencryptoki
	slotdSocket   = 5 // the socket cannot be made
	slotdSlots    = 6 // a slot of the configuration is none
	slotdSameName = 13
)

// slotOptions are pkcsslotd's.
type slotOptions struct {
	verbose    int
	foreground bool
	logFile    string
	help       bool
}

// parseSlotOptions understands a command line as getopt(3) does with pkcsslotd's
// options. As there, what is no option is complained about and otherwise ignored,
// so that a start script of another version still starts the daemon.
func parseSlotOptions(args []string) (o slotOptions, complaints []string) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			continue
		}
		for rest := arg[1:]; rest != ""; {
			letter := rest[0]
			rest = rest[1:]
			switch letter {
			case 'v':
				o.verbose++
			case 'f':
				o.foreground = true
			case 'h':
				o.help = true
			case 'l':
				if rest == "" && len(args) > 0 {
					rest, args = args[0], args[1:]
				}
				if rest == "" {
					complaints = append(complaints, "option requires an argument -- 'l'")
				}
				o.logFile, rest = rest, ""
			default:
				complaints = append(complaints, fmt.Sprintf("invalid option -- '%c'", letter))
			}
		}
	}
	return o, complaints
}

const slotUsage = `usage: pkcsslotd [-v] [-f] [-l LOG_FILE] [-h]

	-v       log more; may be given several times
	-f       stay in the foreground
	-l FILE  log to FILE as well as to syslog
	-h       print this and exit

This is p11fs in the place of openCryptoki's slot daemon. If the directory
/p11 exists it mounts the tokens there too. See p11fs(1) and p11fs(5).
`

// slotDaemon is one run of the program as pkcsslotd.
type slotDaemon struct {
	opts  slotOptions
	paths mountd.Paths
	s     streams
	log   *slog.Logger
	sinks *slotLog
	ready *os.File // where the starter waits; nil in the foreground
}

// slotDaemonMain is the whole program under the name pkcsslotd. Its result is the
// exit code.
func slotDaemonMain(args []string, s streams) int {
	opts, complaints := parseSlotOptions(args)
	pipe, err := strconv.Atoi(os.Getenv(readyVariable))
	stays := err == nil // the second process, whose starter has checked and complained
	if stays {
		complaints = nil
	}
	for _, c := range complaints {
		fmt.Fprintf(s.err, "%s: %s\n", slotDaemonName, c)
	}
	if opts.help {
		fmt.Fprint(s.out, slotUsage)
		return exitOK
	}
	if err := mayBeSlotDaemon(os.Geteuid(), os.Getegid(), user.LookupGroup); err != nil {
		fmt.Fprintln(s.err, err)
		return slotdFailure
	}
	d := &slotDaemon{opts: opts, paths: mountd.SystemPaths(""), s: s}
	d.sinks = newSlotLog(s.err, time.Now)
	if err := d.sinks.open(opts.logFile); err != nil && !stays {
		fmt.Fprintf(s.err, "%s: no log file: %v\n", slotDaemonName, err) // and on without it, as stock
	}
	defer d.sinks.close()
	level := slog.LevelInfo
	if opts.verbose > 0 {
		level = slog.LevelDebug
	}
	d.log = slog.New(d.sinks.handler(level))
	if stays {
		if err := os.Unsetenv(readyVariable); err != nil {
			return slotdFailure
		}
		d.ready = os.NewFile(uintptr(pipe), "ready")
		return d.serve()
	}
	d.log.Debug(fmt.Sprintf("Starting with debugging messages logged at level %d (0 = No messages; 100 = few; 200 = more, etc.)", 100*opts.verbose))
	if code := d.check(); code != exitOK {
		return code
	}
	d.log.Debug("Parse config file succeeded.")
	if opts.foreground {
		return d.serve()
	}
	return d.detach()
}

// mayBeSlotDaemon returns why a process with these ids cannot be the slot daemon.
func mayBeSlotDaemon(euid, egid int, lookup func(string) (*user.Group, error)) error {
	if euid != 0 {
		return errors.New("This daemon needs root privileges, but the effective user id is not 'root'.") //nolint:staticcheck // a whole sentence, as from the stock daemon
	}
	g, err := lookup(mountd.Group)
	if err != nil {
		return fmt.Errorf("There is no '%s' group on this system (groupadd --system %[1]s).", mountd.Group) //nolint:staticcheck // as above
	}
	if egid != 0 && strconv.Itoa(egid) != g.Gid {
		return fmt.Errorf("This daemon should have an effective group id of 'root' or '%s'.", mountd.Group) //nolint:staticcheck // as above
	}
	return nil
}

// check looks at what can be told before anything is made, in the stock order.
func (d *slotDaemon) check() int {
	if st, err := os.Stat(d.paths.Data); err != nil || !st.IsDir() {
		fmt.Fprintf(d.s.err, "Token directories missing: %s\n", d.paths.Data)
		return slotdNoData
	}
	_, _, err := config.Load(d.paths.Config) // serve tells the warnings
	var bad *config.Problem
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &bad):
		fmt.Fprintln(d.s.err, err)
		d.log.Error("Failed to read config file.")
		return slotdFailure
	}
	d.sayFile() // stock gets this far first
	if errors.Is(err, config.ErrTokenName) {
		d.log.Error("Duplicate token name", "err", oneLine(err))
		return slotdSameName
	}
	d.log.Error("Failed to populate slot info.", "err", oneLine(err))
	return slotdSlots
}

func (d *slotDaemon) sayFile() { d.log.Info("Shared memory file is " + d.paths.SlotDaemon) }

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// detach starts the process that stays, in a session of its own, and returns
// once it serves, or with its exit code.
func (d *slotDaemon) detach() int {
	r, w, err := os.Pipe()
	if err != nil {
		d.log.Error("cannot start the daemon", "err", err)
		return slotdFailure
	}
	defer r.Close()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = slotDaemonName
	c.Env = append(os.Environ(), readyVariable+"=3") // the first of ExtraFiles
	c.ExtraFiles = []*os.File{w}
	c.Stderr = os.Stderr // until it is ready
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	_ = w.Close()
	if err != nil {
		d.log.Error("cannot start the daemon", "err", err)
		return slotdFailure
	}
	// A signal that ends the start ends the daemon too, which is not in our process
	// group any more.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for range stop {
			_ = c.Process.Signal(unix.SIGTERM)
		}
	}()
	if n, _ := r.Read(make([]byte, 1)); n == 1 {
		return exitOK
	}
	_ = c.Wait() // its exit code is what is asked for
	if code := c.ProcessState.ExitCode(); code > 0 {
		return code
	}
	return slotdFailure
}

// serve is the daemon, until a signal ends it.
func (d *slotDaemon) serve() int {
	// Tools look the daemon up by this name: the link is not what was executed.
	if err := os.WriteFile("/proc/self/comm", []byte(slotDaemonName), 0); err != nil {
		d.log.Debug("cannot set the name of the process", "err", err)
	}
	signal.Ignore(syscall.SIGPIPE)
	reload := hangUps()
	if err := mountd.Harden(mountd.System, d.log); err != nil {
		d.log.Error("Failed to start", "err", err)
		return slotdFailure
	}
	old := segmentOf(d.paths.SlotDaemon)
	d.sayFile()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		got, ok := (<-signals).(syscall.Signal)
		if !ok {
			return
		}
		d.log.Info(fmt.Sprintf("Exiting on %s (%d; %#x)", unix.SignalName(got), int(got), int(got)))
		signal.Reset() // a second one kills
		cancel()
	}()
	defer signal.Stop(signals)
	conf := mountd.Config{
		Mode: mountd.System, Paths: d.paths, SlotDaemon: true, Log: d.log,
		TraceLevel: os.Getenv(mountd.TraceVariable), Reload: reload, Credentials: os.Getenv(credentialsVariable),
		Processors: mountd.Processors(),
		Ready:      func(r mountd.Ready) { d.isReady(r, old) },
	}
	if err := setKinds(&conf, "auto"); err != nil {
		return d.exit(err)
	}
	return d.exit(mountd.Run(ctx, conf))
}

// isReady logs it, in the stock daemon's words, and tells the process that waits.
func (d *slotDaemon) isReady(r mountd.Ready, old int) {
	if old >= 0 && old != r.SegmentID {
		d.log.Error(fmt.Sprintf("Shared memory creation failed (%#x)", int(unix.EEXIST)))
		d.log.Error(fmt.Sprintf("Reclaiming 0x%X", uint32(r.SegmentKey)))
	}
	d.log.Debug(fmt.Sprintf("SHMID %d  token %#X", r.SegmentID, uint32(r.SegmentKey)))
	if r.Mount != "" {
		d.log.Info("The tokens are mounted on " + r.Mount)
	}
	if d.ready == nil {
		return
	}
	if err := leaveTerminal(); err != nil {
		d.log.Warn("cannot leave the terminal", "err", err)
	}
	d.sinks.noTerminal()
	if _, err := d.ready.Write([]byte{1}); err != nil {
		d.log.Debug("nobody waits for the start", "err", err)
	}
	_ = d.ready.Close()
}

// leaveTerminal lets go of the standard streams and of the working directory.
func leaveTerminal() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}

// exit logs why the daemon ended, and returns the exit code.
func (d *slotDaemon) exit(err error) int {
	code, text := slotExit(err)
	if err != nil {
		d.log.Error(text, "err", oneLine(err))
	}
	return code
}

// slotExit is the exit code of an error, and what the stock daemon says with it.
func slotExit(err error) (code int, text string) {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return exitOK, ""
	case errors.Is(err, config.ErrTokenName):
		return slotdSameName, "Duplicate token name"
	case errors.Is(err, slotd.ErrSocket):
		return slotdSocket, socketTrouble(err)
	case errors.Is(err, mountd.ErrNoSlotDaemonFile):
		return slotdFailure, "Shared Memory Key Token creation file does not exist"
	case errors.Is(err, slotd.ErrRunning), errors.Is(err, mountd.ErrBusy):
		return slotdFailure, "A slot daemon is running already"
	}
	return slotdFailure, "Failed to start"
}

// socketTrouble is what failed with the socket, in the stock daemon's words.
func socketTrouble(err error) string {
	path := new(fs.PathError)
	errors.As(err, &path)
	return cmp.Or(map[string]string{
		"remove": "Failed to unlink socket file",
		"lchown": "Could not change file group on socket",
		"chmod":  "Could not change file permissions on socket",
	}[path.Op], "Failed to bind to socket")
}

// segmentOf is the id of the slot manager's segment that there is, or -1.
func segmentOf(file string) int {
	key, err := shm.Key(file)
	if err != nil {
		return -1
	}
	id, err := shm.SlotManagerID(key)
	if err != nil {
		return -1
	}
	return id
}

// isSlotDaemon reports whether the program was called by the slot daemon's name.
func isSlotDaemon(arg0 string) bool { return filepath.Base(arg0) == slotDaemonName }
