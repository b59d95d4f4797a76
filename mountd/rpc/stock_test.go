package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// A scene is a list of requests on one connection, C_Initialize first unless it
// is bare.
type scene struct {
	name  string
	bare  bool
	since wire.Protocol
	steps []step
}

// stock is p11-kit's server, which reaches a token through libp11fs.so.
type stock struct {
	module, socket string
	protocol       wire.Protocol // the latest that it speaks
}

// TestStockServer sends the same requests, one after the other, to this server
// and to p11-kit's, and compares the replies byte by byte. Behind each is a
// token of its own, prepared alike. What differs is in the differences' table.
//
// P11FS_P11KIT is the p11-kit program to compare with, and so the protocol: the
// latest that it speaks.
func TestStockServer(t *testing.T) {
	keys := readKeys(t)
	ours, _ := serve(t, Config{})
	behind, _ := serve(t, Config{})
	s := stock{module: ownModule(t), socket: behind}
	probe := s.connect(t)
	s.protocol = probe.greet(t, wire.V2)
	compared, differences := 0, 0
	seen, granted := map[string]int{}, map[wire.Call]int{}
	all := append(capturedScenes(t, keys, s.protocol), malformed()...)
	for _, sc := range append(all, scenes(keys)...) {
		if sc.since > s.protocol {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			r := lockstep(t, sc, dialPeer(t, ours, s.protocol), s.start(t))
			compared += r.compared
			for key, n := range r.found {
				seen[key] += n
				differences += n
			}
			for call, n := range r.granted {
				granted[call] += n
			}
		})
	}
	t.Logf("protocol %d: %d requests compared, %d replies differ as the table says", s.protocol, compared, differences)
	for key, d := range stockDifferences() {
		if d.in(s.protocol) && seen[key] == 0 {
			t.Errorf("no request shows the difference %q", key)
		}
	}
	for call := range handlers {
		switch {
		case call == wire.CallWaitForSlotEvent, call == wire.CallSeedRandom:
			// There is no event, and the token takes no seed.
		case call == wire.CallDeriveKey && s.protocol == wire.V0:
			// Those clients pass no mechanism for it.
		case since(call) <= s.protocol && granted[call] == 0:
			sig, _ := wire.Signatures(call)
			t.Errorf("no %s succeeds", sig.Name)
		}
	}
}

// Every call is in a scene, and the differences are those that docs/rpc.md tells
// of.
func TestStockScenes(t *testing.T) {
	calls := map[wire.Call]bool{}
	for _, sc := range scenes(readKeys(t)) {
		for _, st := range sc.steps {
			calls[st.call] = true
		}
	}
	for call := wire.CallInitialize; call <= wire.CallDeriveKey2; call++ {
		if sig, _ := wire.Signatures(call); !calls[call] {
			t.Errorf("no request of %s", sig.Name)
		}
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "rpc.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Where p11-kit's own server differs\n")
	if !ok {
		t.Fatal("docs/rpc.md has no such section")
	}
	rows := map[string]string{}
	for _, line := range strings.Split(section, "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			rows[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	for key, d := range stockDifferences() {
		in := map[[2]wire.Protocol]string{{0, 0}: "0", {1, 1}: "1", {1, 2}: "1, 2", {0, 2}: "0–2"}[[2]wire.Protocol{d.first, d.last}]
		if rows[key] != in {
			t.Errorf("%q is in protocols %s, docs/rpc.md says %q", key, in, rows[key])
		}
		delete(rows, key)
	}
	delete(rows, "")    // its head
	delete(rows, "---") // and the line below
	for key := range rows {
		t.Errorf("docs/rpc.md tells of %q, which is no difference", key)
	}
}

// A result is what comes of a scene.
type result struct {
	compared int               // replies
	found    map[string]int    // differences
	granted  map[wire.Call]int // calls that both servers say succeeded
}

