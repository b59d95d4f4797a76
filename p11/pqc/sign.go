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
// at once.
type PublicKey struct {
	Set
	key any
}

// NewPublicKey reads a public key of PublicSize bytes.
func (s Set) NewPublicKey(value []byte) (*PublicKey, error) {
	var key any
	var err error
	switch {
	case len(value) != s.PublicSize:
		return nil, s.wrongSize("public key", len(value), s.PublicSize)
	case s.kem != nil:
		key, err = s.kem.UnmarshalBinaryPublicKey(value)
	default:
		key, err = s.sign.UnmarshalBinaryPublicKey(value)
	}
	return &PublicKey{s, key}, err
}

// Verify says whether signature is one of m.
func (k *PublicKey) Verify(m Message, signature []byte) bool {
	if len(signature) != k.SignatureSize {
		return false
	}
	switch key := k.key.(type) {
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

// A PrivateKey signs or decapsulates. It may be used by several goroutines at once.
type PrivateKey struct {
	Set
	key  any
	seed []byte // PK.seed of an SLH-DSA key
}

// NewPrivateKey reads a private key of PrivateSize bytes, which Check has found good or
// Generate made.
func (s Set) NewPrivateKey(value []byte) (*PrivateKey, error) {
	k := &PrivateKey{Set: s}
	var err error
	switch {
	case len(value) != s.PrivateSize:
		return nil, s.wrongSize("private key", len(value), s.PrivateSize)
	case s.kem != nil:
		k.key, err = s.kem.UnmarshalBinaryPrivateKey(value)
	default:
		k.key, err = s.sign.UnmarshalBinaryPrivateKey(value)
	}
	if n := s.PrivateSize / 4; s.Slow() {
		k.seed = bytes.Clone(value[2*n : 3*n]) // FIPS 205 §9.1: SK.seed, SK.prf, PK.seed, PK.root
	}
	return k, err
}

// Type is the type of the key.
func (k *PublicKey) Type() p11.KeyType { return k.KeyType }

// Type is the type of the key.
func (k *PrivateKey) Type() p11.KeyType { return k.KeyType }

// Clone returns a key of a set that is slow, which is good also when k is closed.
func (k *PrivateKey) Clone() *PrivateKey {
	own := *k
	return &own
}

// Close wipes what can be reached of the key. It is used no more.
func (k *PrivateKey) Close() {
	switch key := k.key.(type) {
	case *mldsa44.PrivateKey:
		*key = mldsa44.PrivateKey{}
	case *mldsa65.PrivateKey:
		*key = mldsa65.PrivateKey{}
	case *mldsa87.PrivateKey:
		*key = mldsa87.PrivateKey{}
	}
	k.key = nil
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
	switch key := k.key.(type) {
	case *mldsa44.PrivateKey:
		signInternal44(key, m.write, hedge, signature)
	case *mldsa65.PrivateKey:
		signInternal65(key, m.write, hedge, signature)
	case *mldsa87.PrivateKey:
		signInternal87(key, m.write, hedge, signature)
	case slhdsa.PrivateKey:
		whole := slices.Concat(m.prefix, m.data)
		defer secret.Wipe(whole)
		if random == nil {
			return signInternalSLH(&key, whole, k.seed)
		}
		return signInternalSLH(&key, whole, hedge[:len(k.seed)])
	default:
		panic("pqc: no key that signs")
	}
	return signature, nil
}
