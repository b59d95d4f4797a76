package swtok

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"hash"

	"p11fs/p11"
)

// hashOfParam is the hash that a parameter names, which must be served.
func hashOfParam(m p11.MechanismType) (crypto.Hash, error) {
	h, _ := p11.HashOf(m)
	if h.Go == 0 {
		return 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "hash=%s is not supported; sha256 is", m.Short())
	}
	return h.Go, nil
}

// hkdfDerive is the family of HKDF (RFC 5869; PKCS#11 v3.1 §6.62): extraction,
// expansion, or both.
func hkdfDerive() family {
	return family{derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
		p, err := param[*p11.HKDFParams](u)
		if err != nil {
			return nil, err
		}
		h, err := hashOfParam(p.Hash)
		if err != nil {
			return nil, err
		}
		k, err := secretOf(base)
		if err != nil {
			return nil, err
		}
		salt, err := hkdfSalt(u, p)
		switch {
		case err != nil:
			return nil, err
		case !p.Extract && !p.Expand:
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "one of extract= and expand= must be true")
		case p.Expand && n < 0:
			return nil, errNoLength
		case p.Expand && n > 255*h.Size():
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "HKDF over this hash gives at most %d bytes, not %d", 255*h.Size(), n)
		}
		if p.Extract {
			if k, err = hkdf.Extract(h.New, k, salt); err != nil {
				return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "HKDF: %v", err)
			}
			if !p.Expand {
				return leading(k, n, kt)
			}
			defer wipe(k)
		}
		out, err := hkdf.Expand(h.New, k, string(p.Info), n)
		if err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "HKDF: %v", err)
		}
		return out, nil
	}}
}

// hkdfSalt is the salt that the parameter has, or whose key it names.
func hkdfSalt(u call, p *p11.HKDFParams) ([]byte, error) {
	kind := p.SaltType
	if kind == 0 { // it is what there is
		kind = uint64(p11.CKF_HKDF_SALT_DATA)
		if p.SaltKey != 0 {
			kind = uint64(p11.CKF_HKDF_SALT_KEY)
		}
	}
	switch p11.Flags(kind) {
	case p11.CKF_HKDF_SALT_NULL:
		return nil, nil
	case p11.CKF_HKDF_SALT_DATA:
		return p.Salt, nil
	case p11.CKF_HKDF_SALT_KEY:
		if len(u.others) == 0 || u.others[0] == nil {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "salt-key= is missing: the handle of a key")
		}
		return secretOf(u.others[0])
	}
	return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the type of the salt is not known: %d", kind)
}

// pbkdf2Hash is the hash of a pseudo-random function of PBKDF2, 0 for one that is not
// served.
func pbkdf2Hash(prf p11.PBKDF2PRF) crypto.Hash {
	switch prf {
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA1:
		return crypto.SHA1
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA224:
		return crypto.SHA224
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA256:
		return crypto.SHA256
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA384:
		return crypto.SHA384
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA512:
		return crypto.SHA512
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA512_224:
		return crypto.SHA512_224
	case p11.CKP_PKCS5_PBKD2_HMAC_SHA512_256:
		return crypto.SHA512_256
	}
	return 0
}

// maxPBKDF2 bounds the work of one key, in iterations: some seconds.
const maxPBKDF2 = 10_000_000

// pbkdf2Make is the family of CKM_PKCS5_PBKD2 (RFC 8018 §5.2; PKCS#11 v3.1 §6.25),
// which makes a secret key of any type out of a password.
func pbkdf2Make() family {
	return family{generate: func(ctx context.Context, u call, a *p11.Attributes) error {
		p, err := param[*p11.PBKD2Params](u)
		if err != nil {
			return err
		}
		h := pbkdf2Hash(p.PRF)
		kt, _ := a.KeyType()
		n, err := secretLength(*a, kt)
		switch {
		case err != nil:
			return err
		case h == 0:
			return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "prf=%s is not supported; pkcs5-pbkd2-hmac-sha256 is", p.PRF.Short())
		case n < 0:
			return errNoLength
		}
		if blocks := uint64(n+h.Size()-1) / uint64(h.Size()); p.Iterations*blocks > maxPBKDF2 {
			return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "iterations= times the length of the key, %d digests, is at most %d", blocks, maxPBKDF2)
		}
		password, salt := string(p.Password), bytes.Clone(p.Salt)
		value, err := await(ctx, u.busy, func() ([]byte, error) {
			return pbkdf2.Key(func() hash.Hash { return h.New() }, password, salt, int(p.Iterations), n)
		}, func(b []byte) { wipe(b) })
		switch {
		case ctx.Err() != nil:
			wipe(value)
			return ctx.Err()
		case err != nil:
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "PBKDF2: %v", err)
		}
		if kt.BlockSize() == desBlock {
			setParity(value)
		}
		*a = withValue(*a, kt, value)
		return nil
	}}
}
