package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"p11fs/tokens/fleet/etcdtest"
)

// A search looks for what must not be seen in all that passes by.
type search struct {
	needles  [][]byte
	expected []byte // is there, which shows that the search finds something

	mu    sync.Mutex
	found []string
	seen  map[string]int // how often what is expected was, by place
}

// newSearch searches for a word, as it is and as others write it.
func newSearch(word, expected string) *search {
	s := &search{needles: [][]byte{[]byte(word), []byte(hex.EncodeToString([]byte(word))), fmt.Appendf(nil, "%X", word)}, expected: []byte(expected), seen: map[string]int{}}
	for shift := range 3 { // without the letters that what stands beside it has a part in
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), word...))
		s.needles = append(s.needles, []byte(text[(shift*8+5)/6:len(text)-1]))
	}
	return s
}

// look looks at what stands at a place.
func (s *search) look(place string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[place] += bytes.Count(b, s.expected)
	for _, n := range s.needles {
		if i := bytes.Index(b, n); i >= 0 {
			s.found = append(s.found, fmt.Sprintf("%s: %q", place, b[max(0, i-40):min(len(b), i+len(n)+40)]))
		}
	}
}

// A searched is a stream that is looked at, in pieces.
type searched struct {
	s     *search
	place string
	tail  []byte // of the last piece, in which a word may begin
}

func (s *searched) look(b []byte) {
	all := append(s.tail, b...)
	s.s.look(s.place, all)
	longest := 0
	for _, n := range append(s.s.needles, s.s.expected) {
		longest = max(longest, len(n))
	}
	s.tail = slices.Clone(all[max(0, len(all)-longest+1):])
}

// files looks at all files below a directory.
func (s *search) files(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		s.look(path, b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSecretsAreFound(t *testing.T) {
	t.Parallel()
	s := newSearch("secret", "name")
	pieces := &searched{s: s, place: "pieces"}
	for _, piece := range []string{"a na", "me, a se", "cre", "t"} {
		pieces.look([]byte(piece))
	}
	if len(s.found) == 0 || s.seen["pieces"] == 0 {
		t.Errorf("found %q, seen %v", s.found, s.seen)
	}
	for shift := range 6 {
		text := append(make([]byte, shift), "a secret is here"...)
		for _, written := range []string{string(text), hex.EncodeToString(text), fmt.Sprintf("%X", text), base64.StdEncoding.EncodeToString(text)} {
			s := newSearch("secret", "name")
			s.look("text", []byte(written))
			if len(s.found) == 0 {
				t.Errorf("it is not found in %q", written)
			}
		}
	}
}

// A tap stands before a member of etcd: it has the member's certificate, sees what machines and the
// member say in clear, and can stop it.
type tap struct {
	l      net.Listener
	member string // socket
	name   string
	search *search
	traps  *traps
	wg     sync.WaitGroup
}

// startTap serves at a machine's address, until the test ends.
func startTap(t testing.TB, k *tap, n *netns, ca string, pair etcdtest.Pair) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	l, err := n.listen(fleetPort)
	if err != nil {
		t.Fatal(err)
	}
	k.l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	k.wg.Go(func() {
		for {
			c, err := k.l.Accept()
			if err != nil {
				return
			}
			k.wg.Go(func() { k.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = k.l.Close()
		k.traps.dropAll()
		k.wg.Wait()
	})
}

// serve passes on what a machine and the member say.
func (k *tap) serve(machine net.Conn) {
	defer machine.Close()
	host, _, _ := net.SplitHostPort(machine.RemoteAddr().String())
	member, err := net.Dial("unix", k.member)
	if err != nil {
		return // it does not run
	}
	defer member.Close()
	f := k.traps.of(host)
	f.hold(machine)
	defer f.release(machine)
	said := &said{}
	k.wg.Go(func() {
		k.pass(member, machine, func(b []byte) bool { return f.outgoing(said, b) }, host+" to "+k.name)
		_ = member.Close()
		_ = machine.Close()
	})
	k.pass(machine, member, func([]byte) bool { return f.incoming() }, k.name+" to "+host)
}

func (k *tap) pass(to io.Writer, from io.Reader, may func([]byte) bool, place string) {
	s := &searched{s: k.search, place: place}
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			s.look(b[:n])
			if !may(b[:n]) {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// traps are what the taps of all members do to each machine, by address.
type traps struct {
	mu sync.Mutex
	by map[string]*trap
}

func (t *traps) of(host string) *trap {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.by[host]
	if f == nil {
		f = &trap{conns: map[net.Conn]bool{}}
		f.moved = sync.NewCond(&f.mu)
		t.by[host] = f
	}
	return f
}

func (t *traps) dropAll() {
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.by))
	t.mu.Unlock()
	for _, f := range all {
		f.drop()
	}
}

// A trap stops what one machine says to etcd, or hears from it, at a certain point.
type trap struct {
	mu    sync.Mutex
	moved *sync.Cond
	conns map[net.Conn]bool
	runs  int // of drop

	// match says whether something stands in what was said last, and whether it is what is
	// waited for; nil when the trap is not set.
	match   func([]byte) (seen, is bool)
	after   bool // what is waited for is passed on, and only the answer is not
	hit     chan struct{}
	stopOut bool
	stopIn  bool
}

// set has the trap stop the machine before what matches is passed on, or after. hit is closed
// then.
func (f *trap) set(after bool, match func([]byte) (seen, is bool)) (hit <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.match, f.after, f.hit = match, after, make(chan struct{})
	return f.hit
}

// A said is what a machine has said last in one connection: what it sends at once comes in pieces.
type said struct {
	last []byte
	at   time.Time
}

func (s *said) add(b []byte) {
	if time.Since(s.at) > 20*time.Millisecond || len(s.last) > 64<<10 {
		s.last = nil
	}
	s.last, s.at = append(s.last, b...), time.Now()
}

// outgoing reports whether something is to be passed on, when it may.
func (f *trap) outgoing(s *said, b []byte) bool {
	s.add(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	runs := f.runs
	for f.stopOut && f.runs == runs {
		f.moved.Wait()
	}
	if f.runs != runs {
		return false
	}
	if f.match == nil {
		return true
	}
	seen, is := f.match(s.last)
	if seen {
		s.last = nil
	}
	if !is {
		return true
	}
	f.match = nil
	f.stopIn, f.stopOut = true, !f.after
	close(f.hit)
	for f.stopOut && f.runs == runs {
		f.moved.Wait()
	}
	return f.runs == runs
}

func (f *trap) incoming() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	runs := f.runs
	for f.stopIn && f.runs == runs {
		f.moved.Wait()
	}
	return f.runs == runs
}

func (f *trap) hold(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
}

func (f *trap) release(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// drop ends the connections of the machine with all that was not passed on.
func (f *trap) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs++
	f.match, f.stopIn, f.stopOut = nil, false, false
	for c := range f.conns {
		_ = c.Close()
	}
	f.moved.Broadcast()
}
