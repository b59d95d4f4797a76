package swtok

import (
	"context"
	"crypto"
	"crypto/cipher"
	"hash"
	"log/slog"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// A Provider is a library of RSA, elliptic curve and block cipher primitives. Its
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

	// GenerateRSA makes a key with an odd public exponent from 3 on, of at most
	// MaxExponentBits. It stops soon after ctx is done, and need not do so at once.
	GenerateRSA(ctx context.Context, bits int, e *big.Int) (*pkix.RSANumbers, error)
	// MaxExponentBits is how long the public exponent of a modulus of bits may be.
	MaxExponentBits(bits int) int
	// NewRSAPublicKey makes a public key.
	NewRSAPublicKey(n, e *big.Int) (RSAPublicKey, error)
	// NewRSAPrivateKey makes a private key from numbers, all of them present.
	NewRSAPrivateKey(k *pkix.RSANumbers) (RSAPrivateKey, error)

	// Arithmetic tells which curves of CKK_EC the methods below take. Those of NIST from
	// P-224 on are among them, with each provider.
	pkix.Arithmetic
	// GenerateEC makes a scalar and its point.
	GenerateEC(c p11.Curve) (scalar, point []byte, err error)
	// NewECPublicKey makes a public key from an uncompressed point of the curve.
	NewECPublicKey(c p11.Curve, point []byte) (ECPublicKey, error)
	// NewECPrivateKey makes a private key from a scalar of c.Size bytes and
	// its point.
	NewECPrivateKey(c p11.Curve, scalar, point []byte) (ECPrivateKey, error)

	// MakesGroups says whether GenerateGroup works for CKK_DH or CKK_DSA.
	MakesGroups(kt p11.KeyType) bool
	// GenerateGroup makes domain parameters with a prime, and for DSA a subprime, of so
	// many bits, and stops as GenerateRSA does.
	GenerateGroup(ctx context.Context, kt p11.KeyType, bits, subprime int) (pkix.Group, error)
	// NewDHPrivateKey makes a key of a group and private value.
	NewDHPrivateKey(g pkix.Group, private *big.Int) (DHPrivateKey, error)
	// NewDSAPublicKey makes a public key.
	NewDSAPublicKey(g pkix.Group, public *big.Int) (DSAPublicKey, error)
	// NewDSAPrivateKey makes a private key.
	NewDSAPrivateKey(g pkix.Group, private *big.Int) (DSAPrivateKey, error)

	// NewBlockCipher makes a key of AES, DES, DES2, DES3, AES_XTS or CHACHA20, whose value has a
	// length of the type. The value stays the caller's, who keeps it while the key
	// is in use.
	NewBlockCipher(kt p11.KeyType, value []byte) (BlockCipher, error)
	// HasMode says whether BlockCipher.Mode knows a mode for all keys that it fits, or
	// BlockCipher.CMAC works for "CMAC".
	HasMode(mode string) bool
}

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
	// Raw is in^d mod n in k bytes, for in of k bytes and below n. Its time does not
	// depend on what comes out.
	Raw(in []byte) ([]byte, error)
	// SignPKCS1 signs tbs, which the caller has built (a DigestInfo), with
	// the padding of RSASSA-PKCS1-v1_5 (RFC 8017 §9.2).
	SignPKCS1(tbs []byte) ([]byte, error)
	// SignPSS is RSASSA-PSS (RFC 8017 §8.1.1) with hash for both the digest
	// and the mask, and a salt of at least one byte.
	SignPSS(hash crypto.Hash, digest []byte, saltLen int) ([]byte, error)
	// DecryptOAEP is RSAES-OAEP (RFC 8017 §7.1.2), for a ciphertext of k bytes.
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

// A DHPrivateKey agrees on secrets.
type DHPrivateKey interface {
	// Agree is public to the private value, as long as the prime. It fails if that tells
	// nothing of the private value.
	Agree(public *big.Int) ([]byte, error)
}

// A DSAPublicKey checks signatures, a DSAPrivateKey makes them, of digests as the keys of
// elliptic curves do.
type DSAPublicKey interface {
	Verify(digest, der []byte) bool
}

// A DSAPrivateKey is the other half.
type DSAPrivateKey interface {
	Sign(digest []byte) (der []byte, err error)
}

// A BlockCipher is one key of a block cipher.
type BlockCipher interface {
	// Block is the bare cipher; modes that are not below are built on it. It is nil
	// for AES_XTS and CHACHA20.
	Block() cipher.Block
	// CBCEncrypter and CBCDecrypter begin CBC with an iv of a block.
	CBCEncrypter(iv []byte) cipher.BlockMode
	CBCDecrypter(iv []byte) cipher.BlockMode
	// GCM begins a message of AES, with an iv of any length but none.
	GCM(iv, aad []byte, encrypt bool) (GCM, error)
	// Mode begins another mode, by libcrypto's name: CTR for AES, OFB, CFB, CFB8, CFB1,
	// XTS, CBC-CTS, CCM, and CFB64, which libcrypto has not; ChaCha20 and ChaCha20-Poly1305, which every provider has.
	Mode(mode string, iv []byte, encrypt bool, o ModeOptions) (Stream, error)
	// CMAC begins a message. Reset ends it.
	CMAC() (hash.Hash, error)
	// GMAC begins a message, likewise, of AES with an iv of any length. Its Write may
	// refuse what is too long.
	GMAC(iv []byte) (hash.Hash, error)
}

// A GCM is one message under GCM (NIST SP 800-38D), in parts.
type GCM interface {
	// Crypt encrypts or decrypts the next part into as many bytes of dst, which begins
	// where part does or is elsewhere.
	Crypt(dst, part []byte) error
	// Tag ends what was encrypted, and is its tag, of as many bytes as there are.
	Tag(tag []byte) error
	// TagSoFar is Tag, and the message may go on.
	TagSoFar(tag []byte) error
	// Fits ends what was decrypted, and says whether tag is its tag.
	Fits(tag []byte) bool
	// Close wipes what there is of the message.
	Close()
}

// ModeOptions are what an authenticated mode must know before the message: the additional
// data, the message's length, and the tag's, or the tag itself to decrypt.
type ModeOptions struct {
	AAD      []byte
	Length   int
	TagBytes int
	Tag      []byte
}

// A Stream is one message under a mode.
type Stream interface {
	// Update appends what part gives to dst.
	Update(dst, part []byte) ([]byte, error)
	// Final appends the rest. It fails where a tag does not fit.
	Final(dst []byte) ([]byte, error)
	// Tag is the tag of what was encrypted.
	Tag(n int) ([]byte, error)
	Close()
}

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
