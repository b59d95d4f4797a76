package libp11fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p11fs/mountd/rpc/wire"
)

// withoutRoad has a command send all its calls by the socket.
const withoutRoad = "P11FS_ROAD=no"

// testSocket runs cases where no call goes by the road, as with an older daemon.
func testSocket(t *testing.T, b build) {
	for _, name := range []string{"functions", "buffers", "deferred", "threads", "fork", "closed", "oversized"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := serve(t).command(b, name)
			c.Env = append(c.Env, withoutRoad)
			run(t, c)
		})
	}
}

// testKilled kills programs whose threads are in the middle of calls. Another one does not
// notice, and nothing of theirs is left.
func testKilled(t *testing.T, b build) {
	d := serve(t)
	stays := d.command(b, "race", "3")
	var out bytes.Buffer
	stays.Stdout, stays.Stderr = &out, &out
	if err := stays.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		c := d.command(b, "race", "60")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for calls := d.server.Stats().Calls; d.server.Stats().Calls < calls+uint64(10*i*i); {
			time.Sleep(time.Millisecond)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // killed
	}
	if err := stays.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	account := d.engine.Account(uint32(os.Getuid()))
	for end := time.Now().Add(time.Minute); account.Held() != 0 || d.server.Stats().Connections != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are held, %+v", account.Held(), d.server.Stats())
		}
	}
}

// A swindle is a descriptor in the place of the road's memory, and what is written to it.
type swindle struct {
	size  int64
	seals int
	mark  uint32 // of another order of bytes; 0: as it should be
	write func(r *rand.Rand, mem []byte)
}

// TestHostileRoad: whatever a server shares, and whatever it writes there and when, the module
// does not crash, hang, or write where it should not.
func TestHostileRoad(t *testing.T) {
	t.Parallel()
	b := compile(t, addressSanitizer)
	const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	word := func(mem []byte, offset int) *uint32 { return (*uint32)(unsafe.Pointer(&mem[offset])) }
	// each calls write for each request, and has the module see an answer.
	each := func(write func(r *rand.Rand, mem []byte, slot int, call wire.Call)) func(*rand.Rand, []byte) {
		return func(r *rand.Rand, mem []byte) {
			atomic.StoreUint32(word(mem, wire.RoadLooking), 1)
			waiting := atomic.SwapUint32(word(mem, wire.RoadPending), 0)
			for slot := range wire.RoadSlots {
				if waiting&(1<<slot) == 0 {
					continue
				}
				at, most := wire.RoadSlot(slot)
				n := min(int(atomic.LoadUint32(word(mem, at+wire.RoadLength))), most)
				call, _ := wire.NewReader(mem[at+wire.RoadBody:][:n], wire.Own).Header()
				write(r, mem, slot, wire.Call(call))
				atomic.CompareAndSwapUint32(word(mem, at+wire.RoadState), wire.RoadAsked, wire.RoadAnswered)
			}
		}
	}
	swindles := map[string]swindle{
		"short":   {size: wire.RoadSize - 4096, seals: sealed},
		"long":    {size: wire.RoadSize + 4096, seals: sealed},
		"shrinks": {size: wire.RoadSize, seals: unix.F_SEAL_GROW},
		"ends":    {size: wire.RoadSize, seals: sealed, write: nil},
		"foreign": {size: wire.RoadSize, seals: sealed, mark: bits.ReverseBytes32(wire.RoadMark)},
		"noise": {size: wire.RoadSize, seals: sealed, write: func(r *rand.Rand, mem []byte) {
			for range 100 {
				atomic.StoreUint32(word(mem, 4*r.IntN(wire.RoadSize/4)), r.Uint32()%5)
			}
		}},
		"lengths": {size: wire.RoadSize, seals: sealed, write: each(func(r *rand.Rand, mem []byte, slot int, _ wire.Call) {
			at, most := wire.RoadSlot(slot)
			lengths := []uint32{0, 1, uint32(most), uint32(most) + 1, 0x7fffffff, 0xffffffff}
			atomic.StoreUint32(word(mem, at+wire.RoadLength), lengths[r.IntN(len(lengths))])
		})},
		"plausible": {size: wire.RoadSize, seals: sealed, write: each(func(r *rand.Rand, mem []byte, slot int, call wire.Call) {
			at, _ := wire.RoadSlot(slot)
			s, _ := wire.Signatures(call)
			values := plausible(r, s.Response)
			if call == wire.CallOpenSession {
				values = make([]byte, 8)
			}
			reply := honest(0, call, values)
			if reply == nil {
				return
			}
			n := copy(mem[at+wire.RoadBody:], wire.FrameBody(reply))
			atomic.StoreUint32(word(mem, at+wire.RoadLength), uint32(n))
		})},
	}
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	for name, s := range swindles {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				t.Parallel()
				runHostile(t, b, s.serve(t, seed))
			})
		}
	}
}

// serve runs a server that gives each client such a road. Without write it ends when it is
// nudged.
func (s swindle) serve(t *testing.T, seed uint64) (socket string) {
	t.Helper()
	return accepting(t, seed, s.one)
}

func (s swindle) one(c *net.UnixConn, r *rand.Rand) error {
	fd, err := unix.MemfdCreate("road", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "road")
	defer func() { _ = f.Close() }()
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, s.seals); err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, int(s.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	order := (*uint32)(unsafe.Pointer(&mem[wire.RoadOrder]))
	if *order = wire.RoadMark; s.mark != 0 {
		*order = s.mark
	}
	var states []*uint32
	for slot := range wire.RoadSlots {
		if at, _ := wire.RoadSlot(slot); s.write != nil {
			states = append(states, (*uint32)(unsafe.Pointer(&mem[at+wire.RoadState])))
		}
	}
	replies := rand.New(rand.NewPCG(1, r.Uint64()))
	ended := make(chan struct{})
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		for s.write != nil {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Microsecond):
				s.write(r, mem)
				// Who waits at the socket would do so for good.
				if slices.ContainsFunc(states, func(state *uint32) bool { return atomic.LoadUint32(state) == wire.RoadBySocket }) {
					_ = c.Close() // the client may have been faster
					return
				}
			}
		}
	}()
	defer func() {
		close(ended)
		<-writing
		_ = unix.Munmap(mem)
	}()
	var wrong error
	fakeConn(c, replies, func(r *rand.Rand, code uint32, call wire.Call) []byte {
		switch {
		case call == wire.CallRoad:
			b := honest(code, call, nil)
			_, _, _ = c.WriteMsgUnix(b, unix.UnixRights(int(f.Fd())), nil)
			return []byte{}
		case code == wire.RoadNudge && s.mark != 0:
			wrong = errors.New("a call goes by a road of another order of bytes")
			return nil
		case code == wire.RoadNudge && s.write != nil:
			return []byte{}
		case code == wire.RoadNudge:
			return nil
		case call == wire.CallInitialize || call == wire.CallFinalize:
			return honest(code, call, nil)
		case call == wire.CallGetSlotList:
			return honest(code, call, append([]byte{1, 0, 0, 0, 1}, binary.BigEndian.AppendUint64(nil, 3)...))
		}
		signatures, _ := wire.Signatures(call)
		return honest(code, call, plausible(r, signatures.Response))
	})
	return wrong
}
