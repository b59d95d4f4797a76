package stocktpm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/tpm/tpm12"
)

// The attributes of stock's token that are nobody's to see.
const (
	blobAttribute = p11.CKA_IBM_OPAQUE   // a key as the chip wraps it
	authAttribute = p11.CKA_ENC_AUTHDATA // its secret, bound to the leaf key
)

// names are what the hierarchy of a role is called: as CKA_ID of its keys, and its file.
type names struct{ root, leaf, file string }

func namesOf(u p11.UserType) names {
	if u == p11.CKU_SO {
		return names{"PUBLIC ROOT KEY", "PUBLIC LEAF KEY", tpm12.PublicRootFile}
	}
	return names{"PRIVATE ROOT KEY", "PRIVATE LEAF KEY", tpm12.PrivateRootFile}
}

// A tree is the hierarchy of a role, as far as it is there.
type tree struct {
	root   *hidden
	leaves []hidden // two where a change of the PIN was cut off
	all    []p11.ObjectHandle
}

// whole says whether there is a root key and a leaf key.
func (t tree) whole() bool { return t.root != nil && len(t.leaves) > 0 }

// under is the path to the root key.
func (t tree) under() []tpm12.Key { return []tpm12.Key{t.root.key} }

// to is the path to a key below it.
func (t tree) to(k tpm12.Key) []tpm12.Key { return []tpm12.Key{t.root.key, k} }

// A hidden is an object with a key of a hierarchy.
type hidden struct {
	handle p11.ObjectHandle
	key    tpm12.Key
}

// hiddenObjects is what the objects of all keys of hierarchies match.
func hiddenObjects() p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_HIDDEN, Value: p11.Bool(true)}}
}

// hiddenTemplate is what the objects of a hierarchy's key have in common.
func hiddenTemplate(id string) p11.Attributes {
	return hiddenObjects().With(p11.CKA_ID, []byte(id))
}

// tree reads the hierarchy of a role. Of two root keys the first counts, as for stock.
func (s *state) tree(ctx context.Context, u p11.UserType) (t tree, err error) {
	n := namesOf(u)
	for _, id := range []string{n.root, n.leaf} {
		objects, err := s.store.Find(ctx, hiddenTemplate(id), false)
		if err != nil {
			return t, err
		}
		for _, o := range objects {
			t.all = append(t.all, o.Handle)
			h, ok := readHidden(o)
			switch {
			case !ok:
			case id == n.leaf && h.key.Usage == tpm12.Binding:
				t.leaves = append(t.leaves, h)
			case id == n.root && h.key.Usage == tpm12.Storage && t.root == nil:
				t.root = &h
			}
		}
	}
	return t, nil
}

// readHidden reads the key of an object, if it has one with a private half.
func readHidden(o *tokens.Object) (h hidden, ok bool) {
	a, err := o.Acquire()
	if err != nil {
		return h, false
	}
	defer o.Release()
	blob, _ := a.Get(blobAttribute)
	if class, _ := a.Class(); class != p11.CKO_PRIVATE_KEY {
		return h, false
	}
	k, err := tpm12.ParseKey(bytes.Clone(blob))
	if err == nil {
		_, err = k.RSA()
	}
	return hidden{o.Handle, k}, err == nil && len(k.Private) > 0
}

// publicPart is the object of the public half of a hierarchy's key, as stock makes it.
func publicPart(id string, n *big.Int) p11.Attributes {
	a := hiddenTemplate(id)
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, false)
	a.SetBool(p11.CKA_MODIFIABLE, true)
	a.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	a.Set(p11.CKA_MODULUS, n.Bytes())
	a.SetUlong(p11.CKA_MODULUS_BITS, uint64(n.BitLen()))
	for _, t := range []p11.AttributeType{p11.CKA_WRAP, p11.CKA_VERIFY_RECOVER, p11.CKA_VERIFY, p11.CKA_ENCRYPT} {
		a.SetBool(t, true)
	}
	return withoutValues(a)
}

// privatePart is the object of the blob, likewise. The modulus is no modulus.
func privatePart(id string, k tpm12.Key) p11.Attributes {
	a := hiddenTemplate(id)
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PRIVATE_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, false)
	a.SetBool(p11.CKA_MODIFIABLE, true)
	a.Set(blobAttribute, k.Print())
	a.Set(p11.CKA_MODULUS, bytes.Clone(k.Private))
	a.Set(p11.CKA_PUBLIC_EXPONENT, nil)
	a.Set(p11.CKA_PRIVATE_EXPONENT, nil)
	for _, t := range []p11.AttributeType{p11.CKA_NEVER_EXTRACTABLE, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_UNWRAP, p11.CKA_SIGN_RECOVER, p11.CKA_SIGN, p11.CKA_DECRYPT} {
		a.SetBool(t, true)
	}
	a.SetBool(p11.CKA_SENSITIVE, false)
	a.SetBool(p11.CKA_ALWAYS_AUTHENTICATE, false)
	return withoutValues(a)
}

