package pkix

import (
	"strings"

	"p11fs/p11"
	"p11fs/secret"
)

// Kind says what a file must be. It narrows what [Parse] accepts: a file of
// another kind is refused, so that what was meant as a certificate is never
// stored as a private key.
type Kind int

const (
	// Auto takes anything that Parse knows.
	Auto Kind = iota
	// PEM takes PEM blocks of any sort.
	PEM
	// DER takes any single binary structure.
	DER
	// PKCS8 takes a private key in PKCS#8, plain or encrypted, PEM or DER.
	PKCS8
	// PKCS12 takes a PKCS#12 file (DER).
	PKCS12
	// Certificate takes X.509 certificates, PEM or DER.
	Certificate
	// PublicKey takes public keys, PEM, DER or an OpenSSH line.
	PublicKey
	// Template takes text: a template for each object, one a line. It is no form that
	// Auto knows.
	Template
)

const kindNames = "auto pem der pkcs8 pkcs12 certificate public-key template"

// String is the name that ParseKind takes.
func (k Kind) String() string {
	names := strings.Fields(kindNames)
	if k < 0 || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// ParseKind reads a Kind by name. The usual file name extensions of each kind
// are taken too.
func ParseKind(s string) (Kind, error) {
	for i, name := range strings.Fields(kindNames) {
		if s == name {
			return Kind(i), nil
		}
	}
	switch s {
	case "":
		return Auto, nil
	case "p8":
		return PKCS8, nil
	case "p12", "pfx":
		return PKCS12, nil
	case "cert", "crt", "cer":
		return Certificate, nil
	case "public", "pub":
		return PublicKey, nil
	}
	return 0, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "unknown kind of file %q", s), "name one of "+KindNames())
}

// KindNames are the names that ParseKind takes, with commas between.
func KindNames() string { return strings.ReplaceAll(kindNames, " ", ", ") }

// Advice says what to do about an error of Parse: that of the CK_RV is of the token's
// PIN, of a mechanism's data, and of keys that are to be made.
func Advice(rv p11.RV) string {
	switch rv {
	case p11.CKR_PIN_INCORRECT:
		return "write the file's own pass phrase to passphrase, then the file again"
	case p11.CKR_DATA_INVALID:
		return "write a whole file of a kind that p11fs-tree(7) has; openssl converts others"
	case p11.CKR_ATTRIBUTE_TYPE_INVALID:
		return "another object of the same id may have it"
	case p11.CKR_DATA_LEN_RANGE:
		return "write a smaller file, or one object at a time"
	case p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_DOMAIN_PARAMS_INVALID, p11.CKR_KEY_TYPE_INCONSISTENT:
		return "use a key of another type or curve; formats.md lists what is taken"
	}
	return rv.Advice()
}

// Options are what Parse needs besides the file.
type Options struct {
	// Passphrase opens encrypted files; nil if there is none. It stays the
	// caller's to close.
	Passphrase *secret.Bytes
	// Skipped, unless nil, is told what of the file is left out, such as a revocation
	// list: in words, and once each.
	Skipped func(what string)
	// Arithmetic, unless nil, is that of whoever will have the keys: it makes the public
	// half of an EC key that comes without.
	Arithmetic Arithmetic
}

// Bounds of one call of Parse.
const (
	// MaxSize is the longest file that Parse takes, in bytes.
	MaxSize = 1 << 20

	maxObjects      = 256      // templates
	maxDepth        = 4        // nested structures of PKCS#12
	maxKeyDER       = 32 << 10 // bytes of one private or public key
	maxRSABits      = 16384    // of an RSA modulus
	maxExponentBits = 256      // of a public exponent (FIPS 186-5 §A.1.1)
	// maxGoExponentBits is how long it is in Go's library.
	maxGoExponentBits = 31
	maxPassphrase     = 1024      // bytes
	maxSalt           = 1024      // bytes
	maxWork           = 5_000_000 // hash rounds of key derivation, over the whole file
	maxScryptMem      = 64 << 20  // bytes
	maxScryptWork     = 1 << 22   // N·r·p
	bcryptWork        = 20_000    // hash rounds that one of an OpenSSH key's rounds takes as long as
)

// form is what one structure in a file turned out to be.
type form int

const (
	formUnknown form = iota
	formPKCS1Private
	formPKCS1Public
	formSEC1
	formDSAPrivate
	formDSAParameters
	formDHParameters
	formPKCS8
	formPKCS8Encrypted
	formPKCS12
	formSPKI
	formCertificate
	formOpenSSHPrivate
	formOpenSSHPublic
)

func (f form) String() string {
	switch f {
	case formPKCS1Private:
		return "a PKCS#1 private key"
	case formPKCS1Public:
		return "a PKCS#1 public key"
	case formSEC1:
		return "an EC private key"
	case formDSAPrivate:
		return "a DSA private key"
	case formDSAParameters:
		return "DSA parameters"
	case formDHParameters:
		return "Diffie-Hellman parameters"
	case formPKCS8:
		return "a PKCS#8 private key"
	case formPKCS8Encrypted:
		return "an encrypted PKCS#8 private key"
	case formPKCS12:
		return "a PKCS#12 file"
	case formSPKI:
		return "a public key"
	case formCertificate:
		return "a certificate"
	case formOpenSSHPrivate:
		return "an OpenSSH private key"
	case formOpenSSHPublic:
		return "an OpenSSH public key"
	}
	return "nothing known"
}

// takes says whether a file of kind k may hold f.
func (k Kind) takes(f form) bool {
	switch k {
	case Auto, PEM, DER:
		return f != formUnknown
	case PKCS8:
		return f == formPKCS8 || f == formPKCS8Encrypted
	case PKCS12:
		return f == formPKCS12
	case Certificate:
		return f == formCertificate
	case PublicKey:
		return f == formSPKI || f == formPKCS1Public || f == formOpenSSHPublic
	}
	return false
}
