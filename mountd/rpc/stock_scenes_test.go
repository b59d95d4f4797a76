package rpc

import (
	"fmt"
	"slices"
	"strings"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// rooms are those that a request may have for a result of n bytes: for a
// question, too little, exactly enough, and more.
func rooms(n int) []room { return []room{0, 1, room(n - 1), room(n), room(n + 100)} }

// noRoom is a buffer of no length, which clients say from protocol 1 on.
const noRoom room = 0xffffffff

const rwFlags = int(p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION)

func open() step { return do(wire.CallOpenSession, 3, rwFlags).as("s") }

func login() step { return do(wire.CallLogin, ref("s"), p11.CKU_USER, []byte(userPIN)) }

func begin(steps ...step) []step { return append([]step{open(), login()}, steps...) }

func scenes(k *keyring) []scene {
	list := []scene{
		{name: "before C_Initialize", bare: true, steps: withoutCloseAll(everyCall(0x7ffffff0))},
		{name: "C_Initialize with a string", bare: true, steps: []step{do(wire.CallInitialize, []byte(wire.Handshake), byte(1), []byte("string\x00")).defect("string")}},
		{name: "general", steps: generalSteps()},
		{name: "wrong sessions", steps: append([]step{open()}, everyCall(0x7ffffff0)...)},
		{name: "session 0", steps: append([]step{open()}, everyCall(0)...)},
		{name: "after C_Finalize", steps: append([]step{open(), do(wire.CallFinalize), do(wire.CallFinalize)}, withoutCloseAll(everyCall(1))...)},
		{name: "sessions", steps: sessionSteps()},
		{name: "logins", steps: loginSteps()},
		{name: "PINs", steps: pinSteps()},
	}
	list = append(list, objectScenes(k)...)
	list = append(list, cryptoScenes(k)...)
	list = append(list, keyScenes(k)...)
	list = append(list, laterScenes(k)...)
	// They wipe the token, so they come last.
	label := fmt.Sprintf("%-32s", "made anew")
	return append(list,
		scene{name: "C_InitToken2", since: wire.V1, steps: initTokenSteps(wire.CallInitToken2, label)},
		scene{name: "C_InitToken", steps: append(initTokenSteps(wire.CallInitToken, label),
			do(wire.CallCloseAllSessions, 3),
			do(wire.CallInitToken, 3, []byte(soPIN), label+"and more than fits"),
			do(wire.CallGetTokenInfo, 3),
			open(),
			do(wire.CallLogin, ref("s"), p11.CKU_SO, []byte(soPIN)),
			do(wire.CallSetPIN, ref("s"), []byte(soPIN), []byte("another1")),
			do(wire.CallInitPIN, ref("s"), []byte("another2")),
			do(wire.CallGetTokenInfo, 3),
		)},
	)
}

// everyCall has one request for each call but C_Initialize and C_Finalize, with
// the handle given as every session and object, and for those that name a slot
// as that.
func everyCall(handle uint64) []step {
	var steps []step
	for call := wire.CallGetInfo; call <= wire.CallDeriveKey2; call++ {
		sig, _ := wire.Signatures(call)
		s := do(call)
		for rest := sig.Request; rest != ""; {
			n := 1
			if strings.ContainsRune("af", rune(rest[0])) {
				n = 2
			}
			var a any
			switch rest[:n] {
			case "u":
				a = handle
				if call == wire.CallWaitForSlotEvent {
					a = p11.CKF_DONT_BLOCK
				}
			case "y":
				a = byte(1)
			case "ay":
				a = []byte("data")
			case "fy", "fu":
				a = room(16)
			case "aA":
				a = template(p11.CKA_LABEL, "x")
			case "fA":
				a = wanted(p11.CKA_LABEL, 16)
			case "M":
				a = m(p11.CKM_SHA256)
			case "z", "s":
				a = fmt.Sprintf("%-32s", "label")
			}
			s.args = append(s.args, a)
			rest = rest[n:]
		}
		if call == wire.CallCloseAllSessions {
			s.differs = "sessions of slots"
		}
		s.since = since(call)
		steps = append(steps, s)
	}
	return steps
}

// withoutCloseAll leaves out what p11-kit's server is not asked before
// C_Initialize: see malformed.
func withoutCloseAll(steps []step) []step {
	return slices.DeleteFunc(steps, func(s step) bool { return s.call == wire.CallCloseAllSessions })
}

// since is the first protocol that has a call.
func since(call wire.Call) wire.Protocol {
	switch {
	case call >= wire.CallSignOnce:
		return wire.Own
	case call >= wire.CallDeriveKey2:
		return wire.V2
	case call >= wire.CallLoginUser:
		return wire.V1
	}
	return wire.V0
}

func generalSteps() []step {
	steps := []step{
		do(wire.CallInitialize, []byte(wire.Handshake), byte(0), []byte{0}),
		do(wire.CallInitialize, []byte("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-2"), byte(0), []byte{0}),
		do(wire.CallInitialize, []byte("x"), byte(1), []byte("init string\x00")),
		do(wire.CallGetInfo),
	}
	for _, present := range []byte{0, 1, 2} {
		for _, r := range []room{0, 1, 2, 16, 1000} {
			steps = append(steps, do(wire.CallGetSlotList, present, r))
		}
	}
	for _, slot := range []int{3, 0, 99, 1 << 40} {
		steps = append(steps, do(wire.CallGetSlotInfo, slot), do(wire.CallGetTokenInfo, slot))
		for _, r := range []room{0, 1, 60, 1000} {
			list := do(wire.CallGetMechanismList, slot, r)
			if slot == 3 {
				list.differs = "mechanisms"
			}
			steps = append(steps, list)
		}
	}
	for _, t := range p11.AllMechanismTypes() {
		steps = append(steps, do(wire.CallGetMechanismInfo, 3, t))
	}
	return append(steps,
		do(wire.CallGetMechanismInfo, 3, 0x7fffffff),
		do(wire.CallGetMechanismInfo, 99, p11.CKM_RSA_PKCS),
		do(wire.CallWaitForSlotEvent, p11.CKF_DONT_BLOCK),
		do(wire.CallFinalize),
		do(wire.CallGetInfo),
		do(wire.CallInitialize, []byte(wire.Handshake), byte(0), []byte{0}),
		do(wire.CallGetSlotList, byte(1), room(4)),
	)
}

func sessionSteps() []step {
	steps := []step{
		do(wire.CallOpenSession, 3, int(p11.CKF_SERIAL_SESSION)).as("ro"),
		open(),
		do(wire.CallOpenSession, 3, 0),
		do(wire.CallOpenSession, 3, int(p11.CKF_RW_SESSION)),
		do(wire.CallOpenSession, 3, 0xff),
		do(wire.CallOpenSession, 99, rwFlags),
		do(wire.CallGetTokenInfo, 3),
		do(wire.CallGetSessionInfo, ref("ro")),
		do(wire.CallGetSessionInfo, ref("s")),
		login(),
		do(wire.CallGetSessionInfo, ref("ro")),
		do(wire.CallGetSessionInfo, ref("s")),
		do(wire.CallGetOperationState, ref("s"), room(0)),
		do(wire.CallGetOperationState, ref("s"), room(100)),
		do(wire.CallSetOperationState, ref("s"), []byte("state"), 0, 0),
		do(wire.CallSetOperationState, ref("s"), []byte{}, 0, 0),
		do(wire.CallCloseSession, ref("ro")),
		do(wire.CallCloseSession, ref("ro")),
		do(wire.CallGetSessionInfo, ref("ro")),
		do(wire.CallGetSessionInfo, ref("s")),
		do(wire.CallCloseAllSessions, 3),
		do(wire.CallGetSessionInfo, ref("s")),
		do(wire.CallCloseAllSessions, 3),
		do(wire.CallCloseAllSessions, 99).defect("sessions of slots"),
		open(), // not logged in any more
		do(wire.CallGetSessionInfo, ref("s")),
		do(wire.CallSeedRandom, ref("s"), []byte("seed")),
		do(wire.CallSeedRandom, ref("s"), []byte{}),
		do(wire.CallSeedRandom, ref("s"), none{}),
		do(wire.CallGenerateRandom, ref("s"), room(1)).unlike(),
		do(wire.CallGenerateRandom, ref("s"), room(16)).unlike(),
		do(wire.CallGenerateRandom, ref("s"), room(300_000)).unlike(),
		do(wire.CallGenerateRandom, ref("s"), room(0)),
	}
	return steps
}

func loginSteps() []step {
	pin := []byte(userPIN)
	return []step{
		open(),
		do(wire.CallLogout, ref("s")),
		do(wire.CallLogin, ref("s"), p11.CKU_USER, none{}),
		do(wire.CallLogin, ref("s"), p11.CKU_USER, []byte{}),
		do(wire.CallLogin, ref("s"), p11.CKU_USER, []byte("wrong pin")),
		do(wire.CallLogin, ref("s"), 7, pin),
		do(wire.CallLogin, ref("s"), 1<<40, pin),
		do(wire.CallLogin, ref("s"), p11.CKU_CONTEXT_SPECIFIC, pin),
		do(wire.CallGetTokenInfo, 3),
		login(),
		login(),
		do(wire.CallLogin, ref("s"), p11.CKU_SO, []byte(soPIN)),
		do(wire.CallLogin, ref("s"), p11.CKU_CONTEXT_SPECIFIC, pin),
		do(wire.CallGetTokenInfo, 3),
		do(wire.CallLogout, ref("s")),
		do(wire.CallLogout, ref("s")),
		do(wire.CallOpenSession, 3, int(p11.CKF_SERIAL_SESSION)).as("ro"),
		do(wire.CallLogin, ref("s"), p11.CKU_SO, []byte(soPIN)),
		do(wire.CallCloseSession, ref("ro")),
		do(wire.CallLogin, ref("s"), p11.CKU_SO, []byte(soPIN)),
		do(wire.CallOpenSession, 3, int(p11.CKF_SERIAL_SESSION)),
		do(wire.CallGetSessionInfo, ref("s")),
	}
}

func pinSteps() []step {
	s, pin, other := ref("s"), []byte(userPIN), []byte("another1")
	return []step{
		open(),
		do(wire.CallInitPIN, s, pin),
		do(wire.CallSetPIN, s, []byte("wrong pin"), other),
		do(wire.CallSetPIN, s, pin, []byte("1")),
		do(wire.CallSetPIN, s, pin, []byte{}),
		do(wire.CallSetPIN, s, pin, []byte(strings.Repeat("1", 300))),
		do(wire.CallSetPIN, s, pin, none{}),
		do(wire.CallSetPIN, s, pin, other),
		do(wire.CallSetPIN, s, other, pin),
		login(),
		do(wire.CallInitPIN, s, pin),
		do(wire.CallSetPIN, s, pin, pin),
		do(wire.CallLogout, s),
		do(wire.CallLogin, s, p11.CKU_SO, []byte(soPIN)),
		do(wire.CallInitPIN, s, []byte("1")),
		do(wire.CallInitPIN, s, []byte{}),
		do(wire.CallInitPIN, s, none{}),
		do(wire.CallInitPIN, s, pin),
		do(wire.CallSetPIN, s, []byte(soPIN), []byte(soPIN)),
		do(wire.CallSetPIN, s, []byte("wrong pin"), []byte(soPIN)),
		do(wire.CallOpenSession, 3, rwFlags).as("s2"),
		do(wire.CallSetPIN, ref("s2"), []byte(soPIN), []byte(soPIN)),
		do(wire.CallGetTokenInfo, 3),
	}
}

func initTokenSteps(call wire.Call, label string) []step {
	so := []byte(soPIN)
	return []step{
		open(),
		do(call, 3, so, label), // while there is a session
		do(wire.CallCloseAllSessions, 3),
		do(call, 99, so, label),
		do(call, 3, []byte("wrong pin"), label),
		do(call, 3, none{}, label),
		do(call, 3, []byte{}, label),
		do(call, 3, so, label),
		do(wire.CallGetTokenInfo, 3),
		open(),
		login(),
		do(wire.CallLogin, ref("s"), p11.CKU_SO, so),
	}
}
