package lite

import (
	"cmp"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// Kind is the name of the kind of token that this package is.
const Kind = "lite"

// NewKind is the kind of token whose cryptography p does, with RSA on cards where this
// machine has some.
func NewKind(p swtok.Provider, log *slog.Logger) tokens.Kind {
	return newKind(p, thisMachine(), func() swtok.Provider {
		if runtime.GOARCH != "s390x" {
			return nil
		}
		return findCards(p, log, "libica.so.4", "libica.so.3")
	})
}

// newKind is that of a machine. cards is asked once a token is opened for a provider whose
// RSA is on cards, or nil.
func newKind(p swtok.Provider, m machine, cards func() swtok.Provider) tokens.Kind {
	cards = sync.OnceValue(cards)
	return swtok.NewKindLike(Kind, "libpkcs11_ica", func(random io.Reader) *swtok.Crypto {
		p, m := p, m
		if with := cards(); with != nil {
			p, m.rsa = with, true
		}
		c := swtok.NewCrypto(p, random)
		c.Arrange(m.arrange)
		return c
	})
}

// arrange puts the list in stock's order: what stock has on a machine that has all, by
// number, and then the rest as the software token has it. It flags what is done in
// hardware.
func (m machine) arrange(list []p11.MechanismInfo) {
	slices.SortStableFunc(list, func(a, b p11.MechanismInfo) int {
		x, y := inStock(a.Type), inStock(b.Type)
		switch {
		case x && y:
			return cmp.Compare(a.Type, b.Type)
		case x:
			return -1
		case y:
			return 1
		}
		return 0
	})
	for i, info := range list {
		if m.does(info) {
			list[i].Flags |= p11.CKF_HW
		}
	}
}

// inStock says whether stock's ICA token of 3.8 has a mechanism.
func inStock(t p11.MechanismType) bool {
	for _, hash := range []p11.MechanismType{p11.CKM_MD5, p11.CKM_SHA_1, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512} {
		if h, _ := p11.HashOf(hash); slices.Contains([]p11.MechanismType{h.Type, h.HMAC, h.HMACGeneral, h.PKCS1}, t) {
			return true
		}
	}
	return slices.Contains([]p11.MechanismType{
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_RSA_PKCS, p11.CKM_RSA_X_509, p11.CKM_RSA_PKCS_OAEP, p11.CKM_RSA_PKCS_PSS,
		p11.CKM_DES_KEY_GEN, p11.CKM_DES3_KEY_GEN, p11.CKM_AES_KEY_GEN, p11.CKM_GENERIC_SECRET_KEY_GEN,
		p11.CKM_DES_ECB, p11.CKM_DES_CBC, p11.CKM_DES_CBC_PAD, p11.CKM_DES_OFB64, p11.CKM_DES_CFB64, p11.CKM_DES_CFB8,
		p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD, p11.CKM_DES3_MAC, p11.CKM_DES3_MAC_GENERAL,
		p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_AES_OFB, p11.CKM_AES_CFB8, p11.CKM_AES_CFB64, p11.CKM_AES_CFB128,
		p11.CKM_AES_CTR, p11.CKM_AES_GCM, p11.CKM_AES_MAC, p11.CKM_AES_MAC_GENERAL,
	}, t)
}
