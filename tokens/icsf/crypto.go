package icsf

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
)

// holder is swtok's view of the keys on the server.
type holder struct {
	s      *objects
	reject [sha256.Size]byte // random
}

// The sizes of the keys that ICSF makes.
const (
	minRSA, maxRSA = 512, 4096
	minEC, maxEC   = 160, 521
	// Of DSA and of Diffie-Hellman.
	minGroup, maxGroup = 512, 2048
	maxGeneric         = 256 // bytes
)

// Listed is swtok.Holder: what the server does, alone or with hashes and paddings of ours.
func (h *holder) Listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	facts, _ := p11.MechanismFacts(m.Type)
	cipher, encrypts := cipherOf(m.Type)
	_, signs := macOf(m.Type)
	switch {
	case makes(m.Type), derives(m.Type):
		m.Flags &= p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR | p11.CKF_DERIVE
	case m.Flags&p11.CKF_DIGEST != 0 && facts.KeyTypes == nil:
		m.Flags &= p11.CKF_DIGEST
	case encrypts && cipher.pad:
		m.Flags &= p11.CKF_ENCRYPT | p11.CKF_DECRYPT | p11.CKF_WRAP | p11.CKF_UNWRAP
	case encrypts:
		m.Flags &= p11.CKF_ENCRYPT | p11.CKF_DECRYPT
	case signs:
		m.Flags &= p11.CKF_SIGN | p11.CKF_VERIFY
	default:
		m.Flags &= p11.CKF_SIGN | p11.CKF_VERIFY | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER | p11.CKF_ENCRYPT | p11.CKF_DECRYPT
		if len(facts.KeyTypes) != 1 || m.Flags == 0 || !slices.Contains([]p11.KeyType{p11.CKK_RSA, p11.CKK_EC, p11.CKK_DSA}, facts.KeyTypes[0]) {
			return m, false
		}
		if m.Type == p11.CKM_RSA_PKCS {
			m.Flags |= p11.CKF_WRAP | p11.CKF_UNWRAP
		}
	}
	if len(facts.KeyTypes) == 0 || signs {
		return m, true
	}
	switch facts.KeyTypes[0] {
	case p11.CKK_RSA:
		m.MinKeySize, m.MaxKeySize = minRSA, maxRSA
	case p11.CKK_EC:
		m.MinKeySize, m.MaxKeySize = minEC, maxEC
	case p11.CKK_DSA, p11.CKK_DH:
		m.MinKeySize, m.MaxKeySize = max(m.MinKeySize, minGroup), min(m.MaxKeySize, maxGroup)
	case p11.CKK_GENERIC_SECRET:
		if m.Type == p11.CKM_GENERIC_SECRET_KEY_GEN {
			m.MinKeySize, m.MaxKeySize = 8, 8*maxGeneric
		}
	}
	return m, true
}

// Holds is swtok.Holder: private keys are all on the server.
func (h *holder) Holds(p11.Attributes) bool { return true }

// key is the handle of a key's attributes.
func (h *holder) key(a p11.Attributes) (icsfwire.Handle, error) {
	name, ok := handleOf(a)
	if !ok {
		return "", p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key is not on the server")
	}
	h.s.uses.use(name)
	return name, nil
}

// Rejecter is swtok.Holder. Nothing secret of a key is known here: a random number of the process
// stands for it.
func (h *holder) Rejecter(a p11.Attributes) []byte {
	name, _ := a.Get(handleAttribute)
	m := hmac.New(sha256.New, h.reject[:])
	m.Write(name)
	return m.Sum(nil)
}

// RSA is swtok.Holder.
func (h *holder) RSA(a p11.Attributes) (swtok.HeldRSA, error) {
	name, err := h.key(a)
	n, _ := a.Get(p11.CKA_MODULUS)
	return &heldRSA{h.s, name, len(n), nil}, err
}

// EC is swtok.Holder.
func (h *holder) EC(a p11.Attributes, _ p11.Curve) (swtok.ECPrivateKey, error) {
	name, err := h.key(a)
	return &heldEC{h.s, name, nil}, err
}

// DSA is swtok.DSAHolder.
func (h *holder) DSA(a p11.Attributes) (swtok.DSAPrivateKey, error) {
	name, err := h.key(a)
	q, _ := a.Get(p11.CKA_SUBPRIME)
	return &heldDSA{h.s, name, len(q), nil}, err
}

