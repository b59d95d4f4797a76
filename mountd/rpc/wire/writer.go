package wire

import (
	"encoding/binary"

	"p11fs/p11"
	"p11fs/secret"
)

// A Writer puts a body together at the end of B.
type Writer struct {
	B        []byte
	protocol Protocol
}

// NewWriter returns a Writer that appends to b.
func NewWriter(b []byte, p Protocol) *Writer { return &Writer{B: b, protocol: p} }

// Header writes a call number and a signature.
func (w *Writer) Header(call uint32, signature string) {
	w.u32(call)
	w.u32(uint32(len(signature)))
	w.B = append(w.B, signature...)
}

func (w *Writer) u32(v uint32) { w.B = binary.BigEndian.AppendUint32(w.B, v) }

func (w *Writer) byte(v byte) { w.B = append(w.B, v) }

// Ulong writes `u`.
func (w *Writer) Ulong(v uint64) { w.B = binary.BigEndian.AppendUint64(w.B, v) }

// Version writes `v`.
func (w *Writer) Version(v p11.Version) { w.B = append(w.B, v.Major, v.Minor) }

// Space writes `s`: text cut or padded with blanks to size bytes.
func (w *Writer) Space(text string, size int) {
	w.u32(uint32(size))
	at := len(w.B)
	w.B = append(w.B, text[:min(len(text), size)]...)
	for len(w.B) < at+size {
		w.B = append(w.B, ' ')
	}
}

// Array writes `ay`.
func (w *Writer) Array(a Array) {
	switch {
	case a.Absent:
		w.byte(0)
		w.u32(a.Length)
	case a.Null:
		w.byte(1)
		w.u32(null)
	default:
		w.byte(1)
		w.bytes(a.Data)
	}
}

// Result writes `ay` of a result that fits.
func (w *Writer) Result(b []byte) {
	w.byte(1)
	w.bytes(b)
}

// Room is memory for a result of a few bytes more than n, where Result need not copy it.
// What is written there is lost with the next write.
func (w *Writer) Room(n int) []byte {
	const head, more = 5, 64 // more is what ciphers add or hold back
	w.B = secret.Grow(w.B, head+n+more)
	return w.B[len(w.B)+head : len(w.B)+head : len(w.B)+head+n+more]
}

// Need writes `ay` of a result that was only asked for its length, or has not
// enough room: n is the length in bytes.
func (w *Writer) Need(n int) {
	w.byte(0)
	w.u32(uint32(n))
}

// bytes writes a byte array; nil is NULL.
func (w *Writer) bytes(b []byte) {
	w.u32(uint32(len(b)))
	w.B = secret.Append(w.B, b)
}

// Ulongs writes `au`.
func Ulongs[T ~uint64](w *Writer, list []T) {
	w.byte(1)
	w.u32(uint32(len(list)))
	for _, v := range list {
		w.Ulong(uint64(v))
	}
}

// Count writes `au` of a list that does not fit the client's room.
func (w *Writer) Count(n int) {
	w.byte(0)
	w.u32(uint32(n))
}
