package swtok

import (
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

func runGMAC(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, v.Key))
		m := p11.Mechanism{Type: p11.CKM_AES_GMAC, Param: p11.IV(tokentest.Hex(t, v.IV))}
		v.check(t, verifyAll(c, m, key, tokentest.Hex(t, v.Msg), tokentest.Hex(t, v.Tag)))
	}
}

// hashIn is the hash that the name of a file of vectors ends in.
func hashIn(t *testing.T) p11.MechanismType {
	t.Helper()
	for name, h := range map[string]p11.MechanismType{
		"sha1": p11.CKM_SHA_1, "sha224": p11.CKM_SHA224, "sha256": p11.CKM_SHA256, "sha384": p11.CKM_SHA384, "sha512": p11.CKM_SHA512,
	} {
		if strings.HasSuffix(t.Name(), name) {
			return h
		}
	}
	t.Fatal("no hash in the name")
	return 0
}

func runHKDF(t *testing.T, c *Crypto, g *vectorGroup) {
	for i := range g.Tests {
		v := &g.Tests[i]
		base := tokentest.Secret(t, p11.CKK_HKDF, tokentest.Hex(t, v.IKM))
		p := &p11.HKDFParams{Extract: true, Expand: true, Hash: hashIn(t), Salt: tokentest.Hex(t, v.Salt), Info: tokentest.Hex(t, v.Info)}
		a, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_HKDF_DERIVE, Param: p}, base, secretTemplate(p11.CKK_GENERIC_SECRET, v.Size))
		got, _ := a.Get(p11.CKA_VALUE)
		v.check(t, same(got, tokentest.Hex(t, v.OKM), err))
	}
}

func runPBKDF2(t *testing.T, c *Crypto, g *vectorGroup) {
	prf := map[p11.MechanismType]p11.PBKDF2PRF{
		p11.CKM_SHA_1: p11.CKP_PKCS5_PBKD2_HMAC_SHA1, p11.CKM_SHA224: p11.CKP_PKCS5_PBKD2_HMAC_SHA224, p11.CKM_SHA256: p11.CKP_PKCS5_PBKD2_HMAC_SHA256,
		p11.CKM_SHA384: p11.CKP_PKCS5_PBKD2_HMAC_SHA384, p11.CKM_SHA512: p11.CKP_PKCS5_PBKD2_HMAC_SHA512,
	}[hashIn(t)]
	for i := range g.Tests {
		v := &g.Tests[i]
		p := &p11.PBKD2Params{Salt: tokentest.Hex(t, v.Salt), Iterations: v.Iterations, PRF: prf, Password: tokentest.Hex(t, v.Password)}
		a, err := c.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_PKCS5_PBKD2, Param: p}, secretTemplate(p11.CKK_GENERIC_SECRET, v.DKLen))
		got, _ := a.Get(p11.CKA_VALUE)
		v.check(t, same(got, tokentest.Hex(t, v.DK), err))
	}
}
