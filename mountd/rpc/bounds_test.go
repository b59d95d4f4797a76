package rpc

import (
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// made returns how many bytes the process allocates while f runs.
func made(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestTemplateOfManyAttributes: neither many attributes nor nested counts make the
// server work or hold more than the message's own length.
func TestTemplateOfManyAttributes(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.V2).initialize()
	s := k.session()
	find := func(template []byte) (uint64, p11.RV) {
		var rv p11.RV
		n := made(func() {
			_, rv = k.call(wire.CallFindObjectsInit, func(w *wiretest.Writer) { w.Ulong(s); w.B = append(w.B, template...) })
		})
		return n, rv
	}
	many := binary.BigEndian.AppendUint32(nil, 200_000)
	for i := range 200_000 {
		many = binary.BigEndian.AppendUint32(many, 0x80000000+uint32(i))
		many = append(many, 1, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	nested := make([]byte, 8<<20)
	for depth, at := 0, 0; depth < 8; depth++ {
		binary.BigEndian.PutUint32(nested[at:], uint32(len(nested)-at-4)/5)
		binary.BigEndian.PutUint32(nested[at+4:], uint32(p11.CKA_WRAP_TEMPLATE))
		nested[at+8] = 1
		at += 13
	}
	for _, tt := range []struct {
		name     string
		template []byte
	}{{"attributes", many}, {"nested counts", nested}} {
		t.Run(tt.name, func(t *testing.T) {
			// The frame at both ends, with room for their beginnings.
			n, rv := find(tt.template)
			if rv != p11.CKR_TEMPLATE_INCONSISTENT {
				t.Errorf("%v", rv)
			}
			if n > 12*uint64(len(tt.template)) {
				t.Errorf("%d bytes were made of %d", n, len(tt.template))
			}
		})
	}
}

// TestSameAttributeManyTimes: a value that is asked for many times is held once,
// and a reply that were too long is not made.
func TestSameAttributeManyTimes(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.Own).initialize()
	s := k.session()
	value := make([]byte, 1<<20)
	r := k.must(wire.CallCreateObject, func(w *wiretest.Writer) {
		w.Ulong(s)
		w.Attributes([]wire.Attribute{attribute(p11.CKA_CLASS, p11.Ulong(p11.CKO_DATA)), attribute(p11.CKA_VALUE, value)})
	})
	h := r.Ulong()
	wanted := make([]wire.Wanted, p11.MaxAttributes)
	for i := range wanted {
		wanted[i] = wire.Wanted{Type: p11.CKA_VALUE, Room: 1 << 20}
	}
	n := made(func() {
		if _, rv := k.call(wire.CallGetAttributeValue, func(w *wiretest.Writer) { w.Ulong(s); w.Ulong(h); w.Wanted(wanted) }); rv != p11.CKR_DEVICE_MEMORY {
			t.Errorf("%v", rv)
		}
	})
	if n > 8<<20 {
		t.Errorf("%d bytes were made for a reply that is not sent", n)
	}
	r = k.must(wire.CallGetAttributeValue, func(w *wiretest.Writer) { w.Ulong(s); w.Ulong(h); w.Wanted(wanted[:2]) })
	for _, a := range r.Attributes() {
		if len(a.Value) != len(value) {
			t.Errorf("%d bytes", len(a.Value))
		}
	}
}

// TestResultsInTheMaking: what a call makes before its reply is sent counts in the
// account of the uid before it is there, however short the request is.
func TestResultsInTheMaking(t *testing.T) {
	const one = 1 << 20
	path, server := serveLimited(t, Config{}, 4*one, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	account := server.config.Engine.Account(uint32(os.Getuid()))
	k := dial(t, path, wire.Own).initialize()
	s := k.session()
	create := func(list ...wire.Attribute) uint64 {
		r := k.must(wire.CallCreateObject, func(w *wiretest.Writer) { w.Ulong(s); w.Attributes(list) })
		return r.Ulong()
	}
	key := create(attribute(p11.CKA_CLASS, p11.Ulong(p11.CKO_SECRET_KEY)), attribute(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_AES)),
		attribute(p11.CKA_PRIVATE, p11.Bool(false)), attribute(p11.CKA_ENCRYPT, p11.Bool(true)), attribute(p11.CKA_VALUE, make([]byte, 16)))
	long := create(attribute(p11.CKA_CLASS, p11.Ulong(p11.CKO_DATA)), attribute(p11.CKA_VALUE, make([]byte, one)))
	// A request is given back after its reply was sent.
	idle := func() bool { held := account.Held(); return held >= one && held < one+64<<10 }
	wait(t, "requests to be given back", idle)
	for _, c := range []struct {
		what string
		call wire.Call
		most uint64 // bytes that the refused call may make, and its client
		fill func(*wiretest.Writer)
	}{
		{"values", wire.CallGetAttributeValue, one / 2, func(w *wiretest.Writer) {
			value := wire.Wanted{Type: p11.CKA_VALUE, Room: one}
			w.Ulong(s)
			w.Ulong(long)
			w.Wanted([]wire.Wanted{value, value})
		}},
		{"an encryption", wire.CallEncryptOnce, 11 * one, func(w *wiretest.Writer) {
			w.Ulong(s)
			w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_AES_ECB}})
			w.Ulong(key)
			w.Array(data(make([]byte, one*3/2)))
			w.Room(wire.Room(2 * one))
		}},
	} {
		n := made(func() {
			if _, rv := k.call(c.call, c.fill); rv != p11.CKR_DEVICE_MEMORY {
				t.Errorf("%s: %v", c.what, rv)
			}
		})
		if n > c.most {
			t.Errorf("%s: %d bytes were made for a reply that is not sent", c.what, n)
		}
		wait(t, "what was counted to be given back", idle)
	}
	// A length only is a copy of the value all the same.
	full := 4*one - int(account.Held()) - one/2
	if err := account.Take(full); err != nil {
		t.Fatal(err)
	}
	length := func(w *wiretest.Writer) { w.Ulong(s); w.Ulong(long); w.Wanted([]wire.Wanted{{Type: p11.CKA_VALUE}}) }
	if _, rv := k.call(wire.CallGetAttributeValue, length); rv != p11.CKR_DEVICE_MEMORY {
		t.Errorf("a length: %v", rv)
	}
	account.Give(full)
	k.must(wire.CallGetAttributeValue, length)
}

