package soft

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"encoding/binary"
	"math/big"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card/ep11"
)

// bitsOf are the boolean attributes of a new key: those of the template, over what a card
// does where it says nothing.
func bitsOf(template p11.Attributes, generated bool) ep11.Bits {
	bits := ep11.BitExtractable | ep11.BitModifiable
	for _, a := range template {
		switch bit := ep11.BitOf(a.Type); {
		case bit == 0 || len(a.Value) != 1:
		case a.Value[0] == p11.CK_FALSE:
			bits &^= bit
		default:
			bits |= bit
		}
	}
	bits &^= ep11.BitLocal | ep11.BitNeverExtractable | ep11.BitNeverModifiable
	if generated {
		bits |= ep11.BitLocal
		if bits&ep11.BitExtractable == 0 {
			bits |= ep11.BitNeverExtractable
		}
	}
	if bits&ep11.BitModifiable == 0 {
		bits |= ep11.BitNeverModifiable
	}
	return bits
}

// about takes out of a template what says which key it is to be. A card ignores all else.
func about(template p11.Attributes) (a p11.Attributes) {
	for _, t := range []p11.AttributeType{p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_VALUE_LEN, p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS} {
		v, _ := template.Get(t)
		n, number := template.Ulong(t)
		none := t == p11.CKA_VALUE_LEN && number && n == 0 // as programs say it of what they import
		if len(v) > 0 && !none {
			a.Set(t, bytes.Clone(v))
		}
	}
	return a
}

// maySay refuses a new key that others are to trust, where only administrators say that.
func (d *domain) maySay(bits ep11.Bits) error {
	if bits&ep11.BitTrusted != 0 && d.allow(pointTrust) != nil {
		return p11.CKR_ATTRIBUTE_READ_ONLY
	}
	return nil
}

// seal makes the blob of a new key, which is wiped.
func (d *domain) seal(attrs p11.Attributes, bits ep11.Bits, pin []byte) ([]byte, error) {
	defer attrs.Wipe()
	if err := d.maySay(bits); err != nil {
		return nil, err
	}
	session, err := d.loggedIn(pin)
	if err != nil {
		return nil, err
	}
	attrs.Delete(p11.CKA_VALUE_LEN)
	k := &key{attrs: attrs, bits: bits, session: session}
	kt, _ := attrs.KeyType()
	if err := d.allow(ep11.StrengthPoint(kt, k.size())); err != nil {
		return nil, err
	}
	b := d.wk.seal(k, d.order)
	if len(b) > ep11.MaxBlob {
		return nil, p11.CKR_KEY_SIZE_RANGE
	}
	return b, nil
}

// checkLen is how much of a key's check value is told.
const checkLen = 3

// checksum is what tells secret keys apart: bytes of their check value (PKCS#11 v3.1
// §4.10.2), and their length in bits.
func (d *domain) checksum(ctx context.Context, attrs p11.Attributes) ([]byte, error) {
	value, _ := attrs.Get(p11.CKA_VALUE)
	var check []byte
	kt, _ := attrs.KeyType()
	switch kt {
	case p11.CKK_AES, p11.CKK_DES2, p11.CKK_DES3:
		k := &key{attrs: attrs.Clone()}
		m, n := p11.CKM_DES3_ECB, 8
		if kt == p11.CKK_AES {
			m, n = p11.CKM_AES_ECB, 16
		}
		o := object(k)
		defer o.Drop()
		var err error
		if check, err = d.run(ctx, p11.CKF_ENCRYPT, p11.Mechanism{Type: m}, o, make([]byte, n), nil); err != nil {
			return nil, err
		}
	default:
		h := crypto.SHA1.New()
		h.Write(value)
		check = h.Sum(nil)
	}
	return binary.BigEndian.AppendUint32(check[:checkLen:checkLen], uint32(8*len(value))), nil
}

// GenerateKey makes a secret key.
func (d *domain) GenerateKey(ctx context.Context, mech p11.Mechanism, template p11.Attributes, pin []byte) (blob, checksum []byte, err error) {
	if err := d.lists(mech, p11.CKF_GENERATE); err != nil {
		return nil, nil, err
	}
	if err := d.may(pointGenerateSymm); err != nil {
		return nil, nil, err
	}
	attrs, err := d.crypto.GenerateKey(ctx, mech, about(template))
	if err != nil {
		return nil, nil, err
	}
	return d.secretKey(ctx, attrs, bitsOf(template, true), pin)
}

