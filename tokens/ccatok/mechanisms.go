package ccatok

import "p11fs/p11"

// The sizes of what the card has.
const (
	minRSA, maxRSA       = 512, 4096
	minSecret, maxSecret = 80, 2048 // bits of keys for HMAC
)

// listed is a mechanism of the software token as this one has it: stock's list of 3.8, but
// for the HMACs of MD5, which stock makes of keys that it does not have, and of 3.27's what
// the card does. What the card does is flagged.
func listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	const crypt, sign = p11.CKF_ENCRYPT | p11.CKF_DECRYPT, p11.CKF_SIGN | p11.CKF_VERIFY
	const generate, curves = p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR, p11.CKF_EC_F_P | p11.CKF_EC_NAMEDCURVE | p11.CKF_EC_UNCOMPRESS
	flags, ok := map[p11.MechanismType]p11.Flags{
		p11.CKM_DES_KEY_GEN: generate, p11.CKM_DES3_KEY_GEN: generate, p11.CKM_AES_KEY_GEN: generate, p11.CKM_GENERIC_SECRET_KEY_GEN: generate,
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN: generate, p11.CKM_EC_KEY_PAIR_GEN: generate | curves,
		p11.CKM_DES_CBC: crypt, p11.CKM_DES_CBC_PAD: crypt, p11.CKM_DES3_CBC: crypt, p11.CKM_DES3_CBC_PAD: crypt,
		p11.CKM_AES_ECB: crypt, p11.CKM_AES_CBC: crypt, p11.CKM_AES_CBC_PAD: crypt,
		p11.CKM_RSA_PKCS: crypt | sign, p11.CKM_RSA_PKCS_OAEP: crypt, p11.CKM_RSA_PKCS_PSS: sign, p11.CKM_ECDSA: sign | curves,
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
		switch kt {
		case p11.CKK_RSA:
			m.MinKeySize, m.MaxKeySize = minRSA, maxRSA
		case p11.CKK_GENERIC_SECRET:
			m.MinKeySize, m.MaxKeySize = minSecret, maxSecret
		}
	}
	return m, true
}

// cardHashes are the hashes that the card knows.
func cardHashes() (list []p11.Hash) {
	for _, m := range []p11.MechanismType{p11.CKM_SHA_1, p11.CKM_SHA224, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512} {
		if h, ok := p11.HashOf(m); ok {
			list = append(list, h)
		}
	}
	return list
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
