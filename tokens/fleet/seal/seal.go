package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"p11fs/p11"
	"p11fs/secret"
)

// ErrDamaged is in the error of a value that the fleet has not sealed for this place.
var ErrDamaged = errors.New("the fleet has not sealed it for this place")

// MaxPlain is the longest value that is sealed. etcd takes requests of 1.5 MiB.
const MaxPlain = 1 << 20

const (
	form     = 1
	header   = 1 + 8 + saltSize
	saltSize = sha256.Size
	keySize  = 32
	tagSize  = 16

	nonceSize = 12
	infoValue = "p11fs fleet value 1"
	infoTag   = "p11fs fleet tag 1"
)

// A Place is what a value is bound to.
type Place struct {
	Name    string   // of the etcd key, all of it
	Token   [16]byte // the token's id; zero for what has none
	Version uint64
}

// bytes is p in one way only.
func (p Place) bytes() []byte {
	b := append([]byte{form}, p.Token[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Version)
	return append(b, p.Name...)
}

// Seal seals a value for a place.
func (k *Key) Seal(p Place, plain []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "%d bytes are too many for one value of a fleet, which has at most %d", len(plain), MaxPlain),
			"keep so large an object in a token with a directory, or in parts")
	}
	b := make([]byte, header, header+len(plain)+tagSize)
	b[0] = form
	binary.BigEndian.PutUint64(b[1:], p.Version)
	salt := b[header-saltSize:]
	_, _ = rand.Read(salt) // never fails
	aead, nonce, err := k.value(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, nonce, plain, p.bytes()), nil
}

// Open returns what was sealed for a name and a token, and in which version. The plain value is
// the caller's to wipe.
func (k *Key) Open(name string, token [16]byte, sealed []byte) (plain []byte, version uint64, err error) {
	version, ok := Version(sealed)
	if !ok {
		return nil, 0, damaged(name)
	}
	aead, nonce, err := k.value(sealed[header-saltSize : header])
	if err != nil {
		return nil, 0, err
	}
	plain, err = aead.Open(nil, nonce, sealed[header:], Place{name, token, version}.bytes())
	if err != nil {
		return nil, 0, damaged(name)
	}
	return plain, version, nil
}

func damaged(name string) error {
	return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the value of %q in etcd cannot be used: %w", name, ErrDamaged),
		"see that this machine has the fleet's key (sealkey of its configuration); where it has, somebody else has written etcd")
}

// Version is the version that a sealed value says it has, which only Open makes sure of.
func Version(sealed []byte) (uint64, bool) {
	if len(sealed) < header+tagSize || len(sealed) > header+MaxPlain+tagSize || sealed[0] != form {
		return 0, false
	}
	return binary.BigEndian.Uint64(sealed[1:]), true
}

// Tag stands for a sealed value at its place. Without the key nobody can find out tags, or
// values whose tags have a given sum.
func (k *Key) Tag(p Place, sealed []byte) (tag [32]byte) {
	digest := sha256.Sum256(sealed)
	k.tags.Use(func(b []byte) {
		m := hmac.New(sha256.New, b)
		m.Write(digest[:])
		m.Write(p.bytes())
		m.Sum(tag[:0])
	})
	return tag
}

// value is the cipher of the one value with that salt.
func (k *Key) value(salt []byte) (aead cipher.AEAD, nonce []byte, err error) {
	k.root.Use(func(root []byte) {
		if len(root) != keySize {
			err = p11.Errorf(p11.CKR_DEVICE_REMOVED, "the fleet's key is closed")
			return
		}
		var made []byte
		if made, err = hkdf.Key(sha256.New, root, salt, infoValue, keySize+nonceSize); err != nil {
			return
		}
		defer secret.Wipe(made[:keySize])
		nonce = made[keySize:]
		var block cipher.Block
		if block, err = aes.NewCipher(made[:keySize]); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	return aead, nonce, nil
}
