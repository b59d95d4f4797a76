package swtok

import (
	"context"
	"encoding/binary"
	"io"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// keyWrapper reads the parameters of AES key wrap and returns it as a function
// (PKCS#11 v3.1 §6.14). CKM_AES_KEY_WRAP_PAD, which the standard now leaves
// to the token, is RFC 5649 here, as CKM_AES_KEY_WRAP_KWP is.
func keyWrapper(mech *mechanism, m p11.Mechanism, k *secretKey, decrypt bool) (func([]byte) ([]byte, error), error) {
	n, iv := 8, []byte(nil)
	if mech.kind == kindKWP {
		n = 4
	}
	switch p := m.Param.(type) {
	case nil:
	case p11.IV:
		iv = p
	default:
		if err := noParam(m); err != nil {
			return nil, err
		}
	}
	if len(iv) != 0 && len(iv) != n {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s takes an iv of %d bytes, or none", m.Type.Short(), n)
	}
	var run func([]byte) ([]byte, error)
	block := k.aes.Block()
	if mech.kind == kindKWP {
		start := uint32(kwpIV)
		if len(iv) != 0 {
			start = binary.BigEndian.Uint32(iv)
		}
		run = func(b []byte) ([]byte, error) {
			if decrypt {
				return kwpUnwrap(block, start, b)
			}
			return kwpWrap(block, start, b)
		}
	} else {
		start := uint64(kwIV)
		if len(iv) != 0 {
			start = binary.BigEndian.Uint64(iv)
		}
		run = func(b []byte) ([]byte, error) {
			if decrypt {
				return kwUnwrap(block, start, b)
			}
			return kwWrap(block, start, b)
		}
	}
	least := 24
	if mech.kind == kindKWP {
		least = 16
	}
	return func(b []byte) ([]byte, error) {
		if decrypt && (len(b) < least || len(b)%8 != 0) {
			return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "%d bytes cannot be the result of a key wrap", len(b))
		}
		out, err := run(b)
		switch {
		case err == nil:
			return out, nil
		case decrypt:
			return nil, p11.CKR_ENCRYPTED_DATA_INVALID
		}
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%s: the data has %d bytes: %v", m.Type.Short(), len(b), err)
	}, nil
}

// translate turns the answers of encryption into those of wrapping.
func translate(err error, as map[p11.RV]p11.RV) error {
	if err == nil {
		return nil
	}
	if rv, ok := as[p11.RVOf(err)]; ok {
		return p11.Errorf(rv, "%w", err)
	}
	return err
}

func wrapAnswers() map[p11.RV]p11.RV {
	return map[p11.RV]p11.RV{
		p11.CKR_KEY_TYPE_INCONSISTENT: p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_KEY_SIZE_RANGE:        p11.CKR_WRAPPING_KEY_SIZE_RANGE,
		p11.CKR_KEY_HANDLE_INVALID:    p11.CKR_WRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_OBJECT_HANDLE_INVALID: p11.CKR_WRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_DATA_LEN_RANGE:        p11.CKR_KEY_SIZE_RANGE,
		p11.CKR_DATA_INVALID:          p11.CKR_KEY_NOT_WRAPPABLE,
	}
}

func unwrapAnswers() map[p11.RV]p11.RV {
	return map[p11.RV]p11.RV{
		p11.CKR_KEY_TYPE_INCONSISTENT:    p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
		p11.CKR_KEY_SIZE_RANGE:           p11.CKR_UNWRAPPING_KEY_SIZE_RANGE,
		p11.CKR_KEY_HANDLE_INVALID:       p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_OBJECT_HANDLE_INVALID:    p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
		p11.CKR_DATA_LEN_RANGE:           p11.CKR_WRAPPED_KEY_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_LEN_RANGE: p11.CKR_WRAPPED_KEY_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_INVALID:   p11.CKR_WRAPPED_KEY_INVALID,
	}
}

// wrapsPrivate says which mechanisms take a private key, whose encoding is long
// and of any length (PKCS#11 v3.1 §6.7).
func (m *mechanism) wrapsPrivate() bool {
	switch m.kind {
	case kindCBCPad, kindGCM, kindKWP, kindRSAAES:
		return true
	}
	return false
}

// encodeKey returns what is wrapped of a key: the value of a secret key, the
// PrivateKeyInfo of a private one.
func encodeKey(mech *mechanism, key *tokens.Object) ([]byte, error) {
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	defer key.Release()
	class, _ := a.Class()
	switch class {
	case p11.CKO_SECRET_KEY:
		value, ok := a.Get(p11.CKA_VALUE)
		if !ok {
			return nil, p11.CKR_KEY_NOT_WRAPPABLE
		}
		out := clone(value)
		if mech.kind == kindECB || mech.kind == kindCBC {
			// PKCS#11 v3.1 §6.10.5: zeros to a multiple of the block.
			for len(out)%aesBlock != 0 {
				out = append(out, 0)
			}
		}
		return out, nil
	case p11.CKO_PRIVATE_KEY:
		if mech.wrapsPrivate() {
			return encodePrivateKey(a)
		}
		return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "%s wraps secret keys only; aes-cbc-pad and aes-key-wrap-kwp wrap private ones", mech.Type.Short())
	}
	return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "only secret and private keys can be wrapped")
}

