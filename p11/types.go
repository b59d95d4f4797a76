// Package p11 is the vocabulary of PKCS#11: its integer types and constants,
// their names, CK_RV as a Go error, attributes, and mechanism parameters.
//
// It decides nothing and does no I/O. Names keep the standard's spelling
// (CKM_SHA256_RSA_PKCS) so that what is read in the mount can be searched for
// in the code and in the standard; each has a short spelling
// (sha256-rsa-pkcs) used in the file tree.
package p11

// The PKCS#11 integer types whose values have no names in table.txt (PKCS#11 v3.1
// §3). CK_ULONG is 64 bits wide here whatever the machine: the formats and
// protocols around it say how it is stored.
type (
	// Flags is CK_FLAGS; its meaning depends on the structure it stands in.
	Flags uint64
	// SlotID is CK_SLOT_ID.
	SlotID uint64
	// SessionHandle is CK_SESSION_HANDLE; 0 is never a session.
	SessionHandle uint64
	// ObjectHandle is CK_OBJECT_HANDLE; 0 is never an object.
	ObjectHandle uint64
)

// Version is CK_VERSION.
type Version struct{ Major, Minor uint8 }

// SlotInfo is CK_SLOT_INFO (PKCS#11 v3.1 §3.2), with text not padded.
type SlotInfo struct {
	Description     string // at most 64 bytes
	Manufacturer    string // at most 32 bytes
	Flags           Flags  // CKF_TOKEN_PRESENT …
	HardwareVersion Version
	FirmwareVersion Version
}

// PINState is what a token's flags tell of the PIN of its user, or of its SO: how many tries
// are left, which is many, some, 1 or 0, and whether it is set, unset or to-be-changed
// (PKCS#11 v3.1 §3.2, CK_TOKEN_INFO).
func (f Flags) PINState(user UserType) (tries, state string) {
	set, low, final, locked, change := Flags(CKF_USER_PIN_INITIALIZED), Flags(CKF_USER_PIN_COUNT_LOW), Flags(CKF_USER_PIN_FINAL_TRY), Flags(CKF_USER_PIN_LOCKED), Flags(CKF_USER_PIN_TO_BE_CHANGED)
	if user == CKU_SO { // who has one always
		set, low, final, locked, change = f, CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_FINAL_TRY, CKF_SO_PIN_LOCKED, CKF_SO_PIN_TO_BE_CHANGED
	}
	tries, state = "many", "set"
	switch {
	case f&locked != 0:
		tries = "0"
	case f&final != 0:
		tries = "1"
	case f&low != 0:
		tries = "some"
	}
	switch {
	case f&set != set:
		state = "unset"
	case f&change != 0:
		state = "to-be-changed"
	}
	return tries, state
}

// TokenInfo is CK_TOKEN_INFO (PKCS#11 v3.1 §3.2), with text not padded.
// A count or size of Unavailable or EffectivelyInfinite is as the standard
// says.
type TokenInfo struct {
	Label           string // at most 32 bytes
	Manufacturer    string // at most 32 bytes
	Model           string // at most 16 bytes
	Serial          string // at most 16 bytes
	Flags           Flags  // CKF_LOGIN_REQUIRED …
	MaxSessions     uint64
	Sessions        uint64
	MaxRWSessions   uint64
	RWSessions      uint64
	MaxPINLen       uint64 // bytes
	MinPINLen       uint64 // bytes
	TotalPublicMem  uint64 // bytes
	FreePublicMem   uint64 // bytes
	TotalPrivateMem uint64 // bytes
	FreePrivateMem  uint64 // bytes
	HardwareVersion Version
	FirmwareVersion Version
	UTCTime         string // 16 characters, or empty without CKF_CLOCK_ON_TOKEN
}

// SessionInfo is CK_SESSION_INFO (PKCS#11 v3.1 §3.3).
type SessionInfo struct {
	SlotID      SlotID
	State       State
	Flags       Flags // CKF_RW_SESSION | CKF_SERIAL_SESSION
	DeviceError uint64
}

// MechanismInfo is one entry of a token's mechanism list with its
// CK_MECHANISM_INFO (PKCS#11 v3.1 §3.6). The unit of the key sizes, bits or
// bytes, depends on the mechanism.
type MechanismInfo struct {
	Type       MechanismType
	MinKeySize uint64
	MaxKeySize uint64
	Flags      Flags // CKF_SIGN …
}

// Unavailable is CK_UNAVAILABLE_INFORMATION as a 64-bit CK_ULONG.
const Unavailable = ^uint64(0)
