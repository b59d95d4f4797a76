package soft

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/big"
	"path"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/swtok"
)

// WK is the register of EP11's master key.
const WK = "wk"

// EP11 are the cards of a Set in EP11 mode. It keeps nothing but tables.
type EP11 struct {
	set    *Set
	crypto *swtok.Crypto
	list   []p11.MechanismInfo
	log    *slog.Logger
}

var _ card.Transport = (*EP11)(nil)

// NewEP11 returns the cards of a set, whose primitives are p's. The set is its to close.
func NewEP11(set *Set, p swtok.Provider, log *slog.Logger) *EP11 {
	c := swtok.NewCrypto(p, nil)
	return &EP11{set: set, crypto: c, list: listOf(c), log: log}
}

// Close closes the set.
func (e *EP11) Close() error { return e.set.Close() }

// Call has the first domain of the target that is online answer.
func (e *EP11) Call(ctx context.Context, c *card.Call) error {
	a, online, ok := e.set.Pick(c.Target)
	switch {
	case !ok:
		c.Return = uint64(ep11.TargetInvalid)
		return nil
	case !online:
		c.Return = uint64(ep11.TransportError)
		return nil
	}
	wk, err := e.set.Key(a, WK, Current)
	if err != nil {
		e.log.Error("software card: the wrapping key cannot be read", "apqn", a, "err", err)
		c.Return = uint64(ep11.Internal)
		return nil
	}
	d := &domain{EP11: e, apqn: a, order: c.AnyOrder(), wk: wrappingKey{wk}}
	defer d.wk.wipe()
	if d.points, err = e.set.ControlPoints(); err != nil {
		e.log.Error("software card: the control points cannot be read", "apqn", a, "err", err)
		c.Return = uint64(ep11.Internal)
		return nil
	}
	ep11.Answer(ctx, c, d)
	e.log.Debug("software card: call", "function", c.Function.Name, "apqn", a, "rv", p11.RV(c.Return))
	return nil
}

// A domain answers one call.
type domain struct {
	*EP11
	apqn  card.APQN
	order binary.ByteOrder
	wk    wrappingKey // without a key if there is none

	points []byte // the control points
}

var _ ep11.Card = (*domain)(nil)

// listOf is the mechanism list, in its order: what swtok has of it, with a card's sizes and
// flags.
func listOf(c *swtok.Crypto) (list []p11.MechanismInfo) {
	want := []p11.MechanismType{p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_OAEP, p11.CKM_RSA_PKCS_PSS}
	hashes := []p11.MechanismType{p11.CKM_SHA_1, p11.CKM_SHA224, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512}
	for _, t := range hashes {
		h, _ := p11.HashOf(t)
		want = append(want, h.PKCS1, h.PSS)
	}
	want = append(want, p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_ECDSA, p11.CKM_ECDH1_DERIVE)
	for _, t := range hashes {
		h, _ := p11.HashOf(t)
		want = append(want, h.ECDSA, t, h.HMAC)
	}
	for _, t := range []p11.MechanismType{p11.CKM_IBM_SHA3_224, p11.CKM_IBM_SHA3_256, p11.CKM_IBM_SHA3_384, p11.CKM_IBM_SHA3_512} {
		h, _ := p11.HashOf(t)
		want = append(want, t, h.HMAC)
	}
	want = append(want, p11.CKM_DH_PKCS_KEY_PAIR_GEN, p11.CKM_DH_PKCS_DERIVE, p11.CKM_DSA_KEY_PAIR_GEN, p11.CKM_DSA, p11.CKM_DSA_SHA1)
	want = append(want, p11.CKM_AES_KEY_GEN, p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD,
		p11.CKM_DES3_KEY_GEN, p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD, p11.CKM_GENERIC_SECRET_KEY_GEN)
	const may = p11.CKF_DIGEST | p11.CKF_SIGN | p11.CKF_VERIFY | p11.CKF_ENCRYPT | p11.CKF_DECRYPT | p11.CKF_WRAP | p11.CKF_UNWRAP |
		p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR | p11.CKF_DERIVE | p11.CKF_EC_F_P | p11.CKF_EC_NAMEDCURVE | p11.CKF_EC_UNCOMPRESS
	want = append(want, p11.CKM_IBM_ED25519_SHA512, p11.CKM_IBM_ED448_SHA3, p11.CKM_IBM_EC_X25519, p11.CKM_IBM_EC_X448)
	for _, t := range want {
		like := primitive(p11.Mechanism{Type: t}).Type
		i := slices.IndexFunc(c.Mechanisms(), func(m p11.MechanismInfo) bool { return m.Type == like })
		if i < 0 {
			continue
		}
		m := c.Mechanisms()[i]
		m.Type = t
		m.Flags = m.Flags&may | p11.CKF_HW
		switch h, _ := p11.HashOf(hashOf(t)); {
		case t == p11.CKM_RSA_PKCS_KEY_PAIR_GEN || slices.Contains(keyTypes(t), p11.CKK_RSA):
			m.MinKeySize, m.MaxKeySize = 1024, 4096
		case slices.Contains(keyTypes(t), p11.CKK_DH) || slices.Contains(keyTypes(t), p11.CKK_DSA):
			m.MinKeySize, m.MaxKeySize = 1024, 3072
		case t == p11.CKM_GENERIC_SECRET_KEY_GEN:
			m.MinKeySize, m.MaxKeySize = 10, 256 // bytes
		case h.HMAC == t:
			m.MinKeySize, m.MaxKeySize = 8, 256
		case octetMechanisms()[t] != "":
			m.MinKeySize, m.MaxKeySize = 255, 448
		}
		list = append(list, m)
	}
	return list
}

