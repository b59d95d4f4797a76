package card

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSeats: one user cannot take the places of all others.
func TestSeats(t *testing.T) {
	t.Parallel()
	s := &Server{}
	const one, other = 1000, 1001
	for range maxOfUser {
		if !s.seat(one) {
			t.Fatal("a user has fewer places than there are")
		}
	}
	if s.seat(one) {
		t.Error("a user has more than his places")
	}
	for range maxPrograms - maxOfUser {
		if !s.seat(other) {
			t.Fatal("another one has none")
		}
	}
	if s.seat(other) {
		t.Error("there are more places than there are")
	}
	s.leave(one)
	if !s.seat(other) {
		t.Error("a place that was left is not free")
	}
}

// TestBriefWarnings: what a program does wrong again and again does not fill the log.
func TestBriefWarnings(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 100 {
		s.warn("no greeting")
	}
	// A machine that stands still for a while may tell more than one.
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 {
		t.Errorf("%d lines", n)
	}
}

// TestServeCloses: a server whose listener fails leaves nobody to wait at it.
func TestServeCloses(t *testing.T) {
	t.Parallel()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "card"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetDeadline(time.Unix(1, 0)); err != nil { // which fails what accepts
		t.Fatal(err)
	}
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	if err := s.Serve(t.Context(), l); err == nil {
		t.Error("it says nothing")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is there still: %v", err)
	}
}
