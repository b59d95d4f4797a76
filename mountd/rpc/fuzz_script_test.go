package rpc

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// A player is a client that plays a script: a byte of flags, then records of
// equal length, one for each request. All bytes mean something, so that every
// mutation of a script is one; zeros mean what is most likely to succeed.
type player struct {
	t        testing.TB
	k        *client
	script   []byte
	pending  map[uint32]wire.Call // requests without a reply, by code
	sessions []uint64
	objects  []uint64 // those of setUp first
	last     []byte   // the last result
	// wrongPINs counts the replies that a PIN was wrong.
	wrongPINs int

	record []byte // of the request that is being made
	at     int
	key    uint64 // that fits the request's mechanism
}

// recordSize is the length of a record: the call, how it is sent, and bytes of
// which its arguments are made, over and over if they are more.
const recordSize = 16

// The flags of a script.
const (
	publicScript = 1 << iota // no user is logged in
	readOnlyScript
)

// How a request is sent.
const (
	sendUnwaited = 1 << iota // the next one is sent before its reply is there
	sendChanged              // bytes of it are changed
	sendCut                  // it ends early
	sendLonger               // there is more of it
)

// maxRequests bounds how long one input takes.
const maxRequests = 48

// The objects of setUp.
const (
	objectRSA = iota
	objectRSAPublic
	objectEC
	objectECPublic
	objectAES
	objectMAC
)

// fuzzMechanisms are mechanisms with the key that fits: for making a signature,
// and for everything else.
func fuzzMechanisms() []struct {
	t           p11.MechanismType
	key, public int
} {
	return []struct {
		t           p11.MechanismType
		key, public int
	}{
		{p11.CKM_AES_ECB, objectAES, objectAES},
		{p11.CKM_SHA256, objectMAC, objectMAC},
		{p11.CKM_SHA256_HMAC, objectMAC, objectMAC},
		{p11.CKM_RSA_PKCS, objectRSA, objectRSAPublic},
		{p11.CKM_ECDSA, objectEC, objectECPublic},
		{p11.CKM_ECDSA_SHA1, objectEC, objectECPublic},
		{p11.CKM_SHA256_RSA_PKCS, objectRSA, objectRSAPublic},
		{p11.CKM_RSA_PKCS_PSS, objectRSA, objectRSAPublic},
		{p11.CKM_RSA_PKCS_OAEP, objectRSA, objectRSAPublic},
		{p11.CKM_RSA_X_509, objectRSA, objectRSAPublic},
		{p11.CKM_AES_CBC, objectAES, objectAES},
		{p11.CKM_AES_CBC_PAD, objectAES, objectAES},
		{p11.CKM_AES_CTR, objectAES, objectAES},
		{p11.CKM_AES_GCM, objectAES, objectAES},
		{p11.CKM_SHA256_HMAC_GENERAL, objectMAC, objectMAC},
		{p11.CKM_ECDH1_DERIVE, objectEC, objectEC},
		{p11.CKM_AES_KEY_GEN, objectAES, objectAES},
		{p11.CKM_GENERIC_SECRET_KEY_GEN, objectAES, objectAES},
		{p11.CKM_EC_KEY_PAIR_GEN, objectEC, objectEC},
		{p11.CKM_AES_KEY_WRAP_PAD, objectAES, objectAES},
		{p11.CKM_RSA_AES_KEY_WRAP, objectRSA, objectRSAPublic},
		{0x7fffffff, objectAES, objectAES},
	}
}

// fuzzCalls are all calls, and one that is none.
func fuzzCalls() []wire.Call {
	var calls []wire.Call
	for call := wire.CallInitialize; call <= wire.CallDeriveKey2; call++ {
		calls = append(calls, call)
	}
	for call := wire.CallSignOnce; call <= wire.CallDigestOnce; call++ {
		calls = append(calls, call)
	}
	return append(calls, wire.CallDeriveKeys, wire.CallMessageInit, wire.CallMessageOne, wire.CallMessageBegin, wire.CallMessageNext, wire.CallMessageFinal, 200)
}

// newPlayer connects and makes a session, a login and objects. It returns nil if an
// earlier script has changed the user's PIN or locked it.
func newPlayer(t testing.TB, w *world, offered wire.Protocol, keys *keyring, script []byte) *player {
	t.Helper()
	p := &player{t: t, k: dial(t, w.path, offered), pending: map[uint32]wire.Call{}}
	if err := p.k.c.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	p.k.initialize()
	var flags byte
	if len(script) > 0 {
		flags, script = script[0], script[1:]
	}
	p.script = script
	p.sessions = []uint64{p.k.session()}
	s := p.sessions[0]
	_, rv := p.k.call(wire.CallLogin, func(w *wiretest.Writer) { w.Ulong(s); w.Ulong(uint64(p11.CKU_USER)); w.Array(data([]byte(userPIN))) })
	switch rv {
	case p11.CKR_OK:
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED:
		return nil
	default:
		t.Fatalf("logging in: %v", rv)
	}
	for _, st := range keys.importKeys() {
		list := st.args[1].([]wire.Attribute)
		p.objects = append(p.objects, p.k.must(wire.CallCreateObject, func(w *wiretest.Writer) { w.Ulong(s); w.Attributes(list) }).Ulong())
	}
	if flags&publicScript != 0 {
		p.k.must(wire.CallLogout, func(w *wiretest.Writer) { w.Ulong(s) })
	}
	if flags&readOnlyScript != 0 {
		r := p.k.must(wire.CallOpenSession, func(w *wiretest.Writer) { w.Ulong(3); w.Ulong(uint64(p11.CKF_SERIAL_SESSION)) })
		p.sessions = append([]uint64{r.Ulong()}, p.sessions...)
	}
	return p
}

