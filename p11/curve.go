package p11

import "strings"

// The DER of the object identifiers of the named curves, which is the value of
// CKA_EC_PARAMS (PKCS#11 v3.1 §6.3.3; RFC 5480, 5639, 8410).
const (
	derSecp192r1       = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x01"
	derSecp224r1       = "\x06\x05\x2b\x81\x04\x00\x21"
	derSecp256r1       = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	derSecp384r1       = "\x06\x05\x2b\x81\x04\x00\x22"
	derSecp521r1       = "\x06\x05\x2b\x81\x04\x00\x23"
	derSecp256k1       = "\x06\x05\x2b\x81\x04\x00\x0a"
	derBrainpoolP224r1 = "\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x05"
	derBrainpoolP256r1 = "\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x07"
	derBrainpoolP320r1 = "\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x09"
	derBrainpoolP384r1 = "\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x0b"
	derBrainpoolP512r1 = "\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x0d"
	derX25519          = "\x06\x03\x2b\x65\x6e"
	derX448            = "\x06\x03\x2b\x65\x6f"
	derEd25519         = "\x06\x03\x2b\x65\x70"
	derEd448           = "\x06\x03\x2b\x65\x71"
)

// CurveName returns the name of the curve whose CKA_EC_PARAMS is der, such as
// secp256r1, or "".
func CurveName(der []byte) string {
	switch string(der) {
	case derSecp192r1:
		return "secp192r1"
	case derSecp224r1:
		return "secp224r1"
	case derSecp256r1:
		return "secp256r1"
	case derSecp384r1:
		return "secp384r1"
	case derSecp521r1:
		return "secp521r1"
	case derSecp256k1:
		return "secp256k1"
	case derBrainpoolP224r1:
		return "brainpoolp224r1"
	case derBrainpoolP256r1:
		return "brainpoolp256r1"
	case derBrainpoolP320r1:
		return "brainpoolp320r1"
	case derBrainpoolP384r1:
		return "brainpoolp384r1"
	case derBrainpoolP512r1:
		return "brainpoolp512r1"
	case derX25519:
		return "x25519"
	case derX448:
		return "x448"
	case derEd25519:
		return "ed25519"
	case derEd448:
		return "ed448"
	}
	return ""
}

// CurveParams returns the CKA_EC_PARAMS of a curve by one of its usual names.
func CurveParams(name string) ([]byte, bool) {
	switch strings.ToLower(name) {
	case "secp192r1", "prime192v1", "p-192", "p192":
		return []byte(derSecp192r1), true
	case "secp224r1", "p-224", "p224":
		return []byte(derSecp224r1), true
	case "secp256r1", "prime256v1", "p-256", "p256", "nistp256":
		return []byte(derSecp256r1), true
	case "secp384r1", "p-384", "p384", "nistp384":
		return []byte(derSecp384r1), true
	case "secp521r1", "p-521", "p521", "nistp521":
		return []byte(derSecp521r1), true
	case "secp256k1":
		return []byte(derSecp256k1), true
	case "brainpoolp224r1":
		return []byte(derBrainpoolP224r1), true
	case "brainpoolp256r1":
		return []byte(derBrainpoolP256r1), true
	case "brainpoolp320r1":
		return []byte(derBrainpoolP320r1), true
	case "brainpoolp384r1":
		return []byte(derBrainpoolP384r1), true
	case "brainpoolp512r1":
		return []byte(derBrainpoolP512r1), true
	case "x25519", "curve25519":
		return []byte(derX25519), true
	case "x448", "curve448":
		return []byte(derX448), true
	case "ed25519", "edwards25519":
		return []byte(derEd25519), true
	case "ed448", "edwards448":
		return []byte(derEd448), true
	}
	return nil, false
}
