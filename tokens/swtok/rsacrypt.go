package swtok

import (
	"bytes"
	"context"
	"io"

	"p11fs/p11"
	"p11fs/tokens/keywrap"
)

// An rsaScheme is one of the ways to encrypt with RSA, for a modulus.
type rsaScheme struct {
	most    int // bytes of a message; negative if the key is too short for any
	sealed  int // bytes of what encrypt returns
	encrypt func(k *rsaPublic, msg []byte) ([]byte, error)
	decrypt func(k *rsaPrivate, sealed []byte) ([]byte, error)
}

// plainScheme is a scheme that makes k bytes of messages that are shorter by overhead.
// decrypt gets k bytes below the modulus. That it failed is all that is told.
func plainScheme(m modulus, overhead int, encrypt func(*rsaPublic, []byte) ([]byte, error), decrypt func(*rsaPrivate, []byte) ([]byte, error)) rsaScheme {
	return rsaScheme{m.k - overhead, m.k, encrypt, func(k *rsaPrivate, ct []byte) ([]byte, error) {
		if err := k.takes(ct); err != nil {
			return nil, err
		}
		msg, err := decrypt(k, ct)
		switch {
		case held(err):
			return nil, err
		case err != nil:
			return nil, p11.CKR_ENCRYPTED_DATA_INVALID
		}
		return msg, nil
	}}
}

// takes refuses a ciphertext that is none of k's, as everybody can see.
func (k *rsaPrivate) takes(ct []byte) error {
	if len(ct) != k.k {
		return p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data has %d bytes, not %d", len(ct), k.k)
	}
	if !k.below(ct) {
		return p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return nil
}

// rawDecrypt is the bare operation on a ciphertext.
func (k *rsaPrivate) rawDecrypt(ct []byte) ([]byte, error) {
	if err := k.takes(ct); err != nil {
		return nil, err
	}
	return rsaResult(k.key.Raw(ct))
}

// pkcs1Scheme is RSAES-PKCS1-v1_5.
func pkcs1Scheme(_ call, m modulus) (rsaScheme, error) {
	return plainScheme(m, pkcs1Overhead,
		func(k *rsaPublic, msg []byte) ([]byte, error) { return rsaResult(k.key.EncryptPKCS1(msg)) },
		func(k *rsaPrivate, ct []byte) ([]byte, error) {
			em, err := k.key.Raw(ct)
			if err != nil {
				return nil, err
			}
			defer wipe(em)
			return k.unpadPKCS1(em, ct, 0, nil), nil
		}), nil
}

// x509Scheme is RSA without padding.
func x509Scheme(_ call, m modulus) (rsaScheme, error) {
	return plainScheme(m, 0,
		func(k *rsaPublic, msg []byte) ([]byte, error) { return k.raw(msg, k.key.Raw) },
		func(k *rsaPrivate, ct []byte) ([]byte, error) { return k.key.Raw(ct) }), nil
}

// oaepScheme is RSAES-OAEP.
func oaepScheme(p *p11.OAEPParams, m modulus) (rsaScheme, error) {
	h, mgf, err := hashAndMask(p.Hash, p.MGF)
	if err != nil {
		return rsaScheme{}, err
	}
	label := bytes.Clone(p.Label)
	return plainScheme(m, 2*h.Size()+2,
		func(k *rsaPublic, msg []byte) ([]byte, error) {
			return rsaResult(k.key.EncryptOAEP(h, mgf, msg, label))
		},
		func(k *rsaPrivate, ct []byte) ([]byte, error) {
			if k.held() {
				return k.openOAEP(h, mgf, ct, label)
			}
			return k.key.DecryptOAEP(h, mgf, ct, label)
		}), nil
}

// rsaCiphers are the uses of a way to encrypt.
func rsaCiphers(scheme func(u call, m modulus) (rsaScheme, error)) uses {
	return uses{
		p11.CKF_ENCRYPT: with(func(u call, k *rsaPublic) (part, error) {
			s, err := scheme(u, k.modulus)
			switch {
			case err != nil:
				return nil, err
			case s.most < 0:
				return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key is too short for this hash")
			}
			return collected(s.most, p11.CKR_DATA_LEN_RANGE, func(msg []byte) ([]byte, error) { return s.encrypt(k, msg) }), nil
		}),
		p11.CKF_DECRYPT: with(func(u call, k *rsaPrivate) (part, error) {
			s, err := scheme(u, k.modulus)
			if err != nil {
				return nil, err
			}
			return collectedSlowly(s.sealed, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, func(ctx context.Context, ct []byte) ([]byte, error) {
				return s.decrypt(k.within(ctx), ct)
			}), nil
		}),
	}
}

// rsaOAEP is the family of CKM_RSA_PKCS_OAEP.
func rsaOAEP() family {
	scheme := func(u call, m modulus) (rsaScheme, error) {
		p, err := param[*p11.OAEPParams](u)
		if err != nil {
			return rsaScheme{}, err
		}
		return oaepScheme(p, m)
	}
	return family{uses: rsaCiphers(scheme), encapsulate: rsaEncapsulates(scheme), decapsulate: rsaDecapsulates(scheme)}
}

// rsaEncapsulates encapsulates with a way to encrypt: a new value is encrypted (PKCS#11
// v3.2 §6.1).
func rsaEncapsulates(scheme func(u call, m modulus) (rsaScheme, error)) func(call, any, p11.KeyType, int) ([]byte, []byte, error) {
	return func(u call, public any, _ p11.KeyType, n int) (ciphertext, value []byte, err error) {
		k, err := keyOf[*rsaPublic](public)
		if err == nil {
			err = u.fits(k.bits)
		}
		if err != nil {
			return nil, nil, err
		}
		s, err := scheme(u, k.modulus)
		switch {
		case err != nil:
			return nil, nil, err
		case n < 0:
			return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key")
		case n > s.most:
			return nil, nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the public key has no room for %d bytes", n)
		}
		value = make([]byte, n)
		if _, err = io.ReadFull(u.rand, value); err == nil {
			ciphertext, err = s.encrypt(k, value)
		}
		if err != nil {
			wipe(value)
			return nil, nil, err
		}
		return ciphertext, value, nil
	}
}

// rsaDecapsulates is the reverse, for a way to encrypt that may say that it found nothing.
func rsaDecapsulates(scheme func(u call, m modulus) (rsaScheme, error)) func(call, any, []byte, p11.KeyType, int) ([]byte, error) {
	return func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error) {
		k, err := keyOf[*rsaPrivate](private)
		if err == nil {
			err = u.fits(k.bits)
		}
		if err != nil {
			return nil, err
		}
		s, err := scheme(u, k.modulus)
		if err != nil {
			return nil, err
		}
		value, err := s.decrypt(k, ciphertext)
		switch {
		case err != nil:
			return nil, translate(err, decapsulateAnswers())
		case n >= 0 && len(value) != n, !p11.FitsKey(kt, uint64(len(value))):
			wipe(value)
			return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "a key of %d bytes was encapsulated, which the template does not want", len(value))
		}
		return value, nil
	}
}

