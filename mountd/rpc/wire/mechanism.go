package wire

import (
	"slices"

	"p11fs/p11"
)

// since is the first protocol whose clients pass a mechanism.
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
)

// A layout is how a mechanism's parameter is encoded. The numbers are those of
// our own protocol, which writes the layout in front of the parameter.
type layout uint8

const (
	layoutRaw layout = iota
	layoutPSS
	layoutOAEP
	layoutGCM
	layoutCTR
	layoutECDH1
	layoutUlong
	layoutRSAAESWrap
	layoutString
	layoutCBCData
)

// layoutOf is the layout of t's parameter; ok is false for a mechanism that
// takes none.
func layoutOf(t p11.MechanismType) (l layout, ok bool) {
	f, known := p11.MechanismFacts(t)
	if !known {
		return layoutRaw, true
	}
	switch f.Param {
	case p11.ParamNone:
		return layoutRaw, false
	case p11.ParamPSS:
		return layoutPSS, true
	case p11.ParamOAEP:
		return layoutOAEP, true
	case p11.ParamGCM:
		return layoutGCM, true
	case p11.ParamCTR:
		return layoutCTR, true
	case p11.ParamECDH1:
		return layoutECDH1, true
	case p11.ParamMAC:
		return layoutUlong, true
	case p11.ParamRSAAESKeyWrap:
		return layoutRSAAESWrap, true
	case p11.ParamData:
		return layoutString, true
	case p11.ParamIVData:
		return layoutCBCData, true
	}
	return layoutRaw, true
}

// param1 are the mechanisms with a parameter that came with protocol 1, in
// ascending order; param0, those of protocol 0.
var (
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

// takesParam says whether clients of protocol p send a parameter with t.
func (p Protocol) takesParam(t p11.MechanismType) bool {
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
		r.refuse(p11.CKR_MECHANISM_INVALID, "%v is not passed by this client", m.Type)
		return m
	}
	takes := r.protocol.takesParam(m.Type)
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
	l, _ := layoutOf(m.Type)
	m.Param = r.param(m.Type, l)
	return m
}

func (r *Reader) refuse(rv p11.RV, format string, args ...any) {
	if r.err == nil {
		r.err = p11.Errorf(rv, format, args...)
	}
	r.b = nil
}

func (r *Reader) ownMechanism(t p11.MechanismType) (m Mechanism) {
	m.Type = t
	switch b := r.Byte(); b {
	case paramAbsent:
	case mechanismNull:
		m.Null = true
	case paramPresent:
		l := layout(r.Byte())
		want, takes := layoutOf(t)
		if l != want && l != layoutRaw {
			r.refuse(p11.CKR_MECHANISM_PARAM_INVALID, "parameter of layout %d with %v, which takes %d", l, t, want)
			return m
		}
		if l == layoutRaw && (want != layoutRaw || !takes) {
			b, _ := r.bytes()
			m.Param = p11.RawParam(b)
			return m
		}
		m.Param = r.param(t, l)
	default:
		r.fail("presence byte %#x of a mechanism parameter", b)
	}
	return m
}

// param reads a parameter of layout l; what it returns does not lie in the
// body.
func (r *Reader) param(t p11.MechanismType, l layout) p11.Param {
	clone := func() []byte {
		b, isNull := r.bytes()
		if isNull {
			return nil
		}
		return append([]byte{}, b...)
	}
	switch l {
	case layoutPSS:
		return &p11.PSSParams{Hash: p11.MechanismType(r.Ulong()), MGF: p11.MGF(r.Ulong()), SaltLen: r.Ulong()}
	case layoutOAEP:
		return r.oaep(clone)
	case layoutGCM:
		p := &p11.GCMParams{IV: clone()}
		// ulIvBits is not to be used for the length (PKCS#11 v3.1 §6.13.3), and
		// there are programs that leave it unset.
		_ = r.Ulong()
		p.AAD, p.TagBits = clone(), r.Ulong()
		return p
	case layoutCTR:
		p := &p11.CTRParams{CounterBits: r.Ulong()}
		b, _ := r.bytes()
		if len(b) != len(p.Counter) {
			r.refuse(p11.CKR_MECHANISM_PARAM_INVALID, "the counter block has %d bytes, not %d", len(b), len(p.Counter))
		}
		copy(p.Counter[:], b)
		return p
	case layoutECDH1:
		return &p11.ECDH1Params{KDF: p11.KDF(r.Ulong()), SharedData: clone(), PublicData: clone()}
	case layoutUlong:
		return p11.MACLength(r.Ulong())
	case layoutRSAAESWrap:
		return &p11.RSAAESKeyWrapParams{AESKeyBits: r.Ulong(), OAEP: r.oaep(clone)}
	case layoutString:
		return &p11.StringDataParams{Data: clone()}
	case layoutCBCData:
		return &p11.CBCDataParams{IV: clone(), Data: clone()}
	}
	b := clone()
	if f, ok := p11.MechanismFacts(t); ok && (f.Param == p11.ParamIV || f.Param == p11.ParamOptionalIV) {
		if len(b) == 0 && f.Param == p11.ParamOptionalIV {
			return nil
		}
		return p11.IV(b)
	}
	return p11.RawParam(b)
}

