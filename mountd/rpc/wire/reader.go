package wire

import "encoding/binary"

// A Reader takes a body apart. After a failure every method returns zero values
// and Err the failure, so that callers check once.
type Reader struct {
	b        []byte
	protocol Protocol
	err      error
	// How much of what a message's templates may have was read: attributes, and
	// bytes of their values, which each template around a value copies once more.
	attributesRead, valuesRead int
}

// NewReader returns a Reader over body, which it neither changes nor copies:
// what its methods return lies in body.
func NewReader(body []byte, p Protocol) *Reader { return &Reader{b: body, protocol: p} }

// Err returns the first failure.
func (r *Reader) Err() error { return r.err }

// End returns the first failure, or one if anything is left.
func (r *Reader) End() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

func (r *Reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformed(format, args...)
	}
	r.b = nil
}

func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.fail("%d bytes wanted, %d there", n, len(r.b))
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// Header reads the call number and the signature.
func (r *Reader) Header() (call uint32, signature string) {
	call = r.u32()
	n := r.u32()
	if n > 64 {
		r.fail("signature of %d bytes", n)
	}
	return call, string(r.take(int(n)))
}

func (r *Reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *Reader) peek32() (uint32, bool) {
	if r.err != nil || len(r.b) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(r.b), true
}

// Byte reads `y`.
func (r *Reader) Byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// Ulong reads `u`.
func (r *Reader) Ulong() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Text reads `s` or `z`: u32 length and that many bytes.
func (r *Reader) Text() string { return string(r.take(int(r.u32()))) }

// An Array is `ay`: a byte array, in one of the forms that clients send.
type Array struct {
	Absent bool   // presence byte 0: a NULL pointer, or, in a reply, a length only
	Null   bool   // presence byte 1 with the length of NULL
	Length uint32 // when Absent
	Data   []byte
}

// IsNull says that the application passed a NULL pointer.
func (a Array) IsNull() bool { return a.Absent || a.Null }

// Array reads `ay`.
func (r *Reader) Array() (a Array) {
	switch p := r.Byte(); p {
	case 0:
		a.Absent, a.Length = true, r.u32()
	case 1:
		a.Data, a.Null = r.bytes()
	default:
		r.fail("presence byte %#x", p)
	}
	return a
}

// bytes reads u32 length and data, where 0xffffffff means NULL.
func (r *Reader) bytes() (b []byte, isNull bool) {
	n := r.u32()
	if n == null {
		return nil, true
	}
	if n > uint32(len(r.b)) {
		r.fail("byte array of %d bytes, %d there", n, len(r.b))
		return nil, false
	}
	return r.take(int(n)), false
}

// A Room is `fy`: how much the application has for a result.
type Room uint32

// Query says that the application passed no buffer. Up to protocol 0 a buffer
// of length 0 looks the same.
func (room Room) Query() bool { return room == 0 }

// Bytes is the room in bytes.
func (room Room) Bytes() int {
	if room == null {
		return 0
	}
	return int(room)
}

// Room reads `fy`, or the count of `fu`.
func (r *Reader) Room() Room { return Room(r.u32()) }
