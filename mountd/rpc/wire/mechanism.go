package wire

import (
	"slices"

	"p11fs/p11"
)

// Which mechanisms clients of p11-kit pass depends on lists in them.
var (
	// bare0 are the mechanisms that every client passes without a parameter,
	// in ascending order.
	bare0 = []p11.MechanismType{ //nolint:gochecknoglobals // a table, never written
		0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xa, 0xb, 0xc, 0x10, 0x11, 0x12, 0x20, 0x30, 0x40, 0x41, 0x42,
		0x100, 0x101, 0x103, 0x110, 0x111, 0x120, 0x121, 0x123, 0x130, 0x131, 0x132, 0x134, 0x140, 0x141, 0x143,
		0x200, 0x201, 0x210, 0x211, 0x220, 0x221, 0x230, 0x231, 0x240, 0x241, 0x250, 0x251, 0x260, 0x261, 0x270, 0x271,
		0x300, 0x301, 0x303, 0x310, 0x311, 0x313, 0x320, 0x321, 0x330, 0x331, 0x333, 0x340, 0x341, 0x343, 0x350,
		0x370, 0x374, 0x380, 0x381, 0x400, 0x1000, 0x1008, 0x1010, 0x1020, 0x1030, 0x1036, 0x1040, 0x1041, 0x1042,
		0x1060, 0x1065, 0x1070, 0x1080, 0x1081, 0x1083, 0x2000, 0x2001, 0x2002,
	}
	// bare1 are those that came with protocol 1.
	bare1 = []p11.MechanismType{ //nolint:gochecknoglobals // a table, never written
		0x46, 0x48, 0x49, 0x4b, 0x4c, 0x4d, 0x4f, 0x50, 0x51, 0x53, 0x138, 0x255, 0x256, 0x392, 0x393, 0x394, 0x395, 0x396,
		0x1043, 0x1044, 0x1045, 0x1046, 0x108a,
		0x80010001, 0x80010002, 0x80010003, 0x80010004, 0x80010007, 0x8001001c, 0x8001001f, 0x80010023, 0x80010025,
		0x80010026, 0x80010027, 0x80010028,
	}
	// param0 are those that come with a parameter in every protocol, param1 since
	// protocol 1.
	param0 = []p11.MechanismType{0x9, 0xd} //nolint:gochecknoglobals // a table, never written
	param1 = []p11.MechanismType{          //nolint:gochecknoglobals // a table, never written
		0xe, 0x21, 0x43, 0x44, 0x45, 0x47, 0x4a, 0x4e, 0x122, 0x125, 0x133, 0x135, 0x136, 0x137, 0x150, 0x152, 0x153,
		0x222, 0x252, 0x257, 0x262, 0x272, 0x1050, 0x1082, 0x1084, 0x1085, 0x1086, 0x1087, 0x1089, 0x108b,
		0x2104, 0x2105, 0x2106, 0x2107, 0x2108,
	}
)

func in(list []p11.MechanismType, t p11.MechanismType) bool {
	_, ok := slices.BinarySearch(list, t)
	return ok
}

// Passes says whether clients of protocol p let programs use mechanism t. They
// hide all others, and a list that holds more than they pass on confuses the
// programs, so a server offers no more.
func (p Protocol) Passes(t p11.MechanismType) bool {
	switch {
	case p == Own:
		return true
	case in(bare0, t) || in(param0, t):
		return true
	}
	return p >= V1 && (in(bare1, t) || in(param1, t))
}

// TakesParam says whether clients of protocol p, which is not our own, send a
// parameter with t.
func (p Protocol) TakesParam(t p11.MechanismType) bool {
	return in(param0, t) || (p >= V1 && in(param1, t))
}

// A Mechanism is `M`.
type Mechanism struct {
	p11.Mechanism
	// Null says that the application passed no mechanism: it cancels the
	// operation (PKCS#11 v3.0 §5.1).
	Null bool
}

// Presence bytes of a mechanism's parameter; the last is our own protocol's.
const (
	paramAbsent = iota
	paramPresent
	mechanismNull
)

