package softcca

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"

	"p11fs/secret"
	"p11fs/tokens/card/cca"
)

// wrapped is the state of a token that was opened: the key, and the register of the master
// key that it is under.
type wrapped struct {
	key []byte
	at  Register
}

func masterOf(aesKey bool) Master {
	if aesKey {
		return AES
	}
	return SYM
}

// blockMode is how a symmetric key is wrapped: by CBC from zeros, as each token has keys of
// its own sort and a validation value over all.
func blockMode(master []byte, aesKey, encrypt bool) (cipher.BlockMode, error) {
	purpose, size, build := "keys of DES", 24, des.NewTripleDESCipher
	if aesKey {
		purpose, size, build = "keys of AES", 32, aes.NewCipher
	}
	k, err := derive(master, purpose, size)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(k)
	b, err := build(k)
	if err != nil {
		return nil, err
	}
	if encrypt {
		return cipher.NewCBCEncrypter(b, make([]byte, b.BlockSize())), nil
	}
	return cipher.NewCBCDecrypter(b, make([]byte, b.BlockSize())), nil
}

// validation is the validation value of a symmetric token.
func validation(master []byte, s cca.Symmetric) (v [4]byte, err error) {
	k, err := derive(master, "validation values", sha256.Size)
	if err != nil {
		return v, err
	}
	defer secret.Wipe(k)
	h := hmac.New(sha256.New, k)
	h.Write(s.Bound())
	copy(v[:], h.Sum(nil))
	return v, nil
}

// sealSymmetric makes the token of a DES or AES key, under the master key of a register.
func (d *domain) sealSymmetric(aesKey bool, key []byte, r Register) ([]byte, error) {
	master, p, err := d.in(masterOf(aesKey), r)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(master)
	room := 24
	if aesKey {
		room = 32
	}
	s := cca.Symmetric{AES: aesKey, Size: len(key), Key: true, Pattern: p, Wrapped: make([]byte, room)}
	copy(s.Wrapped, key)
	mode, err := blockMode(master, aesKey, true)
	if err != nil {
		return nil, err
	}
	mode.CryptBlocks(s.Wrapped, s.Wrapped)
	if s.Check, err = validation(master, s); err != nil {
		return nil, err
	}
	return s.Bytes(), nil
}

// openSymmetric is the reverse.
func (d *domain) openSymmetric(token []byte) (s cca.Symmetric, w wrapped, err error) {
	if s, err = cca.ParseSymmetric(token); err != nil {
		return s, w, err
	}
	if !s.Key {
		return s, w, cca.ErrToken
	}
	master, at, err := d.find(masterOf(s.AES), s.Pattern)
	if err != nil {
		return s, w, err
	}
	defer secret.Wipe(master)
	v, err := validation(master, s)
	if err == nil && (subtle.ConstantTimeCompare(v[:], s.Check[:]) != 1 || !bytes.Equal(s.Bytes(), token)) {
		err = cca.ErrToken
	}
	if err != nil {
		return s, w, err
	}
	mode, err := blockMode(master, s.AES, false)
	if err != nil {
		return s, w, err
	}
	key := make([]byte, len(s.Wrapped))
	mode.CryptBlocks(key, s.Wrapped)
	secret.Wipe(key[s.Size:])
	return s, wrapped{key[:s.Size], at}, nil
}

// aead is what keys with room for a tag are sealed with.
func aead(master []byte, purpose string) (cipher.AEAD, error) {
	k, err := derive(master, purpose, 32)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(k)
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

// seal puts secret bytes under a master key, bound to what is around them.
func seal(master []byte, purpose string, plain, bound []byte) ([]byte, error) {
	a, err := aead(master, purpose)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plain, bound), nil
}

// unseal is the reverse. What fails to open is no token of this master key.
func unseal(master []byte, purpose string, sealed, bound []byte) ([]byte, error) {
	a, err := aead(master, purpose)
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, nil, sealed, bound)
	if err != nil {
		return nil, cca.ErrToken
	}
	return plain, nil
}

// What the keys of HKDF are for.
const (
	forHMAC  = "keys of HMAC"
	forPKA   = "keys of RSA and EC"
	forChain = "chaining vectors"
)

// sealVariable makes the token of an HMAC key.
func (d *domain) sealVariable(key []byte, partial bool, r Register) ([]byte, error) {
	master, p, err := d.in(AES, r)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(master)
	v := cca.Variable{Key: true, Partial: partial, Pattern: p}
	if v.Payload, err = seal(master, forHMAC, key, v.Bound()); err != nil {
		return nil, err
	}
	return v.Bytes(), nil
}

// openVariable is the reverse.
func (d *domain) openVariable(token []byte) (v cca.Variable, w wrapped, err error) {
	if v, err = cca.ParseVariable(token); err != nil {
		return v, w, err
	}
	if !v.Key {
		return v, w, cca.ErrToken
	}
	master, at, err := d.find(AES, v.Pattern)
	if err != nil {
		return v, w, err
	}
	defer secret.Wipe(master)
	key, err := unseal(master, forHMAC, v.Payload, v.Bound())
	return v, wrapped{key, at}, err
}

// sealPKA makes the internal token of an RSA or EC key, of which k has the public half.
func (d *domain) sealPKA(k cca.PKA, private []byte, r Register) ([]byte, error) {
	master, p, err := d.in(APKA, r)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(master)
	k.Private, k.Pattern = true, p
	if k.Sealed, err = seal(master, forPKA, private, k.Bound()); err != nil {
		return nil, err
	}
	b := k.Bytes()
	if len(b) > cca.MaxPKA {
		return nil, cca.ErrValues
	}
	return b, nil
}

// openPKA is the reverse.
func (d *domain) openPKA(token []byte) (k cca.PKA, w wrapped, err error) {
	if k, err = cca.ParsePKA(token); err != nil {
		return k, w, err
	}
	if !k.Private || k.Sealed == nil {
		return k, w, cca.ErrToken
	}
	master, at, err := d.find(APKA, k.Pattern)
	if err != nil {
		return k, w, err
	}
	defer secret.Wipe(master)
	private, err := unseal(master, forPKA, k.Sealed, k.Bound())
	return k, wrapped{private, at}, err
}
