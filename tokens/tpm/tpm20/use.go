package tpm20

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"p11fs/p11"
)

// random is the system's generator, which never fails.
type random struct{}

func (random) Read(b []byte) (int, error) { return rand.Read(b) }

// sign is TPM2_Sign of a digest under a scheme.
func (k *Key) sign(ctx context.Context, scheme tpm2.TPMAlgID, hash tpm2.TPMAlgID, digest []byte) (*tpm2.TPMTSignature, error) {
	return use(ctx, k, false, func(w *worker, key tpm2.AuthHandle) (*tpm2.TPMTSignature, error) {
		r, err := tpm2.Sign{
			KeyHandle: key, Digest: tpm2.TPM2BDigest{Buffer: append([]byte(nil), digest...)},
			InScheme: tpm2.TPMTSigScheme{
				Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: hash}),
			},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(w)
		if err != nil {
			return nil, err
		}
		return &r.Signature, nil
	})
}

// ErrNotHere says that the TPM does not do something that can be done in another way.
var ErrNotHere = errors.New("the TPM does not do this")

// SignPKCS1 is RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.1) of a digest, or ErrNotHere of a hash
// that the TPM does not have.
func (k *Key) SignPKCS1(ctx context.Context, h crypto.Hash, digest []byte) ([]byte, error) {
	f, err := k.Chip.Facts(ctx)
	if err != nil {
		return nil, err
	}
	id, ok := f.has(h)
	if !ok {
		return nil, ErrNotHere
	}
	sig, err := k.sign(ctx, tpm2.TPMAlgRSASSA, id, digest)
	if err != nil {
		return nil, err
	}
	one, err := sig.Signature.RSASSA()
	if err != nil {
		return nil, translate(err)
	}
	return one.Sig.Buffer, nil
}

// Raw is in^d mod n in as many bytes as in has, which are those of n (RSA_Decrypt without
// a scheme).
func (k *Key) Raw(ctx context.Context, in []byte) ([]byte, error) {
	out, err := k.decrypt(ctx, in, tpm2.TPMTRSADecrypt{Scheme: tpm2.TPMAlgNull})
	if err != nil {
		return nil, err
	}
	if len(out) > len(in) {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM gives %d bytes for %d", len(out), len(in))
	}
	full := make([]byte, len(in))
	copy(full[len(in)-len(out):], out)
	clear(out)
	return full, nil
}

// errCiphertext is all that is told of a ciphertext that is none.
var errCiphertext = p11.Errorf(p11.CKR_ENCRYPTED_DATA_INVALID, "the TPM decrypts nothing")

func (k *Key) decrypt(ctx context.Context, in []byte, scheme tpm2.TPMTRSADecrypt) ([]byte, error) {
	return use(ctx, k, true, func(w *worker, key tpm2.AuthHandle) ([]byte, error) {
		r, err := tpm2.RSADecrypt{
			KeyHandle: key, CipherText: tpm2.TPM2BPublicKeyRSA{Buffer: append([]byte(nil), in...)}, InScheme: scheme,
		}.Execute(w)
		if err != nil {
			// libtpms says "failure" of padding that is wrong, and goes on working.
			return nil, meaning(err, map[tpm2.TPMRC]error{rcValue: errCiphertext, rcSize: errCiphertext, rcFailure: errCiphertext})
		}
		return r.Message.Buffer, nil
	})
}

// SignECDSA signs a digest of any length that Facts allow: of one that is longer than the
// curve the leftmost bytes count (FIPS 186-5 §6.4).
func (k *Key) SignECDSA(ctx context.Context, curve p11.Curve, digest []byte) (r, s *big.Int, err error) {
	f, err := k.Chip.Facts(ctx)
	if err != nil {
		return nil, nil, err
	}
	id, padded, ok := f.fit(digest, curve.Size())
	if !ok {
		return nil, nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the TPM signs no digest of %d bytes with this key", len(digest))
	}
	sig, err := k.sign(ctx, tpm2.TPMAlgECDSA, id, padded)
	if err != nil {
		return nil, nil, err
	}
	one, err := sig.Signature.ECDSA()
	if err != nil {
		return nil, nil, translate(err)
	}
	return new(big.Int).SetBytes(one.SignatureR.Buffer), new(big.Int).SetBytes(one.SignatureS.Buffer), nil
}

// fit makes a digest one of a length that a hash of the TPM has, so that the same number
// is signed on a curve of n bytes: a longer one is cut, zeros in front count for nothing,
// and behind those of the curve's length nothing counts.
func (f *Facts) fit(digest []byte, n int) (id tpm2.TPMAlgID, padded []byte, ok bool) {
	if len(digest) > n {
		digest = digest[:n]
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		id, ok := f.has(h)
		if size := h.Size(); ok && size >= len(digest) {
			padded := make([]byte, size)
			copy(padded[min(size, n)-len(digest):], digest)
			return id, padded, true
		}
	}
	return 0, nil, false
}

// ECDH is the x coordinate, of the curve's size, that is shared with an uncompressed
// point. CKR_MECHANISM_PARAM_INVALID says that it is no point of the curve.
func (k *Key) ECDH(ctx context.Context, curve p11.Curve, point []byte) ([]byte, error) {
	if len(point) != 1+2*curve.Size() {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "a point of %d bytes", len(point))
	}
	return use(ctx, k, true, func(w *worker, key tpm2.AuthHandle) ([]byte, error) {
		r, err := tpm2.ECDHZGen{KeyHandle: key, InPoint: tpm2.New2B(*pointOf(curve, append([]byte(nil), point...)))}.Execute(w)
		if err != nil {
			return nil, err
		}
		z, err := r.OutPoint.Contents()
		if err != nil {
			return nil, err
		}
		x := z.X.Buffer
		if len(x) > curve.Size() {
			return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the TPM gives a coordinate of %d bytes", len(x))
		}
		out := make([]byte, curve.Size())
		copy(out[len(out)-len(x):], x)
		clear(x)
		return out, nil
	})
}
