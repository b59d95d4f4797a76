package store

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"fmt"
	"io"
	"math/bits"

	"p11fs/p11"
	"p11fs/secret"
)

// wrappedLen is the length of a master key file: the key and its SHA-1, padded
// to whole blocks.
func (k Kind) wrappedLen() int {
	return (k.MasterKeyLen+sha1.Size)/des.BlockSize*des.BlockSize + des.BlockSize
}

// newMasterKey makes the stored form of a new master key.
func (k Kind) newMasterKey(rand io.Reader) (*secret.Bytes, error) {
	b := make([]byte, k.MasterKeyLen)
	if _, err := io.ReadFull(rand, b[:dataKeyLen]); err != nil {
		secret.Wipe(b)
		return nil, fmt.Errorf("a new master key: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	if k.OddParity {
		for i, c := range b[:dataKeyLen] {
			if bits.OnesCount8(c)%2 == 0 {
				b[i] = c ^ 1
			}
		}
	}
	return secret.New(b)
}

// pinCipher is the 3DES that wraps a master key: its key is MD5 of the PIN and
// the first 8 bytes of that once more.
func pinCipher(pin *secret.Bytes) (cipher.Block, error) {
	var key [dataKeyLen]byte
	pin.Use(func(b []byte) {
		m := md5.Sum(b)
		copy(key[copy(key[:], m[:]):], m[:8])
		secret.Wipe(m[:])
	})
	defer secret.Wipe(key[:])
	return des.NewTripleDESCipher(key[:])
}

// wrap is the contents of a master key file.
func (k Kind) wrap(master, pin *secret.Bytes) ([]byte, error) {
	block, err := pinCipher(pin)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, k.wrappedLen())
	master.Use(func(key []byte) {
		h := sha1.Sum(key)
		b = append(append(b, key...), h[:]...)
	})
	if len(b) != k.MasterKeyLen+sha1.Size {
		return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "the master key is closed")
	}
	n := k.wrappedLen() - len(b)
	b = append(b, bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, []byte(k.PINIV)).CryptBlocks(b, b)
	return b, nil
}

// unwrap opens the contents of a master key file. It returns nil if pin does not
// open them.
func (k Kind) unwrap(file []byte, pin *secret.Bytes) (*secret.Bytes, error) {
	if len(file) != k.wrappedLen() {
		return nil, nil
	}
	block, err := pinCipher(pin)
	if err != nil {
		return nil, err
	}
	b := make([]byte, len(file))
	defer secret.Wipe(b)
	cipher.NewCBCDecrypter(block, []byte(k.PINIV)).CryptBlocks(b, file)
	key, rest := b[:k.MasterKeyLen], b[k.MasterKeyLen:]
	if h := sha1.Sum(key); subtle.ConstantTimeCompare(h[:], rest[:sha1.Size]) != 1 {
		return nil, nil
	}
	return secret.New(bytes.Clone(key))
}

// isZero says that a master key was never loaded when stock wrapped it: stock's
// C_SetPIN in a public session puts zeros in place of the key.
func isZero(master *secret.Bytes) (zero bool) {
	master.Use(func(b []byte) {
		zero = len(b) > 0 && subtle.ConstantTimeCompare(b, make([]byte, len(b))) == 1
	})
	return zero
}

// objectCipher encrypts and decrypts the bodies of private objects.
type objectCipher struct {
	block cipher.Block
	iv    string
}

// objectCipher is the cipher of private objects under master.
func (k Kind) objectCipher(master *secret.Bytes) (c objectCipher, err error) {
	master.Use(func(b []byte) {
		if len(b) < dataKeyLen {
			err = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the master key is closed")
			return
		}
		c.iv = k.ObjectIV
		c.block, err = des.NewTripleDESCipher(b[:dataKeyLen])
	})
	return c, err
}

// zeroCipher is the cipher of objects that stock made while its master key was
// not loaded.
func (k Kind) zeroCipher() (objectCipher, error) {
	block, err := des.NewTripleDESCipher(make([]byte, dataKeyLen))
	return objectCipher{block, k.ObjectIV}, err
}
