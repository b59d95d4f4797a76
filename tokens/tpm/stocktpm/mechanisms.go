package stocktpm

import "p11fs/p11"

// A row is a mechanism as stock's token has it.
type row struct {
	t           p11.MechanismType
	least, most uint64
	flags       p11.Flags
}

// rows are the mechanisms of stock's token, in its order. RSA is the TPM's.
func rows() []row {
	const (
		sign   = p11.CKF_SIGN | p11.CKF_VERIFY
		cipher = p11.CKF_ENCRYPT | p11.CKF_DECRYPT | p11.CKF_WRAP | p11.CKF_UNWRAP
		rsa    = p11.CKF_HW | sign
		raw    = rsa | cipher | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER
	)
	return []row{
		{p11.CKM_RSA_PKCS_KEY_PAIR_GEN, leastRSA, mostRSA, p11.CKF_GENERATE_KEY_PAIR},
		{p11.CKM_DES_KEY_GEN, 0, 0, p11.CKF_GENERATE},
		{p11.CKM_DES3_KEY_GEN, 0, 0, p11.CKF_GENERATE},
		{p11.CKM_RSA_PKCS, leastRSA, mostRSA, raw},
		{p11.CKM_MD5_RSA_PKCS, leastRSA, mostRSA, rsa},
		{p11.CKM_SHA1_RSA_PKCS, leastRSA, mostRSA, rsa},
		{p11.CKM_DES_ECB, 0, 0, cipher},
		{p11.CKM_DES_CBC, 0, 0, cipher},
		{p11.CKM_DES_CBC_PAD, 0, 0, cipher},
		{p11.CKM_DES3_ECB, 0, 0, cipher},
		{p11.CKM_DES3_CBC, 0, 0, cipher},
		{p11.CKM_DES3_CBC_PAD, 0, 0, cipher},
		{p11.CKM_SHA_1, 0, 0, p11.CKF_DIGEST},
		{p11.CKM_SHA_1_HMAC, 0, 0, sign},
		{p11.CKM_SHA_1_HMAC_GENERAL, 0, 0, sign},
		{p11.CKM_MD5, 0, 0, p11.CKF_DIGEST},
		{p11.CKM_MD5_HMAC, 0, 0, sign},
		{p11.CKM_MD5_HMAC_GENERAL, 0, 0, sign},
		{p11.CKM_SSL3_PRE_MASTER_KEY_GEN, 48, 48, p11.CKF_GENERATE},
		{p11.CKM_SSL3_MASTER_KEY_DERIVE, 48, 48, p11.CKF_DERIVE},
		{p11.CKM_SSL3_KEY_AND_MAC_DERIVE, 48, 48, p11.CKF_DERIVE},
		{p11.CKM_SSL3_MD5_MAC, 384, 384, sign},
		{p11.CKM_SSL3_SHA1_MAC, 384, 384, sign},
		{p11.CKM_AES_KEY_GEN, 16, 32, p11.CKF_GENERATE},
		{p11.CKM_AES_ECB, 16, 32, cipher},
		{p11.CKM_AES_CBC, 16, 32, cipher},
		{p11.CKM_AES_CBC_PAD, 16, 32, cipher},
	}
}

// arrange puts the list in stock's order, with stock's sizes.
func arrange(list []p11.MechanismInfo) {
	at := 0
	for _, r := range rows() {
		for i := range list {
			if list[i].Type == r.t {
				list[at], list[i] = list[i], list[at]
				list[at].MinKeySize, list[at].MaxKeySize = r.least, r.most
				at++
				break
			}
		}
	}
}

// Listed is swtok.Holder.
func (h *holder) Listed(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	for _, r := range rows() {
		if r.t == m.Type {
			m.Flags = r.flags
			if r.most == mostRSA {
				m.MinKeySize, m.MaxKeySize = r.least, r.most // of keys that the TPM has
			}
			return m, true
		}
	}
	return m, false
}
