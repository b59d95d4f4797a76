package swtok

import (
	"cmp"
	"context"
	"crypto"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// A row is one line of the mechanism table: a type, sizes, flags, and the family
// that serves it.
type row struct {
	p11.MechanismInfo
	family
}

// A family is how mechanisms of one sort work: a function for each thing that they
// may do. The flags of a row say which of them it does.
type family struct {
	// uses begin operations. Encryption and decryption wrap and unwrap too.
	uses uses
	// generate makes a key of type makes, or of any if that is 0, which is no secret
	// key's: it adds what the template lacks.
	generate     func(ctx context.Context, u call, template *p11.Attributes) error
	generatePair func(ctx context.Context, u call, public, private *p11.Attributes) error
	makes        p11.KeyType
	// generateGroup makes domain parameters for keys of type makes.
	generateGroup func(ctx context.Context, u call, template *p11.Attributes) error
	// derive makes the value of a secret key of n bytes, or of its natural length
	// if n is negative.
	derive func(u call, base any, kt p11.KeyType, n int) ([]byte, error)
	// derivePublic adds to the template what a public key of the base key is.
	derivePublic func(u call, base *tokens.Object, template p11.Attributes) (p11.Attributes, error)
	// deriveAll is derive where there is more than one value to make, nil for what is
	// not wanted, or something beside keys.
	deriveAll func(u call, base any, wants []wanted) (values [][]byte, out []byte, err error)
	// encapsulate makes such a value, and what tells it to the owner of the public key;
	// decapsulate takes it out of that.
	encapsulate func(u call, public any, kt p11.KeyType, n int) (ciphertext, value []byte, err error)
	decapsulate func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error)
	// wraps is how keys are put into what is encrypted.
	wraps wrapping
	// needs, unless nil, says whether the provider has what the family takes; takes is
	// what that is, for people, such as "the mode XTS".
	needs func(Provider) bool
	takes string
}

// uses are the functions that begin an operation, by CKF_DIGEST, CKF_SIGN,
// CKF_VERIFY, CKF_SIGN_RECOVER, CKF_VERIFY_RECOVER, CKF_ENCRYPT and CKF_DECRYPT.
type uses map[p11.Flags]begin

// A begin begins a use with a parsed key, which is held as long as its part is
// open, and is nil for a digest.
type begin func(u call, key any) (part, error)

// with is a begin that takes keys of type K, and of sizes that the row has.
func with[K any](f func(u call, k K) (part, error)) begin {
	type sizer interface{ size() int }
	_, sized := any(*new(K)).(sizer)
	return func(u call, key any) (part, error) {
		k, err := keyOf[K](key)
		if err == nil && sized {
			err = u.fits(key.(sizer).size())
		}
		if err != nil {
			return nil, err
		}
		return f(u, k)
	}
}

const (
	flagsSign   = p11.CKF_SIGN | p11.CKF_VERIFY
	flagsCipher = p11.CKF_ENCRYPT | p11.CKF_DECRYPT
	flagsWrap   = p11.CKF_WRAP | p11.CKF_UNWRAP
	flagsKEM    = p11.CKF_ENCAPSULATE | p11.CKF_DECAPSULATE
	flagsAEAD   = flagsCipher | p11.CKF_MESSAGE_ENCRYPT | p11.CKF_MESSAGE_DECRYPT
	flagsRaw    = flagsCipher | flagsSign | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER | flagsWrap
)

// The shortest and the longest RSA modulus, as openCryptoki has them. They are the same
// with each provider, so that one does not find a key that it cannot use. Release 3.8
// uses keys of at most 4096 bits.
const (
	minRSABits = 512
	maxRSABits = 16384
)

// Generic secrets are made of 80 to 2048 bits, as stock openCryptoki has it.
const (
	minSecretBits = 80
	maxSecretBits = 2048
)

