package tpm

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/desk"
	"p11fs/tokens/tpm/tpm20"
)

// A token is a token directory, whose master key and private keys a TPM has, and swtok's
// cryptography around these.
type token struct {
	*store.Store
	*swtok.Crypto
	name    string
	k       *keeper
	holder  *holder
	release func() // gives the chip back
	test    func(context.Context) error
}

var (
	_ tokens.Token        = (*token)(nil)
	_ tokens.KeyGenerator = (*token)(nil)
	_ tokens.Adopter      = (*token)(nil)
	_ tokens.Hider        = (*token)(nil)
	_ tokens.Offliner     = (*token)(nil)
	_ tokens.SelfTester   = (*token)(nil)
)

func hashOf(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// Name is tokens.Token.
func (t *token) Name() string { return t.name }

// Kind is tokens.Token.
func (t *token) Kind() string { return Kind }

// Close is tokens.Storage.
func (t *token) Close() error {
	err := t.Store.Close()
	t.k.warm.close()
	t.release()
	return err
}

// Offline is tokens.Offliner.
func (t *token) Offline() error { return t.k.chip.Offline() }

// SelfTest is tokens.SelfTester, of the cryptography that is not the TPM's.
func (t *token) SelfTest(ctx context.Context) error { return t.test(ctx) }

// Login is tokens.Admin.
func (t *token) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	l, err := t.Store.Login(ctx, user, pin)
	t.k.warm.settle(user, err == nil)
	return l, err
}

// InitToken is tokens.Admin.
func (t *token) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	return t.k.changing(ctx, func() error { return t.Store.InitToken(ctx, pin, label) })
}

// InitPIN is tokens.Admin.
func (t *token) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	return t.k.changing(ctx, func() error { return t.Store.InitPIN(ctx, so, pin) })
}

// SetPIN is tokens.Admin.
func (t *token) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	return t.k.changing(ctx, func() error { return t.Store.SetPIN(ctx, user, old, pin) })
}

// GenerateRandom is tokens.Crypto. It is no worse than either of the TPM's generator and
// the kernel's.
func (t *token) GenerateRandom(ctx context.Context, b []byte) error {
	if err := t.Crypto.GenerateRandom(ctx, b); err != nil {
		return err
	}
	return desk.MixRandom(ctx, b, t.k.chip.Random)
}

// newAuth is the authorisation of a new key.
func newAuth(a p11.Attributes) (*secret.Bytes, error) {
	if !a.Bool(p11.CKA_PRIVATE) {
		return secret.New(nil)
	}
	return tpm20.NewAuth()
}

// GenerateKeyPair is tokens.KeyGenerator. Keys of RSA and on curves are the TPM's.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	var kt p11.KeyType
	switch m.Type {
	case p11.CKM_RSA_PKCS_KEY_PAIR_GEN:
		kt = p11.CKK_RSA
	case p11.CKM_EC_KEY_PAIR_GEN:
		kt = p11.CKK_EC
	default:
		return t.Crypto.GenerateKeyPair(ctx, m, public, private)
	}
	public, err := expect(public, p11.CKO_PUBLIC_KEY, kt)
	if err != nil {
		return nil, nil, err
	}
	if private, err = expect(private, p11.CKO_PRIVATE_KEY, kt); err != nil {
		return nil, nil, err
	}
	auth, err := newAuth(private)
	if err != nil {
		return nil, nil, err
	}
	defer auth.Close()
	if kt == p11.CKK_RSA {
		err = t.generateRSA(ctx, &public, &private, auth)
	} else {
		err = t.generateEC(ctx, &public, &private, auth)
	}
	return public, private, err
}

// expect is a copy of a template with the class and the type of key that is made.
func expect(template p11.Attributes, class p11.ObjectClass, kt p11.KeyType) (p11.Attributes, error) {
	if got, ok := template.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	if got, ok := template.KeyType(); ok && got != kt {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", kt.Short(), got.Short())
	}
	a := template.Clone()
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	return a, nil
}