// WrapKey encrypts a key under another (PKCS#11 v3.1 §5.18.3, C_WrapKey).
func (c *Crypto) WrapKey(_ context.Context, m p11.Mechanism, wrapping, key *tokens.Object) ([]byte, error) {
	mech, err := c.mechanism(m, p11.CKF_WRAP)
	if err != nil {
		return nil, err
	}
	plain, err := encodeKey(mech, key)
	if err != nil {
		return nil, err
	}
	defer wipe(plain)
	out, err := c.wrapBytes(mech, m, wrapping, plain)
	return out, translate(err, wrapAnswers())
}

func (c *Crypto) wrapBytes(mech *mechanism, m p11.Mechanism, wrapping *tokens.Object, plain []byte) ([]byte, error) {
	var op part
	var err error
	switch mech.kind {
	case kindRSAAES:
		return c.wrapRSAAES(mech, m, wrapping, plain)
	case kindRSAPKCS, kindRSAX509, kindOAEP:
		op, err = c.encryptRSA(mech, m, wrapping)
	default:
		op, err = c.cipherAES(mech, m, wrapping, false)
	}
	if err != nil {
		return nil, err
	}
	return runCipher(op, plain)
}

func (c *Crypto) unwrapBytes(mech *mechanism, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte) ([]byte, error) {
	var op part
	var err error
	switch mech.kind {
	case kindRSAAES:
		return c.unwrapRSAAES(mech, m, unwrapping, wrapped)
	case kindRSAPKCS, kindRSAX509, kindOAEP:
		op, err = c.decryptRSA(mech, m, unwrapping)
	default:
		op, err = c.cipherAES(mech, m, unwrapping, true)
	}
	if err != nil {
		return nil, err
	}
	return runCipher(op, wrapped)
}

// runCipher is a whole operation over in; op is closed.
func runCipher(op part, in []byte) ([]byte, error) {
	defer op.close()
	out, err := op.update(in)
	if err != nil {
		return nil, err
	}
	rest, err := op.result(nil)
	if err != nil {
		wipe(out)
		return nil, err
	}
	if len(out) == 0 {
		return rest, nil
	}
	whole := slices.Concat(out, rest)
	wipe(out, rest)
	return whole, nil
}

// readRSAAES reads CK_RSA_AES_KEY_WRAP_PARAMS.
func readRSAAES(mech *mechanism, m p11.Mechanism) (rsaScheme, int, error) {
	p, ok := m.Param.(*p11.RSAAESKeyWrapParams)
	if !ok || p == nil || p.AESKeyBits%8 != 0 || p.AESKeyBits > 256 || !aesLength(int(p.AESKeyBits/8)) {
		return rsaScheme{}, 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s needs an AES key of 128, 192 or 256 bits and the parameters of OAEP", m.Type.Short())
	}
	oaep, err := readOAEP(p.OAEP)
	if err != nil {
		return rsaScheme{}, 0, err
	}
	asOAEP := *mech
	asOAEP.kind = kindOAEP
	return rsaScheme{&asOAEP, oaep}, int(p.AESKeyBits / 8), nil
}

// wrapRSAAES wraps under a one-time AES key, which goes in front wrapped with
// OAEP (PKCS#11 v3.1 §6.1.22, CKM_RSA_AES_KEY_WRAP).
func (c *Crypto) wrapRSAAES(mech *mechanism, m p11.Mechanism, wrapping *tokens.Object, plain []byte) ([]byte, error) {
	s, n, err := readRSAAES(mech, m)
	if err != nil {
		return nil, err
	}
	k, err := c.holdRSAPublic(mech, wrapping)
	if err != nil {
		return nil, err
	}
	defer wrapping.Release()
	if s.room(k.k) < n {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the wrapping key is too short for this hash")
	}
	once := make([]byte, n)
	defer wipe(once)
	if _, err := io.ReadFull(c.rand, once); err != nil {
		return rsaResult(nil, err)
	}
	aes, err := c.provider.NewAES(once)
	if err != nil {
		return rsaResult(nil, err)
	}
	head, err := s.encrypt(k, once)
	if err != nil {
		return nil, err
	}
	tail, err := kwpWrap(aes.Block(), kwpIV, plain)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%v", err)
	}
	return append(head, tail...), nil
}

func (c *Crypto) unwrapRSAAES(mech *mechanism, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte) ([]byte, error) {
	s, n, err := readRSAAES(mech, m)
	if err != nil {
		return nil, err
	}
	k, err := c.holdRSAPrivate(mech, unwrapping)
	if err != nil {
		return nil, err
	}
	defer unwrapping.Release()
	if len(wrapped) < k.k+16 {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the wrapped key has %d bytes, fewer than %d", len(wrapped), k.k+16)
	}
	once, err := s.decrypt(k, wrapped[:k.k])
	if err != nil {
		return nil, err
	}
	defer wipe(once)
	if len(once) != n {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	aes, err := c.provider.NewAES(once)
	if err != nil {
		return rsaResult(nil, err)
	}
	plain, err := kwpUnwrap(aes.Block(), kwpIV, wrapped[k.k:])
	if err != nil {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return plain, nil
}
