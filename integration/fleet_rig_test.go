package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"p11fs/tokens/fleet"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
)

// A fleetTest is three machines with p11fs and three with a member of etcd each, on a network
// that can be cut.
type fleetTest struct {
	t       *testing.T
	dir     string // of the members
	net     *fleetNet
	members []*fleetMember
	hosts   []*fleetHost
	etcd    *clientv3.Client // which nobody cuts
	search  *search
	traps   *traps
}

const (
	fleetSize   = 3
	fleetPort   = 2379
	fleetLease  = 2 * time.Second
	fleetPrefix = "/p11fs/histories/"
	// fleetSecret is a part of each secret of the test.
	fleetSecret = "Zq7~xK9w"
	fleetSO     = fleetSecret + "-so"
	fleetUser   = fleetSecret + "-user"
)

// A fleetMember is a member of etcd in a process of its own.
type fleetMember struct {
	f     *fleetTest
	n     *netns
	apart etcdtest.Apart
	cmd   *exec.Cmd
}

// A fleetHost is a machine with p11fs, whose clock can be set.
type fleetHost struct {
	n     int
	net   *netns
	d     *daemon
	clock *wallClock
}

// newFleetTest starts all; the first machine has made the token.
func newFleetTest(t *testing.T) *fleetTest {
	t.Helper()
	needRoot(t)
	needSkew(t)
	f := &fleetTest{t: t, dir: workDir(t, "etcd"), net: newFleetNet(t), search: newSearch(fleetSecret, fleetPrefix), traps: &traps{by: map[string]*trap{}}}
	ca := etcdtest.NewAuthority(t, f.dir)
	f.startMembers(ca)
	sealKey := filepath.Join(f.dir, "fleet.key")
	if err := seal.WriteKey(sealKey); err != nil {
		t.Fatal(err)
	}
	for i := range fleetSize {
		h := &fleetHost{n: i, net: f.net.machine()}
		f.hosts = append(f.hosts, h)
		off := time.Duration(i*7-5) * time.Hour
		h.d = newDaemon(t, daemonConfig{token: fleet.Kind, modern: true, start: func(cmd *exec.Cmd) error {
			return h.net.do(func() (err error) {
				h.clock, err = startSkewed(cmd, off)
				return err
			})
		}})
		pair := ca.Pair(t, fmt.Sprint("host", i), time.Now().Add(20*time.Hour))
		conf := filepath.Join(h.d.dir, "fleet.conf")
		var text strings.Builder
		for _, m := range f.members {
			fmt.Fprintf(&text, "endpoint = https://%s:%d\n", m.n.addr, fleetPort)
		}
		fmt.Fprintf(&text, "prefix = %s\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\nhost = host%d\nlease = %v\n", fleetPrefix, ca.CA(), pair.Cert, pair.Key, sealKey, i, fleetLease)
		f.write(conf, text.String())
		own := filepath.Join(h.d.tokenRoot(), fleet.Kind)
		if i == 0 {
			h.p11fs(soPIN+"\nfleet\n"+fleetUser+"\n", "init", "fleet", "--fleet", conf)
		} else {
			if err := os.MkdirAll(own, 0o700); err != nil {
				t.Fatal(err)
			}
			f.write(filepath.Join(own, "fleet.conf"), "fleet = \""+conf+"\"\n")
		}
		h.d.start()
	}
	if err := f.hosts[0].app(t, "module").setSO(soPIN, firstSO); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleetTest) write(path, text string) {
	f.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// p11fs runs a command on the machine.
func (h *fleetHost) p11fs(answers string, args ...string) {
	h.d.t.Helper()
	cmd := exec.Command(h.d.c.binary, args...)
	cmd.Env = append(os.Environ(), h.d.env()...)
	cmd.Stdin = strings.NewReader(answers)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := h.net.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.d.t.Fatalf("p11fs %q: %v\n%s", args, err, said.String())
	}
}

// startMembers starts etcd, each member behind a tap.
func (f *fleetTest) startMembers(ca *etcdtest.Authority) {
	f.t.Helper()
	all := map[string]string{}
	for i := range fleetSize {
		n := f.net.machine()
		name := fmt.Sprintf("m%d", i)
		all[name] = fmt.Sprintf("%s:2380", n.addr)
		m := &fleetMember{f: f, n: n, apart: etcdtest.Apart{
			Name: name, Dir: f.dir, All: all, Socket: filepath.Join(f.dir, name+".sock"), CA: ca.CA(),
			Pair: ca.Pair(f.t, name, time.Now().Add(20*time.Hour), n.addr),
		}}
		f.members = append(f.members, m)
		startTap(f.t, &tap{name: name, member: m.apart.Socket, search: f.search, traps: f.traps}, n, ca.CA(), m.apart.Pair)
	}
	var sockets []string
	for _, m := range f.members {
		m.start()
		f.t.Cleanup(m.kill)
		sockets = append(sockets, "unix://"+m.apart.Socket)
	}
	var err error
	if f.etcd, err = clientv3.New(clientv3.Config{Endpoints: sockets, Logger: zap.NewNop()}); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = f.etcd.Close() })
	f.quorum()
}

// quorum waits until etcd answers.
func (f *fleetTest) quorum() {
	f.t.Helper()
	for end := time.Now().Add(etcdtest.Patience); ; {
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
		_, err := f.etcd.Get(ctx, "x")
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("etcd does not answer: %v\n%s", err, f.logs())
		}
	}
}

// logs is what the members say.
func (f *fleetTest) logs() string {
	var all strings.Builder
	for _, m := range f.members {
		b, _ := os.ReadFile(filepath.Join(f.dir, m.apart.Name+".log"))
		all.Write(b[max(0, len(b)-4000):])
	}
	return all.String()
}

// start starts the member, and does not wait until it serves.
func (m *fleetMember) start() {
	m.f.t.Helper()
	b, err := json.Marshal(m.apart)
	if err != nil {
		m.f.t.Fatal(err)
	}
	m.cmd = exec.Command(itself(), "-test.run=^TestFleet$", "-test.timeout=0", string(b))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	m.cmd.Stderr = os.Stderr
	if err := m.n.start(m.cmd); err != nil {
		m.f.t.Fatal(err)
	}
}

// kill ends it at once, if it runs.
func (m *fleetMember) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
}

// serveMember is the process of a member.
func serveMember(t *testing.T, arg string) {
	var a etcdtest.Apart
	if err := json.Unmarshal([]byte(arg), &a); err != nil {
		t.Fatal(err)
	}
	t.Fatal(a.Run())
}

// serves reports whether the member does.
func (m *fleetMember) serves() bool {
	c, err := net.Dial("unix", m.apart.Socket)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// restart starts the daemon that was killed, once etcd answers.
func (h *fleetHost) restart() {
	h.d.t.Helper()
	_ = h.clock.mem.Close()
	h.d.start()
}
