package rpc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// FuzzServer plays requests to a server as a client of any protocol, and looks
// after each input whether something is left of it, and whether another client
// noticed. What is played is a script (see player), behind which come bytes as
// they are.
func FuzzServer(f *testing.F) {
	keys := readKeys(f)
	seedScripts(f)
	var w *world
	f.Cleanup(func() {
		if w != nil {
			w.TB = f
			w.close()
		}
	})
	played := 0
	f.Fuzz(func(t *testing.T, offered uint8, script, tail []byte) {
		// What hangs is shown with all goroutines.
		watchdog := time.AfterFunc(3*waitLimit, func() { panic("the server hangs") })
		defer watchdog.Stop()
		if w != nil {
			w.TB = t
		}
		// In a process that runs for hours nothing is to pile up.
		if w != nil && (w.spoilt || played == 1000) {
			w.close()
			w, played = nil, 0
		}
		if w == nil {
			w = newWorld(t)
		}
		p := newPlayer(t, w, wire.Protocol(offered), keys, script)
		if p == nil {
			w.close()
			w, played = newWorld(t), 0
			p = newPlayer(t, w, wire.Protocol(offered), keys, script)
		}
		played++
		defer func() {
			if t.Failed() { // the next input begins anew
				w.close()
				w, played = nil, 0
			}
		}()
		p.play()
		w.check(t) // while its calls run
		p.finish(tail)
		w.checkLogin(t, p.wrongPINs)
		w.settle(t)
		w.check(t)
	})
}

// A scope is a test that may outlive the one it was begun in: what is made in it
// goes at close, and TB is the one that runs.
type scope struct {
	testing.TB
	undo []func()
}

func (s *scope) Cleanup(f func()) { s.undo = append(s.undo, f) }

func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp("", "p11fs-fuzz-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Error(err)
		}
	})
	return dir
}

func (s *scope) close() {
	for len(s.undo) > 0 {
		last := s.undo[len(s.undo)-1]
		s.undo = s.undo[:len(s.undo)-1]
		last()
	}
}

// A world is a server with one client that is there all the time, has a session,
// an object and an operation, and is not to notice what others do.
type world struct {
	*scope
	path   string
	server *Server

	bystander *client
	session   uint64
	before    engine.Stats // with nothing but the bystander
	held      int64        // likewise, by the account of the uid
	spoilt    bool         // there is an object that cannot be removed
	routines  int
}

// waitLimit is how long a call of the bystander may take, or the end of what an
// input has begun, on a slow machine.
const waitLimit = 20 * time.Second

func newWorld(tb testing.TB) *world {
	w := &world{scope: &scope{TB: tb}}
	w.path, w.server = serve(w.scope, Config{})
	w.bystander = dial(w.scope, w.path, wire.V2).initialize()
	w.session = w.bystander.session()
	w.bystander.login(w.session)
	w.bystander.must(wire.CallCreateObject, func(r *wiretest.Writer) { r.Ulong(w.session); r.Attributes(dataObject()) })
	w.begin()
	w.before = w.server.config.Engine.Stats()
	w.held = w.server.config.Engine.Account(uint32(os.Getuid())).Held()
	w.routines = runtime.NumGoroutine()
	return w
}

// begin leaves the bystander with an operation in progress.
func (w *world) begin() {
	w.bystander.must(wire.CallDigestInit, func(r *wiretest.Writer) { r.Ulong(w.session); r.Mechanism(m(p11.CKM_SHA256)) })
	w.bystander.must(wire.CallDigestUpdate, func(r *wiretest.Writer) { r.Ulong(w.session); r.Array(data([]byte("bystander"))) })
}

// check says whether the bystander gets what it would get alone, in time.
func (w *world) check(t *testing.T) {
	t.Helper()
	k := w.bystander
	if err := k.c.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256([]byte("bystander"))
	got := k.must(wire.CallDigestFinal, func(r *wiretest.Writer) { r.Ulong(w.session); r.Room(100) }).Array().Data
	if !bytes.Equal(got, want[:]) {
		t.Errorf("the digest of another client is %x, want %x", got, want)
	}
	w.begin()
}

