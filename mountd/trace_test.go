package mountd

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestTraceLevel(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "0": "", "1": "ERROR", "2": "ERROR WARN", "3": "ERROR WARN INFO", "4": "ERROR WARN INFO DEVEL",
		"5": "refused", "-1": "refused", "devel": "refused", "01": "refused",
	} {
		t.Run(value, func(t *testing.T) {
			least, on, err := traceLevel(value)
			if err != nil {
				if want != "refused" || on {
					t.Errorf("%v, on %v", err, on)
				}
				return
			}
			var b bytes.Buffer
			if on {
				log := slog.New(newTraceHandler(&b, least))
				log.Error("x")
				log.Warn("x")
				log.Info("x")
				log.Debug("x")
			}
			var got []string
			for line := range strings.Lines(b.String()) {
				_, rest, _ := strings.Cut(line, "] ")
				word, _, _ := strings.Cut(rest, ":")
				got = append(got, word)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("traces %q, want %q", got, want)
			}
		})
	}
}

func TestTraceLine(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(newTraceHandler(&b, slog.LevelDebug))
	for _, c := range []struct {
		name string
		log  func()
		want string
	}{
		{"plain", func() { log.Info("started") }, "api] INFO: started"},
		{"of a token", func() { log.With("token", "swtok").Warn("healed", "lines", 2) }, "swtok] WARN: healed lines=2"},
		{"token named in the record", func() { log.Error("not usable", "token", "b", "err", errors.New("a b")) }, `b] ERROR: not usable err="a b"`},
		{"groups", func() {
			log.WithGroup("g").With("token", "t").Debug("x", slog.Group("h", "a", 1), "e", "")
		}, `api] DEVEL: x g.token=t g.h.a=1 g.e=""`},
		{"a line stays a line", func() { log.Info("one\ntwo", "k", "three\rfour\x1b") }, `api] INFO: one two k="three four "`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.Reset()
			c.log()
			m := regexp.MustCompile(`^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d \[trace_test\.go:\d+ (.*)\n$`).FindStringSubmatch(b.String())
			if m == nil || m[1] != c.want {
				t.Errorf("%q, want …%q", b.String(), c.want)
			}
		})
	}
}

func TestTraceFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	path := filepath.Join(dir, "trace."+strconv.Itoa(os.Getpid()))
	open := func(level string) (*Daemon, *bytes.Buffer, error) {
		var said bytes.Buffer
		d := &Daemon{conf: Config{Paths: Paths{Trace: dir}, TraceLevel: level}, log: slog.New(slog.NewTextHandler(&said, nil))}
		return d, &said, d.openTrace()
	}
	t.Run("off", func(t *testing.T) {
		d, said, err := open("7")
		if err != nil || d.trace != nil || d.traceFile().state != stateOff || !strings.Contains(said.String(), "WARN") {
			t.Errorf("%v, %+v, said %q", err, d.trace, said)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is there: %v", err)
		}
	})
	t.Run("on", func(t *testing.T) {
		for range 2 { // appended to
			d, said, err := open("4")
			if err != nil {
				t.Fatal(err)
			}
			d.log.Debug("for the trace only")
			d.log.Info("for both")
			if strings.Contains(said.String(), "only") || !strings.Contains(said.String(), "both") {
				t.Errorf("the log says %q", said)
			}
			if r := d.traceFile(); r.state != stateOn || r.size == 0 || r.name != "trace/"+filepath.Base(path) {
				t.Errorf("%+v", r)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode() != 0o640 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		b, err := os.ReadFile(path)
		if err != nil || strings.Count(string(b), "\n") != 4 {
			t.Errorf("%q, %v; want four lines", b, err)
		}
	})
	t.Run("a link in the way", func(t *testing.T) {
		victim := filepath.Join(t.TempDir(), "victim")
		if err := errors.Join(os.Remove(path), os.WriteFile(victim, nil, 0o600), os.Symlink(victim, path)); err != nil {
			t.Fatal(err)
		}
		d, _, err := open("4")
		if err == nil || d.traceFile().state != stateFailed {
			t.Errorf("%v, %+v; want a refusal", err, d.traceFile())
		}
	})
}
