package rpc

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
)

// A capture is a request of p11-kit's client and the reply of p11-kit's server,
// in front of SoftHSM.
type capture struct {
	Name        string
	Protocol    wire.Protocol
	CallID      wire.Call `json:"call_id"`
	RequestHex  string    `json:"request_hex"`
	ResponseHex string    `json:"response_hex"`
}

func captures(t testing.TB) []capture {
	t.Helper()
	b, err := os.ReadFile("wire/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []capture }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Vectors
}

// A replay says how a capture is sent to a token of ours.
type replay struct {
	before  []step      // what makes the state that the request found, on a session "s" of a user that is logged in
	public  bool        // no user is logged in
	swap    map[int]any // arguments that are other ones here: handles and PINs
	form    bool        // the values of the reply are the token's own: only their form is compared
	rv      p11.RV      // what is said here where the tokens differ
	because string      // why they do
	differs string      // the difference of the servers
}

// softHSMSlot is the slot of the captures.
const softHSMSlot = 734577714

// replays has those captures of which there is something to be said.
func replays(k *keyring) map[string]replay {
	pin, wrong := []byte(userPIN), map[int]any{2: []byte("wrong pin")}
	ecdsa := with(k.ecPrivate, p11.CKA_LABEL, "ec1", p11.CKA_ID, []byte{1})
	ec := []step{create(ecdsa).as("key")}
	rsa := []step{create(with(k.rsaPrivate, p11.CKA_UNWRAP, true)).as("rsa"), create(with(k.rsaPublic, p11.CKA_WRAP, true)).as("rsapub"), create(aes(16)).as("aes")}
	limited := []step{create(aes(16, p11.CKA_ALLOWED_MECHANISMS, []p11.MechanismType{0x1081, 0x1082})).as("key")}
	templated := []step{create(aes(16, p11.CKA_WRAP_TEMPLATE, template())).as("key")}
	secret := []step{create(aes(16)).as("key")}
	derive := []step{create(with(k.ecPrivate, p11.CKA_DERIVE, true)).as("key")}
	digest := []step{do(wire.CallDigestInit, ref("s"), m(p11.CKM_SHA256))}
	find := append(ec, do(wire.CallFindObjectsInit, ref("s"), template(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY, p11.CKA_ID, []byte{1})))
	found := append(find, do(wire.CallFindObjects, ref("s"), room(1)))
	sign := append(ec, do(wire.CallSignInit, ref("s"), m(p11.CKM_ECDSA), ref("key")))
	encrypt := append(secret, do(wire.CallEncryptInit, ref("s"), m(p11.CKM_AES_ECB), ref("key")))
	key := map[int]any{1: ref("key")}
	init := map[int]any{2: ref("key")}
	label := "badlabel-no-such-slot           "
	return map[string]replay{
		"v0-00-C_Initialize":        {public: true},
		"v0-01-C_GetInfo":           {form: true},
		"v0-04-C_GetSlotList":       {form: true},
		"v0-05-C_GetSlotInfo":       {form: true},
		"v0-07-C_GetTokenInfo":      {form: true},
		"v0-08-C_GetMechanismInfo":  {form: true},
		"v0-09-C_OpenSession":       {form: true},
		"v0-10-C_GetSessionInfo":    {public: true},
		"v0-11-C_Login":             {public: true},
		"v0-12-C_Login":             {public: true},
		"v0-13-C_Login":             {public: true, swap: wrong},
		"v0-14-C_Login":             {public: true, swap: map[int]any{2: pin}},
		"v0-15-C_CreateObject":      {form: true},
		"v0-16-C_CreateObject":      {form: true},
		"v0-17-C_CreateObject":      {form: true, differs: "no templates"},
		"v0-18-C_GetAttributeValue": {before: ec, swap: key},
		"v0-19-C_GetAttributeValue": {before: ec, swap: key},
		"v0-20-C_GetAttributeValue": {before: ec, swap: key},
		"v0-21-C_GetAttributeValue": {before: ec, swap: key},
		"v0-22-C_GetAttributeValue": {before: limited, swap: key},
		"v0-23-C_GetAttributeValue": {before: limited, swap: key, differs: "mechanisms counted"},
		"v0-25-C_FindObjects":       {before: find, form: true},
		"v0-26-C_FindObjects":       {before: found},
		"v0-27-C_FindObjectsFinal":  {before: found},
		"v0-29-C_Digest":            {before: digest},
		"v0-30-C_Digest":            {before: digest},
		"v0-31-C_Digest":            {before: digest},
		"v0-32-C_DigestUpdate":      {before: digest},
		"v0-33-C_SignInit":          {before: ec, swap: init},
		"v0-34-C_Sign":              {before: sign, form: true},
		"v0-35-C_SignInit":          {before: rsa, swap: map[int]any{2: ref("rsa")}},
		"v0-36-C_EncryptInit":       {before: rsa, swap: map[int]any{2: ref("rsapub")}},
		"v0-37-C_EncryptFinal":      {before: encrypt, differs: "empty results"},
		"v0-38-C_GenerateKey":       {form: true},
		"v0-39-C_GenerateKeyPair":   {form: true},
		"v0-40-C_WrapKey":           {before: rsa, swap: map[int]any{2: ref("rsapub"), 3: ref("aes")}},
		"v0-41-C_UnwrapKey": {
			before: append(rsa, do(wire.CallWrapKey, ref("s"), m(p11.CKM_RSA_PKCS), ref("rsapub"), ref("aes"), room(256)).unlike().as("wrapped")),
			swap:   map[int]any{2: ref("rsa"), 3: kept("wrapped")}, form: true,
		},
		"v0-42-C_GenerateRandom":    {form: true},
		"v0-44-C_SetPIN":            {swap: map[int]any{1: pin, 2: pin}, rv: p11.CKR_PIN_INVALID, because: "the old PIN is no new one here"},
		"v0-45-C_InitToken":         {swap: map[int]any{1: []byte(soPIN), 2: label}},
		"v1-49-C_Login":             {public: true},
		"v1-50-C_SignInit":          {before: ec, swap: init},
		"v1-51-C_SignInit":          {before: ec, swap: init, rv: p11.CKR_OK, because: "SoftHSM is of 2.40, where a mechanism must be given"},
		"v1-52-C_EncryptInit":       {before: secret, swap: init},
		"v1-53-C_EncryptInit":       {before: secret, swap: init},
		"v1-54-C_EncryptInit":       {before: secret, swap: init},
		"v1-55-C_EncryptFinal":      {before: encrypt},
		"v1-56-C_DeriveKey":         {before: derive, swap: init, form: true},
		"v1-58-C_GetAttributeValue": {before: templated, swap: key},
		"v1-59-C_GetAttributeValue": {before: templated, swap: key, differs: "rooms misread"},
		"v2-60-C_SignInit":          {before: ec, swap: init},
		"v2-61-C_SignInit":          {before: rsa, swap: map[int]any{2: ref("rsa")}},
		"v2-62-C_SignInit":          {before: append(rsa, do(wire.CallSignInit, ref("s"), m(p11.CKM_RSA_PKCS), ref("rsa"))), swap: map[int]any{2: ref("rsa")}},
		"v2-63-C_EncryptInit":       {before: secret, swap: init},
		"v2-64-C_SignInit":          {before: k.importKeys(), swap: map[int]any{2: ref("mac")}, rv: p11.CKR_OK, because: "SoftHSM lacks the mechanism"},
		"v2-65-C_DeriveKey2":        {before: derive, swap: init, form: true},
		"v2-66-C_DeriveKey2":        {before: derive, swap: init},
		"v2-67-C_GetAttributeValue": {before: templated, swap: key},
		"v2-69-C_SessionCancel":     {rv: p11.CKR_OK, because: "SoftHSM is of 2.40, which has no such function"},
		"v2-70-C_SignMessageNext":   {rv: p11.CKR_OPERATION_NOT_INITIALIZED, because: "SoftHSM is of 2.40, which has no such function"},
		"v2-71-C_SignMessageNext":   {rv: p11.CKR_OPERATION_NOT_INITIALIZED, because: "SoftHSM is of 2.40, which has no such function"},
	}
}

// steps are those that replay a capture, the captured one last.
func (r replay) steps(t testing.TB, c capture) []step {
	t.Helper()
	steps := []step{open()}
	if !r.public {
		steps = append(steps, login())
	}
	st := c.step(t)
	for i, a := range r.swap {
		st.args[i] = a
	}
	st.random = r.form
	st.differs = r.differs
	steps = append(steps, r.before...)
	if c.CallID == wire.CallInitialize {
		return []step{st}
	}
	return append(steps, st)
}

// step takes the request of a capture apart, the session and the slot being ours.
func (c capture) step(t testing.TB) step {
	t.Helper()
	_, body := captured(t, c.RequestHex)
	r := wire.NewReader(body, c.Protocol)
	_, sig := r.Header()
	st := do(c.CallID)
	for rest := sig; rest != ""; {
		n := 1
		if strings.ContainsRune("af", rune(rest[0])) {
			n = 2
		}
		var a any
		switch one := rest[:n]; one {
		case "u":
			v := r.Ulong()
			a = v
			switch {
			case v == softHSMSlot:
				a = 3
			case len(st.args) == 0 && v == 1 && c.CallID != wire.CallWaitForSlotEvent:
				a = ref("s")
			}
		case "y":
			a = r.Byte()
		case "ay":
			a = r.Array()
		case "fy", "fu":
			a = room(r.Room())
		case "aA":
			a = r.Attributes()
		case "fA":
			a = r.Wanted()
		case "M":
			a = r.Mechanism(len(rest[n:]) * 8)
		case "s", "z":
			a = r.Text()
		default:
			t.Fatalf("value %q", one)
		}
		st.args = append(st.args, a)
		rest = rest[n:]
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	return st
}

func captured(t testing.TB, text string) (code uint32, body []byte) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	code, body, err = wire.ReadFrame(bufio.NewReader(bytes.NewReader(b)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return code, body
}

// TestCapturedRequests sends the captured requests to this server, in front of a
// token that is prepared like the captures', and compares with the captured
// replies.
func TestCapturedRequests(t *testing.T) {
	keys := readKeys(t)
	known := replays(keys)
	path, _ := serveSlots(t, Config{}, 3) // as many as there were
	for _, c := range captures(t) {
		t.Run(c.Name, func(t *testing.T) {
			r := known[c.Name]
			delete(known, c.Name)
			p := dialPeer(t, path, c.Protocol)
			steps := r.steps(t, c)
			if c.CallID != wire.CallInitialize {
				steps = append([]step{do(wire.CallInitialize, []byte(wire.Handshake), byte(0), []byte{0})}, steps...)
			}
			var got reply
			for i, st := range steps {
				got = p.exchange(t, st)
				if i < len(steps)-1 {
					p.settle(t, st, &got)
					if got.rv != p11.CKR_OK {
						t.Fatalf("before it: %v: %v", st, got.rv)
					}
				}
			}
			_, body := captured(t, c.ResponseHex)
			body = bytes.ReplaceAll(body, binary.BigEndian.AppendUint64(nil, softHSMSlot), binary.BigEndian.AppendUint64(nil, 3))
			want := reply{code: got.code, body: body}
			if rd := wire.NewReader(body, c.Protocol); len(body) == 8+1+8 {
				if call, _ := rd.Header(); call == uint32(wire.CallError) {
					want.rv = p11.RV(rd.Ulong())
				}
			}
			last := steps[len(steps)-1]
			switch d := stockDifferences()[r.differs]; {
			case r.because != "":
				if got.rv != r.rv || want.rv == r.rv {
					t.Errorf("%v, want %v since %s; captured %v", got, r.rv, r.because, want)
				}
			case r.differs != "":
				if !d.is(last, got, want) {
					t.Errorf("not the difference %q:\nours     %v\ncaptured %v", r.differs, got, want)
				}
			default:
				if r.form {
					got.body, want.body = shape(t, c, got), shape(t, c, want)
				}
				if got.rv != want.rv || !bytes.Equal(got.body, want.body) {
					t.Errorf("ours     %v\ncaptured %v", got, want)
				}
			}
		})
	}
	for name := range known {
		t.Errorf("there is no capture %s", name)
	}
}

// shape is a reply with its values wiped and their lengths, presence bytes, types
// and order left.
func shape(t testing.TB, c capture, r reply) []byte {
	t.Helper()
	if r.rv != p11.CKR_OK {
		return r.body
	}
	rd := wire.NewReader(r.body, c.Protocol)
	call, sig := rd.Header()
	w := wiretest.NewWriter(nil, c.Protocol)
	w.Header(call, sig)
	for rest := sig; rest != ""; {
		n := 1
		if rest[0] == 'a' {
			n = 2
		}
		switch one := rest[:n]; one {
		case "u":
			rd.Ulong()
			w.Ulong(0)
		case "v":
			wiretest.Version(rd)
			w.Version(p11.Version{})
		case "s":
			w.Space("", len(rd.Text()))
		case "ay":
			a := rd.Array()
			clear(a.Data)
			w.Array(a)
		case "au":
			list, absent, count := wiretest.Ulongs(rd)
			clear(list)
			if absent {
				w.Count(int(count))
			} else {
				wire.Ulongs(w.Writer, list)
			}
		case "P":
			w.Byte(rd.Byte())
		default:
			t.Fatalf("value %q", one)
		}
		rest = rest[n:]
	}
	if err := rd.End(); err != nil {
		t.Fatal(err)
	}
	return w.B
}

// capturedScenes are the captures of a protocol for both servers.
func capturedScenes(t testing.TB, k *keyring, p wire.Protocol) []scene {
	known := replays(k)
	var list []scene
	for _, c := range captures(t) {
		if c.Protocol != p {
			continue
		}
		list = append(list, scene{name: "captured/" + c.Name, bare: c.CallID == wire.CallInitialize, steps: known[c.Name].steps(t, c)})
	}
	return list
}