// maxWrongPINs is how many wrong PINs of the user lock it, and end the logins of
// all clients.
const maxWrongPINs = 3

// checkLogin says whether the bystander is logged in still, when another client
// has given that many wrong PINs. A PIN that they locked ends the world.
func (w *world) checkLogin(t *testing.T, wrongPINs int) {
	t.Helper()
	info := w.bystander.must(wire.CallGetSessionInfo, func(r *wiretest.Writer) { r.Ulong(w.session) })
	info.Ulong() // the slot
	state := p11.State(info.Ulong())
	token := w.bystander.must(wire.CallGetTokenInfo, func(r *wiretest.Writer) { r.Ulong(3) })
	for range 4 { // label, manufacturer, model, serial number
		token.Text()
	}
	locked := p11.Flags(token.Ulong())&p11.CKF_USER_PIN_LOCKED != 0
	want := p11.CKS_RW_USER_FUNCTIONS
	if locked {
		want = p11.CKS_RW_PUBLIC_SESSION
		w.spoilt = true
	}
	if state != want {
		t.Errorf("the session of another client is in state %d, want %d (PIN locked: %v)", state, want, locked)
	}
	if locked && wrongPINs < maxWrongPINs {
		t.Errorf("%d wrong PINs locked the PIN of all clients", wrongPINs)
	}
}

// settle waits until all that an input has begun is over, and removes the token
// objects that it made.
func (w *world) settle(t *testing.T) {
	t.Helper()
	k := w.bystander
	k.must(wire.CallFindObjectsInit, func(r *wiretest.Writer) { r.Ulong(w.session); r.Attributes(template(p11.CKA_TOKEN, true)) })
	handles, _, _ := wiretest.Ulongs(k.must(wire.CallFindObjects, func(r *wiretest.Writer) { r.Ulong(w.session); r.Room(10000) }))
	k.must(wire.CallFindObjectsFinal, func(r *wiretest.Writer) { r.Ulong(w.session) })
	for _, h := range handles {
		_, rv := k.call(wire.CallDestroyObject, func(r *wiretest.Writer) { r.Ulong(w.session); r.Ulong(h) })
		w.spoilt = w.spoilt || rv != p11.CKR_OK
	}
	end := time.Now().Add(waitLimit)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		left := w.left()
		if left == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left behind: %s", left)
		}
		time.Sleep(pause)
	}
}

// left tells what there is more than before.
func (w *world) left() string {
	var b strings.Builder
	st := w.server.Stats()
	if st.Connections != 1 || st.Panics != 0 {
		fmt.Fprintf(&b, "%+v ", st)
	}
	e := w.server.config.Engine.Stats()
	e.PublicObjects, e.PrivateObjects, e.Handles = w.before.PublicObjects, w.before.PrivateObjects, w.before.Handles
	if e != w.before {
		fmt.Fprintf(&b, "%+v, before %+v ", e, w.before)
	}
	w.server.mu.Lock()
	for uid, u := range w.server.users {
		if memory, calls := w.server.config.Engine.Account(uid).Held()-w.held, u.calls.Load(); memory != 0 || calls != 0 {
			fmt.Fprintf(&b, "uid %d holds %d bytes and %d calls ", uid, memory, calls)
		}
	}
	w.server.mu.Unlock()
	if n := runtime.NumGoroutine(); n > w.routines {
		fmt.Fprintf(&b, "%d goroutines, before %d", n, w.routines)
	}
	return b.String()
}

// finish sends the tail and closes the client's side: each request must have its
// reply by then, and each reply must be one.
func (p *player) finish(tail []byte) {
	p.t.Helper()
	if _, err := p.k.c.Write(tail); err != nil {
		p.t.Fatal(err)
	}
	if err := p.k.c.CloseWrite(); err != nil {
		p.t.Fatal(err)
	}
	for {
		code, body, err := wire.ReadFrame(p.k.r, nil, nil)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.t.Fatal(err)
		}
		p.take(code, body, len(tail) != 0)
	}
	if len(p.pending) != 0 {
		p.t.Fatalf("no reply to %d requests", len(p.pending))
	}
	if err := p.k.c.Close(); err != nil {
		p.t.Fatal(err)
	}
}
