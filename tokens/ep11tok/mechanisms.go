package ep11tok

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens/card/ep11"
)

// served are the mechanisms that the token has where the card has them: those of
// openCryptoki 3.27's list whose calls are all that they need.
func served() []p11.MechanismType {
	list := []p11.MechanismType{
		p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_OAEP, p11.CKM_RSA_PKCS_PSS,
		p11.CKM_RSA_X9_31_KEY_PAIR_GEN, p11.CKM_RSA_X9_31, p11.CKM_SHA1_RSA_X9_31,
		p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_ECDSA, p11.CKM_ECDH1_DERIVE,
		p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKM_EDDSA, p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
		p11.CKM_DH_PKCS_KEY_PAIR_GEN, p11.CKM_DH_PKCS_DERIVE, p11.CKM_DSA_KEY_PAIR_GEN, p11.CKM_DSA, p11.CKM_DSA_SHA1,
		p11.CKM_AES_KEY_GEN, p11.CKM_AES_ECB, p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_AES_CMAC,
		p11.CKM_DES3_KEY_GEN, p11.CKM_DES3_ECB, p11.CKM_DES3_CBC, p11.CKM_DES3_CBC_PAD, p11.CKM_DES3_CMAC,
		p11.CKM_DES2_KEY_GEN, p11.CKM_GENERIC_SECRET_KEY_GEN, p11.CKM_PUB_KEY_FROM_PRIV_KEY,
	}
	for _, t := range []p11.MechanismType{
		p11.CKM_SHA_1, p11.CKM_SHA224, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512, p11.CKM_SHA512_224, p11.CKM_SHA512_256,
	} {
		h, _ := p11.HashOf(t)
		for _, m := range []p11.MechanismType{h.Type, h.HMAC, h.PKCS1, h.PSS, h.ECDSA} {
			if m != 0 {
				list = append(list, m)
			}
		}
	}
	for _, h := range allSHA3() {
		list = append(list, h.ibm, h.ibmHMAC)
	}
	for _, h := range allSHA3() {
		list = append(list, h.hash, h.hmac)
	}
	return list
}

// uses are what the token does with a mechanism.
const uses = p11.CKF_DIGEST | p11.CKF_SIGN | p11.CKF_VERIFY | p11.CKF_ENCRYPT | p11.CKF_DECRYPT | p11.CKF_GENERATE |
	p11.CKF_GENERATE_KEY_PAIR | p11.CKF_WRAP | p11.CKF_UNWRAP | p11.CKF_DERIVE

// mechanisms are those that all cards of use have, and their control points leave, in the
// order of served.
func (c *cards) mechanisms(ctx context.Context, domains []domain) ([]p11.MechanismInfo, error) {
	var has []map[p11.MechanismType]bool
	var first *domain
	for i := range domains {
		d := &domains[i]
		if d.err != nil {
			continue
		}
		if first == nil {
			first = d
		}
		numbers, err := ep11.GetMechanismList(ctx, c.via, d.target(), 0)
		if err != nil {
			return nil, err
		}
		set := make(map[p11.MechanismType]bool)
		for _, n := range numbers {
			set[p11.MechanismType(n)] = true
		}
		has = append(has, set)
	}
	var list []p11.MechanismInfo
	for _, m := range served() {
		needs := onCard(m)
		if slices.ContainsFunc(needs, func(t p11.MechanismType) bool {
			return slices.ContainsFunc(has, func(set map[p11.MechanismType]bool) bool { return !set[t] }) || !c.admits(domains, t)
		}) || !c.admits(domains, m) {
			continue
		}
		if len(needs) == 0 { // the token does it
			if like, ok := c.like(m); ok {
				list = append(list, like)
			}
			continue
		}
		numbers, err := ep11.GetMechanismInfo(ctx, c.via, first.target(), 0, uint64(needs[0]))
		if err != nil || len(numbers) != 3 {
			if err != nil && gone(err) {
				return nil, err
			}
			continue // the card has it in its list, and knows nothing of it
		}
		info := p11.MechanismInfo{Type: m, MinKeySize: numbers[0], MaxKeySize: numbers[1], Flags: p11.Flags(numbers[2])}
		info, ok := c.fit(info)
		for i := range domains {
			if d := &domains[i]; d.err == nil && ok {
				info, ok = ep11.Bounded(d.points[:], info)
			}
		}
		if ok {
			list = append(list, info)
		}
	}
	return list, nil
}

// fit is a mechanism as the token has it: with what both the card and the mechanism do.
func (c *cards) fit(info p11.MechanismInfo) (p11.MechanismInfo, bool) {
	like, ok := c.like(info.Type)
	if !ok {
		like = p11.MechanismInfo{Flags: ^p11.Flags(0)}
	}
	did := info.Flags & uses & like.Flags
	info.Flags = info.Flags&^uses | did | like.Flags&^uses&info.Flags
	info.Flags |= p11.CKF_HW
	info.Flags &^= p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER
	return info, did != 0
}

func (c *cards) admits(domains []domain, m p11.MechanismType) bool {
	for i := range domains {
		if d := &domains[i]; d.err == nil && !c.filter.admits(m, d.points[:]) {
			return false
		}
	}
	return true
}

// Mechanisms is tokens.Crypto. Of cards that have not answered it is what one may have, so
// that its use asks them.
func (c *cards) Mechanisms() []p11.MechanismInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list != nil {
		return c.list
	}
	var list []p11.MechanismInfo
	for _, m := range served() {
		if like, ok := c.like(m); ok {
			like.Flags &= uses
			if len(onCard(m)) > 0 {
				like.Flags |= p11.CKF_HW
			}
			list = append(list, like)
		}
	}
	return list
}

// info is the row of a mechanism that has the use.
func (c *cards) info(m p11.MechanismType, use p11.Flags) (p11.MechanismInfo, error) {
	for _, i := range c.Mechanisms() {
		if i.Type == m && i.Flags&use != 0 {
			return i, nil
		}
	}
	return p11.MechanismInfo{}, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the card has no mechanism %s for this", m.Short())
}
