package p11

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// ParseMechanism reads a mechanism with its parameters, such as
//
//	sha256-rsa-pkcs-pss,salt=32
//	aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f
//
// Words stand apart as in a template. The parameters' words are
//
//	hash mgf salt       PSS: a digest (sha256), mgf1-sha256, bytes
//	hash mgf source     OAEP; source is the label, in hexadecimal or "characters"
//	iv                  modes with an initialisation vector
//	iv aad tag          GCM; tag in bits
//	counter bits        CTR: the first counter block, how many of its bits count
//	kdf shared public   ECDH: sha256 or sha256-kdf; public is the other's point
//	public              Diffie-Hellman: the other's public value
//	mac                 bytes, of a MAC whose length is asked for
//	data, iv data       derivation from data
//	bits hash mgf source  RSA with AES key wrap: bits of the AES key
//	param               any mechanism: the whole parameter as bytes
//
// What a person would expect is filled in: the hash of the mechanism's name,
// MGF1 and a salt as long as that hash, for OAEP SHA-1 (as RFC 8017 does, and
// the openssl command line), a tag of 128 bits, 128 counting bits, no key
// derivation function, an AES key of 256 bits. What cannot be guessed is an
// error, but an absent iv or public is left absent for a caller that has its own
// source: Validate, after that, says what is still missing.
//
// Errors wrap CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID or
// CKR_ARGUMENTS_BAD.
func ParseMechanism(s string) (Mechanism, error) {
	m, attrs, err := ParseOperation(s)
	if err == nil && len(attrs) > 0 {
		t := attrs[0].Type.Short()
		attrs.Wipe()
		return Mechanism{}, Errorf(CKR_MECHANISM_PARAM_INVALID, "%s is no parameter of %s; it takes %s",
			t, m.Type.Short(), paramWords(m.Type))
	}
	return m, err
}

// ParseOperation reads a mechanism with its parameters and, among or after
// them, attributes as ParseTemplate reads them:
//
//	aes-key-wrap,class=secret-key,key-type=aes,label=x
//
// The mechanism stands first.
func ParseOperation(s string) (Mechanism, Attributes, error) {
	sc := scanner{rest: s}
	w, ok, err := sc.next()
	if err != nil {
		return Mechanism{}, nil, err
	}
	if !ok || w.hasValue {
		return Mechanism{}, nil, syntaxError("a mechanism is missing; it stands first, such as sha256-rsa-pkcs")
	}
	t, err := ParseMechanismType(w.name)
	if err != nil {
		return Mechanism{}, nil, err
	}
	params := paramParser{mech: t}
	var tmpl templateParser
	fail := func(err error) (Mechanism, Attributes, error) {
		tmpl.attrs.Wipe()
		return Mechanism{}, nil, err
	}
	for {
		w, ok, err := sc.next()
		switch {
		case err != nil:
			return fail(err)
		case !ok:
			p, err := params.build()
			if err != nil {
				return fail(err)
			}
			m := Mechanism{t, p}
			if err := m.check(true); err != nil {
				return fail(err)
			}
			return m, tmpl.attrs, nil
		case isParamWord(w.name):
			err = params.add(w)
		default:
			err = tmpl.add(w)
			sc.quiet = tmpl.secret
		}
		if err != nil {
			return fail(err)
		}
	}
}

// isParamWord says whether the word is a parameter's; no attribute has such a
// name.
func isParamWord(s string) bool {
	switch s {
	case "hash", "mgf", "salt", "source", "iv", "aad", "tag", "counter", "bits", "kdf", "shared", "public", "mac", "data", "param":
		return true
	}
	return false
}

// wordsOf returns the words of a kind of parameter.
func wordsOf(k ParamKind) []string {
	switch k {
	case ParamIV, ParamOptionalIV:
		return []string{"iv"}
	case ParamIVData:
		return []string{"iv", "data"}
	case ParamData:
		return []string{"data"}
	case ParamMAC:
		return []string{"mac"}
	case ParamPSS:
		return []string{"hash", "mgf", "salt"}
	case ParamOAEP:
		return []string{"hash", "mgf", "source"}
	case ParamGCM:
		return []string{"iv", "aad", "tag"}
	case ParamCTR:
		return []string{"counter", "bits"}
	case ParamECDH1:
		return []string{"kdf", "shared", "public"}
	case ParamRSAAESKeyWrap:
		return []string{"bits", "hash", "mgf", "source"}
	case ParamPublic:
		return []string{"public"}
	}
	return nil
}

// paramWords says for a message what a mechanism takes.
func paramWords(t MechanismType) string {
	f, ok := MechanismFacts(t)
	words := wordsOf(f.Param)
	switch {
	case len(words) > 0:
		return strings.Join(words, "=, ") + "="
	case f.Param == ParamRaw || !ok:
		return "param="
	}
	return "no parameter"
}

// A paramParser gathers the parameter words of one mechanism.
type paramParser struct {
	mech  MechanismType
	given []word
}

