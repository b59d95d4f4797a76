package integration

import (
	"strconv"

	"p11fs/p11"
)

// derive makes a secret of 32 bytes, which everybody may see until the session
// ends, unless the template says otherwise.
func (s *handle) derive(key, point, template string) answer {
	s.a.r.t.Helper()
	return s.call("derive", key, point, with("class=secret-key key-type=generic-secret value-len=32 token=false private=false sensitive=false extractable=true", template))
}

// curve makes a pair on a curve, and gives the public point without its DER.
func (s *handle) curve(oid, private string) (point, key string) {
	s.a.r.t.Helper()
	got := s.call("pair", mech(p11.CKM_EC_KEY_PAIR_GEN), words("token=false verify=true ec-params="+oid), with("token=false private=true derive=true", private)).must()
	der := s.get(got.values[0], p11.CKA_EC_POINT).one()
	return der[2*2:], got.values[1] // one byte of tag, one of length: the points here are short
}

const p256, p384 = "0x06082a8648ce3d030107", "0x06052b81040022"

// kitDerives says that p11-kit's client does not pass a derivation on.
func kitDerives(steps ...string) map[string]deviation {
	are := map[string]string{}
	for _, step := range steps {
		are[step] = "CKR_MECHANISM_INVALID"
	}
	return map[string]deviation{"p11-kit-client": {"p11-kit 0.24.1 sends the parameters of a few mechanisms alone", are}}
}

// noCurves is why derivations are no matter of openCryptoki.
const noCurves = "its software token has no elliptic curves"

// secretOf tells one secret key from another: it is the value, or what the key signs
// where the token has no value to show.
func (s *handle) secretOf(key string) string {
	s.a.r.t.Helper()
	if got := s.get(key, p11.CKA_VALUE); got.rv != p11.CKR_ATTRIBUTE_SENSITIVE {
		return got.one()
	}
	return s.sign(key, "00").one()
}

// bool is a CK_BBOOL of an object, as templates have it.
func (s *handle) bool(object string, attribute p11.AttributeType) string {
	s.a.r.t.Helper()
	return strconv.FormatBool(s.get(object, attribute).one() == "01")
}

func deriveRules() []tokenRule {
	return []tokenRule{
		{name: "both sides derive one secret", cites: "§5.18.5, §6.3.19", stock: noCurves, deviates: kitDerives("derive"), run: func(r *rig) {
			s := r.a.opened()
			onePoint, one := s.curve(p256, "label=one")
			otherPoint, other := s.curve(p256, "label=other")
			here := s.derive(one, otherPoint, "label=here").is("derive", p11.CKR_OK)
			if here.rv != p11.CKR_OK {
				return
			}
			there := s.derive(other, onePoint, "label=there").one()
			r.is("value", s.secretOf(here.one()), s.secretOf(there))
			s.isAttributes(here.one(), `class=secret-key key-type=generic-secret value-len=32 local=false label="here"`)
		}},
		{name: "a key that does not derive", cites: "§5.18.5", stock: noCurves, deviates: kitDerives("derive"), run: func(r *rig) {
			s := r.a.opened()
			point, _ := s.curve(p256, "label=point")
			_, key := s.curve(p256, "label=key derive=false")
			s.derive(key, point, "label=x").is("derive", p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
		}},
		{name: "a point that is none of the curve", cites: "§6.3.19", stock: noCurves, deviates: kitDerives("another curve's", "beside the curve", "a good one"), run: func(r *rig) {
			s := r.a.opened()
			foreign, _ := s.curve(p384, "label=foreign")
			point, key := s.curve(p256, "label=key")
			beside := point[:len(point)-2] + map[bool]string{true: "01", false: "00"}[point[len(point)-2:] == "00"]
			s.derive(key, foreign, "label=x").is("another curve's", p11.CKR_MECHANISM_PARAM_INVALID)
			s.derive(key, beside, "label=x").is("beside the curve", p11.CKR_MECHANISM_PARAM_INVALID)
			s.derive(key, point, "label=x").is("a good one", p11.CKR_OK)
		}},
		{name: "no point", cites: "§6.3.19", stock: noCurves, files: "who writes nothing reads nothing", deviates: kitDerives("none"), run: func(r *rig) {
			s := r.a.opened()
			_, key := s.curve(p256, "label=key")
			s.derive(key, "-", "label=x").is("none", p11.CKR_MECHANISM_PARAM_INVALID)
		}},
		{name: "a derived key is as safe as what it comes from", cites: "§6.3.19", stock: noCurves, deviates: kitDerives("derive"), run: func(r *rig) {
			s := r.a.opened()
			point, open := s.curve(p256, "label=open sensitive=false extractable=true")
			_, safe := s.curve(p256, "label=safe sensitive=true extractable=false")
			const kept = "sensitive=true extractable=false label="
			made := s.derive(safe, point, kept+"safe").is("derive", p11.CKR_OK)
			if made.rv != p11.CKR_OK {
				return
			}
			s.isAttributes(made.one(), "sensitive=true extractable=false always-sensitive=true never-extractable=true")
			// Some tokens keep each private key to themselves.
			past := " always-sensitive=" + s.bool(open, p11.CKA_SENSITIVE) + " never-extractable=" + s.bool(open, p11.CKA_SENSITIVE)
			s.isAttributes(s.derive(open, point, kept+"late").one(), "sensitive=true extractable=false"+past)
			s.isAttributes(s.derive(safe, point, "label=given").one(), "sensitive=false extractable=true always-sensitive=false never-extractable=false")
		}},
		{name: "a derived key is made as any other", cites: "§5.18.5, §5.6", stock: noCurves, deviates: kitDerives("with local", "a private key", "more than there is", "for AES"), run: func(r *rig) {
			s := r.a.opened()
			point, key := s.curve(p256, "label=key")
			s.derive(key, point, "local=true").is("with local", p11.CKR_ATTRIBUTE_READ_ONLY)
			s.derive(key, point, "class=private-key").is("a private key", p11.CKR_ATTRIBUTE_VALUE_INVALID)
			s.derive(key, point, "value-len=33").is("more than there is", p11.CKR_KEY_SIZE_RANGE)
			s.derive(key, point, "value-len=16 key-type=aes").is("for AES", p11.CKR_OK)
		}},
	}
}
