package locks

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Others says whether others than the user of this process, and root, may have written what
// st is of, a file or a directory, or may write it.
func Others(st fs.FileInfo) bool {
	s, ok := st.Sys().(*syscall.Stat_t)
	return !ok || st.Mode().Perm()&0o022 != 0 || s.Uid != 0 && int(s.Uid) != os.Geteuid()
}

// OpenOwn opens a regular file of a directory that says what the directory's PINs, keys or
// data go to. In a directory that others may enter it is one that they cannot have put
// there: where they can, it is an error. Nothing is waited for.
func OpenOwn(dir, name string) (*os.File, error) {
	above, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	name = filepath.Join(dir, name)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch private := !Others(above) && above.Mode().Perm()&0o077 == 0; {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", name)
	case !private && Others(st):
		err = fmt.Errorf("others may have written %s, which takes no effect so: it is to be root's or yours, and writable by nobody else", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
