package swtok

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// An rsaSigner is one way to sign with RSA, for one key.
type rsaSigner struct {
	message message
	sign    func(k *rsaPrivate, data []byte) ([]byte, error)
	verify  func(k *rsaPublic, data, signature []byte) bool
}

// rsaSigns makes the uses of a way to sign; f gives it for a key of bits.
func rsaSigns(f func(u call, bits int) (rsaSigner, error)) uses {
	return uses{
		p11.CKF_SIGN: with(func(u call, k *rsaPrivate) (part, error) {
			s, err := f(u, k.bits)
			if err != nil {
				return nil, err
			}
			return s.message.signingSlowly(k.k, func(ctx context.Context, data []byte) ([]byte, error) { return s.sign(k.within(ctx), data) })
		}),
		p11.CKF_VERIFY: with(func(u call, k *rsaPublic) (part, error) {
			s, err := f(u, k.bits)
			if err != nil {
				return nil, err
			}
			return s.message.verifying(k.k, func(data, sig []byte) bool { return s.verify(k, data, sig) })
		}),
	}
}

// rsaRaw are the uses of CKM_RSA_PKCS and CKM_RSA_X_509, which sign data as given,
// recover it from signatures, and encrypt: data takes it out of an opened signature.
func rsaRaw(sign, encrypt uses, data func(em []byte) ([]byte, bool)) uses {
	all := uses{
		p11.CKF_SIGN_RECOVER: sign[p11.CKF_SIGN],
		p11.CKF_VERIFY_RECOVER: with(func(_ call, k *rsaPublic) (part, error) {
			return collected(k.k, p11.CKR_SIGNATURE_LEN_RANGE, func(sig []byte) ([]byte, error) {
				if len(sig) != k.k {
					return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(sig), k.k)
				}
				if em, ok := k.open(sig); ok {
					if out, ok := data(em); ok {
						return out, nil
					}
				}
				return nil, p11.CKR_SIGNATURE_INVALID
			}), nil
		}),
	}
	maps.Copy(all, sign)
	maps.Copy(all, encrypt)
	return all
}

// rsaPKCS1 is the family of CKM_RSA_PKCS: PKCS#1 v1.5 over data as given.
func rsaPKCS1() family {
	sign := rsaSigns(func(_ call, bits int) (rsaSigner, error) {
		most := bytesOf(bits) - pkcs1Overhead
		return rsaSigner{
			message: given(0, most, fmt.Sprintf("the mechanism signs at most %d bytes with this key; sha256-rsa-pkcs signs data of any length", most)),
			sign:    func(k *rsaPrivate, data []byte) ([]byte, error) { return rsaResult(k.key.SignPKCS1(data)) },
			verify:  func(k *rsaPublic, data, sig []byte) bool { return k.opens(sig, padSignature(data, k.k)) },
		}, nil
	})
	return family{
		uses:        rsaRaw(sign, rsaCiphers(pkcs1Scheme), unpadSignature),
		encapsulate: rsaEncapsulates(pkcs1Scheme),
		decapsulate: func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error) {
			value, err := u.unhide(private, ciphertext, kt, n)
			return value, translate(err, decapsulateAnswers())
		},
		wraps: wrapping{hides: func(k *rsaPrivate, em, wrapped []byte, lengths []int) []byte {
			return k.unpadPKCS1(em, wrapped, 1, lengths)
		}},
	}
}

// rsaX509 is the family of CKM_RSA_X_509: RSA without padding.
func rsaX509() family {
	sign := rsaSigns(func(_ call, bits int) (rsaSigner, error) {
		most := bytesOf(bits)
		return rsaSigner{
			message: given(0, most, fmt.Sprintf("the mechanism signs at most %d bytes with this key", most)),
			sign:    func(k *rsaPrivate, data []byte) ([]byte, error) { return k.raw(data, k.key.Raw) },
			verify:  func(k *rsaPublic, data, sig []byte) bool { return k.opens(sig, leftPad(data, k.k)) },
		}, nil
	})
	return family{
		uses:  rsaRaw(sign, rsaCiphers(x509Scheme), func(em []byte) ([]byte, bool) { return em, true }),
		wraps: wrapping{zerosInFront: true, hides: (*rsaPrivate).unpadZeros},
	}
}