// TestRequestsTakeTurns: a request of a uid that has used more than another one, and that
// works already, waits.
func TestRequestsTakeTurns(t *testing.T) {
	path, server := serve(t, Config{})
	k := dial(t, path, wire.V2).initialize()
	waitsForTurns(t, server, func() { k.must(wire.CallGetInfo, nil) })
}

// TestRefusedTakeTurns: so does the reading of a long request for which there is no memory.
func TestRefusedTakeTurns(t *testing.T) {
	path, server := serveLimited(t, Config{}, 1<<20)
	k := dial(t, path, wire.V2).initialize()
	account := server.config.Engine.Account(uint32(os.Getuid()))
	all := 1<<20 - int(account.Held())
	if err := account.Take(all); err != nil {
		t.Fatal(err)
	}
	defer account.Give(all)
	waitsForTurns(t, server, func() {
		_, rv := k.call(wire.CallSeedRandom, func(w *wiretest.Writer) { w.Ulong(0); w.Array(data(make([]byte, 1<<20))) })
		if rv != p11.CKR_DEVICE_MEMORY {
			t.Errorf("where no memory is left: %v", rv)
		}
	})
}

// TestRefusedHoldNothing: who announces a request that is refused, and does not send it whole,
// holds no memory for that.
func TestRefusedHoldNothing(t *testing.T) {
	path, _ := serveLimited(t, Config{}, 1<<20)
	const clients, sent = 100, 1 << 20
	var all []net.Conn
	for range clients {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{byte(wire.V2)}); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	frame := make([]byte, sent)
	binary.BigEndian.PutUint32(frame[8:], 0x7fffffff)
	before := heap()
	for _, c := range all {
		if _, err := c.Write(frame); err != nil { // most was read when it ends
			t.Fatal(err)
		}
	}
	if grown := int64(heap()) - int64(before); grown > clients*wire.LongRead/2 {
		t.Errorf("%d clients hold %d bytes", clients, grown)
	}
	for _, c := range all {
		_ = c.Close()
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // of what pools keep
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// waitsForTurns checks that a request of this process waits for others' turns.
func waitsForTurns(t *testing.T, server *Server, request func()) {
	t.Helper()
	more, less := server.config.Engine.Account(uint32(os.Getuid())), server.config.Engine.Account(uint32(os.Getuid())+1)
	early := 0
	for range 20 {
		for range 4 {
			n := more.Turn(t.Context())
			time.Sleep(2 * time.Millisecond)
			n.End()
		}
		less.Turn(t.Context()).End()
		begun := time.Now()
		turns := []*engine.Turn{less.Turn(t.Context()), more.Turn(t.Context())} // one for each processor
		request()
		if time.Since(begun) < 8*time.Millisecond { // a turn is waited for for 10
			early++
		}
		for _, n := range turns {
			n.End()
		}
	}
	if early > 2 {
		t.Errorf("%d of 20 requests did not wait", early)
	}
}
