package config

import (
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
)

// key is a keyword of a slot block.
type key string

const (
	keyLibrary      key = "stdll"
	keyDescription  key = "description"
	keyManufacturer key = "manufacturer"
	keyHardware     key = "hwversion"
	keyFirmware     key = "firmwareversion"
	keyConfName     key = "confname"
	keyTokenName    key = "tokname"
	keyFormat       key = "tokversion" // since openCryptoki 3.12
)

// lookupKey finds the keyword that s is or begins, in the stock order. The
// empty string begins each, so it is the first.
func lookupKey(s string) (key, bool) {
	for _, k := range [...]key{
		keyLibrary, keyDescription, keyManufacturer, keyHardware, keyFirmware, keyConfName, keyTokenName, keyFormat,
	} {
		if strings.HasPrefix(string(k), s) {
			return k, true
		}
	}
	return "", false
}

// apply gives s the values of its lines, from the last to the first as the
// stock daemon does, so that of a repeated key the first line counts, unless it
// is one that is ignored. It returns the line that each key got its value from.
func (p *parser) apply(s *Slot, pairs []pair) map[key]int {
	seen := map[key]int{}
	for i := len(pairs) - 1; i >= 0; i-- {
		kv := pairs[i]
		k, ok := lookupKey(kv.key)
		if !ok {
			p.warn.add(kv.line, "unknown key %q is ignored", kv.key)
			continue
		}
		if strings.IndexByte(kv.value, 0) >= 0 {
			p.refuse.add(kv.line, "the value of %s holds a NUL byte", k)
			continue
		}
		if !p.fits(k, kv) {
			continue
		}
		if later, ok := seen[k]; ok {
			p.warn.add(later, "%s is ignored: line %d sets it, and the first counts", k, kv.line)
		}
		seen[k] = kv.line
		p.set(s, k, kv)
	}
	return seen
}

// fits reports whether the value's length lets it take effect.
func (p *parser) fits(k key, kv pair) bool {
	n := len(kv.value)
	switch {
	case n == 0 && (k == keyDescription || k == keyManufacturer):
		p.warn.add(kv.line, "%s is ignored: it is empty", k)
	case k == keyDescription && n > maxDescription:
		p.warn.add(kv.line, "description is ignored: it has %d bytes, of at most %d", n, maxDescription)
	case k == keyManufacturer && n > maxManufacturer:
		p.warn.add(kv.line, "manufacturer is ignored: it has %d bytes, of at most %d", n, maxManufacturer)
	case n > maxValue:
		p.refuse.add(kv.line, "the value of %s has %d bytes, of at most %d", k, n, maxValue)
	case k == keyTokenName && n > maxTokenName:
		p.refuse.add(kv.line, "tokname has %d bytes, of at most %d", n, maxTokenName)
	default:
		return true
	}
	return false
}

func (p *parser) set(s *Slot, k key, kv pair) {
	switch k {
	case keyLibrary:
		if kv.value == "" {
			p.warn.add(kv.line, "stdll is empty: the slot will have no token")
		}
		s.Library = kv.value
	case keyDescription:
		s.Description = kv.value
	case keyManufacturer:
		s.Manufacturer = kv.value
	case keyHardware:
		s.Hardware = p.version(k, kv)
	case keyFirmware:
		s.Firmware = p.version(k, kv)
	case keyConfName:
		s.ConfName = kv.value
	case keyTokenName:
		if why := BadTokenName(kv.value); why != "" {
			p.refuse.add(kv.line, "tokname %q %s", kv.value, why)
		}
		s.TokenName = kv.value
	case keyFormat:
		s.Format, s.HasFormat = p.format(kv), true
	}
}

// format reads tokversion, which openCryptoki since 3.12 wants to be two numbers
// with a dot between them. To guess at a wrong one could ruin the token.
func (p *parser) format(kv pair) p11.Version {
	major, minor, _ := strings.Cut(kv.value, ".")
	var v p11.Version
	var okMajor, okMinor bool
	v.Major, okMajor = atoi(major)
	v.Minor, okMinor = atoi(minor)
	if !okMajor || !okMinor {
		p.refuse.add(kv.line, "%s %q is not MAJOR.MINOR with numbers up to 255", keyFormat, kv.value)
	}
	return v
}

// BadTokenName returns why name cannot be a directory below the token root and a
// folder in the tree; empty if it can.
func BadTokenName(name string) string {
	switch {
	case name == "":
		return "" // as if it were absent
	case strings.Contains(name, "/"):
		return "must not contain a slash"
	case strings.HasPrefix(name, "."):
		return "must not start with a dot"
	case strings.ContainsAny(name, "\n\r\t") || strings.TrimSpace(name) != name:
		return "must not hold control characters, or blanks at its ends"
	case slices.Contains([]string{"status", "slots", "resources", "metrics", "who", "kick", "events", "ctl", "error", "rpc.sock"}, name):
		return "is the name of a file at the top of the tree"
	}
	return ""
}

// version reads major.minor as the stock daemon does: the first two parts
// between dots, each through C's atoi and cut to one byte. It warns when that is
// not what stands there. Without any part the stock daemon crashes.
func (p *parser) version(k key, kv pair) p11.Version {
	parts := strings.FieldsFunc(kv.value, func(r rune) bool { return r == '.' })
	if len(parts) == 0 {
		p.refuse.add(kv.line, "%s holds no number; it is MAJOR.MINOR", k)
		return p11.Version{}
	}
	var v p11.Version
	var ok bool
	v.Major, ok = atoi(parts[0])
	if len(parts) > 1 {
		var okMinor bool
		v.Minor, okMinor = atoi(parts[1])
		ok = ok && okMinor
	}
	if !ok || len(parts) > 2 || strings.Count(kv.value, ".") != len(parts)-1 {
		p.warn.add(kv.line, "%s %q is not MAJOR.MINOR with numbers up to 255; taken as %s", k, kv.value, version(v))
	}
	return v
}

// atoi is C's atoi cut to one byte; ok says that s was just such a number.
func atoi(s string) (n uint8, ok bool) {
	t, negative := strings.CutPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "-")
	if !negative {
		t = strings.TrimPrefix(t, "+")
	}
	for _, c := range []byte(t) {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + c - '0' // the lowest byte is what is wanted
	}
	if negative {
		n = -n
	}
	_, err := strconv.ParseUint(s, 10, 8)
	return n, err == nil && len(s) <= 3
}
