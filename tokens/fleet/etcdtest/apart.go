package etcdtest

import (
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// An Apart is a member that has a process to itself, as JSON.
type Apart struct {
	Name string
	Dir  string            // of the cluster's files
	All  map[string]string // HOST:PORT by which members reach one another, by their names
	// Socket is the path at which it serves clients, without TLS: who stands before it
	// sees what they say.
	Socket string
	CA     string
	Pair   Pair
}

// Run serves until the process is killed.
func (a *Apart) Run() error {
	cfg := newConfig(a.Name, a.Dir, a.CA, a.Pair, a.All)
	cfg.ListenPeerUrls = cfg.AdvertisePeerUrls
	here := url.URL{Scheme: "unix", Path: a.Socket}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{here}, []url.URL{here}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("member %s: %w", a.Name, err)
	}
	select {
	case err := <-e.Err():
		return fmt.Errorf("member %s: %w", a.Name, err)
	case <-e.Server.StopNotify():
		return fmt.Errorf("member %s has ended by itself; its log is in %s", a.Name, a.Dir)
	}
}