// may is ready and allow.
func (d *domain) may(points ...int) error {
	if err := d.ready(); err != nil {
		return err
	}
	return d.allow(points...)
}

// secretKey gives a new secret key, whose attributes are wiped.
func (d *domain) secretKey(ctx context.Context, attrs p11.Attributes, bits ep11.Bits, pin []byte) (blob, checksum []byte, err error) {
	if checksum, err = d.checksum(ctx, attrs); err != nil {
		attrs.Wipe()
		return nil, nil, err
	}
	blob, err = d.seal(attrs, bits, pin)
	return blob, checksum, err
}

// GenerateKeyPair makes a key pair.
func (d *domain) GenerateKeyPair(ctx context.Context, mech p11.Mechanism, public, private p11.Attributes, pin []byte) (blob, spki []byte, err error) {
	if err := d.lists(mech, p11.CKF_GENERATE_KEY_PAIR); err != nil {
		return nil, nil, err
	}
	kt := keyTypes(mech.Type)[0]
	wanted, other := append(about(public), ep11.GroupOf(kt, public)...), about(private)
	made, kt := pairOn(mech, kt, &wanted, &other)
	if err := d.may(pointGenerate, pointOf(kt)); err != nil {
		return nil, nil, err
	}
	bits, ok := wanted.Ulong(p11.CKA_MODULUS_BITS)
	if prime, group := wanted.Get(p11.CKA_PRIME); group {
		bits, ok = uint64(new(big.Int).SetBytes(prime).BitLen()), true
	}
	if ok && mech.Type != p11.CKM_EC_KEY_PAIR_GEN && d.fits(mech.Type, bits) != nil {
		return nil, nil, p11.CKR_KEY_SIZE_RANGE
	}
	if !ok {
		bits = (&key{attrs: wanted}).size()
	}
	if err := d.allow(ep11.StrengthPoint(kt, bits)); err != nil {
		return nil, nil, err
	}
	pub, priv, err := d.crypto.GenerateKeyPair(ctx, made, wanted, other)
	if err != nil {
		return nil, nil, err
	}
	return d.pair(ctx, pub, priv, bitsOf(public, true), bitsOf(private, true), pin)
}

// fits refuses a size that a mechanism has not.
func (d *domain) fits(t p11.MechanismType, size uint64) error {
	for _, m := range d.list {
		if m.Type == t && m.MaxKeySize > 0 && (size < m.MinKeySize || size > m.MaxKeySize) {
			return p11.CKR_KEY_SIZE_RANGE
		}
	}
	return nil
}

// pair gives a private key, whose attributes are wiped, and its public half.
func (d *domain) pair(ctx context.Context, public, private p11.Attributes, publicBits, privateBits ep11.Bits, pin []byte) (blob, spki []byte, err error) {
	if public, err = d.crypto.Adopt(ctx, public); err != nil {
		private.Wipe()
		return nil, nil, err
	}
	info, ok := public.Get(p11.CKA_PUBLIC_KEY_INFO)
	if !ok {
		private.Wipe()
		return nil, nil, ep11.Internal
	}
	session, err := d.loggedIn(pin)
	if err == nil {
		err = d.maySay(publicBits)
	}
	if err != nil {
		private.Wipe()
		return nil, nil, err
	}
	blob, err = d.seal(private, privateBits, pin)
	return blob, d.wk.sealPublic(info, publicBits, session, d.order), err
}

// WrapKey encrypts the value of a key that may leave the card.
func (d *domain) WrapKey(ctx context.Context, blob, kek, macKey []byte, mech p11.Mechanism) ([]byte, error) {
	if len(macKey) > 0 {
		return nil, p11.CKR_ARGUMENTS_BAD // for a mechanism that is not here
	}
	under, err := d.openFor(kek, p11.CKF_WRAP, mech)
	if err != nil {
		return nil, err
	}
	wrapping := object(under)
	defer wrapping.Drop()
	k, err := d.open(blob)
	if err != nil {
		return nil, err
	}
	wrapped := object(k)
	defer wrapped.Drop()
	switch {
	case k.class() == p11.CKO_PUBLIC_KEY:
		return nil, p11.CKR_KEY_NOT_WRAPPABLE
	case k.bits&ep11.BitExtractable == 0:
		return nil, p11.CKR_KEY_UNEXTRACTABLE
	case k.bits&ep11.BitWrapWithTrusted != 0 && under.bits&ep11.BitTrusted == 0:
		return nil, p11.CKR_KEY_NOT_WRAPPABLE
	}
	return d.crypto.WrapKey(ctx, mech, wrapping, wrapped)
}