// withoutValues adds the attributes that stock gives each key, without a value.
func withoutValues(a p11.Attributes) p11.Attributes {
	for _, t := range []p11.AttributeType{p11.CKA_SUBJECT, p11.CKA_START_DATE, p11.CKA_END_DATE, p11.CKA_LABEL} {
		a.Set(t, nil)
	}
	a.SetBool(p11.CKA_LOCAL, false)
	a.SetBool(p11.CKA_DERIVE, false)
	return a
}

// takes asks the chip whether a leaf key takes a secret.
func (s *state) takes(ctx context.Context, t tree, leaf tpm12.Key, a tpm12.Auth) (bool, error) {
	public, err := leaf.RSA()
	if err != nil {
		return false, err
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // which never fails
	sealed, err := tpm12.Bind(public, nonce)
	if err != nil {
		return false, failed(err)
	}
	got, err := s.tpm.UnBind(ctx, t.to(leaf), &a, sealed)
	switch {
	case errors.Is(err, tpm12.CodeAuth), errors.Is(err, tpm12.CodeAuth2):
		return false, nil
	case err != nil:
		return false, err
	}
	return bytes.Equal(got, nonce), nil
}

// treeBits is the size of the keys of a hierarchy.
const treeBits = 2048

func newRoot() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, treeBits) }

// grow makes a hierarchy for a role under a PIN: its objects, and the contents of its file.
func (s *state) grow(ctx context.Context, u p11.UserType, pin *secret.Bytes) (made []*tokens.Object, file []byte, err error) {
	srk, err := s.storageRoot(ctx)
	if err != nil {
		return nil, nil, err
	}
	end, err := tokens.Long(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	key, err := s.root()
	if err != nil {
		return nil, nil, failed(err)
	}
	root, err := tpm12.RootKey(key, srk)
	if err != nil {
		return nil, nil, failed(err)
	}
	leaf, err := s.tpm.Create(ctx, []tpm12.Key{root}, tpm12.NewKey(tpm12.Binding, s.leaf, true), tpm12.PINAuth(pin))
	if err != nil {
		return nil, nil, err
	}
	of, err := leaf.RSA()
	if err != nil {
		return nil, nil, failed(err)
	}
	if file, err = tpm12.PrintRoot(key, pin); err != nil {
		return nil, nil, failed(err)
	}
	n := namesOf(u)
	made, err = s.store.CreateAll(ctx, []p11.Attributes{
		publicPart(n.root, key.N), privatePart(n.root, root), publicPart(n.leaf, of.N), privatePart(n.leaf, leaf),
	})
	return made, file, err
}

// storageRoot is the chip's storage root key, which stock's set-up lets be read.
func (s *state) storageRoot(ctx context.Context) (*rsa.PublicKey, error) {
	srk, err := s.tpm.StorageRoot(ctx)
	if errors.Is(err, tpm12.CodeAuth) {
		return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the TPM does not tell its storage root key: it has another secret, or is not to be read"),
			"tpm_restrictsrk -a as the TPM's owner; give the daemon OCK_SRK_MODE and OCK_SRK_SECRET, as stock's programs have them")
	}
	return srk, err
}

// move takes a root key over to this chip, from its file, where the chip's storage root key
// is another one than when it was made. All below it goes with it.
func (s *state) move(ctx context.Context, t *tree, file []byte, pin *secret.Bytes) error {
	lost := p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "the token's keys are those of another TPM, or the TPM was cleared since")
	if file == nil {
		return p11.Advise(lost, "the file of the root key, "+s.keyDir+"/*.pem in the token directory, would bring them into this one")
	}
	key, err := tpm12.ParseRoot(file, pin)
	if err != nil {
		return err
	}
	if public, err := t.root.key.RSA(); err != nil || !public.Equal(&key.PublicKey) {
		return lost
	}
	srk, err := s.storageRoot(ctx)
	if err != nil {
		return err
	}
	root, err := tpm12.RootKey(key, srk)
	if err != nil {
		return failed(err)
	}
	if err := s.tpm.Opens(ctx, []tpm12.Key{root}); err != nil {
		return err
	}
	_, err = s.store.Update(ctx, t.root.handle, func(a p11.Attributes) (p11.Attributes, error) {
		b := a.With(blobAttribute, root.Print())
		b.Set(p11.CKA_MODULUS, bytes.Clone(root.Private))
		return b, nil
	})
	if err == nil {
		t.root.key = root
		s.log.Info("the token's keys are moved to another TPM", "dir", s.dir)
	}
	return err
}

// destroy removes objects of hierarchies.
func (s *state) destroy(ctx context.Context, list []p11.ObjectHandle) {
	for _, h := range list {
		err := s.store.Destroy(ctx, h, func(p11.Attributes) error { return nil })
		if err != nil && p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
			s.log.Warn("a key of the token's own that is not used any more stays", "dir", s.dir, "err", err)
		}
	}
}

func failed(err error) error { return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token's keys: %w", err) }
