// Package wiretest is the client's half of the codec of the RPC socket, for
// tests: it writes what only clients write, and reads what only they read.
package wiretest

import (
	"encoding/binary"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

const null = 0xffffffff // length of a NULL byte array

// A Writer writes values of requests as a client of its protocol does.
type Writer struct {
	*wire.Writer
	protocol wire.Protocol
}

// NewWriter returns a Writer that appends to b.
func NewWriter(b []byte, p wire.Protocol) *Writer {
	return &Writer{wire.NewWriter(b, p), p}
}

func (w *Writer) u32(v uint32) { w.B = binary.BigEndian.AppendUint32(w.B, v) }

// Byte writes `y`.
func (w *Writer) Byte(v byte) { w.B = append(w.B, v) }

// Bytes writes a byte array that is not an argument; nil is NULL.
func (w *Writer) Bytes(b []byte) {
	if b == nil {
		w.u32(null)
		return
	}
	w.u32(uint32(len(b)))
	w.B = append(w.B, b...)
}

// Room writes `fy` or `fu`.
func (w *Writer) Room(n wire.Room) { w.u32(uint32(n)) }

// Wanted writes `fA`.
func (w *Writer) Wanted(list []wire.Wanted) {
	w.u32(uint32(len(list)))
	for _, a := range list {
		w.u32(uint32(a.Type))
		w.u32(a.Room)
		if a.HasNested {
			w.Wanted(a.Nested)
		}
	}
}

// Mechanism writes `M`.
func (w *Writer) Mechanism(m wire.Mechanism) {
	switch {
	case w.protocol == wire.Own:
		w.own(m)
		return
	case m.Null:
		w.u32(null)
		return
	}
	w.u32(uint32(m.Type))
	takes := w.protocol.TakesParam(m.Type)
	switch {
	case w.protocol >= wire.V2 && !takes:
		return
	case w.protocol >= wire.V2 && m.Param == nil:
		w.Byte(0)
		return
	case w.protocol >= wire.V2:
		w.Byte(1)
	case !takes:
		w.u32(null)
		return
	}
	if m.Param != nil {
		m.Param.Code(coder{w})
	}
}

func (w *Writer) own(m wire.Mechanism) {
	w.u32(uint32(m.Type))
	switch {
	case m.Null:
		w.Byte(2)
	case m.Param == nil:
		w.Byte(0)
	default:
		f, _ := p11.MechanismFacts(m.Type)
		layout := f.Param.Layout()
		switch m.Param.(type) {
		case p11.RawParam, p11.IV:
			layout = 0
		}
		w.Byte(1)
		w.Byte(layout)
		m.Param.Code(coder{w})
	}
}

// A coder writes the fields of a parameter.
type coder struct{ *Writer }

func (c coder) Ulong(v *uint64) { c.Writer.Ulong(*v) }

func (c coder) Handle(v *p11.ObjectHandle) { c.Writer.Ulong(uint64(*v)) }

func (c coder) Bool(v *bool) {
	b := byte(0)
	if *v {
		b = 1
	}
	c.Byte(b)
}

func (c coder) Bytes(v *[]byte) { c.Writer.Bytes(*v) }

func (c coder) Array(v []byte) { c.Writer.Bytes(v) }

func (c coder) Template(v *p11.Attributes) {
	var list []wire.Attribute
	for _, a := range *v {
		w, err := wire.Wire(a.Type, a.Value)
		if err != nil {
			panic(err) // a test's own mistake
		}
		list = append(list, w)
	}
	c.Attributes(list)
}

func (c coder) Refuse(err error) { panic(err) } // a test's own mistake

// Version reads `v` of a reply.
func Version(r *wire.Reader) p11.Version {
	return p11.Version{Major: r.Byte(), Minor: r.Byte()}
}

// Ulongs reads `au` of a reply: the list, or how long it is.
func Ulongs(r *wire.Reader) (list []uint64, absent bool, count uint32) {
	absent, count = r.Byte() == 0, uint32(r.Room())
	for i := uint32(0); i < count && !absent && r.Err() == nil; i++ {
		list = append(list, r.Ulong())
	}
	return list, absent, count
}