func (r *Reader) oaep(clone func() []byte) *p11.OAEPParams {
	p := &p11.OAEPParams{Hash: p11.MechanismType(r.Ulong()), MGF: p11.MGF(r.Ulong())}
	source := r.Ulong()
	p.Label = clone()
	if source != uint64(p11.CKZ_DATA_SPECIFIED) && (source != 0 || len(p.Label) != 0) {
		r.refuse(p11.CKR_MECHANISM_PARAM_INVALID, "source %d of the OAEP label", source)
	}
	return p
}

// Mechanism writes `M` as a client of the Writer's protocol does.
func (w *Writer) Mechanism(m Mechanism) {
	switch {
	case w.protocol == Own:
		w.ownMechanism(m)
		return
	case m.Null:
		w.u32(null)
		return
	}
	w.u32(uint32(m.Type))
	takes := w.protocol.takesParam(m.Type)
	switch {
	case w.protocol >= V2 && !takes:
		return
	case w.protocol >= V2 && m.Param == nil:
		w.Byte(paramAbsent)
		return
	case w.protocol >= V2:
		w.Byte(paramPresent)
	case !takes:
		w.u32(null)
		return
	}
	w.param(m.Param)
}

func (w *Writer) ownMechanism(m Mechanism) {
	w.u32(uint32(m.Type))
	switch {
	case m.Null:
		w.Byte(mechanismNull)
	case m.Param == nil:
		w.Byte(paramAbsent)
	default:
		w.Byte(paramPresent)
		w.Byte(byte(layoutOfParam(m.Param)))
		w.param(m.Param)
	}
}

func layoutOfParam(p p11.Param) layout {
	switch p.(type) {
	case *p11.PSSParams:
		return layoutPSS
	case *p11.OAEPParams:
		return layoutOAEP
	case *p11.GCMParams:
		return layoutGCM
	case *p11.CTRParams:
		return layoutCTR
	case *p11.ECDH1Params:
		return layoutECDH1
	case p11.MACLength:
		return layoutUlong
	case *p11.RSAAESKeyWrapParams:
		return layoutRSAAESWrap
	case *p11.StringDataParams:
		return layoutString
	case *p11.CBCDataParams:
		return layoutCBCData
	}
	return layoutRaw
}

func (w *Writer) param(p p11.Param) {
	switch p := p.(type) {
	case *p11.PSSParams:
		w.Ulong(uint64(p.Hash))
		w.Ulong(uint64(p.MGF))
		w.Ulong(p.SaltLen)
	case *p11.OAEPParams:
		w.Ulong(uint64(p.Hash))
		w.Ulong(uint64(p.MGF))
		w.Ulong(uint64(p11.CKZ_DATA_SPECIFIED))
		w.bytesOrNull(p.Label)
	case *p11.GCMParams:
		w.bytesOrNull(p.IV)
		w.Ulong(8 * uint64(len(p.IV)))
		w.bytesOrNull(p.AAD)
		w.Ulong(p.TagBits)
	case *p11.CTRParams:
		w.Ulong(p.CounterBits)
		w.bytes(p.Counter[:])
	case *p11.ECDH1Params:
		w.Ulong(uint64(p.KDF))
		w.bytesOrNull(p.SharedData)
		w.bytesOrNull(p.PublicData)
	case p11.MACLength:
		w.Ulong(uint64(p))
	case *p11.RSAAESKeyWrapParams:
		w.Ulong(p.AESKeyBits)
		w.param(p.OAEP)
	case *p11.StringDataParams:
		w.bytesOrNull(p.Data)
	case *p11.CBCDataParams:
		w.bytesOrNull(p.IV)
		w.bytesOrNull(p.Data)
	case p11.IV:
		w.bytesOrNull(p)
	case p11.RawParam:
		w.bytesOrNull(p)
	}
}

// ParamUpdate writes `P` of C_DeriveKey2 for a mechanism that changes no
// parameter: for those that take one, a byte that says whether there was one,
// nothing for the others.
func (w *Writer) ParamUpdate(m p11.Mechanism) {
	switch {
	case w.protocol == Own:
		w.Byte(paramAbsent)
	case !w.protocol.takesParam(m.Type):
	case m.Param == nil:
		w.Byte(paramAbsent)
	default:
		w.Byte(paramPresent)
	}
}
