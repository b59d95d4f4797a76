package card

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
)

const (
	// MaxFrame is the length of a frame at most, in bytes.
	MaxFrame = 16 << 20
	// MaxOutput is how long an output may be.
	MaxOutput = MaxFrame - 4096

	null    = 0xffffffff // length of what is a null pointer
	magic   = "p11fscrd"
	version = 2
	// maxNumbers is how many numbers a list has at most.
	maxNumbers = 4096
)

// Presence of a mechanism's parameter, as in docs/rpc.md.
const (
	paramAbsent = iota
	paramPresent
	mechanismNull
)

// absent is the length of an attribute that there is none of, CK_UNAVAILABLE_INFORMATION.
const absent = ^uint64(0)

// errMalformed is a frame that none of ours sends: the connection ends.
var errMalformed = errors.New("malformed frame")

// readFrame reads a frame. Memory grows with what arrives, not with what its head
// announces; large, if not nil, is called before much is taken.
func readFrame(r io.Reader, large func()) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", errMalformed, n)
	}
	if n > largeFrame && large != nil {
		large()
	}
	const step = 64 << 10
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		at := len(b)
		b = secret.Grow(b, min(n-at, step))[:at+min(n-at, step)]
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			secret.Wipe(b)
			return nil, err
		}
	}
	return b, nil
}

// largeFrame is the length from which frames are large: a server takes few at once.
const largeFrame = 1 << 20

// A writer puts a frame together.
type writer struct {
	b   []byte
	err error
}

func newWriter() *writer { return &writer{b: make([]byte, 4, 512)} }

// frame is the whole frame, with its length.
func (w *writer) frame() ([]byte, error) {
	if w.err == nil && len(w.b)-4 > MaxFrame {
		w.err = p11.Errorf(p11.CKR_DATA_LEN_RANGE, "a call of %d bytes, %d at most", len(w.b)-4, MaxFrame)
	}
	binary.BigEndian.PutUint32(w.b, uint32(len(w.b)-4))
	return w.b, w.err
}

func (w *writer) u8(v byte)    { w.b = append(w.b, v) }
func (w *writer) u16(v uint16) { w.b = binary.BigEndian.AppendUint16(w.b, v) }
func (w *writer) u32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) u64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

func (w *writer) flag(v bool) {
	if v {
		w.u8(1)
		return
	}
	w.u8(0)
}

func (w *writer) bytes(b []byte) {
	switch {
	case b == nil:
		w.u32(null)
	case len(b) > MaxFrame:
		w.err = p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%d bytes, %d at most", len(b), MaxFrame)
	default:
		w.u32(uint32(len(b)))
		w.b = secret.Append(w.b, b)
	}
}

// value writes the value of an attribute.
func (w *writer) value(t p11.AttributeType, v []byte) {
	if p11.KindOf(t).IsUlong() && len(v) == 8 {
		v = slices.Clone(v)
		slices.Reverse(v)
	}
	w.bytes(append([]byte{}, v...))
}

// A reader takes a frame apart. After a failure its methods return zeros.
type reader struct {
	b     []byte
	err   error
	attrs int // that were read
}

func (r *reader) fail(format string, args ...any) {
	r.refuse(fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...)))
}

// refuse ends the reading. An error with a return value is answered with it.
func (r *reader) refuse(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)) {
		r.fail("%d bytes wanted, %d there", n, len(r.b))
	}
	if r.err != nil {
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) flag() bool {
	switch v := r.u8(); v {
	case 0, 1:
		return v == 1
	default:
		r.fail("flag %#x", v)
		return false
	}
}

// bytes returns bytes that lie in the frame, nil for a null pointer.
func (r *reader) bytes() []byte {
	n := r.u32()
	if n == null {
		return nil
	}
	return r.take(uint64(n))
}

// count reads how many things there are, of which each takes size bytes or more.
func (r *reader) count(most, size int) int {
	n := r.u32()
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.fail("%d of %d bytes, %d there", n, size, len(r.b))
		return 0
	}
	if int(n) > most {
		r.refuse(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a list of %d, %d at most", n, most))
		return 0
	}
	return int(n)
}

// attributeCount is count of the attributes of one frame.
func (r *reader) attributeCount(size int) int {
	n := r.count(p11.MaxAttributes-r.attrs, size)
	r.attrs += n
	return n
}

// value reads the value of an attribute, which does not lie in the frame.
func (r *reader) value(t p11.AttributeType) []byte {
	v := append([]byte{}, r.bytes()...)
	if p11.KindOf(t).IsUlong() && len(v) == 8 {
		slices.Reverse(v)
	}
	return v
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	return r.err
}

// request writes the request of a call.
func (c *Call) request(w *writer) {
	w.u32(c.Function.Number)
	if len(c.Target) > MaxTarget {
		w.err = p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a target of %d domains, %d at most", len(c.Target), MaxTarget)
		return
	}
	w.u32(uint32(len(c.Target)))
	for _, a := range c.Target {
		w.u16(a.Adapter)
		w.u16(a.Domain)
	}
	for i, k := range c.Function.Args {
		c.Args[i].request(w, k)
	}
}