// UnwrapKey makes a key of what WrapKey gave, or anybody. Of a private key the checksum is
// the public half.
func (d *domain) UnwrapKey(ctx context.Context, wrapped, kek, macKey, pin []byte, mech p11.Mechanism, template p11.Attributes) (blob, checksum []byte, err error) {
	if len(macKey) > 0 {
		return nil, nil, p11.CKR_ARGUMENTS_BAD // for a mechanism that is not here
	}
	if mech.Type == ep11.TransportKey {
		return d.takePublic(wrapped, template, pin)
	}
	under, err := d.openFor(kek, p11.CKF_UNWRAP, mech)
	if err != nil {
		return nil, nil, err
	}
	o := object(under)
	defer o.Drop()
	a := about(template)
	class, _ := a.Class()
	if class == p11.CKO_PRIVATE_KEY {
		a.Delete(p11.CKA_VALUE_LEN) // programs leave noise there
	}
	types := []p11.KeyType{0}
	if class == p11.CKO_PRIVATE_KEY {
		types = unwrappedTypes(a)
	}
	var attrs p11.Attributes
	for i, kt := range types {
		if class == p11.CKO_PRIVATE_KEY {
			a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
		}
		var uerr error
		if attrs, uerr = d.crypto.UnwrapKey(ctx, mech, o, wrapped, a); uerr == nil {
			err = nil
			break
		}
		if i == 0 {
			err = uerr // what is said of the type that the template has
		}
	}
	if err != nil {
		return nil, nil, err
	}
	bits := bitsOf(template, false)
	if class != p11.CKO_PRIVATE_KEY {
		return d.secretKey(ctx, attrs, bits, pin)
	}
	return d.unwrapped(ctx, attrs, bits, pin)
}

// unwrapped gives a private key that was unwrapped.
func (d *domain) unwrapped(ctx context.Context, attrs p11.Attributes, bits ep11.Bits, pin []byte) (blob, spki []byte, err error) {
	o := object(&key{attrs: attrs.Clone()})
	defer o.Drop()
	kt, _ := attrs.KeyType()
	if kt == p11.CKK_RSA && d.fits(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, (&key{attrs: attrs}).size()) != nil {
		attrs.Wipe()
		return nil, nil, p11.CKR_KEY_SIZE_RANGE
	}
	public, err := d.crypto.DeriveKey(ctx, p11.Mechanism{Type: p11.CKM_PUB_KEY_FROM_PRIV_KEY}, o, p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	})
	if err != nil {
		attrs.Wipe()
		return nil, nil, err
	}
	return d.pair(ctx, public, attrs, allPublic, bits, pin)
}

// takePublic puts the card's MAC behind a public key.
func (d *domain) takePublic(spki ep11.Blob, template p11.Attributes, pin []byte) (blob, checksum []byte, err error) {
	if err := d.ready(); err != nil {
		return nil, nil, err
	}
	if !spki.IsSPKI() || len(spki.SPKI()) != len(spki) {
		return nil, nil, ep11.BlobError
	}
	k, err := d.wk.openPublic(spki)
	if err != nil {
		return nil, nil, err
	}
	k.wipe()
	session, err := d.loggedIn(pin)
	bits := bitsOf(template, false)
	if err == nil {
		err = d.maySay(bits)
	}
	if err != nil {
		return nil, nil, err
	}
	return d.wk.sealPublic(spki, bits, session, d.order), []byte{}, nil
}

// DeriveKey makes a secret key of a key. Data beside it is for mechanisms that are not here.
func (d *domain) DeriveKey(ctx context.Context, mech p11.Mechanism, template p11.Attributes, base, data, pin []byte) (blob, checksum []byte, err error) {
	if len(data) > 0 {
		return nil, nil, p11.CKR_ARGUMENTS_BAD
	}
	k, err := d.openFor(base, p11.CKF_DERIVE, mech)
	if err != nil {
		return nil, nil, err
	}
	o := object(k)
	defer o.Drop()
	a := about(template)
	if !a.Has(p11.CKA_CLASS) {
		a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	}
	attrs, err := d.crypto.DeriveKey(ctx, primitive(mech), o, a)
	if err != nil {
		return nil, nil, err
	}
	return d.secretKey(ctx, attrs, bitsOf(template, false), pin)
}

