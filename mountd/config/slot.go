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

	blocks map[p11.SlotID]lines
}

// lines says where a slot's lines are.
type lines struct {
	end    int // of "}"
	format int // of tokversion, 0 without
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
	// Format is tokversion: which release's format the token directory has. It
	// is zero without one.
	Format    p11.Version
	HasFormat bool
}

// defaults is a slot before its lines are applied.
func defaults(id p11.SlotID, line int) Slot {
	return Slot{Line: line, ID: id, Description: "Linux", Manufacturer: "IBM"}
}

// LibraryName is the name of the slot's library without path and version, such as
// "libpkcs11_sw"; empty for what does not look like a shared library.
func (s Slot) LibraryName() string {
	base := s.Library[strings.LastIndexByte(s.Library, '/')+1:]
	name, _, ok := strings.Cut(base, ".so")
	if !ok {
		return ""
	}
	return name
}

func version(v p11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
