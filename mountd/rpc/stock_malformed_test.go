package rpc

import (
	"encoding/binary"
	"fmt"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// malformed are requests that no client sends, one on each connection, since most
// of them are its last at p11-kit's server.
func malformed() []scene {
	body := func(call uint32, signature string, rest ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, call)
		b = binary.BigEndian.AppendUint32(b, uint32(len(signature)))
		return append(append(b, signature...), rest...)
	}
	one := func(name, key string, s step) scene {
		s.differs = key
		return scene{name: "malformed/" + name, steps: begin(s)}
	}
	plainBody := func(name, key string, b []byte) scene { return one(name, key, step{raw: b}) }
	s := ref("s")
	list := []scene{
		{name: "malformed/C_CloseAllSessions before C_Initialize", bare: true, steps: []step{do(wire.CallCloseAllSessions, 3).defect("aborts")}},
		{name: "malformed/C_CloseAllSessions after C_Finalize", steps: []step{do(wire.CallFinalize), do(wire.CallCloseAllSessions, 3).defect("aborts")}},
		plainBody("nothing", "closes", []byte{}),
		plainBody("half a call", "closes", []byte{0, 0}),
		plainBody("call 0", "closes", body(0, "u", make([]byte, 8)...)),
		plainBody("unknown call", "closes", body(4711, "")),
		plainBody("a call of libp11fs.so", "closes", body(uint32(wire.CallSignOnce), "uMuayfy")),
		plainBody("long signature", "closes", append(body(3, "")[:4], 0xff, 0xff, 0xff, 0xff)),
		plainBody("other signature", "closes", body(3, "u", make([]byte, 8)...)),
		plainBody("no session", "closes", body(11, "u")),
		plainBody("half a session", "closes", body(11, "u", 0, 0, 0)),
		plainBody("bytes left", "bytes left", body(3, "", 1, 2, 3)),
		one("many attributes", "huge room", do(wire.CallFindObjectsInit, s, raw{0xff, 0xff, 0xff, 0xff})),
		one("more attributes than there are", "closes", do(wire.CallFindObjectsInit, s, raw{0, 0, 0, 2, 0, 0, 0, 3, 0})),
		one("half an attribute", "closes", do(wire.CallFindObjectsInit, s, raw{0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 0})),
		one("long value", "closes", do(wire.CallFindObjectsInit, s, raw{0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 0, 0, 9, 0, 0, 0, 9, 'x'})),
		one("many attributes wanted", "huge room", do(wire.CallGetAttributeValue, s, 1, raw{0xff, 0xff, 0xff, 0xff})),
		one("long array", "closes", do(wire.CallSeedRandom, s, raw{1, 0, 0, 0, 9, 'x'})),
		one("huge list", "huge room", do(wire.CallGetSlotList, byte(1), noRoom)),
		one("huge list of objects", "huge room", do(wire.CallFindObjects, s, noRoom)),
		one("huge buffer", "huge room", do(wire.CallSignFinal, s, room(0x80000000))),
		one("no room", "closes", do(wire.CallGenerateRandom, s)),
		one("half a mechanism", "closes", do(wire.CallDigestInit, s, raw{0, 0})),
	}
	for _, t := range []p11.MechanismType{p11.CKM_EDDSA, p11.CKM_AES_KEY_WRAP, p11.CKM_RSA_AES_KEY_WRAP, 0x7fffffff} {
		list = append(list, one(fmt.Sprintf("mechanism %v", t), "closes", do(wire.CallDigestInit, s, raw(binary.BigEndian.AppendUint32(nil, uint32(t))))))
	}
	return list
}
