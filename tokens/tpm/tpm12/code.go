package tpm12

import (
	"fmt"

	"p11fs/p11"
)

// A Code is TPM_RESULT, why a TPM does not do a command (Part 2 §16). It is the CK_RV that
// it means for an operation with a key; at a login CodeAuth is a wrong PIN.
type Code uint32

// The codes that a store has an answer to.
const (
	CodeAuth      Code = 1     // a wrong secret
	CodeAuth2     Code = 29    // likewise, of what is changed
	CodeNoSpace   Code = 17    // too many keys are loaded
	CodeNoSlot    Code = 21    // likewise, or too much else
	CodeDecrypt   Code = 33    // what the key does not open
	CodeDefending Code = 0x803 // after wrong secrets: no PIN is taken for a while, the right one neither
	codeRetry     Code = 0x800
	codeKeyHandle Code = 12 // no key is loaded there
	codePostInit  Code = 38 // TPM_Startup comes first
	codeInactive  Code = 6
	codeDisabled  Code = 7
)

// names are words for codes.
func (c Code) words() string {
	switch c {
	case CodeAuth, CodeAuth2:
		return "wrong secret"
	case CodeNoSpace, CodeNoSlot:
		return "too many keys are loaded"
	case CodeDecrypt:
		return "the key does not open that"
	case CodeDefending:
		return "after wrong secrets the TPM takes none for a while"
	case codeRetry:
		return "busy"
	case codeInactive, codeDisabled:
		return "switched off"
	}
	return "refused"
}

func (c Code) Error() string { return fmt.Sprintf("the TPM: %s (code %#x)", c.words(), uint32(c)) }

// Unwrap is the CK_RV.
func (c Code) Unwrap() error {
	switch c {
	case CodeDefending:
		return p11.CKR_PIN_LOCKED
	case CodeDecrypt:
		return p11.CKR_ENCRYPTED_DATA_INVALID
	case CodeNoSpace, CodeNoSlot:
		return p11.CKR_DEVICE_MEMORY
	case codeInactive, codeDisabled:
		return p11.CKR_DEVICE_ERROR
	}
	return p11.CKR_FUNCTION_FAILED
}
