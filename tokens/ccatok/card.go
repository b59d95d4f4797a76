package ccatok

import (
	"context"
	"fmt"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
)

// A register is where a card has a master key: the one to come, the one in use, and the one
// before.
type register int

// The registers, in the order in which a card tells their states. In the answer to STATICSB
// the pattern of the old one stands before that of the current one, and that of the new one
// behind it.
const (
	newKey register = iota
	currentKey
	oldKey
)

// empty is the state of a register without a key.
const empty = "1"

// cards is a line on the card, whichever of the library's it is.
func (l *link) cards(ctx context.Context) []string {
	err := l.May()
	var line string
	if err == nil {
		err = card.Ask(ctx, func(ctx context.Context) (err error) {
			line, err = l.card(ctx)
			return err
		})
		l.heard(ctx, err)
	}
	if err != nil {
		return []string{"any offline"}
	}
	return []string{line}
}

// card asks the card what it is.
func (l *link) card(ctx context.Context) (string, error) {
	ask := func(word string, least int) (cca.Rules, []byte, error) {
		answer, data, err := cca.CSUACFQ(ctx, l.via, nil, cca.Rules{word}.Bytes())
		if err != nil {
			return nil, nil, err
		}
		r, err := cca.ParseRules(answer)
		if err != nil || len(r) < least {
			return nil, nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's answer to %s has %d words", word, len(r))
		}
		return r, data, nil
	}
	const model, version, serial = 4, 5, 14 // of STATCRD2
	is, _, err := ask("STATCRD2", serial+1)
	if err != nil {
		return "", err
	}
	const asymmetric = 6 // of STATCCAE, behind the registers of DES and three words
	states, _, err := ask("STATCCAE", asymmetric+3)
	if err != nil {
		return "", err
	}
	aes, _, err := ask("STATAES", 3)
	if err != nil {
		return "", err
	}
	_, data, err := ask("STATICSB", 0)
	if err != nil {
		return "", err
	}
	patterns := allPatterns(data)
	line := fmt.Sprintf("any online mode=cca serial=%s model=%s firmware=%s", one(is[serial]), one(is[model]), one(is[version]))
	for _, m := range []struct {
		name   string
		states cca.Rules
	}{{"SYM", states}, {"AES", aes}, {"APKA", states[asymmetric:]}} {
		id := places()[m.name]
		shown := func(r register, at uint16) string {
			if p, ok := patterns[at]; ok && m.states[r] != empty {
				return fmt.Sprintf("%x", p)
			}
			return "-"
		}
		line += fmt.Sprintf(" %s=%s old=%s next=%s", strings.ToLower(m.name), shown(currentKey, id), shown(oldKey, id-1), shown(newKey, id+1))
	}
	return line, nil
}

// one is what a card calls itself, as one word.
func one(s string) string {
	if s = strings.Join(strings.Fields(s), "-"); s == "" {
		return "-"
	}
	return s
}
