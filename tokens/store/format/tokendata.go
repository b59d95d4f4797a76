package format

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// TokenData is a token's data (TOKEN_DATA of openCryptoki), byte for byte: what
// this program does not know of it stays as it is. Two are compared with ==. The
// zero value is not usable.
type TokenData struct {
	b [dataSize312]byte // numbers are little endian, whatever the directory has
}

// Where the fields lie.
const (
	offLabel        = 0   // 32 bytes, blank padded
	offManufacturer = 32  // 32 bytes
	offModel        = 64  // 16 bytes
	offSerial       = 80  // 16 bytes
	offFlags        = 96  // u32
	offSessions     = 100 // u32: max, now, max rw, rw now
	offMaxPIN       = 116 // u32
	offMinPIN       = 120 // u32
	offMemory       = 124 // u32: public total, free, private total, free
	offHardware     = 140 // major, minor
	offFirmware     = 142 // major, minor
	offTime         = 144 // 16 bytes
	offUserHash     = 160 // SHA-1 of the PIN in 24 bytes
	offSOHash       = 184 // likewise
	offNext         = 208 // name of the next object
	offSwitches     = 216 // u32: weak DES, DES parity, key changes, Netscape
	dataSize        = 232 // of format 3.8; what follows is 3.12's
)

// turned returns the data with each of its numbers in the other byte order.
func (d TokenData) turned() TokenData {
	turn := func(from, to int) {
		for off := from; off < to; off += 4 {
			binary.BigEndian.PutUint32(d.b[off:], binary.LittleEndian.Uint32(d.b[off:]))
		}
	}
	turn(offFlags, offHardware)
	turn(offSwitches, dataSize)
	return d
}

func (d *TokenData) uint32(off int) uint32 { return binary.LittleEndian.Uint32(d.b[off:]) }

func (d *TokenData) setUint32(off int, v uint32) { binary.LittleEndian.PutUint32(d.b[off:], v) }

func (d *TokenData) text(off, size int) string {
	return strings.TrimRight(string(d.b[off:off+size]), " \x00")
}

// ModelSize is how many bytes of NVTOK.DAT ModelOf wants.
const ModelSize = offSerial

// ModelOf is the model that the first bytes of an NVTOK.DAT name, whatever its format.
func ModelOf(b [ModelSize]byte) string {
	var d TokenData
	copy(d.b[:], b[:])
	return d.text(offModel, ModelSize-offModel)
}

// setText writes text padded with blanks; it fits.
func (d *TokenData) setText(off, size int, text string) {
	field := d.b[off : off+size]
	for i := copy(field, text); i < size; i++ {
		field[i] = ' '
	}
}

// setFacts sets what is the same in new tokens of both formats.
func (d *TokenData) setFacts(k Kind, rand io.Reader) {
	d.setText(offLabel, 32, k.Label)
	d.setText(offManufacturer, 32, k.Manufacturer)
	d.setText(offModel, 16, k.Model)
	d.setText(offSerial, 16, newSerial(rand))
	for off := offMemory; off < offHardware; off += 4 {
		d.setUint32(off, ^uint32(0))
	}
	d.setText(offTime, 16, "")
	for i, v := range []uint32{1, 0, 1, 1} {
		d.setUint32(offSwitches+4*i, v)
	}
}

// newSerial is a serial number of 16 random digits: programs tell tokens apart by
// it. Stock's tokens all have 123, which is what there is without random numbers.
func newSerial(rand io.Reader) string {
	var b [8]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "123"
	}
	return fmt.Sprintf("%X", b)
}

// Flags are the token's flags.
func (d *TokenData) Flags() p11.Flags { return p11.Flags(d.uint32(offFlags)) }

// SetFlags sets all flags.
func (d *TokenData) SetFlags(f p11.Flags) { d.setUint32(offFlags, uint32(f)) }

// SetLabel sets the token's label (PKCS#11 v3.1 §5.5.7, C_InitToken).
func (d *TokenData) SetLabel(label string) error {
	err := tokens.CheckLabel(label)
	if err == nil {
		d.setText(offLabel, 32, label)
	}
	return err
}

func (d *TokenData) setPINLimits(shortest, longest uint32) {
	d.setUint32(offMinPIN, shortest)
	d.setUint32(offMaxPIN, longest)
}

// maxPIN bounds the length of a PIN in both formats.
const maxPIN = 1024

// pinLimits are the lengths of the shortest and the longest PIN. Nonsense gives
// those of stock.
func (d *TokenData) pinLimits() (shortest, longest int) {
	lo, hi := d.uint32(offMinPIN), d.uint32(offMaxPIN)
	if lo > hi || hi == 0 || hi > maxPIN {
		return 4, 8
	}
	return int(lo), int(hi)
}

// Info is the token's CK_TOKEN_INFO. Its text is cut of padding.
func (d *TokenData) Info(now time.Time) p11.TokenInfo {
	number := func(off int) uint64 {
		if v := d.uint32(off); v != ^uint32(0) {
			return uint64(v)
		}
		return p11.Unavailable
	}
	lo, hi := d.pinLimits()
	i := p11.TokenInfo{
		Label:           d.text(offLabel, 32),
		Manufacturer:    d.text(offManufacturer, 32),
		Model:           d.text(offModel, 16),
		Serial:          d.text(offSerial, 16),
		Flags:           d.Flags(),
		MaxSessions:     number(offSessions),
		MaxRWSessions:   number(offSessions + 8),
		MaxPINLen:       uint64(hi),
		MinPINLen:       uint64(lo),
		TotalPublicMem:  number(offMemory),
		FreePublicMem:   number(offMemory + 4),
		TotalPrivateMem: number(offMemory + 8),
		FreePrivateMem:  number(offMemory + 12),
		HardwareVersion: p11.Version{Major: d.b[offHardware], Minor: d.b[offHardware+1]},
		FirmwareVersion: p11.Version{Major: d.b[offFirmware], Minor: d.b[offFirmware+1]},
	}
	if i.Flags&p11.CKF_CLOCK_ON_TOKEN != 0 {
		i.UTCTime = now.UTC().Format("20060102150405") + "00"
	}
	return i
}
