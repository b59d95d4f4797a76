package swtok

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"fmt"
	"io"

	"p11fs/p11"
	"p11fs/tokens"
)

// pssParams are checked CK_RSA_PKCS_PSS_PARAMS.
type pssParams struct {
	hash, mgf crypto.Hash
	salt      int
}

// pss reads the parameters of m for a key of bits. Of a mechanism that hashes,
// the parameters must name the same hash (PKCS#11 v3.1 §6.1.10).
func pss(mech *mechanism, m p11.Mechanism, bits int) (pssParams, error) {
	p, ok := m.Param.(*p11.PSSParams)
	if !ok || p == nil {
		return pssParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s needs its parameters: hash, mgf and salt", m.Type.Short())
	}
	h, okHash := hashOf(p.Hash)
	g, okMGF := mgfHash(p.MGF)
	switch {
	case !okHash || !okMGF:
		return pssParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s: hash or mask not supported", m.Type.Short())
	case mech.hash != 0 && mech.hash != h:
		return pssParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s hashes with another hash than %s", m.Type.Short(), p.Hash.Short())
	}
	// RFC 8017 §9.1.1: emLen ≥ hLen + sLen + 2.
	room := (bits-1+7)/8 - h.Size() - 2
	if room < 0 {
		return pssParams{}, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for a PSS signature with %s", p.Hash.Short())
	}
	if p.SaltLen > uint64(room) {
		return pssParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "a salt of %d bytes; the key has room for %d", p.SaltLen, room)
	}
	return pssParams{h, g, int(p.SaltLen)}, nil
}

// rsaMessage begins the message of an RSA mechanism for a key of k bytes.
func rsaMessage(mech *mechanism, key *tokens.Object, k int, pss pssParams) (message, error) {
	m := message{key: key}
	switch mech.kind {
	case kindRSAPKCSHash:
		if len(digestInfoPrefix(mech.hash))+mech.hash.Size()+pkcs1Overhead > k {
			return m, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for %s", mech.Type.Short())
		}
		m.h = mech.hash.New()
	case kindPSSHash:
		m.h = mech.hash.New()
	case kindPSS:
		m.min, m.max = pss.hash.Size(), pss.hash.Size()
		m.why = fmt.Sprintf("the mechanism signs a digest, here of %d bytes", pss.hash.Size())
	case kindRSAPKCS:
		m.max = k - pkcs1Overhead
		m.why = fmt.Sprintf("the mechanism signs at most %d bytes with this key; sha256-rsa-pkcs signs data of any length", m.max)
	case kindRSAX509:
		m.max, m.why = k, fmt.Sprintf("the mechanism signs at most %d bytes with this key", k)
	}
	return m, nil
}

// readRSA reads the parameters of an RSA signature mechanism.
func readRSA(mech *mechanism, m p11.Mechanism, bits int) (pssParams, error) {
	if mech.kind == kindPSS || mech.kind == kindPSSHash {
		return pss(mech, m, bits)
	}
	return pssParams{}, noParam(m)
}

func (c *Crypto) signRSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	k, err := c.holdRSAPrivate(mech, key)
	if err != nil {
		return nil, err
	}
	params, err := readRSA(mech, m, k.bits)
	if err == nil && (mech.kind == kindPSS || mech.kind == kindPSSHash) && !c.canSignPSS(params) {
		err = p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID,
			"Go's library signs PSS only with a salt, and a mask of the same hash; with libcrypto installed any will do")
	}
	if err != nil {
		key.Release()
		return nil, err
	}
	msg, err := rsaMessage(mech, key, k.k, params)
	if err != nil {
		key.Release()
		return nil, err
	}
	s := &signature{message: msg, length: k.k}
	switch mech.kind {
	case kindRSAPKCS:
		s.sign = func(data []byte) ([]byte, error) { return rsaResult(k.key.SignPKCS1(data)) }
	case kindRSAPKCSHash:
		s.sign = func(digest []byte) ([]byte, error) {
			return rsaResult(k.key.SignPKCS1(append(digestInfoPrefix(mech.hash), digest...)))
		}
	case kindRSAX509:
		s.sign = func(data []byte) ([]byte, error) { return rsaRaw(k, data, p11.CKR_DATA_INVALID) }
	default:
		s.sign = func(digest []byte) ([]byte, error) { return c.signPSS(k, params, digest) }
	}
	return s, nil
}

