package swtok

import (
	"bytes"
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
	"p11fs/tokens"
)

// A wrapping is how a mechanism that encrypts takes keys.
type wrapping struct {
	// private says that it takes private keys too, whose encoding is long and of
	// any length (PKCS#11 v3.1 §6.7).
	private bool
	// block is what the value of a key is filled up to with zeros (PKCS#11 v3.1
	// §6.10.5); 0 if it can have any length.
	block int
	// hides, unless nil, takes a secret key out of em, the decryption of wrapped under k,
	// with one of the lengths, which are none if it may have any. Bytes that hold no such
	// key give another one: an error would tell what somebody else has wrapped.
	hides func(k *rsaPrivate, em, wrapped []byte, lengths []int) []byte
	// zerosInFront says that a key comes back with zeros in front of it, and that its
	// length must be known.
	zerosInFront bool
}

// translate turns the answers of encryption and decryption into those of wrapping
// and unwrapping.
func translate(err error, as map[p11.RV]p11.RV) error {
	was := p11.RVOf(err)
	rv, ok := as[was]
	switch {
	case !ok:
		return err
	case err.Error() == was.String(): // nobody is to read two names for one thing
		return rv
	}
	return p11.Errorf(rv, "%w", err)
}

func wrapAnswers() map[p11.RV]p11.RV {
	return map[p11.RV]p11.RV{
		p11.CKR_KEY_TYPE_INCONSISTENT: p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_KEY_SIZE_RANGE:        p11.CKR_WRAPPING_KEY_SIZE_RANGE,
		p11.CKR_KEY_HANDLE_INVALID:    p11.CKR_WRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_OBJECT_HANDLE_INVALID: p11.CKR_WRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_DATA_LEN_RANGE:        p11.CKR_KEY_SIZE_RANGE,
		p11.CKR_DATA_INVALID:          p11.CKR_KEY_NOT_WRAPPABLE,
	}
}

func unwrapAnswers() map[p11.RV]p11.RV {
	return map[p11.RV]p11.RV{
		p11.CKR_KEY_TYPE_INCONSISTENT:    p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_KEY_SIZE_RANGE:           p11.CKR_UNWRAPPING_KEY_SIZE_RANGE,
		p11.CKR_KEY_HANDLE_INVALID:       p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_OBJECT_HANDLE_INVALID:    p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_DATA_LEN_RANGE:           p11.CKR_WRAPPED_KEY_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_LEN_RANGE: p11.CKR_WRAPPED_KEY_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_INVALID:   p11.CKR_WRAPPED_KEY_INVALID,
	}
}

// WrapKey encrypts a key under another (PKCS#11 v3.1 §5.18.3, C_WrapKey).
func (c *Crypto) WrapKey(ctx context.Context, m p11.Mechanism, under, key *tokens.Object) ([]byte, error) {
	u, err := c.call(m, p11.CKF_WRAP)
	if err != nil {
		return nil, err
	}
	plain, err := u.encodeKey(key)
	if err != nil {
		return nil, err
	}
	defer wipe(plain)
	out, err := u.crypt(ctx, p11.CKF_ENCRYPT, under, plain)
	return out, translate(err, wrapAnswers())
}

// crypt is one whole encryption or decryption.
func (u call) crypt(ctx context.Context, use p11.Flags, key *tokens.Object, in []byte) ([]byte, error) {
	o, err := u.begin(use, key)
	if err != nil {
		return nil, err
	}
	return o.all(ctx, in)
}

// encodeKey returns what is wrapped of a key: the value of a secret key, the
// PrivateKeyInfo of a private one.
func (u call) encodeKey(key *tokens.Object) ([]byte, error) {
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	defer key.Release()
	switch class, _ := a.Class(); class {
	case p11.CKO_SECRET_KEY:
		value, ok := a.Get(p11.CKA_VALUE)
		if !ok {
			return nil, p11.CKR_KEY_NOT_WRAPPABLE
		}
		n := len(value)
		if block := u.row.wraps.block; block != 0 {
			n = (n + block - 1) / block * block
		}
		out := make([]byte, n)
		copy(out, value)
		return out, nil
	case p11.CKO_PRIVATE_KEY:
		if !u.row.wraps.private {
			return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "%s wraps secret keys only; aes-cbc-pad and aes-key-wrap-kwp wrap private ones", u.m.Type.Short())
		}
		der, err := pkix.EncodePrivateKey(a)
		switch {
		case p11.RVOf(err) == p11.CKR_KEY_TYPE_INCONSISTENT:
			return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "%v", err)
		case err != nil:
			return nil, keyDamaged("%v", err)
		}
		return der, nil
	}
	return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "only secret and private keys can be wrapped")
}

// UnwrapKey makes a key of what WrapKey gave (PKCS#11 v3.1 §5.18.4,
// C_UnwrapKey).
func (c *Crypto) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_UNWRAP)
	if err != nil {
		return nil, err
	}
	class, kt, err := templateKey(template)
	if err != nil {
		return nil, err
	}
	private := class == p11.CKO_PRIVATE_KEY
	if private && !u.row.wraps.private {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s unwraps secret keys only", m.Type.Short())
	}
	if u.row.wraps.hides != nil {
		value, err := u.unhideAs(ctx, template, kt, unwrapping, wrapped)
		if err != nil {
			return nil, translate(err, unwrapAnswers())
		}
		return withValue(template, kt, value), nil
	}
	plain, err := u.crypt(ctx, p11.CKF_DECRYPT, unwrapping, wrapped)
	if err != nil {
		return nil, translate(err, unwrapAnswers())
	}
	defer wipe(plain)
	if private {
		a, err := c.unwrappedPrivate(plain, kt)
		if err != nil {
			return nil, err
		}
		defer a.Wipe() // Merge copies
		return template.Merge(a), nil
	}
	value, err := u.unwrappedValue(template, kt, plain)
	if err != nil {
		return nil, err
	}
	return withValue(template, kt, bytes.Clone(value)), nil
}

