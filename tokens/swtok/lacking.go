package swtok

import (
	"cmp"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// table returns the rows that p can serve.
func table(p Provider) []row {
	return slices.DeleteFunc(allRows(p), func(r row) bool { return r.needs != nil && !r.needs(p) })
}

// Lacking returns the mechanisms that a token over p has not, since p lacks what they
// take.
func Lacking(p Provider) []tokens.Lack {
	var list []tokens.Lack
	for _, r := range allRows(p) {
		if r.needs != nil && !r.needs(p) {
			list = append(list, tokens.Lack{Type: r.Type, Why: p.Name() + " " + p.Version() + " has not " + cmp.Or(r.takes, "what it takes")})
		}
	}
	return list
}

// Mechanisms returns what a token has with a provider that lacks nothing, in the order of
// Crypto.Mechanisms.
func Mechanisms() []p11.MechanismInfo {
	var list []p11.MechanismInfo
	for _, r := range allRows(everything{}) {
		list = append(list, r.MechanismInfo)
	}
	return list
}

// everything is a provider that lacks nothing, for lists.
type everything struct{ goProvider }

func (everything) HasCurve(p11.Curve) bool { return true }
