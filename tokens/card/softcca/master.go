package softcca

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"p11fs/secret"
	"p11fs/tokens/card/cca"
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

// Registers are all of them.
func Registers() []Register { return []Register{Current, Old, New} }

func (r Register) String() string { return [...]string{"current", "old", "new"}[r] }

// masterSize is the length of a master key.
const masterSize = 32

// keys are the registers of the master keys; nil is an empty one.
type keys [3][3]*secret.Bytes

func (k *keys) close() (err error) {
	for _, m := range Masters() {
		for _, r := range Registers() {
			err = errors.Join(err, k.put(m, r, nil))
		}
	}
	return err
}

// put sets a register and wipes what it had.
func (k *keys) put(m Master, r Register, key *secret.Bytes) error {
	was := k[m][r]
	if k[m][r] = key; was == nil {
		return nil
	}
	return was.Close()
}

// derive makes n bytes of a master key for a purpose.
func derive(key *secret.Bytes, purpose string, n int) (out []byte, err error) {
	key.Use(func(b []byte) { out, err = hkdf.Key(sha256.New, b, nil, "p11fs software card, CCA: "+purpose, n) })
	return out, err
}

// pattern is the verification pattern of a key, zeros of an empty register.
func pattern(key *secret.Bytes) (p cca.Pattern) {
	if key == nil {
		return p
	}
	b, err := derive(key, "verification pattern", len(p))
	if err == nil {
		copy(p[:], b)
	}
	return p
}

// newMaster makes a master key.
func newMaster(random io.Reader) (*secret.Bytes, error) {
	b := make([]byte, masterSize)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, err
	}
	return secret.New(b)
}

// Pattern is the verification pattern of a register, and whether there is a key in it.
func (d *Domain) Pattern(m Master, r Register) (cca.Pattern, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return pattern(d.keys[m][r]), d.keys[m][r] != nil
}

// Generate puts a random key into the register of the key to come.
func (d *Domain) Generate(m Master) error {
	key, err := newMaster(d.random)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.keys.put(m, New, key), d.save(m))
}

// Set makes the key to come the current one, and that the old one.
func (d *Domain) Set(m Master) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := &d.keys[m]
	if k[New] == nil {
		return fmt.Errorf("the register of the new %s master key is empty", m)
	}
	old := k[Old]
	k[Old], k[Current], k[New] = k[Current], k[New], nil
	if err := d.save(m); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	return old.Close()
}

// Zeroise empties all registers: no key token opens any more.
func (d *Domain) Zeroise() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.keys.close()
	for _, m := range Masters() {
		err = errors.Join(err, d.save(m))
	}
	return err
}

// find returns the key that a token with pattern p is under, which is the caller's: the
// current one, or the old one.
func (d *Domain) find(m Master, p cca.Pattern) (*secret.Bytes, Register, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, r := range []Register{Current, Old, New} {
		if k := d.keys[m][r]; k != nil && pattern(k) == p {
			key, err := k.Clone()
			return key, r, err
		}
	}
	if d.keys[m][Current] == nil {
		return nil, 0, cca.ErrNoKey
	}
	return nil, 0, cca.ErrToken
}

// in returns the key of a register, which is the caller's.
func (d *Domain) in(m Master, r Register) (*secret.Bytes, cca.Pattern, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	k := d.keys[m][r]
	if k == nil {
		return nil, cca.Pattern{}, cca.ErrNoKey
	}
	key, err := k.Clone()
	return key, pattern(k), err
}

// usable says whether a token under the key of a register can be used: what is to come is
// not in use yet.
func usable(r Register) bool { return slices.Contains([]Register{Current, Old}, r) }
