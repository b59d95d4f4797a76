package swtok

import (
	"bytes"
	"slices"

	"p11fs/p11"
)

// The derivations of IKE, version 1 (RFC 2409) and 2 (RFC 7296), as PKCS#11 v3.1 §6.64 has
// them.

// maxTurns is how often a key of IKE may run through its function: the number of the turn
// is one byte.
const maxTurns = 255

// ikeMAC is the function that the parameter names, with a key of any length: AES-CMAC is
// AES-CMAC-PRF-128 (RFC 4615), which makes an AES key of one that has not 16 bytes.
func (u call) ikeMAC(m p11.MechanismType, key []byte) (keyedMAC, error) {
	if h, ok := hmacHash(m); ok {
		return hmacOf(h, key), nil
	}
	if m != p11.CKM_AES_CMAC || !u.hasCMAC() {
		return keyedMAC{}, u.noPRF(m)
	}
	if len(key) == aesBlock {
		b, err := u.provider.NewBlockCipher(p11.CKK_AES, key)
		if err != nil {
			return keyedMAC{}, keyDamaged("%v", err)
		}
		return cmacOf(aesBlock, b.CMAC), nil
	}
	zeros, err := u.ikeMAC(m, make([]byte, aesBlock))
	if err != nil {
		return keyedMAC{}, err
	}
	short, err := zeros.sum(key)
	if err != nil {
		return keyedMAC{}, err
	}
	return u.ikeMAC(m, short)
}

// ikeBase is ikeMAC with the value of a key.
func (u call) ikeBase(m p11.MechanismType, base any) (keyedMAC, error) {
	k, err := secretOf(base)
	if err != nil {
		return keyedMAC{}, err
	}
	return u.ikeMAC(m, k)
}

// other is the value of the parameter's key of that place, nil if it names none.
func (u call) other(i int) ([]byte, error) {
	if i >= len(u.others) || u.others[i] == nil {
		return nil, nil
	}
	return secretOf(u.others[i])
}

// ikeDerive is a family whose parameter has the type P: derive makes at least n bytes, or
// as many as the function gives if n is negative.
func ikeDerive[P p11.Param](derive func(u call, p P, base any, n int) ([]byte, error)) family {
	return family{derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
		p, err := param[P](u)
		if err != nil {
			return nil, err
		}
		out, err := derive(u, p, base, n)
		if err != nil {
			return nil, err
		}
		return leading(out, n, kt)
	}}
}

// ikePRF is the family of CKM_IKE_PRF_DERIVE: SKEYSEED and SKEYID.
func ikePRF() family {
	return ikeDerive(func(u call, p *p11.IKEPRFParams, base any, n int) ([]byte, error) {
		k, err := secretOf(base)
		if err != nil {
			return nil, err
		}
		fresh, err := u.other(0)
		if err != nil {
			return nil, err
		}
		nonces := slices.Concat(p.Ni, p.Nr)
		key, data := k, [][]byte{fresh, nonces}
		switch {
		case p.DataAsKey && p.NewKey != 0:
			return nil, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "with new-key= the nonces are not the key: data-as-key= must be false"), "take one of them out")
		case p.DataAsKey:
			key, data = nonces, [][]byte{k}
		}
		mac, err := u.ikeMAC(p.PRF, key)
		switch {
		case err != nil:
			return nil, err
		case n >= 0 && n != mac.size:
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "prf=%s gives keys of %d bytes, not %d", p.PRF.Short(), mac.size, n)
		}
		return mac.sum(data...)
	})
}

// ike2PRFPlus is the family of CKM_IKE2_PRF_PLUS_DERIVE: prf+ of RFC 7296 §2.13.
func ike2PRFPlus() family {
	return ikeDerive(func(u call, p *p11.IKE2PRFPlusParams, base any, n int) ([]byte, error) {
		mac, err := u.ikeBase(p.PRF, base)
		if err != nil {
			return nil, err
		}
		seed, err := u.other(0)
		if err != nil {
			return nil, err
		}
		return mac.chain(n, func(last []byte, turn int) [][]byte {
			return [][]byte{last, seed, p.SeedData, {byte(turn)}}
		})
	})
}

// ike1PRF is the family of CKM_IKE1_PRF_DERIVE: SKEYID_d, SKEYID_a and SKEYID_e.
func ike1PRF() family {
	return ikeDerive(func(u call, p *p11.IKE1PRFParams, base any, n int) ([]byte, error) {
		mac, err := u.ikeBase(p.PRF, base)
		if err != nil {
			return nil, err
		}
		shared, err := u.other(0)
		if err != nil {
			return nil, err
		}
		previous, err := u.other(1)
		if err != nil {
			return nil, err
		}
		return mac.sum(previous, shared, p.CKYi, p.CKYr, p.Number[:])
	})
}

// ike1Extended is the family of CKM_IKE1_EXTENDED_DERIVE: a longer key of RFC 2409,
// appendix B, or the keys of quick mode (§5.5). A key that is long enough is its own.
// Where there is extra data, that is quick mode, also without another g^xy; the standard
// would take the base key itself for the short keys of it.
func ike1Extended() family {
	return ikeDerive(func(u call, p *p11.IKE1ExtendedParams, base any, n int) ([]byte, error) {
		k, err := secretOf(base)
		if err != nil {
			return nil, err
		}
		mac, err := u.ikeMAC(p.PRF, k)
		if err != nil {
			return nil, err
		}
		shared, err := u.other(0)
		quick := shared != nil || len(p.Extra) > 0
		switch { // what it makes is as safe as the base key (keeps in the table)
		case err != nil:
			return nil, err
		case !quick && n >= 0 && n <= mac.size && n <= len(k):
			return bytes.Clone(k), u.tells(n, piece{0, 0, len(k)})
		}
		return mac.chain(n, func(last []byte, _ int) [][]byte {
			if !quick && last == nil {
				return [][]byte{{0}}
			}
			return [][]byte{last, shared, p.Extra}
		})
	})
}

// chain is at least n bytes of what the MAC gives of data, which depends on what it gave
// before: nil at first.
func (m keyedMAC) chain(n int, data func(last []byte, turn int) [][]byte) ([]byte, error) {
	switch {
	case n < 0:
		return nil, errNoLength
	case n > maxTurns*m.size:
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "this function gives at most %d bytes, not %d", maxTurns*m.size, n)
	}
	out := make([]byte, 0, n+m.size)
	for turn := 1; len(out) < n; turn++ {
		var last []byte
		if turn > 1 {
			last = out[len(out)-m.size:]
		}
		s, err := m.sum(data(last, turn)...)
		if err != nil {
			wipe(out)
			return nil, err
		}
		out = append(out, s...)
		wipe(s)
	}
	return out, nil
}
