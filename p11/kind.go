package p11

// Kind says how the value of an attribute is laid out, and how its text looks.
type Kind int

// The kinds. Those made of one CK_ULONG are 8 bytes, little endian, whatever
// the machine.
const (
	KindBytes               Kind = iota // byte array: 0x0102
	KindBool                            // CK_BBOOL, 1 byte: true, false
	KindUlong                           // CK_ULONG: 2048
	KindBigInt                          // big integer, most significant byte first: 0x010001
	KindText                            // UTF-8 string: "web server"
	KindDate                            // CK_DATE, 8 digits, or empty: 2026-01-31
	KindCurve                           // DER of EC parameters: secp256r1
	KindTemplate                        // attributes (EncodeTemplate): {sign=true label=x}
	KindMechanismList                   // CK_MECHANISM_TYPEs: rsa-pkcs+sha256-rsa-pkcs
	KindMechanism                       // CK_MECHANISM_TYPE
	KindClass                           // CK_OBJECT_CLASS
	KindKeyType                         // CK_KEY_TYPE
	KindCertificateType                 // CK_CERTIFICATE_TYPE
	KindHardwareFeature                 // CK_HW_FEATURE_TYPE
	KindCertificateCategory             // CK_CERTIFICATE_CATEGORY
	KindSecurityDomain                  // CK_JAVA_MIDP_SECURITY_DOMAIN
	KindProfile                         // CK_PROFILE_ID
	KindTrust                           // CK_TRUST
	KindOTPFormat                       // CK_ULONG, CK_OTP_FORMAT_…
	KindOTPRequirement                  // CK_ULONG, CK_OTP_PARAM_…
	KindValidationType                  // CK_VALIDATION_TYPE
	KindValidationAuthority             // CK_VALIDATION_AUTHORITY_TYPE
)

// IsUlong says whether values of the kind are one CK_ULONG.
func (k Kind) IsUlong() bool { return k == KindUlong || k >= KindMechanism }
