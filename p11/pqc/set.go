package pqc

import (
	"github.com/cloudflare/circl/kem"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"

	"p11fs/p11"
)

// A Set is one parameter set. Sizes are in bytes.
type Set struct {
	KeyType p11.KeyType // CKK_ML_DSA, CKK_SLH_DSA or CKK_ML_KEM; of SetOf also openCryptoki's
	Number  uint64      // CKA_PARAMETER_SET
	Name    string      // as PKCS#11 has it, in lower case: ml-dsa-65
	OID     string      // of keys: RFC 9881, RFC 9909, RFC 9935

	PublicSize, PrivateSize int // of CKA_VALUE
	SeedSize                int // of CKA_SEED; 0 where keys have none
	SignatureSize           int // 0 for ML-KEM
	CiphertextSize          int // 0 for signatures

	sign sign.Scheme // of ML-DSA and SLH-DSA
	slh  slhdsa.ID   // 0 but for SLH-DSA
	kem  kem.Scheme  // of ML-KEM
	eta  int         // of ML-DSA: the bound of the coefficients of s1 and s2
}

// Slow says that making a key or a signature of the set may take seconds.
func (s Set) Slow() bool { return s.slh != 0 }

const (
	nistSignature = "2.16.840.1.101.3.4.3."
	nistKEM       = "2.16.840.1.101.3.4.4."
)

// Sets returns all sets. FIPS 204 §4, FIPS 205 §11, FIPS 203 §8.
func Sets() []Set {
	return []Set{
		mldsa(p11.CKP_ML_DSA_44, nistSignature+"17", mldsa44.Scheme(), 2),
		mldsa(p11.CKP_ML_DSA_65, nistSignature+"18", mldsa65.Scheme(), 4),
		mldsa(p11.CKP_ML_DSA_87, nistSignature+"19", mldsa87.Scheme(), 2),
		slh(p11.CKP_SLH_DSA_SHA2_128S, nistSignature+"20", slhdsa.SHA2_128s),
		slh(p11.CKP_SLH_DSA_SHA2_128F, nistSignature+"21", slhdsa.SHA2_128f),
		slh(p11.CKP_SLH_DSA_SHA2_192S, nistSignature+"22", slhdsa.SHA2_192s),
		slh(p11.CKP_SLH_DSA_SHA2_192F, nistSignature+"23", slhdsa.SHA2_192f),
		slh(p11.CKP_SLH_DSA_SHA2_256S, nistSignature+"24", slhdsa.SHA2_256s),
		slh(p11.CKP_SLH_DSA_SHA2_256F, nistSignature+"25", slhdsa.SHA2_256f),
		slh(p11.CKP_SLH_DSA_SHAKE_128S, nistSignature+"26", slhdsa.SHAKE_128s),
		slh(p11.CKP_SLH_DSA_SHAKE_128F, nistSignature+"27", slhdsa.SHAKE_128f),
		slh(p11.CKP_SLH_DSA_SHAKE_192S, nistSignature+"28", slhdsa.SHAKE_192s),
		slh(p11.CKP_SLH_DSA_SHAKE_192F, nistSignature+"29", slhdsa.SHAKE_192f),
		slh(p11.CKP_SLH_DSA_SHAKE_256S, nistSignature+"30", slhdsa.SHAKE_256s),
		slh(p11.CKP_SLH_DSA_SHAKE_256F, nistSignature+"31", slhdsa.SHAKE_256f),
		mlkem(p11.CKP_ML_KEM_512, nistKEM+"1", mlkem512.Scheme()),
		mlkem(p11.CKP_ML_KEM_768, nistKEM+"2", mlkem768.Scheme()),
		mlkem(p11.CKP_ML_KEM_1024, nistKEM+"3", mlkem1024.Scheme()),
	}
}

func mldsa(n p11.MLDSAParameterSet, oid string, s sign.Scheme, eta int) Set {
	return Set{
		KeyType: p11.CKK_ML_DSA, Number: uint64(n), Name: n.Short(), OID: oid, sign: s, eta: eta,
		PublicSize: s.PublicKeySize(), PrivateSize: s.PrivateKeySize(), SeedSize: s.SeedSize(), SignatureSize: s.SignatureSize(),
	}
}

// slh is a set of SLH-DSA, whose keys are what they are made of: they have no seed.
func slh(n p11.SLHDSAParameterSet, oid string, id slhdsa.ID) Set {
	s := id.Scheme()
	return Set{
		KeyType: p11.CKK_SLH_DSA, Number: uint64(n), Name: n.Short(), OID: oid, sign: s, slh: id,
		PublicSize: s.PublicKeySize(), PrivateSize: s.PrivateKeySize(), SignatureSize: s.SignatureSize(),
	}
}

func mlkem(n p11.MLKEMParameterSet, oid string, s kem.Scheme) Set {
	return Set{
		KeyType: p11.CKK_ML_KEM, Number: uint64(n), Name: n.Short(), OID: oid, kem: s,
		PublicSize: s.PublicKeySize(), PrivateSize: s.PrivateKeySize(), SeedSize: s.SeedSize(), CiphertextSize: s.CiphertextSize(),
	}
}

// Standard returns the type of the standard for keys of openCryptoki's own types, which
// are the same keys in other attributes; for others the type itself.
func Standard(kt p11.KeyType) p11.KeyType {
	switch kt {
	case p11.CKK_IBM_ML_DSA:
		return p11.CKK_ML_DSA
	case p11.CKK_IBM_ML_KEM:
		return p11.CKK_ML_KEM
	}
	return kt
}

// IsIBM says whether a type is one of openCryptoki's own.
func IsIBM(kt p11.KeyType) bool { return Standard(kt) != kt }

// SetOf returns the set of keys of a type by CKA_PARAMETER_SET, and whether there is
// one.
func SetOf(kt p11.KeyType, number uint64) (Set, bool) {
	s, ok := find(func(s Set) bool { return s.KeyType == Standard(kt) && s.Number == number })
	if ok {
		s.KeyType = kt
	}
	return s, ok
}

// SetOfKey is SetOf for the attributes of a key. It wraps CKR_TEMPLATE_INCOMPLETE or
// CKR_PARAMETER_SET_NOT_SUPPORTED where they name none.
func SetOfKey(attrs p11.Attributes) (Set, error) {
	kt, _ := attrs.KeyType()
	at := p11.AttributeType(p11.CKA_PARAMETER_SET)
	if IsIBM(kt) {
		at = p11.CKA_IBM_PARAMETER_SET
	}
	n, ok := attrs.Ulong(at)
	if !ok {
		return Set{}, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "%s is missing", at.Short())
	}
	s, ok := SetOf(kt, n)
	if !ok {
		return Set{}, p11.Errorf(p11.CKR_PARAMETER_SET_NOT_SUPPORTED, "%s: %s keys have no set %d", at.Short(), kt.Short(), n)
	}
	return s, nil
}

// SetNamed returns the set of that name, and whether there is one.
func SetNamed(name string) (Set, bool) { return find(func(s Set) bool { return s.Name == name }) }

func find(fits func(Set) bool) (Set, bool) {
	for _, s := range Sets() {
		if fits(s) {
			return s, true
		}
	}
	return Set{}, false
}