// next is the next byte of the record.
func (p *player) next() byte {
	b := p.record[p.at%len(p.record)]
	p.at++
	return b
}

func pick[T any](p *player, list ...T) T { return list[int(p.next())%len(list)] }

// play sends the requests of the script.
func (p *player) play() {
	p.t.Helper()
	calls := fuzzCalls()
	for n := 0; n < maxRequests && len(p.script) > 0; n++ {
		p.record = make([]byte, recordSize)
		p.script = p.script[copy(p.record, p.script):]
		call, how := calls[int(p.record[0])%len(calls)], p.record[1]
		p.record, p.at = p.record[2:], 0
		p.k.code++
		b, _ := wire.AppendFrame(nil, p.k.code, "client")
		w := wiretest.NewWriter(b, p.k.protocol)
		sig, _ := wire.Signatures(call)
		w.Header(uint32(call), sig.Request)
		p.arguments(w, call, sig.Request)
		w.B = p.change(w.B, len(b), how)
		if err := wire.EndFrame(w.B, 0); err != nil {
			p.t.Fatal(err)
		}
		p.pending[p.k.code] = call
		if _, err := p.k.c.Write(w.B); err != nil {
			p.t.Fatal(err)
		}
		// What was changed may be a call that waits.
		if how&(sendUnwaited|sendChanged) == 0 && call != wire.CallWaitForSlotEvent {
			p.await(p.k.code)
		}
	}
}

// change changes the body that begins at start.
func (p *player) change(b []byte, start int, how byte) []byte {
	place := func() int { return start + (int(p.next())<<8|int(p.next()))%(len(b)-start) }
	if how&sendChanged != 0 {
		for range p.next()%3 + 1 {
			b[place()] ^= p.next()
		}
	}
	if how&sendCut != 0 {
		b = b[:place()]
	}
	if how&sendLonger != 0 {
		b = append(b, p.record[:p.next()%recordSize%byte(len(p.record))]...)
	}
	return b
}

// await reads replies until that of code has come.
func (p *player) await(code uint32) {
	p.t.Helper()
	for p.pending[code] != 0 {
		got, body, err := wire.ReadFrame(p.k.r, nil, nil)
		if err != nil {
			p.t.Fatalf("waiting for the reply of call %d: %v", p.pending[code], err)
		}
		p.take(got, body, false)
	}
}

// take checks a reply, and keeps what it brings. Others than those to the script's
// requests may be there only if there is a tail.
func (p *player) take(code uint32, body []byte, others bool) {
	p.t.Helper()
	r := wire.NewReader(body, p.k.protocol)
	call, sig := r.Header()
	asked, ok := p.pending[code]
	delete(p.pending, code)
	if !ok && !others {
		p.t.Fatalf("a reply %x to %d, which was not asked", body, code)
	}
	if call == uint32(wire.CallError) {
		rv := p11.RV(r.Ulong())
		if sig != "u" || r.End() != nil || rv == p11.CKR_OK {
			p.t.Fatalf("an error reply %x", body)
		}
		if rv == p11.CKR_PIN_INCORRECT {
			p.wrongPINs++
		}
		return
	}
	if want, known := wire.Signatures(wire.Call(call)); !known || want.Response != sig {
		p.t.Fatalf("a reply %d with signature %q", call, sig)
	}
	first := wire.NewReader(body, p.k.protocol)
	first.Header()
	switch {
	case wire.Call(call) == wire.CallDeriveKey2:
		r.Ulong() // how long `P` is depends on the mechanism
		p.objects = append(p.objects, 0)
		return
	case wire.Call(call) == wire.CallOpenSession && asked == wire.CallOpenSession:
		p.sessions = append(p.sessions, first.Ulong())
	case slices.Contains([]wire.Call{wire.CallCreateObject, wire.CallCopyObject, wire.CallGenerateKey, wire.CallUnwrapKey, wire.CallDeriveKey}, wire.Call(call)):
		p.objects = append(p.objects, first.Ulong())
	case wire.Call(call) == wire.CallGenerateKeyPair:
		p.objects = append(p.objects, first.Ulong(), first.Ulong())
	case sig == "ay":
		if a := first.Array(); !a.IsNull() {
			p.last = bytes.Clone(a.Data)
		}
	}
	readValues(r, sig)
	if err := r.End(); err != nil {
		p.t.Fatalf("reply %x of call %d: %v", body, call, err)
	}
}

// readValues reads the values of a reply.
func readValues(r *wire.Reader, sig string) {
	for sig != "" {
		n := 1
		if strings.ContainsRune("af", rune(sig[0])) {
			n = 2
		}
		switch sig[:n] {
		case "u":
			r.Ulong()
		case "v":
			wiretest.Version(r)
		case "s":
			r.Text()
		case "ay":
			r.Array()
		case "au":
			wiretest.Ulongs(r)
		case "aA":
			r.Attributes()
		}
		sig = sig[n:]
	}
}
