package stocktpm

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/tpm/tpm12"
)

// The sizes of RSA keys that a TPM 1.2 has, and their exponent.
const (
	leastRSA = 512
	mostRSA  = 2048
	exponent = 65537
)

func fits(bits uint64, e *big.Int) error {
	if !slices.Contains([]uint64{leastRSA, 1024, mostRSA}, bits) {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the TPM has RSA keys of 512, 1024 and 2048 bits, not %d", bits)
	}
	if e.Cmp(big.NewInt(exponent)) != 0 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM has RSA keys with the public exponent %d only", exponent)
	}
	return nil
}

// A place is where a new key goes in the hierarchies, and its secret.
type place struct {
	tree  tree
	auth  *tpm12.Auth // nil: anybody may use it who opens the token
	bound []byte      // auth, bound to the leaf key
}

// place is where a key of a template goes. A private one is the user's. One that is not is
// used without a PIN; it lies where stock's sessions of its maker look for it: below the
// user's root key while the user is logged in.
func (s *state) place(ctx context.Context, private bool) (p place, err error) {
	u := p11.CKU_USER
	login, err := s.store.RoleKey(u)
	switch {
	case err == nil:
		_ = login.Close()
	case private:
		return p, err
	default:
		u = p11.CKU_SO
	}
	if p.tree, err = s.tree(ctx, u); err != nil {
		return p, err
	}
	if !p.tree.whole() {
		return p, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "RSA keys hang below keys of the PINs, and the SO has set none yet"), "set the SO's PIN first")
	}
	if !private {
		return p, nil
	}
	leaf, err := p.tree.leaves[0].key.RSA()
	if err != nil {
		return p, failed(err)
	}
	p.auth = new(tpm12.Auth)
	_, _ = rand.Read(p.auth[:]) // which never fails
	p.bound, err = tpm12.Bind(leaf, p.auth[:])
	return p, err
}

// wipe wipes the secret.
func (p place) wipe() {
	if p.auth != nil {
		secret.Wipe(p.auth[:])
	}
}

// usage is the secret as it is given to the chip: of zeros without one.
func (p place) usage() (a tpm12.Auth) {
	if p.auth != nil {
		a = *p.auth
	}
	return a
}

// put gives an object what there is of a key in the TPM.
func (p place) put(a *p11.Attributes, k tpm12.Key) {
	a.Set(blobAttribute, k.Print())
	if p.bound != nil {
		a.Set(authAttribute, slices.Clone(p.bound))
	}
}

// wrap wraps the key of a prime for the root key of a hierarchy. It has the secret usage,
// or none for nil.
func wrap(t tree, n *big.Int, prime []byte, usage *tpm12.Auth) (tpm12.Key, error) {
	k := tpm12.NewKey(tpm12.Legacy, n.BitLen(), usage != nil)
	k.Modulus = n.Bytes()
	root, err := t.root.key.RSA()
	if err != nil {
		return k, failed(err)
	}
	s := tpm12.Secret{Prime: prime}
	if usage != nil {
		s.Usage, s.Migration = *usage, *usage
		defer secret.Wipe(s.Usage[:])
		defer secret.Wipe(s.Migration[:])
	}
	if k, err = k.Wrap(root, s); err != nil {
		return k, failed(err)
	}
	return k, nil
}

// GenerateKeyPair is tokens.KeyGenerator. RSA keys are the TPM's.
func (t *token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	if m.Type != p11.CKM_RSA_PKCS_KEY_PAIR_GEN {
		return t.Crypto.GenerateKeyPair(ctx, m, public, private)
	}
	public, private = public.Clone(), private.Clone()
	for class, a := range map[p11.ObjectClass]*p11.Attributes{p11.CKO_PUBLIC_KEY: &public, p11.CKO_PRIVATE_KEY: &private} {
		if got, ok := a.Class(); ok && got != class {
			return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
		}
		if got, ok := a.KeyType(); ok && got != p11.CKK_RSA {
			return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type rsa, not %s", got.Short())
		}
		a.SetUlong(p11.CKA_CLASS, uint64(class))
		a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	}
	err := t.generate(ctx, &public, &private)
	return public, private, err
}

