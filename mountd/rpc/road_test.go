package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// traveller is a client with a road, which it writes as it likes.
type traveller struct {
	*client
	mem []byte
}

// travel asks for a road.
func (k *client) travel() *traveller {
	k.t.Helper()
	fd, rv := k.askRoad()
	if rv != p11.CKR_OK {
		k.t.Fatal(rv)
	}
	mem, err := unix.Mmap(fd, 0, wire.RoadSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, size := range []int64{0, 2 * wire.RoadSize} {
		if unix.Ftruncate(fd, size) == nil {
			k.t.Errorf("a client makes the memory %d bytes long", size)
		}
	}
	if err := unix.Close(fd); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = unix.Munmap(mem) })
	return &traveller{k, mem}
}

func (k *client) askRoad() (fd int, rv p11.RV) {
	k.t.Helper()
	k.send(k.begin(wire.CallRoad))
	// The descriptor comes with the first byte.
	b, rights := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := k.c.ReadMsgUnix(b, rights)
	if err != nil {
		k.t.Fatal(err)
	}
	k.r.Reset(io.MultiReader(bytes.NewReader(b[:n]), k.c))
	_, _, rv = k.receive()
	if rv != p11.CKR_OK {
		return -1, rv
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		k.t.Fatalf("%d messages with the reply, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		k.t.Fatalf("descriptors %v, %v", fds, err)
	}
	return fds[0], p11.CKR_OK
}

func (v *traveller) word(offset int) *uint32 { return word(v.mem, offset) }

func (v *traveller) state(slot int) *uint32 {
	offset, _ := wire.RoadSlot(slot)
	return v.word(offset + wire.RoadState)
}

// put makes the request of a slot.
func (v *traveller) put(slot int, call wire.Call, fill func(*wiretest.Writer)) {
	w := v.begin(call)
	if fill != nil {
		fill(w)
	}
	if err := wire.EndFrame(w.B, 0); err != nil {
		v.t.Fatal(err)
	}
	offset, _ := wire.RoadSlot(slot)
	n := copy(v.mem[offset+wire.RoadBody:], wire.FrameBody(w.B))
	atomic.StoreUint32(v.word(offset+wire.RoadLength), uint32(n))
	atomic.StoreUint32(v.state(slot), wire.RoadAsked)
}

// post has the server see the requests of some slots.
func (v *traveller) post(slots uint32) {
	v.t.Helper()
	atomic.OrUint32(v.word(wire.RoadPending), slots)
	if atomic.LoadUint32(v.word(wire.RoadLooking)) == 0 {
		v.nudge()
	}
}

func (v *traveller) nudge() {
	v.t.Helper()
	b, _ := wire.AppendFrame(nil, wire.RoadNudge, "")
	if _, err := v.c.Write(b); err != nil {
		v.t.Fatal(err)
	}
}

// take waits for the reply in a slot.
func (v *traveller) take(slot int) (*wire.Reader, p11.RV) {
	v.t.Helper()
	wait(v.t, fmt.Sprint("a reply in slot ", slot), func() bool { return atomic.LoadUint32(v.state(slot)) == wire.RoadAnswered })
	offset, _ := wire.RoadSlot(slot)
	body := v.mem[offset+wire.RoadBody:][:atomic.LoadUint32(v.word(offset+wire.RoadLength))]
	r := wire.NewReader(bytes.Clone(body), v.protocol)
	if call, _ := r.Header(); wire.Call(call) == wire.CallError {
		return r, p11.RV(r.Ulong())
	}
	return r, p11.CKR_OK
}

// TestRoad: every slot answers, each its own request, to who looks and to who does not.
func TestRoad(t *testing.T) {
	path, server := serve(t, Config{})
	held := server.config.Engine.Account(uint32(os.Getuid()))
	v := dial(t, path, wire.Own).initialize().travel()
	if held.Held() != wire.RoadSize {
		t.Errorf("%d bytes are counted for a road of %d", held.Held(), wire.RoadSize)
	}
	s := v.session()
	for round := range 20 {
		for slot := range wire.RoadSlots {
			v.put(slot, wire.CallDigestOnce, func(w *wiretest.Writer) {
				w.Ulong(v.session0(s, slot))
				w.Mechanism(m(p11.CKM_SHA256))
				w.Array(data([]byte{byte(slot), byte(round)}))
				w.Room(32)
			})
		}
		v.post(1<<wire.RoadSlots - 1)
		for slot := range wire.RoadSlots {
			// One session has one digest at a time: the others are told so.
			if r, rv := v.take(slot); rv == p11.CKR_OK {
				if got := r.Array().Data; len(got) != 32 {
					t.Fatalf("a digest of %d bytes", len(got))
				}
			} else if rv != p11.CKR_OPERATION_ACTIVE {
				t.Fatal(rv)
			}
		}
	}
	for range 100 {
		v.put(0, wire.CallGetSessionInfo, func(w *wiretest.Writer) { w.Ulong(s) })
		atomic.StoreUint32(v.state(0), wire.RoadBySocket)
		v.post(1)
		if code, r, rv := v.receive(); code != wire.RoadCode || rv != p11.CKR_OK || r.Ulong() != 3 {
			t.Fatalf("code %#x, %v", code, rv)
		}
	}
	big := make([]byte, 64<<10)
	v.put(wire.RoadShort, wire.CallDigestOnce, func(w *wiretest.Writer) {
		w.Ulong(s)
		w.Mechanism(m(p11.CKM_SHA256))
		w.Array(data(big))
		w.Room(32)
	})
	v.post(1 << wire.RoadShort)
	if r, rv := v.take(wire.RoadShort); rv != p11.CKR_OK || len(r.Array().Data) != 32 {
		t.Errorf("a long request: %v", rv)
	}
	v.put(1, wire.CallGenerateRandom, func(w *wiretest.Writer) { w.Ulong(s); w.Room(4096) })
	v.post(2)
	if _, rv := v.take(1); rv != p11.CKR_DEVICE_ERROR {
		t.Errorf("a reply longer than its slot: %v", rv)
	}
	if _, rv := v.askRoad(); rv != p11.CKR_FUNCTION_REJECTED {
		t.Errorf("a second road: %v", rv)
	}
	if err := v.c.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the road's memory to be given back", func() bool { return held.Held() == 0 })
}

// session0 is a session for a slot: half of them share one.
func (v *traveller) session0(s uint64, slot int) uint64 {
	if slot%2 == 0 {
		return s
	}
	return v.session()
}

// TestRoadOfOtherProtocols: p11-kit's clients have none.
func TestRoadOfOtherProtocols(t *testing.T) {
	path, _ := serve(t, Config{})
	if _, rv := dial(t, path, wire.V2).initialize().call(wire.CallRoad, nil); rv != p11.CKR_FUNCTION_NOT_SUPPORTED {
		t.Error(rv)
	}
}

// TestRoadsAreBounded: a uid has so many roads, and what it has left of its account.
func TestRoadsAreBounded(t *testing.T) {
	path, server := serveLimited(t, Config{MaxRoads: 2}, 2*wire.RoadSize+4096, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	first := dial(t, path, wire.Own).initialize()
	first.travel()
	second := dial(t, path, wire.Own).initialize()
	second.travel()
	third := dial(t, path, wire.Own).initialize()
	if _, rv := third.askRoad(); rv != p11.CKR_DEVICE_MEMORY {
		t.Errorf("a third road: %v", rv)
	}
	third.must(wire.CallGetInfo, nil)
	if err := first.c.Close(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the first connection to end", func() bool { return server.Stats().Connections == 2 })
	third.travel()
}

// TestRoadLongCall: calls that take long keep no other from being answered.
func TestRoadLongCall(t *testing.T) {
	path, _ := serve(t, Config{})
	v := dial(t, path, wire.Own).initialize().travel()
	const waits = 6 // as many as the turns of a uid have patience for
	for slot := range waits {
		v.put(slot, wire.CallWaitForSlotEvent, func(w *wiretest.Writer) { w.Ulong(0) })
	}
	v.post(1<<waits - 1)
	for range 100 {
		v.put(waits, wire.CallGetInfo, nil)
		v.post(1 << waits)
		if _, rv := v.take(waits); rv != p11.CKR_OK {
			t.Fatal(rv)
		}
	}
	v.must(wire.CallFinalize, nil)
	for slot := range waits {
		if _, rv := v.take(slot); rv != p11.CKR_CRYPTOKI_NOT_INITIALIZED {
			t.Errorf("slot %d: %v", slot, rv)
		}
	}
}

// TestRoadOfAServerThatEnds: what the end of the server cuts off is answered no more than at
// the socket, so that the client sees a connection that is lost.
func TestRoadOfAServerThatEnds(t *testing.T) {
	path, server := serve(t, Config{})
	v := dial(t, path, wire.Own).initialize().travel()
	v.put(0, wire.CallWaitForSlotEvent, func(w *wiretest.Writer) { w.Ulong(0) })
	v.post(1)
	v.put(1, wire.CallGetInfo, nil)
	v.post(1 << 1)
	if _, rv := v.take(1); rv != p11.CKR_OK {
		t.Fatal(rv)
	}
	server.Close()
	if s := atomic.LoadUint32(v.state(0)); s != wire.RoadAsked {
		t.Errorf("the request has become %d", s)
	}
}

// vandalise plays a script of eight bytes an act: what, in which slot, and two numbers.
func (v *traveller) vandalise(session uint64, script []byte) {
	for ; len(script) >= 8; script = script[8:] {
		slot := int(script[1]) % wire.RoadSlots
		a, b := binary.BigEndian.Uint16(script[2:]), binary.BigEndian.Uint32(script[4:])
		offset, most := wire.RoadSlot(slot)
		switch script[0] % 10 {
		case 0:
			v.put(slot, wire.CallGetSessionInfo, func(w *wiretest.Writer) { w.Ulong(session) })
			atomic.OrUint32(v.word(wire.RoadPending), 1<<slot)
		case 1:
			v.put(slot, wire.CallDigestOnce, func(w *wiretest.Writer) {
				w.Ulong(session)
				w.Mechanism(m(p11.CKM_SHA256))
				w.Array(data(make([]byte, min(int(a), most-200))))
				w.Room(wire.Room(b))
			})
			atomic.OrUint32(v.word(wire.RoadPending), 1<<slot)
		case 2:
			calls := []wire.Call{wire.CallWaitForSlotEvent, wire.CallOpenSession, wire.CallGenerateRandom, wire.CallRoad, wire.CallFinalize, wire.CallInitialize, wire.CallCloseSession}
			v.put(slot, calls[int(a)%len(calls)], func(w *wiretest.Writer) { w.Ulong(uint64(b)) })
			atomic.OrUint32(v.word(wire.RoadPending), 1<<slot)
		case 3:
			atomic.StoreUint32(v.word(offset+wire.RoadLength), b)
		case 4:
			atomic.StoreUint32(v.state(slot), b%5)
		case 5:
			atomic.StoreUint32(v.word(wire.RoadPending), b)
		case 6:
			atomic.StoreUint32(v.word(wire.RoadLooking), b)
		case 7:
			v.nudge()
		case 8:
			atomic.StoreUint32(v.word(offset+wire.RoadBody+4*(int(a)%(most/4))), b)
		case 9: // the server has its turn
			end := time.Now().Add(time.Duration(a%512) * time.Microsecond)
			for time.Now().Before(end) && atomic.LoadUint32(v.state(slot)) == wire.RoadAsked {
			}
		}
	}
}

// roadSeeds are scripts with everything in them.
func roadSeeds(n int) (seeds [][]byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		b := make([]byte, 8*200)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		seeds = append(seeds, b)
	}
	honest := []byte{0, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 255, 0, 0, 0, 0}
	return append(seeds, nil, honest, bytes.Repeat(honest, 20))
}

// ride plays a script on a road of its own, in a world that is not to notice.
func ride(t *testing.T, w *world, script []byte) {
	t.Helper()
	v := dial(t, w.path, wire.Own).initialize().travel()
	session := v.session()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, v.c) // what comes for slots by the socket
	}()
	v.vandalise(session, script)
	w.check(t) // while the road is as it is
	if err := v.c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-drained
	if err := v.c.Close(); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	w.check(t)
}

