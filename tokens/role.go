package tokens

import (
	"strings"
	"unicode/utf8"

	"p11fs/p11"
	"p11fs/secret"
)

// The PINs that the roles may not take for their own. The SO's is also what opens a
// token that was never initialised.
const (
	DefaultSOPIN   = "87654321"
	DefaultUserPIN = "12345678"
)

// A Role is the SO or the user: what a token's flags say of the role's PIN. Three
// wrong PINs in a row lock it, as in openCryptoki.
type Role struct {
	User       p11.UserType
	Title      string // for messages
	DefaultPIN string

	CountLow, FinalTry, Locked, ToBeChanged p11.Flags
}

// RoleOf returns the role of user, or CKR_USER_TYPE_INVALID.
func RoleOf(user p11.UserType) (Role, error) {
	switch user {
	case p11.CKU_SO:
		return Role{user, "SO", DefaultSOPIN,
			p11.CKF_SO_PIN_COUNT_LOW, p11.CKF_SO_PIN_FINAL_TRY, p11.CKF_SO_PIN_LOCKED, p11.CKF_SO_PIN_TO_BE_CHANGED}, nil
	case p11.CKU_USER:
		return Role{user, "user", DefaultUserPIN,
			p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED, p11.CKF_USER_PIN_TO_BE_CHANGED}, nil
	}
	return Role{}, p11.Errorf(p11.CKR_USER_TYPE_INVALID, "the token knows the SO and the user, not user type %d", uint64(user))
}

// Counts are the flags that count wrong PINs, and say that too many were given. A
// right PIN clears them.
func (r Role) Counts() p11.Flags { return r.CountLow | r.FinalTry | r.Locked }

// unlocking is what to do about a locked PIN of the role.
func (r Role) unlocking() string {
	if r.User == p11.CKU_SO {
		return "nothing unlocks the PIN of the SO; log in as the user to save what is in the token, and make a new token"
	}
	return "the SO sets a new one: write so:SO-PIN to the file login, then init-pin PIN to ctl"
}

// MayTry returns why no PIN of the role is looked at: it has none, or is locked.
func (r Role) MayTry(flags p11.Flags, hasPIN bool) error {
	switch {
	case !hasPIN:
		return p11.Errorf(p11.CKR_USER_PIN_NOT_INITIALIZED, "the %s has no PIN yet: the SO sets the first one", r.Title)
	case flags&r.Locked != 0:
		return p11.Advise(p11.Errorf(p11.CKR_PIN_LOCKED, "the %s PIN is locked after three wrong tries", r.Title), r.unlocking())
	}
	return nil
}

// Wrong returns a token's flags after one more wrong PIN, and the error that says
// so.
func (r Role) Wrong(flags p11.Flags) (p11.Flags, error) {
	next, left := r.CountLow, "2 tries are left"
	switch {
	case flags&r.FinalTry != 0:
		return flags&^r.Counts() | r.Locked, p11.Advise(p11.Errorf(p11.CKR_PIN_INCORRECT, "wrong %s PIN, which is locked now", r.Title), r.unlocking())
	case flags&r.CountLow != 0:
		next, left = r.FinalTry, "1 try is left"
	}
	return flags&^r.Counts() | next, p11.Errorf(p11.CKR_PIN_INCORRECT, "wrong %s PIN: %s", r.Title, left)
}

// CheckNewPIN refuses a PIN of another length than shortest to longest, and one that
// the role may not take in place of old, which is nil if the SO sets the user's.
func (r Role) CheckNewPIN(pin, old *secret.Bytes, shortest, longest int) error {
	n, isDefault := pin.Len(), false
	pin.Use(func(b []byte) { isDefault = string(b) == r.DefaultPIN })
	switch {
	case n < shortest || n > longest:
		return p11.Errorf(p11.CKR_PIN_LEN_RANGE, "the PINs of this token have %d to %d bytes, not %d", shortest, longest, n)
	case old != nil && pin.Equal(old):
		return p11.Errorf(p11.CKR_PIN_INVALID, "the new PIN is the old one")
	case old != nil && isDefault:
		return p11.Errorf(p11.CKR_PIN_INVALID, "the new PIN is the default one of the %s, which is not allowed", r.Title)
	}
	return nil
}

// CheckLabel returns why a token cannot have that label (PKCS#11 v3.1 §5.5.7,
// C_InitToken).
func CheckLabel(label string) error {
	switch {
	case len(label) > 32:
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a token label has at most 32 bytes, not %d", len(label))
	case !utf8.ValidString(label):
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token label is not UTF-8")
	case strings.ContainsRune(label, 0):
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token label holds a NUL byte")
	}
	return nil
}
