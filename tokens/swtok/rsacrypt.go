package swtok

import (
	"bytes"
	"io"

	"p11fs/p11"
)

// An rsaScheme is one of the ways to encrypt with RSA.
type rsaScheme struct {
	overhead int // bytes by which a message is shorter than the modulus
	encrypt  func(k *rsaPublic, msg []byte) ([]byte, error)
	decrypt  func(k *rsaPrivate, ct []byte) ([]byte, error) // of k bytes, and below the modulus
}

// pkcs1Scheme is RSAES-PKCS1-v1_5.
func pkcs1Scheme(call) (rsaScheme, error) {
	return rsaScheme{
		overhead: pkcs1Overhead,
		encrypt:  func(k *rsaPublic, msg []byte) ([]byte, error) { return rsaResult(k.key.EncryptPKCS1(msg)) },
		decrypt:  func(k *rsaPrivate, ct []byte) ([]byte, error) { return k.key.DecryptPKCS1(ct) },
	}, nil
}

// x509Scheme is RSA without padding.
func x509Scheme(call) (rsaScheme, error) {
	return rsaScheme{
		encrypt: func(k *rsaPublic, msg []byte) ([]byte, error) {
			in, err := k.number(msg)
			if err != nil {
				return nil, err
			}
			defer wipe(in)
			return rsaResult(k.key.Raw(in))
		},
		decrypt: func(k *rsaPrivate, ct []byte) ([]byte, error) { return k.key.Raw(ct) },
	}, nil
}

// oaepScheme is RSAES-OAEP.
func oaepScheme(p *p11.OAEPParams) (rsaScheme, error) {
	h, mgf, err := hashAndMask(p.Hash, p.MGF)
	if err != nil {
		return rsaScheme{}, err
	}
	label := bytes.Clone(p.Label)
	return rsaScheme{
		overhead: 2*h.Size() + 2,
		encrypt: func(k *rsaPublic, msg []byte) ([]byte, error) {
			return rsaResult(k.key.EncryptOAEP(h, mgf, msg, label))
		},
		decrypt: func(k *rsaPrivate, ct []byte) ([]byte, error) { return k.key.DecryptOAEP(h, mgf, ct, label) },
	}, nil
}

// room is the longest message for a key.
func (s rsaScheme) room(k *rsaPublic) (int, error) {
	if k.k < s.overhead {
		return 0, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for this hash")
	}
	return k.k - s.overhead, nil
}

// open decrypts. That it failed is all it tells, as PKCS#11 has it tell.
func (s rsaScheme) open(k *rsaPrivate, ct []byte) ([]byte, error) {
	if len(ct) != k.k {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data has %d bytes, not %d", len(ct), k.k)
	}
	if !k.below(ct) {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	msg, err := s.decrypt(k, ct)
	if err != nil {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return msg, nil
}

// rsaCiphers are the uses of a way to encrypt.
func rsaCiphers(scheme func(u call) (rsaScheme, error)) uses {
	return uses{
		p11.CKF_ENCRYPT: with(func(u call, k *rsaPublic) (part, error) {
			s, err := scheme(u)
			if err != nil {
				return nil, err
			}
			room, err := s.room(k)
			if err != nil {
				return nil, err
			}
			return collected(room, p11.CKR_DATA_LEN_RANGE, func(msg []byte) ([]byte, error) { return s.encrypt(k, msg) }), nil
		}),
		p11.CKF_DECRYPT: with(func(u call, k *rsaPrivate) (part, error) {
			s, err := scheme(u)
			if err != nil {
				return nil, err
			}
			return collected(k.k, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, func(ct []byte) ([]byte, error) { return s.open(k, ct) }), nil
		}),
	}
}

// rsaOAEP is the family of CKM_RSA_PKCS_OAEP.
func rsaOAEP() family {
	return family{uses: rsaCiphers(func(u call) (rsaScheme, error) {
		p, err := param[*p11.OAEPParams](u)
		if err != nil {
			return rsaScheme{}, err
		}
		return oaepScheme(p)
	})}
}

// rsaAES is the family of CKM_RSA_AES_KEY_WRAP (PKCS#11 v3.1 §6.1.22): AES key
// wrap under a one-time key, which stands in front, encrypted with OAEP.
func rsaAES() family {
	read := func(u call) (rsaScheme, int, error) {
		p, err := param[*p11.RSAAESKeyWrapParams](u)
		if err != nil {
			return rsaScheme{}, 0, err
		}
		s, err := oaepScheme(p.OAEP)
		return s, int(p.AESKeyBits / 8), err
	}
	return family{
		wraps: wrapping{private: true},
		uses: uses{
			p11.CKF_ENCRYPT: with(func(u call, k *rsaPublic) (part, error) {
				s, n, err := read(u)
				if err != nil {
					return nil, err
				}
				if room, err := s.room(k); err != nil || room < n {
					return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for this hash")
				}
				return collected(maxHeld, p11.CKR_DATA_LEN_RANGE, func(in []byte) ([]byte, error) { return u.sealRSAAES(s, n, k, in) }), nil
			}),
			p11.CKF_DECRYPT: with(func(u call, k *rsaPrivate) (part, error) {
				s, n, err := read(u)
				if err != nil {
					return nil, err
				}
				return collected(maxHeld, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, func(in []byte) ([]byte, error) { return u.openRSAAES(s, n, k, in) }), nil
			}),
		},
	}
}

func (c *Crypto) sealRSAAES(s rsaScheme, n int, k *rsaPublic, in []byte) ([]byte, error) {
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
	tail, err := kwpWrap(aes.Block(), kwpIV, in)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%v", err)
	}
	return append(head, tail...), nil
}

func (c *Crypto) openRSAAES(s rsaScheme, n int, k *rsaPrivate, in []byte) ([]byte, error) {
	if len(in) < k.k+16 {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the wrapped key has %d bytes, fewer than %d", len(in), k.k+16)
	}
	once, err := s.open(k, in[:k.k])
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
	plain, err := kwpUnwrap(aes.Block(), kwpIV, in[k.k:])
	if err != nil {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return plain, nil
}
