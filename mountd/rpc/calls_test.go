package rpc

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

var protocols = []wire.Protocol{wire.V0, wire.V1, wire.V2, wire.Own, 3, 255}

func TestSignature(t *testing.T) {
	path, _ := serve(t, Config{})
	for _, p := range protocols {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			k := dial(t, path, p).initialize()
			s := k.session()
			k.login(s)
			public, private := k.ecKey(s)
			hash := sha256.Sum256([]byte("message"))
			ecdsa := wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_ECDSA}}
			init := func(call wire.Call, key uint64) {
				k.must(call, func(w *wiretest.Writer) { w.Ulong(s); w.Mechanism(ecdsa); w.Ulong(key) })
			}
			init(wire.CallSignInit, private)
			sign := func(room wire.Room) wire.Array {
				r := k.must(wire.CallSign, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(hash[:])); w.Room(room) })
				return r.Array()
			}
			for _, room := range []wire.Room{0, 10, 0xffffffff} {
				if a := sign(room); !a.Absent || a.Length != 64 {
					t.Fatalf("room %d: %+v, want a length of 64", room, a)
				}
			}
			sig := sign(64)
			if len(sig.Data) != 64 {
				t.Fatalf("signature of %d bytes", len(sig.Data))
			}
			init(wire.CallVerifyInit, public)
			k.must(wire.CallVerify, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(hash[:])); w.Array(sig) })
			init(wire.CallVerifyInit, public)
			_, rv := k.call(wire.CallVerify, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data([]byte("x"))); w.Array(sig) })
			if rv != p11.CKR_SIGNATURE_INVALID {
				t.Errorf("wrong data: %v", rv)
			}
			_, rv = k.call(wire.CallSign, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(hash[:])); w.Room(64) })
			if rv != p11.CKR_OPERATION_NOT_INITIALIZED {
				t.Errorf("sign without init: %v", rv)
			}
		})
	}
}

func TestCombinedCalls(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.Own).initialize()
	s := k.session()
	k.login(s)
	public, private := k.ecKey(s)
	hash := sha256.Sum256([]byte("message"))
	m := wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_ECDSA}}
	sign := func(key uint64, room wire.Room) (*wire.Reader, p11.RV) {
		return k.call(wire.CallSignOnce, func(w *wiretest.Writer) {
			w.Ulong(s)
			w.Mechanism(m)
			w.Ulong(key)
			w.Array(data(hash[:]))
			w.Room(room)
		})
	}
	if _, rv := sign(99, 64); rv != p11.CKR_KEY_HANDLE_INVALID {
		t.Errorf("unknown key: %v", rv)
	}
	r, rv := sign(private, 3)
	if a := r.Array(); rv != p11.CKR_OK || a.Length != 64 {
		t.Errorf("too little room: %v, %+v", rv, a)
	}
	// The operation stands; the plain call ends it.
	sig := k.must(wire.CallSign, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(hash[:])); w.Room(64) }).Array()
	k.must(wire.CallVerifyOnce, func(w *wiretest.Writer) {
		w.Ulong(s)
		w.Mechanism(m)
		w.Ulong(public)
		w.Array(data(hash[:]))
		w.Array(sig)
	})
	r = k.must(wire.CallDigestOnce, func(w *wiretest.Writer) {
		w.Ulong(s)
		w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_SHA256}})
		w.Array(data([]byte("message")))
		w.Room(32)
	})
	if got := r.Array().Data; !bytes.Equal(got, hash[:]) {
		t.Errorf("digest %x, want %x", got, hash)
	}
	k2 := dial(t, path, wire.V2).initialize()
	w := k2.begin(wire.CallDigestOnce)
	k2.send(w)
	if _, _, rv := k2.receive(); rv != p11.CKR_FUNCTION_NOT_SUPPORTED {
		t.Errorf("a combined call of protocol 2: %v", rv)
	}
}

