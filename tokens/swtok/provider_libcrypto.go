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
	"sync"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/swtok/libcrypto"
)

// system is the machine's libcrypto, loaded at run time. Key memory is the
// library's own.
//
// The modes of block ciphers are its own, of contexts that are kept with the key.
type system struct {
	goProvider
	lib *libcrypto.Library
	gcm bool // contexts of GCM can be copied; not so in the first releases of 3.0
}

func loadLibcrypto(file string) (Provider, error) {
	lib, err := libcrypto.Load(file)
	if err != nil {
		return nil, err
	}
	return &system{lib: lib, gcm: copiesGCM(lib)}, nil
}

// copiesGCM tries whether a message under GCM may go on behind its tag.
func copiesGCM(lib *libcrypto.Library) bool {
	c, err := lib.Cipher("AES-128-GCM")
	if err != nil {
		return false
	}
	k, err := c.Keyed(make([]byte, 16), true)
	if err != nil {
		return false
	}
	s, err := k.New(make([]byte, 12))
	if err != nil {
		return false
	}
	defer s.Close()
	g := libGCM{s}
	var one, again [aesBlock]byte
	return g.TagSoFar(one[:]) == nil && g.Tag(again[:]) == nil && one == again
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
		return &libCipher{BlockCipher: b, lib: p.lib, name: fmt.Sprintf("AES-%d-", 8*len(value)), key: value, gcm: p.gcm}, nil
	case p11.CKK_AES_XTS:
		return &libCipher{BlockCipher: b, lib: p.lib, name: fmt.Sprintf("AES-%d-", 4*len(value)), key: value}, nil
	case p11.CKK_CHACHA20:
		if _, err := p.lib.Cipher(chachaAEAD); err != nil {
			return b, nil // a library that is built without
		}
		return &libCipher{BlockCipher: b, lib: p.lib, key: value}, nil
	}
	three := tripleDES(value)
	return &libCipher{BlockCipher: b, lib: p.lib, name: "DES-EDE3-", key: three, own: three}, nil
}

func (p *system) HasMode(mode string) bool {
	if mode == "CMAC" {
		_, err := p.lib.MAC(mode)
		return err == nil
	}
	_, err := p.lib.Cipher("AES-256-" + mode)
	return err == nil || mode == "CFB64"
}

// A libCipher is a key whose modes are libcrypto's. Its Block is Go's.
type libCipher struct {
	BlockCipher
	lib  *libcrypto.Library
	name string // what stands before the mode
	key  []byte
	own  []byte // the key, where it is a copy
	gcm  bool   // GCM is libcrypto's, too

	mu    sync.Mutex // guards keyed
	keyed map[use]*libcrypto.Keyed
}

// A use is a mode and a direction.
type use struct {
	mode    string
	encrypt bool
}

// Close wipes what is a copy.
func (c *libCipher) Close() { wipe(c.own) }

// begin begins a message, whose params are set before the iv.
func (c *libCipher) begin(mode string, iv []byte, encrypt bool, params ...libcrypto.Param) (*libcrypto.Stream, error) {
	k, err := c.with(use{mode, encrypt})
	if err != nil {
		return nil, err
	}
	return k.New(iv, params...)
}

// with has the key in a context of that use.
func (c *libCipher) with(u use) (*libcrypto.Keyed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.keyed[u]; k != nil {
		return k, nil
	}
	a, err := c.lib.Cipher(c.name + u.mode)
	if err != nil {
		return nil, err
	}
	var params []libcrypto.Param
	if u.mode == "CBC" { // PKCS#7 padding is ours, as it has to be checked in constant time
		params = append(params, libcrypto.Number("padding", 0))
	}
	k, err := a.Keyed(c.key, u.encrypt, params...)
	if err != nil {
		return nil, err
	}
	if c.keyed == nil {
		c.keyed = make(map[use]*libcrypto.Keyed)
	}
	c.keyed[u] = k
	return k, nil
}

// maxLibIV is the longest IV of GCM that libcrypto takes, in bytes.
const maxLibIV = 128

func (c *libCipher) GCM(iv, aad []byte, encrypt bool) (GCM, error) {
	if !c.gcm || len(iv) > maxLibIV {
		return c.BlockCipher.GCM(iv, aad, encrypt)
	}
	var params []libcrypto.Param
	if len(iv) != 12 {
		params = append(params, libcrypto.Number("ivlen", uint64(len(iv))))
	}
	s, err := c.begin("GCM", iv, encrypt, params...)
	if err != nil {
		return nil, err
	}
	if len(aad) > 0 {
		if err := s.Associate(aad); err != nil {
			s.Close()
			return nil, err
		}
	}
	return libGCM{s}, nil
}

// libGCM is a message under libcrypto's GCM.
type libGCM struct{ *libcrypto.Stream }

func (g libGCM) Tag(tag []byte) error { return g.Seal(tag) }

func (g libGCM) Fits(tag []byte) bool { return g.Check(tag) }

func (g libGCM) TagSoFar(tag []byte) error {
	end, err := g.Copy()
	if err != nil {
		return err
	}
	defer end.Close()
	return end.Seal(tag)
}

func (c *libCipher) Mode(mode string, iv []byte, encrypt bool, o ModeOptions) (Stream, error) {
	if mode == "CFB64" {
		return c.BlockCipher.Mode(mode, iv, encrypt, o)
	}
	if c.name != "" && mode != "CCM" {
		return c.begin(mode, iv, encrypt)
	}
	a, err := c.lib.Cipher(c.name + mode) // whose contexts not every library copies
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
	return c.cbc(iv, true, c.BlockCipher.CBCEncrypter)
}

func (c *libCipher) CBCDecrypter(iv []byte) cipher.BlockMode {
	return c.cbc(iv, false, c.BlockCipher.CBCDecrypter)
}

// cbc is libcrypto's CBC, or else Go's, which is the same.
func (c *libCipher) cbc(iv []byte, encrypt bool, golang func([]byte) cipher.BlockMode) cipher.BlockMode {
	s, err := c.begin("CBC", iv, encrypt)
	if err != nil {
		return golang(iv)
	}
	return &libCBC{s, len(iv)}
}

// libCBC is a stream of whole blocks. Close ends it.
type libCBC struct {
	*libcrypto.Stream
	size int
}

func (c *libCBC) BlockSize() int { return c.size }

func (c *libCBC) CryptBlocks(dst, src []byte) {
	if err := c.Crypt(dst, src); err != nil {
		panic(err) // it has no reason to
	}
}