// allRows returns the rows in the order of Crypto.Mechanisms, with the sizes of p, also
// those that p cannot serve.
// Flags and sizes are those of openCryptoki 3.27, whose ranges hold those of 3.8. The unit of sizes is the standard's: bits for
// RSA, EC and generic secrets, bytes for AES and the post-quantum schemes.
func allRows(p Provider) []row {
	leastEC, mostEC := curveSizes(p)
	plain := func(t p11.MechanismType, least, most uint64, flags p11.Flags, f family) row {
		return row{p11.MechanismInfo{Type: t, MinKeySize: least, MaxKeySize: most, Flags: flags}, f}
	}
	rsa := func(t p11.MechanismType, flags p11.Flags, f family) row {
		return plain(t, minRSABits, maxRSABits, flags, f)
	}
	ec := func(t p11.MechanismType, flags p11.Flags, f family) row {
		return plain(t, leastEC, mostEC, flags|p11.CKF_EC_F_P|p11.CKF_EC_NAMEDCURVE|p11.CKF_EC_UNCOMPRESS, f)
	}
	octet := func(t p11.MechanismType, flags p11.Flags, f family) row {
		return plain(t, 255, 448, flags|p11.CKF_EC_F_P|p11.CKF_EC_NAMEDCURVE|p11.CKF_EC_COMPRESS, f)
	}
	group := func(t p11.MechanismType, kt p11.KeyType, flags p11.Flags, f family) row {
		return plain(t, pkix.MinGroupBits, groupBits(kt), flags, f)
	}
	aes := func(t p11.MechanismType, flags p11.Flags, f family) row { return plain(t, 16, 32, flags, f) }
	des := func(t p11.MechanismType, flags p11.Flags, f family) row { return plain(t, 8, 8, flags, f) }
	des3 := func(t p11.MechanismType, flags p11.Flags, f family) row { return plain(t, 24, 24, flags, f) }
	des23 := func(t p11.MechanismType, flags p11.Flags, f family) row { return plain(t, 16, 24, flags, f) }
	rows := []row{
		rsa(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generateRSA()),
		rsa(p11.CKM_RSA_PKCS, flagsRaw|flagsKEM, rsaPKCS1()),
		rsa(p11.CKM_RSA_PKCS_PSS, flagsSign, rsaPSS(0)),
		rsa(p11.CKM_RSA_X_509, flagsRaw, rsaX509()),
		rsa(p11.CKM_RSA_PKCS_OAEP, flagsCipher|flagsWrap|flagsKEM, rsaOAEP()),
		rsa(p11.CKM_RSA_AES_KEY_WRAP, flagsWrap, rsaAES()),
		ec(p11.CKM_EC_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generateEC()),
		ec(p11.CKM_ECDSA, flagsSign, ecdsaOf(0)),
		ec(p11.CKM_ECDH1_DERIVE, p11.CKF_DERIVE|p11.CKF_ENCAPSULATE|p11.CKF_DECAPSULATE, ecdh1()),
		ec(p11.CKM_ECDH1_COFACTOR_DERIVE, p11.CKF_DERIVE|p11.CKF_ENCAPSULATE|p11.CKF_DECAPSULATE, ecdh1()),
		plain(p11.CKM_PUB_KEY_FROM_PRIV_KEY, 0, 0, p11.CKF_DERIVE, family{derivePublic: call.publicHalf}),
		ec(p11.CKM_ECDH_AES_KEY_WRAP, flagsWrap, ecdhAES[ecPeer, ecAgreer]()),
		ec(p11.CKM_ECDH_COF_AES_KEY_WRAP, flagsWrap, ecdhAES[*ecPublic, *ecPrivate]()),
		octet(p11.CKM_ECDH_X_AES_KEY_WRAP, flagsWrap, ecdhAES[*montgomeryPublic, *montgomeryPrivate]()),
		octet(p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generateOctet(p11.CKK_EC_EDWARDS)),
		octet(p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generateOctet(p11.CKK_EC_MONTGOMERY)),
		octet(p11.CKM_EDDSA, flagsSign, eddsa()),
		group(p11.CKM_DH_PKCS_KEY_PAIR_GEN, p11.CKK_DH, p11.CKF_GENERATE_KEY_PAIR, generateInGroup(p11.CKK_DH)),
		group(p11.CKM_DH_PKCS_DERIVE, p11.CKK_DH, p11.CKF_DERIVE|flagsKEM, dhDerive()),
		group(p11.CKM_DH_PKCS_PARAMETER_GEN, p11.CKK_DH, p11.CKF_GENERATE, groups(p11.CKK_DH)),
		group(p11.CKM_DSA_KEY_PAIR_GEN, p11.CKK_DSA, p11.CKF_GENERATE_KEY_PAIR, generateInGroup(p11.CKK_DSA)),
		group(p11.CKM_DSA_PARAMETER_GEN, p11.CKK_DSA, p11.CKF_GENERATE, groups(p11.CKK_DSA)),
		group(p11.CKM_DSA, p11.CKK_DSA, flagsSign, dsaOf(0)),
		aes(p11.CKM_AES_KEY_GEN, p11.CKF_GENERATE, generateSecret(p11.CKK_AES, 1, nil)),
		plain(p11.CKM_AES_XTS_KEY_GEN, 32, 64, p11.CKF_GENERATE, generateSecret(p11.CKK_AES_XTS, 1, halvesDiffer)),
		aes(p11.CKM_AES_ECB, flagsCipher|flagsWrap, ecbMode(aesBlock)),
		aes(p11.CKM_AES_CBC, flagsCipher|flagsWrap, cbcMode(aesBlock)),
		aes(p11.CKM_AES_CBC_PAD, flagsCipher|flagsWrap, cbcPad()),
		aes(p11.CKM_AES_CTR, flagsCipher|flagsWrap, aesCTR()),
		aes(p11.CKM_AES_OFB, flagsCipher|flagsWrap, streamMode("OFB")),
		aes(p11.CKM_AES_CFB1, flagsCipher|flagsWrap, streamMode("CFB1")),
		aes(p11.CKM_AES_CFB8, flagsCipher|flagsWrap, streamMode("CFB8")),
		aes(p11.CKM_AES_CFB64, flagsCipher|flagsWrap, streamMode("CFB64")),
		aes(p11.CKM_AES_CFB128, flagsCipher|flagsWrap, streamMode("CFB")),
		aes(p11.CKM_AES_CTS, flagsCipher|flagsWrap, wholeMode("CBC-CTS", aesBlock, maxHeld)),
		aes(p11.CKM_AES_GCM, flagsAEAD|flagsWrap, aesGCM()),
		aes(p11.CKM_AES_CCM, flagsAEAD|flagsWrap, aesCCM()),
		aes(p11.CKM_AES_MAC, flagsSign, cbcMACs(aesBlock, false)),
		aes(p11.CKM_AES_MAC_GENERAL, flagsSign, cbcMACs(aesBlock, true)),
		aes(p11.CKM_AES_GMAC, flagsSign, gmacs()),
		aes(p11.CKM_AES_CMAC, flagsSign, cmacs(aesBlock, false)),
		aes(p11.CKM_AES_CMAC_GENERAL, flagsSign, cmacs(aesBlock, true)),
		plain(p11.CKM_AES_XTS, 32, 64, flagsCipher|flagsWrap, wholeMode("XTS", aesBlock, maxXTS)),
		aes(p11.CKM_AES_KEY_WRAP, flagsCipher|flagsWrap, aesKW()),
		aes(p11.CKM_AES_KEY_WRAP_PAD, flagsCipher|flagsWrap, aesKWP()),
		aes(p11.CKM_AES_KEY_WRAP_KWP, flagsCipher|flagsWrap, aesKWP()),
		aes(p11.CKM_AES_KEY_WRAP_PKCS7, flagsCipher|flagsWrap, aesKWPKCS7()),
		aes(p11.CKM_P11FS_STREAM, flagsCipher, aesStream()),
		des(p11.CKM_DES_KEY_GEN, p11.CKF_GENERATE, generateSecret(p11.CKK_DES, 1, oddParity)),
		des(p11.CKM_DES_ECB, flagsCipher|flagsWrap, ecbMode(desBlock)),
		des(p11.CKM_DES_CBC, flagsCipher|flagsWrap, cbcMode(desBlock)),
		des(p11.CKM_DES_CBC_PAD, flagsCipher|flagsWrap, cbcPad()),
		plain(p11.CKM_DES_OFB64, 8, 24, flagsCipher|flagsWrap, streamMode("OFB")),
		plain(p11.CKM_DES_CFB8, 8, 24, flagsCipher|flagsWrap, streamMode("CFB8")),
		plain(p11.CKM_DES_CFB64, 8, 24, flagsCipher|flagsWrap, streamMode("CFB")),
		plain(p11.CKM_DES2_KEY_GEN, 16, 16, p11.CKF_GENERATE, generateSecret(p11.CKK_DES2, 1, oddParity)),
		plain(p11.CKM_DES3_KEY_GEN, 24, 24, p11.CKF_GENERATE, generateSecret(p11.CKK_DES3, 1, oddParity)),
		des3(p11.CKM_DES3_ECB, flagsCipher|flagsWrap, ecbMode(desBlock)),
		des3(p11.CKM_DES3_CBC, flagsCipher|flagsWrap, cbcMode(desBlock)),
		des3(p11.CKM_DES3_CBC_PAD, flagsCipher|flagsWrap, cbcPad()),
		des23(p11.CKM_DES3_MAC, flagsSign, cbcMACs(desBlock, false)),
		des23(p11.CKM_DES3_MAC_GENERAL, flagsSign, cbcMACs(desBlock, true)),
		des23(p11.CKM_DES3_CMAC, flagsSign, cmacs(desBlock, false)),
		des23(p11.CKM_DES3_CMAC_GENERAL, flagsSign, cmacs(desBlock, true)),
		plain(p11.CKM_CHACHA20_KEY_GEN, chachaKey, chachaKey, p11.CKF_GENERATE, generateSecret(p11.CKK_CHACHA20, 1, nil)),
		plain(p11.CKM_CHACHA20, 8*chachaKey, 8*chachaKey, flagsCipher|flagsWrap, chacha()),
		plain(p11.CKM_CHACHA20_POLY1305, 8*chachaKey, 8*chachaKey, flagsAEAD, chachaPoly()),
		plain(p11.CKM_POLY1305_KEY_GEN, chachaKey, chachaKey, p11.CKF_GENERATE, generateSecret(p11.CKK_POLY1305, 1, nil)),
		plain(p11.CKM_POLY1305, chachaKey, chachaKey, flagsSign, poly1305MACs()),
		plain(p11.CKM_SSL3_PRE_MASTER_KEY_GEN, masterSize, masterSize, p11.CKF_GENERATE, preMasterMake()),
		plain(p11.CKM_TLS_PRE_MASTER_KEY_GEN, masterSize, masterSize, p11.CKF_GENERATE, preMasterMake()),
		plain(p11.CKM_SSL3_MD5_MAC, 8*masterSize, 8*masterSize, flagsSign, ssl3MACs(crypto.MD5, 48)),
		plain(p11.CKM_SSL3_SHA1_MAC, 8*masterSize, 8*masterSize, flagsSign, ssl3MACs(crypto.SHA1, 40)),
		plain(p11.CKM_TLS_MAC, masterSize, maxSecret, flagsSign, tlsMACs()),
		plain(p11.CKM_TLS12_MAC, masterSize, maxSecret, flagsSign, tlsMACs()),
		plain(p11.CKM_HKDF_KEY_GEN, minSecretBits, maxSecretBits, p11.CKF_GENERATE, generateSecret(p11.CKK_HKDF, 8, nil)),
		plain(p11.CKM_PKCS5_PBKD2, 8, secretBits, p11.CKF_GENERATE, pbkdf2Make()),
		plain(p11.CKM_GENERIC_SECRET_KEY_GEN, minSecretBits, maxSecretBits, p11.CKF_GENERATE, generateSecret(p11.CKK_GENERIC_SECRET, 8, nil)),
	}
	rows = append(rows, derivations()...)
	rows = append(rows, pqcRows()...)
	for _, h := range p11.Hashes() {
		if h.Go == 0 {
			continue
		}
		for _, r := range []row{
			plain(h.Type, 0, 0, p11.CKF_DIGEST, digests(h.Go)),
			plain(h.HMAC, 0, 0, flagsSign, hmacs(h.Go, false)),
			plain(h.KeyGen, minSecretBits, maxSecretBits, p11.CKF_GENERATE, generateHMACKey(h)),
			plain(h.Derive, 8, 8*h.Size, p11.CKF_DERIVE, hashDerive(h.Go)),
			plain(h.HMACGeneral, 0, 0, flagsSign, hmacs(h.Go, true)),
			rsa(h.PKCS1, flagsSign, rsaPKCS1Of(h)),
			rsa(h.PSS, flagsSign, rsaPSS(h.Go)),
			ec(h.ECDSA, flagsSign, ecdsaOf(h.Go)),
			group(h.DSA, p11.CKK_DSA, flagsSign, dsaOf(h.Go)),
		} {
			if r.Type != 0 { // the standard has it over this hash
				rows = append(rows, r)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(place(a.Type), place(b.Type)) })
	return rows
}

// place is where the list has a mechanism: in stock's order, and the others after
// those that stock has.
func place(t p11.MechanismType) int {
	stock := [...]p11.MechanismType{
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_DES_KEY_GEN, p11.CKM_DES3_KEY_GEN, p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_PSS, p11.CKM_SHA1_RSA_PKCS_PSS,
		p11.CKM_SHA256_RSA_PKCS_PSS, p11.CKM_SHA384_RSA_PKCS_PSS, p11.CKM_SHA512_RSA_PKCS_PSS,
		p11.CKM_RSA_X_509, p11.CKM_RSA_PKCS_OAEP, p11.CKM_MD5_RSA_PKCS, p11.CKM_SHA1_RSA_PKCS, p11.CKM_DH_PKCS_DERIVE, p11.CKM_DH_PKCS_KEY_PAIR_GEN,
		p11.CKM_DES_ECB, p11.CKM_DES_CBC, p11.CKM_DES_CBC_PAD, p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD,
		p11.CKM_SHA_1, p11.CKM_SHA_1_HMAC, p11.CKM_SHA_1_HMAC_GENERAL,
		p11.CKM_SHA256, p11.CKM_SHA256_HMAC, p11.CKM_SHA256_HMAC_GENERAL,
		p11.CKM_SHA384, p11.CKM_SHA384_HMAC, p11.CKM_SHA384_HMAC_GENERAL,
		p11.CKM_SHA512, p11.CKM_SHA512_HMAC, p11.CKM_SHA512_HMAC_GENERAL,
		p11.CKM_MD5, p11.CKM_MD5_HMAC, p11.CKM_MD5_HMAC_GENERAL,
		p11.CKM_SSL3_PRE_MASTER_KEY_GEN, p11.CKM_SSL3_MASTER_KEY_DERIVE, p11.CKM_SSL3_KEY_AND_MAC_DERIVE, p11.CKM_SSL3_MD5_MAC, p11.CKM_SSL3_SHA1_MAC,
		p11.CKM_AES_KEY_GEN, p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_GENERIC_SECRET_KEY_GEN,
	}
	if i := slices.Index(stock[:], t); i >= 0 {
		return i
	}
	return len(stock)
}

// parseKey makes the key of an object's attributes.
func (c *Crypto) parseKey(a p11.Attributes) (any, error) {
	class, _ := a.Class()
	kt, _ := a.KeyType()
	public := class == p11.CKO_PUBLIC_KEY
	switch {
	case class == p11.CKO_SECRET_KEY && slices.Contains(cipherKeys(), kt):
		return c.parseCipher(kt, a)
	case class == p11.CKO_SECRET_KEY:
		return parseSecret(a)
	case !public && class != p11.CKO_PRIVATE_KEY:
		return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the object is not a key")
	case kt == p11.CKK_RSA && public:
		return c.parseRSAPublic(a)
	case kt == p11.CKK_RSA:
		return c.parseRSAPrivate(a)
	case kt == p11.CKK_EC_EDWARDS || kt == p11.CKK_EC_MONTGOMERY:
		return parseOctet(kt, public, a)
	case kt == p11.CKK_DH || kt == p11.CKK_DSA:
		return c.parseGroupKey(kt, public, a)
	case kt == p11.CKK_EC && public:
		return c.parseECPublic(a)
	case kt == p11.CKK_EC:
		return c.parseECPrivate(a)
	case slices.Contains(pqcTypes(), kt):
		return parsePQC(a, public)
	}
	return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the token does nothing with keys of type %s", kt)
}
