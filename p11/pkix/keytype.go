package pkix

import (
	"encoding/asn1"
	"slices"
	"sync"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/p11/pqc"
)

// A keyType is what this package does with the keys of one type. What it does not
// do is nil.
type keyType struct {
	kt  p11.KeyType
	oid string // of its algorithm in SubjectPublicKeyInfo and PKCS#8; "" if files have another type

	// complete is Complete for a public or private key; it returns
	// CKA_PUBLIC_KEY_INFO, nil where that cannot be made.
	complete func(attrs *p11.Attributes, class p11.ObjectClass) (info []byte, err error)
	// readPublic reads what a SubjectPublicKeyInfo holds.
	readPublic func(alg algorithm, bits []byte) (p11.Attributes, error)
	// readPrivate reads what a PrivateKeyInfo holds, into both keys.
	readPrivate func(alg algorithm, key []byte) (private, public p11.Attributes, err error)
	// writePrivate returns a PrivateKeyInfo.
	writePrivate func(attrs p11.Attributes) ([]byte, error)
	// info returns the SubjectPublicKeyInfo of a public or private key.
	info func(attrs p11.Attributes) ([]byte, error)
	// golang returns a public key as Go's library has it.
	golang func(alg algorithm, bits []byte) (any, error)
}

// keyTypes is their list. Each new key is looked up in it, and to make it takes longer than
// to make a key.
func keyTypes() []keyType {
	known.once.Do(func() { known.list = makeKeyTypes() })
	return known.list
}

// known is no value of sync.OnceValue, since some of what it would hold looks in it.
var known struct { //nolint:gochecknoglobals // a table, written once
	once sync.Once
	list []keyType
}

func makeKeyTypes() []keyType {
	list := slices.Concat([]keyType{rsaType(), ecType()}, groupTypes(), octetTypes())
	for _, s := range pqc.Sets() {
		list = append(list, pqcType(s))
	}
	return append(list, ibmType(p11.CKK_IBM_ML_DSA), ibmType(p11.CKK_IBM_ML_KEM))
}

// keyTypeOf finds a key type by its number. Of another type nothing is known.
func keyTypeOf(kt p11.KeyType) keyType {
	for _, t := range keyTypes() {
		if t.kt == kt {
			return t
		}
	}
	return keyType{}
}

// keyTypeByOID finds the key type of a file.
func keyTypeByOID(oid string) (keyType, error) {
	for _, t := range keyTypes() {
		if t.oid == oid {
			return t, nil
		}
	}
	switch oid {
	case "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.7":
		return keyType{}, p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key that is limited to one scheme (algorithm %s) is not supported", oid)
	}
	return keyType{}, p11.Errorf(p11.CKR_DATA_INVALID, "keys of algorithm %s are not supported: RSA, EC, DSA, DH, Ed25519, Ed448, X25519, X448, ML-DSA, SLH-DSA and ML-KEM are", clip(oid))
}

// algorithm is an AlgorithmIdentifier: the OID in dots, and the whole element of
// the parameters, empty if absent.
type algorithm struct {
	oid    string
	params []byte
}

func readAlgorithm(s *cryptobyte.String) (a algorithm, ok bool) {
	var in cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&in, cbasn1.SEQUENCE) || !in.ReadASN1ObjectIdentifier(&oid) {
		return a, false
	}
	a.oid = oid.String()
	if in.Empty() {
		return a, true
	}
	var params cryptobyte.String
	var tag cbasn1.Tag
	if !in.ReadAnyASN1Element(&params, &tag) || !in.Empty() {
		return a, false
	}
	a.params = params
	return a, true
}

func addAlgorithm(b *cryptobyte.Builder, a algorithm) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(ParseOID(a.oid))
		b.AddBytes(a.params)
	})
}

// null are parameters that say nothing.
func null() []byte { return []byte{0x05, 0x00} }

// ParseOID reads an object identifier in its dotted form, which is one of the code's own.
func ParseOID(s string) (oid asn1.ObjectIdentifier) {
	n := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			oid, n = append(oid, n), 0
			continue
		}
		n = n*10 + int(s[i]-'0')
	}
	return oid
}
