package swtok

import (
	"crypto"

	"p11fs/p11"
)

// kind says which code serves a mechanism.
type kind int

const (
	kindGenRSA kind = iota
	kindGenEC
	kindGenAES
	kindGenSecret
	kindRSAPKCS     // PKCS#1 v1.5 over data as given
	kindRSAPKCSHash // over a digest
	kindPSS         // over a digest as given
	kindPSSHash
	kindRSAX509
	kindOAEP
	kindRSAAES // OAEP over a one-time AES key, KWP under it
	kindECDSA  // over a digest as given
	kindECDSAHash
	kindECDH
	kindDigest
	kindHMAC
	kindHMACGeneral
	kindECB
	kindCBC
	kindCBCPad
	kindCTR
	kindGCM
	kindKW
	kindKWP
)

// A mechanism is one line of the table.
type mechanism struct {
	p11.MechanismInfo
	kind kind
	hash crypto.Hash
}

const (
	flagsSign   = p11.CKF_SIGN | p11.CKF_VERIFY
	flagsCipher = p11.CKF_ENCRYPT | p11.CKF_DECRYPT
	flagsWrap   = p11.CKF_WRAP | p11.CKF_UNWRAP
	flagsRaw    = flagsCipher | flagsSign | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER | flagsWrap
	flagsEC     = p11.CKF_EC_F_P | p11.CKF_EC_NAMEDCURVE | p11.CKF_EC_UNCOMPRESS
)

// The largest RSA modulus, as stock openCryptoki has it: a longer key of ours
// could not be used by stock programs on the same token.
const maxRSABits = 4096

