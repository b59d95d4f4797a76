//go:build cgo

package swtok

import (
	"cmp"
	"context"
	"crypto"
	"crypto/cipher"
	"fmt"
	"hash"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok/libcrypto"
)

// system is the machine's libcrypto, loaded at run time. Key memory is the
// library's own.
//
// AES is Go's, but for CBC in bulk: measured here, a new context takes libcrypto 1 µs,
// and only CBC gains it back (decryption of 64 KiB: 5.8 against 0.9 GB/s; CTR and GCM
// are equal).
type system struct {
	goProvider
	lib *libcrypto.Library
}

func loadLibcrypto(file string) (Provider, error) {
	lib, err := libcrypto.Load(file)
	if err != nil {
		return nil, err
	}
	return &system{lib: lib}, nil
}

func (*system) Name() string      { return "libcrypto" }
func (p *system) Version() string { return p.lib.Version() }

// MaxExponentBits: it bounds the cost of checking a signature with a long modulus.
func (*system) MaxExponentBits(bits int) int {
	if bits > 3072 {
		return 64
	}
	return 256
}

func (p *system) GenerateRSA(ctx context.Context, bits int, e *big.Int) (*pkix.RSANumbers, error) {
	k, err := p.lib.GenerateKeyUntil(ctx, "RSA", libcrypto.Number("bits", uint64(bits)), libcrypto.Int("e", e))
	if err != nil {
		return nil, err
	}
	data, err := k.Data(libcrypto.Pair)
	if err != nil {
		return nil, err
	}
	number := func(name string) *big.Int {
		defer wipe(data[name])
		return new(big.Int).SetBytes(data[name])
	}
	return &pkix.RSANumbers{
		N: number("n"), E: number("e"), D: number("d"), P: number("rsa-factor1"), Q: number("rsa-factor2"),
		DP: number("rsa-exponent1"), DQ: number("rsa-exponent2"), QInv: number("rsa-coefficient1"),
	}, nil
}

func (p *system) NewRSAPublicKey(n, e *big.Int) (RSAPublicKey, error) {
	k, err := p.lib.NewKey("RSA", libcrypto.Public, libcrypto.Int("n", n), libcrypto.Int("e", e))
	return rsaPublicKey{k, (n.BitLen() + 7) / 8}, err
}

func (p *system) NewRSAPrivateKey(k *pkix.RSANumbers) (RSAPrivateKey, error) {
	key, err := p.lib.NewKey("RSA", libcrypto.Pair, libcrypto.Int("n", k.N), libcrypto.Int("e", k.E), libcrypto.Int("d", k.D),
		libcrypto.Int("rsa-factor1", k.P), libcrypto.Int("rsa-factor2", k.Q),
		libcrypto.Int("rsa-exponent1", k.DP), libcrypto.Int("rsa-exponent2", k.DQ), libcrypto.Int("rsa-coefficient1", k.QInv))
	return rsaPrivateKey{key, (k.N.BitLen() + 7) / 8}, err
}

// padding is the parameter of RSA that says how data is padded (EVP_SIGNATURE-RSA(7),
// EVP_ASYM_CIPHER-RSA(7)).
func padding(mode string) libcrypto.Param { return libcrypto.Text("pad-mode", mode) }

func oaep(hash, mgf crypto.Hash, label []byte) []libcrypto.Param {
	return []libcrypto.Param{
		padding("oaep"), libcrypto.Text("digest", hash.String()), libcrypto.Text("mgf1-digest", mgf.String()),
		libcrypto.Octets("oaep-label", label),
	}
}

// An rsaPublicKey or rsaPrivateKey is one of a modulus of size bytes.
type rsaPublicKey struct {
	key  *libcrypto.Key
	size int
}

func (k rsaPublicKey) Raw(in []byte) ([]byte, error) {
	return k.key.Encrypt(k.size, in, padding("none"))
}

func (k rsaPublicKey) EncryptPKCS1(msg []byte) ([]byte, error) {
	return k.key.Encrypt(k.size, msg, padding("pkcs1"))
}

func (k rsaPublicKey) EncryptOAEP(hash, mgf crypto.Hash, msg, label []byte) ([]byte, error) {
	return k.key.Encrypt(k.size, msg, oaep(hash, mgf, label)...)
}

type rsaPrivateKey rsaPublicKey

func (k rsaPrivateKey) Raw(in []byte) ([]byte, error) {
	return k.key.Decrypt(k.size, in, padding("none"))
}

