package rpc

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// lookTime is how long a worker looks for the next request before it leaves. While no other
// uid works that is time of its own: whoever has the processor to which it yields is the
// client or works for it, and who left each time would be called again for each request.
const lookTime = 50 * time.Microsecond

// ownTime is the most of a yield that counts as a worker's own. Between threads that all
// yield it is over in a microsecond.
const ownTime = 2 * time.Microsecond

// atOnceTime is how long a worker looks before it yields for the first time, if that was
// worth it: a client that runs beside it comes back in less. It costs less than a yield to
// somebody who wants the processor.
const atOnceTime = 3 * time.Microsecond

// soonTime is how long after a worker has left a nudge says that it should have stayed: it
// is awake by then.
const soonTime = 200 * time.Microsecond

// crowdTime is how long a worker of a uid pauses after each request while that has more
// workers than there are processors, and others work, too.
const crowdTime = 500 * time.Microsecond

// passTime is how often a worker passes.
const passTime = 200 * time.Microsecond

// A road is memory that is shared with a client of our own protocol, for requests and
// replies that need neither a system call nor a wake-up while both ends are awake. The
// client writes what it likes there and when it likes: what is in there is read once, and
// a request is copied before anything looks at it. What the client destroys is its own.
//
// Requests are answered by workers: a goroutine each that looks, answers, looks again, and
// leaves when nothing comes. There are as many as processors; calls that take long do not
// count. A client that finds nobody looking says so on the socket.
type road struct {
	conn    *conn
	mem     []byte
	pending *uint32 // bits of slots, in mem
	// looking is in mem too, and only written here: the workers that look, and one more while
	// there are all that may be. So it is 0 only if a nudge brings another one.
	looking *uint32
	most    int32
	rests   rests

	next   atomic.Uint32 // the slot behind the last that was taken up
	brisk  atomic.Bool   // looking was worth it, the last time
	atOnce atomic.Bool   // likewise, before yielding
	left   atomic.Int64  // when the last worker left, as rests counts
	// answered counts requests: who gave the processor away for long, and finds that it has
	// changed, gave it to the road's own threads or the client's.
	answered atomic.Uint64

	mu      sync.Mutex // guards all below
	workers int32      // but those whose call takes long
	closed  bool       // nobody begins any more
}

// giveRoad answers the call that asks for a road.
func (c *conn) giveRoad(code uint32) {
	fd, err := c.makeRoad()
	if err != nil {
		rv := p11.RVOf(err)
		if rv == p11.CKR_OK {
			rv = p11.CKR_DEVICE_MEMORY
		}
		c.reply(errorFrame(nil, code, rv))
		return
	}
	b, start := wire.AppendFrame(nil, code, "")
	w := wire.NewWriter(b, c.protocol)
	w.Header(uint32(wire.CallRoad), "")
	if err := wire.EndFrame(w.B, start); err != nil {
		panic(err) // 8 bytes always fit
	}
	c.write.Lock()
	_, _, _ = c.socket.WriteMsgUnix(w.B, unix.UnixRights(fd), nil) // if the client is gone, the next read finds out
	c.write.Unlock()
	_ = unix.Close(fd) // the mapping stays
}

// makeRoad makes the connection's road, and returns the descriptor for the client.
func (c *conn) makeRoad() (fd int, err error) {
	switch {
	case c.refused != nil:
		return 0, c.refused
	case c.road != nil:
		return 0, p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the connection has a road")
	}
	if err := c.takeRoad(); err != nil {
		return 0, err
	}
	fd, mem, err := sharedMemory()
	if err != nil {
		c.giveBackRoad()
		return 0, err
	}
	*word(mem, wire.RoadOrder) = wire.RoadMark
	c.input.still = true
	c.road = &road{
		conn: c, mem: mem, most: int32(c.server.config.Processors), rests: newRests(),
		pending: word(mem, wire.RoadPending), looking: word(mem, wire.RoadLooking),
	}
	return fd, nil
}

// takeRoad counts a road for the uid. Those of one uid leave most of its account for what
// its clients send.
func (c *conn) takeRoad() error {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.user.roads >= s.config.MaxRoads {
		return p11.Errorf(p11.CKR_DEVICE_MEMORY, "uid %d has %d roads", c.peer.UID, c.user.roads)
	}
	if err := c.account.Take(wire.RoadSize); err != nil {
		return err
	}
	c.user.roads++
	return nil
}

func (c *conn) giveBackRoad() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.user.roads--
	c.account.Give(wire.RoadSize)
}

