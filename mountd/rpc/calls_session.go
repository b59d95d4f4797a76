package rpc

import (
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// sessionHandlers answer the calls of sessions, whose arguments have been read. Those
// that are missing are not supported: the messages of PKCS#11 v3.0 §5.9 and §5.11, which
// our own module has in another form.
var sessionHandlers = map[wire.Call]func(*request) error{ //nolint:gochecknoglobals // a table, never written
	wire.CallCloseSession:      (*request).closeSession,
	wire.CallGetSessionInfo:    (*request).getSessionInfo,
	wire.CallGetOperationState: func(q *request) error { return q.result(q.session.GetOperationState(q.ctx, q.limit())) },
	wire.CallSetOperationState: func(q *request) error {
		return q.session.SetOperationState(q.ctx, q.data(0), q.object(0), q.object(1))
	},
	wire.CallSessionCancel: func(q *request) error { return q.session.SessionCancel(q.ctx, p11.Flags(q.numbers[0])) },
	wire.CallInitPIN:       withPIN(func(q *request, pin *secret.Bytes) error { return q.session.InitPIN(q.ctx, pin) }),
	wire.CallSetPIN:        withPIN((*request).setPIN),
	wire.CallLogin:         withPIN((*request).login),
	wire.CallLoginUser:     withPIN((*request).login),
	wire.CallLogout:        func(q *request) error { return q.session.Logout(q.ctx) },

	wire.CallCreateObject: gives(func(q *request) (p11.ObjectHandle, error) { return q.session.CreateObject(q.ctx, q.templates[0]) }),
	wire.CallCopyObject: gives(func(q *request) (p11.ObjectHandle, error) {
		return q.session.CopyObject(q.ctx, q.object(0), q.templates[0])
	}),
	wire.CallDestroyObject:     func(q *request) error { return q.session.DestroyObject(q.ctx, q.object(0)) },
	wire.CallGetObjectSize:     gives(func(q *request) (uint64, error) { return q.session.ObjectSize(q.ctx, q.object(0)) }),
	wire.CallGetAttributeValue: (*request).getAttributeValue,
	wire.CallSetAttributeValue: func(q *request) error { return q.session.SetAttributeValue(q.ctx, q.object(0), q.templates[0]) },
	wire.CallFindObjectsInit:   func(q *request) error { return q.session.FindObjectsInit(q.ctx, q.templates[0]) },
	wire.CallFindObjects:       (*request).findObjects,
	wire.CallFindObjectsFinal:  func(q *request) error { return q.session.FindObjectsFinal(q.ctx) },

	wire.CallEncryptInit:         initialise(p11.CKF_ENCRYPT),
	wire.CallEncrypt:             whole(p11.CKF_ENCRYPT),
	wire.CallEncryptUpdate:       part(p11.CKF_ENCRYPT),
	wire.CallEncryptFinal:        final(p11.CKF_ENCRYPT),
	wire.CallDecryptInit:         initialise(p11.CKF_DECRYPT),
	wire.CallDecrypt:             whole(p11.CKF_DECRYPT),
	wire.CallDecryptUpdate:       part(p11.CKF_DECRYPT),
	wire.CallDecryptFinal:        final(p11.CKF_DECRYPT),
	wire.CallDigestInit:          initialise(p11.CKF_DIGEST),
	wire.CallDigest:              whole(p11.CKF_DIGEST),
	wire.CallDigestUpdate:        silent(p11.CKF_DIGEST),
	wire.CallDigestKey:           func(q *request) error { return q.session.DigestKey(q.ctx, q.object(0)) },
	wire.CallDigestFinal:         final(p11.CKF_DIGEST),
	wire.CallSignInit:            initialise(p11.CKF_SIGN),
	wire.CallSign:                whole(p11.CKF_SIGN),
	wire.CallSignUpdate:          silent(p11.CKF_SIGN),
	wire.CallSignFinal:           final(p11.CKF_SIGN),
	wire.CallSignRecoverInit:     initialise(p11.CKF_SIGN_RECOVER),
	wire.CallSignRecover:         whole(p11.CKF_SIGN_RECOVER),
	wire.CallVerifyInit:          initialise(p11.CKF_VERIFY),
	wire.CallVerify:              (*request).verify,
	wire.CallVerifyUpdate:        silent(p11.CKF_VERIFY),
	wire.CallVerifyFinal:         (*request).verifyFinal,
	wire.CallVerifyRecoverInit:   initialise(p11.CKF_VERIFY_RECOVER),
	wire.CallVerifyRecover:       whole(p11.CKF_VERIFY_RECOVER),
	wire.CallDigestEncryptUpdate: both(p11.CKF_ENCRYPT, p11.CKF_DIGEST),
	wire.CallDecryptDigestUpdate: both(p11.CKF_DECRYPT, p11.CKF_DIGEST),
	wire.CallSignEncryptUpdate:   both(p11.CKF_ENCRYPT, p11.CKF_SIGN),
	wire.CallDecryptVerifyUpdate: both(p11.CKF_DECRYPT, p11.CKF_VERIFY),

	wire.CallGenerateKey: gives(func(q *request) (p11.ObjectHandle, error) {
		return q.session.GenerateKey(q.ctx, q.mechanism.Mechanism, q.templates[0])
	}),
	wire.CallGenerateKeyPair: (*request).generateKeyPair,
	wire.CallWrapKey:         (*request).wrapKey,
	wire.CallUnwrapKey: gives(func(q *request) (p11.ObjectHandle, error) {
		return q.session.UnwrapKey(q.ctx, q.mechanism.Mechanism, q.object(0), q.data(0), q.templates[0])
	}),
	wire.CallDeriveKey:      gives((*request).deriveKey),
	wire.CallDeriveKey2:     gives((*request).deriveKey),
	wire.CallDeriveKeys:     (*request).deriveKeys,
	wire.CallSeedRandom:     func(q *request) error { return q.session.SeedRandom(q.ctx, q.data(0)) },
	wire.CallGenerateRandom: (*request).generateRandom,

	wire.CallEncapsulateKey: (*request).encapsulateKey,
	wire.CallDecapsulateKey: gives(func(q *request) (p11.ObjectHandle, error) {
		return q.session.DecapsulateKey(q.ctx, q.mechanism.Mechanism, q.object(0), q.data(0), q.templates[0])
	}),
	wire.CallVerifySignatureInit:   (*request).verifySignatureInit,
	wire.CallVerifySignature:       func(q *request) error { return q.session.VerifySignature(q.ctx, q.data(0)) },
	wire.CallVerifySignatureUpdate: func(q *request) error { return q.session.VerifySignatureUpdate(q.ctx, q.data(0)) },
	wire.CallVerifySignatureFinal:  func(q *request) error { return q.session.VerifySignatureFinal(q.ctx) },
	wire.CallGetSessionValidationFlags: gives(func(q *request) (p11.Flags, error) {
		return q.session.ValidationFlags(p11.ValidationFlags(q.numbers[0]))
	}),

	wire.CallWrapKeyAuthenticated:   (*request).wrapKeyAuthenticated,
	wire.CallUnwrapKeyAuthenticated: gives((*request).unwrapKeyAuthenticated),

	wire.CallMessageSignInit:    signMessagesInit(p11.CKF_MESSAGE_SIGN),
	wire.CallSignMessage:        ofSigned(p11.CKF_MESSAGE_SIGN, (*request).signMessage),
	wire.CallSignMessageBegin:   ofSigned(p11.CKF_MESSAGE_SIGN, (*request).signMessageBegin),
	wire.CallSignMessageNext:    ofSigned(p11.CKF_MESSAGE_SIGN, (*request).signMessageNext),
	wire.CallMessageSignFinal:   signMessagesFinal(p11.CKF_MESSAGE_SIGN),
	wire.CallMessageVerifyInit:  signMessagesInit(p11.CKF_MESSAGE_VERIFY),
	wire.CallVerifyMessage:      ofSigned(p11.CKF_MESSAGE_VERIFY, (*request).verifyMessage),
	wire.CallVerifyMessageBegin: ofSigned(p11.CKF_MESSAGE_VERIFY, (*request).signMessageBegin),
	wire.CallVerifyMessageNext:  ofSigned(p11.CKF_MESSAGE_VERIFY, (*request).verifyMessageNext),
	wire.CallMessageVerifyFinal: signMessagesFinal(p11.CKF_MESSAGE_VERIFY),

	wire.CallMessageInit:  ofMessages((*request).messageInit),
	wire.CallMessageOne:   ofMessages((*request).messageOne),
	wire.CallMessageBegin: ofMessages((*request).messageBegin),
	wire.CallMessageNext:  ofMessages((*request).messageNext),
	wire.CallMessageFinal: ofMessages(func(q *request, flag p11.Flags) error { return q.session.MessageFinal(q.ctx, flag) }),

	wire.CallSignOnce:    once(p11.CKF_SIGN, whole(p11.CKF_SIGN)),
	wire.CallVerifyOnce:  once(p11.CKF_VERIFY, (*request).verify),
	wire.CallEncryptOnce: once(p11.CKF_ENCRYPT, whole(p11.CKF_ENCRYPT)),
	wire.CallDecryptOnce: once(p11.CKF_DECRYPT, whole(p11.CKF_DECRYPT)),
	wire.CallDigestOnce:  once(p11.CKF_DIGEST, whole(p11.CKF_DIGEST)),
}

// inSession answers a call of a session, whose arguments are as the signature says.
func (q *request) inSession(signature string) error {
	handle := p11.SessionHandle(q.r.Ulong())
	if err := q.failure(); err != nil {
		return err
	}
	var err error
	if q.session, err = q.app.Session(handle); err != nil {
		return err
	}
	h := sessionHandlers[q.call]
	if h == nil {
		return p11.CKR_FUNCTION_NOT_SUPPORTED
	}
	if err := q.arguments(signature[len("u"):]); err != nil {
		return err
	}
	return h(q)
}

// arguments reads what the signature names.
func (q *request) arguments(signature string) error {
	numbers, arrays, templates := 0, 0, 0
	for signature != "" {
		size := len("aA")
		switch signature[:min(size, len(signature))] {
		case "ay":
			q.arrays[arrays] = q.input()
			arrays++
		case "aA":
			q.templates[templates] = q.template()
			templates++
		case "fA":
			q.wanted = q.r.Wanted()
		case "fy", "fu":
			q.room = q.r.Room()
		default:
			size = len("u")
			switch signature[0] {
			case 'M':
				q.mechanism = q.r.Mechanism(fixed(signature[size:]))
			case 'y':
				q.numbers[numbers] = uint64(q.r.Byte())
				numbers++
			default:
				q.numbers[numbers] = q.r.Ulong()
				numbers++
			}
		}
		signature = signature[size:]
	}
	return q.end()
}

// fixed is the length in bytes of values whose signature this is, -1 if it is not the
// same always.
func fixed(signature string) int {
	switch signature {
	case "":
		return 0
	case "u":
		return 8
	}
	return -1
}

func (q *request) object(i int) p11.ObjectHandle { return p11.ObjectHandle(q.numbers[i]) }

func (q *request) data(i int) []byte { return q.arrays[i].Data }

// gives answers a function that returns a number, and takes a mechanism if any that is
// not NULL.
func gives[T ~uint64](f func(*request) (T, error)) func(*request) error {
	return func(q *request) error {
		if q.mechanism.Null {
			return p11.CKR_ARGUMENTS_BAD
		}
		n, err := f(q)
		if err != nil {
			return err
		}
		q.w.Ulong(uint64(n))
		return nil
	}
}

// withPIN answers a function that takes a PIN first.
func withPIN(f func(*request, *secret.Bytes) error) func(*request) error {
	return func(q *request) error {
		pin, err := newPIN(q.arrays[0])
		if err != nil {
			return err
		}
		defer func() { _ = pin.Close() }()
		return f(q, pin)
	}
}

// newPIN returns a PIN, which the caller closes. A NULL PIN asks for a protected
// authentication path, which no token here has.
func newPIN(a wire.Array) (*secret.Bytes, error) {
	if a.IsNull() {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token has no keypad: give a PIN")
	}
	return secret.New(append([]byte(nil), a.Data...))
}

func (q *request) closeSession() error {
	err := q.session.Close()
	q.conn.state.forget()
	return err
}

func (q *request) getSessionInfo() error {
	i, err := q.session.Info()
	if err != nil {
		return err
	}
	for _, v := range []uint64{uint64(i.SlotID), uint64(i.State), uint64(i.Flags), i.DeviceError} {
		q.w.Ulong(v)
	}
	return nil
}

func (q *request) setPIN(old *secret.Bytes) error {
	pin, err := newPIN(q.arrays[1])
	if err != nil {
		return err
	}
	defer func() { _ = pin.Close() }()
	return q.session.SetPIN(q.ctx, old, pin)
}

// login also answers C_LoginUser (PKCS#11 v3.0 §5.6.9). Tokens have no user names:
// only an empty one is C_Login.
func (q *request) login(pin *secret.Bytes) error {
	if len(q.data(1)) != 0 {
		return p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the token has no named users")
	}
	return q.session.Login(q.ctx, p11.UserType(q.numbers[0]), pin)
}
