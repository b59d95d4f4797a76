// Package pkix stands between the key and certificate files that other programs
// read and write (PEM, DER, PKCS#8, PKCS#12, OpenSSH, X.509) and the attributes
// of PKCS#11 objects.
//
// [Parse] reads a file into templates. [PublicPEM], [PublicSSH],
// [CertificatePEM] and [URI] print objects. The ECDSA functions convert between
// the two forms of a signature.
//
// [Complete] checks a new key and completes it. [RSAPrivate], [ECPrivate] and their
// likes read the values of keys for those who use them, and [DecodePrivateKey] and
// [EncodePrivateKey] the form in which private keys are wrapped. What is done with
// the keys of one type stands in one table (keytype.go).
//
// # Identifiers
//
// Every object made from one key pair gets the same CKA_ID: the SHA-1 hash of
// the bits of subjectPublicKey, the first method of RFC 5280 §4.2.1.2, which is
// also the subject key identifier that most authorities write into
// certificates. So a key, its public key and its certificate find each other,
// in whichever order and from whichever files they came. Secret keys have none.
//
// # Certificates
//
// Of a certificate only serial number, names and public key are looked for, and it is
// stored as it came. Whether it is a good one is for those to say who trust it: what other
// programs read must not be lost here. A [p11.Curve] has one reader, [CurveOf].
//
// # Labels
//
// CKA_LABEL is the friendlyName of a PKCS#12 file; without one a certificate
// gets the common name of its subject. A key without a name of its own takes
// the label of its certificate if the same file has it. Otherwise there is no
// label.
//
// # What a template holds
//
// The class, the type, the identifier, the label and the values; for the keys
// of a certificate in the same file CKA_SUBJECT too. CKA_TOKEN, CKA_PRIVATE and
// the usage flags are the caller's to add.
//
// # Bounds
//
// A file is input from anyone. Its length, the number of objects, the nesting,
// the key sizes, and the work that its key derivation asks for are bounded over
// the whole file, before the work is done. Every error carries a p11.RV:
// CKR_DATA_INVALID for what is not understood, CKR_DATA_LEN_RANGE for what is
// too big, CKR_PIN_INCORRECT for a pass phrase that is missing or wrong. The
// decrypted contents and intermediate keys are wiped; what is wiped of the
// copies that the libraries make is theirs to say.
package pkix
