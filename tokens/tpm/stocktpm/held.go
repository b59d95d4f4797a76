package stocktpm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"math/big"
	"sync"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpm12"
)

// holder is swtok's view of the keys in the TPM.
type holder struct{ *state }

// Holds is swtok.Holder: no RSA key is used without the TPM.
func (h *holder) Holds(a p11.Attributes) bool {
	kt, _ := a.KeyType()
	return kt == p11.CKK_RSA
}

// EC is swtok.Holder.
func (h *holder) EC(p11.Attributes, p11.Curve) (swtok.ECPrivateKey, error) {
	return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the token has no keys on curves")
}

// Rejecter is swtok.Holder. What it is made of is for nobody to see who asks the token.
func (h *holder) Rejecter(a p11.Attributes) []byte {
	auth, _ := a.Get(authAttribute)
	blob, _ := a.Get(blobAttribute)
	mac := hmac.New(sha256.New, auth)
	mac.Write(blob)
	return mac.Sum(nil)
}

// RSA is swtok.Holder.
func (h *holder) RSA(a p11.Attributes) (swtok.HeldRSA, error) {
	k := &key{state: h.state}
	value, ok := a.Get(blobAttribute)
	if !ok || len(value) == 0 {
		// Stock wraps what was imported when it uses it first.
		numbers, err := pkix.RSAPrivate(a)
		if err != nil {
			return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key has neither a blob nor numbers: %w", err)
		}
		defer numbers.Wipe()
		if err := fits(uint64(numbers.N.BitLen()), numbers.E); err != nil {
			return nil, err
		}
		k.n, k.prime = new(big.Int).Set(numbers.N), numbers.P.Bytes()
		return &held{k, nil}, nil
	}
	blob, err := ownBlob(a)
	if err != nil {
		return nil, err
	}
	n, err := blob.RSA()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob: %w", err)
	}
	k.n, k.blob = n.N, &blob
	k.bound, _ = a.Get(authAttribute)
	k.bound = bytes.Clone(k.bound)
	return &held{k, nil}, nil
}

// ownBlob is the blob of a private key, if it is that of the numbers beside it.
func ownBlob(a p11.Attributes) (tpm12.Key, error) {
	value, _ := a.Get(blobAttribute)
	k, err := tpm12.ParseKey(bytes.Clone(value))
	if err != nil {
		return k, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob: %w", err)
	}
	modulus, _ := a.Get(p11.CKA_MODULUS)
	switch {
	case !bytes.Equal(bytes.TrimLeft(modulus, "\x00"), bytes.TrimLeft(k.Modulus, "\x00")):
		return k, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob is that of another key")
	case len(k.Private) == 0 || k.Usage != tpm12.Legacy:
		return k, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob is not that of a key that signs and decrypts")
	}
	return k, nil
}

// A key is one in the TPM, and how it is reached, which is found when it is first used.
type key struct {
	*state
	n     *big.Int
	blob  *tpm12.Key // nil: prime is to be wrapped
	prime []byte
	bound []byte // its secret, bound to a leaf key; empty without one

	mu   sync.Mutex  // guards what follows; it is held while the TPM is asked for that
	path []tpm12.Key // nil: not known
	role p11.UserType
	auth *secret.Bytes
}

// held is a key that a call uses; ctx is nil until Within.
type held struct {
	key *key
	ctx context.Context // of one call
}

// Within gives the key to a call.
func (k *held) Within(ctx context.Context) swtok.HeldRSA { return &held{k.key, ctx} }

// Close wipes the key's secret.
func (k *held) Close() {
	k.key.mu.Lock()
	defer k.key.mu.Unlock()
	secret.Wipe(k.key.prime)
	_ = k.key.auth.Close()
	k.key.path, k.key.auth = nil, nil
}

// use calls f with the path to the key and its secret, nil without one.
func use[T any](k *held, f func(ctx context.Context, path []tpm12.Key, a *tpm12.Auth) (T, error)) (T, error) {
	var none T
	ctx := k.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	path, auth, err := k.key.reach(ctx)
	if err != nil {
		return none, &swtok.HeldError{Err: err}
	}
	var a *tpm12.Auth
	if auth != nil {
		a = new(tpm12.Auth)
		defer secret.Wipe(a[:])
		auth.Use(func(b []byte) { copy(a[:], b) })
		_ = auth.Close()
	}
	return f(ctx, path, a)
}

// reach returns the path to the key and a copy of its secret.
func (k *key) reach(ctx context.Context) ([]tpm12.Key, *secret.Bytes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path != nil && len(k.bound) > 0 {
		// The object may outlive the login that its secret wants.
		login, err := k.store.RoleKey(k.role)
		if err != nil {
			_ = k.auth.Close()
			k.path, k.auth = nil, nil
			return nil, nil, err
		}
		_ = login.Close()
	}
	if k.path == nil {
		if err := k.find(ctx); err != nil {
			return nil, nil, err
		}
	}
	if k.auth == nil {
		return k.path, nil, nil
	}
	auth, err := k.auth.Clone()
	return k.path, auth, err
}

