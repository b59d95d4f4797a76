package swtok

import (
	"crypto/cipher"
	"math/big"

	"p11fs/p11"
	"p11fs/tokens/keywrap"
)

// aesKW is the family of CKM_AES_KEY_WRAP.
func aesKW() family { return keyWrap(8, 24, keywrap.IV, keywrap.Wrap, keywrap.Unwrap) }

// aesKWP is the family of CKM_AES_KEY_WRAP_KWP, and of CKM_AES_KEY_WRAP_PAD, which
// the standard now leaves to the token.
func aesKWP() family {
	f := keyWrap(4, 16, keywrap.PaddedIV, keywrap.WrapPadded, keywrap.UnwrapPadded)
	f.wraps = wrapping{private: true}
	return f
}

// aesKWPKCS7 is the family of CKM_AES_KEY_WRAP_PKCS7: key wrap of what PKCS#7 padding
// fills up to whole blocks of 8 bytes.
func aesKWPKCS7() family {
	f := keyWrap(8, 24, keywrap.IV,
		func(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
			padded := Pad7(key, 8)
			defer wipe(padded)
			return keywrap.Wrap(b, iv, padded)
		},
		func(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
			padded, err := keywrap.Unwrap(b, iv, wrapped)
			if err != nil {
				return nil, err
			}
			return Unpad7(padded, 8)
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