// exponent is the only one that TPMs must have.
const exponent = 65537

func (t *token) generateRSA(ctx context.Context, public, private *p11.Attributes, auth *secret.Bytes) error {
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	given, _ := public.Get(p11.CKA_PUBLIC_EXPONENT)
	switch {
	case !ok:
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
	case !slices.Contains(t.holder.can.bits, int(min(bits, 1<<20))):
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the TPM has RSA keys of %v bits, not %d", t.holder.can.bits, bits)
	case len(given) > 0 && new(big.Int).SetBytes(given).Cmp(big.NewInt(exponent)) != 0:
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM has RSA keys with the public exponent %d only", exponent)
	}
	end, err := tokens.Long(ctx)
	if err != nil {
		return err
	}
	defer end()
	blob, err := t.k.chip.CreateRSA(ctx, t.k.parent(), int(bits), auth)
	if err != nil {
		return err
	}
	n, _, _, err := tpm20.PublicOf(blob)
	if err != nil || n == nil || n.BitLen() != int(bits) {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM has made no such key")
	}
	for _, a := range []*p11.Attributes{public, private} {
		a.Set(p11.CKA_MODULUS, n.Bytes())
		a.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	}
	put(private, blob, auth)
	return nil
}

func (t *token) generateEC(ctx context.Context, public, private *p11.Attributes, auth *secret.Bytes) error {
	params, ok := public.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
	}
	curve, err := t.curve(params)
	if err != nil {
		return err
	}
	blob, err := t.k.chip.CreateEC(ctx, t.k.parent(), curve, auth)
	if err != nil {
		return err
	}
	_, got, point, err := tpm20.PublicOf(blob)
	if err != nil || got.Name != curve.Name {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM has made no such key")
	}
	for _, a := range []*p11.Attributes{public, private} {
		a.Set(p11.CKA_EC_PARAMS, curve.Params())
		a.Set(p11.CKA_EC_POINT, pkix.DERPoint(point))
	}
	put(private, blob, auth)
	return nil
}

// curve finds a curve that the TPM has.
func (t *token) curve(params []byte) (p11.Curve, error) {
	curve, err := pkix.CurveOf(params)
	if err == nil && !t.holder.can.has(curve) {
		err = p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the TPM does not have the curve %s", curve.Name)
	}
	return curve, err
}

// put gives a private key what there is of it here.
func put(a *p11.Attributes, blob tpm20.Blob, auth *secret.Bytes) {
	a.Set(blobAttribute, printOpaque(blob))
	auth.Use(func(b []byte) { a.Set(authAttribute, append([]byte{}, b...)) })
}

// Adopt is tokens.Adopter: a private key goes into the TPM, or is refused, and so does one
// of AES, where the token is of that kind. Other objects are swtok's.
func (t *token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	class, _ := attrs.Class()
	kt, _ := attrs.KeyType()
	if aes := class == p11.CKO_SECRET_KEY && kt == p11.CKK_AES && len(t.holder.can.aes) > 0; class != p11.CKO_PRIVATE_KEY && !aes {
		return t.Crypto.Adopt(ctx, attrs)
	}
	kept, err := t.adopt(ctx, attrs)
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return kept, nil
}

func (t *token) adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	made := attrs.Has(blobAttribute)
	if !made {
		var err error
		if attrs, err = t.bringIn(ctx, attrs); err != nil {
			return nil, err
		}
	}
	blob, err := ownBlob(attrs)
	if err != nil {
		return nil, err
	}
	made = made && tpm20.MadeThere(blob)
	attrs.SetBool(p11.CKA_SENSITIVE, true)
	attrs.SetBool(p11.CKA_EXTRACTABLE, false)
	attrs.SetBool(p11.CKA_ALWAYS_SENSITIVE, made)
	attrs.SetBool(p11.CKA_NEVER_EXTRACTABLE, made)
	if class, _ := attrs.Class(); class == p11.CKO_SECRET_KEY {
		return attrs, t.checkAES(ctx, &attrs)
	}
	public := attrs.Clone()
	defer public.Wipe()
	public.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	if err := pkix.Complete(&public); err != nil {
		return nil, err
	}
	if info, ok := public.Get(p11.CKA_PUBLIC_KEY_INFO); ok {
		attrs.Set(p11.CKA_PUBLIC_KEY_INFO, append([]byte{}, info...))
	}
	return attrs, nil
}

