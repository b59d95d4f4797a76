package swtok

import (
	"encoding/binary"
	"math"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/poly1305" //nolint:staticcheck // the mechanism is this building block

	"p11fs/p11"
)

// ChaCha20, Poly1305 and the two together (RFC 8439; PKCS#11 v3.1 §6.58, §6.60, §6.61), and
// their variants with a nonce of 192 bits (draft-irtf-cfrg-xchacha-03): the first 16 bytes
// of that make another key, with which the rest is the nonce.

const (
	chachaKey   = 32
	chachaBlock = 64
	nonceOld    = 8 // of Bernstein's own variant, with a counter of 64 bits
	nonceIETF   = 12
	nonceX      = 24
	polyTag     = 16
)

// chachaWith is the cipher that a nonce is used with, and what of the nonce is left: with a
// long one, the nonce of Bernstein's variant with another key. end closes the cipher.
func (u call) chachaWith(k *cipherKey, nonce []byte) (c BlockCipher, rest []byte, end func(), err error) {
	if len(nonce) != nonceX {
		return k, nonce, func() {}, nil
	}
	value, err := chacha20.HChaCha20(k.value, nonce[:16])
	if err != nil {
		return nil, nil, nil, failure(err)
	}
	if c, err = u.provider.NewBlockCipher(p11.CKK_CHACHA20, value); err != nil {
		wipe(value)
		return nil, nil, nil, failure(err)
	}
	return c, nonce[16:], func() { wipe(value) }, nil
}

// chacha is the family of CKM_CHACHA20.
func chacha() family {
	return family{wraps: wrapping{private: true}, uses: cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
		p, err := param[*p11.ChaCha20Params](u)
		if err != nil {
			return nil, err
		}
		left, err := chachaBytes(p)
		if err != nil {
			return nil, err
		}
		c, rest, end, err := u.chachaWith(k, p.Nonce)
		if err != nil {
			return nil, err
		}
		iv := make([]byte, 16-len(rest), 16)
		copy(iv, p.Counter)
		s, err := c.Mode(chachaStream, append(iv, rest...), !decrypt, ModeOptions{})
		if err != nil {
			end()
			return nil, failure(err)
		}
		return &chachaPart{streamPart{s}, decrypt, left, end}, nil
	})}
}

// chachaBytes is how much the counter serves before it would run over.
func chachaBytes(p *p11.ChaCha20Params) (uint64, error) {
	size := 4
	if len(p.Nonce) != nonceIETF {
		size = 8
	}
	switch {
	case len(p.Nonce) != nonceOld && len(p.Nonce) != nonceIETF && len(p.Nonce) != nonceX:
		return 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "nonce= has %d, %d or %d bytes, not %d", nonceOld, nonceIETF, nonceX, len(p.Nonce))
	case len(p.Counter) > size:
		return 0, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "counter= has at most %d bytes with this nonce, not %d", size, len(p.Counter))
	}
	var counter [8]byte
	copy(counter[:], p.Counter)
	n := binary.LittleEndian.Uint64(counter[:])
	if size == 4 {
		return (1<<32 - n) * chachaBlock, nil
	}
	if n < math.MaxUint64-math.MaxUint64/chachaBlock { // as good as endless
		return math.MaxUint64, nil
	}
	return -n * chachaBlock, nil
}

// A chachaPart is a message of CKM_CHACHA20.
type chachaPart struct {
	streamPart
	decrypt bool
	left    uint64
	end     func()
}

func (c *chachaPart) update(into, part []byte) ([]byte, error) {
	if uint64(len(part)) > c.left {
		return nil, p11.Errorf(lenRange(c.decrypt), "the data is longer than the counter counts")
	}
	if c.left != math.MaxUint64 {
		c.left -= uint64(len(part))
	}
	return c.streamPart.update(into, part)
}

func (c *chachaPart) close() {
	c.streamPart.close()
	c.end()
}

// chachaPoly is the family of CKM_CHACHA20_POLY1305: the tag stands behind the ciphertext,
// and there is no plaintext before it has been checked.
func chachaPoly() family {
	return family{uses: cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
		p, err := param[*p11.ChaCha20Poly1305Params](u)
		switch {
		case err != nil:
			return nil, err
		case len(p.Nonce) != nonceIETF && len(p.Nonce) != nonceX:
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "nonce= has %d or %d bytes, not %d", nonceIETF, nonceX, len(p.Nonce))
		}
		nonce, aad, most := append([]byte{}, p.Nonce...), append([]byte{}, p.AAD...), maxHeld
		if decrypt {
			most += polyTag
		}
		return collected(most, lenRange(decrypt), func(in []byte) ([]byte, error) {
			o := ModeOptions{AAD: aad, Length: len(in), TagBytes: polyTag}
			if decrypt {
				if len(in) < polyTag {
					return nil, p11.Errorf(p11.CKR_ENCRYPTED_DATA_LEN_RANGE, "the encrypted data is shorter than its tag")
				}
				o.Length, o.TagBytes = len(in)-polyTag, 0
				in, o.Tag = in[:o.Length], in[o.Length:]
			}
			c, rest, end, err := u.chachaWith(k, nonce)
			if err != nil {
				return nil, err
			}
			defer end()
			rest = append(make([]byte, nonceIETF-len(rest)), rest...)
			return (&cipherKey{BlockCipher: c}).whole(chachaAEAD, rest, decrypt, o, in)
		}), nil
	})}
}

// poly1305MACs is the family of CKM_POLY1305. A key signs one message: who has the MACs of
// two can make those of others (RFC 8439 §3).
func poly1305MACs() family {
	of := func(end func(m message, mac func(data []byte) []byte) (part, error)) begin {
		return with(func(_ call, k *secretKey) (part, error) {
			if len(k.value) != chachaKey {
				return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a poly1305 key has %d bytes, not %d", chachaKey, len(k.value))
			}
			m := given(0, maxHeld, "the data is longer than what this mechanism takes")
			return end(m, func(data []byte) []byte {
				var tag [polyTag]byte
				poly1305.Sum(&tag, data, (*[chachaKey]byte)(k.value))
				return tag[:]
			})
		})
	}
	return family{uses: uses{
		p11.CKF_SIGN: of(func(m message, mac func([]byte) []byte) (part, error) {
			return m.signing(polyTag, func(data []byte) ([]byte, error) { return mac(data), nil })
		}),
		p11.CKF_VERIFY: of(func(m message, mac func([]byte) []byte) (part, error) {
			return m.verifying(polyTag, func(data, tag []byte) bool { return equal(mac(data), tag) })
		}),
	}}
}
