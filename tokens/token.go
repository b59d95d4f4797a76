// Package tokens says what a token is: the interface that every kind of token
// (swtok, lite, tpm, …) implements and that the engine uses, and the objects
// and the index that they share.
//
// A token keeps objects, checks PINs and does cryptography. It knows no
// applications, sessions or object rules: those are the engine's.
package tokens

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
)

// A Token is one token. All methods may be called by several goroutines at
// once. Errors carry a p11.RV (errors.As).
type Token interface {
	// Name is the name of the token directory, such as "swtok".
	Name() string
	// Kind is the kind of token, such as "swtok" or "tpm".
	Kind() string
	// Info returns the token's data as it stands now. The session counts are
	// the engine's to fill in.
	Info(ctx context.Context) (p11.TokenInfo, error)
	// Mechanisms returns the mechanism list in a fixed order; the caller does
	// not change it.
	Mechanisms() []p11.MechanismInfo
	// Refresh brings in what other processes changed since the last call. The
	// engine calls it before a search and before an object is used.
	Refresh(ctx context.Context) error
	// Close gives back everything; logins end.
	Close() error

	Admin
	Objects
	Crypto
}

// Admin is login and administration. The PINs stay the caller's to close.
type Admin interface {
	// InitToken is C_InitToken (PKCS#11 v3.1 §5.5.7): all objects go, the label
	// is set, pin becomes the SO PIN of a token that had none, and must be
	// the SO PIN otherwise. All Logins end.
	InitToken(ctx context.Context, pin *secret.Bytes, label string) error
	// Login checks the PIN, counts failures, and for CKU_USER makes the private
	// objects readable until the last Login for the user is closed.
	Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (Login, error)
	// InitPIN sets the user's PIN; so must be a valid Login of CKU_SO.
	InitPIN(ctx context.Context, so Login, pin *secret.Bytes) error
	// SetPIN changes the PIN of user from old to pin.
	SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error
}

// A Login is one successful login: a share in the token's opened master key.
type Login interface {
	// User says who logged in.
	User() p11.UserType
	// Valid returns nil while the login holds, and CKR_USER_NOT_LOGGED_IN once
	// the token was initialised anew or closed, or the role's PIN was locked.
	Valid() error
	// Close ends this login; the last one of CKU_USER drops and wipes the
	// private objects and the master key. It may be called again.
	Close() error
}

// Objects is the token's object store. Private objects are known only while a
// Login of CKU_USER is open.
type Objects interface {
	// Find returns the objects that match every attribute of template, in
	// the order in which they were made. private says whether private
	// objects are wanted besides the public ones.
	Find(ctx context.Context, template p11.Attributes, private bool) ([]*Object, error)
	// ByHandle returns the newest version of the object, or
	// CKR_OBJECT_HANDLE_INVALID. It is cheap and does no I/O.
	ByHandle(h p11.ObjectHandle) (*Object, error)
	// ByName returns the object with that stored name, likewise.
	ByName(name string) (*Object, error)
	// Counts returns how many public and private objects are known.
	Counts() (public, private int)
	// Create stores a new object durably. attrs is complete (defaults filled
	// in) and becomes the token's.
	Create(ctx context.Context, attrs p11.Attributes) (*Object, error)
	// Update stores a new version of an object durably. change is called
	// under the store's lock with the newest attributes and returns the
	// full new set, or an error that ends the update with nothing changed.
	// CKA_PRIVATE and CKA_TOKEN stay as they are.
	Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*Object, error)
	// Destroy removes the object durably. check is called under the store's
	// lock with the newest attributes and may refuse.
	Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error
}

// Crypto is what a token can do with keys. A mechanism that is absent gives
// CKR_MECHANISM_INVALID; bad parameters CKR_MECHANISM_PARAM_INVALID; a key of
// the wrong class or type CKR_KEY_TYPE_INCONSISTENT. Usage flags, login and
// allowed mechanisms have been checked by the engine. An operation holds its
// key (Object.Acquire) until Close.
//
// Final ends no operation. It gives the result of what Update has taken so far
// and leaves the operation as it was, also when it gives an error: Update may
// go on with the same message, and a later Final gives the result of all of it.
// An error of Update stays.
type Crypto interface {
	Digest(ctx context.Context, m p11.Mechanism) (Digest, error)
	Sign(ctx context.Context, m p11.Mechanism, key *Object) (Signature, error)
	Verify(ctx context.Context, m p11.Mechanism, key *Object) (Verification, error)
	SignRecover(ctx context.Context, m p11.Mechanism, key *Object, data []byte) ([]byte, error)
	VerifyRecover(ctx context.Context, m p11.Mechanism, key *Object, signature []byte) ([]byte, error)
	Encrypt(ctx context.Context, m p11.Mechanism, key *Object) (Cipher, error)
	Decrypt(ctx context.Context, m p11.Mechanism, key *Object) (Cipher, error)

	// GenerateKey returns template with the attributes that the mechanism
	// adds (CKA_VALUE, …); defaults are the engine's.
	GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error)
	// GenerateKeyPair does so for a public and a private key.
	GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error)
	// WrapKey returns key, wrapped under wrapping.
	WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *Object) ([]byte, error)
	// UnwrapKey returns template with the key attributes that wrapped holds.
	UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error)
	// DeriveKey returns template with the derived CKA_VALUE.
	DeriveKey(ctx context.Context, m p11.Mechanism, base *Object, template p11.Attributes) (p11.Attributes, error)

	// GenerateRandom fills b.
	GenerateRandom(ctx context.Context, b []byte) error
	// SeedRandom mixes seed in, or gives CKR_RANDOM_SEED_NOT_SUPPORTED.
	SeedRandom(ctx context.Context, seed []byte) error
}

// A Digest is a message digest in progress.
type Digest interface {
	Update(part []byte) error
	// DigestKey mixes in the value of a secret key (C_DigestKey).
	DigestKey(key *Object) error
	Final() ([]byte, error)
	// Size is the digest's length in bytes.
	Size() int
	Close()
}

// A Signature is a signature or MAC in progress.
type Signature interface {
	Update(part []byte) error
	Final() ([]byte, error)
	// Size is the longest signature in bytes.
	Size() int
	Close()
}

// A Verification is the check of a signature or MAC in progress.
type Verification interface {
	Update(part []byte) error
	// Final gives CKR_SIGNATURE_INVALID or CKR_SIGNATURE_LEN_RANGE for a
	// signature that does not fit the data.
	Final(signature []byte) error
	// Size is the length in bytes of a signature.
	Size() int
	Close()
}

// A Cipher encrypts or decrypts a message in parts. What Update and Final return
// is the caller's; what Final returns is no part of what a later Update does. An
// authenticated decryption returns nothing before Final has checked the tag
// (PKCS#11 v3.1 §5.10). Two tags of one authenticated encryption tell its
// authentication key: whoever calls Final twice lets out one of them.
type Cipher interface {
	Update(part []byte) ([]byte, error)
	Final() ([]byte, error)
	Close()
}
