package pkix

import (
	"bytes"

	"p11fs/p11"
	"p11fs/p11/pqc"
	"p11fs/secret"
)

// ibmType is the keys of CKK_IBM_ML_DSA or CKK_IBM_ML_KEM, openCryptoki's own types. They
// are keys of ML-DSA and ML-KEM in other attributes: the parts of the standards' encodings
// one by one, and in CKA_VALUE all of it, as a SubjectPublicKeyInfo or a PrivateKeyInfo. In
// files they are keys of the standard.
func ibmType(kt p11.KeyType) keyType {
	return keyType{
		kt: kt, complete: completeIBM,
		writePrivate: func(attrs p11.Attributes) ([]byte, error) {
			std, err := StandardPQC(attrs)
			if err != nil {
				return nil, err
			}
			defer std.Wipe()
			return writePQCPrivate(std)
		},
		info: func(attrs p11.Attributes) ([]byte, error) {
			std, err := StandardPQC(attrs)
			if err != nil {
				return nil, err
			}
			defer std.Wipe()
			return keyTypeOf(pqc.Standard(kt)).info(std)
		},
	}
}

// An ibmPart is an attribute with a part of an encoding.
type ibmPart struct {
	attr p11.AttributeType
	size int
}

// ibmParts are those of a key, in their order, and the attribute that is its seed.
func ibmParts(s pqc.Set, class p11.ObjectClass) (parts []ibmPart, seed p11.AttributeType) {
	public := class == p11.CKO_PUBLIC_KEY
	switch {
	case s.KeyType == p11.CKK_IBM_ML_KEM && public:
		return []ibmPart{{p11.CKA_IBM_ML_KEM_PK, s.PublicSize}}, p11.CKA_IBM_ML_KEM_PRIVATE_SEED
	case s.KeyType == p11.CKK_IBM_ML_KEM:
		return []ibmPart{{p11.CKA_IBM_ML_KEM_SK, s.PrivateSize}}, p11.CKA_IBM_ML_KEM_PRIVATE_SEED
	case public:
		return []ibmPart{{p11.CKA_IBM_ML_DSA_RHO, 32}, {p11.CKA_IBM_ML_DSA_T1, s.PublicSize - 32}}, p11.CKA_IBM_ML_DSA_PRIVATE_SEED
	}
	s1, s2, t0 := s.Parts()
	return []ibmPart{
		{p11.CKA_IBM_ML_DSA_RHO, 32}, {p11.CKA_IBM_ML_DSA_SEED, 32}, {p11.CKA_IBM_ML_DSA_TR, 64},
		{p11.CKA_IBM_ML_DSA_S1, s1}, {p11.CKA_IBM_ML_DSA_S2, s2}, {p11.CKA_IBM_ML_DSA_T0, t0},
	}, p11.CKA_IBM_ML_DSA_PRIVATE_SEED
}