func rsaResult(sig []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "rsa: %v", err)
	}
	return sig, nil
}

// rsaRaw is the bare private operation on data as a number.
func rsaRaw(k *rsaPrivate, data []byte, tooBig p11.RV) ([]byte, error) {
	in := leftPad(data, k.k)
	defer wipe(in)
	// The number is data of the caller, and what is compared is its order
	// to the public modulus.
	if bytes.Compare(in, k.n.FillBytes(make([]byte, k.k))) >= 0 {
		return nil, p11.Errorf(tooBig, "the data is a number not below the modulus")
	}
	return rsaResult(k.key.Raw(in))
}

// canSignPSS says whether the provider signs with these parameters.
func (c *Crypto) canSignPSS(p pssParams) bool {
	return c.provider.RawRSA() || p.providers()
}

// providers says that RSAPrivateKey.SignPSS takes the parameters.
func (p pssParams) providers() bool { return p.salt > 0 && p.hash == p.mgf }

func (c *Crypto) signPSS(k *rsaPrivate, p pssParams, digest []byte) ([]byte, error) {
	if p.providers() {
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

func (c *Crypto) verifyRSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	k, err := c.holdRSAPublic(mech, key)
	if err != nil {
		return nil, err
	}
	params, err := readRSA(mech, m, k.bits)
	if err != nil {
		key.Release()
		return nil, err
	}
	msg, err := rsaMessage(mech, key, k.k, params)
	if err != nil {
		key.Release()
		return nil, err
	}
	v := &verification{message: msg, length: k.k}
	switch mech.kind {
	case kindRSAPKCS:
		v.verify = func(data, sig []byte) bool { return k.opens(sig, padSignature(data, k.k)) }
	case kindRSAPKCSHash:
		v.verify = func(digest, sig []byte) bool {
			return k.opens(sig, padSignature(append(digestInfoPrefix(mech.hash), digest...), k.k))
		}
	case kindRSAX509:
		v.verify = func(data, sig []byte) bool { return k.opens(sig, leftPad(data, k.k)) }
	default:
		v.verify = func(digest, sig []byte) bool { return k.verifyPSS(params, digest, sig) }
	}
	return v, nil
}

// open is sig^e mod n.
func (k *rsaPublic) open(sig []byte) ([]byte, bool) {
	if bytes.Compare(sig, k.n.FillBytes(make([]byte, k.k))) >= 0 {
		return nil, false
	}
	em, err := k.key.Raw(sig)
	return em, err == nil
}

// opens says whether sig^e mod n is em: the encoding is built and compared, not
// taken apart, so that there is one signature for one message.
func (k *rsaPublic) opens(sig, em []byte) bool {
	got, ok := k.open(sig)
	return ok && subtle.ConstantTimeCompare(got, em) == 1
}

func (k *rsaPublic) verifyPSS(p pssParams, digest, sig []byte) bool {
	em, ok := k.open(sig)
	if !ok {
		return false
	}
	emLen := (k.bits - 1 + 7) / 8
	if emLen < k.k { // the modulus has 8n+1 bits
		if em[0] != 0 {
			return false
		}
		em = em[1:]
	}
	return pssVerify(p.hash, p.mgf, digest, em, k.bits-1, p.salt)
}

// verifyRecover begins the reading of data out of a signature, which is the data of
// the operation (PKCS#11 v3.1 §5.16.1, C_VerifyRecoverInit).
func (c *Crypto) verifyRecover(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	if err := noParam(m); err != nil {
		return nil, err
	}
	k, err := c.holdRSAPublic(mech, key)
	if err != nil {
		return nil, err
	}
	op := newCollector(key, k.k, false, func(sig []byte) ([]byte, error) { return k.recover(mech, sig) })
	op.over = p11.CKR_SIGNATURE_LEN_RANGE
	return op, nil
}

// recover returns the data that a signature holds.
func (k *rsaPublic) recover(mech *mechanism, sig []byte) ([]byte, error) {
	if len(sig) != k.k {
		return nil, p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, not %d", len(sig), k.k)
	}
	em, ok := k.open(sig)
	if !ok {
		return nil, p11.CKR_SIGNATURE_INVALID
	}
	if mech.kind == kindRSAX509 {
		return em, nil
	}
	data, ok := unpadSignature(em)
	if !ok {
		return nil, p11.CKR_SIGNATURE_INVALID
	}
	return data, nil
}
