package doctor

import (
	"fmt"

	"p11fs/p11"
)

// PINState says how a token's PIN is, and what to do about it, which is empty where that is
// nothing. role is user or so; tries and pin are those of p11.Flags.PINState.
func PINState(token, role, tries, pin string) (how, todo string) {
	of, token := "", shellWord(token)
	if role == "so" {
		of = "--so "
	}
	switch {
	case pin == "unset":
		return "not set", "p11fs pin --unlock " + token + ", or p11fs init " + token + " if the token is new"
	case tries == "0" && role == "so":
		return "locked", "nothing unlocks it; the user's PIN serves on, and p11fs restore brings a backup back"
	case tries == "0":
		return "locked", "p11fs pin --unlock " + token
	}
	how = tries + " tries left"
	if tries != "many" {
		if tries == "1" {
			how = "1 try left"
		}
		todo = "the right one sets the count back: p11fs login " + of + token + ", after p11fs logout " + token + " if this terminal is logged in"
	}
	if pin == "to-be-changed" {
		how, todo = how+", to be changed", "p11fs pin "+of+token
	}
	return how, todo
}

// pins tells of PINs that are locked, or will be soon, or are still the first ones.
func (e Examination) pins() Finding {
	f := Finding{Check: "PINs"}
	slots, _, err := e.Slots()
	if err != nil || e.hidden() != "" {
		return f.good("not known")
	}
	var locked troubles
	for _, s := range slots {
		st := e.state(s)
		if !st.Initialized {
			continue
		}
		for i, user := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
			name := []string{"so", "user"}[i]
			tries, state := st.Flags.PINState(user)
			how, todo := PINState(s.Place.Name, name, tries, state)
			switch {
			case todo == "":
			case tries == "0" && user == p11.CKU_USER:
				locked.add(todo, "the %s PIN of %s is %s", name, s.Place.Name, how)
			default:
				f.Weak = append(f.Weak, fmt.Sprintf("the %s PIN of %s: %s: %s", name, s.Place.Name, how, todo))
			}
		}
	}
	if f.Weak != nil {
		return locked.found(f)
	}
	return locked.found(f.good("as they should be"))
}
