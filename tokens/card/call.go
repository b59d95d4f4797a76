package card

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"p11fs/p11"
	"p11fs/secret"
)

// A Transport carries one call to a card and brings its answer.
type Transport interface {
	// Call fills the outputs of c, and c.Return. An error means that no card answered:
	// CKR_DEVICE_REMOVED, or that of a context that was done. It may be called by several
	// goroutines at once, each with a Call of its own.
	Call(ctx context.Context, c *Call) error
	// Close gives up what the transport holds; calls that go on fail.
	Close() error
}

// firstAnswer is how long a card may take to say what it is.
const firstAnswer = 10 * time.Second

// Ask has f ask a card what it is, which a card says at once: nobody waits longer than ten
// seconds for one that does not answer, such as a daemon for which it is one of many. It is
// CKR_DEVICE_REMOVED then.
func Ask(ctx context.Context, f func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	err := f(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the card has not said in %v what it is", firstAnswer)
	}
	return err
}

// An APQN is a domain of a card, the least that has a master key of its own.
type APQN struct{ Adapter, Domain uint16 }

// String is the name that Linux has for it: "0a.002b".
func (a APQN) String() string { return fmt.Sprintf("%02x.%04x", a.Adapter, a.Domain) }

// A Target is the domains of which one answers; none is any.
type Target []APQN

// MaxTarget is how many domains a target has at most, as many as EP11's.
const MaxTarget = 256

// An ABI is the functions of one vendor's library.
type ABI uint8

// A Function is one call of an ABI.
type Function struct {
	ABI    ABI
	Number uint32 // in frames
	Name   string // the library's: "m_SignSingle"
	Args   []Kind
}

// A Kind is how an argument goes to the card and comes back.
type Kind uint8

// The kinds; table.txt says what they are.
const (
	Number Kind = iota
	Counter
	Bytes
	Output
	InOut
	Numbers
	Mechanism
	Attributes
	Wanted
)

// A Call is one call of a function.
type Call struct {
	Function *Function
	Target   Target
	// Order is the program's byte order, nil for this machine's.
	Order binary.ByteOrder
	// Args are as many as the function's, each of its kind.
	Args []Arg
	// Return is what the function returned: of EP11 a CK_RV.
	Return uint64
}

// An Arg is an argument. Which fields count depends on its kind.
type Arg struct {
	Number uint64 // Number; Counter, in and out
	Bytes  []byte // Bytes, InOut: what goes in, nil for a null pointer
	// Mechanism is nil for a null pointer.
	Mechanism  *p11.Mechanism
	Attributes p11.Attributes // Attributes; Wanted: what came out, with those that there are
	Want       []WantedValue

	// Room is how many bytes, of Numbers how many numbers, can be taken of what comes out;
	// Query says that only the length is asked for.
	Room  uint64
	Query bool
	// Length is that of what came out, or would have; Out is nil where it did not.
	Length  uint64
	Out     []byte
	Numbers []uint64
}

// A WantedValue is an attribute that is asked for.
type WantedValue struct {
	Type  p11.AttributeType
	Room  uint64 // bytes
	Query bool
}

// AnyOrder is the byte order of the program that makes the call.
func (c *Call) AnyOrder() binary.ByteOrder {
	if c.Order != nil {
		return c.Order
	}
	return NativeOrder()
}

// NativeOrder is this machine's byte order.
func NativeOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// Give gives b as the output of an Output or InOut. It returns false where b does not fit.
func (a *Arg) Give(b []byte) bool {
	a.Length = uint64(len(b))
	switch {
	case a.Query:
		secret.Wipe(b)
	case a.Length > a.Room:
		secret.Wipe(b)
		return false
	default:
		a.Out = b
	}
	return true
}

// GiveNumbers is Give for Numbers.
func (a *Arg) GiveNumbers(list []uint64) bool {
	a.Length = uint64(len(list))
	switch {
	case a.Query:
	case a.Length > a.Room:
		return false
	default:
		a.Numbers = list
	}
	return true
}

// Count is Give for a Counter, which always fits.
func (a *Arg) Count(n uint64) bool {
	a.Number = n
	return true
}

// Want is the argument that asks for the values of attributes.
func Want(types []p11.AttributeType) (a Arg) {
	for _, t := range types {
		a.Want = append(a.Want, WantedValue{Type: t, Room: wantRoom})
	}
	return a
}

// wantRoom is what Want has for a value, in bytes: no attribute of a key on a card is
// longer.
const wantRoom = 8192

// WantedTypes are the attributes that are asked for.
func (a *Arg) WantedTypes() []p11.AttributeType {
	list := make([]p11.AttributeType, 0, len(a.Want))
	for _, w := range a.Want {
		list = append(list, w.Type)
	}
	return list
}

// GiveAttributes is Give for Wanted: values has those of the wanted attributes that there
// are. It returns false where one does not fit.
func (a *Arg) GiveAttributes(values p11.Attributes) bool {
	fits := true
	a.Attributes = nil
	for _, w := range a.Want {
		v, ok := values.Get(w.Type)
		if !ok {
			continue
		}
		if fits = fits && (w.Query || uint64(len(v)) <= w.Room); fits || w.Query {
			a.Attributes = append(a.Attributes, p11.Attribute{Type: w.Type, Value: v})
		}
	}
	return fits
}

// Asks says whether the program asks for the length of an output, and so for nothing to
// happen.
func (c *Call) Asks() bool {
	for i, k := range c.Function.Args {
		if k == Output && c.Args[i].Query {
			return true
		}
	}
	return false
}

// Drop takes back and wipes what came out, but for the lengths: of a call that failed.
func (c *Call) Drop() {
	for i := range c.Args {
		a := &c.Args[i]
		secret.Wipe(a.Out)
		a.Out, a.Numbers = nil, nil
		if c.Function.Args[i] == Wanted {
			a.Attributes = nil
		}
	}
}

// wipe wipes what a program gave that does not lie in the frame.
func (c *Call) wipe() {
	for i := range c.Args {
		if i < len(c.Function.Args) && c.Function.Args[i] == Attributes {
			c.Args[i].Attributes.Wipe()
		}
	}
}

// KeepStates leaves what goes in and out as it was.
func (c *Call) KeepStates() {
	for i, k := range c.Function.Args {
		if a := &c.Args[i]; k == InOut && a.Out != nil {
			secret.Wipe(a.Out)
			a.Out, a.Length = bytes.Clone(a.Bytes), uint64(len(a.Bytes))
		}
	}
}

// FunctionOf returns the function of that number, nil if the ABI has none.
func FunctionOf(abi ABI, number uint32) *Function {
	if int(abi) >= len(functions) || uint64(number) >= uint64(len(functions[abi])) || functions[abi][number].Name == "" {
		return nil
	}
	return &functions[abi][number]
}

// Functions are all functions of an ABI, in the order of the table.
func Functions(abi ABI) (list []*Function) {
	if int(abi) < len(functions) {
		for i := range functions[abi] {
			if f := &functions[abi][i]; f.Name != "" {
				list = append(list, f)
			}
		}
	}
	return list
}
