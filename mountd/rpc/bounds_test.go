package rpc

import (
	"encoding/binary"
	"runtime"
	"testing"

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
			// The frame at both ends, with room for buffers that grow.
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
