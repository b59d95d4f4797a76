package tokentest

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"errors"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// A ring makes keys of the types that mechanisms need, with the token's own
// generation.
type ring struct {
	Calls
	tok  tokens.Token
	pub  map[p11.KeyType]*tokens.Object
	priv map[p11.KeyType]*tokens.Object // and secret keys

	exchanged p11.KeyType // Backend's
	kdf       p11.KDF
}

func newRing(t *testing.T, tok tokens.Token) *ring {
	r := &ring{Calls{tok}, tok, make(map[p11.KeyType]*tokens.Object), make(map[p11.KeyType]*tokens.Object), p11.CKK_GENERIC_SECRET, 0}
	for _, m := range tok.Mechanisms() {
		facts, _ := p11.MechanismFacts(m.Type)
		switch {
		case m.Flags&p11.CKF_GENERATE != 0:
			kt := p11.CKK_GENERIC_SECRET
			if len(facts.KeyTypes) > 0 {
				kt = facts.KeyTypes[0]
			}
			r.generate(t, p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}, kt)
		case m.Flags&p11.CKF_GENERATE_KEY_PAIR != 0:
			r.generatePair(t, p11.Mechanism{Type: m.Type}, facts.KeyTypes[0])
		}
	}
	return r
}

func (r *ring) generate(t *testing.T, m p11.Mechanism, kt p11.KeyType) {
	if kt == p11.CKK_DH || kt == p11.CKK_DSA {
		r.generateGroup(t, m, kt)
		return
	}
	template := keyTemplate(p11.CKO_SECRET_KEY, kt)
	_, premaster := m.Param.(p11.TLSVersion) // which has its length
	switch lengths := p11.KeyLengths(kt); {
	case premaster:
	case len(lengths) == 0:
		template.SetUlong(p11.CKA_VALUE_LEN, 16)
	case len(lengths) == 1: // which the template need not say
	default:
		template.SetUlong(p11.CKA_VALUE_LEN, lengths[0])
	}
	a, err := r.tok.(tokens.KeyGenerator).GenerateKey(t.Context(), m, template)
	if err != nil {
		t.Errorf("%s: %v", m.Type, err)
		return
	}
	r.priv[kt] = adopted(t, r.tok, a)
	r.pub[kt] = r.priv[kt]
}

// generateGroup makes domain parameters, which are a group.
func (r *ring) generateGroup(t *testing.T, m p11.Mechanism, kt p11.KeyType) {
	template := keyTemplate(p11.CKO_DOMAIN_PARAMETERS, kt)
	bits := uint64(512)
	if kt == p11.CKK_DSA {
		bits = 1024
	}
	template.SetUlong(p11.CKA_PRIME_BITS, bits)
	a, err := r.tok.(tokens.KeyGenerator).GenerateKey(t.Context(), m, template)
	if err != nil {
		t.Errorf("%s: %v", m.Type, err)
		return
	}
	g, err := pkix.GroupOf(kt, a)
	if err == nil {
		err = g.CheckPrimes()
	}
	if err != nil || uint64(g.P.BitLen()) != bits {
		t.Errorf("%s: a group of %d bits: %v", m.Type, g.P.BitLen(), err)
	}
}

func (r *ring) generatePair(t *testing.T, m p11.Mechanism, kt p11.KeyType) {
	public := keyTemplate(p11.CKO_PUBLIC_KEY, kt)
	switch kt {
	case p11.CKK_RSA:
		bits := max(1152, least(r.tok, m.Type)) // room for a PSS salt of SHA-512
		if !r.has512() {
			bits = 1024
		}
		public.SetUlong(p11.CKA_MODULUS_BITS, bits)
		public.Set(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})
	case p11.CKK_EC:
		public.Set(p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	case p11.CKK_EC_EDWARDS:
		public.Set(p11.CKA_EC_PARAMS, []byte{6, 3, 0x2b, 0x65, 0x70})
	case p11.CKK_EC_MONTGOMERY:
		public.Set(p11.CKA_EC_PARAMS, []byte{6, 3, 0x2b, 0x65, 0x6e})
	case p11.CKK_ML_DSA, p11.CKK_ML_KEM:
		public.SetUlong(p11.CKA_PARAMETER_SET, uint64(p11.CKP_ML_DSA_44)) // of ML-KEM it is 512
	case p11.CKK_IBM_ML_DSA, p11.CKK_IBM_ML_KEM:
		public.SetUlong(p11.CKA_IBM_PARAMETER_SET, uint64(p11.CKP_ML_DSA_44))
	case p11.CKK_SLH_DSA:
		public.SetUlong(p11.CKA_PARAMETER_SET, uint64(p11.CKP_SLH_DSA_SHA2_128F)) // the fastest
	case p11.CKK_DH, p11.CKK_DSA:
		Group(kt).Put(&public)
	default:
		return
	}
	a, b, err := r.tok.(tokens.KeyGenerator).GenerateKeyPair(t.Context(), m, public, keyTemplate(p11.CKO_PRIVATE_KEY, kt))
	if kt == p11.CKK_RSA && errors.Is(err, p11.CKR_KEY_SIZE_RANGE) { // a chip has a few sizes only
		public.SetUlong(p11.CKA_MODULUS_BITS, 2048)
		a, b, err = r.tok.(tokens.KeyGenerator).GenerateKeyPair(t.Context(), m, public, keyTemplate(p11.CKO_PRIVATE_KEY, kt))
	}
	if err != nil {
		t.Errorf("%s: %v", m.Type, err)
		return
	}
	r.pub[kt], r.priv[kt] = adopted(t, r.tok, a), adopted(t, r.tok, b)
}

