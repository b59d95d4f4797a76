package engine_test

import (
	"flag"
	"strings"
	"testing"

	"p11fs/engine"
	"p11fs/engine/enginetest"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/tokentest/hooks"
)

// everyState is which of the cases TestStates has: with 2 it takes a few seconds, with 1,
// which is all of them, twice as long.
var everyState = flag.Int("every-state", 2, "have TestStates make each n-th of its cases")

// A door makes the calls of enginetest.
type door struct {
	t       *testing.T
	engine  *engine.Engine
	slot    *engine.Slot
	app     *engine.Application
	helper  *engine.Session
	session p11.SessionHandle
	pins    map[string]string
	keys    map[string]p11.ObjectHandle // by purpose and whose: "aes public"
	object  p11.ObjectHandle
	wrapped []byte
	proof   []byte // of data, by the key "mac public"
	sealed  []byte // by "rsa public"
	point   []byte
	text    []byte // of a message, by the key "aes public"
	tag     []byte // of that
}

var data = []byte("16 bytes of data")

func (d *door) pin(user string) *secret.Bytes { return pin(d.t, d.pins[user]) }

// begin is a new application, with its keys.
func (d *door) begin() {
	t, ctx := d.t, d.t.Context()
	if d.app != nil {
		d.app.Close()
	}
	d.app = d.engine.NewApplication(engine.Owner{UID: 1}, engine.ForPrograms)
	var err error
	d.helper, err = d.app.OpenSession(ctx, d.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	ok(t, err)
	d.session, d.keys = 0, map[string]p11.ObjectHandle{}
	d.make("public", "private=false")
	public, private, err := d.helper.GenerateKeyPair(ctx, mechanism(t, "rsa-pkcs-key-pair-gen"), parse(t, "modulus-bits=1024 private=false verify-recover=true"), parse(t, "private=false sign-recover=true"))
	ok(t, err)
	d.keys["rsa public"], d.keys["rsa private"] = public, private
	public, d.keys["ec"], err = d.helper.GenerateKeyPair(ctx, mechanism(t, "ec-key-pair-gen"), parse(t, "ec-params=secp256r1 private=false"), parse(t, "private=false derive=true"))
	ok(t, err)
	d.object, err = d.helper.CreateObject(ctx, parse(t, "class=data label=one"))
	ok(t, err)
	point, err := d.helper.GetAttributeValue(ctx, public, p11.CKA_EC_POINT)
	ok(t, err)
	d.point = point[0].Value[2:]
	ok(t, d.helper.Init(ctx, p11.CKF_SIGN, mechanism(t, "sha256-hmac"), d.keys["mac public"]))
	d.proof, err = d.helper.Do(ctx, p11.CKF_SIGN, data, nil, engine.NoLimit)
	ok(t, err)
	ok(t, d.helper.Init(ctx, p11.CKF_SIGN_RECOVER, mechanism(t, "rsa-pkcs"), d.keys["rsa private"]))
	d.sealed, err = d.helper.Do(ctx, p11.CKF_SIGN_RECOVER, data, nil, engine.NoLimit)
	ok(t, err)
	ok(t, d.helper.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, d.keys["aes public"]))
	text, a, err := d.helper.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, engine.AEADMessage{IV: data[:12], TagBits: 128}, nil, data, engine.NoLimit)
	ok(t, err)
	ok(t, d.helper.MessageFinal(ctx, p11.CKF_MESSAGE_ENCRYPT))
	d.text, d.tag = text, a.Tag
	d.wrapped, err = d.helper.WrapKey(ctx, mechanism(t, "aes-key-wrap-kwp"), d.keys["aes public"], d.keys["mac public"])
	ok(t, err)
}

func (d *door) make(whose, more string) {
	var err error
	d.keys["aes "+whose], err = d.helper.CreateObject(d.t.Context(), parse(d.t, "class=secret-key key-type=aes value=0x000102030405060708090a0b0c0d0e0f wrap=true unwrap=true "+more))
	ok(d.t, err)
	d.keys["mac "+whose], err = d.helper.CreateObject(d.t.Context(), parse(d.t, "class=secret-key key-type=generic-secret value=0x000102030405060708090a0b0c0d0e0f extractable=true "+more))
	ok(d.t, err)
}

// known says whether the engine has the function: the others are a module's.
func known(line string) bool {
	return !strings.HasPrefix(line, "C_Async") && line != "C_GetFunctionStatus" && line != "C_CancelFunction"
}

