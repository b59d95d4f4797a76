package ccatok

import (
	"encoding/hex"
	"strings"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/cardway"
	"p11fs/tokens/card/cca"
)

// confFile is the configuration of a token for which its slot names none.
const confFile = "ccatok.conf"

// A conf is what ccatok.conf says (openCryptoki 3.19 and later), and its lines behind
// #p11fs:.
type conf struct {
	sensitive bool                   // FORCE_SENSITIVE
	expected  map[string]cca.Pattern // EXPECTED_MKVPS, by SYM, AES and APKA
	ignored   []string               // the words that change nothing here
	card      string                 // of #p11fs: a socket, or "new"
	setting   bool                   // that does not stand behind #p11fs:, as in no file of stock's
}

type parser struct {
	conf
	rest []cardway.Word
}

// next takes a word, if there is one.
func (p *parser) next() (cardway.Word, bool) {
	if len(p.rest) == 0 {
		return cardway.Word{}, false
	}
	w := p.rest[0]
	p.rest = p.rest[1:]
	return w, true
}

// value takes the value of a word, behind =.
func (p *parser) value(of cardway.Word) (cardway.Word, error) {
	equals, _ := p.next()
	v, ok := p.next()
	if !equals.Is("=") || !ok || v.Text == "" || v.Is("=") || v.Is("{") || v.Is("}") {
		return cardway.Word{}, of.Bad(of.Text + " wants = and a value")
	}
	return v, nil
}

// parseConf reads a configuration.
func parseConf(src string) (conf, error) {
	list, err := cardway.Words(src, "={},")
	if err != nil {
		return conf{}, err
	}
	p := &parser{conf: conf{expected: make(map[string]cca.Pattern)}, rest: list}
	for {
		w, ok := p.next()
		if !ok {
			return p.conf, nil
		}
		if err := p.statement(w); err != nil {
			return conf{}, err
		}
	}
}

func (p *parser) statement(w cardway.Word) error {
	switch w.Text {
	case "version":
		if v, _ := p.next(); v.Text != "cca-0" {
			return w.Bad("the version is cca-0")
		}
	case "EXPECTED_MKVPS":
		return p.patterns(w)
	case "FORCE_SENSITIVE":
		p.sensitive = true
	case "PKEY_MODE", "AES_KEY_MODE":
		p.ignored = append(p.ignored, w.Text)
		_, err := p.value(w)
		return err
	case "card":
		v, err := p.value(w)
		p.card, p.setting = v.Text, !w.Ours
		return err
	default:
		return w.Bad("it is version, EXPECTED_MKVPS, FORCE_SENSITIVE, PKEY_MODE, AES_KEY_MODE, or #p11fs: card = SOCKET")
	}
	return nil
}

// patterns takes the patterns in braces.
func (p *parser) patterns(of cardway.Word) error {
	if w, _ := p.next(); !w.Is("{") {
		return of.Bad("EXPECTED_MKVPS wants { and }")
	}
	for {
		w, ok := p.next()
		switch {
		case !ok:
			return of.Bad("EXPECTED_MKVPS has no }")
		case w.Is("}"):
			return nil
		case w.Is(","):
			continue
		case w.Text != "SYM" && w.Text != "AES" && w.Text != "APKA":
			return w.Bad("the master keys are SYM, AES and APKA")
		}
		v, err := p.value(w)
		if err != nil {
			return err
		}
		digits, _ := strings.CutPrefix(v.Text, "0x")
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != len(cca.Pattern{}) {
			return w.Bad("a verification pattern has 16 hexadecimal digits")
		}
		p.expected[w.Text] = cca.Pattern(b)
	}
}

// readConf reads the configuration of a place, which may be none.
func readConf(place tokens.Place) (conf, error) {
	path, text, err := cardway.Way{Conf: confFile}.Read(place)
	if err != nil || path == "" {
		return conf{}, err
	}
	c, err := parseConf(text)
	if err != nil {
		return c, p11.Errorf(p11.RVOf(err), "%s, %w", path, err)
	}
	return c, nil
}
