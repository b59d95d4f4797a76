// Package policy says which mechanisms, parameters and keys may be used: the rules that
// openCryptoki has in policy.conf and strength.conf since its release 3.18. It knows no
// files; package mountd/config reads them, and engine asks it on every use.
//
// The strength of a key is a number of bits, 0, 112, 128, 192 or 256: the highest of the
// levels whose minimum for its kind its size reaches. Keys of lattices and hashes have
// the highest.
//
// A nil *Policy allows everything.
package policy

import (
	"fmt"
	"strings"

	"p11fs/p11"
)

// Never is a minimum that nothing reaches.
const Never = ^uint64(0)

// A Level is what something must have in bits to be of a strength.
type Level struct {
	Strength  uint64
	ModExp    uint64 // modulus or prime of RSA, DSA and Diffie-Hellman
	ECC       uint64 // field of a curve
	Symmetric uint64 // secret key
	Digest    uint64
	Signature uint64 // as long, or as its digest
}

// A Policy is what is allowed. Of the sets nil allows everything and an empty one nothing.
type Policy struct {
	Name       string // for messages: the file
	Strength   uint64 // that is needed; 0 for any
	Levels     []Level
	Mechanisms map[p11.MechanismType]bool
	Curves     map[string]bool // by CKA_EC_PARAMS
	MGFs       map[p11.MGF]bool
	KDFs       map[p11.KDF]bool
	PRFs       map[p11.PBKDF2PRF]bool
}

// String says what the policy allows, on one line.
func (p *Policy) String() string {
	var all []string
	if p.Strength > 0 {
		all = append(all, fmt.Sprintf("strength %d", p.Strength))
	}
	for _, s := range []struct {
		set  bool
		n    int
		what string
	}{
		{p.Mechanisms != nil, len(p.Mechanisms), "mechanisms"}, {p.Curves != nil, len(p.Curves), "curves"},
		{p.MGFs != nil, len(p.MGFs), "MGFs"}, {p.KDFs != nil, len(p.KDFs), "KDFs"}, {p.PRFs != nil, len(p.PRFs), "PRFs"},
	} {
		if s.set {
			all = append(all, fmt.Sprintf("%d %s", s.n, s.what))
		}
	}
	if all == nil {
		return "everything"
	}
	return strings.Join(all, ", ")
}

// least is the minimum, in bits, that the strength of the policy asks for: the lowest of
// the levels that are high enough.
func (p *Policy) least(of func(Level) uint64) uint64 {
	if p.Strength == 0 {
		return 0
	}
	least := Never
	for _, l := range p.Levels {
		if l.Strength >= p.Strength {
			least = min(least, of(l))
		}
	}
	return least
}

func modExp(l Level) uint64    { return l.ModExp }
func ecc(l Level) uint64       { return l.ECC }
func symmetric(l Level) uint64 { return l.Symmetric }
func digest(l Level) uint64    { return l.Digest }
func signature(l Level) uint64 { return l.Signature }

// A sort is how the strength of keys of a type is measured.
type sort int

const (
	postQuantum sort = iota // always strong
	modular
	elliptic
	secretKey
	unknown
)

func sortOf(kt p11.KeyType) sort {
	switch kt {
	case p11.CKK_RSA, p11.CKK_DSA, p11.CKK_DH, p11.CKK_X9_42_DH:
		return modular
	case p11.CKK_EC, p11.CKK_EC_EDWARDS, p11.CKK_EC_MONTGOMERY:
		return elliptic
	case p11.CKK_ML_DSA, p11.CKK_ML_KEM, p11.CKK_SLH_DSA, p11.CKK_HSS, p11.CKK_XMSS, p11.CKK_XMSSMT,
		p11.CKK_IBM_ML_DSA, p11.CKK_IBM_ML_KEM, p11.CKK_IBM_DILITHIUM, p11.CKK_IBM_KYBER:
		return postQuantum
	case p11.CKK_KEA, p11.CKK_GOSTR3410:
		return unknown
	}
	return secretKey
}

// desBits are the strengths of the keys of DES, whatever their length.
func desBits(kt p11.KeyType) (bits uint64, ok bool) {
	switch kt {
	case p11.CKK_DES:
		return 56, true
	case p11.CKK_DES2:
		return 80, true
	case p11.CKK_DES3:
		return 112, true
	}
	return 0, false
}

