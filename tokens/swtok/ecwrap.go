package swtok

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens/keywrap"
)

// ecdhAES is the family of CKM_ECDH_AES_KEY_WRAP (PKCS#11 v3.1 §6.3.20) and of its kin for
// one kind of curve: AES key wrap under a key that is agreed on with a one-time key pair,
// whose point stands in front. A point of a Weierstrass curve is written uncompressed and
// read compressed too, as openCryptoki does; with cofactor 1, which all curves here have,
// CKM_ECDH_COF_AES_KEY_WRAP is the same.
func ecdhAES[Public ecPeer, Private ecAgreer]() family {
	return family{wraps: wrapping{private: true}, uses: uses{
		p11.CKF_ENCRYPT: with(func(u call, k Public) (part, error) {
			w, err := ecdhWrapperOf(u)
			return collected(maxHeld, p11.CKR_DATA_LEN_RANGE, func(in []byte) ([]byte, error) {
				point, z, err := k.meet(u.provider)
				if err != nil {
					return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "ecdh: %v", err)
				}
				tail, err := w.under(z, func(aes BlockCipher) ([]byte, error) {
					out, err := keywrap.WrapPadded(aes.Block(), keywrap.PaddedIV, in)
					if err != nil {
						return nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%v", err)
					}
					return out, nil
				})
				return slices.Concat(point, tail), err
			}), err
		}),
		p11.CKF_DECRYPT: with(func(u call, k Private) (part, error) {
			w, err := ecdhWrapperOf(u)
			return collectedSlowly(maxHeld, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, func(ctx context.Context, in []byte) ([]byte, error) {
				k := within(ctx, k).(Private)
				n := k.pointSize(in)
				if len(in) < n+16 {
					return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the wrapped key has %d bytes, fewer than %d", len(in), n+16)
				}
				z, err := k.agree(u.provider, in[:n])
				switch {
				case held(err):
					return nil, err
				case err != nil:
					return nil, p11.CKR_ENCRYPTED_DATA_INVALID
				}
				return w.under(z, func(aes BlockCipher) ([]byte, error) {
					plain, err := keywrap.UnwrapPadded(aes.Block(), keywrap.PaddedIV, in[n:])
					if err != nil {
						return nil, p11.CKR_ENCRYPTED_DATA_INVALID
					}
					return plain, nil
				})
			}), err
		}),
	}}
}

// An ecdhWrapper is the parameter of a call.
type ecdhWrapper struct {
	provider Provider
	stretch  stretcher
	bytes    int // of the AES key
}

func ecdhWrapperOf(u call) (ecdhWrapper, error) {
	p, err := param[*p11.ECDHAESKeyWrapParams](u)
	if err != nil {
		return ecdhWrapper{}, err
	}
	s, err := stretcherOf(p.KDF, p.SharedData)
	return ecdhWrapper{u.provider, s, int(p.AESKeyBits / 8)}, err
}

// under calls run with the AES key that the shared secret z makes, and wipes both.
func (w ecdhWrapper) under(z []byte, run func(aes BlockCipher) ([]byte, error)) ([]byte, error) {
	defer wipe(z)
	key, err := w.stretch.key(z, w.bytes, p11.CKK_AES)
	if err != nil {
		return nil, err
	}
	defer wipe(key)
	aes, err := w.provider.NewBlockCipher(p11.CKK_AES, key)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "aes: %v", err)
	}
	return run(aes)
}
