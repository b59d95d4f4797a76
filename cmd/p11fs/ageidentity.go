package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
	"filippo.io/age/tag"
	"golang.org/x/crypto/chacha20poly1305"

	"p11fs/secret"
)

// sharedSize is how long the secret is that two keys of X25519 or P-256 agree on, and
// wrappedSize what encrypts age's key of a file, of 16 bytes.
const sharedSize, wrappedSize = 32, 16 + chacha20poly1305.Overhead

// An ageIdentity opens the keys of age's files with a private key of a token: the token does
// the Diffie-Hellman, and what it agrees on is here for this one file, as is the file's key
// after it.
type ageIdentity struct {
	ageKey
	getenv func(string) string

	at  tree
	key string // below it, once it is found
}

var (
	_ age.Identity      = (*ageIdentity)(nil)
	_ ecdh.KeyExchanger = (*ageIdentity)(nil)
)

// Unwrap opens the first stanza that is for the key.
func (i *ageIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		var open func(s *age.Stanza) ([]byte, error)
		switch {
		case s.Type == "X25519" && i.public.Curve() == ecdh.X25519():
			open = i.openX25519
		case s.Type == "p256tag" && i.public.Curve() == ecdh.P256():
			open = i.openTagged
		default:
			continue
		}
		if key, err := open(s); !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// openX25519 opens a stanza of age's own recipients (age-encryption.org/v1, The X25519
// recipient type).
func (i *ageIdentity) openX25519(s *age.Stanza) ([]byte, error) {
	if len(s.Args) != 1 || len(s.Body) != wrappedSize {
		return nil, errors.New("the file has an X25519 stanza of another form: it is damaged")
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(s.Args[0])
	if err != nil {
		return nil, fmt.Errorf("the file has an X25519 stanza of another form: %w", err)
	}
	peer, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, err
	}
	shared, err := i.ECDH(peer)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(shared)
	wrap, err := hkdf.Key(sha256.New, shared, slices.Concat(raw, i.public.Bytes()), "age-encryption.org/v1/X25519", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(wrap)
	aead, err := chacha20poly1305.New(wrap)
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, make([]byte, chacha20poly1305.NonceSize), s.Body, nil)
	if err != nil {
		return nil, age.ErrIncorrectIdentity // it is for another key
	}
	return key, nil
}

// openTagged opens a stanza of a recipient on P-256 (C2SP age-tag): HPKE, with a tag that
// says for whom it is.
func (i *ageIdentity) openTagged(s *age.Stanza) ([]byte, error) {
	if len(s.Args) != 2 || len(s.Body) != wrappedSize {
		return nil, errors.New("the file has a p256tag stanza of another form: it is damaged")
	}
	given, err := base64.RawStdEncoding.Strict().DecodeString(s.Args[0])
	if err != nil {
		return nil, fmt.Errorf("the file has a p256tag stanza of another form: %w", err)
	}
	enc, err := base64.RawStdEncoding.Strict().DecodeString(s.Args[1])
	if err != nil {
		return nil, fmt.Errorf("the file has a p256tag stanza of another form: %w", err)
	}
	r, err := tag.NewClassicRecipient(i.compressed())
	if err != nil {
		return nil, err
	}
	if want, err := r.Tag(enc); err != nil || !bytes.Equal(want, given) {
		return nil, age.ErrIncorrectIdentity
	}
	private, err := hpke.NewDHKEMPrivateKey(i)
	if err != nil {
		return nil, err
	}
	recipient, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("age-encryption.org/p256tag"))
	if err != nil {
		return nil, err
	}
	key, err := recipient.Open(nil, s.Body)
	if err != nil {
		return nil, age.ErrIncorrectIdentity // the tag has four bytes
	}
	return key, nil
}

// PublicKey and Curve are those of the key.
func (i *ageIdentity) PublicKey() *ecdh.PublicKey { return i.public }
func (i *ageIdentity) Curve() ecdh.Curve          { return i.public.Curve() }

// ECDH has the token agree on a secret, which the caller wipes. It is an object of the
// session for as long as it takes to read it.
func (i *ageIdentity) ECDH(peer *ecdh.PublicKey) (shared []byte, err error) {
	if i.key == "" {
		if i.at, i.key, err = i.find(i.getenv); err != nil {
			return nil, err
		}
	}
	der, err := x509.MarshalPKIXPublicKey(peer)
	if err != nil {
		return nil, err
	}
	what := "agree with " + i.at.called(i.key)
	file, err := makerFile(i.key, "derive", "ecdh1-derive", []string{"token=false", "private=true", "sensitive=false", "extractable=true", "key-type=generic-secret", fmt.Sprintf("value-len=%d", sharedSize)})
	if err != nil {
		return nil, err
	}
	name, err := i.at.exchange(what, "", file, os.O_RDWR|os.O_CREATE, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		return nil, err
	}
	object := filepath.Join(i.at.dir, "objects", string(bytes.TrimSpace([]byte(name))))
	defer func() { err = errors.Join(err, os.Remove(object)) }()
	return readAll(filepath.Join(object, "value"))
}

// uncompressed reads a point of P-256 in its short form.
func uncompressed(point []byte) (*ecdh.PublicKey, error) {
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point)
	if x == nil {
		return nil, errors.New("the identity has no point of P-256: make it anew with p11fs age-recipient --identity")
	}
	b := make([]byte, 65)
	b[0] = 4
	x.FillBytes(b[1:33])
	y.FillBytes(b[33:])
	return ecdh.P256().NewPublicKey(b)
}
