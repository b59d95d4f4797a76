package swtok

import (
	"bytes"
	"crypto"

	"p11fs/p11"
	"p11fs/tokens"
)

// oaepParams are checked CK_RSA_PKCS_OAEP_PARAMS.
type oaepParams struct {
	hash, mgf crypto.Hash
	label     []byte
}

func readOAEP(p *p11.OAEPParams) (oaepParams, error) {
	if p == nil {
		return oaepParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "OAEP needs its parameters: hash and mgf")
	}
	h, okHash := hashOf(p.Hash)
	g, okMGF := mgfHash(p.MGF)
	if !okHash || !okMGF {
		return oaepParams{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "OAEP: hash or mask not supported")
	}
	return oaepParams{h, g, bytes.Clone(p.Label)}, nil
}

// rsaScheme is one of the three ways to encrypt with RSA.
type rsaScheme struct {
	mech *mechanism
	oaep oaepParams
}

func newRSAScheme(mech *mechanism, m p11.Mechanism) (rsaScheme, error) {
	s := rsaScheme{mech: mech}
	if mech.kind != kindOAEP {
		return s, noParam(m)
	}
	p, ok := m.Param.(*p11.OAEPParams)
	if !ok {
		p = nil
	}
	var err error
	s.oaep, err = readOAEP(p)
	return s, err
}

// room is the longest message for a key of k bytes; negative if there is none.
func (s rsaScheme) room(k int) int {
	switch s.mech.kind {
	case kindRSAX509:
		return k
	case kindRSAPKCS:
		return k - pkcs1Overhead
	}
	return k - 2*s.oaep.hash.Size() - 2
}

func (s rsaScheme) encrypt(k *rsaPublic, msg []byte) ([]byte, error) {
	switch s.mech.kind {
	case kindRSAPKCS:
		return rsaResult(k.key.EncryptPKCS1(msg))
	case kindOAEP:
		return rsaResult(k.key.EncryptOAEP(s.oaep.hash, s.oaep.mgf, msg, s.oaep.label))
	}
	in := leftPad(msg, k.k)
	defer wipe(in)
	if bytes.Compare(in, k.n.FillBytes(make([]byte, k.k))) >= 0 {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "the data is a number not below the modulus")
	}
	return rsaResult(k.key.Raw(in))
}

// decrypt opens a ciphertext of k bytes. That it failed is all it tells, as
// PKCS#11 has it tell.
func (s rsaScheme) decrypt(k *rsaPrivate, ct []byte) ([]byte, error) {
	if len(ct) != k.k {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data has %d bytes, not %d", len(ct), k.k)
	}
	if bytes.Compare(ct, k.n.FillBytes(make([]byte, k.k))) >= 0 {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	var msg []byte
	var err error
	switch s.mech.kind {
	case kindRSAPKCS:
		msg, err = k.key.DecryptPKCS1(ct)
	case kindOAEP:
		msg, err = k.key.DecryptOAEP(s.oaep.hash, s.oaep.mgf, ct, s.oaep.label)
	default:
		msg, err = k.key.Raw(ct)
	}
	if err != nil {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return msg, nil
}

func (c *Crypto) encryptRSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	s, err := newRSAScheme(mech, m)
	if err != nil {
		return nil, err
	}
	k, err := c.holdRSAPublic(mech, key)
	if err != nil {
		return nil, err
	}
	room := s.room(k.k)
	if room < 0 {
		key.Release()
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for this hash")
	}
	return newCollector(key, room, false, func(msg []byte) ([]byte, error) { return s.encrypt(k, msg) }), nil
}

func (c *Crypto) decryptRSA(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	s, err := newRSAScheme(mech, m)
	if err != nil {
		return nil, err
	}
	k, err := c.holdRSAPrivate(mech, key)
	if err != nil {
		return nil, err
	}
	return newCollector(key, k.k, true, func(ct []byte) ([]byte, error) { return s.decrypt(k, ct) }), nil
}
