package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/fleet/seal"
)

// Config says in which fleet a machine is. All but Trouble and Clock must be set.
type Config struct {
	// Client is the one by which what others change is watched, too, in a context of
	// clientv3.WithRequireLeader: a stream of changes that stands still ends the contact.
	Client *clientv3.Client
	Prefix string // of the keys, with the slash that it ends in
	Key    *seal.Key
	Name   string        // of the machine, for people
	TTL    time.Duration // of the lease
	Log    *slog.Logger
	// Trouble says what keeps this machine from etcd, with advice, nil if it does not know. It is
	// asked while there is no contact, and may be nil.
	Trouble func(context.Context) error
	// Clock is a clock that never goes back and does not stand still while the machine
	// sleeps. It may be nil.
	Clock func() time.Duration
}

// A Host is this machine, in contact with the others or not.
type Host struct {
	cfg     Config
	stop    context.CancelFunc
	stopped chan struct{}
	acking  chan struct{} // has room for one: who writes the record
	left    []string      // records of leases that could not be given back; run's

	until atomic.Int64 // by the clock, when the use of keys ends

	mu       sync.Mutex    // guards all below
	seen     int64         // the revision up to which all is in memory
	moved    chan struct{} // closed when Seen was called
	changed  chan struct{} // closed when a record of a host has changed
	again    chan struct{} // see Again
	start    int64         // the revision that must be seen before the lease counts
	deadline time.Duration // by the clock, of the lease
	key      string        // of the record; empty without a lease
	wanted   int64
	acked    int64
	contact  time.Time // by the time of day, for people
	why      error     // why there is no lease
	trouble  error     // what Trouble has said since contact
}

// An Info is what a host writes about itself.
type Info struct {
	ID      string `json:"-"`
	Acked   int64  `json:"-"` // the revision that it has acknowledged
	Created int64  `json:"-"` // the revision at which it joined
	Name    string
	Since   time.Time // by its own time of day
}

// Join joins the fleet. The machine is in contact when a lease was granted and Seen was told of
// a revision that is not older; Alive says when.
func Join(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Clock == nil {
		cfg.Clock = bootTime
	}
	h := &Host{cfg: cfg, stopped: make(chan struct{}), acking: make(chan struct{}, 1), moved: make(chan struct{}), changed: make(chan struct{}), again: make(chan struct{}), contact: time.Now()}
	h.until.Store(never)
	l, err := h.register(ctx)
	if err != nil {
		return nil, advise(err, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "join the fleet: %w", plain(err)), "see that most members of etcd run and that this machine reaches one: etcdctl endpoint health"))
	}
	run, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() {
		defer close(h.stopped)
		h.run(run, l)
	}()
	return h, nil
}

// ErrSlow is in the place of the error of a context whose time is over: that is no interrupt of
// whoever waits.
var ErrSlow = errors.New("etcd does not answer in time")

// FullAdvice is what to do about a full etcd.
const FullAdvice = "run etcdctl compact, etcdctl defrag --cluster and etcdctl alarm disarm, or start etcd with a larger --quota-backend-bytes; docs/fleet.md has the commands"

var errFull = p11.Advise(errors.New("etcd is full"), FullAdvice)

// Full reports whether etcd has refused what needs room, since it has none: to write, and to
// grant a lease. It goes on renewing those that it has granted, and removes what it is told to.
func Full(err error) bool { return Says(err, rpctypes.ErrNoSpace) }

// Says reports whether etcd has said one of known.
func Says(err error, known ...error) bool {
	var e rpctypes.EtcdError
	return errors.As(rpctypes.Error(err), &e) && slices.ContainsFunc(known, func(k error) bool { return errors.Is(e, k) })
}

// plain is an error of etcd in words for people.
func plain(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return ErrSlow
	case Full(err):
		return errFull
	}
	return err
}