// bringIn imports a key. Its numbers go, and are wiped.
func (t *token) bringIn(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	kt, _ := attrs.KeyType()
	if kt != p11.CKK_RSA && kt != p11.CKK_EC && kt != p11.CKK_AES {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM takes keys of RSA and on curves of NIST, and none of type %s", kt.Short())
	}
	if attrs.Has(authAttribute) {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "an authorisation is the token's to make")
	}
	if params, ok := attrs.Get(p11.CKA_EC_PARAMS); ok && kt == p11.CKK_EC {
		if _, err := t.curve(params); err != nil {
			return nil, err
		}
	}
	if err := pkix.Complete(&attrs); err != nil {
		return nil, err
	}
	auth, err := newAuth(attrs)
	if err != nil {
		return nil, err
	}
	defer auth.Close()
	var blob tpm20.Blob
	switch kt {
	case p11.CKK_RSA:
		blob, err = t.importRSA(ctx, attrs, auth)
	case p11.CKK_AES:
		blob, err = t.importAES(ctx, attrs, auth)
	default:
		blob, err = t.importEC(ctx, attrs, auth)
	}
	if err != nil {
		return nil, err
	}
	left := attrs.WipeSecrets()
	put(&left, blob, auth)
	return left, nil
}

func (t *token) importRSA(ctx context.Context, attrs p11.Attributes, auth *secret.Bytes) (tpm20.Blob, error) {
	k, err := pkix.RSAPrivate(attrs)
	if err != nil {
		return tpm20.Blob{}, err
	}
	defer k.Wipe()
	switch {
	case !slices.Contains(t.holder.can.bits, k.N.BitLen()):
		return tpm20.Blob{}, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM takes RSA keys of %v bits, not %d", t.holder.can.bits, k.N.BitLen())
	case k.E.Cmp(big.NewInt(exponent)) != 0:
		return tpm20.Blob{}, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM takes RSA keys with the public exponent %d only", exponent)
	}
	return t.k.chip.ImportRSA(ctx, t.k.parent(), k.N, k.P, auth)
}

func (t *token) importEC(ctx context.Context, attrs p11.Attributes, auth *secret.Bytes) (tpm20.Blob, error) {
	params, _ := attrs.Get(p11.CKA_EC_PARAMS)
	curve, err := t.curve(params)
	if err != nil {
		return tpm20.Blob{}, err
	}
	value, _ := attrs.Get(p11.CKA_VALUE)
	scalar, point, err := pkix.ECPrivate(pkix.GoArithmetic{}, curve, value)
	if err != nil {
		return tpm20.Blob{}, err
	}
	defer secret.Wipe(scalar)
	return t.k.chip.ImportEC(ctx, t.k.parent(), curve, scalar, point, auth)
}

// Visibility is tokens.Hider.
func (t *token) Visibility(attrs p11.Attributes, at p11.AttributeType) tokens.Visibility {
	class, _ := attrs.Class()
	switch {
	case class != p11.CKO_PRIVATE_KEY && class != p11.CKO_SECRET_KEY || !attrs.Has(blobAttribute):
	case at == blobAttribute || at == authAttribute:
		return tokens.Hidden
	case p11.SecretValue(at):
		return tokens.Withheld
	}
	return tokens.Readable
}

// random is the system's, where a place says none.
func random(p tokens.Place) tokens.Place {
	if p.Rand == nil {
		p.Rand = rand.Reader
	}
	return p
}
