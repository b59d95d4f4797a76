package tpm12

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"p11fs/p11"
	"p11fs/secret"
)

// An Auth is the secret of a key, TPM_AUTHDATA.
type Auth [sha1.Size]byte

// String does not tell the secret.
func (Auth) String() string { return "(secret)" }

// GoString does not tell the secret.
func (a Auth) GoString() string { return a.String() }

// PINAuth is the secret of the leaf key under a PIN.
func PINAuth(pin *secret.Bytes) (a Auth) {
	pin.Use(func(b []byte) { a = sha1.Sum(b) })
	return a
}

// SRKAuth is the secret of the storage root key by the variables OCK_SRK_MODE and
// OCK_SRK_SECRET of stock's environment, as look has them (os.LookupEnv). Stock compares
// the mode over the length of what is given.
func SRKAuth(look func(string) (string, bool)) (a Auth, err error) {
	mode, hasMode := look("OCK_SRK_MODE")
	text, hasText := look("OCK_SRK_SECRET")
	is := func(whole string) bool { return mode != "" && strings.HasPrefix(whole, mode) }
	switch {
	case !hasMode && !hasText:
		return sha1.Sum(nil), nil
	case !hasMode || !hasText:
		return a, errors.New("of OCK_SRK_MODE and OCK_SRK_SECRET one is set alone: set both, or none")
	case is("TSS_SECRET_MODE_PLAIN"):
		return sha1.Sum([]byte(text)), nil
	case is("TSS_SECRET_MODE_SHA1"):
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != len(a) {
			return a, errors.New("OCK_SRK_SECRET is not 40 hexadecimal digits")
		}
		return Auth(b), nil
	}
	return a, errors.New("the mode in OCK_SRK_MODE gives no secret")
}

// The files of a user's directory with the root keys, and the data that is bound to the
// private leaf key.
const (
	PublicRootFile  = "PUBLIC_ROOT_KEY.pem"  // under the SO's PIN
	PrivateRootFile = "PRIVATE_ROOT_KEY.pem" // under the user's PIN
	MasterKeyFile   = "MK_PRIVATE"
)

const pemType = "RSA PRIVATE KEY"

// MaxRootFile bounds the file of a root key; stock's have 1766 bytes.
const MaxRootFile = 8 << 10

// ParseRoot reads the file of a root key under a PIN. With a wrong PIN it fails with
// CKR_PIN_INCORRECT, as it does with a file that was changed: the form tells no more.
func ParseRoot(file []byte, pin *secret.Bytes) (*rsa.PrivateKey, error) {
	if len(file) > MaxRootFile {
		return nil, fmt.Errorf("a root key of %d bytes; it has at most %d", len(file), MaxRootFile)
	}
	block, _ := pem.Decode(file)
	if block == nil || block.Type != pemType || block.Headers["DEK-Info"] == "" {
		return nil, errors.New("a root key that is no encrypted RSA key in PEM")
	}
	wrong := p11.Errorf(p11.CKR_PIN_INCORRECT, "the PIN does not open the root key")
	var der []byte
	var err error
	pin.Use(func(b []byte) {
		der, err = x509.DecryptPEMBlock(block, b) //nolint:staticcheck // the form is stock's, which has no other
	})
	if err != nil {
		return nil, wrong
	}
	defer secret.Wipe(der)
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil || len(key.Primes) != 2 {
		return nil, wrong
	}
	return key, nil
}

// PrintRoot is the file of a root key under a PIN.
func PrintRoot(key *rsa.PrivateKey, pin *secret.Bytes) ([]byte, error) {
	der := x509.MarshalPKCS1PrivateKey(key)
	defer secret.Wipe(der)
	var block *pem.Block
	var err error
	pin.Use(func(b []byte) {
		block, err = x509.EncryptPEMBlock(rand.Reader, pemType, der, b, x509.PEMCipherAES256) //nolint:staticcheck // as above
	})
	if err != nil {
		return nil, fmt.Errorf("a root key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// RootKey is the storage key of a root, for a TPM whose storage root key srk is: the
// numbers are in the PEM file, and so another TPM can have it.
func RootKey(key *rsa.PrivateKey, srk *rsa.PublicKey) (Key, error) {
	k := NewKey(Storage, key.N.BitLen(), false)
	k.Modulus = key.N.Bytes()
	prime := key.Primes[0].Bytes()
	defer secret.Wipe(prime)
	return k.Wrap(srk, Secret{Prime: prime})
}
