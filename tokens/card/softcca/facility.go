package softcca

import (
	"context"
	"encoding/binary"
	"strings"

	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
)

// The states of a register: a key that is to come is there as a whole or not; another is
// valid or not.
const (
	registerEmpty, registerValid, registerFull = "1", "2", "3"
)

// version is what the card says of its software, and model what it is.
const (
	version = "8.2.0"
	model   = "p11fs sw"
)

// elsewhere stands for what only hardware has.
const elsewhere = "0"

// registers are the states of those of a master key: new, current, old.
func (d *domain) registers(m Master) (list cca.Rules) {
	for _, r := range []Register{New, Current, Old} {
		_, there, err := Pattern(d.set, d.apqn, m, r)
		switch {
		case err != nil || !there:
			list = append(list, registerEmpty)
		case r == New:
			list = append(list, registerFull)
		default:
			list = append(list, registerValid)
		}
	}
	return list
}

// CSUACFQ tells of the card: STATCCAE, STATAES and STATAPKA of the master keys, STATICSB of
// their verification patterns, STATCRD2 what it is.
func (d *domain) CSUACFQ(_ context.Context, rules []byte) (answer, data []byte, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, nil, err
	}
	word, err := r.One("STATCCAE", "STATAES", "STATAPKA", "STATICSB", "STATCRD2")
	if err != nil {
		return nil, nil, err
	}
	if err := r.Only(word, "ADAPTER1"); err != nil {
		return nil, nil, err
	}
	var out cca.Rules
	switch word {
	case "STATCCAE":
		out = append(d.registers(SYM), version, "", "DEFAULT")
		out = append(out, d.registers(APKA)...)
	case "STATAES":
		out = append(d.registers(AES), "256")
	case "STATAPKA":
		out = d.registers(APKA)
	case "STATICSB":
		return nil, d.patterns(), nil
	case "STATCRD2":
		out = append(cca.Rules{"1", elsewhere, elsewhere, version, model, version}, strings.Split(strings.Repeat(elsewhere, 8), "")...)
		out = append(out, Serial(d.set))
	}
	return out.Bytes(), nil, nil
}

// patterns is the answer to STATICSB: entries of a u16 length, a u16 identifier from 0x0f00
// on, and a hash of 16 or a pattern of 8 bytes; old, current, new of each. Keys of DES and
// RSA have hashes first.
func (d *domain) patterns() (b []byte) {
	id := uint16(0x0f00)
	put := func(value []byte) {
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
		b = binary.BigEndian.AppendUint16(b, id)
		b = append(b, value...)
		id++
	}
	order := []Register{Old, Current, New}
	for _, m := range []Master{SYM, APKA} {
		for _, r := range order {
			p, _, _ := Pattern(d.set, d.apqn, m, r) // zeros of one that cannot be read
			put(append(p[:], make([]byte, 8)...))
		}
	}
	for _, m := range Masters() {
		for _, r := range order {
			p, _, _ := Pattern(d.set, d.apqn, m, r) // zeros of one that cannot be read
			put(p[:])
		}
		if m == SYM {
			put(make([]byte, 8)) // of a key that this card has not
		}
	}
	return b
}

// Serial is the serial number of cards as they tell it themselves, who have room for its end.
func Serial(s *soft.Set) string {
	serial := s.Serial()
	return serial[max(len(serial)-cca.KeywordSize, 0):]
}
