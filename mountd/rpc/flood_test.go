package rpc

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// TestMemoryOfCutRequests: requests that are announced and never come give back
// what they were granted.
func TestMemoryOfCutRequests(t *testing.T) {
	path, server := serveLimited(t, Config{}, 1<<20, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	stays := dial(t, path, wire.V2).initialize()
	s := stays.session()
	for range 4 {
		k := dial(t, path, wire.V2).initialize()
		header := binary.BigEndian.AppendUint32(nil, k.code+1)
		header = binary.BigEndian.AppendUint32(header, 0)
		header = binary.BigEndian.AppendUint32(header, 1<<20)
		if _, err := k.c.Write(append(header, make([]byte, 100)...)); err != nil {
			t.Fatal(err)
		}
		if err := k.c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "the cut connections to end", func() bool { return server.Stats().Connections == 1 })
	if _, rv := stays.call(wire.CallSeedRandom, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(make([]byte, 700<<10))) }); rv == p11.CKR_DEVICE_MEMORY {
		t.Error("memory is not given back")
	}
}

// TestHalfSentRequest: what a client has sent of a request counts as it arrives, and
// one that does not send the rest is not waited for.
func TestHalfSentRequest(t *testing.T) {
	path, server := serveLimited(t, Config{FrameTime: 500 * time.Millisecond}, 64<<20, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	account := server.config.Engine.Account(uint32(os.Getuid()))
	stays := dial(t, path, wire.V2).initialize()
	var halves []*client
	for range 4 {
		k := dial(t, path, wire.V2).initialize()
		header := binary.BigEndian.AppendUint32(nil, k.code+1)
		header = binary.BigEndian.AppendUint32(header, 0)
		header = binary.BigEndian.AppendUint32(header, 60<<20)
		if _, err := k.c.Write(append(header, make([]byte, 300<<10)...)); err != nil {
			t.Fatal(err)
		}
		halves = append(halves, k)
	}
	wait(t, "the beginnings to be counted", func() bool { return account.Held() >= 4*300<<10 })
	if held := account.Held(); held > 8<<20 {
		t.Errorf("%d bytes are counted of 4 times 300 KiB", held)
	}
	wait(t, "the connections to be closed", func() bool { return server.Stats().Connections == 1 })
	if held := account.Held(); held != 0 {
		t.Errorf("%d bytes are held of connections that are closed", held)
	}
	for _, k := range halves {
		if err := k.c.Close(); err != nil {
			t.Error(err)
		}
	}
	stays.must(wire.CallGetInfo, nil) // between requests a client takes its time
}

// flood sends requests until the server takes no more, or max have gone.
func flood(t *testing.T, k *client, max int, request func() *wiretest.Writer) (sent int) {
	t.Helper()
	for ; sent < max; sent++ {
		if err := k.c.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		w := request()
		if err := wire.EndFrame(w.B, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := k.c.Write(w.B); errors.Is(err, os.ErrDeadlineExceeded) {
			return sent
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return sent
}

// TestUnreadReplies: a client that sends and never reads is not read from either.
func TestUnreadReplies(t *testing.T) {
	path, server := serve(t, Config{MaxCalls: 100})
	k := dial(t, path, wire.V2).initialize()
	before := runtime.NumGoroutine()
	if n := flood(t, k, 100_000, func() *wiretest.Writer { return k.begin(wire.CallGetInfo) }); n == 100_000 {
		t.Error("the server takes requests without end")
	}
	if n := runtime.NumGoroutine() - before; n > 110 {
		t.Errorf("%d goroutines for one connection", n)
	}
	other := dial(t, path, wire.V2).initialize()
	other.must(wire.CallGetInfo, nil)
	if err := errors.Join(k.c.Close(), other.c.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	wait(t, "the connections to end", func() bool { return server.Stats().Connections == 0 })
}

// TestLongUnreadReplies: replies that are long for what was asked count as
// memory until they are read.
func TestLongUnreadReplies(t *testing.T) {
	const one = 64 << 10
	path, server := serveLimited(t, Config{}, 10*one, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	k := dial(t, path, wire.V2).initialize()
	s := k.session()
	const calls = 100
	sent := flood(t, k, calls, func() *wiretest.Writer {
		w := k.begin(wire.CallGenerateRandom)
		w.Ulong(s)
		w.Room(wire.Room(one))
		return w
	})
	if sent != calls {
		t.Fatalf("%d requests taken, want %d", sent, calls)
	}
	refused := 0
	for range calls {
		if _, _, rv := k.receive(); rv == p11.CKR_DEVICE_MEMORY {
			refused++
		} else if rv != p11.CKR_OK {
			t.Fatal(rv)
		}
	}
	if refused == 0 {
		t.Error("no reply was refused")
	}
	k.must(wire.CallGenerateRandom, func(w *wiretest.Writer) { w.Ulong(s); w.Room(wire.Room(one)) })
	if n := server.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}