func (a *Arg) request(w *writer, k Kind) {
	switch k {
	case Number, Counter:
		w.u64(a.Number)
	case Bytes:
		w.bytes(a.Bytes)
	case InOut:
		w.bytes(a.Bytes)
		w.u64(a.Room)
	case Output, Numbers:
		w.u64(a.Room)
		w.flag(!a.Query)
	case Mechanism:
		w.mechanism(a.Mechanism)
	case Attributes:
		w.u32(uint32(len(a.Attributes)))
		for _, x := range a.Attributes {
			w.u64(uint64(x.Type))
			w.value(x.Type, x.Value)
		}
	case Wanted:
		w.u32(uint32(len(a.Want)))
		for _, x := range a.Want {
			w.u64(uint64(x.Type))
			w.u64(x.Room)
			w.flag(!x.Query)
		}
	}
}

// readRequest reads what request wrote. What it returns lies in the frame, in part. An
// error with a return value is one that c.Return can have: the frame is good.
func readRequest(abi ABI, frame []byte) (*Call, error) {
	r := &reader{b: frame}
	number := r.u32()
	c := &Call{Function: FunctionOf(abi, number)}
	if c.Function == nil {
		return nil, fmt.Errorf("%w: function %d", errMalformed, number)
	}
	for range r.count(MaxTarget, 4) {
		c.Target = append(c.Target, APQN{r.u16(), r.u16()})
	}
	c.Args = make([]Arg, len(c.Function.Args))
	for i, k := range c.Function.Args {
		c.Args[i].readRequest(r, k)
	}
	return c, r.end()
}

func (a *Arg) readRequest(r *reader, k Kind) {
	switch k {
	case Number, Counter:
		a.Number = r.u64()
	case Bytes:
		a.Bytes = r.bytes()
	case InOut:
		a.Bytes = r.bytes()
		a.Room = min(r.u64(), MaxOutput)
	case Output, Numbers:
		a.Room = min(r.u64(), MaxOutput)
		a.Query = !r.flag()
	case Mechanism:
		a.Mechanism = r.mechanism()
	case Attributes:
		for range r.attributeCount(12) {
			t := p11.AttributeType(r.u64())
			v := r.value(t)
			if a.Attributes.Has(t) {
				r.refuse(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%v is given twice", t))
			}
			a.Attributes = append(a.Attributes, p11.Attribute{Type: t, Value: v})
		}
	case Wanted:
		for range r.attributeCount(17) {
			a.Want = append(a.Want, WantedValue{Type: p11.AttributeType(r.u64()), Room: min(r.u64(), MaxOutput), Query: !r.flag()})
		}
	}
}

// answer writes the answer to a call.
func (c *Call) answer(w *writer) {
	w.u64(c.Return)
	for i, k := range c.Function.Args {
		a := &c.Args[i]
		switch k {
		case Counter:
			w.u64(a.Number)
		case Output, InOut:
			w.u64(a.Length)
			w.bytes(a.Out)
		case Numbers:
			w.u64(a.Length)
			w.u32(uint32(len(a.Numbers)))
			for _, n := range a.Numbers {
				w.u64(n)
			}
		case Wanted:
			for _, x := range a.Want {
				v, ok := a.Attributes.Get(x.Type)
				switch {
				case !ok:
					w.u64(absent)
					w.bytes(nil)
				case x.Query:
					w.u64(uint64(len(v)))
					w.bytes(nil)
				default:
					w.u64(uint64(len(v)))
					w.value(x.Type, v)
				}
			}
		}
	}
}

// readAnswer reads what answer wrote into the call that it answers. What it sets does not
// lie in the frame.
func (c *Call) readAnswer(frame []byte) error {
	r := &reader{b: frame}
	c.Return = r.u64()
	if c.Return != 0 && len(r.b) == 0 {
		return r.err // what was wrong with the call was seen before the card
	}
	for i, k := range c.Function.Args {
		a := &c.Args[i]
		switch k {
		case Counter:
			a.Number = r.u64()
		case Output, InOut:
			a.Length = r.u64()
			a.Out = slices.Clone(r.bytes())
			if uint64(len(a.Out)) > a.Room || a.Out != nil && (a.Query || uint64(len(a.Out)) != a.Length) {
				r.fail("%d bytes where %d fit", len(a.Out), a.Room)
			}
		case Numbers:
			a.Length = r.u64()
			a.Numbers = nil
			for range r.count(maxNumbers, 8) {
				a.Numbers = append(a.Numbers, r.u64())
			}
			if uint64(len(a.Numbers)) > a.Room {
				r.fail("%d numbers where %d fit", len(a.Numbers), a.Room)
			}
		case Wanted:
			a.Attributes = nil
			for _, x := range a.Want {
				n, v := r.u64(), r.value(x.Type)
				if n != absent && !x.Query && n == uint64(len(v)) && n <= x.Room {
					a.Attributes = append(a.Attributes, p11.Attribute{Type: x.Type, Value: v})
				}
			}
		}
	}
	return r.end()
}
