package fs

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"p11fs/p11"
)

// generateFile makes keys. It is written what to make, and reads the names made,
// one a line:
//
//	rsa:2048 label=web id=01         or  rsa bits=2048 label=web id=01
//	ec:p256 label=tls                or  ec curve=p256 label=tls
//	aes:256 label=disk
//	generic:512 label=hmac
//	CKM_AES_KEY_GEN value-len=32 …   any mechanism that makes keys
//
// After the kind stand attributes as in any template. One template serves both
// keys of a pair: what only one of them has goes to that one, and private= to
// the private key.
func (f *FS) generateFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "generate", replies: true,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			r, err := parseRecipe(string(line))
			if err != nil {
				return nil, err
			}
			handles, err := r.make(ctx, o.s)
			if err != nil {
				return nil, err
			}
			// What is made is made: no interrupt takes its name away.
			return f.objects(p).namesOf(context.WithoutCancel(ctx), o.app.eng, handles...)
		},
	}
}

// A recipe is what generate was told to make.
type recipe struct {
	mechanism p11.Mechanism
	template  p11.Attributes
	pair      bool
	keyType   p11.KeyType
}

// parseRecipe reads a line for generate.
func parseRecipe(line string) (recipe, error) {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	word, size, sized := strings.Cut(kind, ":")
	rest, bits, curve, err := cutShort(rest)
	if err != nil {
		return recipe{}, err
	}
	if sized {
		switch {
		case word == "ec" && curve == "":
			curve = size
		case word != "ec" && bits == "":
			bits = size
		default:
			return recipe{}, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the size of the key is given twice")
		}
	}
	r := recipe{}
	if r.template, err = p11.ParseTemplate(rest); err != nil {
		return recipe{}, err
	}
	switch word {
	case "rsa":
		r.mechanism.Type, r.keyType, r.pair = p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKK_RSA, true
	case "ec":
		r.mechanism.Type, r.keyType, r.pair = p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, true
	case "aes":
		r.mechanism.Type, r.keyType = p11.CKM_AES_KEY_GEN, p11.CKK_AES
	case "generic":
		r.mechanism.Type, r.keyType = p11.CKM_GENERIC_SECRET_KEY_GEN, p11.CKK_GENERIC_SECRET
	default:
		if err := r.byMechanism(kind); err != nil {
			return recipe{}, err
		}
	}
	if err := r.size(bits, curve); err != nil {
		return recipe{}, err
	}
	return r, r.sized(word)
}

// sized says what is missing of a kind of key that has sizes.
func (r *recipe) sized(word string) error {
	example := map[string]struct {
		in   p11.AttributeType
		such string
	}{
		"rsa": {p11.CKA_MODULUS_BITS, "2048"}, "ec": {p11.CKA_EC_PARAMS, "p256"},
		"aes": {p11.CKA_VALUE_LEN, "256"}, "generic": {p11.CKA_VALUE_LEN, "256"},
	}
	e, known := example[word]
	if !known || r.template.Has(e.in) {
		return nil
	}
	return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the size of the key is missing: write %s:%s, for one", word, e.such)
}

func (r *recipe) byMechanism(name string) error {
	m, err := p11.ParseMechanism(name)
	if err != nil {
		return p11.Errorf(p11.RVOf(err), "write rsa:BITS, ec:CURVE, aes:BITS, generic:BITS or a mechanism that makes keys: %v", err)
	}
	facts, _ := p11.MechanismFacts(m.Type)
	if facts.Functions&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) == 0 {
		return p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s makes no keys", m.Type.Short())
	}
	r.mechanism, r.pair = m, facts.Functions&p11.CKF_GENERATE_KEY_PAIR != 0
	if len(facts.KeyTypes) > 0 {
		r.keyType = facts.KeyTypes[0]
	}
	return nil
}

// size puts the size of the key into the template.
func (r *recipe) size(bits, curve string) error {
	put := func(t p11.AttributeType, v []byte) error {
		if r.template.Has(t) {
			return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the size of the key is given twice, the second time as %s", t.Short())
		}
		r.template.Set(t, v)
		return nil
	}
	if curve != "" {
		params, ok := p11.CurveParams(curve)
		if !ok {
			return p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "no curve %q: p256, p384, p521", clip(curve))
		}
		return put(p11.CKA_EC_PARAMS, params)
	}
	if bits == "" {
		return nil
	}
	n, err := strconv.ParseUint(bits, 10, 32)
	if err != nil {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "bits=%s is no number", clip(bits))
	}
	switch {
	case r.keyType == p11.CKK_RSA:
		return put(p11.CKA_MODULUS_BITS, p11.Ulong(n))
	case r.pair:
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the size of this kind of key is its curve")
	case n%8 != 0:
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a secret key has whole bytes, and %d bits are not some", n)
	}
	return put(p11.CKA_VALUE_LEN, p11.Ulong(n/8))
}

// cutShort takes the words bits= and curve=, which are no attributes, out of a
// template.
func cutShort(s string) (rest, bits, curve string, err error) {
	var b strings.Builder
	for s != "" {
		n := wordEnd(s)
		word := s[:n]
		name, value, _ := strings.Cut(word, "=")
		into := (*string)(nil)
		switch name {
		case "bits":
			into = &bits
		case "curve":
			into = &curve
		}
		switch {
		case into == nil:
			b.WriteString(word)
		case *into != "" || value == "":
			return "", "", "", p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s is given twice, or without a value", name)
		default:
			*into = value
			b.WriteByte(' ')
		}
		s = s[n:]
		for s != "" && (s[0] == ' ' || s[0] == ',' || s[0] == '\t') {
			if into == nil || s[0] != ',' {
				b.WriteByte(s[0])
			}
			s = s[1:]
		}
	}
	return b.String(), bits, curve, nil
}

// wordEnd is where the first word of s ends: at a blank or comma that stands in
// no quotes and no braces.
func wordEnd(s string) int {
	quoted, depth := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
		case depth <= 0 && (c == ' ' || c == ',' || c == '\t'):
			return i
		}
	}
	return len(s)
}

// make makes the key or the pair.
func (r *recipe) make(ctx context.Context, s *session) ([]p11.ObjectHandle, error) {
	if !r.pair {
		template := r.template.Clone()
		if !template.Has(p11.CKA_CLASS) {
			template.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_SECRET_KEY))
		}
		r.typed(&template)
		h, err := s.eng.GenerateKey(ctx, r.mechanism, guardedKey(template))
		return []p11.ObjectHandle{h}, err
	}
	template := r.template
	if template.Has(p11.CKA_CLASS) {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a pair has a public and a private key: leave class out")
	}
	if !template.Has(p11.CKA_ID) {
		id := make([]byte, 8)
		if _, err := rand.Read(id); err != nil {
			return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
		}
		template = template.With(p11.CKA_ID, id) // the halves find each other by it
	}
	public, private := half(template, p11.CKO_PUBLIC_KEY), half(template, p11.CKO_PRIVATE_KEY)
	public.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY))
	private.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PRIVATE_KEY))
	r.typed(&public)
	r.typed(&private)
	pub, priv, err := s.eng.GenerateKeyPair(ctx, r.mechanism, openObject(public), guardedKey(private))
	return []p11.ObjectHandle{priv, pub}, err
}

func (r *recipe) typed(t *p11.Attributes) {
	if facts, _ := p11.MechanismFacts(r.mechanism.Type); !t.Has(p11.CKA_KEY_TYPE) && (len(facts.KeyTypes) == 1 || r.keyType != 0) {
		t.Set(p11.CKA_KEY_TYPE, p11.Ulong(r.keyType))
	}
}
