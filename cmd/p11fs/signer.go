package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"p11fs/p11/pkix"
)

// A signer signs with a private key of the tree, as crypto.MessageSigner: the daemon hashes,
// and so the message is what it is given.
type signer struct {
	at     tree   // the folder of the token
	key    string // below it
	name   string // for errors, and for who reads lists of keys
	public crypto.PublicKey
}

// newSigner reads the public half of a private key: RSA, EC on one of NIST's curves, or
// Ed25519. There is an error for any other, and for one that does not sign.
func newSigner(at tree, key string) (*signer, error) {
	s := &signer{at: at, key: key, name: at.called(key)}
	text, err := at.read(key, "public.pem")
	if err != nil {
		return nil, at.refused(s.name, "", err)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("%s: its public key is no PEM", s.name)
	}
	if s.public, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, fmt.Errorf("%s is no RSA, EC or Ed25519 key, so take another: %w", s.name, err)
	}
	switch s.public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return s, nil
	}
	return nil, fmt.Errorf("%s is no RSA, EC or Ed25519 key: take another", s.name)
}

// Public is the public half.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign signs what is not hashed: that of Ed25519.
func (s *signer) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts != nil && opts.HashFunc() != 0 {
		return nil, errors.New("a key of the tree hashes by itself: give it the message")
	}
	return s.SignMessage(random, message, opts)
}

// SignMessage signs a message: with RSA by PKCS #1 v1.5, with EC in DER.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := crypto.Hash(0)
	if opts != nil {
		hash = opts.HashFunc()
	}
	mechanism := "eddsa"
	word, known := hashWords()[hash]
	switch s.public.(type) {
	case *rsa.PublicKey:
		mechanism = word + "-rsa-pkcs"
	case *ecdsa.PublicKey:
		mechanism = "ecdsa-" + word
	default:
		known = true
	}
	if !known {
		return nil, fmt.Errorf("%s does not sign with the hash %v: take SHA-256", s.name, hash)
	}
	var out bytes.Buffer
	file := filepath.Join(s.key, "sign:"+mechanism)
	if err := through(s.at, "sign with "+s.name, "sign", file, bytes.NewReader(message), &out); err != nil {
		return nil, err
	}
	if _, ec := s.public.(*ecdsa.PublicKey); ec {
		return pkix.ECDSARawToDER(out.Bytes())
	}
	return out.Bytes(), nil
}

// hashWords are hashes in the names of mechanisms.
func hashWords() map[crypto.Hash]string {
	return map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}
}
