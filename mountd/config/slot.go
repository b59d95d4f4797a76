package config

import (
	"fmt"
	"strings"

	"p11fs/p11"
)

// MaxSlots is the size of the stock slot table: slots are 0 to MaxSlots-1.
const MaxSlots = 1024

// Limits of what a value may hold, in bytes.
const (
	maxDescription  = 64  // CK_SLOT_INFO
	maxManufacturer = 32  // CK_SLOT_INFO
	maxValue        = 255 // stock fields have 256 bytes with their NUL
	maxTokenName    = 50  // stock formats paths with it into 100 bytes
)

// A File is a configuration file that was understood.
type File struct {
	Slots []Slot // in the order of the file
}

// A Slot is one slot block.
type Slot struct {
	Line         int // of the word "slot"
	ID           p11.SlotID
	Library      string // stdll
	Description  string
	Manufacturer string
	Hardware     p11.Version
	Firmware     p11.Version
	ConfName     string // the token's own configuration, such as ep11tok.conf
	TokenName    string // tokname; empty for the library's own name
}

// defaults is a slot before its lines are applied.
func defaults(id p11.SlotID, line int) Slot {
	return Slot{Line: line, ID: id, Description: "Linux", Manufacturer: "IBM"}
}

// builtin gives each stock token library the directory that it uses when the
// slot has no tokname.
func builtin(library string) (dir string, known bool) {
	base := library[strings.LastIndexByte(library, '/')+1:]
	base, _, ok := strings.Cut(base, ".so")
	if !ok {
		return "", false
	}
	switch base {
	case "libpkcs11_sw":
		return "swtok", true
	case "libpkcs11_ica":
		return "lite", true
	case "libpkcs11_cca":
		return "ccatok", true
	case "libpkcs11_ep11":
		return "ep11tok", true
	case "libpkcs11_tpm":
		return "tpm", true
	case "libpkcs11_icsf":
		return "icsf", true
	}
	return "", false
}

// Kind is the kind of token that the slot's library makes, named as its
// directory is when it has no tokname: swtok, lite, ccatok, ep11tok, tpm, icsf.
// It is empty for a library that openCryptoki does not have.
func (s Slot) Kind() string {
	kind, _ := builtin(s.Library)
	return kind
}

// Directory is the name of the slot's token directory, and so of the token. It
// is empty for an unknown library without tokname.
func (s Slot) Directory() string {
	if s.TokenName != "" {
		return s.TokenName
	}
	return s.Kind()
}

// String prints the file so that it parses to the same slots. Comments and the
// version line, which mean nothing, are not kept.
func (f *File) String() string {
	var b strings.Builder
	b.WriteString("version opencryptoki-3.1\n")
	for _, s := range f.Slots {
		fmt.Fprintf(&b, "\nslot %d\n{\n", s.ID)
		line := func(key, value string) { fmt.Fprintf(&b, "%s = \"%s\"\n", key, value) }
		line("stdll", s.Library)
		line("description", s.Description)
		line("manufacturer", s.Manufacturer)
		line("hwversion", version(s.Hardware))
		line("firmwareversion", version(s.Firmware))
		if s.ConfName != "" {
			line("confname", s.ConfName)
		}
		if s.TokenName != "" {
			line("tokname", s.TokenName)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func version(v p11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
