package p11

// Kind says how the value of an attribute is laid out, and how its text looks.
type Kind int

// The kinds. Those made of one CK_ULONG are 8 bytes, little endian, whatever
// the machine.
const (
	KindBytes         Kind = iota // byte array: 0x0102
	KindBool                      // CK_BBOOL, 1 byte: true, false
	KindUlong                     // CK_ULONG: 2048
	KindBigInt                    // big integer, most significant byte first: 0x010001
	KindText                      // UTF-8 string: "web server"
	KindDate                      // CK_DATE, 8 digits, or empty: 2026-01-31
	KindCurve                     // DER of EC parameters: secp256r1
	KindTemplate                  // attributes (EncodeTemplate): {sign=true label=x}
	KindParameterSet              // CK_ULONG of a post-quantum key: ml-dsa-65
	KindMechanismList             // CK_MECHANISM_TYPEs: rsa-pkcs+sha256-rsa-pkcs
	kindNamed                     // behind it those of one CK_ULONG whose values have names
)

// IsUlong says whether values of the kind are one CK_ULONG.
func (k Kind) IsUlong() bool { return k == KindUlong || k == KindParameterSet || k > kindNamed }