func (k rsaPrivateKey) SignPKCS1(tbs []byte) ([]byte, error) {
	return k.key.Sign(k.size, tbs, padding("pkcs1"))
}

func (k rsaPrivateKey) SignPSS(hash crypto.Hash, digest []byte, saltLen int) ([]byte, error) {
	return k.key.Sign(k.size, digest, padding("pss"), libcrypto.Text("digest", hash.String()),
		libcrypto.Text("mgf1-digest", hash.String()), libcrypto.Text("saltlen", fmt.Sprint(saltLen)))
}

func (k rsaPrivateKey) DecryptOAEP(hash, mgf crypto.Hash, ct, label []byte) ([]byte, error) {
	return k.key.Decrypt(k.size, ct, oaep(hash, mgf, label)...)
}

// HasCurve is pkix.Arithmetic: what distributions leave out differs.
func (p *system) HasCurve(c p11.Curve) bool {
	if c.KeyType != p11.CKK_EC {
		return false
	}
	_, err := p.lib.Group(c.OID)
	return err == nil
}

func (p *system) ECPoint(c p11.Curve, encoded []byte) ([]byte, error) {
	if p.goProvider.HasCurve(c) {
		return p.goProvider.ECPoint(c, encoded)
	}
	g, err := p.lib.Group(c.OID)
	if err != nil {
		return nil, err
	}
	return g.Point(encoded)
}

func (p *system) ECMultiply(c p11.Curve, scalar []byte) ([]byte, error) {
	if p.goProvider.HasCurve(c) {
		return p.goProvider.ECMultiply(c, scalar)
	}
	g, err := p.lib.Group(c.OID)
	if err != nil {
		return nil, err
	}
	return g.Multiply(scalar)
}

// group is the parameter of EC keys that says on which curve they are.
func group(c p11.Curve) libcrypto.Param {
	return libcrypto.Text("group", cmp.Or(c.NIST, c.Name))
}

func (p *system) GenerateEC(c p11.Curve) (scalar, point []byte, err error) {
	k, err := p.lib.GenerateKey("EC", group(c))
	if err != nil {
		return nil, nil, err
	}
	data, err := k.Data(libcrypto.Pair)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(data["priv"])
	return leftPad(data["priv"], c.Size()), data["pub"], nil
}

func (p *system) NewECPublicKey(c p11.Curve, point []byte) (ECPublicKey, error) {
	k, err := p.lib.NewKey("EC", libcrypto.Public, group(c), libcrypto.Octets("pub", point))
	return ecPublicKey{k}, err
}

func (p *system) NewECPrivateKey(c p11.Curve, scalar, point []byte) (ECPrivateKey, error) {
	d := new(big.Int).SetBytes(scalar)
	defer clear(d.Bits())
	k, err := p.lib.NewKey("EC", libcrypto.Pair, group(c), libcrypto.Octets("pub", point), libcrypto.Int("priv", d))
	return &ecPrivateKey{p.lib, k, c}, err
}

type ecPublicKey struct{ key *libcrypto.Key }

func (k ecPublicKey) Verify(digest, der []byte) bool { return k.key.Verify(digest, der) == nil }

type ecPrivateKey struct {
	lib   *libcrypto.Library
	key   *libcrypto.Key
	curve p11.Curve
}

func (k *ecPrivateKey) Sign(digest []byte) ([]byte, error) {
	return k.key.Sign(2*k.curve.Size()+16, digest)
}

func (k *ecPrivateKey) ECDH(point []byte) ([]byte, error) {
	peer, err := k.lib.NewKey("EC", libcrypto.Public, group(k.curve), libcrypto.Octets("pub", point))
	if err != nil {
		return nil, err
	}
	return k.key.Derive(k.curve.Size(), peer)
}

func (p *system) NewBlockCipher(kt p11.KeyType, value []byte) (BlockCipher, error) {
	b, err := p.goProvider.NewBlockCipher(kt, value)
	if err != nil {
		return nil, err
	}
	switch kt {
	case p11.CKK_AES:
		return &libCipher{b, p.lib, fmt.Sprintf("AES-%d-", 8*len(value)), value, nil}, nil
	case p11.CKK_AES_XTS:
		return &libCipher{b, p.lib, fmt.Sprintf("AES-%d-", 4*len(value)), value, nil}, nil
	case p11.CKK_CHACHA20:
		if _, err := p.lib.Cipher(chachaAEAD); err != nil {
			return b, nil // a library that is built without
		}
		return &libCipher{b, p.lib, "", value, nil}, nil
	}
	three := tripleDES(value)
	return &libCipher{b, p.lib, "DES-EDE3-", three, three}, nil
}