// held gives what went wrong on the server to the caller as it is.
func held[T any](v T, err error) (T, error) {
	if err != nil {
		err = &swtok.HeldError{Err: err}
	}
	return v, err
}

// private is the use of a private key.
func (s *objects) private(ctx context.Context, key icsfwire.Handle, in []byte, rules ...string) ([]byte, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	var out icsfwire.PrivateResult
	_, err := s.conn.Call(ctx, &icsfwire.Request{Handle: s.uses.now(key), Rules: rules, Data: &icsfwire.PrivateUse{Input: in, Room: maxRSA / 8}}, &out)
	return held(out.Output, err)
}

// A heldRSA is a key of RSA; ctx is nil until Within.
type heldRSA struct {
	s    *objects
	key  icsfwire.Handle
	size int
	ctx  context.Context // of one call
}

// Within gives the key to a call.
func (k *heldRSA) Within(ctx context.Context) swtok.HeldRSA {
	return &heldRSA{k.s, k.key, k.size, ctx}
}

// Raw is swtok.HeldRSA.
func (k *heldRSA) Raw(in []byte) ([]byte, error) {
	out, err := k.s.private(k.ctx, k.key, in, "RSA-ZERO", "DECRYPT")
	if err == nil && len(out) != k.size {
		return held[[]byte](nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer is no number below the modulus"))
	}
	return out, err
}

// SignPKCS1 is swtok.HeldRSA.
func (k *heldRSA) SignPKCS1(tbs []byte) ([]byte, error) {
	return k.s.private(k.ctx, k.key, tbs, "RSA-PKCS")
}

// A heldEC is a key on a curve; ctx is nil until Within.
type heldEC struct {
	s   *objects
	key icsfwire.Handle
	ctx context.Context // of one call
}

// Within gives the key to a call.
func (k *heldEC) Within(ctx context.Context) swtok.ECPrivateKey { return &heldEC{k.s, k.key, ctx} }

// Sign is swtok.ECPrivateKey.
func (k *heldEC) Sign(digest []byte) ([]byte, error) {
	raw, err := k.s.private(k.ctx, k.key, digest, "ECDSA")
	if err != nil {
		return nil, err
	}
	return pkix.ECDSARawToDER(raw)
}

// ECDH is swtok.ECPrivateKey.
func (k *heldEC) ECDH([]byte) ([]byte, error) {
	return held[[]byte](nil, p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "keys on the server agree on no others"))
}

// A heldDSA is a key of DSA, with a subprime of size bytes; ctx is nil until Within.
type heldDSA struct {
	s    *objects
	key  icsfwire.Handle
	size int
	ctx  context.Context // of one call
}

// Within gives the key to a call.
func (k *heldDSA) Within(ctx context.Context) swtok.DSAPrivateKey {
	return &heldDSA{k.s, k.key, k.size, ctx}
}

// Sign is swtok.DSAPrivateKey. Of a digest that is longer than the subprime its first bytes
// count (FIPS 186-4 §4.6).
func (k *heldDSA) Sign(digest []byte) ([]byte, error) {
	raw, err := k.s.private(k.ctx, k.key, digest[:min(len(digest), k.size)], "DSA")
	if err != nil {
		return nil, err
	}
	return pkix.ECDSARawToDER(raw)
}

// does refuses a mechanism that the list does not have for the use.
func (t *token) does(m p11.MechanismType, use p11.Flags) error {
	for _, info := range t.Mechanisms() {
		if info.Type == m && info.Flags&use != 0 {
			return nil
		}
	}
	return p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token does not do %s this way", m.Short())
}

// Begin is tokens.Crypto: what secret keys do is the server's, and everything else that of
// swtok.
func (t *token) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	rule, encrypts := cipherOf(m.Type)
	hash, signs := macOf(m.Type)
	if !encrypts && !signs {
		return t.Crypto.Begin(ctx, use, m, key)
	}
	if err := t.does(m.Type, use); err != nil {
		return nil, err
	}
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	h, err := t.holder.key(a)
	var o tokens.Operation
	switch {
	case err != nil:
	case encrypts:
		o, err = newStream(t.objects, key, h, rule, m.Param, use == p11.CKF_DECRYPT)
	default:
		o, err = newMAC(t.objects, key, h, hash, m.Param, use == p11.CKF_VERIFY)
	}
	if err != nil {
		key.Release()
		return nil, err
	}
	return o, nil
}
