//go:build cgo

package hostlib

import (
	"slices"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/ep11"
)

// A form is what an argument in C is of a value.
type form uint8

const (
	number      form = iota
	numberAt         // a pointer to it
	data             // a pointer to the bytes
	length           // how many there are, or fit
	lengthOrAll      // likewise, all ones for a null pointer
	lengthAt         // a pointer to the length, where that of what comes out is put
	keywordsAt       // likewise, but it counts keywords
	mechanism        // a pointer to CK_MECHANISM
	attributes       // a pointer to CK_ATTRIBUTEs
	count            // how many
	constantAt       // a pointer to n
	zeros            // a pointer to n bytes of zeros; NULL if n is 0
	blank            // a pointer to a keyword of blanks
)

// A param is an argument in C: of the value n, or of the number n.
type param struct {
	form form
	n    uint8
}

// A share is an output whose memory has an input before.
type share struct{ in, out uint8 }

// A known is an output whose length is n, or that of another value.
type known struct{ out, n, of uint8 }

const (
	none  = 255 // for of
	whole = 0   // for n, with none: as long as the program has room

	infoSize = 3 * wordSize // of a CK_MECHANISM_INFO
)

// A bound is a number that is at most the bits of another value.
type bound struct{ number, of uint8 }

// A layout is how the arguments of a function stand in C.
type layout struct {
	params []param
	shares []share
	known  []known
	bounds []bound
}

// A slot is where a value is in memory.
type slot struct {
	at, room int   // its bytes, and how many the library is told of
	has      int   // and how many there are
	length   int   // where its length comes back; 0 for nowhere
	unit     int   // in which that is
	wanted   []int // of attributes: the places of the values
	head     int   // and that of the list
}

// An argument is a number, or a place.
type argument struct {
	n     uint64
	place bool
}

// A frame is a call as it stands in C.
type frame struct {
	memory
	c      *card.Call
	layout *layout
	args   []argument
	slots  []slot
	inputs int // bytes that go in
	codes  int // of CCA, where the return code, the reason and a length of 0 are
}

// untold is how much more than they are told verbs read and write at most: key tokens and
// vectors have their length, rules say that a text is padded, and CSUACFQ answers in the
// memory of its rule array, whatever that had. Programs say how much room they have, and
// must not have a library write behind it.
const untold = 512

// beyond is how much longer what comes out is than all that goes in, at most.
const beyond = 64 << 10

// newFrame lays out a call. An error is one of the ABI's return values.
func newFrame(c *card.Call, l *layout) (*frame, error) {
	f := &frame{c: c, layout: l, slots: make([]slot, len(c.Args))}
	f.codes = f.words(0) // so that 0 is the place of nothing else
	f.codes = f.words(0, 0, 0)
	for i := range c.Args {
		f.inputs += len(c.Args[i].Bytes)
	}
	for i := range c.Args {
		f.slots[i].room = f.room(i)
		if unit := f.unit(i); f.knows(i) && uint64(f.slots[i].room/unit) > c.Args[i].Room {
			c.Args[i].Length = uint64(f.slots[i].room / unit)
			return f, errSmall(c)
		}
	}
	for _, b := range l.bounds {
		if c.Args[b.number].Number > 8*uint64(len(c.Args[b.of].Bytes)) {
			return f, errSmall(c)
		}
	}
	for _, p := range l.params {
		if err := f.add(p); err != nil {
			return f, err
		}
	}
	return f, nil
}

// unit is what the room for a value counts, in bytes.
func (f *frame) unit(i int) int {
	if f.c.Function.Args[i] == card.Numbers {
		return wordSize
	}
	return 1
}

// knows says whether nobody tells the length of an output.
func (f *frame) knows(i int) bool {
	return slices.ContainsFunc(f.layout.known, func(k known) bool { return int(k.out) == i })
}