// find finds the root key that the key lies under: that it can be loaded says so.
func (k *key) find(ctx context.Context) error {
	why := error(p11.Errorf(p11.CKR_FUNCTION_FAILED, "there are no keys of a PIN that the key could lie under"))
	for _, u := range []p11.UserType{p11.CKU_USER, p11.CKU_SO} {
		t, err := k.tree(ctx, u)
		if err != nil {
			return err
		}
		if t.root == nil {
			continue
		}
		blob := k.blob
		if blob == nil {
			wrapped, err := wrap(t, k.n, k.prime, nil)
			if err != nil {
				return err
			}
			blob = &wrapped
		}
		err = k.tpm.Opens(ctx, t.to(*blob))
		if errors.Is(err, tpm12.CodeDecrypt) {
			why = p11.Errorf(p11.CKR_DEVICE_ERROR, "the key is not below a root key of the token, as when the PIN was set anew by the SO, or the TPM is another one than at the last login")
			continue
		}
		if err == nil && blob.Auth != 0 {
			k.auth, err = k.secret(ctx, u, t)
		}
		if err != nil {
			return err
		}
		k.path, k.role = t.to(*blob), u
		return nil
	}
	return why
}

// secret is the key's secret, which the leaf key of a login opens.
func (k *key) secret(ctx context.Context, u p11.UserType, t tree) (*secret.Bytes, error) {
	if len(k.bound) == 0 {
		return secret.New(make([]byte, len(tpm12.Auth{})))
	}
	login, err := k.store.RoleKey(u)
	if err != nil {
		return nil, err
	}
	defer login.Close()
	var auth tpm12.Auth
	defer secret.Wipe(auth[:])
	login.Use(func(b []byte) { copy(auth[:], b) })
	why := error(p11.Errorf(p11.CKR_DEVICE_ERROR, "the leaf key of the PIN is missing"))
	for _, leaf := range t.leaves {
		got, err := k.tpm.UnBind(ctx, t.to(leaf.key), &auth, k.bound)
		switch {
		case err == nil && len(got) == len(auth):
			return secret.New(got)
		case err == nil:
			secret.Wipe(got)
			why = p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's secret is damaged")
		case errors.Is(err, tpm12.CodeAuth):
			// The chip counts wrong secrets: it does not get this one twice.
			k.store.EndLogins(u)
			return nil, p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the PIN has been changed since the login"), "log in again")
		case errors.Is(err, tpm12.CodeDecrypt):
			why = p11.Errorf(p11.CKR_DEVICE_ERROR, "the key is one of a PIN before, or its secret is damaged")
		default:
			return nil, err
		}
	}
	return nil, why
}

// SignPKCS1 is swtok.HeldRSA.
func (k *held) SignPKCS1(tbs []byte) ([]byte, error) {
	return use(k, func(ctx context.Context, path []tpm12.Key, a *tpm12.Auth) ([]byte, error) {
		if last := path[len(path)-1]; last.Signature != tpm12.SignDER {
			return nil, &swtok.HeldError{Err: p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the TPM signs with the key in another way (scheme %d)", last.Signature)}
		}
		sig, err := k.key.tpm.Sign(ctx, path, a, tbs)
		if err != nil {
			return nil, &swtok.HeldError{Err: err}
		}
		return sig, nil
	})
}

// Raw is swtok.HeldRSA, for decryption alone, as no mechanism of the token wants anything
// else of it: the chip takes the padding off, and so it stands here again, around what there
// is, and with other bytes. Where there is no message, there is no padding.
func (k *held) Raw(in []byte) ([]byte, error) {
	return use(k, func(ctx context.Context, path []tpm12.Key, a *tpm12.Auth) ([]byte, error) {
		if last := path[len(path)-1]; last.Encryption != tpm12.EncryptPKCS1 {
			return nil, &swtok.HeldError{Err: p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the TPM decrypts with the key in another way (scheme %d)", last.Encryption)}
		}
		em := make([]byte, len(in))
		msg, err := k.key.tpm.UnBind(ctx, path, a, in)
		defer secret.Wipe(msg)
		switch {
		case errors.Is(err, tpm12.CodeDecrypt):
			return em, nil
		case err != nil:
			return nil, &swtok.HeldError{Err: err}
		case len(msg) > len(em)-11:
			return nil, &swtok.HeldError{Err: p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM gives more than was encrypted")}
		}
		em[1] = 2
		for i := range len(em) - len(msg) - 3 {
			em[2+i] = 0xff
		}
		copy(em[len(em)-len(msg):], msg)
		return em, nil
	})
}
