package swtok

import (
	"crypto"
	"crypto/hmac"

	"p11fs/p11"
)

// hashOf is a hash that parameters of PSS and OAEP may name: one that is served
// and has a mask generation function of its own.
func hashOf(m p11.MechanismType) (crypto.Hash, bool) {
	h, ok := p11.HashOf(m)
	return h.Go, ok && h.Go != 0 && h.MGF != 0
}

// hashAndMask are the hash of a padding and that of its mask, as parameters name
// them.
func hashAndMask(hash p11.MechanismType, mask p11.MGF) (h, mgf crypto.Hash, err error) {
	h, okHash := hashOf(hash)
	mgf, okMask := hashOf(mask.HashOf())
	if !okHash || !okMask {
		return 0, 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the hash %s or the mask %s is not supported", hash.Short(), mask.Short())
	}
	return h, mgf, nil
}

// digests is the family of digests.
func digests(h crypto.Hash) family {
	return family{uses: uses{
		p11.CKF_DIGEST: func(call, any) (part, error) {
			return hashed(h).signing(h.Size(), func(sum []byte) ([]byte, error) { return sum, nil })
		},
	}}
}

// hmacs is the family of HMACs (PKCS#11 v3.1 §6.21). A general one is as long as
// its parameter says.
func hmacs(h crypto.Hash, general bool) family {
	return family{uses: macUses(func(end func(m message, size int) (part, error)) begin {
		return with(func(u call, k *secretKey) (part, error) {
			size, err := u.macSize(h.Size(), general)
			if err != nil {
				return nil, err
			}
			return end(message{h: hmac.New(h.New, k.value)}, size)
		})
	})}
}

// macSize is how long the MAC is to be: n bytes, or what the parameter says if general
// is set.
func (u call) macSize(n int, general bool) (int, error) {
	if !general {
		return n, nil
	}
	given, err := param[p11.MACLength](u)
	return int(given), err
}

// macUses are the uses of a MAC, whose message begin hands to its end.
func macUses(of func(end func(m message, size int) (part, error)) begin) uses {
	return uses{
		p11.CKF_SIGN: of(func(m message, size int) (part, error) {
			return m.signing(size, func(mac []byte) ([]byte, error) { return mac[:size], nil })
		}),
		p11.CKF_VERIFY: of(func(m message, size int) (part, error) {
			return m.verifying(size, func(mac, sig []byte) bool { return equal(mac[:size], sig) })
		}),
	}
}

// generateHMACKey is the family that makes keys for the HMAC of a hash alone.
func generateHMACKey(h p11.Hash) family {
	facts, known := p11.MechanismFacts(h.KeyGen)
	if !known {
		return family{}
	}
	return generateSecret(facts.KeyTypes[0], 8, nil)
}

// hashDerive is the family that takes a key from the leading end of the digest of
// another's value (PKCS#11 v3.1 §6.20.5).
func hashDerive(h crypto.Hash) family {
	return family{derive: func(_ call, base any, kt p11.KeyType, n int) ([]byte, error) {
		k, err := secretOf(base)
		if err != nil {
			return nil, err
		}
		d := h.New()
		d.Write(k)
		return leading(d.Sum(nil), n, kt)
	}}
}

// leading is a key of n bytes from the leading end of out, or of all of it if n is
// negative and it fits. The rest is wiped.
func leading(out []byte, n int, kt p11.KeyType) ([]byte, error) {
	switch {
	case n < 0 && !p11.FitsKey(kt, uint64(len(out))):
		wipe(out)
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key")
	case n < 0:
		return out, nil
	case n > len(out):
		wipe(out)
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the mechanism gives %d bytes, fewer than value-len", len(out))
	}
	wipe(out[n:])
	return out[:n:n], nil
}