// Mechanism reads `M`. after is the length in bytes of what follows it when
// that is fixed, or -1: two releases write a NULL mechanism so that only the
// length tells. A mechanism that the client cannot pass, or whose encoding is
// not known, fails with CKR_MECHANISM_INVALID.
func (r *Reader) Mechanism(after int) (m Mechanism) {
	t := r.u32()
	switch {
	case r.err != nil:
		return m
	case r.protocol == Own:
		return r.ownMechanism(p11.MechanismType(t))
	case t == null:
		m.Null = true
		return m
	case r.protocol == V1 && t == 0 && after >= 0 && len(r.b) == after:
		m.Null = true
		return m
	}
	m.Type = p11.MechanismType(t)
	if !r.protocol.Passes(m.Type) {
		r.refuse(p11.Errorf(p11.CKR_MECHANISM_INVALID, "%v is not passed by this client", m.Type))
		return m
	}
	takes := r.protocol.TakesParam(m.Type)
	switch {
	case r.protocol >= V2 && !takes:
		return m
	case r.protocol >= V2:
		switch b := r.Byte(); b {
		case paramAbsent:
			return m
		case paramPresent:
		default:
			r.fail("presence byte %#x of a mechanism parameter", b)
			return m
		}
	case !takes:
		if v := r.u32(); v != null {
			r.fail("%v comes with a parameter", m.Type)
		}
		return m
	}
	m.Param = factsOf(m.Type).ReadParam(paramReader{r})
	return m
}

// factsOf takes the parameters of mechanisms that are not known for bytes.
func factsOf(t p11.MechanismType) p11.Facts {
	f, ok := p11.MechanismFacts(t)
	if !ok {
		f.Param = p11.ParamRaw
	}
	return f
}

// ownMechanism reads a mechanism whose parameter says its layout. Bytes are taken
// with every mechanism, so that who uses them can say what is wrong.
func (r *Reader) ownMechanism(t p11.MechanismType) (m Mechanism) {
	m.Type = t
	switch b := r.Byte(); b {
	case paramAbsent:
	case mechanismNull:
		m.Null = true
	case paramPresent:
		f := factsOf(t)
		switch l := r.Byte(); l {
		case f.Param.Layout():
			m.Param = f.ReadParam(paramReader{r})
		case 0:
			m.Param = p11.Facts{Param: p11.ParamRaw}.ReadParam(paramReader{r})
		default:
			r.refuse(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "parameter of layout %d with %v, which takes %d", l, t, f.Param.Layout()))
		}
	default:
		r.fail("presence byte %#x of a mechanism parameter", b)
	}
	return m
}

// A paramReader reads the fields of a parameter. What it returns does not lie in
// the body.
type paramReader struct{ *Reader }

func (r paramReader) Ulong(v *uint64) { *v = r.Reader.Ulong() }

func (r paramReader) Bool(v *bool) { *v = r.Byte() != 0 }

func (r paramReader) Handle(v *p11.ObjectHandle) { *v = p11.ObjectHandle(r.Reader.Ulong()) }

func (r paramReader) Bytes(v *[]byte) {
	*v = nil
	if b, isNull := r.bytes(); !isNull {
		*v = append([]byte{}, b...)
	}
}

func (r paramReader) Array(v []byte) {
	b, _ := r.bytes()
	if len(b) != len(v) {
		r.refuse(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "part of a parameter has %d bytes, not %d", len(b), len(v)))
	}
	copy(v, b)
}

func (r paramReader) Template(v *p11.Attributes) {
	list := r.Attributes()
	if r.err != nil {
		return
	}
	template, err := Template(list)
	if err != nil {
		r.refuse(err)
	}
	*v = template.Clone()
}

func (r paramReader) Refuse(err error) { r.refuse(err) }

func (r *Reader) refuse(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// ParamUpdate writes `P` of C_DeriveKey2 for a mechanism that changes no
// parameter: for those that take one, a byte that says whether there was one,
// nothing for the others.
func (w *Writer) ParamUpdate(m p11.Mechanism) {
	switch {
	case w.protocol == Own:
		w.byte(paramAbsent)
	case !w.protocol.TakesParam(m.Type):
	case m.Param == nil:
		w.byte(paramAbsent)
	default:
		w.byte(paramPresent)
	}
}
