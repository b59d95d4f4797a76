package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// blockSize is what the kernel moves in one request of the tree.
const blockSize = 1 << 20

// A queue has the blocks between a goroutine and another.
type queue struct {
	full, empty chan []byte
	done        chan struct{} // closed when the goroutine has ended
	err         error         // why, after that
}

func newQueue() *queue {
	q := &queue{full: make(chan []byte, 2), empty: make(chan []byte, 2), done: make(chan struct{})}
	for range cap(q.empty) {
		q.empty <- make([]byte, blockSize)
	}
	return q
}

// fill reads in to its end.
func (q *queue) fill(in io.Reader) {
	defer close(q.done)
	defer close(q.full)
	for b := range q.empty {
		n, err := io.ReadFull(in, b)
		if n > 0 {
			q.full <- b[:n]
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return
		} else if err != nil {
			q.err = err
			return
		}
	}
}

// write writes what is full to out.
func (q *queue) write(out io.Writer) {
	defer close(q.done)
	for b := range q.full {
		if _, q.err = out.Write(b); q.err != nil {
			return
		}
		q.empty <- b[:blockSize]
	}
}

// take reads what output there is of f, which is open with O_NONBLOCK.
func (q *queue) take(f *os.File) (given bool, err error) {
	for {
		var b []byte
		select {
		case b = <-q.empty:
		case <-q.done:
			return given, q.err
		}
		n, err := readNow(f, b)
		if n == 0 {
			q.empty <- b
			return given, err
		}
		given = true
		q.full <- b[:n]
	}
}

// readNow is f.Read, but for what is not there yet: it gives nothing then, as at the
// end. A File would wait for a sign of the kernel, of which the tree gives none.
func readNow(f *os.File, b []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Read(func(fd uintptr) bool {
		for {
			if n, err = syscall.Read(int(fd), b); !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case errors.Is(err, syscall.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return n, nil
}

// pump sends in through f, and what f gives to out, each at its own pace. It says
// whether there was any output, also where it fails.
func pump(f *os.File, in io.Reader, out io.Writer) (given bool, err error) {
	r, w := newQueue(), newQueue()
	go r.fill(in)
	go w.write(out)
	defer func() {
		close(r.empty)
		close(w.full)
		if <-w.done; err == nil {
			err = w.err
		}
	}()
	for b := range r.full {
		if _, err := f.Write(b); err != nil {
			return given, err
		}
		r.empty <- b[:blockSize]
		some, err := w.take(f)
		if given = given || some; err != nil {
			return given, err
		}
	}
	if <-r.done; r.err != nil {
		return given, r.err
	}
	if err := f.Sync(); err != nil { // the end of the message, also of an empty one
		return given, err
	}
	some, err := w.take(f)
	return given || some, err
}

// An output is where a command writes. A regular file has its name once all of it is
// there.
type output struct {
	stdout io.Writer // where it is this
	file   *os.File  // else
	path   string    // the name to come; empty where the file has it
	named  string    // what the command line calls it
	fresh  bool      // it is to take no other's place
}

func (o *output) Write(b []byte) (int, error) {
	if o.file == nil {
		return o.stdout.Write(b)
	}
	n, err := o.file.Write(b)
	return n, o.failed(err)
}

// failed tells an error by the name that the command line has, not by one that only the
// command knows.
func (o *output) failed(err error) error {
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return &os.PathError{Op: path.Op, Path: o.named, Err: path.Err}
	case errors.As(err, &link):
		return &os.PathError{Op: link.Op, Path: o.named, Err: link.Err}
	}
	return err
}

// createOutput begins an output; stdout is it where path is empty.
func createOutput(path string, stdout io.Writer, mode os.FileMode) (*output, error) {
	o := &output{stdout: stdout, named: path}
	if path == "" {
		return o, nil
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.Stat(path)
	if err == nil && !old.Mode().IsRegular() {
		o.file, err = os.OpenFile(path, os.O_WRONLY, 0)
		return o, o.failed(err)
	}
	f, newErr := createBeside(path, mode)
	if newErr == nil && err == nil {
		_ = f.Chmod(old.Mode().Perm()) // as far as the file system has modes
	}
	o.file, o.path = f, path
	return o, o.failed(newErr)
}

// createBeside makes a file that is to have the name path once all of it is there.
func createBeside(path string, mode os.FileMode) (*os.File, error) {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // which does not fail
	return os.OpenFile(filepath.Join(filepath.Dir(path), fmt.Sprintf(".p11fs-%x", random)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// createPrivate begins a file that only its owner reads, from the beginning: who has opened
// it keeps it. It takes the place of none that is there by then, unless replace is set, and
// follows no symbolic link: others may write the directory.
func createPrivate(path string, replace bool) (*output, error) {
	o := &output{named: path, path: path, fresh: !replace}
	var err error
	o.file, err = createBeside(path, 0o600)
	return o, o.failed(err)
}

// renameNew is rename(2) to a name that nothing has.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system cannot
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}
	if err != nil {
		return &os.PathError{Op: "rename", Path: to, Err: err}
	}
	return nil
}

// commit ends the output, of which all is there.
func (o *output) commit() error {
	if o.path == "" {
		if o.file != nil {
			return o.failed(o.file.Close())
		}
		return nil
	}
	err := errors.Join(o.file.Sync(), o.file.Close())
	switch {
	case err != nil:
	case o.fresh:
		err = renameNew(o.file.Name(), o.path)
	default:
		err = os.Rename(o.file.Name(), o.path)
	}
	if err == nil {
		o.path = ""
	}
	return o.failed(err)
}

// discard removes what was not committed.
func (o *output) discard() {
	if o.path != "" {
		_ = o.file.Close()
		_ = os.Remove(o.file.Name())
	}
}
