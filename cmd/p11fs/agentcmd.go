package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p11fs/mountd"
)

// maxCertificate bounds the file of a certificate.
const maxCertificate = 1 << 20

// agentOptions are the options of agent.
type agentOptions struct {
	foreground, confirm        bool
	socket, mount              string
	tokens, keys, certificates []string
	lifetime                   time.Duration
}

func newAgent(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "agent [COMMAND [ARGUMENT...]]",
		Short: "Serve the keys of the tokens to ssh, git and scp, as ssh-agent does",
		Long: `Serve the private keys of the tokens to ssh, git and scp, as ssh-agent(1) does: RSA keys,
EC keys on P-256, P-384 and P-521, and Ed25519. The keys are those that this terminal sees
when it is asked: p11fs login shows the private ones, before or after, and p11fs logout
hides them. ssh-add -l lists them; their public halves are in TOKEN/objects/NAME/public.ssh.

Without COMMAND the agent goes into the background, and prints the variables that lead ssh
to it; it ends with the terminal, or by kill $SSH_AGENT_PID. With COMMAND it runs that, with
the variables set, and ends with it, and with its exit status.

A certificate is offered before the key that it is of. Keys that are public objects come
after the private ones, since anybody may make those, and keys whose end-date has come, as of
those that p11fs rotate has replaced, after all others, under whatever names. Of copies of
a key one is offered. With --confirm each use is asked for
by the program $SSH_ASKPASS. Who asks for an RSA signature of the old kind, with SHA-1,
gets one, as from ssh-agent.`,
		Example: `  eval "$(p11fs agent)"
  p11fs agent --key swtok/web git push
  p11fs agent --lifetime 8h --certificate ~/.ssh/web-cert.pub bash`,
		Args: takes(0, 1<<20),
	}
	o := &agentOptions{}
	f := c.Flags()
	f.SetInterspersed(false) // what stands behind COMMAND is COMMAND's
	f.StringVar(&o.mount, "mount", "", "the mount point (default: $"+mountEnv+", or the one that is mounted)")
	f.BoolVarP(&o.foreground, "foreground", "D", false, "stay in the foreground")
	f.StringVarP(&o.socket, "socket", "a", "", "listen on this `PATH` (default: one in a new directory)")
	f.StringArrayVar(&o.tokens, "token", nil, "serve the keys of this `TOKEN` only; may be given several times")
	f.StringArrayVar(&o.keys, "key", nil, "serve this `KEY` only; may be given several times")
	f.StringArrayVar(&o.certificates, "certificate", nil, "offer the certificate in this `FILE`, as ssh-keygen -s writes it; may be given several times")
	f.BoolVarP(&o.confirm, "confirm", "c", false, "ask before each use of a key")
	f.DurationVarP(&o.lifetime, "lifetime", "t", 0, "end after this `TIME`, such as 8h or 30m")
	completeFlag(c, "token", completeTokens(&o.mount))
	keys := completeKeys(&o.mount, []string{".key"})
	completeFlag(c, "key", func(c *cobra.Command, _ []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return keys(c, nil, word)
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		t, err := findTree(o.mount, os.Getenv)
		if err != nil {
			return err
		}
		a := &sshAgent{t: t, tokens: o.tokens, keys: o.keys, log: s.err}
		if err := o.check(c.Context(), a); err != nil {
			return err
		}
		if o.foreground || len(args) > 0 {
			return o.run(c.Context(), s, a, args)
		}
		// From the mount that was found: variables of the shell may change.
		return inBackground(s, append([]string{c.Name(), "--foreground", "--mount", t.dir}, o.arguments()...))
	}
	return c
}

// check finds out whether all that the options name is there.
func (o *agentOptions) check(ctx context.Context, a *sshAgent) error {
	for _, name := range o.tokens {
		if err := a.t.token(name); err != nil {
			return err
		}
	}
	for _, name := range o.keys {
		if strings.HasPrefix(name, ".") || filepath.IsAbs(name) {
			return &usageError{err: fmt.Errorf("%s is a path: name the key as TOKEN/NAME", name)}
		}
	}
	for _, file := range o.certificates {
		c, err := readCertificate(file)
		if err != nil {
			return err
		}
		a.certificates = append(a.certificates, c)
	}
	if o.lifetime < 0 {
		return &usageError{err: errors.New("a lifetime is more than 0: write it as 8h or 30m")}
	}
	if o.confirm {
		a.confirm = askpass(ctx)
	}
	return nil
}