func (p *paramParser) add(w word) error {
	f, _ := MechanismFacts(p.mech)
	switch {
	case !w.hasValue || w.form == formBraces:
		return p.errorf("%s= wants a value", w.name)
	case w.name != "param" && !slices.Contains(wordsOf(f.Param), w.name):
		return p.errorf("has no parameter %s; it takes %s", w.name, paramWords(p.mech))
	case p.has(w.name):
		return p.errorf("%s is given twice", w.name)
	}
	p.given = append(p.given, w)
	return nil
}

func (p *paramParser) errorf(format string, args ...any) error {
	return paramError(p.mech, format, args...)
}

func paramError(t MechanismType, format string, args ...any) error {
	return Errorf(CKR_MECHANISM_PARAM_INVALID, t.Short()+": "+format, args...)
}

func (p *paramParser) has(name string) bool {
	return slices.ContainsFunc(p.given, func(w word) bool { return w.name == name })
}

func (p *paramParser) get(name string) (word, bool) {
	for _, w := range p.given {
		if w.name == name {
			return w, true
		}
	}
	return word{}, false
}

// build makes the parameter from the words.
func (p *paramParser) build() (Param, error) {
	f, _ := MechanismFacts(p.mech)
	if p.has("param") {
		if len(p.given) > 1 {
			return nil, p.errorf("param= stands alone")
		}
		b, err := p.bytes("param")
		if f.Param == ParamIV || f.Param == ParamOptionalIV {
			return IV(b), err // which is all of the parameter
		}
		return RawParam(b), err
	}
	switch f.Param {
	case ParamIV, ParamOptionalIV:
		b, err := p.bytes("iv")
		if b == nil || err != nil {
			return nil, err
		}
		return IV(b), nil
	case ParamIVData:
		if len(p.given) == 0 {
			return nil, p.errorf("iv= and data= are missing")
		}
		iv, err := p.bytes("iv")
		if err != nil {
			return nil, err
		}
		data, err := p.bytes("data")
		return &CBCDataParams{iv, data}, err
	case ParamData:
		if !p.has("data") {
			return nil, p.errorf("data= is missing")
		}
		data, err := p.bytes("data")
		return &StringDataParams{data}, err
	case ParamMAC:
		if !p.has("mac") {
			return nil, p.errorf("mac= is missing: the length of the MAC in bytes")
		}
		n, err := p.number("mac", 0)
		return MACLength(n), err
	case ParamPSS:
		return p.pss(f.Hash)
	case ParamOAEP:
		return p.oaep()
	case ParamGCM:
		return p.gcm()
	case ParamCTR:
		return p.ctr()
	case ParamECDH1:
		return p.ecdh1()
	case ParamRSAAESKeyWrap:
		oaep, err := p.oaep()
		if err != nil {
			return nil, err
		}
		bits, err := p.number("bits", 256)
		return &RSAAESKeyWrapParams{bits, oaep}, err
	case ParamPublic:
		b, err := p.bytes("public")
		if b == nil || err != nil {
			return nil, err
		}
		return RawParam(b), nil
	}
	return nil, nil
}

func (p *paramParser) pss(hash MechanismType) (*PSSParams, error) {
	var err error
	if w, ok := p.get("hash"); ok {
		if hash, err = p.hash(w); err != nil {
			return nil, err
		}
	} else if hash == 0 {
		return nil, p.errorf("hash= is missing: the digest that the data is, such as hash=sha256")
	}
	mgf, err := p.mgf(hash)
	if err != nil {
		return nil, err
	}
	salt, err := p.number("salt", HashSize(hash))
	return &PSSParams{hash, mgf, salt}, err
}

func (p *paramParser) oaep() (*OAEPParams, error) {
	hash := CKM_SHA_1
	if w, ok := p.get("hash"); ok {
		var err error
		if hash, err = p.hash(w); err != nil {
			return nil, err
		}
	}
	mgf, err := p.mgf(hash)
	if err != nil {
		return nil, err
	}
	label, err := p.bytes("source")
	return &OAEPParams{hash, mgf, label}, err
}

func (p *paramParser) gcm() (*GCMParams, error) {
	iv, err := p.bytes("iv")
	if err != nil {
		return nil, err
	}
	aad, err := p.bytes("aad")
	if err != nil {
		return nil, err
	}
	tag, err := p.number("tag", defaultTagBits)
	return &GCMParams{iv, aad, tag}, err
}

func (p *paramParser) ctr() (*CTRParams, error) {
	// A counter block must never serve twice under one key, so there is no
	// default.
	counter, err := p.bytes("counter")
	if err != nil {
		return nil, err
	}
	if len(counter) != 16 {
		return nil, p.errorf("counter= wants a block of 16 bytes, not %d", len(counter))
	}
	bits, err := p.number("bits", defaultCounterBits)
	return &CTRParams{bits, [16]byte(counter)}, err
}

func (p *paramParser) ecdh1() (*ECDH1Params, error) {
	kdf := CKD_NULL
	if w, ok := p.get("kdf"); ok {
		var err error
		if kdf, err = ParseKDF(w.value); err != nil {
			return nil, p.errorf("%w", err)
		}
	}
	shared, err := p.bytes("shared")
	if err != nil {
		return nil, err
	}
	public, err := p.bytes("public")
	return &ECDH1Params{kdf, shared, public}, err
}

