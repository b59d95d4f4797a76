package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// p11io is the Go program that the scripts use: it makes the calls that a
// shell cannot, and says the errno of each by name.
//
//	p11io rw PATH           open read-write once, write standard input, read the result
//	p11io write PATH        open for writing, write standard input, close; print each errno
//	p11io append PATH       likewise with O_APPEND
//	p11io truncate PATH N   truncate(2)
//	p11io ftruncate PATH N  open for writing, ftruncate(2), write standard input, close
//	p11io pwrite PATH OFF   open for writing, pwrite standard input at OFF, close
//	p11io read PATH         open and read all
//	p11io crash TOKEN PIN SEED  the client of TestCrash
//	p11io conformance TOKEN  an application of the conformance suite
//	p11io serve DIR         go to DIR and make one of these calls a line, whose standard
//	                        input is DIR's file of the first word; answer each in a line
//	p11io mkdir|rmdir|unlink|stat PATH, rename|link|symlink OLD NEW, chmod PATH, chown PATH, mknod PATH
//
// The first call that fails is printed as "CALL ERRNO" and ends the program
// with status 1. A write that fails is followed by no close message.
func p11io(args []string, in io.Reader, out, complaints io.Writer) int {
	if err := p11ioRun(args, in, out); err != nil {
		var call callError
		if errors.As(err, &call) {
			fmt.Fprintf(complaints, "%s %s\n", call.name, errnoName(call.errno))
			return 1
		}
		fmt.Fprintln(complaints, "p11io:", err)
		return 2
	}
	return 0
}

// p11ioServe makes many calls in one process, and so in one POSIX session. An
// order is the path of the file that is written, and the call, in words.
func p11ioServe(dir string, in io.Reader, out io.Writer) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		words := strings.Fields(orders.Text())
		if len(words) < 3 {
			return fmt.Errorf("order %q", orders.Text())
		}
		content, err := os.ReadFile(words[0])
		if err != nil {
			return err
		}
		var result, complaint bytes.Buffer
		p11io(words[1:], bytes.NewReader(content), &result, &complaint)
		answer := strings.TrimSpace(complaint.String())
		if answer == "" {
			answer = "ok " + strings.TrimSpace(result.String())
		}
		fmt.Fprintln(out, strings.ReplaceAll(answer, "\n", " "))
	}
	return orders.Err()
}

// A callError is a system call that failed.
type callError struct {
	name  string
	errno syscall.Errno
}

func (e callError) Error() string { return e.name + ": " + e.errno.Error() }

func failed(name string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return callError{name, errno}
	}
	return err
}

func p11ioRun(args []string, in io.Reader, out io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: p11io CALL PATH [ARGUMENT]")
	}
	path, arg := args[1], ""
	if len(args) > 2 {
		arg = args[2]
	}
	number := func() (n int64, err error) {
		_, err = fmt.Sscan(arg, &n)
		return n, err
	}
	switch args[0] {
	case "crash":
		return runCrashClient(args[1:], in, out)
	case "conformance":
		return runFilesApplication(path, in, out)
	case "serve":
		return p11ioServe(path, in, out)
	case "rw":
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			return failed("open", err)
		}
		if err := writeAll(fd, in, -1); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		if err := readAll(fd, out); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return failed("close", unix.Close(fd))
	case "write", "append", "pwrite", "ftruncate":
		flags, offset := unix.O_WRONLY, int64(-1)
		if args[0] == "append" {
			flags |= unix.O_APPEND
		}
		fd, err := unix.Open(path, flags, 0)
		if err != nil {
			return failed("open", err)
		}
		if args[0] == "pwrite" {
			if offset, err = number(); err != nil {
				return err
			}
		}
		if args[0] == "ftruncate" {
			n, err := number()
			if err != nil {
				return err
			}
			if err := unix.Ftruncate(fd, n); err != nil {
				return errors.Join(failed("ftruncate", err), unix.Close(fd))
			}
		}
		if err := writeAll(fd, in, offset); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return failed("close", unix.Close(fd))
	case "read":
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return failed("open", err)
		}
		if err := readAll(fd, out); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return failed("close", unix.Close(fd))
	case "truncate":
		n, err := number()
		if err != nil {
			return err
		}
		return failed("truncate", unix.Truncate(path, n))
	case "mkdir":
		return failed("mkdir", unix.Mkdir(path, 0o777))
	case "rmdir":
		return failed("rmdir", unix.Rmdir(path))
	case "unlink":
		return failed("unlink", unix.Unlink(path))
	case "stat":
		var st unix.Stat_t
		return failed("stat", unix.Lstat(path, &st))
	case "rename":
		return failed("rename", unix.Rename(path, arg))
	case "link":
		return failed("link", unix.Link(path, arg))
	case "symlink":
		return failed("symlink", unix.Symlink(path, arg))
	case "chmod":
		return failed("chmod", unix.Chmod(path, 0o777))
	case "chown":
		return failed("chown", unix.Chown(path, 1, 1))
	case "mknod":
		return failed("mknod", unix.Mknod(path, unix.S_IFREG|0o666, 0))
	}
	return fmt.Errorf("unknown call %s", args[0])
}

// writeAll copies in to fd in pieces of 64 KiB, from offset on if that is not
// negative. Empty input is still one write of 0 bytes.
func writeAll(fd int, in io.Reader, offset int64) error {
	buf := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, err := io.ReadFull(in, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n > 0 || first {
			var wrote int
			var werr error
			if offset >= 0 {
				wrote, werr = unix.Pwrite(fd, buf[:n], offset)
				offset += int64(wrote)
			} else {
				wrote, werr = unix.Write(fd, buf[:n])
			}
			if werr != nil {
				return failed("write", werr)
			}
			if wrote != n {
				return fmt.Errorf("wrote %d of %d bytes", wrote, n)
			}
		}
		if err != nil {
			return nil
		}
	}
}

// readAll copies fd to out until a read gives 0 bytes.
func readAll(fd int, out io.Writer) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return failed("read", err)
		}
		if n == 0 {
			return nil
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// errnoName is the name of an errno. EOPNOTSUPP has two.
func errnoName(e syscall.Errno) string {
	if e == unix.EOPNOTSUPP {
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(e)
}
