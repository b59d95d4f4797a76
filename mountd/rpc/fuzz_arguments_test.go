package rpc

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// arguments writes the values of a request, made of the bytes of its record.
func (p *player) arguments(w *wiretest.Writer, call wire.Call, sig string) {
	p.key = p.objects[objectAES]
	for n := 0; sig != ""; n++ {
		size := 1
		if strings.ContainsRune("af", rune(sig[0])) {
			size = 2
		}
		switch sig[:size] {
		case "y":
			w.Byte(p.next())
		case "u":
			w.Ulong(p.ulong(call, n))
		case "s", "z":
			w.Space("label", int(pick[byte](p, 32, 5, 0, 100)))
		case "ay":
			w.Array(p.array(call, n))
		case "fy", "fu":
			w.Room(pick[wire.Room](p, 256, 0, 1, 16, 32, 64, 1000, 0xffffffff, 0x80000000))
		case "aA":
			w.Attributes(p.template(0))
		case "fA":
			w.Wanted(p.wanted())
		case "M":
			w.Mechanism(p.mechanism(call))
		}
		sig = sig[size:]
	}
}

// ulong is the value of place n in a call's signature.
func (p *player) ulong(call wire.Call, n int) uint64 {
	switch call {
	case wire.CallGetSlotInfo, wire.CallGetTokenInfo, wire.CallGetMechanismList, wire.CallGetMechanismInfo, wire.CallInitToken, wire.CallInitToken2,
		wire.CallOpenSession, wire.CallCloseAllSessions:
		if n == 0 {
			return pick[uint64](p, 3, 99)
		}
		if call == wire.CallGetMechanismInfo {
			return uint64(pick(p, p11.AllMechanismTypes()...))
		}
		return pick[uint64](p, 6, 4, 0, 0xff)
	case wire.CallWaitForSlotEvent:
		return pick[uint64](p, 1, 0)
	}
	switch {
	case n == 0:
		if b := p.next(); b != 0xff {
			return p.sessions[int(b)%len(p.sessions)]
		}
		return 0x7ffffff0
	case call == wire.CallLogin || call == wire.CallLoginUser:
		return pick[uint64](p, 1, 0, 2, 7)
	case call == wire.CallSessionCancel || call == wire.CallEncryptMessageNext || call == wire.CallDecryptMessageNext:
		return 1 << (p.next() % 40)
	}
	switch b := p.next(); b {
	case 0:
		return p.key
	case 0xff:
		return 0x7ffffff0
	default:
		return p.objects[int(b)%len(p.objects)]
	}
}

func (p *player) array(call wire.Call, n int) wire.Array {
	switch call {
	case wire.CallInitialize:
		if n == 0 {
			return data([]byte(wire.Handshake))
		}
	case wire.CallLogin, wire.CallLoginUser, wire.CallSetPIN, wire.CallInitPIN, wire.CallInitToken, wire.CallInitToken2:
		return data([]byte(pick(p, userPIN, soPIN, "wrong", "12345678", "")))
	}
	switch form := p.next(); form % 8 {
	default:
		return data(bytes.Repeat([]byte{form}, 32))
	case 1:
		return data(bytes.Repeat([]byte{form}, int(p.next())))
	case 2, 3:
		return data(p.last)
	case 4:
		return wire.Array{Null: true}
	case 5:
		return wire.Array{Absent: true, Length: uint32(p.next() % 2)}
	case 6:
		return data(p.record)
	case 7: // more than the server's buffer
		return data(bytes.Repeat([]byte{form}, 5000+int(p.next())))
	}
}

func (p *player) mechanism(call wire.Call) wire.Mechanism {
	b := p.next()
	if b == 0xff {
		return wire.Mechanism{Null: true}
	}
	f := pick(p, fuzzMechanisms()...)
	if b != 0 {
		f = fuzzMechanisms()[int(b)%len(fuzzMechanisms())]
	}
	key := f.public
	if slices.Contains([]wire.Call{wire.CallSignInit, wire.CallSignRecoverInit, wire.CallDecryptInit, wire.CallUnwrapKey, wire.CallDeriveKey, wire.CallDeriveKey2,
		wire.CallSignOnce, wire.CallDecryptOnce}, call) {
		key = f.key
	}
	p.key = p.objects[key]
	param := p.param(f.t)
	if param == nil && p.k.protocol < wire.V2 {
		param = paramOf(f.t) // those have no form for none
	}
	return m(f.t, param)
}

