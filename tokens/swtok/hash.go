package swtok

import (
	"crypto"
	"crypto/hmac"
	_ "crypto/md5" // registers what crypto.Hash names
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"hash"

	"p11fs/p11"
	"p11fs/tokens"
)

// hashOf is the hash that a digest mechanism names in parameters of PSS and
// OAEP.
func hashOf(m p11.MechanismType) (crypto.Hash, bool) {
	switch m {
	case p11.CKM_SHA_1:
		return crypto.SHA1, true
	case p11.CKM_SHA224:
		return crypto.SHA224, true
	case p11.CKM_SHA256:
		return crypto.SHA256, true
	case p11.CKM_SHA384:
		return crypto.SHA384, true
	case p11.CKM_SHA512:
		return crypto.SHA512, true
	}
	return 0, false
}

// mgfHash is the hash of a mask generation function.
func mgfHash(m p11.MGF) (crypto.Hash, bool) {
	return hashOf(m.HashOf())
}

// kdfHash is the hash of an ANSI X9.63 key derivation function; 0 for none.
func kdfHash(k p11.KDF) (crypto.Hash, bool) {
	switch k {
	case p11.CKD_NULL:
		return 0, true
	case p11.CKD_SHA1_KDF:
		return crypto.SHA1, true
	case p11.CKD_SHA224_KDF:
		return crypto.SHA224, true
	case p11.CKD_SHA256_KDF:
		return crypto.SHA256, true
	case p11.CKD_SHA384_KDF:
		return crypto.SHA384, true
	case p11.CKD_SHA512_KDF:
		return crypto.SHA512, true
	}
	return 0, false
}

// digest begins a digest (PKCS#11 v3.1 §5.12, C_DigestInit).
func (c *Crypto) digest(mech *mechanism, m p11.Mechanism) (*digest, error) {
	if err := noParam(m); err != nil {
		return nil, err
	}
	return &digest{c: c, h: mech.hash.New()}, nil
}

type digest struct {
	c *Crypto
	h hash.Hash
}

func (d *digest) size() int { return d.h.Size() }

func (d *digest) update(part []byte) ([]byte, error) {
	d.h.Write(part)
	return nil, nil
}

func (d *digest) digestKey(key *tokens.Object) error {
	k, err := hold[*secretKey](d.c, key)
	if err != nil {
		if p11.RVOf(err) == p11.CKR_KEY_TYPE_INCONSISTENT {
			return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "only a secret key can be digested")
		}
		return err
	}
	defer key.Release()
	d.h.Write(k.value)
	return nil
}

func (d *digest) result([]byte) ([]byte, error) { return d.h.Sum(nil), nil }

func (d *digest) close() { d.h.Reset() }

// hmacSize is the length of the MAC that m asks for: the whole, or the leading
// bytes that the parameter of a …_HMAC_GENERAL gives (PKCS#11 v3.1 §6.21.3).
func hmacSize(mech *mechanism, m p11.Mechanism) (int, error) {
	if mech.kind != kindHMACGeneral {
		return mech.hash.Size(), noParam(m)
	}
	n, ok := m.Param.(p11.MACLength)
	if !ok || n == 0 || uint64(n) > uint64(mech.hash.Size()) {
		return 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID,
			"%s needs the length of the MAC, 1 to %d bytes", m.Type.Short(), mech.hash.Size())
	}
	return int(n), nil
}

// newHMAC begins a MAC with the key.
func newHMAC(mech *mechanism, k *secretKey) (hash.Hash, error) {
	if !k.macKey(mech.hash) {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "%s takes a generic secret key", mech.Type.Short())
	}
	return hmac.New(mech.hash.New, k.value), nil
}