func TestAttributes(t *testing.T) {
	path, _ := serve(t, Config{})
	for _, p := range []wire.Protocol{wire.V0, wire.V1, wire.V2, wire.Own} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			k := dial(t, path, p).initialize()
			s := k.session()
			k.login(s)
			_, private := k.ecKey(s)
			get := func(list []wire.Wanted) ([]wire.Attribute, p11.RV) {
				r, rv := k.call(wire.CallGetAttributeValue, func(w *wiretest.Writer) { w.Ulong(s); w.Ulong(private); w.Wanted(list) })
				if rv != p11.CKR_OK {
					return nil, rv
				}
				as := r.Attributes()
				rv = p11.RV(r.Ulong())
				if err := r.End(); err != nil {
					t.Fatal(err)
				}
				return as, rv
			}
			as, rv := get([]wire.Wanted{{Type: p11.CKA_CLASS, Room: 8}, {Type: p11.CKA_EC_PARAMS, Room: 0}, {Type: p11.CKA_SIGN, Room: 1}})
			if rv != p11.CKR_OK || len(as) != 3 || !bytes.Equal(as[0].Value, p11.Ulong(p11.CKO_PRIVATE_KEY)) || as[1].Length != 10 || !as[1].Null || as[2].Value[0] != 1 {
				t.Errorf("%v %+v", rv, as)
			}
			as, rv = get([]wire.Wanted{{Type: p11.CKA_VALUE, Room: 100}, {Type: p11.CKA_CLASS, Room: 8}})
			if rv != p11.CKR_ATTRIBUTE_SENSITIVE || as[0].Valid || !as[1].Valid {
				t.Errorf("sensitive: %v %+v", rv, as)
			}
			as, rv = get([]wire.Wanted{{Type: p11.CKA_CLASS, Room: 8}, {Type: p11.CKA_EC_PARAMS, Room: 3}})
			if rv != p11.CKR_BUFFER_TOO_SMALL || !as[0].Valid || as[1].Valid {
				t.Errorf("too small: %v %+v", rv, as)
			}
			as, rv = get([]wire.Wanted{{Type: p11.CKA_MODULUS, Room: 8}})
			if rv != p11.CKR_ATTRIBUTE_TYPE_INVALID || as[0].Valid {
				t.Errorf("absent: %v %+v", rv, as)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.V2)
	raw := func(body []byte) p11.RV {
		t.Helper()
		b, _ := wire.AppendFrame(nil, 77, "")
		b = append(b, body...)
		if err := wire.EndFrame(b, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := k.c.Write(b); err != nil {
			t.Fatal(err)
		}
		code, _, rv := k.receive()
		if code != 77 {
			t.Fatalf("code %d", code)
		}
		return rv
	}
	if _, rv := k.call(wire.CallGetInfo, nil); rv != p11.CKR_CRYPTOKI_NOT_INITIALIZED {
		t.Errorf("before C_Initialize: %v", rv)
	}
	_, rv := k.call(wire.CallInitialize, func(w *wiretest.Writer) { w.Array(data([]byte("hello"))); w.Byte(0); w.Array(data(nil)) })
	if rv != p11.CKR_GENERAL_ERROR {
		t.Errorf("unknown handshake: %v", rv)
	}
	k.initialize()
	tests := []struct {
		name string
		body []byte
		rv   p11.RV
	}{
		{"nothing", nil, p11.CKR_DEVICE_ERROR},
		{"unknown call", []byte{0, 0, 9, 9, 0, 0, 0, 0}, p11.CKR_FUNCTION_NOT_SUPPORTED},
		{"call 0", []byte{0, 0, 0, 0, 0, 0, 0, 1, 'u'}, p11.CKR_FUNCTION_NOT_SUPPORTED},
		{"long signature", []byte{0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff}, p11.CKR_DEVICE_ERROR},
		{"wrong signature", []byte{0, 0, 0, 3, 0, 0, 0, 1, 'u'}, p11.CKR_DEVICE_ERROR},
		{"too much", []byte{0, 0, 0, 3, 0, 0, 0, 0, 1}, p11.CKR_DEVICE_ERROR},
		{"too little", []byte{0, 0, 0, 11, 0, 0, 0, 1, 'u', 0, 0}, p11.CKR_DEVICE_ERROR},
		{"many attributes", append([]byte{0, 0, 0, 26, 0, 0, 0, 3, 'u', 'a', 'A'}, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), p11.CKR_SESSION_HANDLE_INVALID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if rv := raw(tt.body); rv != tt.rv {
				t.Errorf("%v, want %v", rv, tt.rv)
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		b, _ := wire.AppendFrame(nil, 78, "")
		b = append(b, make([]byte, wire.MaxBody+1)...)
		if err := wire.EndFrame(b, 0); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = k.c.Write(b) }()
		if code, _, rv := k.receive(); code != 78 || rv != p11.CKR_DATA_LEN_RANGE {
			t.Errorf("%d, %v", code, rv)
		}
		k.must(wire.CallGetInfo, nil)
	})
}

// TestMemoryOfOneUID: what one uid's requests may hold together is bounded.
func TestMemoryOfOneUID(t *testing.T) {
	path, _ := serveLimited(t, Config{}, 1<<20, newToken(t, slog.New(slog.DiscardHandler), "swtok"))
	k := dial(t, path, wire.V2).initialize()
	s := k.session()
	seed := func(n int) p11.RV {
		_, rv := k.call(wire.CallSeedRandom, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(make([]byte, n))) })
		return rv
	}
	if rv := seed(2 << 20); rv != p11.CKR_DEVICE_MEMORY {
		t.Errorf("%v, want CKR_DEVICE_MEMORY", rv)
	}
	for range 3 {
		if rv := seed(700 << 10); rv == p11.CKR_DEVICE_MEMORY {
			t.Error("memory is not given back")
		}
	}
}

