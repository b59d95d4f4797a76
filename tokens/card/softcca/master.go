package softcca

import (
	"crypto/hkdf"
	"crypto/sha256"

	"p11fs/secret"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
)

// A Master is one of the three master keys.
type Master int

// The master keys, and what is under them: keys of DES; of AES and HMAC; of RSA and EC.
const (
	SYM Master = iota
	AES
	APKA
)

// Masters are all of them.
func Masters() []Master { return []Master{SYM, AES, APKA} }

func (m Master) String() string { return [...]string{"sym", "aes", "apka"}[m] }

// A Register holds one value of a master key: the one in use, that before it, under which
// keys may still be, and the one that is to come.
type Register int

// The registers.
const (
	Current Register = iota
	Old
	New
)

// generation is what a set of cards calls a register.
func (r Register) generation() string { return [...]string{soft.Current, soft.Old, soft.Next}[r] }

// MasterNames are what a set of cards calls the master keys.
func MasterNames() (names []string) {
	for _, m := range Masters() {
		names = append(names, m.String())
	}
	return names
}

// MakeSet makes a directory of cards in CCA mode with new master keys.
func MakeSet(dir string, apqns []card.APQN) error {
	return soft.MakeSet(dir, card.CCA.String(), apqns, MasterNames())
}

// derive makes n bytes of a master key for a purpose.
func derive(key []byte, purpose string, n int) (out []byte, err error) {
	return hkdf.Key(sha256.New, key, nil, "p11fs software card, CCA: "+purpose, n)
}

// pattern is the verification pattern of a key, zeros of none.
func pattern(key []byte) (p cca.Pattern, err error) {
	if key == nil {
		return p, nil
	}
	b, err := derive(key, "verification pattern", len(p))
	copy(p[:], b)
	return p, err
}

// Pattern is the verification pattern of a master key of a domain, and whether there is one.
func Pattern(set *soft.Set, a card.APQN, m Master, r Register) (cca.Pattern, bool, error) {
	key, err := set.Key(a, m.String(), r.generation())
	if err != nil {
		return cca.Pattern{}, false, err
	}
	defer secret.Wipe(key)
	p, err := pattern(key)
	return p, key != nil, err
}

// read returns the key in a register, which is the caller's; nil for an empty one.
func (d *domain) read(m Master, r Register) ([]byte, cca.Pattern, error) {
	key, err := d.set.Key(d.apqn, m.String(), r.generation())
	if err != nil {
		d.log.Error("software card: a master key cannot be read", "apqn", d.apqn, "err", err)
		return nil, cca.Pattern{}, cca.ErrNoKey
	}
	p, err := pattern(key)
	return key, p, err
}

// find returns the key that a token with pattern p is under, which is the caller's, and
// where it is.
func (d *domain) find(m Master, p cca.Pattern) ([]byte, Register, error) {
	missing := false
	for _, r := range []Register{Current, Old, New} {
		key, own, err := d.read(m, r)
		if err != nil {
			return nil, 0, err
		}
		if key != nil && own == p {
			return key, r, nil
		}
		missing = missing || key == nil && r == Current
		secret.Wipe(key)
	}
	if missing {
		return nil, 0, cca.ErrNoKey
	}
	return nil, 0, cca.ErrToken
}

// in returns the key of a register, which is the caller's.
func (d *domain) in(m Master, r Register) ([]byte, cca.Pattern, error) {
	key, p, err := d.read(m, r)
	if err == nil && key == nil {
		err = cca.ErrNoKey
	}
	return key, p, err
}

// usable says whether a token under the key of a register can be used: what is to come is
// not in use yet.
func usable(r Register) bool { return r != New }
