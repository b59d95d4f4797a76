package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// A step is one request that is sent to two servers.
type step struct {
	call    wire.Call
	args    []any         // see peer.put
	raw     []byte        // the whole body, instead of call and args
	keeps   string        // names for the handles, or for the bytes, that the reply brings
	random  bool          // of byte strings in the reply, only the lengths are compared
	differs string        // the key of the difference that is to be found
	since   wire.Protocol // the first that has it
}

func do(call wire.Call, args ...any) step { return step{call: call, args: args} }

// as names what the reply brings.
func (s step) as(names string) step { s.keeps = names; return s }

// unlike says that the reply has random bytes.
func (s step) unlike() step { s.random = true; return s }

// defect says that the replies differ, and by which row of the differences.
func (s step) defect(key string) step { s.differs = key; return s }

func (s step) String() string {
	if s.raw != nil {
		return fmt.Sprintf("body %x", s.raw)
	}
	sig, _ := wire.Signatures(s.call)
	var b strings.Builder
	b.WriteString(sig.Name)
	for _, a := range s.args {
		if m, ok := a.(wire.Mechanism); ok && !m.Null {
			fmt.Fprintf(&b, " %v", m.Type)
			continue
		}
		text := fmt.Sprintf("%v", a)
		fmt.Fprintf(&b, " %.80s", text)
	}
	return b.String()
}

// The arguments that are not the same for both servers, or depend on the
// protocol.
type (
	ref  string   // a handle, by its name
	kept string   // bytes of an earlier reply, as `ay`
	room uint32   // `fy` or `fu`
	none struct{} // a NULL pointer as `ay`
	raw  []byte   // bytes as they are
)

// A peer is a connection to one of the two servers.
type peer struct {
	name     string
	protocol wire.Protocol
	r        io.Reader
	w        io.Writer
	code     uint32

	handles  map[string]uint64
	bytes    map[string][]byte
	sessions []uint64 // in the order in which they were first seen
	objects  []uint64
}

func newPeer(name string, p wire.Protocol, r io.Reader, w io.Writer) *peer {
	return &peer{name: name, protocol: p, r: r, w: w, code: 15, handles: map[string]uint64{}, bytes: map[string][]byte{}}
}

// greet exchanges the version bytes and returns the one answered.
func (p *peer) greet(t testing.TB, offer wire.Protocol) wire.Protocol {
	t.Helper()
	b := []byte{byte(offer)}
	if _, err := p.w.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.r, b); err != nil {
		t.Fatalf("%s: no version byte: %v", p.name, err)
	}
	return wire.Protocol(b[0])
}

// put writes one argument.
func (p *peer) put(t testing.TB, w *wiretest.Writer, a any) {
	t.Helper()
	switch a := a.(type) {
	case ref:
		h, ok := p.handles[string(a)]
		if !ok {
			t.Fatalf("%s: no handle was kept as %q", p.name, a)
		}
		w.Ulong(h)
	case kept:
		w.Array(data(p.bytes[string(a)]))
	case none:
		w.Array(wire.Array{Absent: p.protocol == wire.V0, Null: p.protocol != wire.V0})
	case room:
		w.Room(wire.Room(a))
	case raw:
		w.B = append(w.B, a...)
	case oaepSource:
		w.B = binary.BigEndian.AppendUint32(w.B, uint32(p11.CKM_RSA_PKCS_OAEP))
		if p.protocol >= wire.V2 {
			w.Byte(1) // there is a parameter
		}
		w.Ulong(uint64(p11.CKM_SHA_1))
		w.Ulong(uint64(p11.MGFOf(p11.CKM_SHA_1)))
		w.Ulong(uint64(a.source))
		w.B = append(w.B, a.label...)
	case byte:
		w.Byte(a)
	case int:
		w.Ulong(uint64(a))
	case uint64:
		w.Ulong(a)
	case p11.Flags:
		w.Ulong(uint64(a))
	case p11.UserType:
		w.Ulong(uint64(a))
	case p11.MechanismType:
		w.Ulong(uint64(a))
	case string: // `s` or `z`
		w.Space(a, len(a))
	case []byte:
		w.Array(data(a))
	case wire.Array:
		w.Array(a)
	case wire.Mechanism:
		w.Mechanism(a)
	case []wire.Attribute:
		w.Attributes(a)
	case []wire.Wanted:
		w.Wanted(p.nesting(a))
	default:
		t.Fatalf("an argument of type %T", a)
	}
}

// nesting gives templates the nested lists that clients of the protocol send.
func (p *peer) nesting(list []wire.Wanted) []wire.Wanted {
	out := make([]wire.Wanted, len(list))
	for i, a := range list {
		if wire.IsTemplate(a.Type) {
			a.HasNested = p.protocol == wire.V1 || (p.protocol == wire.V2 && a.Room > 0)
		}
		out[i] = a
	}
	return out
}

// A reply is what a server did with a request.
type reply struct {
	closed bool
	code   uint32
	rv     p11.RV // of an error; 0 otherwise
	body   []byte // with the handles replaced by their order
}

func (r reply) String() string {
	switch {
	case r.closed:
		return "connection closed"
	case r.rv != p11.CKR_OK:
		return r.rv.String()
	}
	return fmt.Sprintf("%x", r.body)
}

