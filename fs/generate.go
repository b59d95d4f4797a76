package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// generate makes keys, and returns the names made, one a line. It takes what to
// make:
//
//	rsa:2048 label=web id=01         or  rsa bits=2048 label=web id=01
//	ec:p256 label=tls                or  ec curve=p256 label=tls
//	ed25519 label=ssh                also ed448, x25519, x448
//	dh:ffdhe2048 label=agree         or  dh group=ffdhe2048 label=agree
//	dsa:2048 label=old               or  dsa bits=2048 label=old
//	aes:256 label=disk
//	generic:512 label=hmac
//	chacha20 label=stream            any other type of secret key, with its bits where
//	sha256-hmac:512 label=mac        there is a choice
//	ml-dsa-65 label=sign             any parameter set of ML-DSA, SLH-DSA and ML-KEM,
//	ibm-ml-kem-768                   and of those of openCryptoki's mechanisms
//	CKM_AES_KEY_GEN value-len=32 …   any mechanism that makes keys
//
// After the kind there are attributes as in any template, and after a mechanism its
// parameters among them. One template serves both
// keys of a pair: what only one of them has goes to that one, and private= to
// the private key.
func (p place) generate(ctx context.Context, s *session, line []byte) ([]byte, error) {
	r, err := parseRecipe(string(line))
	if err != nil {
		return nil, err
	}
	handles, err := r.make(ctx, s)
	if err != nil {
		return nil, err
	}
	return objects{p}.namesOf(ctx, s.app.eng, handles...)
}

// A recipe is what generate was told to make.
type recipe struct {
	mechanism p11.Mechanism
	facts     p11.Facts
	template  p11.Attributes
	prime     uint64 // bits of the prime of a group that is made for the pair
}

// A keyKind is a word for a mechanism that makes keys.
type keyKind struct {
	mechanism p11.MechanismType
	size      p11.AttributeType // that the template must have
	example   string            // "" where the word itself is the size
}

// keyKinds are the words. Each lookup of a name that imports asks for them.
//
//nolint:gochecknoglobals // made once, never written
var keyKinds = sync.OnceValue(func() map[string]keyKind {
	kinds := map[string]keyKind{
		"rsa":     {p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKA_MODULUS_BITS, "2048"},
		"ec":      {p11.CKM_EC_KEY_PAIR_GEN, p11.CKA_EC_PARAMS, "p256"},
		"ed25519": {p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKA_EC_PARAMS, ""},
		"ed448":   {p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKA_EC_PARAMS, ""},
		"x25519":  {p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, p11.CKA_EC_PARAMS, ""},
		"x448":    {p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, p11.CKA_EC_PARAMS, ""},
		"dh":      {p11.CKM_DH_PKCS_KEY_PAIR_GEN, p11.CKA_PRIME, "ffdhe2048"},
		"dsa":     {p11.CKM_DSA_KEY_PAIR_GEN, p11.CKA_PRIME, "2048"},
		"aes":     {p11.CKM_AES_KEY_GEN, p11.CKA_VALUE_LEN, "256"},
		"generic": {p11.CKM_GENERIC_SECRET_KEY_GEN, p11.CKA_VALUE_LEN, "256"},
	}
	for _, set := range p11.AllMLDSAParameterSets() {
		kinds[set.Short()] = keyKind{p11.CKM_ML_DSA_KEY_PAIR_GEN, p11.CKA_PARAMETER_SET, ""}
	}
	for _, set := range p11.AllSLHDSAParameterSets() {
		kinds[set.Short()] = keyKind{p11.CKM_SLH_DSA_KEY_PAIR_GEN, p11.CKA_PARAMETER_SET, ""}
	}
	for _, set := range p11.AllMLKEMParameterSets() {
		kinds[set.Short()] = keyKind{p11.CKM_ML_KEM_KEY_PAIR_GEN, p11.CKA_PARAMETER_SET, ""}
	}
	for _, set := range p11.AllMLDSAParameterSets() {
		kinds[ibm+set.Short()] = keyKind{p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKA_IBM_PARAMETER_SET, ""}
	}
	for _, set := range p11.AllMLKEMParameterSets() {
		kinds[ibm+set.Short()] = keyKind{p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, p11.CKA_IBM_PARAMETER_SET, ""}
	}
	for _, m := range p11.AllMechanismTypes() {
		f, _ := p11.MechanismFacts(m)
		if f.Functions&p11.CKF_GENERATE == 0 || f.Param != p11.ParamNone || len(f.KeyTypes) != 1 || ofGroup(f) {
			continue
		}
		kt := f.KeyTypes[0]
		if _, known := kinds[kt.Short()]; !known && m != p11.CKM_AES_KEY_GEN && m != p11.CKM_GENERIC_SECRET_KEY_GEN {
			kinds[kt.Short()] = keyKind{m, p11.CKA_VALUE_LEN, "256"}
		}
	}
	return kinds
})