// lockstep plays a scene.
func lockstep(t *testing.T, sc scene, ours, theirs *peer) result {
	t.Helper()
	steps := sc.steps
	if !sc.bare {
		steps = append([]step{do(wire.CallInitialize, []byte(wire.Handshake), byte(0), []byte{0})}, steps...)
	}
	out := result{found: map[string]int{}, granted: map[wire.Call]int{}}
	for i, st := range steps {
		if st.since > ours.protocol {
			continue
		}
		a, b := ours.exchange(t, st), theirs.exchange(t, st)
		ours.settle(t, st, &a)
		theirs.settle(t, st, &b)
		out.compared++
		if key, err := judge(st, ours.protocol, a, b); err != nil {
			t.Errorf("step %d, %v: %v\nours  %v\nstock %v", i, st, err, a, b)
		} else if key != "" {
			out.found[key]++
		}
		if a.rv == p11.CKR_OK && b.rv == p11.CKR_OK && !b.closed {
			out.granted[st.call]++
		}
		if a.closed {
			t.Fatalf("step %d, %v: our server closed the connection", i, st)
		}
		if b.closed {
			if i != len(steps)-1 {
				t.Fatalf("step %d, %v: the stock server closed the connection; %d steps are left", i, st, len(steps)-1-i)
			}
			// Ours goes on.
			if r := ours.exchange(t, do(wire.CallGetInfo)); r.closed {
				t.Errorf("step %d, %v: our server closed the connection after it", i, st)
			}
		}
	}
	return out
}

// judge compares two replies. It returns the key of the difference between them,
// if there is one that may be.
func judge(s step, p wire.Protocol, ours, stock reply) (key string, err error) {
	equal, all := same(ours, stock), stockDifferences()
	if s.differs != "" {
		d, ok := all[s.differs]
		switch {
		case !ok:
			return "", fmt.Errorf("there is no difference %q", s.differs)
		case d.in(p) && (equal || !d.is(s, ours, stock)):
			return "", fmt.Errorf("not the difference %q", s.differs)
		case d.in(p):
			return s.differs, nil
		}
	}
	if equal {
		return "", nil
	}
	for key, d := range all {
		if d.anywhere && d.in(p) && d.is(s, ours, stock) {
			return key, nil
		}
	}
	return "", errors.New("the replies differ")
}

// sceneTime is how long the longest scene, of thousands of requests, may take on a
// slow machine.
const sceneTime = 5 * time.Minute

func dialPeer(t *testing.T, path string, p wire.Protocol) *peer {
	t.Helper()
	k := dial(t, path, p)
	if err := k.c.SetDeadline(time.Now().Add(sceneTime)); err != nil {
		t.Fatal(err)
	}
	return newPeer("ours", p, k.r, k.c)
}

// start runs the server and greets it.
func (s stock) start(t *testing.T) *peer {
	t.Helper()
	p := s.connect(t)
	p.protocol = s.protocol
	if got := p.greet(t, s.protocol); got != s.protocol {
		t.Fatalf("the stock server answers %d to %d", got, s.protocol)
	}
	return p
}

func (s stock) connect(t *testing.T) *peer {
	t.Helper()
	program := os.Getenv("P11FS_P11KIT")
	env := append(os.Environ(), "P11FS_SOCKET="+s.socket, "HOME="+t.TempDir())
	if program == "" {
		program = "p11-kit"
	} else { // it looks for its parts where it would be installed
		env = append(env, "P11_KIT_PRIVATEDIR="+filepath.Dir(program))
	}
	cmd := exec.Command(program, "remote", s.module)
	cmd.Env = env
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Not StdoutPipe, which Wait closes before all is read.
	out, w := io.Pipe()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ends is in what it says
		_ = w.Close()
	}()
	kill := time.AfterFunc(sceneTime, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = in.Close()  // it may be gone
		_ = out.Close() // ends what it still writes
		<-done
		kill.Stop()
		if t.Failed() && said.Len() > 0 {
			t.Logf("the stock server said: %s", said.String())
		}
	})
	return newPeer("stock", s.protocol, out, in)
}

// ownModule builds libp11fs.so.
func ownModule(t *testing.T) string {
	t.Helper()
	if os.Getenv("P11FS_P11KIT") == "" {
		if _, err := exec.LookPath("p11-kit"); err != nil {
			t.Skip("p11-kit is not installed")
		}
	}
	path := filepath.Join(t.TempDir(), "libp11fs.so")
	cmd := exec.Command("make", "-s", "-f", "cmd/libp11fs/build.mk", "libp11fs", "LIBP11FS="+path)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}
