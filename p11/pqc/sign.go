package pqc

import (
	"bytes"
	"encoding/asn1"
	"io"
	"slices"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"

	"p11fs/p11"
	"p11fs/secret"
)

// MaxContext is the longest context of a signature in bytes.
const MaxContext = 255

// A Message is what a signature is over: a prefix, and data as given.
type Message struct{ prefix, data []byte }

// Pure is a message that is signed whole (FIPS 204 §5.2, FIPS 205 §10.2). The context
// has at most MaxContext bytes.
func Pure(context, data []byte) Message { return Message{prefix(0, context), data} }

// Prehashed is the digest of a message, made by the hash of that object identifier
// (FIPS 204 §5.4, FIPS 205 §10.2.2).
func Prehashed(context []byte, oid asn1.ObjectIdentifier, digest []byte) Message {
	der, err := asn1.Marshal(oid)
	if err != nil {
		panic(err) // it is one of ours
	}
	return Message{append(prefix(1, context), der...), digest}
}

func prefix(prehashed byte, context []byte) []byte {
	if len(context) > MaxContext {
		panic("pqc: the context is too long")
	}
	return append([]byte{prehashed, byte(len(context))}, context...)
}

func (m Message) write(w io.Writer) {
	_, _ = w.Write(m.prefix)
	_, _ = w.Write(m.data)
}

// A PublicKey checks signatures or encapsulates. It may be used by several goroutines
// at once. It keeps no more than its encoding, and the library's form of it, which takes
// up to twenty times the memory, for as long as it is used.
type PublicKey struct {
	Set
	value []byte
}

// NewPublicKey reads a public key of PublicSize bytes, which stay the caller's, who keeps
// them while the key is in use.
func (s Set) NewPublicKey(value []byte) (*PublicKey, error) {
	k := &PublicKey{s, value}
	_, err := k.expand()
	return k, err
}

func (k *PublicKey) expand() (any, error) {
	switch {
	case len(k.value) != k.PublicSize:
		return nil, k.wrongSize("public key", len(k.value), k.PublicSize)
	case k.kem != nil:
		return k.kem.UnmarshalBinaryPublicKey(k.value)
	}
	return k.sign.UnmarshalBinaryPublicKey(k.value)
}

// Type is the type of the key.
func (k *PublicKey) Type() p11.KeyType { return k.KeyType }

// Verify says whether signature is one of m.
func (k *PublicKey) Verify(m Message, signature []byte) bool {
	if len(signature) != k.SignatureSize {
		return false
	}
	key, err := k.expand()
	if err != nil {
		return false
	}
	switch key := key.(type) {
	case *mldsa44.PublicKey:
		return verifyInternal44(key, m.write, signature)
	case *mldsa65.PublicKey:
		return verifyInternal65(key, m.write, signature)
	case *mldsa87.PublicKey:
		return verifyInternal87(key, m.write, signature)
	case slhdsa.PublicKey:
		return verifyInternalSLH(&key, slices.Concat(m.prefix, m.data), signature)
	}
	return false
}

// A PrivateKey signs or decapsulates, and is otherwise as a PublicKey.
type PrivateKey struct {
	Set
	value []byte
	own   bool
}

// NewPrivateKey is the private key of PrivateSize bytes, which Check has found good or
// Generate made. They stay the caller's, who keeps them while the key is in use.
func (s Set) NewPrivateKey(value []byte) (*PrivateKey, error) {
	if len(value) != s.PrivateSize {
		return nil, s.wrongSize("private key", len(value), s.PrivateSize)
	}
	return &PrivateKey{Set: s, value: value}, nil
}

// Own gives the key the memory of its value, which Close wipes then.
func (k *PrivateKey) Own() { k.own = true }

// Type is the type of the key.
func (k *PrivateKey) Type() p11.KeyType { return k.KeyType }

// Clone returns a key with memory of its own, for Wipe to wipe.
func (k *PrivateKey) Clone() *PrivateKey { return &PrivateKey{Set: k.Set, value: bytes.Clone(k.value)} }

// Wipe wipes the memory of the key, which is used no more.
func (k *PrivateKey) Wipe() { secret.Wipe(k.value) }

// Close forgets the memory of the key, which is used no more.
func (k *PrivateKey) Close() {
	if k.own {
		k.Wipe()
	}
	k.value = nil
}

// Sign signs m. The signature is hedged with what random gives, or deterministic if that
// is nil (FIPS 204 §3.4, FIPS 205 §9.2).
func (k *PrivateKey) Sign(m Message, random io.Reader) ([]byte, error) {
	var hedge [32]byte
	defer secret.Wipe(hedge[:])
	if random != nil {
		if _, err := io.ReadFull(random, hedge[:]); err != nil {
			return nil, err
		}
	}
	signature := make([]byte, k.SignatureSize)
	switch k.PrivateSize {
	case mldsa44.PrivateKeySize:
		var key mldsa44.PrivateKey
		defer func() { key = mldsa44.PrivateKey{} }()
		key.Unpack((*[mldsa44.PrivateKeySize]byte)(k.value))
		signInternal44(&key, m.write, hedge, signature)
	case mldsa65.PrivateKeySize:
		var key mldsa65.PrivateKey
		defer func() { key = mldsa65.PrivateKey{} }()
		key.Unpack((*[mldsa65.PrivateKeySize]byte)(k.value))
		signInternal65(&key, m.write, hedge, signature)
	case mldsa87.PrivateKeySize:
		var key mldsa87.PrivateKey
		defer func() { key = mldsa87.PrivateKey{} }()
		key.Unpack((*[mldsa87.PrivateKeySize]byte)(k.value))
		signInternal87(&key, m.write, hedge, signature)
	default:
		return k.signSLH(m, random != nil, hedge[:])
	}
	return signature, nil
}

// signSLH signs with a key of SLH-DSA, which is SK.seed, SK.prf, PK.seed and PK.root of n
// bytes each (FIPS 205 §9.1).
func (k *PrivateKey) signSLH(m Message, hedged bool, hedge []byte) ([]byte, error) {
	key := slhdsa.PrivateKey{ID: k.slh}
	if err := key.UnmarshalBinary(k.value); err != nil {
		return nil, err
	}
	whole := slices.Concat(m.prefix, m.data)
	defer secret.Wipe(whole)
	n := len(k.value) / 4
	if hedged {
		return signInternalSLH(&key, whole, hedge[:n])
	}
	return signInternalSLH(&key, whole, k.value[2*n:3*n])
}
