package rpc

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

func TestDrainRule(t *testing.T) {
	path, _ := serve(t, Config{})
	k := dial(t, path, wire.V0).initialize()
	s := k.session()
	k.login(s)
	key := k.must(wire.CallGenerateKey, func(w *wiretest.Writer) {
		w.Ulong(s)
		w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}})
		w.Attributes([]wire.Attribute{attribute(p11.CKA_VALUE_LEN, p11.Ulong(uint64(16))), attribute(p11.CKA_ENCRYPT, p11.Bool(true))})
	}).Ulong()
	init := func() p11.RV {
		_, rv := k.call(wire.CallEncryptInit, func(w *wiretest.Writer) {
			w.Ulong(s)
			w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_AES_ECB}})
			w.Ulong(key)
		})
		return rv
	}
	final := func() (wire.Array, p11.RV) {
		r, rv := k.call(wire.CallEncryptFinal, func(w *wiretest.Writer) { w.Ulong(s); w.Room(0) })
		return r.Array(), rv
	}
	if rv := init(); rv != p11.CKR_OK {
		t.Fatal(rv)
	}
	if a, rv := final(); rv != p11.CKR_OK || a.Absent || len(a.Data) != 0 {
		t.Fatalf("first: %+v, %v", a, rv)
	}
	if _, rv := final(); rv != p11.CKR_OK {
		t.Fatalf("second: %v", rv)
	}
	if _, rv := final(); rv != p11.CKR_OPERATION_NOT_INITIALIZED {
		t.Fatalf("third: %v", rv)
	}
	_ = init()
	_, _ = final()
	if rv := init(); rv != p11.CKR_OK {
		t.Errorf("an Init after a drained operation: %v", rv)
	}
}

// A client of protocol 0 that asks how long what it decrypts is, and hears that it
// is empty, still gets it.
func TestEmptyPlaintextAfterQuery(t *testing.T) {
	path, _ := serve(t, Config{})
	keys := readKeys(t)
	for _, p := range []wire.Protocol{wire.V0, wire.V1, wire.V2, wire.Own} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			k := dial(t, path, p).initialize()
			s := k.session()
			k.login(s)
			make := func(list []wire.Attribute) uint64 {
				return k.must(wire.CallCreateObject, func(w *wiretest.Writer) { w.Ulong(s); w.Attributes(list) }).Ulong()
			}
			private, public := make(keys.rsaPrivate), make(keys.rsaPublic)
			init := func(call wire.Call, key uint64) {
				k.must(call, func(w *wiretest.Writer) { w.Ulong(s); w.Mechanism(m(p11.CKM_RSA_PKCS)); w.Ulong(key) })
			}
			once := func(call wire.Call, in []byte, room wire.Room) (wire.Array, p11.RV) {
				r, rv := k.call(call, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(in)); w.Room(room) })
				return r.Array(), rv
			}
			init(wire.CallEncryptInit, public)
			secret, rv := once(wire.CallEncrypt, nil, 256)
			if rv != p11.CKR_OK || len(secret.Data) != 256 {
				t.Fatalf("%v, %d bytes", rv, len(secret.Data))
			}
			init(wire.CallDecryptInit, private)
			for _, room := range []wire.Room{0, 100} {
				if a, rv := once(wire.CallDecrypt, secret.Data, room); rv != p11.CKR_OK || a.Absent || len(a.Data) != 0 {
					t.Errorf("room %d: %+v, %v", room, a, rv)
				}
			}
			if _, rv := once(wire.CallDecrypt, secret.Data, 100); rv != p11.CKR_OPERATION_NOT_INITIALIZED {
				t.Errorf("once more: %v", rv)
			}
		})
	}
}

