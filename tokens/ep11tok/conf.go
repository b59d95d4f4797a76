package ep11tok

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardway"
)

// A conf is what ep11tok.conf says (openCryptoki 3.27), and its lines behind #p11fs:.
type conf struct {
	apqns     card.Target // none: APQN_ANY
	sensitive bool        // FORCE_SENSITIVE
	strict    bool        // STRICT_MODE
	vhsm      bool        // VHSM_MODE
	filter    string      // CPFILTER, "" for the file beside this one
	wkvp      []byte      // EXPECTED_WKVP
	ignored   []string    // the words that change nothing here

	card, library string // of #p11fs: a socket, or "new"; a vendor's library
	setting       bool   // these do not stand behind #p11fs:, as in no file of stock's
}

// parseConf reads a configuration.
func parseConf(src string) (conf, error) {
	list, err := cardway.Words(src, "=")
	if err != nil {
		return conf{}, err
	}
	p := &parser{rest: list}
	for len(p.rest) > 0 {
		if err := p.statement(); err != nil {
			return conf{}, err
		}
	}
	if !p.mode && p.card == "" && p.library == "" {
		return conf{}, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "it names no cards"), "write APQN_ANY, or APQN_ALLOWLIST with some")
	}
	return p.conf, nil
}

type parser struct {
	conf
	rest []cardway.Word
	mode bool // whether an APQN mode was there
}

func (p *parser) bad(w cardway.Word, format string, args ...any) error {
	return w.Bad(fmt.Sprintf(format, args...))
}

// value takes the value of a word, with or without = before it.
func (p *parser) value(of cardway.Word) (cardway.Word, error) {
	if len(p.rest) > 0 && p.rest[0].Is("=") {
		p.rest = p.rest[1:]
	}
	if len(p.rest) == 0 || p.rest[0].Is("=") || p.rest[0].Ours != of.Ours {
		return cardway.Word{}, p.bad(of, "%s wants a value", cardway.Clip(of.Text))
	}
	w := p.rest[0]
	p.rest = p.rest[1:]
	return w, nil
}

// statement takes one.
func (p *parser) statement() error {
	w := p.rest[0]
	p.rest = p.rest[1:]
	if w.Quoted {
		return p.bad(w, "a name is wanted, not the text %s", cardway.Clip(w.Text))
	}
	if w.Text == "card" || w.Text == "library" {
		v, err := p.value(w)
		if err != nil {
			return err
		}
		if v.Text == "" {
			return p.bad(w, "%s wants a value", w.Text)
		}
		if w.Text == "card" {
			p.card = v.Text
		} else {
			p.library = v.Text
		}
		p.setting = p.setting || !w.Ours
		return nil
	}
	if w.Ours {
		return p.bad(w, "of #p11fs: there are card = SOCKET and library = NAME, not %s", cardway.Clip(w.Text))
	}
	switch w.Text {
	case "APQN_ANY":
		if p.mode {
			return p.bad(w, "which cards are meant is said already")
		}
		p.mode = true
	case "APQN_WHITELIST", "APQN_ALLOWLIST":
		return p.allowed(w)
	case "FORCE_SENSITIVE":
		p.sensitive = true
	case "STRICT_MODE":
		p.strict = true
	case "VHSM_MODE":
		p.vhsm = true
	case "FIPS_SESSION_MODE":
		// To take no notice would make keys that outlive the session they are to belong to.
		return p11.Advise(p.bad(w, "%s binds keys to certified sessions of the card, which p11fs does not make", w.Text), "take the line out, if the keys of the token belong to no such session")
	case "CPFILTER":
		v, err := p.value(w)
		p.filter = v.Text
		return err
	case "EXPECTED_WKVP":
		return p.pattern(w)
	case "OPTIMIZE_SINGLE_PART_OPERATIONS", "USE_PRANDOM":
		p.ignore(w)
	case "LOGLEVEL", "DIGEST_LIBICA", "PKEY_MODE":
		p.ignore(w)
		_, err := p.value(w)
		return err
	default:
		return p.bad(w, "nothing is called %s", cardway.Clip(w.Text))
	}
	return nil
}

// ignore remembers a word that changes nothing.
func (p *parser) ignore(w cardway.Word) {
	if !slices.Contains(p.ignored, w.Text) {
		p.ignored = append(p.ignored, w.Text)
	}
}

// allowed takes pairs of numbers up to END.
func (p *parser) allowed(of cardway.Word) error {
	if p.mode {
		return p.bad(of, "which cards are meant is said already")
	}
	p.mode = true
	var numbers []uint16
	for {
		if len(p.rest) == 0 {
			return p.bad(of, "%s has no END", of.Text)
		}
		w := p.rest[0]
		p.rest = p.rest[1:]
		if w.Text == "END" {
			break
		}
		n, err := strconv.ParseUint(w.Text, 0, 8)
		if err != nil || w.Quoted || strings.Contains(w.Text, "_") {
			return p.bad(w, "%s is no number of an adapter or a domain, 0 to 255", cardway.Clip(w.Text))
		}
		if numbers = append(numbers, uint16(n)); len(numbers) > 2*card.MaxTarget {
			return p.bad(w, "there are more than %d cards", card.MaxTarget)
		}
	}
	if len(numbers) == 0 || len(numbers)%2 != 0 {
		return p.bad(of, "%s wants pairs of an adapter and a domain, and has %d numbers", of.Text, len(numbers))
	}
	for pair := range slices.Chunk(numbers, 2) {
		if a := (card.APQN{Adapter: pair[0], Domain: pair[1]}); !slices.Contains(p.apqns, a) {
			p.apqns = append(p.apqns, a)
		}
	}
	return nil
}

// wkvpSize is the part of a wrapping key's verification pattern that blobs carry.
const wkvpSize = 16

func (p *parser) pattern(of cardway.Word) error {
	v, err := p.value(of)
	if err != nil {
		return err
	}
	digits, _ := strings.CutPrefix(v.Text, "0x")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) < wkvpSize || len(b) > 2*wkvpSize {
		return p.bad(of, "EXPECTED_WKVP wants %d bytes in hexadecimal digits", wkvpSize)
	}
	p.wkvp = b[:wkvpSize]
	return nil
}

// placeConf reads the configuration of a place; without one all cards are meant. The path of
// the filter is completed.
func placeConf(place tokens.Place) (conf, error) {
	path, text, err := cardway.Way{Conf: confFile}.Read(place)
	if err != nil || path == "" {
		return conf{}, err
	}
	c, err := parseConf(text)
	if err != nil {
		return c, p11.Errorf(p11.RVOf(err), "%s, %w", path, err)
	}
	if c.filter == "" {
		c.filter = filepath.Join(filepath.Dir(path), filterFile)
		if _, err := os.Stat(c.filter); errors.Is(err, os.ErrNotExist) {
			c.filter = ""
		}
	} else if !filepath.IsAbs(c.filter) {
		c.filter = filepath.Join(filepath.Dir(path), c.filter)
	}
	return c, nil
}
