package swtok

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"hash"
	"runtime"
	"slices"
	"sync"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// goProvider is Go's own library. It works with RSA moduli below 1024 bits since go.mod
// says so.
type goProvider struct{ pkix.GoArithmetic }

// GoProvider returns the provider that is always there.
func GoProvider() Provider { return goProvider{} }

func (goProvider) Name() string    { return "go" }
func (goProvider) Version() string { return runtime.Version() }

func (goProvider) GenerateEC(c p11.Curve) (scalar, point []byte, err error) {
	k, err := ecdsa.GenerateKey(c.Elliptic, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if scalar, err = k.Bytes(); err != nil {
		return nil, nil, err
	}
	point, err = k.PublicKey.Bytes()
	return scalar, point, err
}

func (goProvider) NewECPublicKey(c p11.Curve, point []byte) (ECPublicKey, error) {
	k, err := ecdsa.ParseUncompressedPublicKey(c.Elliptic, point)
	if err != nil {
		return nil, err
	}
	return goECPublic{k}, nil
}

func (goProvider) NewECPrivateKey(c p11.Curve, scalar, _ []byte) (ECPrivateKey, error) {
	k, err := ecdsa.ParseRawPrivateKey(c.Elliptic, scalar)
	if err != nil {
		return nil, err
	}
	return &goECPrivate{key: k, curve: c, ecdh: sync.OnceValues(k.ECDH)}, nil
}

type goECPublic struct{ key *ecdsa.PublicKey }

func (k goECPublic) Verify(digest, der []byte) bool { return ecdsa.VerifyASN1(k.key, digest, der) }

type goECPrivate struct {
	key   *ecdsa.PrivateKey
	curve p11.Curve
	ecdh  func() (*ecdh.PrivateKey, error)
}

func (k *goECPrivate) Sign(digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.key, digest)
}

func (k *goECPrivate) ECDH(point []byte) ([]byte, error) {
	if k.curve.ECDH == nil {
		return k.multiply(point)
	}
	priv, err := k.ecdh()
	if err != nil {
		return nil, err
	}
	pub, err := k.curve.ECDH.NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return priv.ECDH(pub)
}

// multiply is the agreement on P-224, which crypto/ecdh does not have. The curve's own
// multiplication is constant in time, as those of crypto/ecdh.
func (k *goECPrivate) multiply(point []byte) ([]byte, error) {
	peer, err := ecdsa.ParseUncompressedPublicKey(k.curve.Elliptic, point)
	if err != nil {
		return nil, err
	}
	scalar, err := k.key.Bytes()
	if err != nil {
		return nil, err
	}
	defer wipe(scalar)
	x, _ := k.curve.Elliptic.ScalarMult(peer.X, peer.Y, scalar) //nolint:staticcheck // crypto/ecdh has not this curve
	defer clear(x.Bits())
	return x.FillBytes(make([]byte, k.curve.Size())), nil
}

func (goProvider) NewBlockCipher(kt p11.KeyType, value []byte) (BlockCipher, error) {
	var b cipher.Block
	var err error
	switch kt {
	case p11.CKK_AES:
		b, err = aes.NewCipher(value)
	case p11.CKK_AES_XTS:
		return &goBlockCipher{}, nil
	case p11.CKK_CHACHA20:
		return &goChaCha{key: value}, nil
	default: // DES, DES2, DES3 are one, with keys that are the same
		three := tripleDES(value)
		defer wipe(three)
		b, err = des.NewTripleDESCipher(three) //nolint:gosec // for what was encrypted long ago
	}
	return &goBlockCipher{b, sync.OnceValues(func() (*ghash, error) { return newGHASH(b) })}, err
}

// tripleDES is a key of DES, DES2 or DES3 as one of three keys.
func tripleDES(value []byte) []byte {
	three := make([]byte, 24)
	for n := 0; n < len(three); {
		n += copy(three[n:], value)
	}
	return three
}

// HasMode: Go's library has OFB and CFB.
func (goProvider) HasMode(mode string) bool {
	return slices.Contains([]string{"OFB", "CFB", "CFB8", "CFB64"}, mode)
}

type goBlockCipher struct {
	block cipher.Block
	ghash func() (*ghash, error) // of AES, made once
}

func (b *goBlockCipher) Block() cipher.Block { return b.block }

func (b *goBlockCipher) CBCEncrypter(iv []byte) cipher.BlockMode {
	return cipher.NewCBCEncrypter(b.block, iv)
}

func (b *goBlockCipher) CBCDecrypter(iv []byte) cipher.BlockMode {
	return cipher.NewCBCDecrypter(b.block, iv)
}

//nolint:staticcheck // the modes are PKCS#11's, and who chooses them knows what they lack
func (b *goBlockCipher) Mode(mode string, iv []byte, encrypt bool, _ ModeOptions) (Stream, error) {
	switch {
	case mode == "CTR":
		return goStream{cipher.NewCTR(b.block, iv)}, nil
	case mode == "OFB":
		return goStream{cipher.NewOFB(b.block, iv)}, nil
	case mode == "CFB" && encrypt:
		return goStream{cipher.NewCFBEncrypter(b.block, iv)}, nil
	case mode == "CFB":
		return goStream{cipher.NewCFBDecrypter(b.block, iv)}, nil
	case mode == "CFB8":
		return goStream{newSegmentCFB(b.block, iv, 1, encrypt)}, nil
	case mode == "CFB64":
		return goStream{newSegmentCFB(b.block, iv, 8, encrypt)}, nil
	}
	return nil, errNoMode
}

func (*goBlockCipher) CMAC() (hash.Hash, error) { return nil, errNoMode }

var errNoMode = errors.New("the library has no such mode")

// goStream is a stream cipher of Go's library.
type goStream struct{ cipher.Stream }

func (s goStream) Update(dst, part []byte) ([]byte, error) {
	n := len(dst)
	dst = append(dst, part...)
	s.XORKeyStream(dst[n:], dst[n:])
	return dst, nil
}

func (s goStream) Crypt(dst, part []byte) error {
	s.XORKeyStream(dst, part)
	return nil
}

func (goStream) Final(dst []byte) ([]byte, error) { return dst, nil }
func (goStream) Tag(int) ([]byte, error)          { return nil, errNoMode }
func (goStream) Close()                           {}

// leftPad returns b in n bytes, with zeros in front.
func leftPad(b []byte, n int) []byte {
	out := make([]byte, n)
	copy(out[n-len(b):], b)
	return out
}