// What is kept of a session's operations goes with it.
func TestDrainedSessionsAreForgotten(t *testing.T) {
	path, server := serve(t, Config{})
	k := dial(t, path, wire.V0).initialize()
	s := k.session()
	k.login(s)
	key := k.must(wire.CallCreateObject, func(w *wiretest.Writer) { w.Ulong(s); w.Attributes(aes(16)) }).Ulong()
	drained := func() int {
		server.mu.Lock()
		defer server.mu.Unlock()
		for c := range server.conns {
			c.state.mu.Lock()
			defer c.state.mu.Unlock()
			return len(c.state.drained)
		}
		return -1
	}
	ask := func(s uint64) {
		k.must(wire.CallEncryptInit, func(w *wiretest.Writer) { w.Ulong(s); w.Mechanism(m(p11.CKM_AES_ECB)); w.Ulong(key) })
		k.must(wire.CallEncryptFinal, func(w *wiretest.Writer) { w.Ulong(s); w.Room(0) })
	}
	other := k.session()
	ask(s)
	ask(other)
	if n := drained(); n != 2 {
		t.Fatalf("%d marks, want 2", n)
	}
	k.must(wire.CallCloseSession, func(w *wiretest.Writer) { w.Ulong(other) })
	if n := drained(); n != 1 {
		t.Errorf("%d marks after C_CloseSession, want 1", n)
	}
	k.must(wire.CallCloseAllSessions, func(w *wiretest.Writer) { w.Ulong(3) })
	if n := drained(); n != 0 {
		t.Errorf("%d marks after C_CloseAllSessions", n)
	}
}

// An empty result that is asked for without a buffer is there, and is what
// p11-kit's server says in each protocol.
func TestEmptyResults(t *testing.T) {
	for p, want := range map[wire.Protocol]wire.Array{
		wire.V0: {Data: []byte{}}, wire.V1: {Null: true}, wire.V2: {Null: true}, wire.Own: {Data: []byte{}},
	} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			path, _ := serve(t, Config{})
			k := dial(t, path, p).initialize()
			s := k.session()
			k.login(s)
			key := k.must(wire.CallCreateObject, func(w *wiretest.Writer) { w.Ulong(s); w.Attributes(aes(16)) }).Ulong()
			k.must(wire.CallEncryptInit, func(w *wiretest.Writer) { w.Ulong(s); w.Mechanism(m(p11.CKM_AES_ECB)); w.Ulong(key) })
			if got := k.must(wire.CallEncryptFinal, func(w *wiretest.Writer) { w.Ulong(s); w.Room(0) }).Array(); !cmp.Equal(got, want) {
				t.Errorf("C_EncryptFinal: %+v, want %+v", got, want)
			}
			if got := k.must(wire.CallGenerateRandom, func(w *wiretest.Writer) { w.Ulong(s); w.Room(0) }).Array(); !cmp.Equal(got, want) {
				t.Errorf("C_GenerateRandom: %+v, want %+v", got, want)
			}
		})
	}
}

// A question for the length changes nothing, also where the result is empty:
// whichever protocol asks, what comes out is the encryption of what went in.
func TestQueriesBeforeEachPart(t *testing.T) {
	for _, version := range []wire.Protocol{wire.V0, wire.V1, wire.V2, wire.Own} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			path, _ := serve(t, Config{})
			k := dial(t, path, version).initialize()
			s := k.session()
			k.login(s)
			key := k.must(wire.CallGenerateKey, func(w *wiretest.Writer) {
				w.Ulong(s)
				w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}})
				w.Attributes([]wire.Attribute{attribute(p11.CKA_VALUE_LEN, p11.Ulong(uint64(16))),
					attribute(p11.CKA_ENCRYPT, p11.Bool(true))})
			}).Ulong()
			init := func() {
				k.must(wire.CallEncryptInit, func(w *wiretest.Writer) {
					w.Ulong(s)
					w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_AES_ECB}})
					w.Ulong(key)
				})
			}
			plain := []byte("thirty-two bytes in three parts!")
			init()
			want := k.must(wire.CallEncrypt, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(plain)); w.Room(32) }).Array().Data
			init()
			var got []byte
			for _, part := range [][]byte{plain[:5], plain[5:20], plain[20:]} {
				update := func(room wire.Room) wire.Array {
					return k.must(wire.CallEncryptUpdate, func(w *wiretest.Writer) { w.Ulong(s); w.Array(data(part)); w.Room(room) }).Array()
				}
				q := update(0)
				// The length told is what the caller then has room for.
				room := wire.Room(q.Length)
				if room == 0 && version != wire.V0 {
					room = 0xffffffff
				}
				got = append(got, update(room).Data...)
			}
			final := func(room wire.Room) wire.Array {
				return k.must(wire.CallEncryptFinal, func(w *wiretest.Writer) { w.Ulong(s); w.Room(room) }).Array()
			}
			final(0)
			got = append(got, final(16).Data...)
			if !bytes.Equal(got, want) {
				t.Errorf("in parts %x, at once %x", got, want)
			}
		})
	}
}
