package main

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"
)

// TestAgentIsNotFilled: as many programs as are served at once connect and do nothing, and one
// more is served.
func TestAgentIsNotFilled(t *testing.T) {
	dir := t.TempDir()
	l, err := listenAgent(t.Context(), filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	a := &sshAgent{t: tree{dir}, log: io.Discard}
	served := make(chan error, 1)
	go func() { served <- a.serve(t.Context(), l) }()
	connect := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(dir, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	list := func(c net.Conn) error {
		_, err := agent.NewClient(c).List()
		return err
	}

	first := connect()
	if err := list(first); err != nil { // it is idle for longest from now on
		t.Fatal(err)
	}
	// Accepted are they in their order, and so the first one is put out before the last is served.
	var last net.Conn
	for range 3 * maxClients {
		last = connect()
	}
	if err := list(last); err != nil {
		t.Errorf("the newest: %v", err)
	}
	_ = first.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the one that was idle for longest is still served: %v", err)
	}
}

// TestAgentAtWork: of a full house the one that is idle for longest goes, and none for which the
// agent works.
func TestAgentAtWork(t *testing.T) {
	all := newAgentClients()
	clients := make([]*agentClient, maxClients)
	for i := range clients {
		clients[i] = all.admit(t.Context(), &net.UnixConn{})
		clients[i].idle.Store(int64(i)) // the first is at work
	}
	all.admit(t.Context(), &net.UnixConn{})
	for i, c := range clients {
		if _, served := all.list[c]; served != (i != 1) {
			t.Errorf("client %d: served is %v", i, served)
		}
	}

	// While all are at work the newest waits, until one of them is idle again.
	for c := range all.list {
		c.idle.Store(0)
	}
	admitted := make(chan *agentClient, 1)
	go func() { admitted <- all.admit(t.Context(), &net.UnixConn{}) }()
	select {
	case <-admitted:
		t.Fatal("somebody comes in while all are at work")
	case <-time.After(10 * time.Millisecond):
	}
	_, err := clients[2].turn(func([]byte) (int, error) {
		select {
		case <-admitted:
			return 0, nil
		case <-time.After(time.Minute):
			return 0, errors.New("nobody comes in")
		}
	}, nil)
	if err != nil {
		t.Error(err)
	}
}
