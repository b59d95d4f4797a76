package card

import (
	"p11fs/p11"
)

// The parameters of mechanisms are coded as between libp11fs.so and the daemon: p11 has
// their fields, and these the forms of them.

func (w *writer) mechanism(m *p11.Mechanism) {
	switch {
	case m == nil:
		w.u32(0)
		w.u8(mechanismNull)
		return
	case uint64(m.Type) > 0xffffffff:
		w.err = p11.Errorf(p11.CKR_MECHANISM_INVALID, "%v is none of a card's", m.Type)
		return
	}
	w.u32(uint32(m.Type))
	if m.Param == nil {
		w.u8(paramAbsent)
		return
	}
	w.u8(paramPresent)
	if _, raw := m.Param.(p11.RawParam); raw {
		w.u8(0)
	} else {
		w.u8(factsOf(m.Type).Param.Layout())
	}
	m.Param.Code(paramWriter{w})
}

// factsOf takes the parameters of mechanisms that are not known for bytes.
func factsOf(t p11.MechanismType) p11.Facts {
	f, ok := p11.MechanismFacts(t)
	if !ok {
		f.Param = p11.ParamRaw
	}
	return f
}

// mechanism reads a mechanism, nil for a null pointer. It does not lie in the frame.
func (r *reader) mechanism() *p11.Mechanism {
	m := &p11.Mechanism{Type: p11.MechanismType(r.u32())}
	switch b := r.u8(); b {
	case paramAbsent:
	case mechanismNull:
		return nil
	case paramPresent:
		f := factsOf(m.Type)
		switch l := r.u8(); l {
		case f.Param.Layout():
			m.Param = f.ReadParam(paramReader{r})
		case 0:
			m.Param = p11.Facts{Param: p11.ParamRaw}.ReadParam(paramReader{r})
		default:
			r.refuse(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "parameter of layout %d with %v, which takes %d", l, m.Type, f.Param.Layout()))
		}
	default:
		r.fail("presence byte %#x of a mechanism parameter", b)
	}
	return m
}

// errNoTemplate refuses parameters with handles of other keys and with templates: a card
// has neither.
func errNoTemplate() error {
	return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the parameter names keys, which a card does not know")
}

type paramWriter struct{ *writer }

func (w paramWriter) Ulong(v *uint64)            { w.u64(*v) }
func (w paramWriter) Bool(v *bool)               { w.flag(*v) }
func (w paramWriter) Handle(v *p11.ObjectHandle) { w.u64(uint64(*v)) }
func (w paramWriter) Bytes(v *[]byte)            { w.bytes(*v) }
func (w paramWriter) Array(v []byte)             { w.bytes(v) }
func (w paramWriter) Template(*p11.Attributes)   { w.Refuse(errNoTemplate()) }
func (w paramWriter) Refuse(err error)           { w.err = err }

type paramReader struct{ *reader }

func (r paramReader) Ulong(v *uint64)            { *v = r.u64() }
func (r paramReader) Bool(v *bool)               { *v = r.u8() != 0 }
func (r paramReader) Handle(v *p11.ObjectHandle) { *v = p11.ObjectHandle(r.u64()) }

func (r paramReader) Bytes(v *[]byte) {
	*v = nil
	if b := r.bytes(); b != nil {
		*v = append([]byte{}, b...)
	}
}

func (r paramReader) Array(v []byte) {
	b := r.bytes()
	if len(b) != len(v) {
		r.refuse(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "part of a parameter has %d bytes, not %d", len(b), len(v)))
	}
	copy(v, b)
}

func (r paramReader) Template(*p11.Attributes) { r.refuse(errNoTemplate()) }
func (r paramReader) Refuse(err error)         { r.refuse(err) }

// AppendMechanism appends m as it stands in frames.
func AppendMechanism(b []byte, m p11.Mechanism) ([]byte, error) {
	w := &writer{b: b}
	w.mechanism(&m)
	return w.b, w.err
}

// ReadMechanism reads what AppendMechanism wrote, which is all of b.
func ReadMechanism(b []byte) (m p11.Mechanism, err error) {
	r := &reader{b: b}
	read := r.mechanism()
	if err := r.end(); err != nil {
		return m, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%w", err)
	}
	if read == nil {
		return m, p11.CKR_MECHANISM_INVALID
	}
	return *read, nil
}
