package store

import "p11fs/p11"

// A Kind is what a kind of token fixes about its directory.
type Kind struct {
	// Name is the built-in name of the token directory.
	Name string
	// Label and Model are those of a token that was never initialised.
	Label, Model string
	// MasterKeyLen is the length of the master key as it is stored; the first
	// dataKeyLen bytes of it are the key, the rest is zero.
	MasterKeyLen int
	// OddParity says that a new master key gets odd parity in every byte.
	OddParity bool
	// PINIV and ObjectIV are the fixed CBC initialisation vectors of master key
	// files and of private objects.
	PINIV, ObjectIV string
}

// dataKeyLen is the length of the 3DES keys that everything is encrypted with.
const dataKeyLen = 24

// The PINs that a role may not be changed to; the SO's is also what opens a
// token that was never initialised.
const (
	defaultSOPIN   = "87654321"
	defaultUserPIN = "12345678"
)

// KindOf returns the facts of the kinds that keep a master key in MK_SO and
// MK_USER: swtok, lite, ep11tok and ccatok.
func KindOf(name string) (Kind, bool) {
	k := Kind{Name: name, MasterKeyLen: dataKeyLen, PINIV: "12345678", ObjectIV: "10293847"}
	switch name {
	case "swtok":
		k.Label, k.Model = "IBM OS PKCS#11", "IBM SoftTok"
	case "lite":
		k.Label, k.Model, k.OddParity = "IBM ICA  PKCS #11", "IBM ICA", true
	case "ep11tok":
		k.Label, k.Model = "IBM OS PKCS#11", "IBM EP11Tok"
	case "ccatok":
		k.Label, k.Model, k.MasterKeyLen = "IBM PKCS#11 for CCA", "IBM CCA Token", 64
	default:
		return Kind{}, false
	}
	return k, true
}

// A part is one of the two roles' share of the token's files and flags.
type part struct {
	user       p11.UserType
	title      string // for messages
	keyFile    string
	defaultPIN string
	hash       int // offset of the PIN's hash in NVTOK.DAT
	countLow   p11.Flags
	finalTry   p11.Flags
	locked     p11.Flags
	toChange   p11.Flags
}

// partOf returns the share of user, or CKR_USER_TYPE_INVALID.
func partOf(user p11.UserType) (part, error) {
	switch user {
	case p11.CKU_SO:
		return part{
			user: user, title: "SO", keyFile: soKeyFile, defaultPIN: defaultSOPIN, hash: offSOHash,
			countLow: p11.CKF_SO_PIN_COUNT_LOW, finalTry: p11.CKF_SO_PIN_FINAL_TRY,
			locked: p11.CKF_SO_PIN_LOCKED, toChange: p11.CKF_SO_PIN_TO_BE_CHANGED,
		}, nil
	case p11.CKU_USER:
		return part{
			user: user, title: "user", keyFile: userKeyFile, defaultPIN: defaultUserPIN, hash: offUserHash,
			countLow: p11.CKF_USER_PIN_COUNT_LOW, finalTry: p11.CKF_USER_PIN_FINAL_TRY,
			locked: p11.CKF_USER_PIN_LOCKED, toChange: p11.CKF_USER_PIN_TO_BE_CHANGED,
		}, nil
	}
	return part{}, p11.Errorf(p11.CKR_USER_TYPE_INVALID, "the token knows the SO and the user, not user type %d", uint64(user))
}
