package swtok

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/big"

	"p11fs/p11"
)

// AES key wrap (RFC 3394) and with padding (RFC 5649). libcrypto has both, but
// not through the binding used here, and Go's library has neither; the two
// share one loop over the block cipher, checked by the RFCs' and Wycheproof's
// vectors.

// aesKW is the family of CKM_AES_KEY_WRAP.
func aesKW() family { return keyWrap(8, 24, kwIV, kwWrap, kwUnwrap) }

// aesKWP is the family of CKM_AES_KEY_WRAP_KWP, and of CKM_AES_KEY_WRAP_PAD, which
// the standard now leaves to the token.
func aesKWP() family {
	f := keyWrap(4, 16, kwpIV, kwpWrap, kwpUnwrap)
	f.wraps = wrapping{private: true}
	return f
}

// aesKWPKCS7 is the family of CKM_AES_KEY_WRAP_PKCS7: key wrap of what PKCS#7 padding
// fills up to whole blocks of 8 bytes.
func aesKWPKCS7() family {
	f := keyWrap(8, 24, kwIV,
		func(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
			padded := pad7(key, 8)
			defer wipe(padded)
			return kwWrap(b, iv, padded)
		},
		func(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
			padded, err := kwUnwrap(b, iv, wrapped)
			if err != nil {
				return nil, err
			}
			return unpad7(padded, 8)
		})
	f.wraps = wrapping{private: true}
	return f
}

// keyWrap is a family of AES key wrap (PKCS#11 v3.1 §6.14): an IV of n bytes, which
// is standard where the parameter has none, and results of at least least bytes.
func keyWrap(n, least int, standard uint64, wrap, unwrap func(b cipher.Block, iv uint64, in []byte) ([]byte, error)) family {
	return family{uses: cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
		iv := standard
		if given, ok := u.m.Param.(p11.IV); ok && len(given) == n {
			iv = new(big.Int).SetBytes(given).Uint64()
		} else if raw, isRaw := u.m.Param.(p11.RawParam); u.m.Param != nil && (!isRaw || len(raw) != 0) {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s takes an iv of %d bytes, or none", u.m.Type.Short(), n)
		}
		most := maxHeld
		if decrypt {
			most += aesBlock // what wrapping adds at most
		}
		return collected(most, lenRange(decrypt), func(in []byte) ([]byte, error) {
			if decrypt && (len(in) < least || len(in)%8 != 0) {
				return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "%d bytes cannot be the result of a key wrap", len(in))
			}
			run := wrap
			if decrypt {
				run = unwrap
			}
			out, err := run(k.Block(), iv, in)
			switch {
			case err == nil:
				return out, nil
			case decrypt:
				return nil, p11.CKR_ENCRYPTED_DATA_INVALID
			}
			return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%s: the data has %d bytes: %v", u.m.Type.Short(), len(in), err)
		}), nil
	})}
}

var errUnwrap = errors.New("the wrapped key is no key")

const (
	kwIV  = 0xa6a6a6a6a6a6a6a6 // RFC 3394 §2.2.3.1
	kwpIV = 0xa65959a6         // RFC 5649 §3
)

// kwLoop is the wrapping process W of NIST SP 800-38F §6.1 in place: r is the
// 8-byte register A and at least two blocks of 8 bytes.
func kwLoop(b cipher.Block, r []byte) {
	n := len(r)/8 - 1
	var buf [16]byte
	a := binary.BigEndian.Uint64(r)
	for t := uint64(1); t <= uint64(6*n); t++ {
		block := r[8*((t-1)%uint64(n)+1):][:8]
		binary.BigEndian.PutUint64(buf[:], a)
		copy(buf[8:], block)
		b.Encrypt(buf[:], buf[:])
		a = binary.BigEndian.Uint64(buf[:]) ^ t
		copy(block, buf[8:])
	}
	binary.BigEndian.PutUint64(r, a)
	clear(buf[:])
}

// kwUnloop is its inverse.
func kwUnloop(b cipher.Block, r []byte) {
	n := len(r)/8 - 1
	var buf [16]byte
	a := binary.BigEndian.Uint64(r)
	for t := uint64(6 * n); t >= 1; t-- {
		block := r[8*((t-1)%uint64(n)+1):][:8]
		binary.BigEndian.PutUint64(buf[:], a^t)
		copy(buf[8:], block)
		b.Decrypt(buf[:], buf[:])
		a = binary.BigEndian.Uint64(buf[:])
		copy(block, buf[8:])
	}
	binary.BigEndian.PutUint64(r, a)
	clear(buf[:])
}

// kwWrap is RFC 3394 §2.2.1 for a key of a multiple of 8 bytes, at least 16.
func kwWrap(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
	if len(key)%8 != 0 || len(key) < 16 {
		return nil, errors.New("not a multiple of 8 bytes, at least 16")
	}
	out := make([]byte, 8+len(key))
	binary.BigEndian.PutUint64(out, iv)
	copy(out[8:], key)
	kwLoop(b, out)
	return out, nil
}

// kwUnwrap is RFC 3394 §2.2.2.
func kwUnwrap(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, errUnwrap
	}
	r := append([]byte(nil), wrapped...)
	kwUnloop(b, r)
	var want [8]byte
	binary.BigEndian.PutUint64(want[:], iv)
	if subtle.ConstantTimeCompare(r[:8], want[:]) != 1 {
		wipe(r)
		return nil, errUnwrap
	}
	return r[8:], nil
}

// kwpWrap is RFC 5649 §4.1 for a key of at least one byte.
func kwpWrap(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
	if len(key) == 0 || uint64(len(key)) > 1<<31 {
		return nil, errors.New("length out of range")
	}
	padded := (len(key) + 7) &^ 7
	out := make([]byte, 8+padded)
	binary.BigEndian.PutUint64(out, iv<<32|uint64(len(key)))
	copy(out[8:], key)
	if padded == 8 {
		b.Encrypt(out, out)
	} else {
		kwLoop(b, out)
	}
	return out, nil
}

// kwpUnwrap is RFC 5649 §4.2.
func kwpUnwrap(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 16 {
		return nil, errUnwrap
	}
	r := append([]byte(nil), wrapped...)
	if len(r) == 16 {
		b.Decrypt(r, r)
	} else {
		kwUnloop(b, r)
	}
	// The register is a pseudorandom function of all of the input: a failure
	// tells nothing, wherever it is found.
	length := int64(binary.BigEndian.Uint32(r[4:]))
	pad := int64(len(r)) - 8 - length
	ok := uint64(binary.BigEndian.Uint32(r)) == iv && pad >= 0 && pad <= 7
	for i := int64(0); ok && i < pad; i++ {
		ok = r[8+length+i] == 0
	}
	if !ok {
		wipe(r)
		return nil, errUnwrap
	}
	return r[8 : 8+length], nil
}