// room is how many bytes there are for a value.
func (f *frame) room(i int) int {
	a := &f.c.Args[i]
	switch f.c.Function.Args[i] {
	case card.InOut:
		return int(max(uint64(len(a.Bytes)), min(a.Room, uint64(f.inputs+beyond))))
	case card.Output, card.Numbers:
		for _, k := range f.layout.known {
			switch {
			case int(k.out) != i:
			case k.of != none:
				return len(f.c.Args[k.of].Bytes)
			case k.n == whole:
				return int(min(a.Room, card.MaxOutput))
			default:
				return int(k.n)
			}
		}
		if f.c.Function.Args[i] == card.Numbers {
			return int(min(a.Room, maxNumbers)) * wordSize
		}
		return int(min(a.Room, uint64(f.inputs+beyond)))
	}
	return len(a.Bytes)
}

// maxNumbers is how long a list of numbers is at most.
const maxNumbers = 4096

// add puts an argument where it goes.
func (f *frame) add(p param) error {
	i := int(p.n)
	place := func(at int) { f.args = append(f.args, argument{uint64(at), true}) }
	plain := func(n uint64) { f.args = append(f.args, argument{n: n}) }
	switch p.form {
	case number:
		plain(f.c.Args[i].Number)
	case numberAt:
		f.slots[i].length = f.words(f.c.Args[i].Number)
		place(f.slots[i].length)
	case data:
		if at := f.bytes(i); at != 0 {
			place(at)
		} else {
			plain(0)
		}
	case lengthOrAll:
		if f.c.Args[i].Bytes == nil {
			plain(^uint64(0))
			return nil
		}
		fallthrough
	case length:
		plain(uint64(f.slots[i].room))
	case lengthAt, keywordsAt:
		place(f.length(i, p.form))
	case mechanism:
		m := f.c.Args[i].Mechanism
		if m == nil {
			return p11.CKR_MECHANISM_INVALID
		}
		at, err := f.mechanism(m)
		place(at)
		return err
	case attributes:
		at, err := f.attributes(i)
		place(at)
		return err
	case count:
		plain(uint64(len(f.c.Args[i].Attributes) + len(f.c.Args[i].Want)))
	case constantAt:
		place(f.words(uint64(p.n)))
	case blank:
		place(f.place([]byte("        "), 0))
	case zeros:
		if p.n == 0 {
			plain(0)
			return nil
		}
		place(f.place(nil, int(p.n)))
	}
	return nil
}

// bytes is the place of a value's bytes; 0 of a null pointer.
func (f *frame) bytes(i int) int {
	s, a := &f.slots[i], &f.c.Args[i]
	switch kind := f.c.Function.Args[i]; {
	case s.at != 0 || a.Query:
		return s.at
	case kind != card.Output && kind != card.Numbers && a.Bytes == nil && f.c.Function.ABI != card.CCA:
		return 0
	}
	n := s.room
	if f.c.Function.ABI == card.CCA {
		n += untold
	}
	for _, sh := range f.layout.shares {
		if int(sh.in) == i {
			out := &f.slots[sh.out]
			s.has = max(n, out.room+n-s.room)
			s.at = f.place(a.Bytes, s.has)
			out.at, out.has = s.at, s.has
			return s.at
		}
	}
	s.at, s.has = f.place(a.Bytes, n), n
	return s.at
}

// length is the place of a length.
func (f *frame) length(i int, as form) int {
	unit := f.unit(i)
	if as == keywordsAt {
		unit = cca.KeywordSize
	}
	at := f.words(uint64(f.slots[i].room / unit))
	for _, sh := range f.layout.shares {
		if int(sh.in) == i {
			i = int(sh.out)
		}
	}
	f.slots[i].length, f.slots[i].unit = at, unit
	return at
}