// TestOutOfOrder: a call that waits holds up no other of its connection.
func TestOutOfOrder(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.V2).initialize()
	w := k.begin(wire.CallWaitForSlotEvent)
	w.Ulong(0)
	k.send(w)
	waiting := k.code
	for range 3 {
		k.must(wire.CallGetInfo, nil)
	}
	k.send(k.begin(wire.CallFinalize))
	got := map[uint32]p11.RV{}
	for range 2 {
		code, _, rv := k.receive()
		got[code] = rv
	}
	if rv, ok := got[waiting]; !ok || rv != p11.CKR_CRYPTOKI_NOT_INITIALIZED {
		t.Errorf("the waiting call: %v, %v", rv, ok)
	}
}

// Calls that are not supported say first whether there is a session.
func TestUnsupportedCalls(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.V2).initialize()
	s := k.session()
	for _, call := range []wire.Call{wire.CallMessageEncryptInit, wire.CallMessageDecryptFinal} {
		for session, want := range map[uint64]p11.RV{s: p11.CKR_FUNCTION_NOT_SUPPORTED, s + 1: p11.CKR_SESSION_HANDLE_INVALID} {
			if _, rv := k.call(call, func(w *wiretest.Writer) { w.Ulong(session) }); rv != want {
				t.Errorf("call %d of session %d: %v, want %v", call, session, rv, want)
			}
		}
	}
}