// rsaPKCS1Of is the family of PKCS#1 v1.5 over a hash.
func rsaPKCS1Of(h p11.Hash) family {
	prefix := sync.OnceValue(func() []byte { return pkix.DigestInfoPrefix(h) })
	info := func(digest []byte) []byte { return slices.Concat(prefix(), digest) }
	return family{uses: rsaSigns(func(u call, bits int) (rsaSigner, error) {
		if len(prefix())+h.Go.Size()+pkcs1Overhead > bytesOf(bits) {
			return rsaSigner{}, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for %s", u.m.Type.Short())
		}
		return rsaSigner{
			message: hashed(h.Go),
			sign:    func(k *rsaPrivate, digest []byte) ([]byte, error) { return rsaResult(k.key.SignPKCS1(info(digest))) },
			verify:  func(k *rsaPublic, digest, sig []byte) bool { return k.opens(sig, padSignature(info(digest), k.k)) },
		}, nil
	})}
}

// rsaPSS is the family of PSS (RFC 8017 §8.1) over data, or, if h is 0, over a
// digest as given.
func rsaPSS(h crypto.Hash) family {
	return family{uses: rsaSigns(func(u call, bits int) (rsaSigner, error) {
		p, err := readPSS(u, bits)
		if err != nil {
			return rsaSigner{}, err
		}
		s := rsaSigner{
			sign:   func(k *rsaPrivate, digest []byte) ([]byte, error) { return u.signPSS(k, p, digest) },
			verify: func(k *rsaPublic, digest, sig []byte) bool { return k.verifyPSS(p, digest, sig) },
		}
		if n := p.hash.Size(); h == 0 {
			s.message = given(n, n, fmt.Sprintf("the mechanism signs a digest, here of %d bytes", n))
		} else {
			s.message = hashed(h)
		}
		return s, nil
	})}
}

// pssParams are checked CK_RSA_PKCS_PSS_PARAMS.
type pssParams struct {
	hash, mgf crypto.Hash
	salt      int
}

// simple says that RSAPrivateKey.SignPSS takes the parameters.
func (p pssParams) simple() bool { return p.salt > 0 && p.hash == p.mgf }

// readPSS reads the parameters for a key of bits.
func readPSS(u call, bits int) (pssParams, error) {
	p, err := param[*p11.PSSParams](u)
	if err != nil {
		return pssParams{}, err
	}
	h, mgf, err := hashAndMask(p.Hash, p.MGF)
	if err != nil {
		return pssParams{}, err
	}
	// RFC 8017 §9.1.1: emLen ≥ hLen + sLen + 2.
	room := bytesOf(bits-1) - h.Size() - 2
	if room < 0 {
		return pssParams{}, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for a PSS signature with %s", p.Hash.Short())
	}
	if p.SaltLen > uint64(room) {
		return pssParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "a salt of %d bytes; the key has room for %d", p.SaltLen, room)
	}
	return pssParams{h, mgf, int(p.SaltLen)}, nil
}

func (c *Crypto) signPSS(k *rsaPrivate, p pssParams, digest []byte) ([]byte, error) {
	if p.simple() && !k.held() {
		return rsaResult(k.key.SignPSS(p.hash, digest, p.salt))
	}
	salt := make([]byte, p.salt)
	if _, err := io.ReadFull(c.rand, salt); err != nil {
		return rsaResult(nil, err)
	}
	em, err := pssEncode(p.hash, p.mgf, digest, salt, k.bits-1)
	if err != nil {
		return rsaResult(nil, err)
	}
	return rsaResult(k.key.Raw(leftPad(em, k.k)))
}

func (k *rsaPublic) verifyPSS(p pssParams, digest, sig []byte) bool {
	em, ok := k.open(sig)
	if !ok {
		return false
	}
	if bytesOf(k.bits-1) < k.k { // the modulus has 8n+1 bits
		if em[0] != 0 {
			return false
		}
		em = em[1:]
	}
	return pssVerify(p.hash, p.mgf, digest, em, k.bits-1, p.salt)
}

func rsaResult(out []byte, err error) ([]byte, error) {
	switch {
	case held(err):
		return nil, err
	case err != nil:
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "rsa: %v", err)
	}
	return out, nil
}