// StandardPQC is a key of openCryptoki's own types in the attributes of the standard:
// CKA_KEY_TYPE, CKA_PARAMETER_SET, CKA_VALUE and CKA_SEED, of which a private key may have
// the seed alone. They are the caller's to wipe. The key is that of CKA_VALUE where there is
// one, else of the seed and of the parts. Errors wrap CKR_ATTRIBUTE_VALUE_INVALID,
// CKR_PARAMETER_SET_NOT_SUPPORTED or CKR_TEMPLATE_INCOMPLETE.
func StandardPQC(attrs p11.Attributes) (std p11.Attributes, err error) {
	kt, _ := attrs.KeyType()
	class, _ := attrs.Class()
	if der, _ := attrs.Get(p11.CKA_VALUE); len(der) > 0 {
		if class == p11.CKO_PUBLIC_KEY {
			std, err = PublicAttributes(der)
		} else {
			std, err = DecodePrivateKey(der)
		}
		if got, _ := std.KeyType(); err == nil && got != pqc.Standard(kt) {
			err = p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "it is of a %s key", got.Short())
		}
		if err != nil {
			std.Wipe()
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: %v", err)
		}
		std.SetUlong(p11.CKA_CLASS, uint64(class))
		return std, nil
	}
	s, err := pqc.SetOfKey(attrs)
	if err != nil {
		return nil, err
	}
	std.SetUlong(p11.CKA_CLASS, uint64(class))
	std.SetUlong(p11.CKA_KEY_TYPE, uint64(pqc.Standard(kt)))
	std.SetUlong(p11.CKA_PARAMETER_SET, s.Number)
	parts, seedAttr := ibmParts(s, class)
	seed, _ := attrs.Get(seedAttr)
	if len(seed) > 0 && class != p11.CKO_PUBLIC_KEY {
		std.Set(p11.CKA_SEED, bytes.Clone(seed))
		return std, nil
	}
	var whole []byte
	for _, p := range parts {
		part, _ := attrs.Get(p.attr)
		switch {
		case len(part) == 0:
			err = missing(p.attr)
		case len(part) != p.size:
			err = p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: has %d bytes, not %d", p.attr.Short(), len(part), p.size)
		}
		if err != nil {
			secret.Wipe(whole)
			return nil, err
		}
		grown := append(bytes.Clone(whole), part...)
		secret.Wipe(whole)
		whole = grown
	}
	std.Set(p11.CKA_VALUE, whole)
	return std, nil
}

// completeIBM adds to a key the attributes that follow from others, and refuses those that
// are given and say something else.
func completeIBM(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
	std, err := StandardPQC(*attrs)
	if err != nil {
		return nil, err
	}
	defer func() { std.Wipe() }()
	info, err := completePQC(&std, class)
	if err != nil {
		return nil, err
	}
	s, err := pqc.SetOfKey(std)
	if err != nil {
		return nil, err
	}
	s.KeyType, _ = attrs.KeyType()
	public, err := PublicAttributes(info)
	if err != nil {
		return nil, err
	}
	all := p11.Attributes{{Type: p11.CKA_IBM_PARAMETER_SET, Value: p11.Ulong(s.Number)}}
	defer func() { all.Wipe() }()
	split := func(key p11.Attributes, class p11.ObjectClass) {
		value, _ := key.Get(p11.CKA_VALUE)
		parts, _ := ibmParts(s, class)
		for _, p := range parts {
			all.Set(p.attr, bytes.Clone(value[:p.size]))
			value = value[p.size:]
		}
	}
	split(public, p11.CKO_PUBLIC_KEY)
	der := bytes.Clone(info)
	if class != p11.CKO_PUBLIC_KEY {
		split(std, class)
		if seed, _ := std.Get(p11.CKA_SEED); len(seed) > 0 {
			_, t := ibmParts(s, class)
			all.Set(t, bytes.Clone(seed))
		}
		if der, err = writePQCPrivate(std); err != nil {
			return nil, err
		}
	}
	if given, _ := attrs.Get(p11.CKA_VALUE); len(given) == 0 { // else it may be another form of the same
		all.Set(p11.CKA_VALUE, der)
	} else if class != p11.CKO_PUBLIC_KEY {
		secret.Wipe(der)
	}
	for _, a := range all {
		if given, _ := attrs.Get(a.Type); len(given) > 0 && !bytes.Equal(given, a.Value) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: does not belong to the rest of the key", a.Type.Short())
		}
		attrs.Set(a.Type, bytes.Clone(a.Value))
	}
	return info, nil
}

// IBMAttributes are the attributes of a key of one of openCryptoki's own types that is this
// SubjectPublicKeyInfo or PrivateKeyInfo, for Complete to add the rest.
func IBMAttributes(kt p11.KeyType, der []byte) p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(uint64(kt))}, {Type: p11.CKA_VALUE, Value: bytes.Clone(der)}}
}
