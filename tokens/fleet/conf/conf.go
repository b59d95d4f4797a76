package conf

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens/card/cardway"
)

// A Config says which fleet a token is of, and how it is reached.
type Config struct {
	Endpoints []string
	Prefix    string // with the slash that it ends in
	CA        string // paths of PEM files
	Cert, Key string
	SealKey   string // path of the fleet's key
	Host      string // name of this machine
	Lease     time.Duration
	ReadAlone bool // whether public objects are read without contact
}

// Bounds of what a configuration says.
const (
	maxEndpoints = 16
	maxValue     = 4096
	maxPrefix    = 256
	maxHost      = 64
	minLease     = 2 * time.Second
	maxLease     = 5 * time.Minute
)

// usualLease is the lease of a configuration that does not say it.
const usualLease = 10 * time.Second

// credential begins the name of a file that systemd gives.
const credential = "credential:"

// Read reads a configuration file.
func Read(path string) (Config, error) {
	text, err := cardway.ReadOwn(path) // which says where keys and data go, and under what
	if err != nil {
		return Config{}, err
	}
	c, err := Parse(text)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.Host == "" {
		if c.Host, err = os.Hostname(); err != nil {
			return Config{}, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the name of this machine: %w", err), "write host = NAME into "+path)
		}
	}
	for _, file := range c.files() {
		name, ok := strings.CutPrefix(*file.path, credential)
		if !ok {
			continue
		}
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return Config{}, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %s is a credential, and systemd has given none", path, name),
				"run it as a unit with LoadCredential="+name+":FILE, or write the path of the file")
		}
		*file.path = filepath.Join(dir, name)
	}
	return c, nil
}

// A file is one that a configuration names.
type file struct {
	name string // of the line
	path *string
}

func (c *Config) files() []file {
	return []file{{"ca", &c.CA}, {"cert", &c.Cert}, {"key", &c.Key}, {"sealkey", &c.SealKey}}
}

// Parse reads the text of a configuration.
func Parse(text string) (Config, error) {
	c := Config{}
	words, err := cardway.Words(text, "=")
	if err != nil {
		return Config{}, err
	}
	seen := make(map[string]bool)
	for len(words) > 0 {
		w := words[0]
		if w.Quoted || w.Is("=") {
			return Config{}, w.Bad("a line is NAME = VALUE, and " + cardway.Clip(w.Text) + " is no name")
		}
		if len(words) < 3 || !words[1].Is("=") || words[2].Is("=") || words[2].Line != w.Line {
			return Config{}, w.Bad(cardway.Clip(w.Text) + " wants = and a value behind it")
		}
		if seen[w.Text] && w.Text != "endpoint" {
			return Config{}, w.Bad(cardway.Clip(w.Text) + " stands there twice")
		}
		seen[w.Text] = true
		if err := c.set(w.Text, words[2].Text); err != nil {
			return Config{}, words[2].Bad(err.Error())
		}
		if words = words[3:]; len(words) > 0 && words[0].Line == w.Line {
			return Config{}, words[0].Bad(cardway.Clip(words[0].Text) + " is too much: a value with blanks stands in quotes")
		}
	}
	if c.Lease == 0 {
		c.Lease = usualLease
	}
	return c, c.complete()
}

// complete says which line is missing.
func (c *Config) complete() error {
	missing := func(line string) error {
		return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s is missing", strings.Fields(line)[0]), "write "+line)
	}
	switch {
	case len(c.Endpoints) == 0:
		return missing("endpoint = https://HOST:2379 for each member of etcd")
	case c.Prefix == "":
		return missing("prefix = /p11fs/NAME/")
	}
	for _, f := range c.files() {
		if *f.path == "" {
			return missing(f.name + " = FILE")
		}
	}
	return nil
}

// set takes one line. Its error is what to say of it.
func (c *Config) set(name, value string) (err error) {
	if value == "" || len(value) > maxValue || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' }) {
		return fmt.Errorf("%s wants 1 to %d characters that can be printed", cardway.Clip(name), maxValue)
	}
	for _, f := range c.files() {
		if f.name == name {
			return setFile(f, value)
		}
	}
	switch name {
	case "endpoint":
		return c.addEndpoint(value)
	case "prefix":
		if len(value) > maxPrefix || len(value) < 3 || value[0] != '/' || value[len(value)-1] != '/' || strings.Contains(value, "//") {
			return fmt.Errorf("a prefix begins and ends with a slash, has something between, and at most %d characters: /p11fs/NAME/", maxPrefix)
		}
		c.Prefix = value
	case "host":
		if len(value) > maxHost {
			return fmt.Errorf("the name of a host has at most %d characters", maxHost)
		}
		c.Host = value
	case "lease":
		c.Lease, err = time.ParseDuration(value)
		if err != nil || c.Lease < minLease || c.Lease > maxLease || c.Lease%time.Second != 0 {
			return fmt.Errorf("a lease is whole seconds from %v to %v, such as %v", minLease, maxLease, usualLease)
		}
	case "readalone":
		if c.ReadAlone = value == "yes"; value != "yes" && value != "no" {
			return errors.New("readalone is yes or no")
		}
	default:
		return fmt.Errorf("%s is no name of a line: endpoint, prefix, ca, cert, key, sealkey, host, lease and readalone are", cardway.Clip(name))
	}
	return nil
}

func setFile(f file, value string) error {
	if name, ok := strings.CutPrefix(value, credential); ok {
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return fmt.Errorf("%s is no name of a credential", cardway.Clip(name))
		}
	} else if !filepath.IsAbs(value) {
		return fmt.Errorf("%s wants a path that begins with a slash, or credential:NAME", f.name)
	}
	*f.path = value
	return nil
}

func (c *Config) addEndpoint(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || value != "https://"+u.Host {
		return errors.New("an endpoint is https://HOST:PORT, with nothing behind it; members of etcd know machines by certificates")
	}
	if len(c.Endpoints) == maxEndpoints {
		return fmt.Errorf("there are more than %d endpoints", maxEndpoints)
	}
	c.Endpoints = append(c.Endpoints, value)
	return nil
}