func keyTypes(t p11.MechanismType) []p11.KeyType {
	f, _ := p11.MechanismFacts(t)
	return f.KeyTypes
}

// hashOf is the digest in a mechanism, and a digest itself.
func hashOf(t p11.MechanismType) p11.MechanismType {
	if p11.HashSize(t) != 0 {
		return t
	}
	f, _ := p11.MechanismFacts(t)
	return f.Hash
}

// Names of control points, which are bits.
const (
	pointSign          = 2
	pointSignSymmetric = 3
	pointVerify        = 4 // symmetric
	pointEncrypt       = 5 // symmetric
	pointDecrypt       = 6
	pointDecryptSymm   = 7
	pointWrap          = 8
	pointWrapSymm      = 9
	pointUnwrap        = 10
	pointUnwrapSymm    = 11
	pointGenerate      = 12
	pointGenerateSymm  = 13
	pointModify        = 17
	pointAnyHMAC       = 22 // HMAC with keys of any length
	pointRSA           = 30
	pointDSA           = 31
	pointEC            = 32
	point25519         = 55 // and 448
	pointTrust         = 37 // keys that others trust without an administrator's word
	alwaysOn           = -1
)

// allow refuses what a control point has switched off.
func (d *domain) allow(points ...int) error {
	for _, p := range points {
		if p != alwaysOn && !ep11.HasPoint(d.points, p) {
			return ep11.StaticPolicy
		}
	}
	return nil
}

// allowUse is allow for a use of a key.
func (d *domain) allowUse(use p11.Flags, k *key) error {
	of := func(secret, other int) int {
		if k.class() == p11.CKO_SECRET_KEY {
			return secret
		}
		return other
	}
	kt, _ := k.attrs.KeyType()
	algorithm, strength, point := pointOf(kt), ep11.StrengthPoint(kt, k.size()), alwaysOn
	if k.class() == p11.CKO_PUBLIC_KEY && use != p11.CKF_WRAP {
		strength = alwaysOn // what others have signed with a weak key can be verified
	}
	switch use {
	case p11.CKF_SIGN:
		point = of(pointSignSymmetric, pointSign)
	case p11.CKF_VERIFY:
		point = of(pointVerify, alwaysOn)
	case p11.CKF_ENCRYPT:
		point = of(pointEncrypt, alwaysOn)
	case p11.CKF_DECRYPT:
		point = of(pointDecryptSymm, pointDecrypt)
	case p11.CKF_WRAP:
		point = of(pointWrapSymm, pointWrap)
	case p11.CKF_UNWRAP:
		point = of(pointUnwrapSymm, pointUnwrap)
	}
	return d.allow(point, algorithm, strength)
}

// pointOf is what switches the keys of a type off.
func pointOf(kt p11.KeyType) int {
	switch kt {
	case p11.CKK_RSA:
		return pointRSA
	case p11.CKK_DSA:
		return pointDSA
	case p11.CKK_EC:
		return pointEC
	case p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY:
		return point25519
	}
	return alwaysOn
}

