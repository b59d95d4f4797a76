package mountd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
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
	switch value {
	case "", "0":
		return 0, false, nil
	case "1":
		return slog.LevelError, true, nil
	case "2":
		return slog.LevelWarn, true, nil
	case "3":
		return slog.LevelInfo, true, nil
	case "4":
		return slog.LevelDebug, true, nil
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
	d.log = slog.New(bothHandlers{d.log.Handler(), newTraceHandler(d.trace.file, least)})
	return nil
}

// open makes the file, or goes on with the one of an earlier process that had the
// same number.
func (t *trace) open(group int) error {
	if err := makeDirectory(filepath.Dir(t.path), 0o770, group); err != nil {
		return err
	}
	// The group can write to the directory: the name must not lead elsewhere.
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", t.path)
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

// traceHandler writes records as lines of openCryptoki's trace:
//
//	MM/DD/YYYY HH:MM:SS [file.go:line name] LEVEL: text key=value
//
// name is the token's that the record is about, or "api". One record is one
// line, written at once, so that lines do not mix.
type traceHandler struct {
	out   *traceWriter
	least slog.Level
	name  string
	attrs string // of With, as text
	group string // prefix of the keys that follow
}

// traceWriter is what handlers of one trace share.
type traceWriter struct {
	mu sync.Mutex // guards w; no other lock is taken under it
	w  io.Writer
}

func newTraceHandler(w io.Writer, least slog.Level) *traceHandler {
	return &traceHandler{out: &traceWriter{w: w}, least: least, name: "api"}
}

// Enabled implements slog.Handler.
func (h *traceHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.least }

// Handle implements slog.Handler.
func (h *traceHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	at, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	where := "unknown:0"
	if at.File != "" {
		where = filepath.Base(at.File) + ":" + strconv.Itoa(at.Line)
	}
	name, attrs := h.name, h.attrs
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "token" && h.group == "" {
			name = traceText(a.Value.Resolve().String())
		} else {
			attrs += h.text(a)
		}
		return true
	})
	fmt.Fprintf(&b, "%s [%s %s] %s: %s%s\n", r.Time.Format("01/02/2006 15:04:05"), where, name, traceWord(r.Level), traceText(r.Message), attrs)
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, b.String())
	return err
}

// WithAttrs implements slog.Handler.
func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		if a.Key == "token" && h.group == "" {
			c.name = traceText(a.Value.Resolve().String())
		} else {
			c.attrs += h.text(a)
		}
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *traceHandler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.group += name + "."
	}
	return &c
}

// text is one attribute behind a blank.
func (h *traceHandler) text(a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		g := *h
		if a.Key != "" {
			g.group += a.Key + "."
		}
		var b strings.Builder
		for _, a := range v.Group() {
			b.WriteString(g.text(a))
		}
		return b.String()
	}
	if a.Key == "" {
		return ""
	}
	s := traceText(v.String())
	if s == "" || strings.ContainsAny(s, " =\"") {
		s = strconv.Quote(s)
	}
	return " " + h.group + a.Key + "=" + s
}

// traceText keeps a text on one line.
func traceText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
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

// bothHandlers hands each record to two handlers, of which each takes the levels
// it wants.
type bothHandlers [2]slog.Handler

// Enabled implements slog.Handler.
func (h bothHandlers) Enabled(ctx context.Context, l slog.Level) bool {
	return h[0].Enabled(ctx, l) || h[1].Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h bothHandlers) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, one := range h {
		if one.Enabled(ctx, r.Level) {
			errs = append(errs, one.Handle(ctx, r.Clone()))
		}
	}
	return errors.Join(errs...)
}

// WithAttrs implements slog.Handler.
func (h bothHandlers) WithAttrs(attrs []slog.Attr) slog.Handler {
	return bothHandlers{h[0].WithAttrs(attrs), h[1].WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h bothHandlers) WithGroup(name string) slog.Handler {
	return bothHandlers{h[0].WithGroup(name), h[1].WithGroup(name)}
}