// mechanismTable returns the mechanisms that p can do, in the fixed order of
// Crypto.Mechanisms. Where stock openCryptoki 3.8 has the mechanism, its flags
// and sizes are the same, so that a program sees one token whichever daemon
// runs; only the smallest RSA size follows the provider. The unit of sizes is
// the standard's: bits for RSA, EC and generic secrets, bytes for AES.
func mechanismTable(p Provider) ([]p11.MechanismInfo, map[p11.MechanismType]*mechanism) {
	rsa := func(t p11.MechanismType, least uint64, f p11.Flags, k kind, h crypto.Hash) mechanism {
		return mechanism{p11.MechanismInfo{Type: t, MinKeySize: max(least, uint64(p.MinRSABits())), MaxKeySize: maxRSABits, Flags: f}, k, h}
	}
	ec := func(t p11.MechanismType, f p11.Flags, k kind, h crypto.Hash) mechanism {
		return mechanism{p11.MechanismInfo{Type: t, MinKeySize: 256, MaxKeySize: 521, Flags: f | flagsEC}, k, h}
	}
	aes := func(t p11.MechanismType, f p11.Flags, k kind) mechanism {
		return mechanism{p11.MechanismInfo{Type: t, MinKeySize: 16, MaxKeySize: 32, Flags: f}, k, 0}
	}
	dig := func(t p11.MechanismType, h crypto.Hash) mechanism {
		return mechanism{p11.MechanismInfo{Type: t, Flags: p11.CKF_DIGEST}, kindDigest, h}
	}
	mac := func(t p11.MechanismType, k kind, h crypto.Hash) mechanism {
		return mechanism{p11.MechanismInfo{Type: t, Flags: flagsSign}, k, h}
	}
	table := []mechanism{
		// Stock's, in stock's order.
		rsa(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, 512, p11.CKF_GENERATE_KEY_PAIR, kindGenRSA, 0),
		rsa(p11.CKM_RSA_PKCS, 512, flagsRaw, kindRSAPKCS, 0),
		rsa(p11.CKM_RSA_PKCS_PSS, 1024, flagsSign, kindPSS, 0),
		rsa(p11.CKM_SHA1_RSA_PKCS_PSS, 1024, flagsSign, kindPSSHash, crypto.SHA1),
		rsa(p11.CKM_SHA256_RSA_PKCS_PSS, 1024, flagsSign, kindPSSHash, crypto.SHA256),
		rsa(p11.CKM_SHA384_RSA_PKCS_PSS, 1024, flagsSign, kindPSSHash, crypto.SHA384),
		rsa(p11.CKM_SHA512_RSA_PKCS_PSS, 1024, flagsSign, kindPSSHash, crypto.SHA512),
		rsa(p11.CKM_RSA_X_509, 512, flagsRaw, kindRSAX509, 0),
		rsa(p11.CKM_RSA_PKCS_OAEP, 1024, flagsCipher|flagsWrap, kindOAEP, 0),
		rsa(p11.CKM_MD5_RSA_PKCS, 512, flagsSign, kindRSAPKCSHash, crypto.MD5),
		rsa(p11.CKM_SHA1_RSA_PKCS, 512, flagsSign, kindRSAPKCSHash, crypto.SHA1),
		dig(p11.CKM_SHA_1, crypto.SHA1),
		mac(p11.CKM_SHA_1_HMAC, kindHMAC, crypto.SHA1),
		mac(p11.CKM_SHA_1_HMAC_GENERAL, kindHMACGeneral, crypto.SHA1),
		dig(p11.CKM_SHA256, crypto.SHA256),
		mac(p11.CKM_SHA256_HMAC, kindHMAC, crypto.SHA256),
		mac(p11.CKM_SHA256_HMAC_GENERAL, kindHMACGeneral, crypto.SHA256),
		dig(p11.CKM_SHA384, crypto.SHA384),
		mac(p11.CKM_SHA384_HMAC, kindHMAC, crypto.SHA384),
		mac(p11.CKM_SHA384_HMAC_GENERAL, kindHMACGeneral, crypto.SHA384),
		dig(p11.CKM_SHA512, crypto.SHA512),
		mac(p11.CKM_SHA512_HMAC, kindHMAC, crypto.SHA512),
		mac(p11.CKM_SHA512_HMAC_GENERAL, kindHMACGeneral, crypto.SHA512),
		dig(p11.CKM_MD5, crypto.MD5),
		mac(p11.CKM_MD5_HMAC, kindHMAC, crypto.MD5),
		mac(p11.CKM_MD5_HMAC_GENERAL, kindHMACGeneral, crypto.MD5),
		aes(p11.CKM_AES_KEY_GEN, p11.CKF_GENERATE, kindGenAES),
		aes(p11.CKM_AES_ECB, flagsCipher|flagsWrap, kindECB),
		aes(p11.CKM_AES_CBC, flagsCipher|flagsWrap, kindCBC),
		aes(p11.CKM_AES_CBC_PAD, flagsCipher|flagsWrap, kindCBCPad),
		{p11.MechanismInfo{Type: p11.CKM_GENERIC_SECRET_KEY_GEN, MinKeySize: minSecretBits, MaxKeySize: maxSecretBits, Flags: p11.CKF_GENERATE}, kindGenSecret, 0},

		// Ours.
		rsa(p11.CKM_SHA224_RSA_PKCS, 512, flagsSign, kindRSAPKCSHash, crypto.SHA224),
		rsa(p11.CKM_SHA256_RSA_PKCS, 512, flagsSign, kindRSAPKCSHash, crypto.SHA256),
		rsa(p11.CKM_SHA384_RSA_PKCS, 1024, flagsSign, kindRSAPKCSHash, crypto.SHA384),
		rsa(p11.CKM_SHA512_RSA_PKCS, 1024, flagsSign, kindRSAPKCSHash, crypto.SHA512),
		rsa(p11.CKM_SHA224_RSA_PKCS_PSS, 1024, flagsSign, kindPSSHash, crypto.SHA224),
		rsa(p11.CKM_RSA_AES_KEY_WRAP, 1024, flagsWrap, kindRSAAES, 0),
		ec(p11.CKM_EC_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, kindGenEC, 0),
		ec(p11.CKM_ECDSA, flagsSign, kindECDSA, 0),
		ec(p11.CKM_ECDSA_SHA1, flagsSign, kindECDSAHash, crypto.SHA1),
		ec(p11.CKM_ECDSA_SHA224, flagsSign, kindECDSAHash, crypto.SHA224),
		ec(p11.CKM_ECDSA_SHA256, flagsSign, kindECDSAHash, crypto.SHA256),
		ec(p11.CKM_ECDSA_SHA384, flagsSign, kindECDSAHash, crypto.SHA384),
		ec(p11.CKM_ECDSA_SHA512, flagsSign, kindECDSAHash, crypto.SHA512),
		ec(p11.CKM_ECDH1_DERIVE, p11.CKF_DERIVE, kindECDH, 0),
		ec(p11.CKM_ECDH1_COFACTOR_DERIVE, p11.CKF_DERIVE, kindECDH, 0),
		aes(p11.CKM_AES_CTR, flagsCipher, kindCTR),
		aes(p11.CKM_AES_GCM, flagsCipher|flagsWrap, kindGCM),
		aes(p11.CKM_AES_KEY_WRAP, flagsCipher|flagsWrap, kindKW),
		aes(p11.CKM_AES_KEY_WRAP_PAD, flagsCipher|flagsWrap, kindKWP),
		aes(p11.CKM_AES_KEY_WRAP_KWP, flagsCipher|flagsWrap, kindKWP),
		dig(p11.CKM_SHA224, crypto.SHA224),
		mac(p11.CKM_SHA224_HMAC, kindHMAC, crypto.SHA224),
		mac(p11.CKM_SHA224_HMAC_GENERAL, kindHMACGeneral, crypto.SHA224),
		dig(p11.CKM_SHA512_256, crypto.SHA512_256),
		mac(p11.CKM_SHA512_256_HMAC, kindHMAC, crypto.SHA512_256),
		mac(p11.CKM_SHA512_256_HMAC_GENERAL, kindHMACGeneral, crypto.SHA512_256),
	}
	list := make([]p11.MechanismInfo, 0, len(table))
	byType := make(map[p11.MechanismType]*mechanism, len(table))
	for i := range table {
		m := &table[i]
		if m.kind == kindRSAX509 && !p.RawRSA() {
			continue
		}
		list = append(list, m.MechanismInfo)
		byType[m.Type] = m
	}
	return list, byType
}