// param is a parameter of the mechanism: a good one, none, or one with odd
// numbers.
func (p *player) param(t p11.MechanismType) p11.Param {
	how := p.next()
	if how%4 == 3 {
		return nil
	}
	param := paramOf(t)
	if f, known := p11.MechanismFacts(t); known && f.Param == p11.ParamNone {
		return nil
	}
	if how == 0 {
		return param
	}
	odd := func() uint64 { return uint64(p.next()) << (p.next() % 64) }
	switch param := param.(type) {
	case *p11.PSSParams:
		param.Hash, param.MGF, param.SaltLen = p11.MechanismType(odd()), p11.MGF(odd()), odd()
	case *p11.OAEPParams:
		param.MGF, param.Label = p11.MGF(p.next()), p.record
	case *p11.GCMParams:
		param.IV, param.TagBits = p.record[:int(p.next())%len(p.record)], odd()
	case *p11.CTRParams:
		param.CounterBits = odd()
	case *p11.ECDH1Params:
		param.KDF, param.SharedData = p11.KDF(p.next()), p.record
	case p11.MACLength:
		return p11.MACLength(odd())
	case p11.IV:
		return p11.IV(p.record[:int(p.next())%len(p.record)])
	}
	return param
}

// template is a list of attributes: none, those of an object that can be made, or
// such with odd ones.
func (p *player) template(depth int) []wire.Attribute {
	var list []wire.Attribute
	switch p.next() % 8 {
	case 0:
		list = dataObject(p11.CKA_LABEL, "fuzz")
	case 1:
		list = aes(16)
	case 2:
		p256, _ := p11.CurveParams("secp256r1")
		list = template(p11.CKA_EC_PARAMS, p256)
	case 3:
		list = template(p11.CKA_VALUE_LEN, int(p.next()))
	case 4:
		list = template(p11.CKA_CLASS, p11.CKO_SECRET_KEY, p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET, p11.CKA_EXTRACTABLE, true)
	}
	for range p.next() % 4 {
		list = append(list, p.attribute(depth))
	}
	return list
}

func (p *player) attribute(depth int) wire.Attribute {
	types := append(p11.AllAttributeTypes(), 0x200, 0x201, 0x80000001)
	a := wire.Attribute{Type: types[(int(p.next())<<8|int(p.next()))%len(types)], Valid: true}
	if wire.IsTemplate(a.Type) {
		if depth < 9 {
			a.Nested = p.template(depth + 1)
		}
		a.Length = uint32(24 * len(a.Nested))
		return a
	}
	switch form := p.next(); form % 6 {
	case 0:
		a.Value = p11.Bool(true)
	case 1:
		a.Value = p11.Ulong(uint64(p.next()))
	case 2:
		a.Value = bytes.Repeat([]byte{form}, int(p.next()))
	case 3:
		a.Value = []byte("20260101")
	case 4:
		a.Null = true
	case 5:
		a.Valid = false
	}
	a.Length = uint32(len(a.Value))
	if p.next() == 0xff {
		a.Length = 1 << (p.next() % 32)
	}
	return a
}

func (p *player) wanted() []wire.Wanted {
	types := append(p11.AllAttributeTypes(), 0x200, 0x201, 0x80000001)
	var list []wire.Wanted
	for range p.next()%4 + 1 {
		a := wire.Wanted{Type: types[(int(p.next())<<8|int(p.next()))%len(types)], Room: uint32(pick[byte](p, 100, 0, 1, 8, 24, 72))}
		if wire.IsTemplate(a.Type) && p.next()%2 == 0 {
			a.HasNested = true
			for range p.next() % 4 {
				a.Nested = append(a.Nested, wire.Wanted{Room: uint32(p.next())})
			}
		}
		list = append(list, a)
	}
	return list
}