// exchange sends a request and reads its reply.
func (p *peer) exchange(t testing.TB, s step) reply {
	t.Helper()
	p.code++
	b, _ := wire.AppendFrame(nil, p.code, "client")
	w := wiretest.NewWriter(b, p.protocol)
	if s.raw != nil {
		w.B = append(w.B, s.raw...)
	} else {
		sig, _ := wire.Signatures(s.call)
		w.Header(uint32(s.call), sig.Request)
		for _, a := range s.args {
			p.put(t, w, a)
		}
	}
	if err := wire.EndFrame(w.B, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.w.Write(w.B); err != nil {
		return reply{closed: true}
	}
	var h [wire.FrameHeader]byte
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v: %v", p.name, s, err)
		}
		return reply{closed: true}
	}
	r := reply{code: binary.BigEndian.Uint32(h[:])}
	if n := binary.BigEndian.Uint32(h[4:]); n != 0 {
		t.Fatalf("%s: %v: a reply with %d bytes of options", p.name, s, n)
	}
	r.body = make([]byte, binary.BigEndian.Uint32(h[8:]))
	if _, err := io.ReadFull(p.r, r.body); err != nil {
		t.Fatalf("%s: %v: %v", p.name, s, err)
	}
	rd := wire.NewReader(r.body, p.protocol)
	if call, sig := rd.Header(); call == uint32(wire.CallError) && sig == "u" {
		r.rv = p11.RV(rd.Ulong())
	}
	if rd.Err() != nil {
		t.Fatalf("%s: %v: the reply %x is cut short", p.name, s, r.body)
	}
	return r
}

// order is the place of h in the list of those seen.
func order(list *[]uint64, h uint64) uint64 {
	for i, have := range *list {
		if have == h {
			return uint64(i)
		}
	}
	*list = append(*list, h)
	return uint64(len(*list) - 1)
}

// settle keeps what the step wants of a reply, and puts the order of handles in
// the place of the handles.
func (p *peer) settle(t testing.TB, s step, r *reply) {
	t.Helper()
	if r.closed || r.rv != p11.CKR_OK {
		return
	}
	names := strings.Fields(s.keeps)
	handle := func(at int, seen *[]uint64) {
		h := binary.BigEndian.Uint64(r.body[at:])
		if len(names) > 0 {
			p.handles[names[0]] = h
			names = names[1:]
		}
		binary.BigEndian.PutUint64(r.body[at:], order(seen, h))
	}
	rd := wire.NewReader(r.body, p.protocol)
	_, sig := rd.Header()
	first := 8 + len(sig)
	switch s.call {
	case wire.CallOpenSession:
		handle(first, &p.sessions)
	case wire.CallCreateObject, wire.CallCopyObject, wire.CallGenerateKey, wire.CallUnwrapKey, wire.CallDeriveKey:
		handle(first, &p.objects)
	case wire.CallDeriveKey2:
		handle(len(r.body)-8, &p.objects)
	case wire.CallGenerateKeyPair:
		handle(first, &p.objects)
		handle(first+8, &p.objects)
	case wire.CallFindObjects:
		for at := first + 5; at+8 <= len(r.body); at += 8 {
			handle(at, &p.objects)
		}
	case wire.CallGetTokenInfo:
		clear(r.body[len(r.body)-16:]) // the token's clock
		serial := first + 2*(4+32) + 4 + 16 + 4
		clear(r.body[serial : serial+16]) // each token has its own
	}
	if sig == "ay" {
		a := rd.Array()
		if len(names) > 0 {
			p.bytes[names[0]] = bytes.Clone(a.Data)
		}
		if s.random {
			clear(a.Data) // it lies in the body
		}
	}
	if sig == "aAu" && s.random {
		for _, a := range rd.Attributes() {
			clear(a.Value)
		}
	}
}

// same says whether two replies are the same, handles and what is random aside.
func same(a, b reply) bool {
	return a.closed == b.closed && a.code == b.code && bytes.Equal(a.body, b.body)
}

// m is a mechanism with a parameter or, where the protocol has that, without.
func m(t p11.MechanismType, param ...p11.Param) wire.Mechanism {
	out := wire.Mechanism{Mechanism: p11.Mechanism{Type: t}}
	if len(param) > 0 {
		out.Param = param[0]
	}
	return out
}

// template makes attributes of types and values in turn. A list of mechanisms
// and attributes within attributes are what they are; nil is a NULL pointer.
func template(pairs ...any) []wire.Attribute {
	list := []wire.Attribute{}
	for i := 0; i < len(pairs); i += 2 {
		t := pairs[i].(p11.AttributeType)
		a := wire.Attribute{Type: t, Valid: true}
		switch v := pairs[i+1].(type) {
		case nil:
			a.Null = true
		case bool:
			a.Value = p11.Bool(v)
		case int:
			a.Value = p11.Ulong(uint64(v))
		case p11.ObjectClass:
			a.Value = p11.Ulong(v)
		case p11.KeyType:
			a.Value = p11.Ulong(v)
		case string:
			a.Value = []byte(v)
		case []byte:
			a.Value = v
		case []p11.MechanismType:
			for _, m := range v {
				a.Value = append(a.Value, p11.Ulong(m)...)
			}
		case []wire.Attribute:
			a.Nested, a.Length = v, uint32(24*len(v))
		default:
			panic(fmt.Sprintf("a value of type %T", v))
		}
		if a.Nested == nil {
			a.Length = uint32(len(a.Value))
		}
		list = append(list, a)
	}
	return list
}

// wanted asks for attributes: types and rooms in turn.
func wanted(pairs ...any) []wire.Wanted {
	list := []wire.Wanted{}
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, wire.Wanted{Type: pairs[i].(p11.AttributeType), Room: uint32(pairs[i+1].(int))})
	}
	return list
}