// bitOf is the attribute that a use takes.
func bitOf(use p11.Flags) ep11.Bits {
	return map[p11.Flags]ep11.Bits{
		p11.CKF_SIGN: ep11.BitSign, p11.CKF_VERIFY: ep11.BitVerify, p11.CKF_ENCRYPT: ep11.BitEncrypt, p11.CKF_DECRYPT: ep11.BitDecrypt,
		p11.CKF_WRAP: ep11.BitWrap, p11.CKF_UNWRAP: ep11.BitUnwrap, p11.CKF_DERIVE: ep11.BitDerive,
	}[use]
}

// ready refuses what takes a wrapping key where there is none.
func (d *domain) ready() error {
	if d.wk.key == nil {
		return ep11.WKNotInitialised
	}
	return nil
}

// open opens a key, which the caller wipes.
func (d *domain) open(b ep11.Blob) (k *key, err error) {
	if err := d.ready(); err != nil {
		return nil, err
	}
	if b.IsSPKI() {
		k, err = d.wk.openPublic(b)
	} else {
		k, err = d.wk.open(b)
	}
	if err != nil {
		return nil, err
	}
	if k.session != [ep11.SessionLen]byte{} && !d.set.exists(d.sessionFile(k.session[:])) {
		k.wipe()
		return nil, p11.CKR_SESSION_CLOSED
	}
	return k, nil
}

// openFor opens a key for a use of a mechanism, with all that a card checks.
func (d *domain) openFor(b ep11.Blob, use p11.Flags, m p11.Mechanism) (*key, error) {
	if err := d.lists(m, use); err != nil {
		return nil, err
	}
	k, err := d.open(b)
	if err != nil {
		return nil, err
	}
	switch {
	case k.bits&bitOf(use) == 0:
		err = p11.CKR_KEY_FUNCTION_NOT_PERMITTED
	case !suits(m.Type, k):
		err = p11.CKR_KEY_TYPE_INCONSISTENT
	case !d.takes(m.Type, k):
		err = p11.CKR_KEY_SIZE_RANGE
	default:
		err = d.allowUse(use, k)
	}
	if err != nil {
		k.wipe()
		return nil, err
	}
	return k, nil
}

// takes says whether a mechanism takes keys of that size: of all that the card's list has
// sizes for, but where a control point has HMAC take any.
func (d *domain) takes(t p11.MechanismType, k *key) bool {
	h, _ := p11.HashOf(hashOf(t))
	if h.HMAC == t && d.allow(pointAnyHMAC) == nil {
		return true
	}
	return d.fits(t, k.size()) == nil
}

// size is that of a key as mechanisms tell it: the bits of a modulus, group or curve, or the
// bytes of a secret value.
func (k *key) size() uint64 {
	for _, t := range []p11.AttributeType{p11.CKA_MODULUS, p11.CKA_PRIME} {
		if n, ok := k.attrs.Get(t); ok {
			return uint64(new(big.Int).SetBytes(n).BitLen())
		}
	}
	if params, ok := k.attrs.Get(p11.CKA_EC_PARAMS); ok {
		c, _ := pkix.CurveOf(params)
		return uint64(c.Bits)
	}
	value, _ := k.attrs.Get(p11.CKA_VALUE)
	return uint64(len(value))
}

// lists says whether the card has a mechanism for a use, and its parameter is good.
func (d *domain) lists(m p11.Mechanism, use p11.Flags) error {
	if !slices.ContainsFunc(d.list, func(i p11.MechanismInfo) bool { return i.Type == m.Type && i.Flags&use != 0 }) {
		return p11.CKR_MECHANISM_INVALID
	}
	return m.Validate()
}

// object makes of a key what swtok works with, until Drop. The key is wiped then.
func object(k *key) *tokens.Object {
	const anyHandle = 1
	return tokens.NewObject(anyHandle, "", k.attrs)
}

// run is one whole use of a mechanism. A digest has no key.
func (d *domain) run(ctx context.Context, use p11.Flags, m p11.Mechanism, o *tokens.Object, data, signature []byte) ([]byte, error) {
	op, err := d.crypto.Begin(ctx, use, primitive(m), o)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	if len(data) > 0 {
		if out, err = op.Update(ctx, data); err != nil {
			return nil, err
		}
	}
	rest, err := op.Final(ctx, signature)
	return append(out, rest...), err
}

// sessionFile is there while the login is, at this domain: each has its own.
func (d *domain) sessionFile(id []byte) string {
	return path.Join("sessions", d.apqn.String(), hex.EncodeToString(id))
}
