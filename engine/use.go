package engine

import (
	"context"
	"slices"

	"p11fs/p11"
)

// A use is a function of a mechanism: what a CKF_ flag of CK_MECHANISM_INFO names.
type use struct {
	flag  p11.Flags
	usage p11.AttributeType // that must be true in the key; 0 where there is no key
	verb  string            // for messages: "sign"
	noun  string            // for messages: "signature"

	invalid p11.RV // for a handle that names no key
	unfit   p11.RV // for a key of the wrong type
	weak    p11.RV // for a key that is not strong enough
}

// uses are all of them. Policy, grants and audit have one row to look at for each.
var uses = [...]use{ //nolint:gochecknoglobals // a table, never written
	keyUse(p11.CKF_SIGN, p11.CKA_SIGN, "sign", "signature"),
	keyUse(p11.CKF_SIGN_RECOVER, p11.CKA_SIGN_RECOVER, "sign with recovery", "signature with recovery"),
	keyUse(p11.CKF_VERIFY, p11.CKA_VERIFY, "verify", "verification"),
	keyUse(p11.CKF_VERIFY_RECOVER, p11.CKA_VERIFY_RECOVER, "verify with recovery", "verification with recovery"),
	keyUse(p11.CKF_ENCRYPT, p11.CKA_ENCRYPT, "encrypt", "encryption"),
	keyUse(p11.CKF_DECRYPT, p11.CKA_DECRYPT, "decrypt", "decryption"),
	keyUse(p11.CKF_DERIVE, p11.CKA_DERIVE, "derive", "key derivation"),
	keyUse(p11.CKF_ENCAPSULATE, p11.CKA_ENCAPSULATE, "encapsulate", "key encapsulation"),
	keyUse(p11.CKF_DECAPSULATE, p11.CKA_DECAPSULATE, "decapsulate", "key decapsulation"),
	{p11.CKF_WRAP, p11.CKA_WRAP, "wrap", "key wrap",
		p11.CKR_WRAPPING_KEY_HANDLE_INVALID, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT, p11.CKR_WRAPPING_KEY_SIZE_RANGE},
	{p11.CKF_UNWRAP, p11.CKA_UNWRAP, "unwrap", "key unwrap",
		p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, p11.CKR_UNWRAPPING_KEY_SIZE_RANGE},
	keyUse(p11.CKF_MESSAGE_ENCRYPT, p11.CKA_ENCRYPT, "encrypt messages", "encryption of messages"),
	keyUse(p11.CKF_MESSAGE_DECRYPT, p11.CKA_DECRYPT, "decrypt messages", "decryption of messages"),
	keyUse(p11.CKF_MESSAGE_SIGN, p11.CKA_SIGN, "sign messages", "signature of messages"),
	keyUse(p11.CKF_MESSAGE_VERIFY, p11.CKA_VERIFY, "verify messages", "verification of messages"),
	{flag: p11.CKF_DIGEST, verb: "digest", noun: "digest"},
}

func keyUse(flag p11.Flags, usage p11.AttributeType, verb, noun string) use {
	return use{flag, usage, verb, noun, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE}
}

// useOf returns the use of a CKF_ flag, which the program chooses.
func useOf(flag p11.Flags) *use {
	for i := range uses {
		if uses[i].flag == flag {
			return &uses[i]
		}
	}
	panic("engine: " + flag.String() + " is no use of a mechanism")
}

// messages says whether the use is one of messages, each of which has a parameter.
func (u *use) messages() bool {
	return u.flag == p11.CKF_MESSAGE_ENCRYPT || u.flag == p11.CKF_MESSAGE_DECRYPT
}

// byMessage are the functions of whole messages, and what each message of theirs is.
var byMessage = map[p11.Flags]p11.Flags{ //nolint:gochecknoglobals // a table, never written
	p11.CKF_MESSAGE_ENCRYPT: p11.CKF_ENCRYPT, p11.CKF_MESSAGE_DECRYPT: p11.CKF_DECRYPT,
	p11.CKF_MESSAGE_SIGN: p11.CKF_SIGN, p11.CKF_MESSAGE_VERIFY: p11.CKF_VERIFY,
}

// atToken is the use that a token knows.
func (u *use) atToken() p11.Flags {
	if one, ok := byMessage[u.flag]; ok {
		return one
	}
	return u.flag
}

// offered are the functions of a mechanism that the engine makes of those of the token:
// what signs signs messages, and every message may come in parts.
func offered(flags p11.Flags) p11.Flags {
	for _, m := range []p11.Flags{p11.CKF_MESSAGE_SIGN, p11.CKF_MESSAGE_VERIFY} {
		if flags&byMessage[m] != 0 {
			flags |= m
		}
	}
	for m := range byMessage {
		if flags&m != 0 {
			flags |= p11.CKF_MULTI_MESSAGE
		}
	}
	return flags
}