// has512 says whether the token has PSS over SHA-512.
func (r *ring) has512() bool {
	return slices.ContainsFunc(r.tok.Mechanisms(), func(m p11.MechanismInfo) bool { return m.Type == p11.CKM_SHA512_RSA_PKCS_PSS })
}

// keyTemplate is a template as the engine completes it: it says what is to be made,
// and that it may be seen.
func keyTemplate(class p11.ObjectClass, kt p11.KeyType) p11.Attributes {
	a := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(false)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
	}
	if class != p11.CKO_PUBLIC_KEY {
		a.SetBool(p11.CKA_SENSITIVE, false)
		a.SetBool(p11.CKA_EXTRACTABLE, true)
	}
	return a
}

// least is the smallest size of a mechanism.
func least(tok tokens.Token, t p11.MechanismType) uint64 {
	for _, m := range tok.Mechanisms() {
		if m.Type == t {
			return m.MinKeySize
		}
	}
	return 0
}

// adopt has the token take attributes, as the engine does before it stores them.
func adopt(t *testing.T, tok tokens.Token, attrs p11.Attributes) p11.Attributes {
	t.Helper()
	a, ok := tok.(tokens.Adopter)
	if !ok {
		return attrs
	}
	attrs, err := a.Adopt(t.Context(), attrs)
	noError(t, err)
	return attrs
}

// adopted is a session object of the attributes, as the engine makes it.
func adopted(t *testing.T, tok tokens.Token, attrs p11.Attributes) *tokens.Object {
	t.Helper()
	attrs = adopt(t, tok, attrs)
	var forget func(p11.Attributes)
	if f, ok := tok.(tokens.Forgetter); ok {
		forget = f.Forget
	}
	o := tokens.NewSessionObject(tokens.NewHandle(), attrs, forget)
	drop(t, o)
	return o
}

// secretKey is a secret key of the token with that value.
func secretKey(t *testing.T, tok tokens.Token, kt p11.KeyType, value []byte) *tokens.Object {
	t.Helper()
	a := keyTemplate(p11.CKO_SECRET_KEY, kt)
	a.Set(p11.CKA_VALUE, bytes.Clone(value))
	return adopted(t, tok, a)
}

// readable returns the attribute of an object of the token, and whether it is one
// that may be read.
func readable(t *testing.T, tok tokens.Token, o *tokens.Object, at p11.AttributeType) ([]byte, bool) {
	t.Helper()
	a, err := o.Acquire()
	noError(t, err)
	defer o.Release()
	if h, ok := tok.(tokens.Hider); ok && h.Visibility(a, at) != tokens.Readable && h.Visibility(a, at) != tokens.Shown {
		return nil, false
	}
	v, ok := a.Get(at)
	return bytes.Clone(v), ok
}

// hash is the one whose HMAC tells keys apart: SHA-256, or SHA-1 where the token is older.
func (r *ring) hash() p11.Hash {
	t := p11.CKM_SHA_1
	for _, m := range r.tok.Mechanisms() {
		if m.Type == p11.CKM_SHA256_HMAC {
			t = p11.CKM_SHA256
		}
	}
	h, _ := p11.HashOf(t)
	return h
}

// macOf is what mac is for a key of a value.
func (r *ring) macOf(t *testing.T, kt p11.KeyType, value []byte) []byte {
	if kt == p11.CKK_AES {
		b, err := aes.NewCipher(value)
		noError(t, err)
		out := make([]byte, b.BlockSize())
		b.Encrypt(out, out)
		return out
	}
	h := hmac.New(r.hash().Go.New, value)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// mac is the HMAC of message; of a key of AES a block of zeros, encrypted.
func (r *ring) mac(t *testing.T, key *tokens.Object) []byte {
	t.Helper()
	if keyType(t, key) == p11.CKK_AES {
		e, err := r.Encrypt(t.Context(), p11.Mechanism{Type: p11.CKM_AES_ECB}, key)
		noError(t, err)
		defer e.Close()
		out, err := e.Update(make([]byte, aes.BlockSize))
		noError(t, err)
		rest, err := e.Final()
		noError(t, err)
		return append(out, rest...)
	}
	s, err := r.Sign(t.Context(), p11.Mechanism{Type: r.hash().HMAC}, key)
	noError(t, err)
	defer s.Close()
	noError(t, s.Update([]byte(message)))
	mac, err := s.Final()
	noError(t, err)
	return mac
}

// has says whether a secret key has that value: from the value where it can be read,
// else from what the key signs.
func (r *ring) has(t *testing.T, key *tokens.Object, value []byte) bool {
	t.Helper()
	if v, ok := readable(t, r.tok, key, p11.CKA_VALUE); ok {
		return bytes.Equal(v, value)
	}
	return hmac.Equal(r.mac(t, key), r.macOf(t, keyType(t, key), value))
}

func keyType(t *testing.T, key *tokens.Object) p11.KeyType {
	t.Helper()
	n, err := p11.ToUlong(attribute(t, key, p11.CKA_KEY_TYPE))
	noError(t, err)
	return p11.KeyType(n)
}

// keys returns the pair that the mechanism uses.
func (r *ring) keys(t *testing.T, facts p11.Facts) (pub, priv *tokens.Object) {
	t.Helper()
	for _, kt := range facts.KeyTypes {
		if r.priv[kt] != nil {
			return r.pub[kt], r.priv[kt]
		}
	}
	t.Fatal("the token makes no key for it")
	return nil, nil
}
