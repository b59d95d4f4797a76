package ep11tok

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
)

// Bounds of a configuration file.
const (
	maxConf  = 64 << 10
	maxWords = 8192
)

// A conf is what ep11tok.conf says (openCryptoki 3.27), and its lines behind #p11fs:.
type conf struct {
	apqns     card.Target // none: APQN_ANY
	sensitive bool        // FORCE_SENSITIVE
	filter    string      // CPFILTER, "" for the file beside this one
	wkvp      []byte      // EXPECTED_WKVP
	ignored   []string    // the words that change nothing here

	card, library string // of #p11fs: a socket, or "new"; a vendor's library
	setting       bool   // these do not stand behind #p11fs:, as in no file of stock's
}

// A word is one of a configuration file.
type word struct {
	text   string
	line   int
	quoted bool
	ours   bool // behind #p11fs:
}

// words takes a file apart. What stands behind # is a comment, but for that of a line which
// begins #p11fs:.
func words(src string) (list []word, err error) {
	line := 0
	for text := range strings.Lines(src) {
		line++
		rest := strings.TrimLeft(text, " \t")
		rest, ours := strings.CutPrefix(rest, "#p11fs:")
		for {
			rest = strings.TrimLeft(rest, " \t\r\n")
			if rest == "" || rest[0] == '#' {
				break
			}
			w := word{line: line, ours: ours}
			switch end := strings.IndexAny(rest, " \t\r\n#=\""); {
			case rest[0] == '=':
				w.text, rest = "=", rest[1:]
			case rest[0] == '"':
				text, behind, closed := strings.Cut(rest[1:], `"`)
				if !closed {
					return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "line %d: a text begins with a quotation mark and does not end", line)
				}
				w.text, w.quoted, rest = text, true, behind
			case end < 0:
				w.text, rest = rest, ""
			default:
				w.text, rest = rest[:end], rest[end:]
			}
			if list = append(list, w); len(list) > maxWords {
				return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "line %d: there are more than %d words", line, maxWords)
			}
		}
	}
	return list, nil
}

// parseConf reads a configuration.
func parseConf(src string) (conf, error) {
	list, err := words(src)
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
		return conf{}, p11.Errorf(p11.CKR_FUNCTION_FAILED, "it names no cards: write APQN_ANY, or APQN_ALLOWLIST with some")
	}
	return p.conf, nil
}

type parser struct {
	conf
	rest []word
	mode bool // whether an APQN mode was there
}

func (p *parser) bad(w word, format string, args ...any) error {
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "line %d: %s", w.line, fmt.Sprintf(format, args...))
}

// value takes the value of a word, with or without = before it.
func (p *parser) value(of word) (word, error) {
	if len(p.rest) > 0 && p.rest[0].text == "=" && !p.rest[0].quoted {
		p.rest = p.rest[1:]
	}
	if len(p.rest) == 0 || p.rest[0].text == "=" && !p.rest[0].quoted || p.rest[0].ours != of.ours {
		return word{}, p.bad(of, "%s wants a value", clip(of.text))
	}
	w := p.rest[0]
	p.rest = p.rest[1:]
	return w, nil
}

// clip is what an error says of a text.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}

// statement takes one.
func (p *parser) statement() error {
	w := p.rest[0]
	p.rest = p.rest[1:]
	if w.quoted {
		return p.bad(w, "a name is wanted, not the text %s", clip(w.text))
	}
	if w.text == "card" || w.text == "library" {
		v, err := p.value(w)
		if err != nil {
			return err
		}
		if v.text == "" {
			return p.bad(w, "%s wants a value", w.text)
		}
		if w.text == "card" {
			p.card = v.text
		} else {
			p.library = v.text
		}
		p.setting = p.setting || !w.ours
		return nil
	}
	if w.ours {
		return p.bad(w, "of #p11fs: there are card = SOCKET and library = NAME, not %s", clip(w.text))
	}
	switch w.text {
	case "APQN_ANY":
		if p.mode {
			return p.bad(w, "which cards are meant is said already")
		}
		p.mode = true
	case "APQN_WHITELIST", "APQN_ALLOWLIST":
		return p.allowed(w)
	case "FORCE_SENSITIVE":
		p.sensitive = true
	case "STRICT_MODE", "VHSM_MODE", "FIPS_SESSION_MODE":
		// To take no notice would make keys that outlive the session they are to belong to.
		return p11.Advise(p.bad(w, "%s binds keys to login sessions of the card, which p11fs does not make", w.text), "take the line out, if the keys of the token belong to no such session")
	case "CPFILTER":
		v, err := p.value(w)
		p.filter = v.text
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
		return p.bad(w, "nothing is called %s", clip(w.text))
	}
	return nil
}

// ignore remembers a word that changes nothing.
func (p *parser) ignore(w word) {
	if !slices.Contains(p.ignored, w.text) {
		p.ignored = append(p.ignored, w.text)
	}
}

// allowed takes pairs of numbers up to END.
func (p *parser) allowed(of word) error {
	if p.mode {
		return p.bad(of, "which cards are meant is said already")
	}
	p.mode = true
	var numbers []uint16
	for {
		if len(p.rest) == 0 {
			return p.bad(of, "%s has no END", of.text)
		}
		w := p.rest[0]
		p.rest = p.rest[1:]
		if w.text == "END" {
			break
		}
		n, err := strconv.ParseUint(w.text, 0, 8)
		if err != nil || w.quoted || strings.Contains(w.text, "_") {
			return p.bad(w, "%s is no number of an adapter or a domain, 0 to 255", clip(w.text))
		}
		if numbers = append(numbers, uint16(n)); len(numbers) > 2*card.MaxTarget {
			return p.bad(w, "there are more than %d cards", card.MaxTarget)
		}
	}
	if len(numbers) == 0 || len(numbers)%2 != 0 {
		return p.bad(of, "%s wants pairs of an adapter and a domain, and has %d numbers", of.text, len(numbers))
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

func (p *parser) pattern(of word) error {
	v, err := p.value(of)
	if err != nil {
		return err
	}
	digits, _ := strings.CutPrefix(v.text, "0x")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) < wkvpSize || len(b) > 2*wkvpSize {
		return p.bad(of, "EXPECTED_WKVP wants %d bytes in hexadecimal digits", wkvpSize)
	}
	p.wkvp = b[:wkvpSize]
	return nil
}

// placeConf is readConf of the configuration of a place. Who may write the token directory
// does not say there where keys and data go.
func placeConf(place tokens.Place) (conf, error) {
	path := confOf(place)
	if path == "" || place.Config != "" {
		return readConf(path)
	}
	return readConfFrom(path, func(string) (*os.File, error) { return locks.OpenOwn(place.Dir, confFile) })
}

// readConf reads a configuration file; without a name there is none, and all cards are
// meant. The path of the filter is completed.
func readConf(path string) (conf, error) {
	if path == "" {
		return conf{}, nil
	}
	return readConfFrom(path, openFile)
}

func readConfFrom(path string, open func(string) (*os.File, error)) (conf, error) {
	src, err := readAll(path, open)
	if err != nil {
		return conf{}, err
	}
	c, err := parseConf(src)
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

// readFile reads a file that is no longer than maxConf.
func readFile(path string) (string, error) { return readAll(path, openFile) }

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

func readAll(path string, open func(string) (*os.File, error)) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the EP11 token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	switch {
	case err != nil:
		return "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "the configuration of the EP11 token: %w", err)
	case len(b) > maxConf:
		return "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s has more than %d bytes", path, maxConf)
	}
	return string(b), nil
}
