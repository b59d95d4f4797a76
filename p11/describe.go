package p11

import (
	"slices"
	"strconv"
	"strings"
)

// A ParamWord is a word of a mechanism's parameter, for people.
type ParamWord struct {
	Name   string
	Takes  string // what it may be; "" if that is not known here
	Absent string // what stands for it where it is absent; "" for nothing
	Needed bool   // it must be there
	Later  bool   // whoever uses the mechanism may have it from elsewhere
	About  string
}

// ParamWords returns the words of the parameter of a mechanism, in their order.
func (v MechanismType) ParamWords() []ParamWord {
	f, _ := MechanismFacts(v)
	words := f.Param.described()
	for i := range words {
		if words[i].Takes == "IV" {
			words[i].Takes = "bytes"
			if f.IVLen > 0 {
				words[i].Takes = strconv.Itoa(f.IVLen) + " bytes"
			}
		}
	}
	return words
}

// Takes returns the words of the mechanism's parameter, as in "iv=,aad=,tag=": "param="
// where only its bytes are taken, and "-" where there is no parameter.
func (v MechanismType) Takes() string {
	f, known := MechanismFacts(v)
	var words []string
	for _, w := range f.Param.described() {
		words = append(words, w.Name+"=")
	}
	switch {
	case words != nil:
		return strings.Join(words, ",")
	case f.Param == ParamRaw || !known:
		return "param="
	}
	return "-"
}

// Uses returns the names of what the mechanism does here, such as encrypt, as CKF_ENCRYPT
// and its like say. What they say of elliptic curves is left out, and what the engine makes
// of the others: what signs signs messages.
func (m MechanismInfo) Uses() []string {
	const curves = CKF_EC_F_P | CKF_EC_F_2M | CKF_EC_ECPARAMETERS | CKF_EC_OID | CKF_EC_UNCOMPRESS | CKF_EC_COMPRESS | CKF_EC_CURVENAME
	const made = CKF_MESSAGE_SIGN | CKF_MESSAGE_VERIFY | CKF_MULTI_MESSAGE
	return (m.Flags &^ (curves | made | CKF_EXTENSION)).MechanismNames()
}

// SizeUnit is in what MinKeySize and MaxKeySize are: "bytes" for ciphers, the secrets of
// SSL and TLS, and the public keys of lattices and hashes; else "bits".
func (m MechanismInfo) SizeUnit() string {
	f, _ := MechanismFacts(m.Type)
	var kt KeyType
	if len(f.KeyTypes) > 0 {
		kt = f.KeyTypes[0]
	}
	lengths := KeyLengths(kt)
	switch {
	case lengths != nil && m.MaxKeySize <= slices.Max(lengths), kt.BlockSize() > 0 && lengths == nil && m.MaxKeySize <= 64,
		kt == CKK_ML_DSA, kt == CKK_ML_KEM, kt == CKK_SLH_DSA, kt == CKK_IBM_ML_DSA, kt == CKK_IBM_ML_KEM, kt == CKK_IBM_DILITHIUM, kt == CKK_IBM_KYBER,
		strings.Contains(m.Type.String(), "_MASTER_KEY"), strings.HasSuffix(m.Type.String(), "_KEY_AND_MAC_DERIVE"):
		return "bytes"
	}
	return "bits"
}