// sharedMemory makes memory whose size neither end can change.
func sharedMemory() (fd int, mem []byte, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate("p11fs-road", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3
		fd, err = unix.MemfdCreate("p11fs-road", flags)
	}
	if err != nil {
		return 0, nil, err
	}
	if err = unix.Ftruncate(fd, wire.RoadSize); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		mem, err = unix.Mmap(fd, 0, wire.RoadSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, nil, err
	}
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP) // a dump without it has no more than the heap's
	return fd, mem, nil
}

// word is a number in shared memory, whose offset is a multiple of 4.
func word(mem []byte, offset int) *uint32 { return (*uint32)(unsafe.Pointer(&mem[offset])) }

// close has the workers end, and lets none begin. nil has none.
func (r *road) close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
}

// free gives the memory back, once all workers have ended.
func (r *road) free() {
	if r == nil {
		return
	}
	r.mu.Lock() // of nudges that came late
	defer r.mu.Unlock()
	_ = unix.Munmap(r.mem) // our own mapping
	r.mem, r.pending, r.looking = nil, nil, nil
	r.conn.giveBackRoad()
}

// nudge has another worker begin, unless there are as many as may be.
func (r *road) nudge(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || !r.joinLocked() {
		return
	}
	if left := r.left.Load(); left != 0 && time.Since(r.rests.began)-time.Duration(left) < soonTime {
		r.brisk.Store(true) // had it looked, it would have seen the request
	}
	w := &worker{road: r}
	r.conn.wg.Go(func() { w.run(ctx) })
}

// joinLocked counts one more worker, who looks, if there may be one.
func (r *road) joinLocked() bool {
	if r.workers == r.most {
		return false
	}
	r.workers++
	if r.workers == r.most {
		atomic.AddUint32(r.looking, 1)
	}
	atomic.AddUint32(r.looking, 1)
	return true
}

func (r *road) join() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.joinLocked()
}

// outLocked counts one less, who does not look.
func (r *road) outLocked() {
	if r.workers == r.most {
		atomic.AddUint32(r.looking, ^uint32(0))
	}
	r.workers--
}

// leave counts one less, who looked. False means that there is something to do all the
// same, and he has not left.
func (r *road) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outLocked()
	atomic.AddUint32(r.looking, ^uint32(0))
	// A client that counted on him has set its bit before this.
	return atomic.LoadUint32(r.pending) == 0 || !r.joinLocked()
}

// claim takes up the next request. ok is false if there is none.
func (r *road) claim() (slot int, ok bool) {
	for {
		waiting := atomic.LoadUint32(r.pending)
		if waiting == 0 {
			return 0, false
		}
		// By turns, so that no slot waits for another for good.
		from := int(r.next.Load() % wire.RoadSlots)
		slot = (from + bits.TrailingZeros32(bits.RotateLeft32(waiting, -from))) % wire.RoadSlots
		if bit := uint32(1) << slot; atomic.AndUint32(r.pending, ^bit)&bit != 0 {
			r.next.Store(uint32(slot) + 1)
			return slot, true
		}
	}
}

// A worker answers requests of a road.
type worker struct {
	road  *road
	watch watch
	place place
	in    []byte // of a request; in an account if it is longer than short
	out   []byte // of replies
	held  int    // in the account
}

