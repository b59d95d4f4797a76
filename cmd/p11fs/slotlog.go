package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
)

// slotLog is where pkcsslotd's messages go: to syslog, to the file of -l, and,
// while there is a terminal, warnings and errors to standard error.
type slotLog struct {
	now  func() time.Time
	dial func() (*syslog.Writer, error)

	mu     sync.Mutex // guards what follows
	stderr io.Writer
	file   *os.File
	syslog *syslog.Writer
}

func newSlotLog(stderr io.Writer, now func() time.Time) *slotLog {
	return &slotLog{stderr: stderr, now: now, dial: func() (*syslog.Writer, error) {
		return syslog.New(syslog.LOG_USER|syslog.LOG_INFO, slotDaemonName)
	}}
}

// open has the messages go to a file as well; "" is none.
func (l *slotLog) open(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	l.file = f
	return nil
}

// noTerminal is called when the daemon leaves it.
func (l *slotLog) noTerminal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stderr = nil
}

func (l *slotLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	if l.syslog != nil {
		_ = l.syslog.Close()
		l.syslog = nil
	}
}

// handler returns a handler for records from level on.
func (l *slotLog) handler(level slog.Level) slog.Handler {
	return mountd.LineHandler(level, "", l.write)
}

// write writes one record.
func (l *slotLog) write(r slog.Record, _, text string) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	word := map[slog.Level]string{slog.LevelDebug: "DEBUG", slog.LevelInfo: "INFO", slog.LevelWarn: "WARNING", slog.LevelError: "ERROR"}[r.Level]
	line := fmt.Sprintf("%7s %s[%d]: %s\n", word, slotDaemonName, os.Getpid(), text)
	if l.stderr != nil && r.Level >= slog.LevelWarn {
		_, err = io.WriteString(l.stderr, line)
	}
	if l.file != nil {
		_, e := io.WriteString(l.file, l.now().Format(time.ANSIC)+" "+line)
		err = errors.Join(err, e)
	}
	return errors.Join(err, l.toSyslog(r.Level, text))
}

// toSyslog sends one message. A machine without syslog is no error.
func (l *slotLog) toSyslog(level slog.Level, text string) error {
	if l.syslog == nil {
		w, err := l.dial()
		if err != nil {
			return nil
		}
		l.syslog = w
	}
	switch {
	case level >= slog.LevelError:
		return l.syslog.Err(text)
	case level >= slog.LevelWarn:
		return l.syslog.Warning(text)
	case level >= slog.LevelInfo:
		return l.syslog.Info(text)
	}
	return l.syslog.Debug(text)
}
