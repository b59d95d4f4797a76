package integration

import (
	"encoding/hex"
	"fmt"
	"strings"

	"p11fs/p11"
)

// noPQC is why these rules are no matter of openCryptoki.
const noPQC = "its release 3.8 has none of these schemes"

// kitPQC says that p11-kit's client makes no such keys.
func kitPQC() map[string]deviation {
	return map[string]deviation{"p11-kit-client": {"p11-kit 0.24.1 passes on the mechanisms that it knows", map[string]string{"pair": "CKR_MECHANISM_INVALID"}}}
}

// pqcPair makes a pair of a parameter set; ok is false where the door makes none.
func (s *handle) pqcPair(m p11.MechanismType, set, public, private string) (pub, priv string, ok bool) {
	s.a.r.t.Helper()
	got := s.call("pair", mech(m), words("token=false parameter-set="+set+" "+public), with("token=false private=true", private)).is("pair", p11.CKR_OK)
	if got.rv != p11.CKR_OK {
		return "", "", false
	}
	return got.values[0], got.values[1], true
}

func pqcRules() []tokenRule {
	shared := "class=secret-key key-type=generic-secret value-len=32 token=false private=false sensitive=false extractable=true "
	return []tokenRule{
		{name: "both sides encapsulate one secret", cites: "§5.18.8, §5.18.9, §6.69 of v3.2", stock: noPQC, deviates: kitPQC(), run: func(r *rig) {
			s := r.a.opened()
			pub, priv, ok := s.pqcPair(p11.CKM_ML_KEM_KEY_PAIR_GEN, "ml-kem-768", "encapsulate=true", "decapsulate=true")
			if !ok {
				return
			}
			made := s.call("encapsulate", pub, mech(p11.CKM_ML_KEM), words(shared+"label=here")).must()
			r.is("bytes of ciphertext", fmt.Sprint(len(made.values[0])/2), "1088")
			there := s.call("decapsulate", priv, mech(p11.CKM_ML_KEM), made.values[0], words(shared+"label=there")).one()
			r.is("value", s.secretOf(made.values[1]), s.secretOf(there))
			s.isAttributes(made.values[1], `class=secret-key key-type=generic-secret value-len=32 local=false always-sensitive=false never-extractable=false label="here"`)
			s.isAttributes(pub, "key-type=ml-kem parameter-set=ml-kem-768")
			s.call("encapsulate", priv, mech(p11.CKM_ML_KEM), words(shared+"label=x")).is("the private key", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
			s.call("decapsulate", priv, mech(p11.CKM_ML_KEM), made.values[0][2:], words(shared+"label=y")).is("a short ciphertext", p11.CKR_WRAPPED_KEY_LEN_RANGE)
		}},
		{name: "ML-DSA signs a context with the message", cites: "§6.67 of v3.2", stock: noPQC, deviates: kitPQC(), run: func(r *rig) {
			s := r.a.opened()
			pub, priv, ok := s.pqcPair(p11.CKM_ML_DSA_KEY_PAIR_GEN, "ml-dsa-44", "verify=true", "sign=true")
			if !ok {
				return
			}
			data := hex.EncodeToString([]byte("a message"))
			sig := s.operate("one", "sign", priv, mech(p11.CKM_ML_DSA), data)
			r.is("bytes of signature", fmt.Sprint(len(sig.one())/2), "2420")
			s.call("verify", pub, mech(p11.CKM_ML_DSA), data, sig.one()).is("the message", p11.CKR_OK)
			s.call("verify", pub, mech(p11.CKM_HASH_ML_DSA_SHA256), data, sig.one()).is("its hash", p11.CKR_SIGNATURE_INVALID)
			s.call("verify", pub, mech(p11.CKM_ML_DSA), data+"00", sig.one()).is("another message", p11.CKR_SIGNATURE_INVALID)
			s.call("verify", pub, mech(p11.CKM_ML_DSA), data, strings.Repeat("00", 100)).is("a short signature", p11.CKR_SIGNATURE_LEN_RANGE)
		}},
	}
}
