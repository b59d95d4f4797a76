package format

import (
	"crypto/hmac"
	"crypto/sha512"
	"crypto/subtle"

	"p11fs/secret"
)

// pbkdf2 is PBKDF2 with HMAC-SHA-512 (RFC 8018 §5.2), of a key that is no longer than one
// hash. crypto/pbkdf2 has the PIN as a string, and so leaves copies that nobody wipes.
func pbkdf2(pin, salt []byte, iterations, size int) []byte {
	prf := hmac.New(sha512.New, pin)
	prf.Write(salt)
	prf.Write([]byte{0, 0, 0, 1})
	u := prf.Sum(make([]byte, 0, sha512.Size))
	key := append(make([]byte, 0, sha512.Size), u...)
	for range iterations - 1 {
		prf.Reset()
		prf.Write(u)
		u = prf.Sum(u[:0])
		subtle.XORBytes(key, key, u)
	}
	secret.Wipe(u)
	secret.Wipe(key[size:])
	return key[:size:size]
}