// seedScripts adds, for each protocol, every call alone, the operations with
// every mechanism, and the captured requests.
func seedScripts(f *testing.F) {
	calls := fuzzCalls()
	record := func(call wire.Call, args ...byte) []byte {
		r := make([]byte, recordSize)
		r[0] = byte(slices.Index(calls, call))
		copy(r[2:], args)
		return r
	}
	script := func(records ...[]byte) []byte { return append([]byte{0}, bytes.Join(records, nil)...) }
	for _, p := range protocols {
		for _, call := range calls {
			f.Add(uint8(p), script(record(call)), []byte{})
		}
		for i := range fuzzMechanisms() {
			mech := byte(i)
			with := func(call wire.Call) []byte { return record(call, 0, mech) }
			if mech == 0 {
				with = func(call wire.Call) []byte { return record(call) }
			}
			f.Add(uint8(p), script(
				with(wire.CallEncryptInit), record(wire.CallEncrypt), with(wire.CallDecryptInit), record(wire.CallDecrypt, 0, 2),
				with(wire.CallEncryptInit), record(wire.CallEncryptUpdate), record(wire.CallEncryptFinal),
				with(wire.CallDecryptInit), record(wire.CallDecryptUpdate), record(wire.CallDecryptFinal),
			), []byte{})
			f.Add(uint8(p), script(
				with(wire.CallSignInit), record(wire.CallSign), with(wire.CallVerifyInit), record(wire.CallVerify, 0, 0, 2),
				with(wire.CallSignInit), record(wire.CallSignUpdate), record(wire.CallSignFinal),
				with(wire.CallVerifyInit), record(wire.CallVerifyUpdate), record(wire.CallVerifyFinal, 0, 2),
				with(wire.CallSignRecoverInit), record(wire.CallSignRecover), with(wire.CallVerifyRecoverInit), record(wire.CallVerifyRecover, 0, 2),
			), []byte{})
			f.Add(uint8(p), script(
				with(wire.CallDigestInit), with(wire.CallEncryptInit), record(wire.CallDigestEncryptUpdate), record(wire.CallEncryptFinal), record(wire.CallDigestFinal),
				with(wire.CallGenerateKey), with(wire.CallGenerateKeyPair), with(wire.CallWrapKey), with(wire.CallUnwrapKey), with(wire.CallDeriveKey),
			), []byte{})
		}
		var gets [][]byte
		for i := range byte(20) {
			gets = append(gets, record(wire.CallGetAttributeValue, 0, i, 3, 0, 8*i, i, 1, 8*i, 0, 0, 4*i, i, 2, i))
		}
		f.Add(uint8(p), script(gets...), []byte{})
		waiting := record(wire.CallWaitForSlotEvent, 1)
		f.Add(uint8(p), script(waiting, waiting, record(wire.CallGetInfo), record(wire.CallFinalize), record(wire.CallInitialize), waiting), []byte{})
		f.Add(uint8(p), script(record(wire.CallDigestInit, 0, 1), record(wire.CallDigestUpdate, 0, 7), record(wire.CallDigestUpdate, 0, 7), record(wire.CallDigestFinal)), []byte{})
		f.Add(uint8(p), script(
			record(wire.CallFindObjectsInit, 0, 7), record(wire.CallFindObjects), record(wire.CallFindObjectsFinal),
			record(wire.CallCreateObject, 0, 1), record(wire.CallGetAttributeValue, 0, 1), record(wire.CallSetAttributeValue, 0, 1), record(wire.CallCopyObject),
			record(wire.CallDestroyObject, 0, 1), record(wire.CallOpenSession), record(wire.CallCloseSession, 1), record(wire.CallLogout), record(wire.CallLogin),
		), []byte{})
	}
	for _, c := range captures(f) {
		_, body := captured(f, c.RequestHex)
		b, _ := wire.AppendFrame(nil, 1000, "client")
		b = append(b, body...)
		if err := wire.EndFrame(b, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(c.Protocol), []byte{}, b)
	}
}
