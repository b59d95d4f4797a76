package ep11tok

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

// keyBlob is what the card gets of a key: its blob, or a public key's SubjectPublicKeyInfo.
func keyBlob(a p11.Attributes) ([]byte, error) {
	blob, ok := securekey.Blob(a)
	if class, _ := a.Class(); class == p11.CKO_PUBLIC_KEY && (!ok || !ep11.Blob(blob).IsSPKI()) {
		return securekey.SPKI(a)
	}
	if !ok || len(blob) > securekey.MaxBlob {
		return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key has no blob of a card")
	}
	return blob, nil
}

// withKey makes a call with the blob of a key, at the domains that can use it. Of a key whose
// wrapping key is no longer there, the blob under the next one is tried, which re-enciphering
// has put beside it.
// The session that it is bound to is kept up, and others that the call needs.
func (t *token) withKey(ctx context.Context, a p11.Attributes, f func(target card.Target, blob []byte) error, others ...*session) error {
	blob, err := keyBlob(a)
	if err != nil {
		return err
	}
	one, err := t.sessions.of(ctx, blob)
	if err != nil {
		return failed(err, blob)
	}
	try := func(blob []byte) error {
		return t.sessions.within(ctx, append(others, one), func() error {
			return t.cards.ask(ctx, func() error { return f(t.cards.of(blob), blob) })
		})
	}
	err = try(blob)
	if p11.RVOf(err) != ep11.WKIDMismatch {
		return failed(err, blob)
	}
	if lerr := t.cards.learn(ctx, true); lerr != nil {
		return lerr
	}
	candidates := [][]byte{blob}
	if next, ok := a.Get(p11.CKA_IBM_OPAQUE_REENC); ok && len(next) > 0 {
		candidates = [][]byte{next, blob}
	}
	for _, one := range candidates {
		if t.cards.knows(ep11.Blob(one).WKID()) {
			return failed(try(one), one)
		}
	}
	return failed(err, blob)
}

// current is the blob of a second key of a call, as far as is known now: the one under the next
// wrapping key, if only that is there.
func (t *token) current(a p11.Attributes) ([]byte, error) {
	blob, err := keyBlob(a)
	if err != nil {
		return nil, err
	}
	next, _ := a.Get(p11.CKA_IBM_OPAQUE_REENC)
	if len(next) > 0 && !t.cards.knows(ep11.Blob(blob).WKID()) && t.cards.knows(ep11.Blob(next).WKID()) {
		return next, nil
	}
	return blob, nil
}

// knows says whether a domain has the wrapping key.
func (c *cards) knows(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id != nil && slices.ContainsFunc(c.domains, func(d domain) bool { return d.err == nil && bytes.Equal(d.wkid(), id) })
}

// uses are the attributes that say what a key may do.
func usesOf(class p11.ObjectClass, kt p11.KeyType) []p11.AttributeType {
	switch {
	case class == p11.CKO_SECRET_KEY && (kt == p11.CKK_AES || kt == p11.CKK_DES2 || kt == p11.CKK_DES3):
		return []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_DERIVE}
	case class == p11.CKO_SECRET_KEY:
		return []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_DERIVE}
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_RSA:
		return []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_VERIFY, p11.CKA_WRAP}
	case class == p11.CKO_PUBLIC_KEY:
		return []p11.AttributeType{p11.CKA_VERIFY}
	case kt == p11.CKK_RSA:
		return []p11.AttributeType{p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_UNWRAP}
	}
	return []p11.AttributeType{p11.CKA_SIGN, p11.CKA_DERIVE}
}

// said are the attributes of a key that go to the card beside these, as far as they are
// there. Its values are none of them.
func said() []p11.AttributeType {
	return append(bounds(), p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_VALUE_LEN, p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS,
		p11.CKA_SENSITIVE)
}

// template is what the card is told of a new key. What it may do is all that its type can,
// where nothing else is said, as stock has it.
func template(a p11.Attributes) p11.Attributes {
	class, _ := a.Class()
	kt, _ := a.KeyType()
	var out p11.Attributes
	for _, t := range said() {
		if v, ok := a.Get(t); ok {
			out.Set(t, bytes.Clone(v))
		}
	}
	if class == p11.CKO_PUBLIC_KEY {
		ep11.PutGroup(kt, a, &out)
	}
	switch {
	case class == p11.CKO_SECRET_KEY && ofHMAC(kt):
		out.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_GENERIC_SECRET))
	case octetKeys(kt):
		out.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC))
	}
	for _, t := range usesOf(class, kt) {
		v, ok := a.Get(t)
		if !ok {
			v = p11.Bool(true)
		}
		out.Set(t, bytes.Clone(v))
	}
	return out
}

