package tpm12

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"p11fs/secret"
)

// A Usage is TPM_KEY_USAGE, what a key may do.
type Usage uint16

// The usages of a store's keys.
const (
	Storage Usage = 0x11 // wraps other keys
	Binding Usage = 0x14 // unbinds what Bind made
	Legacy  Usage = 0x15 // signs, and decrypts with any padding
)

// The encryption schemes (TPM_ENC_SCHEME) and signature schemes (TPM_SIG_SCHEME).
const (
	EncryptPKCS1 uint16 = 2 // RSAES-PKCS1-v1_5
	EncryptOAEP  uint16 = 3 // RSAES-OAEP with SHA-1 and the label TCPA
	SignNot      uint16 = 1
	SignSHA1     uint16 = 2 // of a SHA-1 digest
	SignDER      uint16 = 3 // of anything that fits, as a DigestInfo
)

const (
	migratable = 2 // TPM_KEY_FLAGS
	algRSA     = 1
	fixedSize  = 39 // of a TPM_KEY up to the PCR info
	maxModulus = 2048 / 8
	maxPCRInfo = 1024
)

// A Key is TPM_KEY, a key as it lies in a store (TPM Main Specification v1.2, Part 2
// §10.2), of RSA with two primes.
type Key struct {
	Usage      Usage
	Flags      uint32
	Auth       byte // when the key wants its secret: 0 never, 1 always
	Encryption uint16
	Signature  uint16
	Bits       uint32
	Exponent   []byte // empty: 65537
	PCRInfo    []byte // of keys that are bound to the machine's state; none in stock's stores
	Modulus    []byte // empty in the template of a key that the TPM is to make
	Private    []byte // encrypted for the parent; empty of a public key
}

// NewKey is the template of a key: with no modulus and no private part. It wants its
// secret if auth.
func NewKey(u Usage, bits int, auth bool) Key {
	k := Key{Usage: u, Flags: migratable, Encryption: EncryptOAEP, Signature: SignNot, Bits: uint32(bits)}
	if u == Legacy {
		k.Encryption, k.Signature = EncryptPKCS1, SignDER
	}
	if auth {
		k.Auth = 1
	}
	return k
}

// ParseKey reads a TPM_KEY, and nothing behind it. What it returns lies in b.
func ParseKey(b []byte) (Key, error) {
	k, rest, err := cutKey(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("a TPM key with %d bytes behind it", len(rest))
	}
	return k, err
}

// cutKey reads a TPM_KEY off the front of b.
func cutKey(b []byte) (k Key, rest []byte, err error) {
	r := reader{b: b}
	version := r.u32()
	k.Usage, k.Flags, k.Auth = Usage(r.u16()), r.u32(), r.u8()
	algorithm := r.u32()
	k.Encryption, k.Signature = r.u16(), r.u16()
	parms := reader{b: r.sized(12 + 4)}
	var primes uint32
	k.Bits, primes, k.Exponent = parms.u32(), parms.u32(), parms.sized(4)
	k.PCRInfo, k.Modulus, k.Private = r.sized(maxPCRInfo), r.sized(maxModulus), r.sized(maxModulus)
	switch {
	case r.short || parms.short || len(parms.b) > 0:
		err = errors.New("a TPM key whose lengths are wrong")
	case version != structVersion:
		err = fmt.Errorf("a TPM key of version %#x, not that of a TPM 1.1 or 1.2", version)
	case algorithm != algRSA || primes != 2:
		err = fmt.Errorf("a TPM key of algorithm %d with %d primes; RSA has 2", algorithm, primes)
	case len(k.Modulus) > 0 && uint64(k.Bits) != 8*uint64(len(k.Modulus)):
		err = fmt.Errorf("a TPM key of %d bits in %d bytes", k.Bits, len(k.Modulus))
	}
	return k, r.b, err
}

// structVersion is TPM_STRUCT_VER, of which a key and what is bound to one begin with one.
const structVersion = 0x01010000

// public is the key without the private part and its length.
func (k Key) public() []byte {
	b := binary.BigEndian.AppendUint32(nil, structVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(k.Usage))
	b = binary.BigEndian.AppendUint32(b, k.Flags)
	b = append(b, k.Auth)
	b = binary.BigEndian.AppendUint32(b, algRSA)
	b = binary.BigEndian.AppendUint16(b, k.Encryption)
	b = binary.BigEndian.AppendUint16(b, k.Signature)
	b = binary.BigEndian.AppendUint32(b, uint32(12+len(k.Exponent)))
	b = binary.BigEndian.AppendUint32(b, k.Bits)
	b = binary.BigEndian.AppendUint32(b, 2)
	b = sized(b, k.Exponent)
	b = sized(b, k.PCRInfo)
	return sized(b, k.Modulus)
}

// Print is the TPM_KEY.
func (k Key) Print() []byte { return sized(k.public(), k.Private) }

