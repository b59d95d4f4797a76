package tpm

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpm20"
)

// What an object has of a key in the TPM: its blob, and its authorisation, which is
// nobody's to see and makes the object a private one. A key that is not private has none,
// as no PIN stands before it.
const (
	blobAttribute = p11.CKA_IBM_OPAQUE
	authAttribute = p11.CKA_VENDOR_DEFINED | 0x01000001
)

// holder is swtok's view of the keys in the TPM.
type holder struct {
	chip *tpm20.Chip
	k    *keeper
	can  abilities
}

// abilities are what the token does with the TPM.
type abilities struct {
	raw    bool
	bits   []int
	curves []p11.Curve
	aes    []int // bits; none: keys of AES are none of its
	modes  []string
}

func (r *record) abilities() (a abilities) {
	a.raw, a.bits, a.aes, a.modes = r.raw, r.bits, r.aes, r.modes
	for _, c := range p11.Curves() {
		if c.Elliptic != nil && slices.Contains(r.curves, c.Elliptic.Params().Name) {
			a.curves = append(a.curves, c)
		}
	}
	return a
}

func (a abilities) has(c p11.Curve) bool {
	return slices.ContainsFunc(a.curves, func(one p11.Curve) bool { return one.Name == c.Name })
}

// Listed is swtok.Holder. Private keys of other types than these, or of other sizes, are
// not made in software in silence: the token has no mechanisms for them.
func (h *holder) Listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	facts, _ := p11.MechanismFacts(m.Type)
	for _, kt := range facts.KeyTypes {
		switch kt {
		case p11.CKK_RSA:
			return h.listedRSA(m)
		case p11.CKK_EC:
			return h.listedEC(m)
		case p11.CKK_AES, p11.CKK_AES_XTS:
			return h.listedAES(m)
		case p11.CKK_DH, p11.CKK_DSA, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY, p11.CKK_ML_DSA, p11.CKK_ML_KEM,
			p11.CKK_SLH_DSA, p11.CKK_IBM_ML_DSA, p11.CKK_IBM_ML_KEM:
			return m, false
		}
	}
	return m, true
}

func (h *holder) listedRSA(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	if len(h.can.bits) == 0 {
		return m, false
	}
	m.MinKeySize, m.MaxKeySize = uint64(slices.Min(h.can.bits)), uint64(slices.Max(h.can.bits))
	if h.can.raw || m.Flags&p11.CKF_GENERATE_KEY_PAIR != 0 {
		return m, true
	}
	// Without the bare operation there is what the TPM signs itself.
	for _, one := range p11.Hashes() {
		if one.PKCS1 == m.Type && m.Type != 0 {
			return m, true
		}
	}
	m.Flags &= p11.CKF_SIGN | p11.CKF_VERIFY
	return m, m.Type == p11.CKM_RSA_PKCS
}

func (h *holder) listedAES(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	if len(h.can.aes) == 0 {
		return m, true
	}
	m.MinKeySize, m.MaxKeySize = uint64(slices.Min(h.can.aes)/8), uint64(slices.Max(h.can.aes)/8)
	mode, ok := swtok.HeldAESMode(m.Type)
	return m, m.Type == p11.CKM_AES_KEY_GEN || ok && slices.Contains(h.can.modes, mode)
}

func (h *holder) listedEC(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	var least, most uint64
	for _, c := range h.can.curves {
		n := uint64(c.Bits)
		if most = max(most, n); least == 0 || n < least {
			least = n
		}
	}
	m.MinKeySize, m.MaxKeySize = least, most
	return m, most > 0
}

// Holds is swtok.Holder: of a key of the TPM there are no private numbers.
func (h *holder) Holds(a p11.Attributes) bool {
	return !a.Has(p11.CKA_PRIVATE_EXPONENT) && !a.Has(p11.CKA_VALUE)
}

