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
// Words stand apart as in a template. The words of each parameter, and what
// stands for those that are absent, are in table.txt; param=, for any mechanism,
// is the whole parameter as bytes. Bytes are in hexadecimal or "characters".
//
// What a person would expect is filled in: the hash of the mechanism's name,
// MGF1 and a salt as long as that hash, for OAEP SHA-1 (as RFC 8017 does, and
// the openssl command line). What cannot be guessed is an error, but an absent iv
// or public is left absent for a caller that has its own source: Validate, after
// that, says what is still missing.
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
func ParseOperation(s string) (Mechanism, Attributes, error) { return ParseOperationAnd(s, nil) }

// ParseOperationAnd is ParseOperation for a text in which words of these names may be
// too, as with ParseTemplateAnd.
func ParseOperationAnd(s string, words map[string]*string) (Mechanism, Attributes, error) {
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
	params.facts, _ = MechanismFacts(t)
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
			m := Mechanism{t, params.build()}
			if params.err != nil {
				return fail(params.err)
			}
			if err := m.check(true); err != nil {
				return fail(err)
			}
			return m, tmpl.attrs, nil
		case words[w.name] != nil:
			err = w.into(words[w.name])
		case isParamWord(w.name):
			err = params.add(w)
			sc.quiet = sc.quiet || params.secret(w.name)
		default:
			err = tmpl.add(w)
			sc.quiet = sc.quiet || tmpl.secret
		}
		if err != nil {
			return fail(err)
		}
	}
}

// A paramWord is a word of a parameter.
type paramWord struct {
	name     string
	about    string // what it is, for the message that it is missing
	sample   string // a good value where there is no default
	size     int    // of bytes that have a length of their own
	required bool
	secret   bool // its value is never printed
	fromName bool // required if the mechanism's name has no hash
	part     int  // not 0: of a part of the parameter that may be left out
}

// missing says that the word is missing.
func (w paramWord) missing() string {
	if w.about != "" {
		return w.name + "= is missing: " + w.about
	}
	return w.name + "= is missing"
}

// paramWords says for a message what a mechanism takes.
func paramWords(t MechanismType) string {
	f, ok := MechanismFacts(t)
	var words []string
	for _, w := range f.Param.words() {
		words = append(words, w.name+"=")
	}
	switch {
	case words != nil:
		return strings.Join(words, ", ")
	case f.Param == ParamRaw || !ok:
		return "param="
	}
	return "no parameter"
}

// A paramParser gathers the parameter words of one mechanism.
type paramParser struct {
	mech   MechanismType
	facts  Facts
	given  []word
	sample bool  // absent words have the value that is good for tests
	err    error // the first
}

func (p *paramParser) add(w word) error {
	known := w.name == "param" || slices.ContainsFunc(p.facts.Param.words(), func(k paramWord) bool { return k.name == w.name })
	switch {
	case !w.hasValue || w.form == formBraces:
		return paramError(p.mech, "%s= wants a value", w.name)
	case !known:
		return paramError(p.mech, "has no parameter %s; it takes %s", w.name, paramWords(p.mech))
	case p.has(w.name):
		return paramError(p.mech, "%s is given twice", w.name)
	}
	p.given = append(p.given, w)
	return nil
}

// secret says whether the word's value is.
func (p *paramParser) secret(name string) bool {
	return slices.ContainsFunc(p.facts.Param.words(), func(k paramWord) bool { return k.name == name && k.secret })
}

func (p *paramParser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = paramError(p.mech, format, args...)
	}
}

func paramError(t MechanismType, format string, args ...any) error {
	return Errorf(CKR_MECHANISM_PARAM_INVALID, t.Short()+": "+format, args...)
}

func (p *paramParser) has(name string) bool {
	_, ok := p.get(name)
	return ok
}

func (p *paramParser) get(name string) (word, bool) {
	for _, w := range p.given {
		if w.name == name {
			return w, true
		}
	}
	return word{}, false
}

// build makes the parameter of the words; err says what is wrong with them.
func (p *paramParser) build() Param {
	if p.has("param") {
		if len(p.given) > 1 {
			p.fail("param= stands alone")
		}
		return p.facts.Param.fromBytes(p.bytes("param", emptyTaken))
	}
	if p.facts.Optional && len(p.given) == 0 {
		return nil
	}
	p.complete()
	if p.err != nil {
		return nil
	}
	param := p.facts.Param.parse(p)
	if p.err != nil {
		return nil
	}
	return param
}

