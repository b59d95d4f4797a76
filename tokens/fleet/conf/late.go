package conf

import (
	"context"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"p11fs/p11"
)

// SlowAnswer is how long a member takes that is called slow.
const SlowAnswer = 300 * time.Millisecond

// A member that others were faster than so many times, one after the other, is left alone for a
// while. A stream that is at it moves to another one then.
const (
	maxLate   = 3
	aloneTime = 15 * time.Second
)

// A Client is a client of the fleet's etcd. etcd's own asks one member after the other, also one
// that answers late, and stays with the one whose stream of changes it has. This one asks
// another member as well, where it does no harm if both do it, and leaves a slow one alone.
type Client struct {
	*clientv3.Client

	mu    sync.Mutex // guards all below
	late  map[string]int
	conns map[net.Conn]string // and where they were dialed to
	alone string              // a member that is left alone: never more than one
	until time.Time
}

func newClient() *Client {
	return &Client{late: make(map[string]int), conns: make(map[net.Conn]string)}
}

// Late says why a member is not asked now, or returns nil.
func (c *Client) Late(address string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if address != c.alone || time.Now().After(c.until) {
		return nil
	}
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "it answered more than %v after it was asked, %d times, where another one did at once; it is left alone until %s", SlowAnswer, maxLate, day(c.until)), LateAdvice)
}

// LateAdvice is what to do about a slow member.
const LateAdvice = "look at the load, the disk and the network of that machine: every change waits for most members"

// dial connects to a member.
func (c *Client) dial(ctx context.Context, address string) (net.Conn, error) {
	if err := c.Late(address); err != nil {
		return nil, err
	}
	n, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil { // a slow one is better than none
		c.alone = ""
		return nil, err
	}
	o := &conn{n, c}
	c.conns[o] = address
	return o, nil
}

// A conn is a connection to a member, which its Client knows until it ends.
type conn struct {
	net.Conn
	c *Client
}

func (n *conn) Close() error {
	n.c.mu.Lock()
	delete(n.c.conns, n)
	n.c.mu.Unlock()
	return n.Conn.Close()
}

// answered notes that a member was first, or was not.
func (c *Client) answered(from *peer.Peer, first bool) {
	if from.Addr == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := from.Addr.String()
	if first {
		delete(c.late, at)
		return
	}
	if c.late[at]++; c.late[at] < maxLate || c.alone != "" && time.Now().Before(c.until) {
		return
	}
	delete(c.late, at)
	for n, to := range c.conns {
		if n.RemoteAddr().String() == at {
			c.alone, c.until = to, time.Now().Add(aloneTime)
			_ = n.(*conn).Conn.Close() // whoever uses it closes it after that
		}
	}
}

// harmless reports whether it does no harm that etcd does a request twice, also long after
// each other: it is a read, or a change that happens only to what was there before.
func harmless(req any) bool {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return true
	case *pb.TxnRequest:
		return len(r.Compare) > 0
	}
	return false
}

// ask is a grpc.UnaryClientInterceptor: which member is asked is chosen by each invoke. Where a
// member is late another one is asked the same, or, if that may do harm, for something else, which
// tells whether the first one is slow or etcd is.
func (c *Client) ask(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	one, end := context.WithCancel(ctx)
	defer end()
	two, endOther := context.WithCancel(ctx)
	defer endOther()
	var from, fromOther peer.Peer
	same := harmless(req)
	var other proto.Message
	done := make(chan error, 1)
	late := time.AfterFunc(SlowAnswer, func() {
		method, req := method, req
		if same {
			other = reflect.New(reflect.TypeOf(reply).Elem()).Interface().(proto.Message)
		} else {
			method, req, other = pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte("p11fs"), KeysOnly: true}, &pb.RangeResponse{}
		}
		plain := slices.DeleteFunc(slices.Clone(opts), func(o grpc.CallOption) bool { _, ok := o.(grpc.PeerCallOption); return ok })
		err := invoke(two, method, req, other, cc, append(plain, grpc.Peer(&fromOther))...)
		if err == nil && same {
			end()
		}
		done <- err
	})
	err := invoke(one, method, req, reply, cc, append(slices.Clip(opts), grpc.Peer(&from))...)
	if late.Stop() {
		if err == nil {
			c.answered(&from, true)
		}
		return err
	}
	if !same || err == nil {
		endOther()
	}
	// Who may read nothing but the token has that as an answer.
	if otherErr := <-done; otherErr != nil && (same || status.Code(otherErr) != codes.PermissionDenied) {
		return err
	}
	if from.Addr != nil && fromOther.Addr != nil && from.Addr.String() != fromOther.Addr.String() {
		c.answered(&from, false)
	}
	if same && err != nil {
		proto.Reset(reply.(proto.Message))
		proto.Merge(reply.(proto.Message), other)
		return nil
	}
	return err
}
