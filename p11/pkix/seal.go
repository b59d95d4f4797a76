package pkix

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/pbkdf2"

	"p11fs/secret"
)

// sealRounds is how many rounds of PBKDF2 make the key of a pass phrase.
const sealRounds = 600_000

// SealPKCS8 encrypts a PrivateKeyInfo under a pass phrase, and returns it in PEM: an
// EncryptedPrivateKeyInfo (RFC 5958 §3) with PBES2 of PBKDF2 with HMAC-SHA-256 and
// AES-256-CBC (RFC 8018 §6.2). The key stays the caller's to wipe.
func SealPKCS8(der []byte, pass *secret.Bytes) ([]byte, error) {
	random := make([]byte, 2*aes.BlockSize)
	_, _ = rand.Read(random) // which does not fail
	salt, iv := random[:aes.BlockSize], random[aes.BlockSize:]
	var key []byte
	pass.Use(func(p []byte) { key = pbkdf2.Key(p, salt, sealRounds, 32, sha256.New) })
	defer secret.Wipe(key)
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	sealed := append(append(make([]byte, 0, len(der)+pad), der...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(c, iv).CryptBlocks(sealed, sealed)

	sequence := func(f func(b *cryptobyte.Builder)) []byte {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, f)
		return b.BytesOrPanic() // which only what is too long does
	}
	bytesOf := func(v []byte) []byte {
		var b cryptobyte.Builder
		b.AddASN1OctetString(v)
		return b.BytesOrPanic()
	}
	derivation := sequence(func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(salt)
		b.AddASN1Int64(sealRounds)
		addAlgorithm(b, algorithm{oidHMACSHA256, null()})
	})
	scheme := sequence(func(b *cryptobyte.Builder) {
		addAlgorithm(b, algorithm{oidPBKDF2, derivation})
		addAlgorithm(b, algorithm{oidAES256CBC, bytesOf(iv)})
	})
	out := sequence(func(b *cryptobyte.Builder) {
		addAlgorithm(b, algorithm{oidPBES2, scheme})
		b.AddASN1OctetString(sealed)
	})
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: out}), nil
}
