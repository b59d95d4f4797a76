package softhsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"

	"p11fs/p11"
	"p11fs/secret"
)

// How a PIN becomes the key of the token's key.
const (
	saltSize   = 8
	baseRounds = 1500
	keySize    = 32
	keyMark    = "RJR"
)

// openKey decrypts the token's key. A PIN that does not open it is CKR_PIN_INCORRECT.
func openKey(blob []byte, pin *secret.Bytes) (*secret.Bytes, error) {
	if len(blob) != saltSize+aes.BlockSize+(len(keyMark)+keySize)/aes.BlockSize*aes.BlockSize+aes.BlockSize {
		return nil, fmt.Errorf("the token's key under the PIN has %d bytes, and is damaged", len(blob))
	}
	salt, body := blob[:saltSize], blob[saltSize:]
	h := sha256.New()
	h.Write(salt)
	pin.Use(func(b []byte) { h.Write(b) })
	sum := h.Sum(nil)
	h.Reset()
	defer secret.Wipe(sum)
	for range baseRounds + int(salt[saltSize-1]) - 1 {
		next := sha256.Sum256(sum)
		copy(sum, next[:])
		clear(next[:])
	}
	plain, err := decrypt(sum, body)
	if err == nil && len(plain) == len(keyMark)+keySize && string(plain[:len(keyMark)]) == keyMark {
		defer secret.Wipe(plain)
		return secret.New(bytes.Clone(plain[len(keyMark):]))
	}
	secret.Wipe(plain)
	return nil, p11.Errorf(p11.CKR_PIN_INCORRECT, "the PIN of the SoftHSM2 token is another: give the right one")
}

// errCipher is the error of a value that was not encrypted with the token's key.
var errCipher = errors.New("it does not decrypt with the token's key")

// decrypt opens an IV and AES-256-CBC with padding (PKCS #7).
func decrypt(key, body []byte) ([]byte, error) {
	if len(body) < 2*aes.BlockSize || len(body)%aes.BlockSize != 0 {
		return nil, errCipher
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(body)-aes.BlockSize)
	cipher.NewCBCDecrypter(b, body[:aes.BlockSize]).CryptBlocks(out, body[aes.BlockSize:])
	pad := int(out[len(out)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		secret.Wipe(out)
		return nil, errCipher
	}
	return out[:len(out)-pad], nil
}
