package conf

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/peer"

	"p11fs/p11"
)

// Of two members that are late the one is left alone, for a while, and its connections end; the other one is asked until
// then, and any is better than none.
func TestLate(t *testing.T) {
	c := newClient()
	from := map[string]*peer.Peer{}
	all := map[string]net.Conn{}
	for _, name := range []string{"one", "two"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n, err := c.dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		all[name], from[name] = n, &peer.Peer{Addr: n.RemoteAddr()}
	}
	at := func(name string) string { return from[name].Addr.String() }
	late := func(name string, times int) {
		for range times {
			c.answered(from[name], false)
		}
	}
	late("one", maxLate-1)
	c.answered(from["one"], true)
	late("one", maxLate-1)
	if err := c.Late(at("one")); err != nil {
		t.Errorf("one that answers meanwhile: %v", err)
	}
	late("one", 1)
	late("two", 2*maxLate)
	if err := c.Late(at("one")); p11.AdviceOf(err) != LateAdvice {
		t.Errorf("it is asked again: %v", err)
	}
	if err := c.Late(at("two")); err != nil {
		t.Errorf("both are left alone: %v", err)
	}
	if _, err := all["one"].Write([]byte("x")); err == nil {
		t.Error("its connection goes on")
	}
	if _, err := all["two"].Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := c.dial(t.Context(), at("one")); err == nil {
		t.Error("it is asked")
	}

	c.until = time.Now().Add(-time.Second)
	again, err := c.dial(t.Context(), at("one"))
	if err != nil {
		t.Fatalf("it is left alone for good: %v", err)
	}
	late("one", maxLate)
	if c.Late(at("one")) == nil {
		t.Error("it is not left alone again")
	}
	if _, err := c.dial(t.Context(), "127.0.0.1:0"); err == nil {
		t.Error("nobody answers there")
	}
	if err := c.Late(at("one")); err != nil {
		t.Errorf("it is left alone though another one does not answer: %v", err)
	}
	for _, n := range []net.Conn{again, all["one"], all["two"]} {
		_ = n.Close()
	}
	if len(c.conns) > 0 {
		t.Errorf("connections that have ended are known: %v", c.conns)
	}
}
