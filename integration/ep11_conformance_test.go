package integration

import (
	"errors"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/ep11tok"
)

// ep11Rules are the rules of every token, but for what a token does not say that has no
// value to say, and what the card lacks.
func ep11Rules() []tokenRule {
	rules := elsewhereRules()
	for i, r := range rules {
		if r.name == "keys in forms of other programs" {
			rules[i].deviates = and(r.deviates, "libp11fs", "the card has no HMAC over SHA-512/256", map[string]string{"which signs": "CKR_MECHANISM_INVALID"})
		}
	}
	return rules
}

// trustingCard makes a software card in EP11 mode that takes a token's word for it that other
// keys are to trust a key.
func trustingCard(t testing.TB, dir string) {
	t.Helper()
	err := soft.MakeSet(dir, "ep11", []card.APQN{{Adapter: 0, Domain: 1}}, []string{soft.WK})
	if err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	trust, _ := ep11.PointOf("USER_SET_TRUSTED")
	if err := errors.Join(set.SetControlPoints(map[int]bool{trust: true}), set.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestEP11StrictConformance asks the rules of PKCS#11, as files, of a token whose private session
// keys end at the card with the login that made them.
func TestEP11StrictConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("asks each rule of a card, which takes some seconds of processor time")
	}
	t.Parallel()
	conform(t, daemonDoors(daemonConfig{token: ep11tok.Kind, cards: "APQN_ANY STRICT_MODE", binary: plainBinary(t)}, tokens.DefaultSOPIN)[:1], ep11Rules())
}

// TestEP11Conformance asks the rules of PKCS#11 of a token of a card in EP11 mode, through
// every door.
func TestEP11Conformance(t *testing.T) {
	if testing.Short() {
		t.Skip("asks each rule of a card, which takes some seconds of processor time")
	}
	t.Parallel()
	conform(t, daemonDoors(daemonConfig{token: ep11tok.Kind, binary: plainBinary(t)}, tokens.DefaultSOPIN), ep11Rules())
}
