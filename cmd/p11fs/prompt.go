package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"p11fs/secret"
)

// maxLine bounds an answer: far longer than any PIN or label.
const maxLine = 4096

// An asker gets answers: from the terminal with a prompt, secrets without echo;
// or one line each from standard input that is no terminal.
type asker struct {
	s        streams
	terminal bool
	asked    bool // for a secret
}

func newAsker(s streams) *asker {
	return &asker{s: s, terminal: term.IsTerminal(int(s.in.Fd()))}
}

// secret asks for a PIN. The caller closes it.
func (a *asker) secret(ctx context.Context, prompt string) (*secret.Bytes, error) {
	read := a.noEcho
	if !a.terminal {
		read = func(context.Context, string) ([]byte, error) { return a.line(prompt) }
	}
	b, err := read(ctx, prompt)
	if err != nil {
		return nil, err
	}
	return secret.New(b)
}

// newSecret asks for a PIN to be set, on a terminal twice.
func (a *asker) newSecret(ctx context.Context, prompt string) (*secret.Bytes, error) {
	first, err := a.secret(ctx, prompt)
	if err != nil || !a.terminal {
		return first, err
	}
	again, err := a.secret(ctx, prompt+" again")
	if err != nil {
		_ = first.Close()
		return nil, err
	}
	defer again.Close()
	if !first.Equal(again) {
		_ = first.Close()
		return nil, errors.New("the two entries differ: nothing was changed, start the command again")
	}
	return first, nil
}

// text asks for something that may be seen.
func (a *asker) text(ctx context.Context, prompt string) (string, error) {
	if !a.terminal {
		b, err := a.line(prompt)
		return string(b), err
	}
	fmt.Fprintf(a.s.err, "%s: ", prompt)
	b, err := interruptible(ctx, 0, func() ([]byte, error) { return a.line(prompt) })
	if ctx.Err() != nil {
		fmt.Fprintln(a.s.err)
	}
	return string(b), err
}

// interruptible returns what f does, or when ctx has ended for so long. What f waits
// for, in read(2) perhaps, then stays behind; the process is about to end.
func interruptible[T any](ctx context.Context, wait time.Duration, f func() (T, error)) (none T, _ error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(wait):
		return none, ctx.Err()
	}
}

// line reads one line of standard input, without its newline, and nothing behind it: that
// is for who comes next, as in (p11fs login; p11fs sign web).
func (a *asker) line(what string) ([]byte, error) {
	b := make([]byte, 0, maxLine)
	defer func() { secret.Wipe(b[:cap(b)]) }()
	for {
		n, err := a.s.in.Read(b[len(b) : len(b)+1])
		b = b[:len(b)+n]
		switch {
		case n > 0 && b[len(b)-1] == '\n', errors.Is(err, io.EOF) && len(b) > 0:
			return bytes.Clone(secret.Line(b)), nil
		case errors.Is(err, io.EOF) && a.terminal:
			return nil, fmt.Errorf("no %s was given: start the command again, and type it", what)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("standard input ended before the line with the %s: give each answer a line, in the order of --help", what)
		case err != nil:
			return nil, err
		case len(b) == cap(b):
			return nil, fmt.Errorf("the line with the %s is longer than %d bytes: write a shorter one", what, maxLine)
		}
	}
}

// noEcho reads one line from the terminal without showing it. A signal puts
// the terminal right again, also those that else end the process at once. term.ReadPassword does not end at Ctrl-D, and takes what is
// typed at the shell then for the PIN.
func (a *asker) noEcho(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(a.s.in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	ends := []os.Signal{unix.SIGQUIT}
	if !signal.Ignored(unix.SIGHUP) { // as nohup has it, which goes on
		ends = append(ends, unix.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, ends...)
	defer stop()
	quiet := *before
	quiet.Iflag |= unix.ICRNL
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if !a.asked {
		a.asked = true
		// Text that was pasted with the command is no PIN. If it cannot be
		// dropped, it is a wrong PIN at worst.
		_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
	}
	fmt.Fprintf(a.s.err, "%s: ", prompt)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, err
	}
	b, err := interruptible(ctx, 0, func() ([]byte, error) { return a.line(prompt) })
	err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before))
	fmt.Fprintln(a.s.err)
	return b, err
}

// secretFile reads a PIN from the first line of a file; "-" is not special, as
// standard input is where PINs come from without a file.
func secretFile(path string) (*secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, maxLine)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		secret.Wipe(b)
		return nil, err
	}
	line, _, whole := bytes.Cut(b[:n], []byte("\n"))
	if !whole && n == maxLine { // what was cut off would be missed when it is needed
		secret.Wipe(b)
		return nil, fmt.Errorf("the first line of %s is longer than %d bytes: write a shorter one", path, maxLine-1)
	}
	pin, err := secret.New(bytes.Clone(secret.Line(line)))
	secret.Wipe(b)
	return pin, err
}