func TestFramesCutAtEveryByte(t *testing.T) {
	path, server := serve(t, Config{})
	k := dial(t, path, wire.V2)
	w := k.begin(wire.CallInitialize)
	w.Array(data([]byte(wire.Handshake)))
	w.Byte(0)
	w.Array(data([]byte{0}))
	if err := wire.EndFrame(w.B, 0); err != nil {
		t.Fatal(err)
	}
	for n := range len(w.B) {
		c := dial(t, path, wire.V2)
		if _, err := c.c.Write(w.B[:n]); err != nil {
			t.Fatal(err)
		}
		if err := c.c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	k.initialize()
	wait(t, "the cut connections to end", func() bool { return server.Stats().Connections == 1 })
	if p := server.Stats().Panics; p != 0 {
		t.Errorf("%d panics", p)
	}
}

func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestManyConnections(t *testing.T) {
	path, server := serve(t, Config{})
	for range 100 { // those that say one byte and stop
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte{2}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		clients := make([]*client, 100)
		for i := range clients {
			clients[i] = dial(t, path, wire.V2)
		}
		go func() {
			defer wg.Done()
			for _, k := range clients {
				k.initialize()
				k.session()
			}
		}()
	}
	wg.Wait()
	if n := server.Stats().Connections; n != 1100 {
		t.Errorf("%d connections, want 1100", n)
	}
}

func TestRefusedPeer(t *testing.T) {
	path, _ := serve(t, Config{Allow: func(p Peer) error { return p11.Errorf(p11.CKR_USER_TYPE_INVALID, "uid %d", p.UID) }})
	k := dial(t, path, wire.V2)
	for range 2 {
		if _, rv := k.call(wire.CallGetInfo, nil); rv != p11.CKR_USER_TYPE_INVALID {
			t.Errorf("%v", rv)
		}
	}
}

// TestStockClient runs a real program through p11-kit's own client module.
func TestStockClient(t *testing.T) {
	const module = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
	if _, err := exec.LookPath("pkcs11-tool"); err != nil {
		t.Skip("pkcs11-tool is not installed")
	}
	path, _ := serve(t, Config{})
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command("pkcs11-tool", append([]string{"--module", module}, args...)...)
		c.Env = append(c.Environ(), "P11_KIT_SERVER_ADDRESS=unix:path="+path)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("pkcs11-tool %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("-L")
	run("-M")
	run("--login", "--pin", userPIN, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "01")
	if out := run("--login", "--pin", userPIN, "-O"); !bytes.Contains([]byte(out), []byte("Private Key Object")) {
		t.Errorf("no private key in\n%s", out)
	}
}

// TestSlotEvents: C_WaitForSlotEvent tells of a slot that comes and goes. Many that wait take
// no turns from other calls of their uid: each would wait a second.
func TestSlotEvents(t *testing.T) {
	path, server := serve(t, Config{})
	e := server.config.Engine
	k := dial(t, path, wire.V2).initialize()
	wait := func(flags p11.Flags) func(*wiretest.Writer) {
		return func(w *wiretest.Writer) { w.Ulong(uint64(flags)) }
	}
	if _, rv := k.call(wire.CallWaitForSlotEvent, wait(p11.CKF_DONT_BLOCK)); rv != p11.CKR_NO_EVENT {
		t.Errorf("before any: %v", rv)
	}
	waiting := map[uint32]bool{}
	for range 32 { // many times the processors
		w := k.begin(wire.CallWaitForSlotEvent)
		wait(0)(w)
		k.send(w)
		waiting[k.code] = true
	}
	other := dial(t, path, wire.V2).initialize()
	began := time.Now()
	for range 60 {
		other.must(wire.CallGetInfo, nil)
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("60 calls beside those that wait took %v", took)
	}
	slot, err := e.AddSlot(engine.SlotConfig{ID: 9, Token: newToken(t, slog.New(slog.DiscardHandler), "another")})
	if err != nil {
		t.Fatal(err)
	}
	code, r, rv := k.receive()
	if id := r.Ulong(); rv != p11.CKR_OK || id != 9 || !waiting[code] {
		t.Errorf("one that waits: %v, slot %d", rv, id)
	}
	if r, rv := other.call(wire.CallWaitForSlotEvent, wait(p11.CKF_DONT_BLOCK)); rv != p11.CKR_OK || r.Ulong() != 9 {
		t.Errorf("another application: %v", rv)
	}
	if err := e.RemoveSlot(t.Context(), slot, engine.Owner{}, true); err != nil {
		t.Fatal(err)
	}
	if _, r, rv = k.receive(); rv != p11.CKR_OK || r.Ulong() != 9 {
		t.Errorf("the next one that waits: %v", rv)
	}
	if _, rv := other.call(wire.CallGetSlotInfo, func(w *wiretest.Writer) { w.Ulong(9) }); rv != p11.CKR_SLOT_ID_INVALID {
		t.Errorf("a slot that went: %v", rv)
	}
}