// GetAttributeValue tells of a key what is no secret.
func (d *domain) GetAttributeValue(_ context.Context, blob []byte, wanted []p11.AttributeType) (values p11.Attributes, err error) {
	k, err := d.open(blob)
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	for _, t := range wanted {
		v, ok := k.attrs.Get(t)
		bit := ep11.BitOf(t)
		switch {
		case values.Has(t):
		case bit != 0:
			values.SetBool(t, k.bits&bit != 0)
		case t == p11.CKA_IBM_STD_COMPLIANCE1:
			values.SetUlong(t, 0) // no mode of any standard
		case t == p11.CKA_VALUE_LEN && k.class() == p11.CKO_SECRET_KEY:
			value, _ := k.attrs.Get(p11.CKA_VALUE)
			values.SetUlong(t, uint64(len(value)))
		case ok && !k.attrs.Secret(t):
			values.Set(t, bytes.Clone(v))
		}
	}
	return values, nil
}

// SetAttributeValue changes boolean attributes. One that says that a key may leave the card
// can only be taken away, and that it leaves only under a key that is trusted only be given
// (PKCS#11 v3.1 §4.8); trusted itself is an administrator's word, where a control point does
// not say otherwise.
func (d *domain) SetAttributeValue(_ context.Context, blob []byte, values p11.Attributes) (newKey []byte, err error) {
	k, err := d.open(blob)
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	if err := d.allow(pointModify); err != nil {
		return nil, err
	}
	bits := k.bits
	for _, a := range values {
		bit := ep11.BitOf(a.Type)
		switch {
		case bit == 0:
			return nil, p11.CKR_ATTRIBUTE_TYPE_INVALID
		case len(a.Value) != 1:
			return nil, p11.CKR_ATTRIBUTE_VALUE_INVALID
		case k.bits&ep11.BitModifiable == 0 || bit&(ep11.BitLocal|ep11.BitNeverExtractable|ep11.BitNeverModifiable) != 0:
			return nil, ep11.ReadOnly
		case bit == ep11.BitWrapWithTrusted && k.bits&bit != 0 && a.Value[0] == p11.CK_FALSE:
			return nil, ep11.ReadOnly
		case a.Value[0] == p11.CK_FALSE:
			bits &^= bit
		case bit == ep11.BitTrusted && k.bits&bit == 0 && d.allow(pointTrust) != nil:
			return nil, ep11.ReadOnly
		case bit&(ep11.BitExtractable|ep11.BitModifiable) != 0 && k.bits&bit == 0:
			return nil, ep11.ReadOnly
		default:
			bits |= bit
		}
	}
	if k.blob.IsSPKI() {
		if len(k.blob.SPKI()) == len(blob) {
			return nil, ep11.ReadOnly // there is no place for them
		}
		return d.wk.sealPublic(k.blob.SPKI(), bits, k.session, d.order), nil
	}
	k.bits = bits
	return d.wk.seal(k, d.order), nil
}

// loggedIn is the session of a login's blob; zeros without one.
func (d *domain) loggedIn(pin []byte) (session [ep11.SessionLen]byte, err error) {
	if len(pin) == 0 {
		return session, nil
	}
	if err := d.checkLogin(pin); err != nil {
		return session, err
	}
	copy(session[:], pin)
	if !d.set.exists(d.sessionFile(session[:])) {
		return session, p11.CKR_SESSION_CLOSED
	}
	return session, nil
}

// checkLogin says whether the card has made this blob at a login.
func (d *domain) checkLogin(pin []byte) error {
	if err := d.ready(); err != nil {
		return err
	}
	const end = ep11.SessionLen + loginSalt
	if len(pin) != end+ep11.MACLen || !hmac.Equal(d.wk.loginMAC(pin[:end]), pin[end:]) {
		return p11.CKR_PIN_INCORRECT
	}
	return nil
}

// loginMAC is over the blob of a login.
func (w wrappingKey) loginMAC(b []byte) []byte {
	k := w.derive("login", nil)
	defer secret.Wipe(k)
	m := hmac.New(crypto.SHA256.New, k)
	m.Write(b)
	return m.Sum(nil)
}
