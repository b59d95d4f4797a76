package p11

// A Mechanism is CK_MECHANISM: what to do, and how. A nil Param is no
// parameter.
type Mechanism struct {
	Type  MechanismType
	Param Param
}

// A Param is a mechanism parameter: one of the types that table.txt declares, or
// a RawParam.
type Param interface {
	// Code gives each field to c, in the order of the C struct. On a value that
	// is no pointer it can only write.
	Code(c Coder)
	print(w *paramWriter)
}

// A Coder reads or writes the fields of a parameter one after another: a reader
// stores a value through the pointer, a writer takes it from there.
type Coder interface {
	Ulong(*uint64)
	Bool(*bool)
	// Handle is that of a key beside the one that the mechanism is used with, or 0.
	Handle(*ObjectHandle)
	// Bytes is a byte string, nil for a NULL pointer.
	Bytes(*[]byte)
	// Array is a byte string of just this length.
	Array([]byte)
	// Template is the template of a key.
	Template(*Attributes)
	// Refuse ends a reading: the field's value is wrong.
	Refuse(err error)
}

// RawParam is a parameter as bytes, for the mechanisms whose parameter has no
// type of its own here.
type RawParam []byte

// Code writes the parameter.
func (v RawParam) Code(c Coder) { c.Bytes((*[]byte)(&v)) }

// Facts is what the standard says of a mechanism.
type Facts struct {
	Functions  Flags         // CKF_ENCRYPT | …: every function that it may serve
	Hash       MechanismType // the digest in it; 0, which is no digest, if there is none or it is one itself
	KeyTypes   []KeyType     // of the keys it uses or makes; nil for none or any
	Param      ParamKind
	Optional   bool // its parameter may be left out
	IVLen      int  // of its IV in bytes; 0 for none, or any
	SinglePart bool // its data cannot come in parts
	Data       bool // it derives data objects
	Keeps      bool // what it derives is as safe as the keys that it comes from
}

// ReadParam takes the mechanism's parameter from c.
func (f Facts) ReadParam(c Coder) Param {
	p := f.Param.read(c)
	if iv, ok := p.(IV); ok && len(iv) == 0 && f.Optional {
		return nil // some pass the absent one so
	}
	return p
}

// Keys are the keys that the parameter names, in its order, 0 where it names none.
func (m Mechanism) Keys() []ObjectHandle {
	var c handleFinder
	if m.Param != nil {
		m.Param.Code(&c)
	}
	return c.found
}

// A handleFinder is a writer that keeps handles alone.
type handleFinder struct{ found []ObjectHandle }

func (c *handleFinder) Handle(h *ObjectHandle) { c.found = append(c.found, *h) }
func (*handleFinder) Ulong(*uint64)            {}
func (*handleFinder) Bool(*bool)               {}
func (*handleFinder) Bytes(*[]byte)            {}
func (*handleFinder) Array([]byte)             {}
func (*handleFinder) Template(*Attributes)     {}
func (*handleFinder) Refuse(error)             {}

// Bytes is how many bytes of data the parameter holds.
func (m Mechanism) Bytes() int {
	var c byteCounter
	if m.Param != nil {
		m.Param.Code(&c)
	}
	return int(c)
}

// A byteCounter is a writer that counts data alone.
type byteCounter int

func (c *byteCounter) Bytes(b *[]byte)    { *c += byteCounter(len(*b)) }
func (*byteCounter) Handle(*ObjectHandle) {}
func (*byteCounter) Ulong(*uint64)        {}
func (*byteCounter) Bool(*bool)           {}
func (*byteCounter) Array([]byte)         {}
func (c *byteCounter) Template(a *Attributes) {
	for _, one := range *a {
		*c += byteCounter(len(one.Value))
	}
}
func (*byteCounter) Refuse(error) {}

// SampleParam returns a good parameter of a mechanism, for tests: nil if it takes
// none, or one whose form is not known here. Bytes that depend on a key, such as
// the other side's point, are absent.
func SampleParam(t MechanismType) Param {
	f, _ := MechanismFacts(t)
	p := paramParser{mech: t, facts: f, sample: true}
	return p.build()
}
