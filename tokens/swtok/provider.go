package swtok

import (
	"crypto"
	"crypto/cipher"
	"errors"
	"log/slog"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// A Provider is a library of RSA, elliptic curve and AES primitives. Its
// methods, and those of the keys it makes, may be called by several goroutines
// at once. Two exist: Go's own library, and the system's libcrypto.
//
// Sizes and encodings are checked by the callers: a provider's error means that
// the primitive itself refused, and tells nothing of secret values.
type Provider interface {
	// Name is "go" or "libcrypto".
	Name() string
	// Version is the library's own version text.
	Version() string
	// RawRSA says whether RSAPrivateKey.Raw works. Without it there is no
	// X.509 mechanism, and PSS only with the salt and mask that SignPSS takes.
	RawRSA() bool

	// GenerateRSA makes a key with the public exponent 65537.
	GenerateRSA(bits int) (*pkix.RSANumbers, error)
	// NewRSAPublicKey makes a public key.
	NewRSAPublicKey(n, e *big.Int) (RSAPublicKey, error)
	// NewRSAPrivateKey makes a private key from numbers, all of them present.
	NewRSAPrivateKey(k *pkix.RSANumbers) (RSAPrivateKey, error)

	// GenerateEC makes a scalar and its point.
	GenerateEC(c p11.Curve) (scalar, point []byte, err error)
	// NewECPublicKey makes a public key from an uncompressed point of the curve.
	NewECPublicKey(c p11.Curve, point []byte) (ECPublicKey, error)
	// NewECPrivateKey makes a private key from a scalar of c.Size bytes and
	// its point.
	NewECPrivateKey(c p11.Curve, scalar, point []byte) (ECPrivateKey, error)

	// NewAES makes an AES key of 16, 24 or 32 bytes, which it copies.
	NewAES(key []byte) (AES, error)
}

// bulkFrom is the first part's length from which on libcrypto's CBC is faster
// than Go's. It stands here since tests of both builds use it.
const bulkFrom = 8 << 10

// An RSAPublicKey is the public half of an RSA key of k bytes.
type RSAPublicKey interface {
	// Raw is in^e mod n, for in of k bytes and below n. It is for signatures:
	// its time may depend on in.
	Raw(in []byte) ([]byte, error)
	// EncryptPKCS1 is RSAES-PKCS1-v1_5 (RFC 8017 §7.2.1).
	EncryptPKCS1(msg []byte) ([]byte, error)
	// EncryptOAEP is RSAES-OAEP (RFC 8017 §7.1.1).
	EncryptOAEP(hash, mgf crypto.Hash, msg, label []byte) ([]byte, error)
}

// An RSAPrivateKey is the private half of an RSA key of k bytes.
type RSAPrivateKey interface {
	// Raw is in^d mod n, for in of k bytes and below n.
	Raw(in []byte) ([]byte, error)
	// SignPKCS1 signs tbs, which the caller has built (a DigestInfo), with
	// the padding of RSASSA-PKCS1-v1_5 (RFC 8017 §9.2).
	SignPKCS1(tbs []byte) ([]byte, error)
	// SignPSS is RSASSA-PSS (RFC 8017 §8.1.1) with hash for both the digest
	// and the mask, and a salt of at least one byte.
	SignPSS(hash crypto.Hash, digest []byte, saltLen int) ([]byte, error)
	// DecryptPKCS1 is RSAES-PKCS1-v1_5 (RFC 8017 §7.2.2), for a ciphertext of
	// k bytes.
	DecryptPKCS1(ct []byte) ([]byte, error)
	// DecryptOAEP is RSAES-OAEP (RFC 8017 §7.1.2), likewise.
	DecryptOAEP(hash, mgf crypto.Hash, ct, label []byte) ([]byte, error)
}

// An ECPublicKey checks ECDSA signatures.
type ECPublicKey interface {
	// Verify says whether der is a signature of digest, of which the leftmost
	// bits count.
	Verify(digest, der []byte) bool
}

// An ECPrivateKey signs and agrees on secrets.
type ECPrivateKey interface {
	// Sign returns a signature in DER. digest is not empty.
	Sign(digest []byte) ([]byte, error)
	// ECDH returns the x coordinate shared with an uncompressed point.
	ECDH(point []byte) ([]byte, error)
}

// AES is one AES key.
type AES interface {
	// Block is the bare cipher; modes that are not below are built on it.
	Block() cipher.Block
	// CBCEncrypter and CBCDecrypter begin CBC with an iv of 16 bytes.
	CBCEncrypter(iv []byte) cipher.BlockMode
	CBCDecrypter(iv []byte) cipher.BlockMode
}

// errNoRaw is the answer of RSAPrivateKey.Raw where it does not exist.
var errNoRaw = errors.New("the bare RSA private operation is not available")

// LoadProvider returns the best provider of this machine: the system's
// libcrypto, of version 3 or later, else Go's library. log tells which.
func LoadProvider(log *slog.Logger) Provider {
	p, err := loadLibcrypto("libcrypto.so.3")
	if err != nil {
		log.Debug("libcrypto not usable", "err", err)
		p = GoProvider()
	}
	log.Info("cryptography", "provider", p.Name(), "version", p.Version())
	return p
}

// wipe is here so that every file of the package wipes the same way.
func wipe(bs ...[]byte) {
	for _, b := range bs {
		secret.Wipe(b)
	}
}
