package softcca

import (
	"context"

	"p11fs/secret"
	"p11fs/tokens/card/cca"
)

// change says between which registers a token goes: RTCMK from the old key to that in use,
// RTNMK from that to the one to come.
func change(rules []byte, kinds ...string) (from, to Register, kind string, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return 0, 0, "", err
	}
	word, err := r.One("RTCMK", "RTNMK")
	if err != nil {
		return 0, 0, "", err
	}
	if err := r.Only(append(kinds, word)...); err != nil {
		return 0, 0, "", err
	}
	for _, k := range kinds {
		switch {
		case !r.Has(k):
		case kind != "":
			return 0, 0, "", cca.ErrKeyword
		default:
			kind = k
		}
	}
	if word == "RTNMK" {
		return Current, New, kind, nil
	}
	return Old, Current, kind, nil
}

// moved is a token that goes from one register to another: made anew, or as it is where it
// is there already.
func (d *domain) moved(token []byte, m Master, w wrapped, from, to Register, make func(r Register) ([]byte, error)) ([]byte, error) {
	defer secret.Wipe(w.key)
	switch w.at {
	case to:
		return append([]byte{}, token...), nil
	case from:
		if to == New {
			if err := d.set.Carry(d.apqn, m.String()); err != nil {
				d.log.Error("software card: re-enciphering", "apqn", d.apqn, "err", err)
				return nil, cca.ErrNoKey
			}
		}
		return make(to)
	}
	return nil, cca.ErrToken
}

// CSNBKTC moves the token of a DES or AES key to another master key.
func (d *domain) CSNBKTC(_ context.Context, rules, token []byte) ([]byte, error) {
	from, to, kind, err := change(rules, "DES", "AES")
	if err != nil {
		return nil, err
	}
	s, w, err := d.openSymmetric(token)
	if err != nil {
		return nil, err
	}
	if s.AES != (kind == "AES") {
		secret.Wipe(w.key)
		return nil, cca.ErrToken
	}
	m := SYM
	if s.AES {
		m = AES
	}
	return d.moved(token, m, w, from, to, func(r Register) ([]byte, error) { return d.sealSymmetric(s.AES, w.key, r) })
}

// CSNDKTC moves the token of an RSA or EC key.
func (d *domain) CSNDKTC(_ context.Context, rules, token []byte) ([]byte, error) {
	from, to, kind, err := change(rules, "RSA", "ECC")
	if err != nil {
		return nil, err
	}
	k, w, err := d.openPKA(token)
	if err != nil {
		return nil, err
	}
	if (k.N == nil) != (kind == "ECC") {
		secret.Wipe(w.key)
		return nil, cca.ErrToken
	}
	return d.moved(k.Bytes(), APKA, w, from, to, func(r Register) ([]byte, error) { return d.sealPKA(k, w.key, r) })
}

// CSNBKTC2 moves the token of an HMAC key.
func (d *domain) CSNBKTC2(_ context.Context, rules, token []byte) ([]byte, error) {
	from, to, kind, err := change(rules, "HMAC")
	if err != nil {
		return nil, err
	}
	if kind == "" {
		return nil, cca.ErrKeyword
	}
	v, w, err := d.openVariable(token)
	if err != nil {
		return nil, err
	}
	return d.moved(v.Bytes(), AES, w, from, to, func(r Register) ([]byte, error) { return d.sealVariable(w.key, v.Partial, r) })
}