// readCertificate reads a certificate of ssh's.
func readCertificate(file string) (*ssh.Certificate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCertificate))
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s is a key and no certificate: ssh-keygen -s makes one of it", file)
	}
	return c, nil
}

// arguments are the options for one in the background.
func (o *agentOptions) arguments() (args []string) {
	for flag, values := range map[string][]string{"--token": o.tokens, "--key": o.keys} {
		for _, v := range values {
			args = append(args, flag, v)
		}
	}
	for _, v := range o.certificates {
		args = append(args, "--certificate", v)
	}
	if o.socket != "" {
		args = append(args, "--socket", o.socket)
	}
	if o.confirm {
		args = append(args, "--confirm")
	}
	return append(args, "--lifetime", o.lifetime.String())
}

// inBackground starts p11fs once more, and prints what it does until it listens.
func inBackground(s streams, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, args...) //nolint:noctx // it outlives this one
	c.Stderr = s.err
	// A process group of its own: Ctrl-C at the terminal is not for it. The POSIX session
	// is this one, whose login it uses.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if n, err := io.Copy(s.out, out); n > 0 || err != nil {
		return err
	}
	var ended *exec.ExitError
	if err := c.Wait(); errors.As(err, &ended) { // and has said why
		return &endedError{ended.ExitCode()}
	}
	return errSilent
}

// run serves until the command has ended, or ctx, the lifetime or the terminal's session.
func (o *agentOptions) run(ctx context.Context, s streams, a *sshAgent, command []string) (err error) {
	log.SetOutput(io.Discard) // where the agent's library says again what was said
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.lifetime > 0 {
		ctx, cancel = context.WithTimeout(ctx, o.lifetime)
		defer cancel()
	}
	path := o.socket
	if path == "" {
		dir, err := os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "p11fs-agent-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		path = filepath.Join(dir, fmt.Sprintf("agent.%d", os.Getpid()))
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	l, err := listenAgent(ctx, path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	if len(command) > 0 {
		served := make(chan error, 1)
		go func() { served <- a.serve(ctx, l) }()
		err := runCommand(command, s, path)
		cancel()
		return errors.Join(err, <-served)
	}
	fmt.Fprintf(s.out, "SSH_AUTH_SOCK=%s; export SSH_AUTH_SOCK;\nSSH_AGENT_PID=%d; export SSH_AGENT_PID;\n", shellQuote(path), os.Getpid())
	if out, ok := s.out.(*os.File); ok && !isTerminal(out) {
		out.Close() // who reads it knows that it is all
	}
	go func() {
		if leaderEnds() {
			cancel()
		}
	}()
	return a.serve(ctx, l)
}

// listenAgent listens on a socket for its user alone. One that nobody listens on is
// replaced.
func listenAgent(ctx context.Context, path string) (*net.UnixListener, error) {
	if c, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s is %w by another agent: name another path with --socket", path, mountd.ErrBusy)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		}
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// runCommand runs a program with an agent, and returns its exit status.
func runCommand(command []string, s streams, path string) error {
	c := exec.Command(command[0], command[1:]...) //nolint:noctx // signals of the terminal reach it as well
	c.Stdin, c.Stdout, c.Stderr = s.in, s.out, s.err
	c.Env = append(os.Environ(), "SSH_AUTH_SOCK="+path, fmt.Sprintf("SSH_AGENT_PID=%d", os.Getpid()))
	err := c.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &endedError{128 + int(status.Signal())}
		}
		return &endedError{ended.ExitCode()}
	}
	return err
}

// leaderEnds waits for the leader of this POSIX session to end: its login ends with it. It
// is false where there is none to wait for.
func leaderEnds() bool {
	sid, err := unix.Getsid(0)
	if err != nil || sid == os.Getpid() {
		return false
	}
	fd, err := unix.PidfdOpen(sid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	for {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}
