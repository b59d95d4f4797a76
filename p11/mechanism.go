package p11

// A Mechanism is CK_MECHANISM: what to do, and how. A nil Param is no
// parameter.
type Mechanism struct {
	Type  MechanismType
	Param Param
}

// A Param is a mechanism parameter. Its types are IV, *PSSParams, *OAEPParams,
// *GCMParams, *CTRParams, *ECDH1Params, MACLength, *RSAAESKeyWrapParams,
// *StringDataParams, *CBCDataParams and RawParam.
type Param interface{ param() }

// IV is the initialisation vector of a block cipher mode.
type IV []byte

// PSSParams is CK_RSA_PKCS_PSS_PARAMS (PKCS#11 v3.1 §6.1.9).
type PSSParams struct {
	Hash    MechanismType
	MGF     MGF
	SaltLen uint64 // bytes
}

// OAEPParams is CK_RSA_PKCS_OAEP_PARAMS (PKCS#11 v3.1 §6.1.7); the source is
// always CKZ_DATA_SPECIFIED.
type OAEPParams struct {
	Hash  MechanismType
	MGF   MGF
	Label []byte
}

// GCMParams is CK_GCM_PARAMS (PKCS#11 v3.1 §6.13.3).
type GCMParams struct {
	IV, AAD []byte
	TagBits uint64
}

// CTRParams is CK_AES_CTR_PARAMS (PKCS#11 v3.1 §6.11).
type CTRParams struct {
	CounterBits uint64 // how many low bits of Counter count
	Counter     [16]byte
}

// ECDH1Params is CK_ECDH1_DERIVE_PARAMS (PKCS#11 v3.1 §6.3.16).
type ECDH1Params struct {
	KDF                    KDF
	SharedData, PublicData []byte
}

// MACLength is CK_MAC_GENERAL_PARAMS: the length of the MAC in bytes.
type MACLength uint64

// RSAAESKeyWrapParams is CK_RSA_AES_KEY_WRAP_PARAMS (PKCS#11 v3.1 §6.1.21).
type RSAAESKeyWrapParams struct {
	AESKeyBits uint64
	OAEP       *OAEPParams
}

// StringDataParams is CK_KEY_DERIVATION_STRING_DATA.
type StringDataParams struct{ Data []byte }

// CBCDataParams is CK_AES_CBC_ENCRYPT_DATA_PARAMS and its likes for other
// ciphers.
type CBCDataParams struct{ IV, Data []byte }

// RawParam is a parameter as bytes, for the mechanisms whose parameter has no
// type of its own here.
type RawParam []byte

func (IV) param()                   {}
func (*PSSParams) param()           {}
func (*OAEPParams) param()          {}
func (*GCMParams) param()           {}
func (*CTRParams) param()           {}
func (*ECDH1Params) param()         {}
func (MACLength) param()            {}
func (*RSAAESKeyWrapParams) param() {}
func (*StringDataParams) param()    {}
func (*CBCDataParams) param()       {}
func (RawParam) param()             {}

// ParamKind says which parameter a mechanism takes.
type ParamKind int

// The parameters. ParamRaw is one that this package does not take apart.
const (
	ParamNone          ParamKind = iota
	ParamRaw                     // RawParam
	ParamIV                      // IV, of the cipher's block length
	ParamOptionalIV              // IV or none
	ParamIVData                  // *CBCDataParams
	ParamData                    // *StringDataParams
	ParamMAC                     // MACLength
	ParamPSS                     // *PSSParams
	ParamOAEP                    // *OAEPParams
	ParamGCM                     // *GCMParams
	ParamCTR                     // *CTRParams
	ParamECDH1                   // *ECDH1Params
	ParamRSAAESKeyWrap           // *RSAAESKeyWrapParams
	ParamPublic                  // RawParam: the other side's public value
)

// Facts is what the standard says of a mechanism.
type Facts struct {
	Functions  Flags         // CKF_ENCRYPT | …: every function that it may serve
	Hash       MechanismType // the digest in it; 0, which is no digest, if there is none or it is one itself
	KeyTypes   []KeyType     // of the keys it uses or makes; nil for none or any
	Param      ParamKind
	SinglePart bool // its data cannot come in parts
}
