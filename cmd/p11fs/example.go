package main

import (
	"fmt"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/swtok"
)

// example is how the mechanism is used through the mount, in lines of a shell, where $T is the
// folder of a token. They are all that it takes: the first ones make the keys, unless those of
// another example are there.
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
	other := otherKey{"aes-other.sec", "aes:256 label=aes-other extractable=true derive=true"}
	fresh := "label=" + m.Type.Short() + "-new"
	switch has := func(f p11.Flags) bool { return m.Flags&f != 0 }; {
	case has(p11.CKF_DIGEST):
		return fmt.Sprintf("F=$T/digest/%s; %s > $F && cat $F > out", spec, exampleData)
	case has(p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR):
		switch m.Type { // what there is a word for
		case p11.CKM_DH_PKCS_KEY_PAIR_GEN:
			spec = "dh:ffdhe2048"
		case p11.CKM_DSA_KEY_PAIR_GEN:
			spec = "dsa:2048"
		}
		return fmt.Sprintf("echo '%s label=%s%s' > $T/generate", spec, m.Type.Short(), sizeOf(m, kt))
	case has(p11.CKF_SIGN):
		return keyExample("sign", kt, false, spec, message(facts, spec))
	case has(p11.CKF_VERIFY):
		return keyExample("verify", kt, true, spec, "cat sig msg")
	case has(p11.CKF_ENCRYPT):
		return keyExample("encrypt", kt, true, spec, exampleData)
	case has(p11.CKF_WRAP):
		return keyExample("wrap", kt, true, spec, "echo aes-other.sec", other)
	case has(p11.CKF_DERIVE):
		template := ",value-len=16," + fresh
		switch {
		case m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY: // which makes no secret key
			template = "," + fresh
		case kt == p11.CKK_DES || kt == p11.CKK_DES3: // of data of one block
			template = ",key-type=generic-secret,value-len=8," + fresh
		case strings.Contains(m.Type.Short(), "-master-key-derive") || m.Type == p11.CKM_IKE_PRF_DERIVE: // whose length is fixed
			template = "," + fresh
		}
		switch facts.Param {
		case p11.ParamIBMMLKEM: // which encapsulates
			return keyExample("derive", kt, true, spec+template, "echo")
		case p11.ParamIBMMLKEMECDH:
			return keyExample("derive", kt, true, spec+template, "{ echo ec-other.key; cat $T/objects/ec-other.pub/public.pem; }", otherKey{"ec-other.key", "ec:p256 label=ec-other derive=true"})
		}
		for _, w := range m.Type.ParamWords() {
			switch w.Name {
			case "public": // its own, in place of the other side's
				return keyExample("derive", kt, false, spec+template, "cat $T/objects/"+exampleKey("derive", kt)+".pub/public.pem")
			case "key":
				return keyExample("derive", kt, false, m.Type.Short()+template, "echo aes-other.sec", other)
			case "shared-key":
				if named, is := strings.CutPrefix(spec, m.Type.Short()+",shared-key=1"); is {
					return keyExample("derive", kt, false, m.Type.Short()+named+template, "echo aes-other.sec", other)
				}
			}
		}
		return keyExample("derive", kt, false, spec+template, "echo")
	case has(p11.CKF_ENCAPSULATE):
		return keyExample("encapsulate", kt, true, spec, "echo "+fresh)
	}
	return "-"
}

// exampleData writes what examples sign and encrypt: 16 bytes.
const exampleData = "printf 0123456789abcdef"

// exampleKey is the label of the key by which examples do the operation.
func exampleKey(operation string, kt p11.KeyType) string { return kt.Short() + "-" + operation }

// An otherKey is a key that takes part, and the line that makes it.
type otherKey struct{ name, line string }

// keyExample is the lines that send data through a key's file: after those that make the key, and
// others. What a pair does with its public half that half does.
func keyExample(operation string, kt p11.KeyType, public bool, spec, data string, others ...otherKey) string {
	label, suffix := exampleKey(operation, kt), ".key"
	if isSecret(kt) {
		suffix = ".sec"
	}
	made := func(name, line string) string {
		return fmt.Sprintf("[ -e $T/objects/%s ] || echo '%s' > $T/generate", name, line)
	}
	var lines []string
	if maker := makerOf(kt); maker != "" {
		lines = append(lines, made(label+suffix, fmt.Sprintf("%s label=%s %s=true", maker, label, operation)))
	}
	for _, o := range others {
		lines = append(lines, made(o.name, o.line))
	}
	if public && suffix == ".key" {
		suffix = ".pub"
	}
	return strings.Join(append(lines, fmt.Sprintf("F=$T/objects/%s%s/%s:%s; %s > $F && cat $F > out", label, suffix, operation, spec, data)), "\n")
}

// makerOf is what generate takes for a key of the type, but for its attributes; "" if there
// is nothing that fits a line.
func makerOf(kt p11.KeyType) string {
	switch kt {
	case p11.CKK_RSA:
		return "rsa:2048"
	case p11.CKK_EC:
		return "ec:p256"
	case p11.CKK_EC_EDWARDS:
		return "ed25519"
	case p11.CKK_EC_MONTGOMERY:
		return "x25519"
	case p11.CKK_DH:
		return "dh:ffdhe2048"
	case p11.CKK_DSA:
		return "dsa:2048"
	case p11.CKK_AES:
		return "aes:256"
	case p11.CKK_GENERIC_SECRET:
		return "generic:384" // as long as TLS wants it
	case p11.CKK_X9_42_DH: // whose primes fill a page
		return ""
	}
	for _, m := range swtok.Mechanisms() {
		facts, _ := p11.MechanismFacts(m.Type)
		if m.Flags&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) != 0 && len(facts.KeyTypes) > 0 && facts.KeyTypes[0] == kt {
			return m.Type.Short() + sizeOf(m, kt)
		}
	}
	return ""
}

// message writes what a mechanism signs: a message, or its digest if the parameter says
// which that is.
func message(facts p11.Facts, spec string) string {
	_, hash, ok := strings.Cut(spec, ",hash=")
	if !ok || facts.Hash != 0 {
		return exampleData
	}
	hash, _, _ = strings.Cut(hash, ",")
	return exampleData + " | openssl dgst -" + strings.ReplaceAll(hash, "sha-1", "sha1") + " -binary"
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
