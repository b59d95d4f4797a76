package swtok

import (
	"crypto/hmac"
	"hash"

	"p11fs/p11"
)

// A keyedMAC is a MAC with its key, as a pseudo-random function.
type keyedMAC struct {
	size int
	// sum is the MAC of all parts together. The caller wipes it.
	sum func(parts ...[]byte) ([]byte, error)
}

// hmacHash is the hash whose HMAC m is, false if it is none that is served.
func hmacHash(m p11.MechanismType) (p11.Hash, bool) {
	facts, _ := p11.MechanismFacts(m)
	h, ok := p11.HashOf(facts.Hash)
	return h, ok && h.HMAC == m && h.Go != 0
}

func hmacOf(h p11.Hash, key []byte) keyedMAC {
	m := hmac.New(h.Go.New, key)
	return keyedMAC{int(h.Size), func(parts ...[]byte) ([]byte, error) {
		m.Reset()
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil), nil
	}}
}

// cmacOf begins each message with begin, which makes MACs of size bytes.
func cmacOf(size int, begin func() (hash.Hash, error)) keyedMAC {
	return keyedMAC{size, func(parts ...[]byte) ([]byte, error) {
		m, err := begin()
		if err != nil {
			return nil, failure(err)
		}
		defer m.Reset()
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil), nil
	}}
}

// noPRF is the answer to a pseudo-random function that is not served.
func (u call) noPRF(m p11.MechanismType) error {
	return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "prf=%s is not possible with %s here; sha256-hmac is", m.Short(), u.m.Type.Short())
}

// hasCMAC says whether the provider has CMAC.
func (u call) hasCMAC() bool { return u.provider.HasMode("CMAC") }
