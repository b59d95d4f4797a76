package integration

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wallClock is the time of day of one process, as the kernel's code in it (the vDSO) tells it:
// it can be set without the clock of the machine. The clocks that nobody sets are left alone.
type wallClock struct {
	mem  *os.File
	slot int64 // where what is added stands
}

// skewed is __vdso_clock_gettime for such a process: it asks the kernel, and adds what stands
// behind it to CLOCK_REALTIME's seconds.
func skewed() []byte {
	return []byte{
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x0a, // jne ret
		0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [behind it]
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3,       // ret
		0x90, 0x90, // to a place that is written at once
		0, 0, 0, 0, 0, 0, 0, 0,
	}
}

// startSkewed starts a program whose clock is off by so much, and can be set.
func startSkewed(cmd *exec.Cmd, off time.Duration) (*wallClock, error) {
	runtime.LockOSThread() // a process is traced by a thread
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return nil, fmt.Errorf("it does not stand at its first instruction: %v, %w", status, err)
	}
	w, err := newWallClock(pid)
	if err == nil {
		err = w.set(off)
	}
	if derr := unix.PtraceDetach(pid); err == nil {
		err = derr
	}
	return w, err
}

// newWallClock changes the code of a process that is stopped.
func newWallClock(pid int) (*wallClock, error) {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	from, to, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	code := make([]byte, to-from)
	if _, err := mem.ReadAt(code, from); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		ours := skewed()
		if s.Name != "__vdso_clock_gettime" || s.Size < uint64(len(ours)) {
			continue
		}
		at := from + int64(s.Value)
		_, err := mem.WriteAt(ours, at)
		return &wallClock{mem, at + int64(len(ours)) - 8}, err
	}
	return nil, fmt.Errorf("no clock_gettime with room among %d symbols", len(symbols))
}

// vdso is where it is in a process.
func vdso(pid int) (from, to int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range lines(string(maps)) {
		if strings.HasSuffix(line, "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, errors.New("it has no vDSO")
}

// set has the process's time of day be off by so much.
func (w *wallClock) set(off time.Duration) error {
	seconds := int64(off / time.Second)
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(seconds >> (8 * i))
	}
	_, err := w.mem.WriteAt(b, w.slot)
	return err
}

// needSkew is need for tests that set the clocks of processes.
func needSkew(t testing.TB) {
	t.Helper()
	need(t, runtime.GOARCH == "amd64", "the code of a clock for this processor")
}

// TestClockOfOneProcess is that the tests of fleets set the clock that they mean to: a program has the
// time that it is told, and nobody else.
func TestClockOfOneProcess(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needSkew(t)
	for _, off := range []time.Duration{0, -7 * time.Hour, 9 * time.Hour} {
		var said bytes.Buffer
		cmd := exec.Command("date", "+%s")
		cmd.Stdout = &said
		w, err := startSkewed(cmd, off)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(cmd.Wait(), w.mem.Close()); err != nil {
			t.Fatal(err)
		}
		told, err := strconv.ParseInt(strings.TrimSpace(said.String()), 10, 64)
		if d := time.Until(time.Unix(told, 0)) - off; err != nil || d.Abs() > time.Minute {
			t.Errorf("a clock that is off by %v says %q", off, said.String())
		}
	}
}
