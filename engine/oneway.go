package engine

import (
	"slices"

	"p11fs/p11"
)

// Some functions of a key do what another one does. A grant of one alone is to give no more
// than it says, so they are left out of it:
//
// Who encrypts in a mode whose blocks are added to a key stream, under an IV that he chooses,
// decrypts: what was encrypted under that IV comes out plain. So to encrypt alone is to do it
// under IVs that are chosen here.
//
// Who has a bare block, or a bare private operation, makes every function of it: a key stream
// out of ECB, a decryption out of a signature of RSA without padding. Such a mechanism is
// granted by its name, or with the other function, and not along with all others.

// streaming are the modes in which encryption undoes itself.
func streaming(m p11.MechanismType) bool {
	return bareStream(m) || slices.Contains([]p11.MechanismType{p11.CKM_AES_GCM, p11.CKM_AES_CCM, p11.CKM_CHACHA20_POLY1305, p11.CKM_SALSA20_POLY1305}, m)
}

// bareStream are those of them without a tag, in which decryption encrypts.
func bareStream(m p11.MechanismType) bool {
	return slices.Contains([]p11.MechanismType{
		p11.CKM_AES_CTR, p11.CKM_AES_OFB, p11.CKM_AES_CFB1, p11.CKM_AES_CFB8, p11.CKM_AES_CFB64, p11.CKM_AES_CFB128,
		p11.CKM_DES_OFB8, p11.CKM_DES_OFB64, p11.CKM_DES_CFB8, p11.CKM_DES_CFB64,
		p11.CKM_CHACHA20, p11.CKM_SALSA20, p11.CKM_RC4,
	}, m)
}

// bareBlock are those that give single blocks of the cipher, under an IV that is chosen.
func bareBlock(m p11.MechanismType) bool {
	return slices.Contains([]p11.MechanismType{
		p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_AES_CTS, p11.CKM_AES_MAC, p11.CKM_AES_MAC_GENERAL, p11.CKM_AES_XTS,
		p11.CKM_DES_ECB, p11.CKM_DES_CBC, p11.CKM_DES_CBC_PAD, p11.CKM_DES_MAC, p11.CKM_DES_MAC_GENERAL,
		p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD, p11.CKM_DES3_MAC, p11.CKM_DES3_MAC_GENERAL,
	}, m)
}

// oneWay refuses a use that a grant allows, and by which the key does what none allows. fresh
// says that the IV is none of the caller's choice. The functions are those that a grant would
// have to have.
func (g *granted) oneWay(u *use, m p11.MechanismType, fresh bool) (p11.Flags, error) {
	flag := u.atToken()
	secret := g.key.Class == p11.CKO_SECRET_KEY
	out := flag == p11.CKF_ENCRYPT || flag == p11.CKF_WRAP
	signs := flag == p11.CKF_SIGN || flag == p11.CKF_SIGN_RECOVER
	switch {
	case secret && out && streaming(m) && !u.messages(): // of which each has an IV
		if fresh || g.allows(useOf(p11.CKF_DECRYPT), m) {
			return flag, nil
		}
		return flag | p11.CKF_DECRYPT, p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "with %s, under an IV that is given, who may %s may decrypt, and no grant of yours has that", m.Short(), u.verb),
			"have the IV chosen, by the file encrypt without a mechanism or CKG_GENERATE for messages, or ask who writes the grants for a line: the daemon's log has it")
	case secret && (out || signs) && bareBlock(m), secret && flag == p11.CKF_DECRYPT && bareStream(m):
		if g.named(flag, m) || out && g.gives(p11.CKF_DECRYPT) || signs && g.gives(p11.CKF_ENCRYPT) && g.gives(p11.CKF_DECRYPT) || flag == p11.CKF_DECRYPT && g.gives(p11.CKF_ENCRYPT) {
			return flag, nil
		}
	case m == p11.CKM_RSA_X_509 && (signs || flag == p11.CKF_DECRYPT || flag == p11.CKF_UNWRAP):
		if g.named(flag, m) || g.gives(p11.CKF_DECRYPT) && g.gives(p11.CKF_SIGN) {
			return flag, nil
		}
	default:
		return flag, nil
	}
	return flag, p11.Advise(p11.Errorf(p11.CKR_MECHANISM_INVALID, "who may %s with %s can do more than that, and so a grant has to name it", u.verb, m.Short()),
		"use another mechanism, or ask who writes the grants for a line: the daemon's log has it")
}

// named says whether a grant has the mechanism by its name.
func (g *granted) named(flag p11.Flags, m p11.MechanismType) bool {
	for _, grant := range g.list {
		if grant.Functions&flag != 0 && slices.Contains(grant.Mechanisms, m) {
			return true
		}
	}
	return false
}

// gives says whether a grant has a function, with all mechanisms.
func (g *granted) gives(flag p11.Flags) bool {
	for _, grant := range g.list {
		if grant.Functions&flag != 0 && grant.Mechanisms == nil {
			return true
		}
	}
	return false
}
