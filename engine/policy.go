package engine

import (
	"p11fs/engine/policy"
	"p11fs/p11"
)

// What the policy says to each use of a mechanism, of a key, and to each new key. Which
// mechanisms there are at all, Slot.Mechanisms says. openCryptoki answers
// CKR_FUNCTION_FAILED to each of these, which tells nothing; here it is what the standard
// has for a token that cannot do it.
func (s *Session) policy() *policy.Policy { return s.appSlot.app.engine.policy }

// parameterAllowed checks the parameter of m, also against the policy.
func (s *Session) parameterAllowed(m p11.Mechanism) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if why := s.policy().Parameter(m); why != "" {
		return p11.Advise(p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s: %s", m.Type.Short(), why), "use another parameter")
	}
	return nil
}

// policyAllows checks a use of a key with m, whose parameter is good.
func (s *Session) policyAllows(key p11.Attributes, u *use, m p11.Mechanism) error {
	p := s.policy()
	if p == nil {
		return nil
	}
	why, curve := p.Key(key)
	switch {
	case curve:
		return p11.Advise(p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "%s", why), "use a key on a curve that it allows")
	case why != "":
		return p11.Advise(p11.Errorf(u.weak, "%s", why), "use a stronger key")
	}
	switch u.atToken() {
	case p11.CKF_SIGN, p11.CKF_SIGN_RECOVER, p11.CKF_VERIFY, p11.CKF_VERIFY_RECOVER:
		if why := p.Signature(m, key); why != "" {
			return p11.Advise(p11.Errorf(u.weak, "%s: %s", m.Type.Short(), why), "use a longer digest, or a stronger key")
		}
	}
	if u.messages() { // whose parameters name no mechanism
		return nil
	}
	return s.parameterAllowed(m)
}

// mayMake checks an object that is to be stored.
func (s *Session) mayMake(attrs p11.Attributes) error {
	why, curve := s.policy().Key(attrs)
	switch {
	case curve:
		return p11.Advise(p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "%s", why), "take a curve that it allows")
	case why != "":
		return p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s", why), "make a stronger key")
	}
	return nil
}