func (t *token) generate(ctx context.Context, public, private *p11.Attributes) error {
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	if !ok {
		return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
	}
	e := big.NewInt(exponent)
	if given, _ := public.Get(p11.CKA_PUBLIC_EXPONENT); len(given) > 0 {
		e.SetBytes(given)
	}
	if err := fits(bits, e); err != nil {
		return err
	}
	p, err := t.place(ctx, private.Bool(p11.CKA_PRIVATE))
	if err != nil {
		return err
	}
	defer p.wipe()
	end, err := tokens.Long(ctx)
	if err != nil {
		return err
	}
	defer end()
	k, err := t.tpm.Create(ctx, p.tree.under(), tpm12.NewKey(tpm12.Legacy, int(bits), p.auth != nil), p.usage())
	if err != nil {
		return err
	}
	n, err := k.RSA()
	if err != nil || n.N.BitLen() != int(bits) || n.E != exponent {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM has made no such key")
	}
	for _, a := range []*p11.Attributes{public, private} {
		a.Set(p11.CKA_MODULUS, n.N.Bytes())
		a.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
		p.put(a, k)
	}
	private.SetBool(p11.CKA_LOCAL, true)
	return nil
}

// Adopt is tokens.Adopter: an RSA private key goes into the TPM, or is refused. Other
// objects are swtok's.
func (t *token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	class, _ := attrs.Class()
	switch {
	case attrs.Has(p11.CKA_HIDDEN):
		attrs.Wipe()
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "what is hidden is the token's own")
	case class != p11.CKO_PRIVATE_KEY:
		return t.Crypto.Adopt(ctx, attrs)
	}
	kept, err := t.adopt(ctx, attrs)
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return kept, nil
}

func (t *token) adopt(ctx context.Context, attrs p11.Attributes) (_ p11.Attributes, err error) {
	if kt, _ := attrs.KeyType(); kt != p11.CKK_RSA {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM takes keys of RSA, and none of type %s", kt.Short())
	}
	made := attrs.Has(blobAttribute)
	if !made {
		if attrs, err = t.bringIn(ctx, attrs); err != nil {
			return nil, err
		}
	}
	if _, err := ownBlob(attrs); err != nil {
		return nil, err
	}
	attrs.SetBool(p11.CKA_SENSITIVE, true)
	attrs.SetBool(p11.CKA_EXTRACTABLE, false)
	attrs.SetBool(p11.CKA_ALWAYS_SENSITIVE, made)
	attrs.SetBool(p11.CKA_NEVER_EXTRACTABLE, made)
	public := attrs.Clone()
	defer public.Wipe()
	public.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	if err := pkix.Complete(&public); err != nil {
		return nil, err
	}
	if info, ok := public.Get(p11.CKA_PUBLIC_KEY_INFO); ok {
		attrs.Set(p11.CKA_PUBLIC_KEY_INFO, slices.Clone(info))
	}
	attrs.Set(p11.CKA_PRIVATE_EXPONENT, nil) // as stock has it
	return attrs, nil
}

// bringIn imports a private key. Its numbers go, and are wiped.
func (t *token) bringIn(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	if attrs.Has(authAttribute) {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the secret of a key is the token's to make")
	}
	if err := pkix.Complete(&attrs); err != nil {
		return nil, err
	}
	numbers, err := pkix.RSAPrivate(attrs)
	if err != nil {
		return nil, err
	}
	defer numbers.Wipe()
	if err := fits(uint64(numbers.N.BitLen()), numbers.E); err != nil {
		return nil, fmt.Errorf("%w: %w", p11.CKR_ATTRIBUTE_VALUE_INVALID, err)
	}
	p, err := t.place(ctx, attrs.Bool(p11.CKA_PRIVATE))
	if err != nil {
		return nil, err
	}
	defer p.wipe()
	prime := numbers.P.Bytes()
	defer secret.Wipe(prime)
	k, err := wrap(p.tree, numbers.N, prime, p.auth)
	if err == nil {
		err = t.tpm.Opens(ctx, p.tree.to(k))
	}
	if err != nil {
		return nil, err
	}
	left := attrs.WipeSecrets()
	p.put(&left, k)
	return left, nil
}
