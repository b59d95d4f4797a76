package ccatok

import "p11fs/p11"

// The sizes of what the card has.
const (
	minRSA, maxRSA       = 512, 8192 // the largest of cards of 8.4 and later
	minSecret, maxSecret = 80, 2048  // bits of keys for HMAC
)

// listed is a mechanism of the software token as this one has it: stock's list of 3.8, but
// for the HMACs of MD5, which stock makes of keys that it does not have, and of 3.27's what
// docs/cards.md says. What the card does is flagged.
func listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	if m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY { // for which no card is asked
		return m, true
	}
	const crypt, sign = p11.CKF_ENCRYPT | p11.CKF_DECRYPT, p11.CKF_SIGN | p11.CKF_VERIFY
	const wrap = p11.CKF_WRAP | p11.CKF_UNWRAP
	const generate, curves = p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR, p11.CKF_EC_F_P | p11.CKF_EC_NAMEDCURVE | p11.CKF_EC_UNCOMPRESS
	flags, ok := map[p11.MechanismType]p11.Flags{
		p11.CKM_DES_KEY_GEN: generate, p11.CKM_DES3_KEY_GEN: generate, p11.CKM_AES_KEY_GEN: generate, p11.CKM_GENERIC_SECRET_KEY_GEN: generate,
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN: generate, p11.CKM_EC_KEY_PAIR_GEN: generate | curves,
		p11.CKM_DES_CBC: crypt, p11.CKM_DES_CBC_PAD: crypt, p11.CKM_DES3_CBC: crypt, p11.CKM_DES3_CBC_PAD: crypt,
		p11.CKM_AES_ECB: crypt, p11.CKM_AES_CBC: crypt, p11.CKM_AES_CBC_PAD: crypt, p11.CKM_AES_GCM: crypt,
		p11.CKM_RSA_PKCS: crypt | sign | wrap, p11.CKM_RSA_PKCS_OAEP: crypt | wrap, p11.CKM_RSA_PKCS_PSS: sign, p11.CKM_ECDSA: sign | curves,
		p11.CKM_EC_EDWARDS_KEY_PAIR_GEN: generate | curves, p11.CKM_EDDSA: sign | curves, p11.CKM_ECDH1_DERIVE: p11.CKF_DERIVE | curves,
		p11.CKM_MD5: p11.CKF_DIGEST, p11.CKM_MD5_RSA_PKCS: sign,
	}[m.Type]
	for _, h := range cardHashes() {
		switch m.Type {
		case h.Type:
			flags, ok = p11.CKF_DIGEST, true
		case h.HMAC, h.HMACGeneral, h.PKCS1, h.PSS:
			flags, ok = sign, true
		case h.ECDSA:
			flags, ok = sign|curves, true
		case h.KeyGen:
			flags, ok = generate, true
		}
	}
	for _, h := range hostHashes() {
		switch m.Type {
		case h.Type:
			flags, ok = p11.CKF_DIGEST, true
		case h.PKCS1:
			flags, ok = sign, true
		case h.ECDSA:
			flags, ok = sign|curves, true
		}
	}
	if m.Flags &= flags; !ok || m.Flags == 0 {
		return m, false
	}
	if m.Flags&p11.CKF_DIGEST == 0 {
		m.Flags |= p11.CKF_HW
	}
	facts, _ := p11.MechanismFacts(m.Type)
	for _, kt := range facts.KeyTypes {
		switch {
		case kt == p11.CKK_RSA:
			m.MinKeySize, m.MaxKeySize = minRSA, maxRSA
		case isHMAC(kt):
			m.MinKeySize, m.MaxKeySize = minSecret, maxSecret
		}
	}
	return m, true
}

// cardHashes are the hashes that the card knows.
func cardHashes() []p11.Hash {
	return hashes(p11.CKM_SHA_1, p11.CKM_SHA224, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512)
}

// hostHashes are those that are made here for signatures of the card.
func hostHashes() []p11.Hash {
	return hashes(p11.CKM_SHA3_224, p11.CKM_SHA3_256, p11.CKM_SHA3_384, p11.CKM_SHA3_512)
}

func hashes(types ...p11.MechanismType) (list []p11.Hash) {
	for _, m := range types {
		if h, ok := p11.HashOf(m); ok {
			list = append(list, h)
		}
	}
	return list
}

// hmacKeyMade is the type of the key for HMAC that a mechanism makes.
func hmacKeyMade(m p11.MechanismType) (p11.KeyType, bool) {
	for _, h := range cardHashes() {
		if facts, ok := p11.MechanismFacts(m); ok && m == h.KeyGen {
			return facts.KeyTypes[0], true
		}
	}
	return p11.CKK_GENERIC_SECRET, m == p11.CKM_GENERIC_SECRET_KEY_GEN
}

// isHMAC says whether keys of a type are those for HMAC.
func isHMAC(kt p11.KeyType) bool {
	for _, h := range cardHashes() {
		if own, _ := hmacKeyMade(h.KeyGen); own == kt {
			return true
		}
	}
	return kt == p11.CKK_GENERIC_SECRET
}

// macOf is the hash of an HMAC, its keyword, and whether its length is the parameter's.
func macOf(m p11.MechanismType) (h p11.Hash, keyword string, general, ok bool) {
	words := map[p11.MechanismType]string{p11.CKM_SHA_1: "SHA-1", p11.CKM_SHA224: "SHA-224", p11.CKM_SHA256: "SHA-256", p11.CKM_SHA384: "SHA-384", p11.CKM_SHA512: "SHA-512"}
	for _, h := range cardHashes() {
		if m == h.HMAC || m == h.HMACGeneral {
			return h, words[h.Type], m == h.HMACGeneral, true
		}
	}
	return h, "", false, false
}