func (p *paramParser) hash(w word) (MechanismType, error) {
	h, err := ParseMechanismType(w.value)
	if err != nil || HashSize(h) == 0 {
		return 0, p.errorf("hash=: no digest %s; sha256 is one", quoteWord(w.value))
	}
	return h, nil
}

func (p *paramParser) mgf(hash MechanismType) (MGF, error) {
	if w, ok := p.get("mgf"); ok {
		v, err := ParseMGF(w.value)
		if err != nil {
			return 0, p.errorf("%w", err)
		}
		return v, nil
	}
	if MGFOf(hash) == 0 {
		return 0, p.errorf("mgf= is missing: %s has none of its own", hash.Short())
	}
	return MGFOf(hash), nil
}

func (p *paramParser) number(name string, absent uint64) (uint64, error) {
	w, ok := p.get(name)
	if !ok {
		return absent, nil
	}
	v, err := parseNumber(w.value)
	if err != nil {
		return 0, p.errorf("%s= %w", name, err)
	}
	return v, nil
}

// bytes returns nil for an absent word, and for an empty one that may be
// absent. The error holds no value: data and shared may be secret.
func (p *paramParser) bytes(name string) ([]byte, error) {
	w, ok := p.get(name)
	if !ok {
		return nil, nil
	}
	digits, _ := cutHexPrefix(w.value)
	if w.value == "" || digits == "" && w.form == formBare {
		switch name {
		case "iv", "public":
			return nil, p.errorf("%s= is empty", name)
		case "aad", "source", "shared":
			return nil, nil
		}
	}
	if w.form == formQuoted {
		return []byte(w.value), nil
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return nil, p.errorf("%s= wants hexadecimal digits in pairs", name)
	}
	return b, nil
}

const (
	defaultTagBits     = 128
	defaultCounterBits = 128
	defaultAESKeyBits  = 256
)

// String returns the mechanism with its parameters as ParseMechanism reads
// them. Parameters that have the value ParseMechanism fills in are left out,
// except salt.
func (m Mechanism) String() string {
	w := paramWriter{[]byte(m.Type.Short())}
	switch p := m.Param.(type) {
	case nil:
	case IV:
		w.bytes("iv", p, true)
	case *CBCDataParams:
		w.bytes("iv", p.IV, true)
		w.bytes("data", p.Data, true)
	case *StringDataParams:
		w.bytes("data", p.Data, true)
	case MACLength:
		w.number("mac", uint64(p))
	case *PSSParams:
		f, _ := MechanismFacts(m.Type)
		if p.Hash != f.Hash {
			w.word("hash", p.Hash.Short())
		}
		w.mgf(p.Hash, p.MGF)
		w.number("salt", p.SaltLen)
	case *OAEPParams:
		w.oaep(p)
	case *GCMParams:
		w.bytes("iv", p.IV, false)
		w.bytes("aad", p.AAD, false)
		if p.TagBits != defaultTagBits {
			w.number("tag", p.TagBits)
		}
	case *CTRParams:
		w.bytes("counter", p.Counter[:], true)
		if p.CounterBits != defaultCounterBits {
			w.number("bits", p.CounterBits)
		}
	case *ECDH1Params:
		if p.KDF != CKD_NULL {
			w.word("kdf", p.KDF.Short())
		}
		w.bytes("shared", p.SharedData, false)
		w.bytes("public", p.PublicData, false)
	case *RSAAESKeyWrapParams:
		if p.AESKeyBits != defaultAESKeyBits {
			w.number("bits", p.AESKeyBits)
		}
		if p.OAEP != nil {
			w.oaep(p.OAEP)
		}
	case RawParam:
		if f, _ := MechanismFacts(m.Type); f.Param == ParamPublic && len(p) > 0 {
			w.bytes("public", p, true)
		} else {
			w.bytes("param", p, true)
		}
	}
	return string(w.b)
}

// A paramWriter builds the text of a mechanism.
type paramWriter struct{ b []byte }

func (w *paramWriter) word(name, value string) {
	w.b = append(w.b, ","+name+"="+value...)
}

func (w *paramWriter) number(name string, v uint64) { w.word(name, strconv.FormatUint(v, 10)) }

// bytes writes an empty value only if always.
func (w *paramWriter) bytes(name string, v []byte, always bool) {
	if len(v) > 0 || always {
		w.word(name, "0x"+hex.EncodeToString(v))
	}
}

func (w *paramWriter) mgf(hash MechanismType, mgf MGF) {
	if mgf != MGFOf(hash) {
		w.word("mgf", mgf.Short())
	}
}

func (w *paramWriter) oaep(p *OAEPParams) {
	if p.Hash != CKM_SHA_1 {
		w.word("hash", p.Hash.Short())
	}
	w.mgf(p.Hash, p.MGF)
	w.bytes("source", p.Label, false)
}