// complete looks for the words that must be there.
func (p *paramParser) complete() {
	words := p.facts.Param.words()
	parts := map[int]bool{0: true}
	for _, w := range words {
		parts[w.part] = parts[w.part] || p.has(w.name)
	}
	var missing []string
	message := ""
	for _, w := range words {
		absent := !p.has(w.name) && (!w.fromName || p.facts.Hash == 0)
		switch {
		case absent && p.sample && w.sample != "":
			p.given = append(p.given, word{name: w.name, hasValue: true, value: p.sampleOf(w)})
		case absent && (w.required || w.fromName) && parts[w.part]:
			missing, message = append(missing, w.name+"="), w.missing()
		}
	}
	if len(missing) > 1 {
		message = strings.Join(missing, " and ") + " are missing"
	}
	if message != "" {
		p.fail("%s", message)
	}
}

func (p *paramParser) sampleOf(w paramWord) string {
	if w.sample != "zeros" {
		return w.sample
	}
	for _, n := range []int{w.size, p.facts.IVLen} {
		if n > 0 {
			return strings.Repeat("00", n)
		}
	}
	return strings.Repeat("00", 16)
}

func (p *paramParser) hash(name string, absent MechanismType) MechanismType {
	w, ok := p.get(name)
	if !ok {
		return absent
	}
	h, err := ParseMechanismType(w.value)
	if err != nil || HashSize(h) == 0 {
		p.fail("%s=: no digest %s; sha256 is one", name, quoteWord(w.value))
	}
	return h
}

func (p *paramParser) mgf(name string, hash MechanismType) MGF {
	absent := MGFOf(hash)
	if absent == 0 && !p.has(name) {
		p.fail("%s= is missing: %s has none of its own", name, hash.Short())
	}
	return parseNamed(p, name, absent, ParseMGF)
}

// parseNamed reads a word whose values have names.
func parseNamed[T named](p *paramParser, name string, absent T, parse func(string) (T, error)) T {
	w, ok := p.get(name)
	if !ok {
		return absent
	}
	v, err := parse(w.value)
	if err != nil {
		p.fail("%w", err)
	}
	return v
}

func (p *paramParser) number(name string, absent uint64) uint64 {
	w, ok := p.get(name)
	if !ok {
		return absent
	}
	v, err := parseNumber(w.value)
	if err != nil {
		p.fail("%s= %w", name, err)
	}
	return v
}

// flag reads a word that is true or false.
func (p *paramParser) flag(name string, absent bool) bool {
	w, ok := p.get(name)
	if !ok {
		return absent
	}
	if w.value != "true" && w.value != "false" {
		p.fail("%s= is true or false", name)
	}
	return w.value == "true"
}

// What becomes of a word of bytes whose value is empty.
type empty int

const (
	emptyTaken  empty = iota // as no bytes
	emptyAbsent              // as if it were not there
	emptyWrong
)

// bytes returns nil for an absent word. The error holds no value, which may be
// secret.
func (p *paramParser) bytes(name string, e empty) []byte {
	w, ok := p.get(name)
	if !ok {
		return nil
	}
	digits, _ := cutHexPrefix(w.value)
	if w.value == "" || digits == "" && w.form == formBare {
		switch e {
		case emptyWrong:
			p.fail("%s= is empty", name)
			return nil
		case emptyAbsent:
			return nil
		}
	}
	if w.form == formQuoted {
		return []byte(w.value)
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		p.fail("%s= wants hexadecimal digits in pairs", name)
	}
	return b
}

// array returns n bytes, or none for a word that may be absent and is.
func (p *paramParser) array(name string, n int, required bool) []byte {
	b := p.bytes(name, emptyTaken)
	if len(b) != n && (required || p.has(name)) {
		p.fail("%s= wants a block of %d bytes, not %d", name, n, len(b))
	}
	return b
}

// String returns the mechanism with its parameters as ParseMechanism reads
// them. Parameters that have the value ParseMechanism fills in are left out,
// except salt, and so are secrets.
func (m Mechanism) String() string { return m.text(false) }

// text is String, with secrets if it is to be full.
func (m Mechanism) text(full bool) string {
	w := paramWriter{b: []byte(m.Type.Short()), full: full}
	w.facts, _ = MechanismFacts(m.Type)
	if m.Param != nil {
		m.Param.print(&w)
	}
	return string(w.b)
}

// A paramWriter builds the text of a mechanism.
type paramWriter struct {
	b     []byte
	facts Facts
	full  bool // with secrets
}

func (w *paramWriter) word(name, value string) {
	w.b = append(w.b, ","+name+"="+value...)
}

func (w *paramWriter) number(name string, v uint64) { w.word(name, strconv.FormatUint(v, 10)) }

func (w *paramWriter) flag(name string, v bool) { w.word(name, strconv.FormatBool(v)) }

func (w *paramWriter) bytes(name string, v []byte) { w.word(name, "0x"+hex.EncodeToString(v)) }

func (v RawParam) print(w *paramWriter) {
	name := "param"
	if len(v) > 0 {
		name = w.facts.Param.rawWord()
	}
	w.bytes(name, v)
}
