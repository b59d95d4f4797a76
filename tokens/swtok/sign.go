package swtok

import (
	"crypto/subtle"
	"hash"

	"p11fs/p11"
	"p11fs/tokens"
)

// A message is what a signature or its check has seen of the data: its running
// hash, or, for the mechanisms that sign data as given, the data itself, of min to
// max bytes.
type message struct {
	key  *tokens.Object // held; nil after Close
	h    hash.Hash      // nil when data is collected
	data []byte
	min  int
	max  int
	why  string // said when the data is too short or too long
	err  error  // of an Update, and of all after it
}

func (m *message) update(part []byte) ([]byte, error) {
	switch {
	case m.key == nil:
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	case m.err != nil:
		return nil, m.err
	case m.h != nil:
		m.h.Write(part)
		return nil, nil
	case len(part) > m.max-len(m.data):
		m.err = p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%s", m.why)
		return nil, m.err
	}
	m.data = append(m.data, part...)
	return nil, nil
}

// finish returns the digest, or the data.
func (m *message) finish() ([]byte, error) {
	switch {
	case m.key == nil:
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	case m.err != nil:
		return nil, m.err
	case m.h != nil:
		return m.h.Sum(nil), nil
	case len(m.data) < m.min:
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%s", m.why)
	}
	return m.data, nil
}

func (m *message) close() {
	if m.key == nil {
		return
	}
	m.key.Release()
	m.key = nil
	wipe(m.data)
	if m.h != nil {
		m.h.Reset()
	}
	m.h, m.data = nil, nil
}

// signature is a signature or MAC in progress.
type signature struct {
	message
	length int
	sign   func(data []byte) ([]byte, error)
}

func (s *signature) size() int { return s.length }

func (s *signature) result([]byte) ([]byte, error) {
	data, err := s.finish()
	if err != nil {
		return nil, err
	}
	return s.sign(data)
}

// verification is the check of a signature or MAC in progress.
type verification struct {
	message
	length int
	verify func(data, sig []byte) bool
}

func (v *verification) size() int { return v.length }

func (v *verification) result(sig []byte) ([]byte, error) {
	data, err := v.finish()
	switch {
	case err != nil:
		return nil, err
	case len(sig) != v.length:
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(sig), v.length)
	case !v.verify(data, sig):
		return nil, p11.CKR_SIGNATURE_INVALID
	}
	return nil, nil
}

// sign begins a signature or MAC (PKCS#11 v3.1 §5.13.1, C_SignInit).
func (c *Crypto) sign(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	switch mech.kind {
	case kindHMAC, kindHMACGeneral:
		return c.signHMAC(mech, m, key)
	case kindECDSA, kindECDSAHash:
		return c.signECDSA(mech, m, key)
	}
	return c.signRSA(mech, m, key)
}

// verify begins the check of a signature or MAC (PKCS#11 v3.1 §5.15.1,
// C_VerifyInit).
func (c *Crypto) verify(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	switch mech.kind {
	case kindHMAC, kindHMACGeneral:
		return c.verifyHMAC(mech, m, key)
	case kindECDSA, kindECDSAHash:
		return c.verifyECDSA(mech, m, key)
	}
	return c.verifyRSA(mech, m, key)
}

func (c *Crypto) signHMAC(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	h, size, err := c.beginHMAC(mech, m, key)
	if err != nil {
		return nil, err
	}
	return &signature{message{key: key, h: h}, size, func(mac []byte) ([]byte, error) { return mac[:size], nil }}, nil
}

func (c *Crypto) verifyHMAC(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	h, size, err := c.beginHMAC(mech, m, key)
	if err != nil {
		return nil, err
	}
	return &verification{message{key: key, h: h}, size, func(mac, sig []byte) bool {
		return subtle.ConstantTimeCompare(mac[:size], sig) == 1
	}}, nil
}

// beginHMAC holds the key when it succeeds.
func (c *Crypto) beginHMAC(mech *mechanism, m p11.Mechanism, key *tokens.Object) (hash.Hash, int, error) {
	size, err := hmacSize(mech, m)
	if err != nil {
		return nil, 0, err
	}
	k, err := hold[*secretKey](c, key)
	if err != nil {
		return nil, 0, err
	}
	h, err := newHMAC(mech, k)
	if err != nil {
		key.Release()
		return nil, 0, err
	}
	return h, size, nil
}

// maxDigest is the longest input of CKM_ECDSA, which is a digest: longer
// data would be cut to the leading bits of the curve's size and the rest left
// unsigned, so it is refused (PKCS#11 v3.1 §6.3.12 leaves the limit open).
const maxDigest = 66

func ecdsaMessage(mech *mechanism, m p11.Mechanism, key *tokens.Object) (message, error) {
	if err := noParam(m); err != nil {
		return message{}, err
	}
	msg := message{key: key, min: 1, max: maxDigest, why: "ecdsa signs a digest of 1 to 66 bytes; ecdsa-sha256 signs data of any length"}
	if mech.kind == kindECDSAHash {
		msg.h = mech.hash.New()
	}
	return msg, nil
}

func (c *Crypto) signECDSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	msg, err := ecdsaMessage(mech, m, key)
	if err != nil {
		return nil, err
	}
	k, err := hold[*ecPrivate](c, key)
	if err != nil {
		return nil, err
	}
	return &signature{msg, 2 * k.curve.Size, func(digest []byte) ([]byte, error) {
		sig, err := k.key.Sign(digest)
		if err != nil {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "ecdsa: %v", err)
		}
		return sig, nil
	}}, nil
}

func (c *Crypto) verifyECDSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	msg, err := ecdsaMessage(mech, m, key)
	if err != nil {
		return nil, err
	}
	k, err := hold[*ecPublic](c, key)
	if err != nil {
		return nil, err
	}
	return &verification{msg, 2 * k.curve.Size, func(digest, sig []byte) bool {
		return k.key.Verify(digest, sig)
	}}, nil
}