// advise is told, an error that comes of err, with what to do about a full etcd if that is it.
func advise(err, told error) error {
	if Full(err) {
		return p11.Advise(told, FullAdvice)
	}
	return told
}

// never is before any time that a clock tells.
const never = math.MinInt64

// Close leaves the fleet: nobody waits for this machine any more. It may be called again.
func (h *Host) Close() error {
	h.stop()
	<-h.stopped
	return nil
}

// bootTime is the time since the machine started, with that in which it slept.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("lease: no clock: %v", err)) // every Linux has it
	}
	return time.Duration(ts.Nano())
}

// Seen says that all changes up to a revision are in memory.
func (h *Host) Seen(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = max(h.seen, rev)
	close(h.moved)
	h.moved = make(chan struct{})
	h.countLocked()
}

// Again is closed when whoever watches for Seen must begin anew, from the last revision that he
// has seen: what he hears no more of is not else heard of, and the lease ends.
func (h *Host) Again() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.again
}

// countLocked has the lease count as soon as all is seen that must be.
func (h *Host) countLocked() {
	if h.key != "" && h.seen >= h.start {
		h.until.Store(int64(h.deadline))
	}
}

// Alive returns nil while keys may be used, or why they must not. It is cheap.
func (h *Host) Alive() error {
	if int64(h.cfg.Clock()) < h.until.Load() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	since, why := h.contact.UTC().Format(time.RFC3339), h.why
	if why == nil {
		why = errors.New("its lease is over, or what the others have changed is not yet here")
	}
	if h.trouble != nil {
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "no contact with the fleet since %s: %w", since, h.trouble), p11.AdviceOf(h.trouble))
	}
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "no contact with the fleet since %s: %w", since, plain(why)),
		"nothing, if it lasts for moments; otherwise see that most members of etcd run and that this machine reaches one: etcdctl endpoint health")
}

// Left is how long keys may be used without contact from now on.
func (h *Host) Left() time.Duration {
	now := h.cfg.Clock()
	return max(time.Duration(h.until.Load()), now) - now // until may be the least number there is
}

// ID is that of this host's record, empty without a lease.
func (h *Host) ID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimPrefix(h.key, h.hosts())
}

// Hosts are those that hold a lease now.
func (h *Host) Hosts(ctx context.Context) ([]Info, error) {
	resp, err := h.cfg.Client.Get(ctx, h.hosts(), clientv3.WithPrefix())
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "ask for the hosts of the fleet: %w", plain(err))
	}
	return h.infos(resp)
}

func (h *Host) hosts() string   { return h.cfg.Prefix + "hosts/" }
func (h *Host) wanting() string { return h.cfg.Prefix + "wanted" }

// infos reads records. One that the fleet has not written is an error: it may stand over that of
// a host.
func (h *Host) infos(resp *clientv3.GetResponse) (list []Info, err error) {
	for _, kv := range resp.Kvs {
		plain, acked, err := h.cfg.Key.Open(string(kv.Key), [16]byte{}, kv.Value)
		if err != nil {
			return nil, err
		}
		i := Info{ID: string(kv.Key[len(h.hosts()):]), Acked: int64(acked), Created: kv.CreateRevision}
		if err := json.Unmarshal(plain, &i); err != nil {
			return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the record of host %s: %w", i.ID, err)
		}
		list = append(list, i)
	}
	return list, nil
}

// record is the writing of this host's record.
func (h *Host) record(key string, id clientv3.LeaseID, acked int64) (op clientv3.Op, err error) {
	b, err := json.Marshal(Info{Name: h.cfg.Name, Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return op, err
	}
	sealed, err := h.cfg.Key.Seal(seal.Place{Name: key, Version: uint64(acked)}, b)
	return clientv3.OpPut(key, string(sealed), clientv3.WithLease(id)), err
}

// recordKey is the key of the record of a lease: none is used twice.
func (h *Host) recordKey(id clientv3.LeaseID) string {
	return h.hosts() + strconv.FormatInt(int64(id), 16)
}