// call makes the call of a line.
func (d *door) call(line string) error {
	ctx := d.t.Context()
	name, arg, _ := strings.Cut(line, " ")
	switch name {
	case "begin":
		d.begin()
		return nil
	case "make":
		d.make(arg, map[string]string{"temp": "private=false", "private": "private=true"}[arg])
		return nil
	case "destroy":
		ok(d.t, d.helper.DestroyObject(ctx, d.keys["aes "+arg]))
		ok(d.t, d.helper.DestroyObject(ctx, d.keys["mac "+arg]))
		return nil
	case "open-ro", "open-rw":
		flags := p11.Flags(p11.CKF_SERIAL_SESSION)
		if name == "open-rw" {
			flags |= p11.CKF_RW_SESSION
		}
		s, err := d.app.OpenSession(ctx, d.slot, flags)
		if err == nil {
			d.session = s.Handle()
		}
		return err
	case "C_InitToken":
		return d.app.InitToken(ctx, d.slot, d.pin("so"), "x")
	}
	s, err := d.app.Session(d.session)
	if err != nil {
		return err
	}
	if is, err := d.objects(s, name, arg); is {
		return err
	}
	if is, err := d.messages(s, name, arg); is {
		return err
	}
	if is, err := d.operation(s, name, arg); is {
		return err
	}
	switch name {
	case "C_CloseSession":
		return s.Close()
	case "C_GetSessionInfo":
		_, err = s.Info()
	case "C_GetSessionValidationFlags":
		_, err = s.ValidationFlags(p11.CKS_LAST_VALIDATION_OK)
	case "C_GetOperationState":
		_, err = s.GetOperationState(ctx, engine.NoLimit)
	case "C_SetOperationState":
		err = s.SetOperationState(ctx, data, 0, 0)
	case "C_GenerateRandom":
		_, err = s.GenerateRandom(ctx, 8)
	case "C_SeedRandom":
		err = s.SeedRandom(ctx, data)
	case "C_Login", "C_LoginUser":
		users := map[string]p11.UserType{"user": p11.CKU_USER, "so": p11.CKU_SO, "context": p11.CKU_CONTEXT_SPECIFIC, "other": 7}
		err = s.Login(ctx, users[arg], d.pin(arg))
	case "C_Logout":
		err = s.Logout(ctx)
	case "C_InitPIN":
		err = s.InitPIN(ctx, d.pin("user"))
	case "C_SetPIN":
		another := arg + " 1"
		if d.pins[arg] == another {
			another = arg + " 2"
		}
		if err = s.SetPIN(ctx, d.pin(arg), pin(d.t, another)); err == nil {
			d.pins[arg] = another
		}
	case "C_SessionCancel":
		err = s.SessionCancel(ctx, map[string]p11.Flags{"all": ^p11.Flags(0), "Sign": p11.CKF_SIGN, "FindObjects": p11.CKF_FIND_OBJECTS}[arg])
	default:
		d.t.Fatalf("no such call: %s", line)
	}
	return err
}

