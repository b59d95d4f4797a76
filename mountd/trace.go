package mountd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"p11fs/locks"
)

// TraceVariable is the environment variable that switches openCryptoki's trace on.
const TraceVariable = "OPENCRYPTOKI_TRACE_LEVEL"

// trace is the daemon's trace file, one a process, as openCryptoki's processes
// have it: /var/log/opencryptoki/trace.PID, 0640, group pkcs11, appended to.
type trace struct {
	path string
	file *os.File
	err  error // why there is none though one was asked for
}

// traceLevel is what a value of OPENCRYPTOKI_TRACE_LEVEL switches on: nothing, or a
// trace of the messages from least on.
func traceLevel(value string) (least slog.Level, on bool, err error) {
	levels := map[string]slog.Level{"1": slog.LevelError, "2": slog.LevelWarn, "3": slog.LevelInfo, "4": slog.LevelDebug}
	if least, on = levels[value]; on || value == "" || value == "0" {
		return least, on, nil
	}
	return 0, false, fmt.Errorf("%s is %q, and its values are 0 to 4; the trace stays off", TraceVariable, value)
}

// openTrace has everything that is logged written to the trace file as well,
// from the least important message on that the level names. What is logged holds
// no secret, so neither does the trace. A level that is none is reported, and
// switches nothing on. A trace that cannot be written is no reason not to start.
func (d *Daemon) openTrace() error {
	dir := d.conf.Paths.Trace
	if dir == "" {
		return nil
	}
	least, on, err := traceLevel(d.conf.TraceLevel)
	if err != nil {
		d.log.Warn(err.Error())
		return nil
	}
	if !on {
		return nil
	}
	d.trace = &trace{path: filepath.Join(dir, "trace."+strconv.Itoa(os.Getpid()))}
	if d.trace.err = d.trace.open(d.group()); d.trace.err != nil {
		return d.trace.err
	}
	d.later(d.trace.file.Close)
	d.log = slog.New(slog.NewMultiHandler(d.log.Handler(), newTraceHandler(d.trace.file, least)))
	return nil
}

// open makes the file, or goes on with the one of an earlier process that had the
// same number.
func (t *trace) open(group int) error {
	if err := locks.MakeDirectory(filepath.Dir(t.path), 0o770, group); err != nil {
		return err
	}
	// The group can write to the directory: the name must not lead elsewhere.
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: move it away", t.path)
	}
	if err == nil && group >= 0 {
		err = f.Chown(-1, group)
	}
	if err == nil {
		err = f.Chmod(0o640)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t.file = f
	return nil
}

// traceFile is the file's line in the list of resources.
func (d *Daemon) traceFile() resource {
	if d.trace == nil {
		return resource{name: "trace", state: stateOff}
	}
	if d.trace.err != nil {
		return resource{name: "trace", size: unknown, state: stateFailed}
	}
	return d.file("trace/"+filepath.Base(d.trace.path), d.trace.path, 1)
}

// newTraceHandler writes records as lines of openCryptoki's trace:
//
//	MM/DD/YYYY HH:MM:SS [file.go:line name] LEVEL: text key=value
//
// name is the token's that the record is about, or "api". One record is one
// line, written at once, so that lines do not mix.
func newTraceHandler(w io.Writer, least slog.Level) slog.Handler {
	return LineHandler(least, "token", func(r slog.Record, token, text string) error {
		at, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		where := "unknown:0"
		if at.File != "" {
			where = filepath.Base(at.File) + ":" + strconv.Itoa(at.Line)
		}
		_, err := fmt.Fprintf(w, "%s [%s %s] %s: %s\n", r.Time.Format("01/02/2006 15:04:05"), where, cmp.Or(token, "api"), traceWord(r.Level), text)
		return err
	})
}

func traceWord(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARN"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEVEL"
}
