package tpm20

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// TestTrouble: whoever cannot open a TPM is told why, and by what that is mended.
func TestTrouble(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	process := func(pid int, name, open string) {
		fd := filepath.Join(proc, fmt.Sprint(pid), "fd")
		noError(t, os.MkdirAll(fd, 0o700))
		noError(t, os.WriteFile(filepath.Join(proc, fmt.Sprint(pid), "comm"), []byte(name+"\n"), 0o600))
		if open != "" {
			noError(t, os.Symlink(open, filepath.Join(fd, "3")))
		}
	}
	process(1, "init", "/dev/null")
	for _, c := range []struct {
		device     Device
		err        error
		what, mend string
	}{
		{"/dev/tpm0", nil, "", ""},
		{"/dev/tpm0", unix.EIO, "", ""},
		{"/dev/tpmrm0", unix.ENOENT, "there is no TPM at /dev/tpmrm0", "modprobe"},
		{"/dev/tpmrm0", unix.ENXIO, "there is no TPM at /dev/tpmrm0", "modprobe"},
		{"/dev/tpmrm0", unix.EACCES, "this user may not open /dev/tpmrm0", "usermod -aG tss"},
		{"/dev/tpmrm0", unix.EPERM, "this container may not use /dev/tpmrm0", "--device /dev/tpmrm0"},
		{"/dev/tpm0", unix.EBUSY, "another program has /dev/tpm0", "take /dev/tpmrm0"},
		{"unix:/x/sock", unix.ENOENT, "no software TPM listens at unix:/x/sock", "--server type=unixio,path=/x/sock "},
		{"unix:/x/sock", unix.EACCES, "this user may not connect to unix:/x/sock", "directory"},
		{"tcp:[::1]:2321", unix.ECONNREFUSED, "no software TPM listens at tcp:[::1]:2321", "--server type=tcp,port=2321 "},
	} {
		err := c.err
		if err != nil {
			err = &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
		}
		what, mend := c.device.Trouble(err, proc)
		if !strings.Contains(what, c.what) || !strings.Contains(mend, c.mend) || (what == "") != (c.what == "") || (mend == "") != (c.mend == "") {
			t.Errorf("%s, %v: %q, %q", c.device, c.err, what, mend)
		}
	}
	busy := func(want string) {
		t.Helper()
		if what, _ := Device("/dev/tpm0").Trouble(unix.EBUSY, proc); what != want+" has /dev/tpm0 for itself" {
			t.Errorf("it says %q, not of %s", what, want)
		}
	}
	process(20, "tcsd", "") // of another user, whose files are not seen
	busy("tcsd")
	process(21, "p11fs", "/dev/tpm0")
	busy("p11fs")
	if d := Device("/dev/tpm0"); !d.Held("p11fs", proc) || d.Held("tcsd", proc) {
		t.Error("it is not known who has the device")
	}

	c := must[*Chip](t)(Open("unix:/nonexistent/socket"))
	defer c.Close()
	_, err := c.Facts(t.Context())
	if !strings.Contains(fmt.Sprint(err), "no software TPM listens") || !strings.Contains(p11.AdviceOf(err), "swtpm socket") {
		t.Errorf("%v (%s)", err, p11.AdviceOf(err))
	}
}
