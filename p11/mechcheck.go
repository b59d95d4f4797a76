package p11

import "slices"

// Validate says whether the parameter is of the mechanism's type, complete and
// within the standard's ranges. It wraps CKR_MECHANISM_PARAM_INVALID. A
// mechanism that is not known passes, and so does a RawParam for one that takes
// parameters: whoever uses it must take it apart.
func (m Mechanism) Validate() error { return m.check(false) }

// ValidateFor is Validate for the use of a CKF_ flag: who encapsulates makes the public
// value that the others want to be given, and who decapsulates has it as the ciphertext.
func (m Mechanism) ValidateFor(use Flags) error {
	return m.check(use&(CKF_ENCAPSULATE|CKF_DECAPSULATE) != 0)
}

// check is Validate; partial lets what may come later be absent, such as an iv.
func (m Mechanism) check(partial bool) error {
	f, ok := MechanismFacts(m.Type)
	c := checker{m.Type, f, partial}
	raw, isRaw := m.Param.(RawParam)
	switch {
	case !ok || f.Param == ParamRaw:
		if m.Param == nil || isRaw {
			return nil
		}
		return c.errorf("wants its parameter as bytes")
	case f.Param == ParamNone:
		if m.Param == nil || isRaw && len(raw) == 0 {
			return nil
		}
		return c.errorf("takes no parameter")
	case m.Param == nil:
		if f.Optional || partial {
			return nil
		}
		if words := f.Param.words(); len(words) == 1 {
			return c.errorf("%s", words[0].missing())
		}
		return c.errorf("a parameter is missing; it takes %s", paramWords(m.Type))
	case isRaw && f.Param.rawWord() == "param":
		return nil
	}
	return f.Param.check(c, m.Param)
}

// A checker is what the check of a parameter knows beside it.
type checker struct {
	mech    MechanismType
	facts   Facts
	partial bool // what may come later may be absent
}

func (c checker) errorf(format string, args ...any) error {
	return paramError(c.mech, format, args...)
}

func oneOf(v uint64, list ...uint64) bool { return slices.Contains(list, v) }

// blocks says whether b is a multiple of n bytes and not empty; n is 0 if it is
// not known.
func blocks(b []byte, n int) bool { return len(b) > 0 && (n == 0 || len(b)%n == 0) }

// checkMAC: a MAC is at most as long as the mechanism's digest, or the block of
// its cipher.
func checkMAC(c checker, n MACLength) error {
	most := HashSize(c.facts.Hash)
	if most == 0 && len(c.facts.KeyTypes) > 0 {
		most = uint64(c.facts.KeyTypes[0].BlockSize())
	}
	if n < 1 || most > 0 && uint64(n) > most {
		return c.errorf("mac= is 1 to %d bytes, not %d", most, n)
	}
	return nil
}

// checkOtherKey: the other key may be named later.
func checkOtherKey(c checker, k OtherKey) error {
	if k == 0 && !c.partial {
		return c.errorf("key= is missing: the handle of the other key")
	}
	return nil
}

// checkKeyHandle: likewise.
func checkKeyHandle(c checker, h ObjectHandle) error { return checkOtherKey(c, OtherKey(h)) }

// checkECKey: likewise the key of an elliptic curve.
func checkECKey(c checker, k ObjectHandle) error {
	if k == 0 && !c.partial {
		return c.errorf("ec-key= is missing: the handle of a private key on a curve")
	}
	return nil
}
