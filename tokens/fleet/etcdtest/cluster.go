package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// A T is what a cluster wants of a test.
type T interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Fatal(args ...any)
	Skip(args ...any)
	TempDir() string
}

// Patience is how long a member may take to start on a machine that has much to do.
const Patience = time.Minute

// A Cluster is etcd, for one test.
type Cluster struct {
	t        T
	dir      string
	ca       *Authority
	members  []*member
	straight *Host // with links that nobody cuts
	more     []func(*embed.Config)
}

// A member of a cluster. Its links keep its addresses while it is not there.
type member struct {
	name    string
	pair    Pair
	peers   *link // from the other members
	clients []*link

	mu   sync.Mutex // guards what follows
	etcd *embed.Etcd
	at   string // where it serves clients
}

// Start starts a cluster of so many members, which ends with the test. more is what their
// configuration has otherwise than usual.
func Start(t T, members int, more ...func(*embed.Config)) *Cluster {
	t.Helper()
	if runtime.GOARCH == "s390x" {
		t.Skip("a cluster of etcd under qemu holds no election in time")
	}
	dir := t.TempDir()
	c := &Cluster{t: t, dir: dir, ca: NewAuthority(t, dir), more: more}
	t.Cleanup(c.stop)
	for i := range members {
		k, err := newLink()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("m%d", i)
		c.members = append(c.members, &member{name: name, peers: k, pair: c.Pair(name, time.Now().Add(24*time.Hour))})
	}
	c.straight = c.Host(t)
	errs := make([]error, members)
	var wg sync.WaitGroup
	for i := range members {
		wg.Go(func() { errs[i] = c.start(c.members[i]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Pair makes a certificate that the cluster takes until the time given.
func (c *Cluster) Pair(name string, until time.Time) Pair { return c.ca.Pair(c.t, name, until) }

// CA is the path of the certificate that all others of the cluster are signed with.
func (c *Cluster) CA() string { return c.ca.CA() }

// Dir is where the members' data is, and their logs and certificates.
func (c *Cluster) Dir() string { return c.dir }

// Endpoints are the members' addresses for clients.
func (c *Cluster) Endpoints() []string { return c.straight.Endpoints() }

// Client is a client that nobody cuts off. It is closed with the test.
func (c *Cluster) Client(t T) *clientv3.Client { return c.straight.Client(t) }

// Kill ends a member at once: it hands nothing over, and its connections break.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.etcd == nil {
		return
	}
	m.at = ""
	m.peers.point("")
	for _, k := range m.clients {
		k.point("")
	}
	m.etcd.Server.HardStop()
	m.etcd.Close()
	m.etcd = nil
}

// Restart starts a member that was killed, with what it had, and waits until it serves.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if err := c.start(c.members[i]); err != nil {
		c.t.Fatal(err)
	}
}

// Full has etcd take itself for full, until Room.
func (c *Cluster) Full(t T) {
	t.Helper()
	cli := c.Client(t)
	st, err := cli.Status(t.Context(), c.Endpoints()[0])
	if err == nil {
		_, err = pb.NewMaintenanceClient(cli.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: st.Header.MemberId, Alarm: pb.AlarmType_NOSPACE,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Room has it take itself for full no more.
func (c *Cluster) Room(t T) {
	t.Helper()
	if _, err := c.Client(t).AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
}

// start starts m, and returns once it serves.
func (c *Cluster) start(m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cfg := c.config(m)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("member %s: %w", m.name, err)
	}
	m.etcd = e
	m.peers.point(e.Peers[0].Addr().String())
	m.at = e.Clients[0].Addr().String()
	for _, k := range m.clients {
		k.point(m.at)
	}
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case <-e.Server.StopNotify():
		return fmt.Errorf("member %s ended while it started; its log is %s", m.name, cfg.LogOutputs[0])
	case <-time.After(Patience):
		return fmt.Errorf("member %s did not start in %v; its log is %s", m.name, Patience, cfg.LogOutputs[0])
	}
}

// config has the member listen on free ports; the others come by its link, whose port does
// not change.
func (c *Cluster) config(m *member) *embed.Config {
	free := url.URL{Scheme: "https", Host: "127.0.0.1:0"}
	all := map[string]string{}
	for _, o := range c.members {
		all[o.name] = o.peers.addr()
	}
	cfg := newConfig(m.name, c.dir, c.CA(), m.pair, all)
	cfg.ListenPeerUrls, cfg.ListenClientUrls = []url.URL{free}, []url.URL{free}
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "https", Host: m.clients[0].addr()}}
	cfg.ClientTLSInfo = cfg.PeerTLSInfo
	for _, set := range c.more {
		set(cfg)
	}
	return cfg
}