// key is the key of attributes, which have a blob whose public half is theirs.
func (h *holder) key(a p11.Attributes) (*tpm20.Key, error) {
	blob, err := ownBlob(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(authAttribute)
	auth, err := secret.New(bytes.Clone(value))
	if err != nil {
		return nil, err
	}
	return &tpm20.Key{Chip: h.chip, Parent: h.k.parent(), Blob: blob, Auth: auth}, nil
}

// ownBlob is the blob of a key, if it is that of the numbers beside it.
func ownBlob(a p11.Attributes) (tpm20.Blob, error) {
	value, _ := a.Get(blobAttribute)
	blob, err := parseOpaque(value)
	if err != nil {
		return blob, err
	}
	kt, _ := a.KeyType()
	if length, _ := a.Ulong(p11.CKA_VALUE_LEN); kt == p11.CKK_AES && length > 0 && 8*length == uint64(tpm20.AESBits(blob)) {
		return blob, nil
	}
	n, curve, point, err := tpm20.PublicOf(blob)
	if err != nil {
		return blob, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob: %w", err)
	}
	modulus, _ := a.Get(p11.CKA_MODULUS)
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	stored, _ := a.Get(p11.CKA_EC_POINT)
	switch {
	case kt == p11.CKK_RSA && n != nil && n.Cmp(new(big.Int).SetBytes(modulus)) == 0,
		kt == p11.CKK_EC && n == nil && bytes.Equal(params, curve.Params()) && bytes.Equal(stored, pkix.DERPoint(point)):
		return blob, nil
	}
	return blob, p11.Errorf(p11.CKR_DEVICE_ERROR, "the key's blob is that of another key")
}

// Rejecter is swtok.Holder.
func (h *holder) Rejecter(a p11.Attributes) []byte {
	auth, _ := a.Get(authAttribute)
	blob, _ := a.Get(blobAttribute)
	return hashOf(auth, blob)
}

// RSA is swtok.Holder.
func (h *holder) RSA(a p11.Attributes) (swtok.HeldRSA, error) {
	k, err := h.key(a)
	if err != nil {
		return nil, err
	}
	return &heldRSA{k, nil}, nil
}

// EC is swtok.Holder.
func (h *holder) EC(a p11.Attributes, c p11.Curve) (swtok.ECPrivateKey, error) {
	k, err := h.key(a)
	if err != nil {
		return nil, err
	}
	return &heldEC{k, c, nil}, nil
}

// A heldRSA is a key of RSA; ctx is nil until Within.
type heldRSA struct {
	key *tpm20.Key
	ctx context.Context // of one call
}

// Within gives the key to a call.
func (k *heldRSA) Within(ctx context.Context) swtok.HeldRSA { return &heldRSA{k.key, ctx} }

// Close wipes the authorisation.
func (k *heldRSA) Close() { _ = k.key.Auth.Close() }

func of(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// result gives what went wrong in the TPM to the caller as it is, but for what is about
// the data.
func result[T any](v T, err error) (T, error) {
	if err == nil || p11.RVOf(err) == p11.CKR_ENCRYPTED_DATA_INVALID || p11.RVOf(err) == p11.CKR_MECHANISM_PARAM_INVALID {
		return v, err
	}
	return v, &swtok.HeldError{Err: err}
}

// Raw is swtok.HeldRSA.
func (k *heldRSA) Raw(in []byte) ([]byte, error) { return result(k.key.Raw(of(k.ctx), in)) }

// SignPKCS1 is swtok.HeldRSA. The TPM pads what is the digest of a hash that it knows.
func (k *heldRSA) SignPKCS1(tbs []byte) ([]byte, error) {
	for _, h := range p11.Hashes() {
		if h.Go == 0 || h.PKCS1 == 0 {
			continue
		}
		digest, ok := bytes.CutPrefix(tbs, pkix.DigestInfoPrefix(h))
		if !ok || len(digest) != h.Go.Size() {
			continue
		}
		sig, err := k.key.SignPKCS1(of(k.ctx), h.Go, digest)
		if !errors.Is(err, tpm20.ErrNotHere) {
			return result(sig, err)
		}
	}
	n, _, _, err := tpm20.PublicOf(k.key.Blob)
	if err != nil {
		return nil, err
	}
	// RFC 8017 §9.2; the caller has seen to the length.
	em := bytes.Repeat([]byte{0xff}, (n.BitLen()+7)/8)
	em[0], em[1], em[len(em)-len(tbs)-1] = 0, 1, 0
	copy(em[len(em)-len(tbs):], tbs)
	return k.Raw(em)
}

// A heldEC is a key on a curve.
type heldEC struct {
	key   *tpm20.Key
	curve p11.Curve
	ctx   context.Context // of one call
}

// Within gives the key to a call.
func (k *heldEC) Within(ctx context.Context) swtok.ECPrivateKey { return &heldEC{k.key, k.curve, ctx} }

// Close wipes the authorisation.
func (k *heldEC) Close() { _ = k.key.Auth.Close() }

// Sign is swtok.ECPrivateKey.
func (k *heldEC) Sign(digest []byte) ([]byte, error) {
	r, s, err := k.key.SignECDSA(of(k.ctx), k.curve, digest)
	if err != nil {
		return result[[]byte](nil, err)
	}
	n := k.curve.Size()
	if r.BitLen() > 8*n || s.BitLen() > 8*n {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM's signature is too long")
	}
	sig := make([]byte, 2*n)
	r.FillBytes(sig[:n])
	s.FillBytes(sig[n:])
	return pkix.ECDSARawToDER(sig)
}

// ECDH is swtok.ECPrivateKey.
func (k *heldEC) ECDH(point []byte) ([]byte, error) {
	return result(k.key.ECDH(of(k.ctx), k.curve, point))
}