// ibm begins the words for keys of openCryptoki's own mechanisms.
const ibm = "ibm-"

// fixed says that keys of the kind have one length, which need not be told.
func (k keyKind) fixed() bool {
	f, _ := p11.MechanismFacts(k.mechanism)
	return k.size == p11.CKA_VALUE_LEN && len(f.KeyTypes) == 1 && len(p11.KeyLengths(f.KeyTypes[0])) == 1
}

// parseRecipe reads a line for generate.
func parseRecipe(line string) (r recipe, err error) {
	line = strings.TrimLeft(line, " \t\r\n") // blanks at the end may be a value's
	name := line
	if n := strings.IndexAny(line, ", \t\r\n"); n >= 0 {
		name = line[:n]
	}
	word, size, sized := strings.Cut(name, ":")
	var bits, curve, set, group string
	words := map[string]*string{"bits": &bits, "curve": &curve, "group": &group}
	kind, known := keyKinds()[word]
	if known && kind.example == "" {
		known = !sized // not ed25519:256
		size, sized = word, known
	}
	if known {
		r.mechanism.Type = kind.mechanism
		if r.template, err = p11.ParseTemplateAnd(strings.TrimPrefix(line[len(name):], ","), words); err != nil {
			return recipe{}, err
		}
	} else if r.mechanism, r.template, err = p11.ParseOperationAnd(line, words); errors.Is(err, p11.CKR_MECHANISM_INVALID) {
		return recipe{}, p11.Advise(err, "write rsa:BITS, ec:CURVE, ed25519, ed448, x25519, x448, dh:GROUP, dsa:BITS, aes:BITS, generic:BITS, another type of secret key such as chacha20 or sha256-hmac:BITS, a parameter set such as ml-dsa-65 or ml-kem-768, or a mechanism that makes keys")
	} else if err != nil {
		return recipe{}, err
	}
	r.facts, _ = p11.MechanismFacts(r.mechanism.Type)
	if r.facts.Functions&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) == 0 {
		return recipe{}, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s makes no keys", r.mechanism.Type.Short())
	}
	if sized {
		into := &bits
		switch {
		case kind.size == p11.CKA_EC_PARAMS:
			into = &curve
		case kind.size == p11.CKA_PARAMETER_SET, kind.size == p11.CKA_IBM_PARAMETER_SET:
			into = &set
		case word == "dh":
			into = &group
		}
		if *into != "" {
			return recipe{}, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the size of the key is given twice"), "give it once, as in rsa:2048")
		}
		*into = size
	}
	if r.ofGroup() {
		err = r.setGroup(bits, group)
	} else {
		err = r.setSize(bits, curve, set)
	}
	if err != nil {
		return recipe{}, err
	}
	if known && !r.template.Has(kind.size) && r.prime == 0 && !kind.fixed() {
		return recipe{}, p11.Advise(p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the size of the key is missing"), "write "+word+":"+kind.example+", for one")
	}
	return r, nil
}

func (r *recipe) pair() bool { return r.facts.Functions&p11.CKF_GENERATE_KEY_PAIR != 0 }

