package icsffile

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// The ways in which a client is known to the server.
const (
	Simple = "SIMPLE" // by a name and a password
	SASL   = "SASL"   // by the certificate of its connection
)

// A Config says which token of which server a slot has.
type Config struct {
	Name, Manufacturer, Model, Serial string // of the token, as the server has them
	Mech                              string // Simple or SASL
	BindDN                            string // of Simple
	URI                               string // ldap:// or ldaps://
	CACert, Cert, Key                 string // paths of PEM files
}

// The longest values, in bytes, as stock has them.
const (
	maxName   = 32
	maxModel  = 16
	maxPath   = 4096
	maxDN     = 255
	maxConfig = 1 << 16
)

// An entry is one line of a configuration.
type entry struct {
	key   string
	value *string
	most  int
}

// entries are the lines, in pkcsicsf's order.
func (c *Config) entries() []entry {
	return []entry{
		{"TOKEN_NAME", &c.Name, maxName}, {"TOKEN_MANUFACTURE", &c.Manufacturer, maxName}, {"TOKEN_MODEL", &c.Model, maxModel}, {"TOKEN_SERIAL", &c.Serial, maxModel},
		{"MECH", &c.Mech, maxModel}, {"BINDDN", &c.BindDN, maxDN}, {"URI", &c.URI, maxPath},
		{"CERT", &c.Cert, maxPath}, {"CACERT", &c.CACert, maxPath}, {"KEY", &c.Key, maxPath},
	}
}

// Print is the file of a slot, as pkcsicsf writes it.
func (c *Config) Print(slot uint64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "slot %d {\n", slot)
	for i, e := range c.entries() {
		if i < 5 || *e.value != "" {
			fmt.Fprintf(&b, "%s = \"%s\"\n", e.key, *e.value)
		}
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// wrong is the error of a configuration, with what to write.
func wrong(write, format string, args ...any) error {
	return p11.Advise(fmt.Errorf(format, args...), "write "+write)
}

// Check says what is wrong with a configuration, and what to write.
func (c *Config) Check() error {
	if !ValidName(c.Name) {
		return wrong(`TOKEN_NAME = "NAME": 1 to 32 letters, digits, points and #$@, no digit or point first`, "TOKEN_NAME %q is no name of a token of ICSF", c.Name)
	}
	return c.CheckServer()
}

// CheckServer is Check of all but which token of the server it is.
func (c *Config) CheckServer() error {
	for _, e := range c.entries() {
		switch v := *e.value; {
		case len(v) > e.most:
			return wrong("a shorter "+e.key, "%s has %d bytes, and may have %d", e.key, len(v), e.most)
		case strings.ContainsAny(v, "\"\n\x00"):
			return wrong(e.key+" without them", "%s holds a quote or the end of a line", e.key)
		}
	}
	u, err := url.Parse(c.URI)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "ldap" && u.Scheme != "ldaps":
		return wrong(`it with one of these in front, as in ldaps://zos.example or ldap://zos.example:3389`, "URI is ldap://HOST or ldaps://HOST, and not %q", c.URI)
	case c.Mech == Simple && c.BindDN == "":
		return wrong(`BINDDN = "racfid=USER,profiletype=user,cn=RACF", or MECH = "SASL"`, "MECH SIMPLE wants a BINDDN")
	case c.Mech == SASL && u.Scheme != "ldaps":
		return wrong(`URI = "ldaps://HOST", or MECH = "SIMPLE" and a BINDDN`, "MECH SASL wants a URI that begins with ldaps, since the certificate of the connection says who it is")
	case c.Mech == SASL && (c.Cert == "" || c.Key == ""):
		return wrong(`CERT = "FILE" and KEY = "FILE", or MECH = "SIMPLE" and a BINDDN`, "MECH SASL wants CERT and KEY")
	case c.Mech != Simple && c.Mech != SASL:
		return wrong(`MECH = "SIMPLE" or MECH = "SASL"`, "MECH is SIMPLE or SASL, not %q", c.Mech)
	}
	return nil
}

// ValidName says whether a token can be called so: a letter or one of #$@, and then digits and
// points too.
func ValidName(name string) bool {
	if name == "" || len(name) > icsfwire.TokenNameSize {
		return false
	}
	for i, c := range []byte(name) {
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '#' || c == '$' || c == '@'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '.') {
			return false
		}
	}
	return true
}

// ParseConfig reads the block of a slot, or the only one that there is. A key that is not known
// is an error there, as for stock; those of other slots are passed over.
func ParseConfig(text []byte, slot uint64) (*Config, error) {
	if len(text) > maxConfig {
		return nil, wrong("the slots' blocks alone", "it is longer than %d bytes", maxConfig)
	}
	words, err := split(string(text))
	if err != nil {
		return nil, err
	}
	var found, only *Config
	var bad, onlyBad error
	for n := 0; len(words) > 0; n++ {
		number, rest, err := header(words)
		if err != nil {
			return nil, err
		}
		c := &Config{}
		var unknown error
		if words, unknown, err = c.block(rest); err != nil {
			return nil, err
		}
		if number == slot {
			found, bad = c, unknown
		}
		if only, onlyBad = c, unknown; n > 0 {
			only = nil
		}
	}
	if found == nil {
		found, bad = only, onlyBad
	}
	switch {
	case found == nil:
		return nil, wrong(fmt.Sprintf("slot %d { and what follows, to }", slot), "it has nothing for slot %d", slot)
	case bad != nil:
		return nil, bad
	}
	return found, found.Check()
}

// header reads "slot N {".
func header(words []string) (number uint64, rest []string, err error) {
	if len(words) >= 3 && strings.EqualFold(words[0], "slot") && words[2] == "{" {
		if number, err = strconv.ParseUint(words[1], 10, 64); err == nil {
			return number, words[3:], nil
		}
	}
	return 0, nil, wrong("slot NUMBER { first", "%q is not the beginning of slot NUMBER {", words[0])
}

// block reads lines up to "}". bad is the error of a key that is not known.
func (c *Config) block(words []string) (rest []string, bad, err error) {
	for {
		if len(words) > 0 && words[0] == "}" {
			return words[1:], bad, nil
		}
		if len(words) < 3 || words[1] != "=" {
			return nil, nil, wrong(`lines KEY = "VALUE", and } last`, "a line is not KEY = VALUE, or a } is missing")
		}
		known := false
		for _, e := range c.entries() {
			if strings.EqualFold(e.key, words[0]) {
				*e.value, known = strings.TrimPrefix(words[2], quoted), true
			}
		}
		if !known {
			bad = wrong("it without that line", "%q is no key of it", words[0])
		}
		words = words[3:]
	}
}

// quoted marks a word that stood in quotes, which is no sign.
const quoted = "\""

// split makes words of text: signs, words and what stands in quotes. # begins a comment.
func split(text string) (words []string, err error) {
	for text != "" {
		switch c := text[0]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			text = text[1:]
		case c == '#':
			_, text, _ = strings.Cut(text, "\n")
		case strings.IndexByte("{}=", c) >= 0:
			words, text = append(words, text[:1]), text[1:]
		case c == '"':
			value, rest, ok := strings.Cut(text[1:], "\"")
			if !ok {
				return nil, wrong("a second quote behind the value", "a quote does not end")
			}
			words, text = append(words, quoted+value), rest
		default:
			n := strings.IndexAny(text, " \t\r\n#{}=\"")
			if n < 0 {
				n = len(text)
			}
			words, text = append(words, text[:n]), text[n:]
		}
	}
	return words, nil
}
