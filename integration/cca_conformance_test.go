package integration

import (
	"slices"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/ccatok"
)

// ccaRules are the rules of every token, but for those of what the card has not: it neither
// wraps nor derives keys, nor tells check values of them.
func ccaRules() []tokenRule {
	return slices.DeleteFunc(ep11Rules(), func(r tokenRule) bool {
		return slices.Contains([]string{
			"a key that does not wrap", "a key that does not unwrap", "a key that stays is not wrapped", "a key that there is not",
			"an unwrapped key is made as any other", "the past of an unwrapped key",
			"a key that does not derive", "a derived key is made as any other", "a derived key is as safe as what it comes from",
			"both sides derive one secret", "a point that is none of the curve", "no point",
			"check values", "keys in forms of other programs",
		}, r.name)
	})
}

// TestCCAConformance asks the rules of PKCS#11 of a token of a card in CCA mode, through
// every door.
func TestCCAConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("asks each rule of a card, which takes some seconds of processor time")
	}
	t.Parallel()
	conform(t, daemonDoors(daemonConfig{token: ccatok.Kind, binary: plainBinary(t)}, tokens.DefaultSOPIN), ccaRules())
}
