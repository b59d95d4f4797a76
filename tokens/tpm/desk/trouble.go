package desk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Try opens the device and closes it again. Nothing is asked of the TPM.
func (d Device) Try(ctx context.Context) error {
	l, err := d.open(ctx)
	if err == nil {
		l.Close()
	}
	return err
}

// managed is the device of the kernel's resource manager, which several programs share.
const managed = "/dev/tpmrm0"

// Trouble says in words why a device cannot be opened, by the error of that, and what
// mends it; both are empty where nothing is to be said that the error does not. proc is
// where the processes of the machine are, /proc.
func (d Device) Trouble(err error, proc string) (what, mend string) {
	file, soft := string(d), !strings.HasPrefix(string(d), "/")
	switch is := func(all ...error) bool {
		return slices.ContainsFunc(all, func(one error) bool { return errors.Is(err, one) })
	}; {
	case err == nil:
	case soft && is(unix.ENOENT, unix.ECONNREFUSED, unix.ETIMEDOUT):
		server := "type=unixio,path=PATH"
		if path, ok := strings.CutPrefix(file, "unix:"); ok {
			server = "type=unixio,path=" + path
		} else if _, port, ok := strings.Cut(file, ":"); ok {
			server = "type=tcp,port=" + port[strings.LastIndexByte(port, ':')+1:]
		}
		return "no software TPM listens at " + file,
			"swtpm socket --tpm2 --tpmstate dir=DIRECTORY --server " + server + " --flags not-need-init,startup-clear"
	case is(unix.ENOENT, unix.ENODEV, unix.ENXIO):
		return "there is no TPM at " + file + ": the machine has none, its firmware has it switched off, or the kernel has no driver for it",
			"modprobe tpm_tis (or tpm_crb), or name another device, such as unix:/PATH of a software TPM"
	case is(unix.EACCES) && soft:
		return "this user may not connect to " + file, "let the user into its directory"
	case is(unix.EACCES):
		return "this user may not open " + file, "usermod -aG tss $(id -un) as root, and log in anew"
	case is(unix.EPERM):
		return "this container may not use " + file, "run it with --device " + file
	case is(unix.EBUSY):
		mend = "take " + managed + ", which programs share"
		if name := holder(file, proc); name != "" {
			return name + " has " + file + " for itself", "systemctl stop " + name + ", or " + mend
		}
		return "another program has " + file + " for itself", mend
	}
	return "", ""
}

// daemons are the programs that are known to keep a TPM for themselves.
var daemons = []string{"tcsd", "tpm2-abrmd"} //nolint:gochecknoglobals // never changed

// holder is the name of the process that has a device open, as far as that may be seen.
// Another user sees no more than that one of the daemons runs.
func holder(device, proc string) (name string) {
	all, _ := filepath.Glob(filepath.Join(proc, "[0-9]*")) // none where there is no proc
	for _, dir := range all {
		b, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has ended
		}
		comm := strings.TrimSpace(string(b))
		files, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
		for _, file := range files {
			if to, err := os.Readlink(file); err == nil && to == device {
				return comm
			}
		}
		if slices.Contains(daemons, comm) {
			name = comm
		}
	}
	return name
}

// Held says whether a process called name has the device open, by the processes in proc.
func (d Device) Held(name, proc string) bool { return holder(string(d), proc) == name }

// advised is an error of opening the device with what is known of its reason, and what
// mends it.
func (d Device) advised(why error) (mend string, err error) {
	what, mend := d.Trouble(why, "/proc")
	if what == "" {
		return "", why
	}
	return mend, fmt.Errorf("%s: %w", what, why)
}