// setSize puts the size of the key into the template.
func (r *recipe) setSize(bits, curve, set string) error {
	t, v := p11.CKA_EC_PARAMS, []byte(nil)
	rsa := slices.Contains(r.facts.KeyTypes, p11.CKK_RSA)
	switch {
	case bits != "" && r.pair() && !rsa:
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the size of this kind of key is its curve, or its parameter set")
	case set != "" && curve != "":
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a key of %s has no curve", set)
	case set != "":
		t = p11.CKA_PARAMETER_SET
		name, theirs := strings.CutPrefix(set, ibm)
		if theirs {
			t = p11.CKA_IBM_PARAMETER_SET
		}
		number, err := p11.ParseValue(t, name)
		if err != nil {
			return err
		}
		v = number
	case curve != "":
		params, ok := p11.CurveParams(curve)
		if !ok {
			return p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "no curve %q", clip(curve))
		}
		v = params
	case bits == "":
		return nil
	default:
		n, err := strconv.ParseUint(bits, 10, 32)
		switch {
		case err != nil:
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "bits=%s is no number", clip(bits))
		case rsa && n%8 != 0:
			return p11.Advise(p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA modulus has whole bytes, and %d bits are not some", n), "write rsa:2048, rsa:3072 or rsa:4096")
		case rsa:
			t, v = p11.CKA_MODULUS_BITS, p11.Ulong(n)
		case n%8 != 0:
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a secret key has whole bytes, and %d bits are not some", n)
		default:
			t, v = p11.CKA_VALUE_LEN, p11.Ulong(n/8)
		}
	}
	if r.template.Has(t) {
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the size of the key is given twice, the second time as %s", t.Short())
	}
	r.template.Set(t, v)
	return nil
}

// ofGroup says that what is made is domain parameters, or keys that have some.
func (r *recipe) ofGroup() bool { return ofGroup(r.facts) }

func ofGroup(f p11.Facts) bool {
	return slices.Contains(f.KeyTypes, p11.CKK_DH) || slices.Contains(f.KeyTypes, p11.CKK_DSA)
}

// setGroup puts the group into the template, or how long its prime is to be.
func (r *recipe) setGroup(bits, group string) error {
	dh := slices.Contains(r.facts.KeyTypes, p11.CKK_DH)
	n, err := strconv.ParseUint(bits, 10, 32)
	switch {
	case bits != "" && err != nil:
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "bits=%s is no number", clip(bits))
	case (bits != "" || group != "") && (r.template.Has(p11.CKA_PRIME) || r.template.Has(p11.CKA_PRIME_BITS)) || bits != "" && group != "":
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the group of the key is given twice")
	case bits != "" && !r.pair():
		r.template.SetUlong(p11.CKA_PRIME_BITS, n)
	case bits != "" && dh:
		return p11.Advise(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a new Diffie-Hellman group takes long to make, and nobody trusts it"), "name a group, as in dh:ffdhe2048")
	case bits != "":
		r.prime = n
	case group != "":
		g, ok := pkix.GroupNamed(group)
		if !ok || !dh || !r.pair() {
			return p11.Advise(p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "no group %q of such keys", clip(group)), "name ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144, ffdhe8192 or modp1536 to modp8192, for Diffie-Hellman")
		}
		g.Put(&r.template)
	}
	return nil
}

// addGroup makes the group of a DSA pair and puts it into the template.
func (r *recipe) addGroup(ctx context.Context, s *session, template *p11.Attributes) error {
	h, err := s.eng.GenerateKey(ctx, p11.Mechanism{Type: p11.CKM_DSA_PARAMETER_GEN}, p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DOMAIN_PARAMETERS)}, {Type: p11.CKA_PRIME_BITS, Value: p11.Ulong(r.prime)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
	})
	if err != nil {
		return err
	}
	defer func() { _ = s.eng.DestroyObject(context.WithoutCancel(ctx), h) }() // it ends with the session, too
	group, err := s.eng.GetAttributeValue(ctx, h, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE)
	for _, a := range group {
		template.Set(a.Type, a.Value)
	}
	return err
}