// unwrappedPrivate returns the attributes of an unwrapped private key, which must
// be of type kt and one that the token can use. The bytes come from whoever made
// the wrapped key.
func (c *Crypto) unwrappedPrivate(der []byte, kt p11.KeyType) (p11.Attributes, error) {
	a, err := pkix.DecodePrivateKey(der)
	switch p11.RVOf(err) {
	case p11.CKR_OK:
	case p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_DOMAIN_PARAMS_INVALID:
		return nil, err
	default:
		return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_INVALID, "the unwrapped bytes are no private key: %v", err)
	}
	got, _ := a.KeyType()
	if pqc.IsIBM(kt) && pqc.Standard(kt) == got { // whose encodings are the same
		a.Wipe()
		a, got = pkix.IBMAttributes(kt, der), kt
	}
	switch {
	case got != kt:
		err = p11.Errorf(p11.CKR_WRAPPED_KEY_INVALID, "the unwrapped key is of type %s, and the template says %s", got.Short(), kt.Short())
	default:
		a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PRIVATE_KEY))
		err = translate(c.usable(a), map[p11.RV]p11.RV{p11.CKR_KEY_SIZE_RANGE: p11.CKR_WRAPPED_KEY_INVALID})
	}
	if err != nil {
		a.Wipe()
		return nil, err
	}
	return a, nil
}

// templateKey reads which key a template describes.
func templateKey(a p11.Attributes) (p11.ObjectClass, p11.KeyType, error) {
	class, okClass := a.Class()
	kt, okType := a.KeyType()
	switch {
	case !okClass || !okType:
		return 0, 0, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs class and key-type")
	case class != p11.CKO_SECRET_KEY && class != p11.CKO_PRIVATE_KEY:
		return 0, 0, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the template must describe a secret or private key")
	}
	return class, kt, nil
}

// unhideAs is unhide for the key of a template.
func (u call) unhideAs(ctx context.Context, template p11.Attributes, kt p11.KeyType, unwrapping *tokens.Object, wrapped []byte) ([]byte, error) {
	n, err := secretLength(template, kt)
	if err != nil {
		return nil, err
	}
	key, err := u.hold(unwrapping)
	if err != nil {
		return nil, err
	}
	defer unwrapping.Release()
	return u.unhide(within(ctx, key), wrapped, kt, n)
}

// unhide is unwrapping by wrapping.hides, of a key of n bytes, or of any that kt has if n
// is negative. What it refuses is what everybody sees.
func (u call) unhide(key any, wrapped []byte, kt p11.KeyType, n int) ([]byte, error) {
	k, err := keyOf[*rsaPrivate](key)
	if err == nil {
		err = u.fits(k.bits)
	}
	if err != nil {
		return nil, err
	}
	var lengths []int
	switch {
	case n >= 0:
		lengths = []int{n}
	case u.row.wraps.zerosInFront:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len: %s does not keep the length of the key", u.m.Type.Short())
	default:
		for _, n := range p11.KeyLengths(kt) {
			lengths = append(lengths, int(n))
		}
	}
	most := k.k
	if !u.row.wraps.zerosInFront {
		most -= pkcs1Overhead
	}
	if len(lengths) > 0 && slices.Max(lengths) > most {
		lengths = slices.DeleteFunc(lengths, func(n int) bool { return n > most })
		if len(lengths) == 0 {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has at most %d bytes, fewer than value-len", most)
		}
	}
	em, err := k.rawDecrypt(wrapped)
	if err != nil {
		return nil, err
	}
	defer wipe(em)
	return u.row.wraps.hides(k, em, wrapped, lengths), nil
}

// unwrappedValue cuts an unwrapped secret to the key's length. The standard has
// tokens cut whatever came out to CKA_VALUE_LEN; cutting real key bytes
// would let a caller shorten a key that it may use until it can be
// guessed, so only padding that wrapping put there comes off.
func (u call) unwrappedValue(template p11.Attributes, kt p11.KeyType, plain []byte) ([]byte, error) {
	n, err := secretLength(template, kt)
	if err != nil {
		return nil, err
	}
	w := u.row.wraps
	if n < 0 {
		n = len(plain)
	}
	spare := len(plain) - n
	value, pad := plain, []byte(nil)
	switch {
	case spare < 0:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has %d bytes, fewer than value-len", len(plain))
	case spare < w.block:
		value, pad = plain[:n], plain[n:]
	case spare > 0:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has %d bytes, more than value-len", len(plain))
	}
	var any byte
	for _, b := range pad {
		any |= b
	}
	switch {
	case any != 0:
		return nil, p11.CKR_WRAPPED_KEY_INVALID
	case !p11.FitsKey(kt, uint64(len(value))):
		return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "a wrapped key of %d bytes does not suit the key type", len(value))
	}
	return value, nil
}
