// Package p11 is the vocabulary of PKCS#11: its integer types and constants,
// their names, CK_RV as a Go error, attributes, and mechanism parameters.
//
// It decides nothing and does no I/O. Names keep the standard's spelling
// (CKM_SHA256_RSA_PKCS) so that what is read in the mount can be searched for
// in the code and in the standard; each has a short spelling
// (sha256-rsa-pkcs) used in the file tree.
package p11

// The PKCS#11 integer types (PKCS#11 v3.1 §3). CK_ULONG is 64 bits wide here
// whatever the machine: the formats and protocols around it say how it is
// stored.
type (
	// MechanismType is CK_MECHANISM_TYPE.
	MechanismType uint64
	// AttributeType is CK_ATTRIBUTE_TYPE.
	AttributeType uint64
	// ObjectClass is CK_OBJECT_CLASS.
	ObjectClass uint64
	// KeyType is CK_KEY_TYPE.
	KeyType uint64
	// CertificateType is CK_CERTIFICATE_TYPE.
	CertificateType uint64
	// HardwareFeatureType is CK_HW_FEATURE_TYPE.
	HardwareFeatureType uint64
	// UserType is CK_USER_TYPE: who logs in.
	UserType uint64
	// State is CK_STATE: the state of a session.
	State uint64
	// Flags is CK_FLAGS; its meaning depends on the structure it stands in.
	Flags uint64
	// MGF is CK_RSA_PKCS_MGF_TYPE.
	MGF uint64
	// KDF is CK_EC_KDF_TYPE.
	KDF uint64
	// SlotID is CK_SLOT_ID.
	SlotID uint64
	// SessionHandle is CK_SESSION_HANDLE; 0 is never a session.
	SessionHandle uint64
	// ObjectHandle is CK_OBJECT_HANDLE; 0 is never an object.
	ObjectHandle uint64
)

// Values of attributes and of mechanism parameters, all CK_ULONG.
type (
	// CertificateCategory is CK_CERTIFICATE_CATEGORY.
	CertificateCategory uint64
	// SecurityDomain is CK_JAVA_MIDP_SECURITY_DOMAIN.
	SecurityDomain uint64
	// ProfileID is CK_PROFILE_ID.
	ProfileID uint64
	// Trust is CK_TRUST (PKCS#11 v3.2).
	Trust uint64
	// ValidationType is CK_VALIDATION_TYPE (PKCS#11 v3.2).
	ValidationType uint64
	// ValidationAuthority is CK_VALIDATION_AUTHORITY_TYPE (PKCS#11 v3.2).
	ValidationAuthority uint64
	// ValidationFlags says how a session's last operation was validated
	// (PKCS#11 v3.2).
	ValidationFlags uint64
	// OTPFormat is the form of a one-time password.
	OTPFormat uint64
	// OTPRequirement says whether a one-time password takes a parameter.
	OTPRequirement uint64
	// OTPParam is CK_OTP_PARAM_TYPE.
	OTPParam uint64
	// OAEPSource is CK_RSA_PKCS_OAEP_SOURCE_TYPE.
	OAEPSource uint64
	// PBKDF2PRF is CK_PKCS5_PBKD2_PSEUDO_RANDOM_FUNCTION_TYPE.
	PBKDF2PRF uint64
	// PBKDF2SaltSource is CK_PKCS5_PBKDF2_SALT_SOURCE_TYPE.
	PBKDF2SaltSource uint64
	// IVGenerator is CK_GENERATOR_FUNCTION.
	IVGenerator uint64
	// Hedge is CK_HEDGE_TYPE (PKCS#11 v3.2).
	Hedge uint64
	// MLDSAParameterSet is CK_ML_DSA_PARAMETER_SET_TYPE (PKCS#11 v3.2).
	MLDSAParameterSet uint64
	// MLKEMParameterSet is CK_ML_KEM_PARAMETER_SET_TYPE (PKCS#11 v3.2).
	MLKEMParameterSet uint64
	// SLHDSAParameterSet is CK_SLH_DSA_PARAMETER_SET_TYPE (PKCS#11 v3.2).
	SLHDSAParameterSet uint64
	// SP800108 is CK_PRF_DATA_TYPE.
	SP800108 uint64
	// DKMLength is CK_SP800_108_DKM_LENGTH_METHOD.
	DKMLength uint64
	// Notification is CK_NOTIFICATION.
	Notification uint64
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