func (p *system) HasMode(mode string) bool {
	if mode == "CMAC" {
		_, err := p.lib.MAC(mode)
		return err == nil
	}
	_, err := p.lib.Cipher("AES-256-" + mode)
	return err == nil
}

// A libCipher is a key whose modes are libcrypto's. Its Block is Go's.
type libCipher struct {
	BlockCipher
	lib  *libcrypto.Library
	name string // what stands before the mode
	key  []byte
	own  []byte // the key, where it is a copy
}

// Close wipes what is a copy.
func (c *libCipher) Close() { wipe(c.own) }

func (c *libCipher) Mode(mode string, iv []byte, encrypt bool, o ModeOptions) (Stream, error) {
	a, err := c.lib.Cipher(c.name + mode)
	if err != nil {
		return nil, err
	}
	var params []libcrypto.Param
	switch tag := libcrypto.Octets("tag", o.Tag); {
	case mode == "CCM" && encrypt:
		params = append(params, libcrypto.Number("ivlen", uint64(len(iv))), libcrypto.Room("tag", o.TagBytes))
	case mode == "CCM":
		params = append(params, libcrypto.Number("ivlen", uint64(len(iv))), tag)
	case mode == chachaAEAD && !encrypt:
		params = append(params, tag)
	}
	s, err := a.New(c.key, iv, encrypt, params...)
	if err != nil {
		return nil, err
	}
	if mode == "CCM" {
		err = s.Announce(o.Length)
	}
	if err == nil && len(o.AAD) > 0 {
		err = s.Associate(o.AAD)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (c *libCipher) CMAC() (hash.Hash, error) {
	m, err := c.lib.MAC("CMAC")
	if err != nil {
		return nil, err
	}
	s, err := m.New(c.key, libcrypto.Text("cipher", c.name+"CBC"))
	return &macHash{s, c.Block().BlockSize()}, err
}

func (c *libCipher) GMAC(iv []byte) (hash.Hash, error) {
	m, err := c.lib.MAC("GMAC")
	if err != nil {
		return c.BlockCipher.GMAC(iv)
	}
	s, err := m.New(c.key, libcrypto.Text("cipher", c.name+"GCM"), libcrypto.Octets("iv", iv))
	return &macHash{s, aesBlock}, err
}

// macHash is a MAC of libcrypto's as a hash, which Reset ends.
type macHash struct {
	*libcrypto.MACState
	size int
}

func (h *macHash) Write(b []byte) (int, error) {
	if err := h.Update(b); err != nil {
		panic(err) // it has no reason to
	}
	return len(b), nil
}

func (h *macHash) Sum(b []byte) []byte {
	mac, err := h.Result()
	if err != nil {
		panic(err) // likewise
	}
	return append(b, mac...)
}

func (h *macHash) Reset()         { h.Close() }
func (h *macHash) Size() int      { return h.size }
func (h *macHash) BlockSize() int { return h.size }

func (c *libCipher) CBCEncrypter(iv []byte) cipher.BlockMode {
	return &bulkCBC{c, true, iv, c.BlockCipher.CBCEncrypter(iv), nil}
}

func (c *libCipher) CBCDecrypter(iv []byte) cipher.BlockMode {
	return &bulkCBC{c, false, iv, c.BlockCipher.CBCDecrypter(iv), nil}
}

// bulkCBC decides at the first part which library does the work.
type bulkCBC struct {
	c       *libCipher
	encrypt bool
	iv      []byte           // nil once that is decided
	small   cipher.BlockMode // Go's
	big     *libcrypto.Stream
}

func (b *bulkCBC) BlockSize() int { return b.small.BlockSize() }

func (b *bulkCBC) CryptBlocks(dst, src []byte) {
	if b.iv != nil && len(src) >= bulkFrom {
		// Without it Go's does the same.
		if cbc, err := b.c.lib.Cipher(b.c.name + "CBC"); err == nil {
			b.big, _ = cbc.New(b.c.key, b.iv, b.encrypt, libcrypto.Number("padding", 0))
		}
	}
	b.iv = nil
	if b.big == nil {
		b.small.CryptBlocks(dst, src)
	} else if err := b.big.Crypt(dst, src); err != nil {
		panic(err) // it has no reason to
	}
}

// Close ends the stream.
func (b *bulkCBC) Close() {
	if b.big != nil {
		b.big.Close()
		b.big = nil
	}
}
