// Package profile gives profiles of the process to who runs it, over HTTP on a Unix socket:
// where its time goes, what its memory is for, what its goroutines wait for. Profiles are
// numbers and names of functions, never contents of memory; that is why runtime/pprof is
// used and net/http/pprof is not, whose goroutines with debug=2 have the values that
// functions were called with.
package profile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
)

const (
	// headerTime is how long a request may take to come, and maxHeader how long it may be.
	headerTime = 10 * time.Second
	maxHeader  = 8 << 10
	// usual is how many seconds a profile of a stretch of time has, and most how many it may.
	usual, most = 10, 300
)

// A Server serves until it is closed.
type Server struct {
	http    *http.Server
	cancel  context.CancelFunc // ends profiles in the making
	working sync.WaitGroup     // Serve, and the requests
	one     sync.Mutex         // held while a stretch of time is profiled: the runtime does that once
}

// Listen serves at a socket that it makes, for root and the user of this process. The
// directory must be one where others cannot put something in its place.
func Listen(path string, log *slog.Logger) (*Server, error) {
	above, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if locks.Others(above) {
		return nil, fmt.Errorf("others may write the directory of %s: name a socket in one that is root's or yours, and writable by nobody else", path)
	}
	if err := makeRoom(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // who came before is asked who he is
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{cancel: cancel}
	s.http = &http.Server{
		Handler: s.pages(), ReadHeaderTimeout: headerTime, MaxHeaderBytes: maxHeader, IdleTimeout: headerTime,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	s.working.Go(func() {
		if err := s.http.Serve(ownListener{l, log}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the socket of profiles is lost", "err", err)
		}
	})
	return s, nil
}

// makeRoom removes a socket at which nobody listens any more.
func makeRoom(path string) error {
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is no socket, and stays: name another place for the profiles", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(fmt.Errorf("something answers at %s already: name another place for the profiles: %w", path, syscall.EADDRINUSE), c.Close())
	}
	return os.Remove(path)
}

// Close ends what is being served, waits for that, and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	err := s.http.Close()
	s.working.Wait()
	return err
}

// An ownListener takes connections of root and of the user of this process, whatever the
// mode of the socket has become.
type ownListener struct {
	*net.UnixListener
	log *slog.Logger
}

// Accept is net.Listener's.
func (l ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(c)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		l.log.Warn("profiles are refused to another user", "uid", uid, "err", err)
		_ = c.Close() // nothing was written
	}
}

// peer is the user who has connected.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// pages are what can be asked for.
func (s *Server) pages() http.Handler {
	pages := http.NewServeMux()
	page := func(path string, serve http.HandlerFunc) {
		pages.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s.working.Add(1) // Serve is there, so it is not 0
			defer s.working.Done()
			w.Header().Set("Content-Type", "application/octet-stream")
			serve(w, r)
		})
	}
	for _, name := range []string{"heap", "allocs", "goroutine", "threadcreate"} {
		page("GET /"+name, func(w http.ResponseWriter, _ *http.Request) { _ = pprof.Lookup(name).WriteTo(w, 0) })
	}
	page("GET /profile", s.during(func(w io.Writer) (func(), error) { return pprof.StopCPUProfile, pprof.StartCPUProfile(w) }))
	page("GET /trace", s.during(func(w io.Writer) (func(), error) { return trace.Stop, trace.Start(w) }))
	// These two are counted from now on only while somebody asks: it costs each lock something.
	page("GET /mutex", s.during(func(w io.Writer) (func(), error) {
		before := runtime.SetMutexProfileFraction(10)
		return func() {
			_ = pprof.Lookup("mutex").WriteTo(w, 0)
			runtime.SetMutexProfileFraction(before)
		}, nil
	}))
	page("GET /block", s.during(func(w io.Writer) (func(), error) {
		runtime.SetBlockProfileRate(10_000) // nanoseconds of waiting for one that is noted
		return func() {
			_ = pprof.Lookup("block").WriteTo(w, 0)
			runtime.SetBlockProfileRate(0)
		}, nil
	}))
	page("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = fmt.Fprintf(w, "heap allocs goroutine threadcreate\nprofile trace mutex block: with ?seconds=N, 1 to %d, %d otherwise\n", most, usual)
	})
	return pages
}

// during serves a profile of a stretch of time, one at a time. Who goes away ends it.
func (s *Server) during(start func(io.Writer) (stop func(), err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		seconds := usual
		if text := r.FormValue("seconds"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > most {
				http.Error(w, fmt.Sprintf("seconds are a number of 1 to %d", most), http.StatusBadRequest)
				return
			}
			seconds = n
		}
		if !s.one.TryLock() {
			http.Error(w, "another profile of some time is being made: ask again later", http.StatusServiceUnavailable)
			return
		}
		defer s.one.Unlock()
		stop, err := start(w)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		defer stop()
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-r.Context().Done():
		}
	}
}
