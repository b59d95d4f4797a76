package card

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
)

// TestSeats: one user cannot take the places of all others.
func TestSeats(t *testing.T) {
	t.Parallel()
	s := &Server{}
	const one, other = 1000, 1001
	for range maxOfUser {
		if s.seat(one) == nil {
			t.Fatal("a user has fewer places than there are")
		}
	}
	if s.seat(one) != nil {
		t.Error("a user has more than his places")
	}
	for range maxPrograms - maxOfUser {
		if s.seat(other) == nil {
			t.Fatal("another one has none")
		}
	}
	if s.seat(other) != nil {
		t.Error("there are more places than there are")
	}
	s.leave(one)
	if s.seat(other) == nil {
		t.Error("a place that was left is not free")
	}
}

// TestLargeSeats: nor can one with frames that are large and slow.
func TestLargeSeats(t *testing.T) {
	t.Parallel()
	s := &Server{}
	all := make(chan struct{}, maxLarge)
	slow, other := places{s.seat(1000).large, all}, places{s.seat(1001).large, all}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var give []func()
	for range largeOfUser {
		give = append(give, slow.take(t.Context()))
	}
	slow.take(ended)() // which has none
	other.take(t.Context())()
	give[0]()
	slow.take(t.Context())()
	give[1]()
	if len(all) != 0 || len(slow[0]) != 0 {
		t.Errorf("%d and %d places are not given back", len(all), len(slow[0]))
	}
}

// TestCallEnds: a call that no card answers ends after its time, and when the client is closed.
func TestCallEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "card")
	asked := make(chan struct{}, 2)
	release := make(chan struct{})
	serve(t, path, scripted(func(context.Context, *Call) error {
		asked <- struct{}{}
		<-release
		return nil
	}))
	defer close(release)
	call := func() *Call { return &Call{Function: FunctionOf(EP11, 2), Args: []Arg{{}}} }
	brief := Dial(path, EP11).(*client)
	brief.most = 50 * time.Millisecond
	defer brief.Close()
	if err := brief.Call(t.Context(), call()); !errors.Is(err, p11.CKR_DEVICE_REMOVED) {
		t.Errorf("without an answer: %v", err)
	}
	<-asked
	via := Dial(path, EP11)
	result := make(chan error, 1)
	go func() { result <- via.Call(t.Context(), call()) }()
	<-asked
	if err := via.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, p11.CKR_DEVICE_REMOVED) {
		t.Errorf("the client was closed: %v", err)
	}
	if err := via.Call(t.Context(), call()); !errors.Is(err, p11.CKR_DEVICE_REMOVED) {
		t.Errorf("of a closed client: %v", err)
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