// expect is a copy of a template with the class and the type of key that a mechanism makes.
func expect(given p11.Attributes, class p11.ObjectClass, m p11.MechanismType) (p11.Attributes, error) {
	if got, ok := given.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	facts, _ := p11.MechanismFacts(m)
	kt, ok := given.KeyType()
	switch {
	case !ok && len(facts.KeyTypes) == 0:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "key-type is missing")
	case !ok:
		kt = facts.KeyTypes[0]
	case len(facts.KeyTypes) > 0 && !slices.Contains(facts.KeyTypes, kt):
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", facts.KeyTypes[0].Short(), kt.Short())
	}
	a := given.Clone()
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return a, nil
}

// lengthOf is a secret key's length in bytes, of the checksum that comes with it: its last
// four bytes are the number of bits.
func lengthOf(checksum []byte) (uint64, bool) {
	if len(checksum) < 7 {
		return 0, false
	}
	bits := binary.BigEndian.Uint32(checksum[len(checksum)-4:])
	return uint64(bits) / 8, bits > 0 && bits%8 == 0
}

// secretMade completes the attributes of a secret key that the card has made.
func (t *token) secretMade(a *p11.Attributes, blob, checksum []byte) error {
	length, ok := lengthOf(checksum)
	kt, _ := a.KeyType()
	if !ok || !p11.FitsKey(kt, length) {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the card has made no such key")
	}
	a.SetUlong(p11.CKA_VALUE_LEN, length)
	if err := checkValue(a, checksum[:3]); err != nil {
		return err
	}
	if t.conf.sensitive {
		a.SetBool(p11.CKA_SENSITIVE, true)
	}
	a.Set(p11.CKA_IBM_OPAQUE, blob)
	return nil
}

// checkValue adds the check value of a key that the card has made, or checks the one that
// was given: an empty one says that none is wanted (PKCS#11 v3.1 §4.10.2).
func checkValue(a *p11.Attributes, check []byte) error {
	given, ok := a.Get(p11.CKA_CHECK_VALUE)
	switch {
	case ok && len(given) == 0:
		a.Delete(p11.CKA_CHECK_VALUE)
	case ok && !bytes.Equal(given, check):
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "check-value: is not that of the key")
	default:
		a.Set(p11.CKA_CHECK_VALUE, bytes.Clone(check))
	}
	return nil
}

// ofHMAC says whether keys of a type are for HMAC alone: for the card they are generic
// secrets.
func ofHMAC(kt p11.KeyType) bool {
	return kt != p11.CKK_GENERIC_SECRET && slices.ContainsFunc(p11.Hashes(), func(h p11.Hash) bool {
		facts, ok := p11.MechanismFacts(h.HMAC)
		return ok && h.HMAC != 0 && slices.Contains(facts.KeyTypes, kt)
	})
}

// GenerateKey is tokens.KeyGenerator.
func (t *token) GenerateKey(ctx context.Context, m p11.Mechanism, given p11.Attributes) (p11.Attributes, error) {
	if err := t.cards.has(ctx, m.Type, p11.CKF_GENERATE); err != nil {
		return nil, err
	}
	a, err := expect(given, p11.CKO_SECRET_KEY, m.Type)
	if err != nil {
		return nil, err
	}
	kt, _ := a.KeyType()
	if lengths := p11.KeyLengths(kt); len(lengths) == 1 && !a.Has(p11.CKA_VALUE_LEN) {
		a.SetUlong(p11.CKA_VALUE_LEN, lengths[0])
	}
	err = t.make(ctx, a, func(target card.Target, pin []byte) error {
		blob, checksum, err := ep11.GenerateKey(ctx, t.cards.via, target, m, template(a), pin)
		if err == nil {
			err = t.secretMade(&a, blob, checksum)
		}
		return err
	})
	return a, err
}

// GenerateKeyPair is tokens.KeyGenerator.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, givenPublic, givenPrivate p11.Attributes) (public, private p11.Attributes, err error) {
	if err := t.cards.has(ctx, m.Type, p11.CKF_GENERATE_KEY_PAIR); err != nil {
		return nil, nil, err
	}
	if public, err = expect(givenPublic, p11.CKO_PUBLIC_KEY, m.Type); err != nil {
		return nil, nil, err
	}
	if private, err = expect(givenPrivate, p11.CKO_PRIVATE_KEY, m.Type); err != nil {
		return nil, nil, err
	}
	if err := t.checkPair(m.Type, &public); err != nil {
		return nil, nil, err
	}
	end, err := tokens.Long(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	var blob, spki []byte
	err = t.make(ctx, private, func(target card.Target, pin []byte) (err error) {
		blob, spki, err = ep11.GenerateKeyPair(ctx, t.cards.via, target, p11.Mechanism{Type: onCard(m.Type)[0], Param: m.Param}, template(public), template(private), pin)
		return err
	})
	if err == nil && ep11.Blob(spki).Session() != nil {
		spki, err = t.rebind(ctx, spki, public)
	}
	if err != nil {
		return nil, nil, refused(err, public)
	}
	if err := numbersOf(spki, &public, &private); err != nil {
		return nil, nil, err
	}
	public.Set(p11.CKA_IBM_OPAQUE, spki)
	private.Set(p11.CKA_IBM_OPAQUE, blob)
	return public, private, nil
}