// decapsulateAnswers turns the answers of decryption into those of decapsulation.
func decapsulateAnswers() map[p11.RV]p11.RV {
	return map[p11.RV]p11.RV{
		p11.CKR_ENCRYPTED_DATA_LEN_RANGE: p11.CKR_WRAPPED_KEY_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_INVALID:   p11.CKR_WRAPPED_KEY_INVALID,
	}
}

// rsaAES is the family of CKM_RSA_AES_KEY_WRAP (PKCS#11 v3.1 §6.1.22): AES key
// wrap under a one-time key, which stands in front, encrypted with OAEP.
func rsaAES() family {
	return family{wraps: wrapping{private: true}, uses: rsaCiphers(func(u call, m modulus) (rsaScheme, error) {
		p, err := param[*p11.RSAAESKeyWrapParams](u)
		if err != nil {
			return rsaScheme{}, err
		}
		s, err := oaepScheme(p.OAEP, m)
		n, most := int(p.AESKeyBits/8), maxHeld
		if s.most < n {
			most = -1
		}
		return rsaScheme{most, maxHeld,
			func(k *rsaPublic, in []byte) ([]byte, error) { return u.sealRSAAES(s, n, k, in) },
			func(k *rsaPrivate, in []byte) ([]byte, error) { return u.openRSAAES(s, n, k, in) }}, err
	})}
}

func (c *Crypto) sealRSAAES(s rsaScheme, n int, k *rsaPublic, in []byte) ([]byte, error) {
	once := make([]byte, n)
	defer wipe(once)
	if _, err := io.ReadFull(c.rand, once); err != nil {
		return rsaResult(nil, err)
	}
	aes, err := c.provider.NewBlockCipher(p11.CKK_AES, once)
	if err != nil {
		return rsaResult(nil, err)
	}
	head, err := s.encrypt(k, once)
	if err != nil {
		return nil, err
	}
	tail, err := keywrap.WrapPadded(aes.Block(), keywrap.PaddedIV, in)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%v", err)
	}
	return append(head, tail...), nil
}

func (c *Crypto) openRSAAES(s rsaScheme, n int, k *rsaPrivate, in []byte) ([]byte, error) {
	if len(in) < k.k+16 {
		return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the wrapped key has %d bytes, fewer than %d", len(in), k.k+16)
	}
	once, err := s.decrypt(k, in[:k.k])
	if err != nil {
		return nil, err
	}
	defer wipe(once)
	if len(once) != n {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	aes, err := c.provider.NewBlockCipher(p11.CKK_AES, once)
	if err != nil {
		return rsaResult(nil, err)
	}
	plain, err := keywrap.UnwrapPadded(aes.Block(), keywrap.PaddedIV, in[k.k:])
	if err != nil {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return plain, nil
}