// attributes is the place of a list, of values or for some.
func (f *frame) attributes(i int) (int, error) {
	a, s := &f.c.Args[i], &f.slots[i]
	const entry = 3 * wordSize // CK_ATTRIBUTE
	s.head = f.place(nil, entry*(len(a.Attributes)+len(a.Want)))
	at := s.head
	for _, x := range a.Attributes {
		if nests(x.Type) {
			return s.head, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%v", x.Type)
		}
		f.set(at, uint64(x.Type))
		f.point(at+wordSize, f.place(native(x.Type, x.Value), 0))
		f.set(at+2*wordSize, uint64(len(x.Value)))
		at += entry
	}
	for _, x := range a.Want {
		if nests(x.Type) {
			return s.head, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%v", x.Type)
		}
		f.set(at, uint64(x.Type))
		room := int(min(x.Room, beyond))
		s.wanted = append(s.wanted, 0)
		if !x.Query {
			s.wanted[len(s.wanted)-1] = f.place(nil, room)
			f.point(at+wordSize, s.wanted[len(s.wanted)-1])
		}
		f.set(at+2*wordSize, uint64(room))
		at += entry
	}
	return s.head, nil
}

// nests says whether an attribute's value has addresses in it.
func nests(t p11.AttributeType) bool {
	const array = 0x40000000 // CKF_ARRAY_ATTRIBUTE
	return t&array != 0
}

// native turns a number of an attribute between the order of package p11 and the machine's.
func native(t p11.AttributeType, v []byte) []byte {
	if !p11.KindOf(t).IsUlong() || len(v) != wordSize || card.NativeOrder().Uint16([]byte{1, 0}) == 1 {
		return v
	}
	v = slices.Clone(v)
	slices.Reverse(v)
	return v
}

// mechanism is the place of a mechanism. Only parameters that are known are given on: in
// what a program sends as bytes there could be addresses.
func (f *frame) mechanism(m *p11.Mechanism) (int, error) {
	head := f.words(uint64(m.Type), 0, 0)
	known, _ := p11.MechanismFacts(m.Type)
	var at, n int
	pair := func(at, pointer, length int, b []byte) {
		if len(b) > 0 {
			f.point(at+pointer*wordSize, f.place(b, 0))
		}
		f.set(at+length*wordSize, uint64(len(b)))
	}
	switch p := m.Param.(type) {
	case nil:
		return head, nil
	case p11.IV:
		at, n = f.place(p, 0), len(p)
	case p11.RawParam:
		if known.Param != p11.ParamPublic && len(p) > 0 {
			return head, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the parameter of %v is not known", m.Type)
		}
		at, n = f.place(p, 0), len(p)
	case p11.MACLength:
		at, n = f.words(uint64(p)), wordSize
	case *p11.PSSParams:
		at, n = f.words(uint64(p.Hash), uint64(p.MGF), p.SaltLen), 3*wordSize
	case *p11.OAEPParams:
		const specified = 1 // CKZ_DATA_SPECIFIED
		at, n = f.words(uint64(p.Hash), uint64(p.MGF), specified, 0, 0), 5*wordSize
		pair(at, 3, 4, p.Label)
	case *p11.ECDH1Params:
		at, n = f.words(uint64(p.KDF), 0, 0, 0, 0), 5*wordSize
		pair(at, 2, 1, p.SharedData)
		pair(at, 4, 3, p.PublicData)
	default:
		return head, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "no card takes the parameter of %v", m.Type)
	}
	if n > 0 {
		f.point(head+wordSize, at)
	}
	f.set(head+2*wordSize, uint64(n))
	return head, nil
}

// errSmall is what a function returns that has more to give than fits.
func errSmall(c *card.Call) error {
	if c.Function.ABI == card.CCA {
		return cca.ErrBuffer
	}
	return p11.CKR_BUFFER_TOO_SMALL
}

// returned is the return value of an error of newFrame.
func returned(c *card.Call, err error) uint64 {
	if c.Function.ABI == card.CCA {
		return cca.ErrBuffer.Value()
	}
	if rv := p11.RVOf(err); rv != p11.CKR_OK {
		return uint64(rv)
	}
	return uint64(ep11.Internal)
}