// newConfig is the configuration of a member, but for where it listens: all are the addresses by
// which members reach one another, and dir is the cluster's.
func newConfig(name, dir, ca string, pair Pair, all map[string]string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = name, filepath.Join(dir, name)
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "https", Host: all[name]}}
	var list []string
	for name, addr := range all {
		list = append(list, name+"=https://"+addr)
	}
	cfg.InitialCluster = strings.Join(list, ",")
	cfg.PeerTLSInfo = transport.TLSInfo{CertFile: pair.Cert, KeyFile: pair.Key, TrustedCAFile: ca, ClientCertAuth: true}
	// Elections are soon over, and not started whenever the machine has much else to do.
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.EnableGRPCGateway = false
	cfg.UnsafeNoFsync = true // what is killed here is no machine
	cfg.LogLevel, cfg.LogOutputs = "warn", []string{filepath.Join(dir, name+".log")}
	return cfg
}

// stop ends all.
func (c *Cluster) stop() {
	var wg sync.WaitGroup
	for i := range c.members {
		wg.Go(func() { c.Kill(i) })
	}
	wg.Wait()
	for _, m := range c.members {
		m.peers.close()
		for _, k := range m.clients {
			k.close()
		}
	}
}

// A Host is a machine with links of its own to all members.
type Host struct {
	c     *Cluster
	links []*link
	pair  Pair
}

// Host makes one.
func (c *Cluster) Host(t T) *Host {
	t.Helper()
	h := &Host{c: c, pair: c.Pair(fmt.Sprintf("host%d", c.ca.serial.Load()), time.Now().Add(24*time.Hour))}
	for _, m := range c.members {
		k, err := newLink()
		if err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		m.clients = append(m.clients, k)
		k.point(m.at)
		m.mu.Unlock()
		h.links = append(h.links, k)
	}
	return h
}

// Endpoints are the members' addresses, through the host's links.
func (h *Host) Endpoints() []string {
	var all []string
	for _, k := range h.links {
		all = append(all, "https://"+k.addr())
	}
	return all
}

// Pair is the host's certificate.
func (h *Host) Pair() Pair { return h.pair }

// Cut cuts the links to all members: what the host sends, what comes to it, or both.
func (h *Host) Cut(out, in bool) {
	for i := range h.links {
		h.CutFrom(i, out, in)
	}
}

// CutFrom cuts the link to one member.
func (h *Host) CutFrom(i int, out, in bool) { h.links[i].set(out, in) }

// Slow has what one member answers come late by so much, piece by piece; 0 is as it was.
func (h *Host) Slow(i int, by time.Duration) { h.links[i].delay(by) }

// Heal makes all links whole.
func (h *Host) Heal() { h.Cut(false, false) }

// Client is a client of the host's. It is closed with the test.
func (h *Host) Client(t T) *clientv3.Client {
	t.Helper()
	info := transport.TLSInfo{CertFile: h.pair.Cert, KeyFile: h.pair.Key, TrustedCAFile: h.c.CA()}
	conf, err := info.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	return h.ClientTLS(t, conf)
}

// ClientTLS is Client with another certificate.
func (h *Host) ClientTLS(t T, conf *tls.Config) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: h.Endpoints(), TLS: conf, Logger: zap.NewNop(),
		DialTimeout: Patience, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}
