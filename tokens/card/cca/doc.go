// Package cca reads and writes the structures of IBM's CCA interface (Common Cryptographic
// Architecture): internal key tokens, key values and rule arrays, as programs on the host
// see them. What a token holds of a key is encrypted under a master key of a card, and is
// bytes here.
//
// A key token is what a card gives for a key and takes again. Three sorts are known: the
// 64 bytes of a DES or AES key (Symmetric), the variable-length token of an HMAC key
// (Variable), and the sections of an RSA or EC key (PKA). The sources are the CCA
// Application Programmer's Guide, appendix "Key token formats", and where openCryptoki 3.8
// and 3.27 look: they do not look at the same places, and Bytes serves both. All numbers
// are big-endian.
package cca

import "fmt"

// An Error is a return code other than 0 and its reason.
type Error struct {
	Return, Reason uint32
}

func (e Error) Error() string {
	return fmt.Sprintf("CCA return code %d, reason %d", e.Return, e.Reason)
}

// The errors of a card, in the CCA guide's appendix "Return codes and reason codes".
var (
	ErrSignature = Error{4, 429}  // a signature or a MAC does not fit
	ErrKeyword   = Error{8, 33}   // the rule array has none that fits, or one that does not
	ErrTag       = Error{8, 2947} // the tag of AES-GCM does not fit
	ErrToken     = Error{8, 48}   // a key token is damaged, or not one of this master key
	ErrData      = Error{8, 66}   // the data does not suit the key
	ErrBuffer    = Error{8, 72}   // an output or a length is too small
	ErrUsage     = Error{8, 90}   // the key is not for this use
	ErrValues    = Error{8, 874}  // the values of a key make none
	ErrNoKey     = Error{12, 764} // the master key is not there
	ErrNoCard    = Error{12, 338} // no card answers
)

// KeywordSize is the length of a keyword: of a rule array, of a key type or form.
const KeywordSize = 8

// maxRules bounds a rule array.
const maxRules = 32