// RSA is the key's public half. It fails for a template.
func (k Key) RSA() (*rsa.PublicKey, error) {
	e := int64(65537)
	if len(k.Exponent) > 0 {
		e = new(big.Int).SetBytes(k.Exponent).Int64()
	}
	if len(k.Modulus) == 0 || k.Modulus[0]&0x80 == 0 || e < 3 || e&1 == 0 || e >= 1<<31 {
		return nil, fmt.Errorf("a TPM key that is no RSA key of %d bits", k.Bits)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.Modulus), E: int(e)}, nil
}

// A Secret is what TPM_STORE_ASYMKEY has of a key (Part 2 §10.6): the secrets that its
// use and its migration take, and one of its primes.
type Secret struct {
	Usage, Migration Auth
	Prime            []byte
}

// Wipe wipes the secret.
func (s *Secret) Wipe() {
	secret.Wipe(s.Usage[:])
	secret.Wipe(s.Migration[:])
	secret.Wipe(s.Prime)
}

// payload says in TPM_STORE_ASYMKEY that there is a key.
const payload = 1

// Wrap returns k with its private part, for a parent that is a storage key: without a TPM,
// and as one would take it. prime is the key's; k has its modulus.
func (k Key) Wrap(parent *rsa.PublicKey, s Secret) (Key, error) {
	digest := sha1.Sum(k.public())
	b := append([]byte{payload}, s.Usage[:]...)
	b = append(append(b, s.Migration[:]...), digest[:]...)
	b = sized(b, s.Prime)
	defer secret.Wipe(b)
	var err error
	k.Private, err = seal(parent, b)
	return k, err
}

// Unwrap returns the private part of k, by the private key of its parent.
func (k Key) Unwrap(parent *rsa.PrivateKey) (Secret, error) {
	b, err := unseal(parent, k.Private)
	if err != nil {
		return Secret{}, fmt.Errorf("the parent does not open a TPM key: %w", err)
	}
	defer secret.Wipe(b)
	r := reader{b: b}
	var s Secret
	kind := r.u8()
	copy(s.Usage[:], r.take(len(s.Usage)))
	copy(s.Migration[:], r.take(len(s.Migration)))
	digest := r.take(sha1.Size)
	s.Prime = bytes.Clone(r.sized(maxModulus))
	if want := sha1.Sum(k.public()); r.short || len(r.b) > 0 || kind != payload || !bytes.Equal(digest, want[:]) {
		s.Wipe()
		return Secret{}, errors.New("what the parent opens is no private half of the TPM key")
	}
	return s, nil
}

// PrivateKey is the whole key of k, whose private part s is.
func (k Key) PrivateKey(s Secret) (*rsa.PrivateKey, error) {
	public, err := k.RSA()
	if err != nil {
		return nil, err
	}
	p := new(big.Int).SetBytes(s.Prime)
	if p.Sign() == 0 {
		return nil, errors.New("a TPM key without a prime")
	}
	q, rest := new(big.Int).QuoRem(public.N, p, new(big.Int))
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(int64(public.E)), phi)
	if rest.Sign() != 0 || d == nil {
		return nil, errors.New("a TPM key whose prime does not divide its modulus")
	}
	key := &rsa.PrivateKey{PublicKey: *public, D: d, Primes: []*big.Int{p, q}}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("the numbers of a TPM key: %w", err)
	}
	return key, nil
}

// label is that of each OAEP of a TPM.
const label = "TCPA"

// bound is what stands in front of bound data: TPM_BOUND_DATA (Part 2 §11.1).
func bound() []byte { return append(binary.BigEndian.AppendUint32(nil, structVersion), 2) }

// Bind encrypts data for a binding key, whose TPM_UnBind gives it.
func Bind(key *rsa.PublicKey, data []byte) ([]byte, error) {
	b := append(bound(), data...)
	defer secret.Wipe(b)
	return seal(key, b)
}

// UnBind does what TPM_UnBind does, by the private key.
func UnBind(key *rsa.PrivateKey, ciphertext []byte) ([]byte, error) {
	b, err := unseal(key, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("the key does not open what is bound: %w", err)
	}
	defer secret.Wipe(b)
	data, ok := bytes.CutPrefix(b, bound())
	if !ok {
		return nil, errors.New("what the key opens is not what was bound")
	}
	return bytes.Clone(data), nil
}

func seal(key *rsa.PublicKey, b []byte) ([]byte, error) {
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, key, b, []byte(label))
}

func unseal(key *rsa.PrivateKey, b []byte) ([]byte, error) {
	return rsa.DecryptOAEP(sha1.New(), nil, key, b, []byte(label))
}

// sized appends a length and the bytes.
func sized(to, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(b))), b...)
}

// A reader reads big-endian numbers. What is not there reads as 0, and leaves it short.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short = true
		r.b = nil
		return make([]byte, n)
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte    { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

// sized reads a length, of at most most, and as many bytes.
func (r *reader) sized(most int) []byte {
	n := r.u32()
	if n > uint32(most) {
		r.short = true
		r.b = nil
		return nil
	}
	return r.take(int(n))
}
