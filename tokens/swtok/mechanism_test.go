package swtok

import (
	"testing"

	"p11fs/p11"
)

// stock is the list of openCryptoki 3.8's software token, in its order.
var stock = []p11.MechanismInfo{
	{Type: 0x0000, MinKeySize: 512, MaxKeySize: 4096, Flags: 0x10000},
	{Type: 0x0120, MinKeySize: 8, MaxKeySize: 8, Flags: 0x08000},
	{Type: 0x0131, MinKeySize: 24, MaxKeySize: 24, Flags: 0x08000},
	{Type: 0x0001, MinKeySize: 512, MaxKeySize: 4096, Flags: 0x67b00},
	{Type: 0x000d, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x000e, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0043, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0044, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0045, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0003, MinKeySize: 512, MaxKeySize: 4096, Flags: 0x67b00},
	{Type: 0x0009, MinKeySize: 1024, MaxKeySize: 4096, Flags: 0x60300},
	{Type: 0x0005, MinKeySize: 512, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0006, MinKeySize: 512, MaxKeySize: 4096, Flags: 0x02800},
	{Type: 0x0021, MinKeySize: 512, MaxKeySize: 2048, Flags: 0x80000},
	{Type: 0x0020, MinKeySize: 512, MaxKeySize: 2048, Flags: 0x10000},
	{Type: 0x0121, MinKeySize: 8, MaxKeySize: 8, Flags: 0x60300},
	{Type: 0x0122, MinKeySize: 8, MaxKeySize: 8, Flags: 0x60300},
	{Type: 0x0125, MinKeySize: 8, MaxKeySize: 8, Flags: 0x60300},
	{Type: 0x0132, MinKeySize: 24, MaxKeySize: 24, Flags: 0x60300},
	{Type: 0x0133, MinKeySize: 24, MaxKeySize: 24, Flags: 0x60300},
	{Type: 0x0136, MinKeySize: 24, MaxKeySize: 24, Flags: 0x60300},
	{Type: 0x0220, Flags: 0x00400},
	{Type: 0x0221, Flags: 0x02800},
	{Type: 0x0222, Flags: 0x02800},
	{Type: 0x0250, Flags: 0x00400},
	{Type: 0x0251, Flags: 0x02800},
	{Type: 0x0252, Flags: 0x02800},
	{Type: 0x0260, Flags: 0x00400},
	{Type: 0x0261, Flags: 0x02800},
	{Type: 0x0262, Flags: 0x02800},
	{Type: 0x0270, Flags: 0x00400},
	{Type: 0x0271, Flags: 0x02800},
	{Type: 0x0272, Flags: 0x02800},
	{Type: 0x0210, Flags: 0x00400},
	{Type: 0x0211, Flags: 0x02800},
	{Type: 0x0212, Flags: 0x02800},
	{Type: 0x0370, MinKeySize: 48, MaxKeySize: 48, Flags: 0x08000},
	{Type: 0x0371, MinKeySize: 48, MaxKeySize: 48, Flags: 0x80000},
	{Type: 0x0372, MinKeySize: 48, MaxKeySize: 48, Flags: 0x80000},
	{Type: 0x0380, MinKeySize: 384, MaxKeySize: 384, Flags: 0x02800},
	{Type: 0x0381, MinKeySize: 384, MaxKeySize: 384, Flags: 0x02800},
	{Type: 0x1080, MinKeySize: 16, MaxKeySize: 32, Flags: 0x08000},
	{Type: 0x1081, MinKeySize: 16, MaxKeySize: 32, Flags: 0x60300},
	{Type: 0x1082, MinKeySize: 16, MaxKeySize: 32, Flags: 0x60300},
	{Type: 0x1085, MinKeySize: 16, MaxKeySize: 32, Flags: 0x60300},
	{Type: 0x0350, MinKeySize: 80, MaxKeySize: 2048, Flags: 0x08000},
}

func TestMechanismList(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		place := make(map[p11.MechanismType]int)
		for i, m := range stock {
			place[m.Type] = i
		}
		last, ours := -1, false
		seen := make(map[p11.MechanismType]bool)
		for _, m := range c.Mechanisms() {
			if seen[m.Type] {
				t.Errorf("%s is there twice", m.Type)
			}
			seen[m.Type] = true
			i, ok := place[m.Type]
			if !ok {
				ours = true
				continue
			}
			if ours || i < last {
				t.Errorf("%s does not stand where stock has it", m.Type)
			}
			last = i
			if s := stock[i]; s.Flags&^m.Flags != 0 || m.MinKeySize > s.MinKeySize || m.MaxKeySize < s.MaxKeySize {
				t.Errorf("%s: %+v, and stock has more: %+v", m.Type, m, s)
			}
		}
	})
}

// Every mechanism does, and only does, what the standard gives it to do.
func TestMechanismFunctions(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		const functions = flagsRaw | p11.CKF_DIGEST | p11.CKF_GENERATE | p11.CKF_GENERATE_KEY_PAIR | p11.CKF_DERIVE
		for _, m := range c.Mechanisms() {
			facts, ok := p11.MechanismFacts(m.Type)
			if !ok {
				t.Errorf("%s: nothing is known of it", m.Type)
				continue
			}
			if extra := m.Flags & functions &^ facts.Functions; extra != 0 {
				t.Errorf("%s: functions %#x are not in the standard", m.Type, uint64(extra))
			}
		}
	})
}

// A row that says that it has a function has it.
func TestRows(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, m := range c.Mechanisms() {
			r := c.rows[m.Type]
			has := map[p11.Flags]bool{
				p11.CKF_WRAP: r.uses[p11.CKF_ENCRYPT] != nil, p11.CKF_UNWRAP: r.uses[p11.CKF_DECRYPT] != nil,
				p11.CKF_GENERATE: r.generate != nil || r.generateGroup != nil, p11.CKF_GENERATE_KEY_PAIR: r.generatePair != nil, p11.CKF_DERIVE: r.derive != nil || r.deriveAll != nil,
				p11.CKF_ENCAPSULATE: r.encapsulate != nil, p11.CKF_DECAPSULATE: r.decapsulate != nil,
			}
			for _, use := range []p11.Flags{
				p11.CKF_DIGEST, p11.CKF_SIGN, p11.CKF_VERIFY, p11.CKF_SIGN_RECOVER, p11.CKF_VERIFY_RECOVER, p11.CKF_ENCRYPT, p11.CKF_DECRYPT,
			} {
				has[use] = r.uses[use] != nil
			}
			has[p11.CKF_DERIVE] = has[p11.CKF_DERIVE] || r.derivePublic != nil
			some := false
			for flag, ok := range has {
				if m.Flags&flag != 0 && !ok {
					t.Errorf("%s has no function for %s", m.Type, flag)
				}
				some = some || m.Flags&flag != 0
			}
			if !some {
				t.Errorf("%s does nothing", m.Type)
			}
		}
	})
}

// A hash of the table is served with all that the standard builds on it.
func TestHashes(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, h := range p11.Hashes() {
		for _, m := range []p11.MechanismType{h.Type, h.HMAC, h.HMACGeneral, h.PKCS1, h.PSS, h.ECDSA} {
			if served := c.rows[m] != nil; m != 0 && served != (h.Go != 0) {
				t.Errorf("%s: served is %v", m, served)
			}
		}
		if h.Go != 0 && uint64(h.Go.Size()) != h.Size {
			t.Errorf("%s: %d bytes, and the table says %d", h.Type, h.Go.Size(), h.Size)
		}
	}
}