// begin is where each use of a mechanism, and so of a key, begins: it checks that
// the session may use the key h so with m, and holds it in the operation that it
// returns, which has not come to the token yet.
func (s *Session) begin(ctx context.Context, u *use, m p11.Mechanism, h p11.ObjectHandle) (*Operation, error) {
	return s.beginWith(ctx, u, m, h, false)
}

// beginWith is begin; fresh says that the IV in m was chosen for this by who calls it, and not
// by whom it serves.
func (s *Session) beginWith(ctx context.Context, u *use, m p11.Mechanism, h p11.ObjectHandle, fresh bool) (*Operation, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if err := s.appSlot.slot.usable(m.Type, u.flag, u.verb); err != nil {
		return nil, err
	}
	if err := s.appSlot.slot.online(); err != nil {
		return nil, err
	}
	o := &Operation{session: s, use: u, mech: m, fresh: fresh}
	if u.usage == 0 {
		if err := interrupted(ctx); err != nil {
			return nil, err
		}
		return o, s.parameterAllowed(m)
	}
	e, err := s.openKey(ctx, h, u.invalid)
	if err != nil {
		return nil, err
	}
	err = e.mayUse(u, m, fresh)
	if err == nil {
		err = s.appSlot.app.engine.rules.mayWrapAtAll(e.attrs, u, m.Type)
	}
	if err == nil {
		err = s.policyAllows(e.attrs, u, m)
	}
	if err != nil {
		e.release()
		return nil, err
	}
	o.key, o.login, o.granted = e, e.login, e.granted
	o.lock()
	return o, nil
}

// mayBegin is serves for an operation that is to take the first of a message. One that was
// begun goes on to its end.
func (o *Operation) mayBegin(ctx context.Context) error {
	o.mu.Lock()
	begun := o.parts || o.message != nil
	o.unlock()
	if begun {
		return nil
	}
	return o.serves(ctx)
}

// serves checks that the key of the operation is still there, and may still be used so: since
// the Init it may have been destroyed, or restricted, and then the operation ends.
func (o *Operation) serves(ctx context.Context) error {
	o.mu.Lock()
	key := o.key
	o.unlock()
	if key == nil { // it has none, or has ended, which the call will say
		return nil
	}
	if o.session.isStill(ctx, key) {
		return nil
	}
	e, err := o.session.openKey(ctx, key.handle, o.use.invalid)
	if err == nil {
		err = e.mayUse(o.use, o.mech, o.fresh)
		e.release()
	}
	if err == nil || p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED {
		return err
	}
	if cut := o.stands(); cut != nil {
		err = cut // with the login the handle goes, too
	}
	o.Close()
	return err
}

// mayUse checks that the key may be used so with m, by who sees it.
func (e *entry) mayUse(u *use, m p11.Mechanism, fresh bool) error {
	if e.granted != nil {
		if err := e.granted.mayUse(u, m, fresh); err != nil {
			return err
		}
	}
	return mayUse(e.attrs, u, m)
}

// mayUse checks that the key with these attributes may be used so with m.
func mayUse(key p11.Attributes, u *use, m p11.Mechanism) error {
	if !key.Bool(u.usage) && m.Type != p11.CKM_PUB_KEY_FROM_PRIV_KEY { // a public half is no secret
		return p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key may not %s: its %s is not true", u.verb, u.usage.Short())
	}
	if !allows(key, m.Type) {
		return p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "the key's allowed-mechanisms do not name %s", m.Type.Short()), "use one that the key's own file mechanisms lists, or another key")
	}
	facts, _ := p11.MechanismFacts(m.Type)
	if kt, ok := key.KeyType(); ok && len(facts.KeyTypes) > 0 && !slices.Contains(facts.KeyTypes, kt) {
		return p11.Errorf(u.unfit, "%s takes no %s key", m.Type.Short(), kt.Short())
	}
	if u.messages() {
		return nil
	}
	return m.ValidateFor(u.flag)
}

// allows applies CKA_ALLOWED_MECHANISMS; absent or empty allows all.
func allows(attrs p11.Attributes, m p11.MechanismType) bool {
	list, ok := attrs.Get(p11.CKA_ALLOWED_MECHANISMS)
	if !ok || len(list) == 0 {
		return true
	}
	for ; len(list) >= 8; list = list[8:] {
		if v, err := p11.ToUlong(list[:8]); err == nil && p11.MechanismType(v) == m {
			return true
		}
	}
	return false
}

// openKey returns the key h, held; invalid is the error for what is no key.
func (s *Session) openKey(ctx context.Context, h p11.ObjectHandle, invalid p11.RV) (*entry, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		if p11.RVOf(err) == p11.CKR_OBJECT_HANDLE_INVALID {
			return nil, p11.Errorf(invalid, "there is no key %#x", uint64(h))
		}
		return nil, err
	}
	if class, _ := e.attrs.Class(); isKey(class) {
		return e, nil
	}
	e.release()
	return nil, p11.Errorf(invalid, "object %#x is no key", uint64(h))
}

// errLacking says that a token's mechanism list promises what the token has not.
var errLacking = p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "the token has no such function")