// checkPair looks at what is asked for before a card is.
func (t *token) checkPair(m p11.MechanismType, public *p11.Attributes) error {
	info, err := t.cards.info(m, p11.CKF_GENERATE_KEY_PAIR)
	if err != nil {
		return err
	}
	bits := uint64(0)
	switch kt, _ := public.KeyType(); kt {
	case p11.CKK_RSA:
		n, ok := public.Ulong(p11.CKA_MODULUS_BITS)
		if !ok {
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
		}
		if e, _ := public.Get(p11.CKA_PUBLIC_EXPONENT); len(e) == 0 {
			public.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
		}
		bits = n
	case p11.CKK_DH, p11.CKK_DSA:
		g, err := pkix.GroupOf(kt, *public)
		switch {
		case p11.RVOf(err) == p11.CKR_ATTRIBUTE_VALUE_INVALID:
			return p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "%v", err)
		case err != nil:
			return err
		}
		bits = uint64(g.P.BitLen())
	default:
		params, ok := public.Get(p11.CKA_EC_PARAMS)
		if !ok {
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
		}
		c, err := pkix.CurveOf(params)
		if err != nil {
			return err
		}
		bits = uint64(c.Bits)
	}
	if bits < info.MinKeySize || bits > info.MaxKeySize {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the card has keys of %d to %d bits, not %d", info.MinKeySize, info.MaxKeySize, bits)
	}
	return nil
}

// numbersOf puts the numbers of a public key, which a card may have put a MAC behind, into
// the halves of a pair.
func numbersOf(spki []byte, halves ...*p11.Attributes) error {
	public, err := pkix.PublicAttributes(ep11.Blob(spki).SPKI())
	if err != nil {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's public key: %w", err)
	}
	for _, half := range halves {
		want, _ := half.KeyType()
		if kt, _ := public.KeyType(); kt != want {
			return p11.Errorf(p11.CKR_DEVICE_ERROR, "the card has made a key of type %s, not %s", kt.Short(), want.Short())
		}
		class, _ := half.Class()
		for _, t := range []p11.AttributeType{
			p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_VALUE,
		} {
			if v, ok := public.Get(t); ok && (t != p11.CKA_VALUE || class == p11.CKO_PUBLIC_KEY) {
				half.Set(t, bytes.Clone(v))
			}
		}
		if class == p11.CKO_PRIVATE_KEY && public.Has(p11.CKA_VALUE) { // which it has nowhere else
			half.Set(p11.CKA_PUBLIC_KEY_INFO, bytes.Clone(ep11.Blob(spki).SPKI()))
		}
	}
	return nil
}

// has says whether the cards have a mechanism for a use, and asks them if nothing is known.
func (c *cards) has(ctx context.Context, m p11.MechanismType, use p11.Flags) error {
	if err := c.May(); err != nil {
		return err
	}
	if err := c.learn(ctx, false); err != nil {
		return err
	}
	_, err := c.info(m, use)
	return err
}

// make has the card make a key, of those attributes, where new keys are made. pin is what binds
// it to its session.
func (t *token) make(ctx context.Context, a p11.Attributes, f func(target card.Target, pin []byte) error) error {
	one, err := t.sessions.forNew(ctx, a)
	if err != nil {
		return failed(err, nil)
	}
	return refused(failed(t.sessions.within(ctx, []*session{one}, func() error {
		return t.cards.ask(ctx, func() error {
			target, _, err := t.cards.fresh()
			if err != nil {
				return err
			}
			pin, err := one.at(target)
			if err != nil {
				return err
			}
			return f(target, pin)
		})
	}), nil), a)
}

// rebind has the card make a public key anew that it has bound to the session of the private
// one: the public object may be there without, and for all.
func (t *token) rebind(ctx context.Context, spki ep11.Blob, public p11.Attributes) (made []byte, err error) {
	told := slices.DeleteFunc(template(public), func(a p11.Attribute) bool {
		return a.Type != p11.CKA_CLASS && a.Type != p11.CKA_KEY_TYPE && ep11.BitOf(a.Type) == 0
	})
	err = t.make(ctx, public, func(target card.Target, pin []byte) (err error) {
		made, _, err = ep11.UnwrapKey(ctx, t.cards.via, target, spki.SPKI(), nil, nil, pin, p11.Mechanism{Type: ep11.TransportKey}, told)
		return err
	})
	return made, err
}
