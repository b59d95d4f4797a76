package engine

import (
	"p11fs/p11"
)

// origin says how an object comes to be.
type origin int

const (
	created      origin = iota // C_CreateObject
	generated                  // C_GenerateKey, C_GenerateKeyPair
	unwrapped                  // C_UnwrapKey
	derived                    // C_DeriveKey
	encapsulated               // C_EncapsulateKey, C_DecapsulateKey
)

func (o origin) String() string {
	switch o {
	case created:
		return "creating"
	case generated:
		return "generating"
	case unwrapped:
		return "unwrapping"
	case encapsulated:
		return "encapsulating"
	}
	return "deriving"
}

// traits are what the notes below the attribute tables of PKCS#11 v3.1 §4 say of
// an attribute (table 10, "common footnotes").
type traits uint16

const (
	needCreate   traits = 1 << iota // note 1: must be given to C_CreateObject
	noCreate                        // note 2: must not
	needGenerate                    // note 3: must be given when generating
	noGenerate                      // note 4: must not
	needUnwrap                      // note 5: must be given when unwrapping
	noUnwrap                        // note 6: must not
	modifiable                      // note 8: C_SetAttributeValue may change it
	trueBySO                        // note 10: only the security officer sets it to true
	staysTrue                       // note 11: not changed once it is true
	staysFalse                      // note 12: not changed once it is false
	onCopy                          // C_CopyObject may give another value

	// computed attributes are the token's alone to set.
	computed = noCreate | noGenerate | noUnwrap
	// keyPart attributes hold a key: given on import, made otherwise.
	keyPart = noGenerate | noUnwrap
)

func (o origin) needs() traits {
	switch o {
	case created:
		return needCreate
	case generated:
		return needGenerate
	case unwrapped:
		return needUnwrap
	}
	return 0
}

func (o origin) forbids() traits {
	switch o {
	case created:
		return noCreate
	case generated:
		return noGenerate
	}
	return noUnwrap
}

// rule is what holds for one attribute of one kind of object.
type rule struct {
	attr   p11.AttributeType
	traits traits
	// def is the value where the template has none; nil leaves the attribute
	// out, empty makes it empty.
	def []byte
}

// kind is a kind of object: the class and, below it, the key, certificate or
// hardware feature type.
type kind struct {
	class p11.ObjectClass
	sub   uint64
}

// ruleset holds for one kind of object.
type ruleset struct {
	rules []rule
	index map[p11.AttributeType]int
	yes   [2][]p11.AttributeType // true where the template is silent, by Defaults
}

func newRuleset(lists ...[]rule) *ruleset {
	r := &ruleset{index: make(map[p11.AttributeType]int)}
	for _, list := range lists {
		for _, one := range list {
			if i, ok := r.index[one.attr]; ok { // the more special list wins
				r.rules[i] = one
				continue
			}
			r.index[one.attr] = len(r.rules)
			r.rules = append(r.rules, one)
		}
	}
	return r
}

func (r *ruleset) get(t p11.AttributeType) (rule, bool) {
	i, ok := r.index[t]
	if !ok {
		return rule{}, false
	}
	return r.rules[i], true
}

// rules are the rules for every kind of object. They never change.
type rules struct {
	separate bool // Config.SeparateWrapping
	exact    map[kind]*ruleset
	classes  map[p11.ObjectClass]*ruleset // for objects that others stored, of kinds not in exact
}

// subtype returns the attribute that tells kinds of a class apart, 0 if none
// does.
func subtype(class p11.ObjectClass) p11.AttributeType {
	switch class {
	case p11.CKO_CERTIFICATE:
		return p11.CKA_CERTIFICATE_TYPE
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY, p11.CKO_DOMAIN_PARAMETERS:
		return p11.CKA_KEY_TYPE
	}
	return noAttribute
}

// noAttribute is an attribute type that nothing has.
const noAttribute = ^p11.AttributeType(0)

// of returns the rules for objects with these attributes, for making one.
func (r *rules) of(attrs p11.Attributes) (*ruleset, error) {
	class, ok := attrs.Class()
	if !ok {
		return nil, incomplete(p11.CKA_CLASS)
	}
	k := kind{class: class}
	if t := subtype(class); t != noAttribute {
		if k.sub, ok = attrs.Ulong(t); !ok {
			return nil, incomplete(t)
		}
	}
	if set := r.exact[k]; set != nil {
		return set, nil
	}
	if r.classes[class] == nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "class: objects of class %s cannot be made", class.Short())
	}
	if class == p11.CKO_CERTIFICATE {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "certificate-type: %s is not supported", p11.CertificateType(k.sub).Short())
	}
	return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "key-type: %s is not supported for class %s", p11.KeyType(k.sub).Short(), class.Short())
}

// existing returns the rules for an object that there is.
func (r *rules) existing(attrs p11.Attributes) *ruleset {
	class, _ := attrs.Class()
	k := kind{class: class}
	if t := subtype(class); t != noAttribute {
		k.sub, _ = attrs.Ulong(t)
	}
	if set := r.exact[k]; set != nil {
		return set
	}
	if set := r.classes[class]; set != nil {
		return set
	}
	return r.classes[p11.CKO_DATA]
}

func incomplete(t p11.AttributeType) error {
	return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "%s is missing", t.Short())
}

func isKey(class p11.ObjectClass) bool {
	switch class {
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY:
		return true
	}
	return false
}

func isSecretClass(class p11.ObjectClass) bool {
	return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY
}