// List returns those of a token's mechanisms that the policy allows, with the sizes and
// uses that it leaves them. It keeps nothing of list.
func (p *Policy) List(list []p11.MechanismInfo) []p11.MechanismInfo {
	if p == nil {
		return list
	}
	var allowed []p11.MechanismInfo
	for _, m := range list {
		if m, ok := p.mechanism(m); ok {
			allowed = append(allowed, m)
		}
	}
	return allowed
}

// mechanism is m as the policy leaves it; false if it leaves nothing of it.
func (p *Policy) mechanism(m p11.MechanismInfo) (p11.MechanismInfo, bool) {
	if p.Mechanisms != nil && !p.Mechanisms[m.Type] {
		return m, false
	}
	facts, _ := p11.MechanismFacts(m.Type)
	if m.Flags&p11.CKF_DIGEST != 0 && 8*p11.HashSize(m.Type) < p.least(digest) {
		return m, false
	}
	if !p.sizes(&m, facts) {
		return m, false
	}
	const signs = p11.CKF_SIGN | p11.CKF_VERIFY | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER
	if m.Flags&signs != 0 && p.longest(m, facts) < p.least(signature) {
		m.Flags &^= signs
		return m, len(m.Uses()) > 0
	}
	return m, true
}

// sizes raises the sizes of m to those of strong keys; false if there are none.
func (p *Policy) sizes(m *p11.MechanismInfo, facts p11.Facts) bool {
	if len(facts.KeyTypes) == 0 {
		return true // what it makes is looked at when it is made
	}
	var least uint64
	switch kt := facts.KeyTypes[0]; sortOf(kt) {
	case modular:
		least = p.least(modExp)
	case elliptic:
		if least = p.least(ecc); p.Curves != nil && len(p.Curves) == 0 {
			return false
		}
	case secretKey:
		least = p.least(symmetric)
		for _, kt := range facts.KeyTypes {
			if bits, ok := desBits(kt); ok && bits >= least {
				return true
			}
		}
		if _, ok := desBits(kt); ok {
			return false
		}
		if kt == p11.CKK_AES_XTS {
			least = min(least, Never/2) * 2
		}
		if m.SizeUnit() == "bytes" {
			least = least/8 + (least%8+7)/8
		}
	case unknown:
		return p.Strength == 0
	}
	if m.MaxKeySize == 0 { // which says nothing of sizes
		return least != Never
	}
	m.MinKeySize = max(m.MinKeySize, least)
	return m.MinKeySize <= m.MaxKeySize
}

// longest is the longest signature of m in bits, of which that of the digest counts.
func (p *Policy) longest(m p11.MechanismInfo, facts p11.Facts) uint64 {
	longest := Never
	if facts.Hash != 0 {
		longest = 8 * p11.HashSize(facts.Hash)
	}
	if len(facts.KeyTypes) == 0 {
		return longest
	}
	switch kt := facts.KeyTypes[0]; sortOf(kt) {
	case modular:
		return min(longest, m.MaxKeySize)
	case elliptic:
		return min(longest, 2*p.widest(m.MaxKeySize))
	case secretKey:
		return min(longest, macBits(m.Type, facts))
	}
	return longest
}

// widest is the field of the widest curve that is allowed, at most that of most bits.
func (p *Policy) widest(most uint64) uint64 {
	if p.Curves == nil {
		return most
	}
	var bits uint64
	for _, c := range p11.Curves() {
		if p.Curves[string(c.Params())] {
			bits = max(bits, fieldBits(c))
		}
	}
	return min(bits, most+7) // of Curve25519 the standard says 255 bits
}

// fieldBits is the size of a curve as openCryptoki counts it: Curve25519 has 256 bits.
func fieldBits(c p11.Curve) uint64 {
	if c.KeyType == p11.CKK_EC {
		return uint64(c.Bits)
	}
	return 8 * uint64(c.Size())
}

// macBits is the longest MAC of a block cipher, of which MACs of the old kind (FIPS 113)
// have half a block; Never for any other mechanism.
func macBits(t p11.MechanismType, facts p11.Facts) uint64 {
	if facts.Hash != 0 || len(facts.KeyTypes) == 0 || facts.KeyTypes[0].BlockSize() == 0 {
		return Never
	}
	bits := 8 * uint64(facts.KeyTypes[0].BlockSize())
	name := t.String()
	if strings.HasSuffix(name, "_MAC") && !strings.HasSuffix(name, "CBC_MAC") && !strings.HasSuffix(name, "_GMAC") {
		bits /= 2
	}
	return bits
}