// run looks and answers until nothing comes.
func (w *worker) run(ctx context.Context) {
	r := w.road
	w.in = make([]byte, wire.RoadShortSize)
	s := r.conn.server
	w.watch.init(r.conn.branch, r.conn.unbranch, func() { w.goOn(ctx) })
	defer func() {
		w.watch.stop()
		s.apart.leave(&w.place)
		r.conn.account.Give(w.held)
	}()
	s.workers.Add(1)
	defer s.workers.Add(-1)
	r.conn.user.workers.Add(1)
	defer r.conn.user.workers.Add(-1)
	for passed := time.Now(); ; {
		// Where each processor has a worker, none of which ever waits, nobody would see what
		// comes on the sockets.
		if s.workers.Load() >= r.most && time.Since(passed) >= passTime {
			s.pass.pass()
			passed = time.Now()
		}
		// More workers of a uid than processors would have those of others come to turn late, and
		// what comes on sockets be seen late.
		if r.conn.user.workers.Load() > r.most && !r.conn.account.Alone() {
			time.Sleep(crowdTime)
		}
		if s.workers.Load() > 1 {
			s.apart.enter(&w.place)
		}
		slot, ok := r.claim()
		for !ok && w.look(ctx) {
			slot, ok = r.claim()
		}
		if !ok {
			r.left.Store(int64(time.Since(r.rests.began)))
			if r.leave() {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			r.leave()
			return
		}
		if !w.serve(ctx, slot) {
			return
		}
	}
}

// goOn has another one look in the place of w, whose call takes long.
func (w *worker) goOn(ctx context.Context) {
	r := w.road
	r.conn.server.apart.leave(&w.place)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.outLocked()
	more := atomic.LoadUint32(r.pending) != 0
	r.mu.Unlock()
	if more {
		r.nudge(ctx)
	}
}

// look waits until there is something to do. False means that nothing came in a while.
func (w *worker) look(ctx context.Context) bool {
	r := w.road
	began := time.Now()
	t := began
	if r.atOnce.Load() {
		for t.Sub(began) < atOnceTime {
			for range 100 { // of which each takes less than the clock
				if atomic.LoadUint32(r.pending) != 0 {
					return true
				}
			}
			t = time.Now()
		}
		r.atOnce.Store(false)
	}
	if !r.brisk.Load() || r.rests.now(t) || !r.conn.server.lookers.enter() {
		r.brisk.Store(false)
		return false
	}
	defer r.conn.server.lookers.leave()
	for looked := time.Duration(0); looked < lookTime && ctx.Err() == nil; {
		answered := r.answered.Load()
		var took time.Duration
		t, took = yield()
		if took >= yieldTime && r.answered.Load() == answered {
			r.rests.begin(t)
			return false
		}
		if atomic.LoadUint32(r.pending) != 0 {
			r.atOnce.Store(t.Sub(began) < atOnceTime)
			return true
		}
		if r.conn.account.Alone() {
			took = min(took, ownTime)
		}
		looked += took
	}
	r.brisk.Store(false)
	return false
}

// serve answers the request in a slot. False means that another goes on.
func (w *worker) serve(ctx context.Context, slot int) bool {
	r, c := w.road, w.road.conn
	r.answered.Add(1)
	offset, most := wire.RoadSlot(slot)
	code := wire.RoadCode | uint32(slot)
	atomic.AddUint32(r.looking, ^uint32(0))
	if atomic.LoadUint32(r.pending) != 0 && atomic.LoadUint32(r.looking) == 0 {
		r.nudge(ctx) // whose client has seen that w looks
	}
	n := w.watch.begin()
	out := w.out[:0]
	switch length := int(atomic.LoadUint32(word(r.mem, offset+wire.RoadLength))); {
	case length > most:
		turn := c.account.Turn(ctx) // it is no less work than a request
		turn.Charge(roadCost)
		turn.End()
		out = errorFrame(out, code, p11.CKR_DEVICE_ERROR)
	case !w.hold(max(length, most)):
		out = errorFrame(out, code, p11.CKR_DEVICE_MEMORY)
	default:
		body := w.in[:length]
		copy(body, r.mem[offset+wire.RoadBody:])
		out = c.handle(ctx, out, code, body)
		secret.Wipe(body)
	}
	ours := w.watch.end(n)
	if !ours {
		c.unbranch()
		if ours = r.join(); ours {
			w.watch.again(n)
		}
	} else {
		// Before the reply: the client's next request finds that somebody looks.
		atomic.AddUint32(r.looking, 1)
	}
	if ctx.Err() == nil {
		w.answer(slot, code, out)
	} else { // the connection ends, and what that has cut off would come before the end is seen
		secret.Wipe(out)
	}
	if w.out = out; cap(out) > len(w.in)+wire.RoadShortSize {
		w.out = nil
	}
	return ours
}

// hold sees that a request of n bytes has room.
func (w *worker) hold(n int) bool {
	if n <= len(w.in) {
		return true
	}
	const more = 2 * wire.RoadLongSize // of the request and its reply
	if w.road.conn.account.Take(more) != nil {
		return false
	}
	w.held = more
	w.in = make([]byte, wire.RoadLongSize)
	return true
}

// answer gives the client the reply, a frame, where it waits for it, and wipes it.
func (w *worker) answer(slot int, code uint32, frame []byte) {
	r := w.road
	offset, most := wire.RoadSlot(slot)
	state := word(r.mem, offset+wire.RoadState)
	body := wire.FrameBody(frame)
	if len(body) > most { // the client takes care that it is not
		secret.Wipe(frame)
		frame = errorFrame(frame[:0], code, p11.CKR_DEVICE_ERROR)
		body = wire.FrameBody(frame)
	}
	if atomic.LoadUint32(state) == wire.RoadAsked {
		there := r.mem[offset+wire.RoadBody:][:len(body)]
		copy(there, body)
		atomic.StoreUint32(word(r.mem, offset+wire.RoadLength), uint32(len(body)))
		if atomic.CompareAndSwapUint32(state, wire.RoadAsked, wire.RoadAnswered) {
			secret.Wipe(frame)
			return
		}
		secret.Wipe(there)
	}
	if atomic.LoadUint32(state) == wire.RoadBySocket {
		r.conn.send(code, frame)
		return
	}
	secret.Wipe(frame) // the client has destroyed its own slot
}