// make makes the key or the pair.
func (r *recipe) make(ctx context.Context, s *session) ([]p11.ObjectHandle, error) {
	template := r.template.Clone()
	if facts := r.facts; len(facts.KeyTypes) > 0 && !template.Has(p11.CKA_KEY_TYPE) {
		template.Set(p11.CKA_KEY_TYPE, p11.Ulong(facts.KeyTypes[0]))
	}
	if !r.pair() {
		if r.ofGroup() && !template.Has(p11.CKA_CLASS) {
			template.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_DOMAIN_PARAMETERS))
		}
		template = secretKey(template)
		return s.makeNamed(ctx, template, func() ([]p11.ObjectHandle, error) { return one(s.eng.GenerateKey(ctx, r.mechanism, template)) })
	}
	if template.Has(p11.CKA_CLASS) {
		return nil, p11.Advise(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a pair has a public and a private key"), "leave class out")
	}
	if r.prime != 0 {
		if err := r.addGroup(ctx, s, &template); err != nil {
			return nil, err
		}
	}
	named := forClass(template, p11.CKO_PRIVATE_KEY)
	named.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PRIVATE_KEY))
	if !template.Has(p11.CKA_ID) {
		id := make([]byte, 8)
		if _, err := rand.Read(id); err != nil {
			return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
		}
		template.Set(p11.CKA_ID, id) // the halves find each other by it
	}
	public, private := forClass(template, p11.CKO_PUBLIC_KEY), forClass(template, p11.CKO_PRIVATE_KEY)
	public.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY))
	private.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PRIVATE_KEY))
	setDefaults(&public)
	setDefaults(&private)
	return s.makeNamed(ctx, named, func() ([]p11.ObjectHandle, error) {
		pub, priv, err := s.eng.GenerateKeyPair(ctx, r.mechanism, public, private)
		return []p11.ObjectHandle{priv, pub}, err
	})
}

// A creation makes a key or a pair, and returns their handles.
type creation func() ([]p11.ObjectHandle, error)

func one(h p11.ObjectHandle, err error) ([]p11.ObjectHandle, error) {
	return []p11.ObjectHandle{h}, err
}

// makeNamed makes a key, of which create returns the handle first, unless there is one
// of its class and label. Programs find keys by their labels: with two they take either,
// or, as Java, none of the token. Modules have the standard's rule, which is none.
func (s *session) makeNamed(ctx context.Context, template p11.Attributes, create creation) ([]p11.ObjectHandle, error) {
	if err := s.nameTaken(ctx, template); err != nil {
		return nil, err
	}
	made, err := create()
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.nameTaken(ctx, template, made...); err != nil { // meanwhile
		for _, h := range made {
			if s.eng.DestroyObject(ctx, h) != nil {
				return made, nil // it has to stay
			}
		}
		return nil, err
	}
	return made, nil
}

// nameTaken refuses a key where another than those made was first with its class and label. A
// public one is in nobody's way who makes a private one; and who gives an id means it.
func (s *session) nameTaken(ctx context.Context, template p11.Attributes, made ...p11.ObjectHandle) error {
	class, _ := template.Class()
	label, _ := template.Get(p11.CKA_LABEL)
	if len(label) == 0 || template.Has(p11.CKA_ID) {
		return nil
	}
	same := ofClass(class)
	same.Set(p11.CKA_LABEL, label)
	found, err := s.app.eng.Objects(ctx, s.slot, same)
	private := !template.Has(p11.CKA_PRIVATE) || template.Bool(p11.CKA_PRIVATE)
	n := slices.IndexFunc(found, func(i engine.ObjectInfo) bool { return i.Private || !private })
	if err != nil || n < 0 || slices.Contains(made, found[n].Handle) {
		return err
	}
	return refuse(syscall.EEXIST, p11.CKR_TEMPLATE_INCONSISTENT,
		fmt.Sprintf("there is a %s labelled %q already: choose another label, destroy that one first, or give this one an id, such as id=0x02", class.Short(), clip(string(label))))
}