// objects makes a call of objects. What it makes goes at once.
func (d *door) objects(s *engine.Session, name, arg string) (is bool, err error) {
	ctx, t := d.t.Context(), d.t
	places := map[string]string{"session": "private=false", "private": "private=true", "token": "token=true private=false", "private-token": "token=true private=true"}
	where := places[arg]
	var made []p11.ObjectHandle
	var h p11.ObjectHandle
	switch name {
	case "C_CreateObject":
		h, err = s.CreateObject(ctx, parse(t, "class=data label=two "+where))
	case "C_CopyObject":
		h, err = s.CopyObject(ctx, d.object, parse(t, where))
	case "C_GenerateKey":
		h, err = s.GenerateKey(ctx, mechanism(t, "aes-key-gen"), parse(t, "value-len=16 "+where))
	case "C_GenerateKeyPair":
		var public p11.ObjectHandle
		public, h, err = s.GenerateKeyPair(ctx, mechanism(t, "ec-key-pair-gen"), parse(t, "ec-params=secp256r1 private=false"), parse(t, where))
		if err == nil {
			made = append(made, public)
		}
	case "C_UnwrapKey":
		h, err = s.UnwrapKey(ctx, mechanism(t, "aes-key-wrap-kwp"), d.keys["aes public"], d.wrapped, parse(t, "class=secret-key key-type=generic-secret "+where))
	case "C_DeriveKey":
		m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: d.point}}
		h, err = s.DeriveKey(ctx, m, d.keys["ec"], parse(t, "class=secret-key key-type=generic-secret value-len=16 "+where))
	case "C_WrapKey":
		_, err = s.WrapKey(ctx, mechanism(t, "aes-key-wrap-kwp"), d.keys["aes public"], d.keys["mac public"])
	case "C_EncapsulateKey":
		_, _, err = s.EncapsulateKey(ctx, mechanism(t, "sha256"), d.keys["rsa public"], nil, engine.NoLimit)
	case "C_DecapsulateKey":
		_, err = s.DecapsulateKey(ctx, mechanism(t, "sha256"), d.keys["rsa private"], data, nil)
	case "C_DestroyObject", "C_SetAttributeValue":
		other, e := d.helper.CreateObject(ctx, parse(t, "class=data label=three "+where))
		ok(t, e)
		made = append(made, other)
		if name == "C_DestroyObject" {
			if err = s.DestroyObject(ctx, other); err == nil {
				made = nil
			}
		} else {
			err = s.SetAttributeValue(ctx, other, parse(t, "label=four"))
		}
	case "C_GetObjectSize":
		_, err = s.ObjectSize(ctx, d.object)
	case "C_GetAttributeValue":
		of := d.object
		if arg == "gone" {
			of, err = d.helper.CopyObject(ctx, d.object, nil)
			ok(t, err)
			ok(t, d.helper.DestroyObject(ctx, of))
		}
		_, err = s.GetAttributeValue(ctx, of, p11.CKA_LABEL)
	case "C_FindObjectsInit":
		err = s.FindObjectsInit(ctx, parse(t, "label=one"))
	case "C_FindObjects":
		_, err = s.FindObjects(ctx, 10)
	case "C_FindObjectsFinal":
		err = s.FindObjectsFinal(ctx)
	default:
		return false, nil
	}
	if h != 0 {
		made = append(made, h)
	}
	for _, h := range made {
		ok(t, d.helper.DestroyObject(ctx, h))
	}
	return true, err
}

// operation makes a call of an operation.
func (d *door) operation(s *engine.Session, name, arg string) (is bool, err error) {
	ctx := d.t.Context()
	switch name {
	case "C_DigestKey":
		return true, s.DigestKey(ctx, d.keys["mac public"])
	case "C_VerifySignatureInit":
		if arg == "null" {
			return true, s.SessionCancel(ctx, p11.CKF_VERIFY)
		}
		return true, s.VerifySignatureInit(ctx, mechanism(d.t, "sha256-hmac"), d.keys["mac "+arg], d.proof)
	case "C_VerifySignature":
		return true, s.VerifySignature(ctx, data)
	case "C_VerifySignatureUpdate":
		return true, s.VerifySignatureUpdate(ctx, data)
	case "C_VerifySignatureFinal":
		return true, s.VerifySignatureFinal(ctx)
	}
	duals := map[string][2]p11.Flags{
		"C_DigestEncryptUpdate": {p11.CKF_ENCRYPT, p11.CKF_DIGEST}, "C_DecryptDigestUpdate": {p11.CKF_DECRYPT, p11.CKF_DIGEST},
		"C_SignEncryptUpdate": {p11.CKF_ENCRYPT, p11.CKF_SIGN}, "C_DecryptVerifyUpdate": {p11.CKF_DECRYPT, p11.CKF_VERIFY},
	}
	if two, is := duals[name]; is {
		_, err := s.UpdateBoth(ctx, two[0], two[1], data, engine.NoLimit)
		return true, err
	}
	for _, one := range []struct {
		name, key, mech string
		flag            p11.Flags
		data, signature []byte
	}{
		{"Encrypt", "aes", "aes-cbc,iv=0x000102030405060708090a0b0c0d0e0f", p11.CKF_ENCRYPT, data, nil},
		{"Decrypt", "aes", "aes-cbc,iv=0x000102030405060708090a0b0c0d0e0f", p11.CKF_DECRYPT, data, nil},
		{"Digest", "", "sha256", p11.CKF_DIGEST, data, nil},
		{"SignRecover", "rsa", "rsa-pkcs", p11.CKF_SIGN_RECOVER, data, nil},
		{"VerifyRecover", "rsa", "rsa-pkcs", p11.CKF_VERIFY_RECOVER, d.sealed, nil},
		{"Sign", "mac", "sha256-hmac", p11.CKF_SIGN, data, nil},
		{"Verify", "mac", "sha256-hmac", p11.CKF_VERIFY, data, d.proof},
	} {
		var err error
		switch name {
		case "C_" + one.name + "Init":
			if arg == "null" {
				return true, s.SessionCancel(ctx, one.flag)
			}
			key := d.keys[one.key+" "+arg]
			if one.name == "SignRecover" {
				key = d.keys["rsa private"]
			}
			err = s.Init(ctx, one.flag, mechanism(d.t, one.mech), key)
		case "C_" + one.name:
			_, err = s.Do(ctx, one.flag, one.data, one.signature, engine.NoLimit)
		case "C_" + one.name + "Update":
			_, err = s.Update(ctx, one.flag, one.data, engine.NoLimit)
		case "C_" + one.name + "Final":
			_, err = s.Final(ctx, one.flag, one.signature, engine.NoLimit)
		default:
			continue
		}
		return true, err
	}
	return false, nil
}

