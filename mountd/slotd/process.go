package slotd

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for /proc on all
// architectures that stock openCryptoki is built for.
const ticksPerSecond = 100

// processStart is when the process began, from /proc/PID/stat and the boot time. The
// kernel moves the latter when the clock is set; the earlier of what it is and what
// it was, was, counts.
func processStart(proc string, pid int, was time.Time) (time.Time, error) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return time.Time{}, err
	}
	// The name in parentheses may hold anything; fields count from its end.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("the stat of process %d has %d fields", pid, len(fields))
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("process %d: %w", pid, err)
	}
	boot, err := bootTime(proc)
	if err != nil {
		return time.Time{}, err
	}
	if !was.IsZero() && was.Before(boot) {
		boot = was
	}
	return boot.Add(time.Duration(ticks) * time.Second / ticksPerSecond), nil
}

func bootTime(proc string) (time.Time, error) {
	f, err := os.Open(filepath.Join(proc, "stat"))
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), "btime "); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("no boot time in %s/stat: %w", proc, s.Err())
}
