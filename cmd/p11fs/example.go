package main

import (
	"fmt"
	"slices"
	"strings"

	"p11fs/p11"
)

// example is how the mechanism is used through the mount, in the shell. $T is the
// folder of the token, K the name of a key.
func example(m p11.MechanismInfo) string {
	facts, _ := p11.MechanismFacts(m.Type)
	kt := p11.KeyType(p11.CKK_GENERIC_SECRET) // as what takes keys of any type does
	if len(facts.KeyTypes) > 0 {
		kt = facts.KeyTypes[0]
	}
	// What stands in the file's name. Data that comes from elsewhere, such as the other
	// side's point, is not in it.
	spec := p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}.String()
	for _, w := range m.Type.ParamWords() {
		if w.Needed && !strings.Contains(spec, ","+w.Name+"=") { // which is never printed
			spec += "," + w.Name + "=0x736563726574"
		}
	}
	private, public := "K.key", "K.pub"
	if isSecret(kt) {
		private, public = "K.sec", "K.sec"
	}
	through := func(what, key, data string) string {
		return fmt.Sprintf("F=$T/objects/%s/%s:%s; %s > $F && cat $F", key, what, spec, data)
	}
	with := func(template, data string) string {
		spec += "," + template
		return through("derive", private, data)
	}
	switch has := func(f p11.Flags) bool { return m.Flags&f != 0 }; {
	case has(p11.CKF_DIGEST):
		return fmt.Sprintf("F=$T/digest/%s; cat msg > $F && cat $F", spec)
	case has(p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR):
		switch m.Type { // what there is a word for
		case p11.CKM_DH_PKCS_KEY_PAIR_GEN:
			spec = "dh:ffdhe2048"
		case p11.CKM_DSA_KEY_PAIR_GEN:
			spec = "dsa:2048"
		}
		return strings.TrimSpace(fmt.Sprintf("echo '%s label=K%s' > $T/generate", spec, sizeOf(m, kt)))
	case has(p11.CKF_SIGN):
		return through("sign", private, message(facts, spec))
	case has(p11.CKF_VERIFY):
		return through("verify", public, "cat sig msg")
	case has(p11.CKF_ENCRYPT):
		return through("encrypt", public, "cat msg")
	case has(p11.CKF_WRAP):
		return through("wrap", public, "echo OTHER.sec")
	case has(p11.CKF_DERIVE):
		data := "echo"
		for _, w := range m.Type.ParamWords() {
			switch w.Name {
			case "public":
				data = "cat peer.pem"
			case "key":
				data, spec = "echo OTHER.sec", m.Type.Short()
			case "shared-key":
				if named, is := strings.CutPrefix(spec, m.Type.Short()+",shared-key=1"); is {
					data, spec = "echo OTHER.sec", m.Type.Short()+named
				}
			}
		}
		switch facts.Param {
		case p11.ParamIBMMLKEM: // which encapsulates
			private = public
		case p11.ParamIBMMLKEMECDH:
			private, data = public, "{ echo EC.key; cat peer.pem; }"
		}
		if m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY { // which makes no secret key
			return with("label=new", data)
		}
		if kt == p11.CKK_DES || kt == p11.CKK_DES3 { // of data of one block
			return with("key-type=generic-secret,value-len=8,label=new", data)
		}
		if strings.Contains(m.Type.Short(), "-master-key-derive") || m.Type == p11.CKM_IKE_PRF_DERIVE { // whose length is fixed
			return with("label=new", data)
		}
		return with("value-len=16,label=new", data)
	case has(p11.CKF_ENCAPSULATE):
		return through("encapsulate", public, "echo label=new")
	}
	return "-"
}

// message writes what a mechanism signs: a message, or its digest if the parameter says
// which that is.
func message(facts p11.Facts, spec string) string {
	_, hash, ok := strings.Cut(spec, ",hash=")
	if !ok || facts.Hash != 0 {
		return "cat msg"
	}
	hash, _, _ = strings.Cut(hash, ",")
	return "openssl dgst -" + strings.ReplaceAll(hash, "sha-1", "sha1") + " -binary msg"
}

// fixed reports whether the keys of a mechanism have one length alone.
func fixed(m p11.MechanismInfo) bool { return m.MinKeySize == m.MaxKeySize && m.MinKeySize > 0 }

// isSecret says whether keys of the type are secret keys.
func isSecret(kt p11.KeyType) bool {
	return kt == p11.CKK_GENERIC_SECRET || kt.BlockSize() > 0 || p11.KeyLengths(kt) != nil || strings.HasSuffix(kt.String(), "_HMAC") ||
		slices.Contains([]p11.KeyType{p11.CKK_HKDF, p11.CKK_POLY1305, p11.CKK_CHACHA20}, kt)
}

// sizeOf is what the template of a new key wants, with a blank in front.
func sizeOf(m p11.MechanismInfo, kt p11.KeyType) string {
	lengths := p11.KeyLengths(kt)
	switch {
	case kt == p11.CKK_RSA:
		return " modulus-bits=2048"
	case kt == p11.CKK_EC:
		return " curve=p256"
	case kt == p11.CKK_EC_EDWARDS:
		return " curve=ed25519"
	case kt == p11.CKK_EC_MONTGOMERY:
		return " curve=x25519"
	case (kt == p11.CKK_DH || kt == p11.CKK_DSA) && m.Flags&p11.CKF_GENERATE != 0: // a group
		return " bits=2048"
	case kt == p11.CKK_X9_42_DH:
		return " prime=0x… base=0x…"
	case kt == p11.CKK_ML_DSA || kt == p11.CKK_ML_KEM || kt == p11.CKK_SLH_DSA:
		return " parameter-set=1"
	case kt == p11.CKK_IBM_ML_DSA || kt == p11.CKK_IBM_ML_KEM:
		return " ibm-parameter-set=1"
	case len(lengths) > 1:
		return fmt.Sprintf(" value-len=%d", slices.Max(lengths))
	case fixed(m): // it has no other
	case lengths == nil && isSecret(kt):
		return " value-len=32"
	}
	return ""
}