// messages makes a call of a process of messages.
func (d *door) messages(s *engine.Session, name, arg string) (is bool, err error) {
	ctx := d.t.Context()
	flags := map[string]p11.Flags{"Encrypt": p11.CKF_MESSAGE_ENCRYPT, "Decrypt": p11.CKF_MESSAGE_DECRYPT, "Sign": p11.CKF_MESSAGE_SIGN, "Verify": p11.CKF_MESSAGE_VERIFY}
	for verb, flag := range flags {
		signs := flag&(p11.CKF_MESSAGE_SIGN|p11.CKF_MESSAGE_VERIFY) != 0
		a := engine.AEADMessage{IV: data[:12], TagBits: 128, Tag: d.tag}
		text, proof := data, []byte(nil)
		switch verb {
		case "Decrypt":
			text = d.text
		case "Verify":
			proof = d.proof
		}
		switch name {
		case "C_Message" + verb + "Init":
			switch {
			case arg == "null":
				return true, s.SessionCancel(ctx, flag)
			case signs:
				return true, s.SignMessagesInit(ctx, flag, mechanism(d.t, "sha256-hmac"), d.keys["mac "+arg])
			}
			return true, s.MessageInit(ctx, flag, p11.CKM_AES_GCM, d.keys["aes "+arg])
		case "C_" + verb + "Message":
			if signs {
				_, err = s.SignMessage(ctx, flag, text, proof, engine.NoLimit)
			} else {
				_, _, err = s.Message(ctx, flag, a, nil, text, engine.NoLimit)
			}
		case "C_" + verb + "MessageBegin":
			if signs {
				err = s.SignMessageBegin(ctx, flag)
			} else {
				_, err = s.MessageBegin(ctx, flag, a, nil)
			}
		case "C_" + verb + "MessageNext":
			switch last := arg == "last"; {
			case signs && last:
				_, err = s.SignMessageEnd(ctx, flag, text, proof, engine.NoLimit)
			case signs:
				err = s.SignMessageNext(ctx, flag, text)
			default:
				_, _, err = s.MessageNext(ctx, flag, a, text, last, engine.NoLimit)
			}
		case "C_Message" + verb + "Final":
			err = s.MessageFinal(ctx, flag)
		default:
			continue
		}
		return true, err
	}
	return false, nil
}

// TestStates makes every call in every state of a session (enginetest).
func TestStates(t *testing.T) {
	token := hooks.New("tok", hooks.Options{})
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 3, Token: token}}})
	ok(t, err)
	defer func() { ok(t, e.Close()) }()
	slot, err := e.SlotNamed("tok")
	ok(t, err)
	d := &door{t: t, engine: e, slot: slot, pins: map[string]string{"user": hooks.UserPIN, "so": hooks.SOPIN, "context": hooks.UserPIN, "other": hooks.UserPIN}}
	every := *everyState
	if testing.Short() {
		every = max(every, 9)
	}
	cases := enginetest.Cases(every)
	for seed := range uint64(4) {
		cases = append(cases, enginetest.Walk(seed, 1000)...)
	}
	t.Logf("%d cases", len(cases))
	wrong := 0
	for _, c := range cases {
		for _, step := range c.Steps {
			if !known(step.Line) {
				continue
			}
			if err := d.call(step.Line); !step.Check(p11.RVOf(err)) {
				t.Errorf("%s: %s: %v (%v), want %v", c.Name, step.Line, p11.RVOf(err), err, step.Want)
				wrong++
			}
		}
		if wrong > 12 {
			t.Fatal("and more")
		}
	}
	d.app.Close()
	if st := e.Stats(); st.Sessions != 0 || st.Operations != 0 || st.SessionObjects != 0 {
		t.Errorf("left over: %+v", st)
	}
}
