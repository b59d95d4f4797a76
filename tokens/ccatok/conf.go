package ccatok

import (
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/cca"
)

// confFile is the configuration of a token for which its slot names none.
const confFile = "ccatok.conf"

// maxConf bounds it.
const maxConf = 64 << 10

// A conf is what ccatok.conf says (openCryptoki 3.19 and later), and its lines behind
// #p11fs:.
type conf struct {
	sensitive bool                   // FORCE_SENSITIVE
	expected  map[string]cca.Pattern // EXPECTED_MKVPS, by SYM, AES and APKA
	ignored   []string               // the words that change nothing here
	card      string                 // of #p11fs: a socket
}

// A word is one of a configuration file, with its line.
type word struct {
	text string
	line int
}

// words takes a file apart: what stands behind # is a comment, but for that of a line that
// begins #p11fs:.
func words(src string) (list []word) {
	line := 0
	for text := range strings.Lines(src) {
		line++
		rest, ours := strings.CutPrefix(strings.TrimSpace(text), "#p11fs:")
		if !ours || strings.Contains(rest, "#") {
			rest, _, _ = strings.Cut(rest, "#")
		}
		for _, mark := range []string{"=", "{", "}", ","} {
			rest = strings.ReplaceAll(rest, mark, " "+mark+" ")
		}
		for _, w := range strings.Fields(rest) {
			list = append(list, word{strings.Trim(w, `"`), line})
		}
	}
	return list
}

type parser struct {
	conf
	rest []word
}

func bad(w word, why string) error {
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "line %d: %s", w.line, why)
}

// next takes a word, if there is one.
func (p *parser) next() (word, bool) {
	if len(p.rest) == 0 {
		return word{}, false
	}
	w := p.rest[0]
	p.rest = p.rest[1:]
	return w, true
}

// value takes the value of a word, behind =.
func (p *parser) value(of word) (word, error) {
	equals, _ := p.next()
	v, ok := p.next()
	if equals.text != "=" || !ok || v.text == "" || strings.ContainsAny(v.text, "={}") {
		return word{}, bad(of, of.text+" wants = and a value")
	}
	return v, nil
}

// parseConf reads a configuration.
func parseConf(src string) (conf, error) {
	p := &parser{conf: conf{expected: make(map[string]cca.Pattern)}, rest: words(src)}
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

func (p *parser) statement(w word) error {
	switch w.text {
	case "version":
		if v, _ := p.next(); v.text != "cca-0" {
			return bad(w, "the version is cca-0")
		}
	case "EXPECTED_MKVPS":
		return p.patterns(w)
	case "FORCE_SENSITIVE":
		p.sensitive = true
	case "PKEY_MODE", "AES_KEY_MODE":
		p.ignored = append(p.ignored, w.text)
		_, err := p.value(w)
		return err
	case "card":
		v, err := p.value(w)
		p.card = v.text
		return err
	default:
		return bad(w, "it is version, EXPECTED_MKVPS, FORCE_SENSITIVE, PKEY_MODE, AES_KEY_MODE, or #p11fs: card = SOCKET")
	}
	return nil
}

// patterns takes the patterns in braces.
func (p *parser) patterns(of word) error {
	if w, _ := p.next(); w.text != "{" {
		return bad(of, "EXPECTED_MKVPS wants { and }")
	}
	for {
		w, ok := p.next()
		switch {
		case !ok:
			return bad(of, "EXPECTED_MKVPS has no }")
		case w.text == "}":
			return nil
		case w.text == ",":
			continue
		case w.text != "SYM" && w.text != "AES" && w.text != "APKA":
			return bad(w, "the master keys are SYM, AES and APKA")
		}
		v, err := p.value(w)
		if err != nil {
			return err
		}
		digits, _ := strings.CutPrefix(v.text, "0x")
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != len(cca.Pattern{}) {
			return bad(w, "a verification pattern has 16 hexadecimal digits")
		}
		p.expected[w.text] = cca.Pattern(b)
	}
}

// readConf reads the configuration of a place: that of its slot, or the one in the token
// directory, or none.
func readConf(place tokens.Place) (conf, error) {
	path := place.Config
	var f *os.File
	var err error
	if path != "" {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	} else {
		path = filepath.Join(place.Dir, confFile)
		if _, err := os.Lstat(path); err != nil {
			return conf{}, nil
		}
		f, err = locks.OpenOwn(place.Dir, confFile) // who may write the directory does not say where keys and data go
	}
	if err != nil {
		return conf{}, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the CCA token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	switch {
	case err != nil:
		return conf{}, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the CCA token: %w", err)
	case len(b) > maxConf:
		return conf{}, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s has more than %d bytes", path, maxConf)
	}
	c, err := parseConf(string(b))
	if err != nil {
		return c, p11.Errorf(p11.RVOf(err), "%s, %w", path, err)
	}
	return c, nil
}