// TestRoadHostile: nothing that a client writes to its road, and when, harms another one or
// the server, or stays behind.
func TestRoadHostile(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for _, script := range roadSeeds(rounds) {
		ride(t, w, script)
	}
	// All the time, and not only before the server looks.
	v := dial(t, w.path, wire.Own).initialize().travel()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		r := rand.New(rand.NewPCG(3, 4))
		for {
			select {
			case <-stop:
				return
			default:
				*v.word(4 * r.IntN(wire.RoadSize/4)) = r.Uint32()
				atomic.StoreUint32(v.word(wire.RoadPending), r.Uint32())
			}
		}
	}()
	go func() { _, _ = io.Copy(io.Discard, v.c) }()
	for range 200 {
		v.nudge()
		w.check(t)
	}
	close(stop)
	<-stopped
	if err := v.c.Close(); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
}

// FuzzRoad has a client write to its road, and looks whether another one notices, and what
// is left.
func FuzzRoad(f *testing.F) {
	for _, script := range roadSeeds(4) {
		f.Add(script)
	}
	var w *world
	f.Cleanup(func() {
		if w != nil {
			w.TB = f
			w.close()
		}
	})
	f.Fuzz(func(t *testing.T, script []byte) {
		watchdog := time.AfterFunc(3*waitLimit, func() { panic("the server hangs") })
		defer watchdog.Stop()
		if w != nil {
			w.TB = t
		}
		if w == nil || w.spoilt {
			w = newWorld(t)
		}
		ride(t, w, script[:min(len(script), 8*1000)])
	})
}
