package store

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"p11fs/p11"
	"p11fs/secret"
)

// tokenData is TOKEN_DATA: the contents of NVTOK.DAT, byte for byte, and what
// stock processes share of it in memory. What this program does not know of it
// stays as it is.
type tokenData [dataSize]byte

// Where the fields of TOKEN_DATA lie. Numbers are little endian.
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
	offTweaks       = 216 // i32: weak DES, DES parity, key changes, Netscape
	dataSize        = 232
)

// initialFlags are those of a token that was never initialised.
const initialFlags = p11.CKF_RNG | p11.CKF_LOGIN_REQUIRED | p11.CKF_CLOCK_ON_TOKEN |
	p11.CKF_USER_PIN_TO_BE_CHANGED | p11.CKF_SO_PIN_TO_BE_CHANGED

const hashSize = sha1.Size

// noPIN stands in place of the hash of a PIN that was never set.
const noPIN = "00000000000000000000"

// newTokenData is the data of a token of kind k that was never initialised.
func newTokenData(k Kind) (d tokenData) {
	d.setText(offLabel, 32, k.Label)
	d.setText(offManufacturer, 32, "IBM Corp.")
	d.setText(offModel, 16, k.Model)
	d.setText(offSerial, 16, "123")
	d.setFlags(initialFlags)
	for off := offSessions; off < offHardware; off += 4 {
		d.setUint32(off, ^uint32(0))
	}
	d.setUint32(offMaxPIN, 8)
	d.setUint32(offMinPIN, 4)
	d[offHardware], d[offFirmware] = 1, 1
	d.setText(offTime, 16, "")
	copy(d[offUserHash:], noPIN)
	d.setHash(offSOHash, sha1.Sum([]byte(defaultSOPIN)))
	d.setNext(firstName())
	for i, tweak := range []uint32{1, 0, 1, 1} {
		d.setUint32(offTweaks+4*i, tweak)
	}
	return d
}

// errShort says that NVTOK.DAT is shorter than it must be: stock truncates it
// before it writes, outside its lock, so that this is normal for a moment.
var errShort = errors.New("NVTOK.DAT is shorter than its format")

// parseTokenData checks the contents of NVTOK.DAT.
func parseTokenData(b []byte) (d tokenData, err error) {
	if len(b) < dataSize {
		return d, fmt.Errorf("%w: %d bytes of %d", errShort, len(b), dataSize)
	}
	if len(b) > dataSize {
		return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED,
			"NVTOK.DAT has %d bytes, format 3.8 has %d: the token has another format", len(b), dataSize)
	}
	copy(d[:], b)
	// Stock from 3.18 on leaves the name of the next object NUL.
	if n := d.name(); n != (name{}) && !n.madeOf(digits) {
		return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT holds no valid name for the next object")
	}
	if d.uint32(offMinPIN) != 4 && d.uint32(offTweaks) != 1 {
		return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT is no token's data")
	}
	return d, nil
}

func (d *tokenData) uint32(off int) uint32 { return binary.LittleEndian.Uint32(d[off:]) }

func (d *tokenData) setUint32(off int, v uint32) { binary.LittleEndian.PutUint32(d[off:], v) }

func (d *tokenData) text(off, size int) string {
	return strings.TrimRight(string(d[off:off+size]), " \x00")
}

// setText writes text padded with blanks; it fits.
func (d *tokenData) setText(off, size int, text string) {
	field := d[off : off+size]
	for i := copy(field, text); i < size; i++ {
		field[i] = ' '
	}
}

func (d *tokenData) flags() p11.Flags { return p11.Flags(d.uint32(offFlags)) }

func (d *tokenData) setFlags(f p11.Flags) { d.setUint32(offFlags, uint32(f)) }

// flag sets some flags and clears others.
func (d *tokenData) flag(set, clear p11.Flags) { d.setFlags(d.flags()&^clear | set) }

func (d *tokenData) name() name { return name(d[offNext : offNext+8]) }

// next is the name of the next object.
func (d *tokenData) next() name {
	if n := d.name(); n != (name{}) {
		return n
	}
	return firstName()
}

func (d *tokenData) setNext(n name) { copy(d[offNext:], n[:]) }

func (d *tokenData) hash(off int) []byte { return d[off : off+hashSize] }

// setHash sets the hash of a PIN and the four zero bytes after it.
func (d *tokenData) setHash(off int, h [hashSize]byte) {
	copy(d[off:], h[:])
	clear(d[off+hashSize : off+24])
}

// userPINSet says whether the user has a PIN.
func (d *tokenData) userPINSet() bool { return !bytes.Equal(d.hash(offUserHash), []byte(noPIN)) }

// pinMatches compares pin with the hash at off in constant time.
func (d *tokenData) pinMatches(off int, pin *secret.Bytes) bool {
	h := pinHash(pin)
	return subtle.ConstantTimeCompare(h[:], d.hash(off)) == 1
}

func pinHash(pin *secret.Bytes) (h [hashSize]byte) {
	pin.Use(func(b []byte) { h = sha1.Sum(b) })
	return h
}

// pinLimits are the shortest and longest PIN. Nonsense gives those of stock.
func (d *tokenData) pinLimits() (shortest, longest int) {
	lo, hi := d.uint32(offMinPIN), d.uint32(offMaxPIN)
	if lo > hi || hi == 0 || hi > 255 {
		return 4, 8
	}
	return int(lo), int(hi)
}

// pinFits says whether a PIN of n bytes can be anybody's.
func (d *tokenData) pinFits(n int) bool {
	_, longest := d.pinLimits()
	return n > 0 && n <= longest
}

// checkNewPIN returns CKR_PIN_LEN_RANGE for a PIN that cannot be set.
func (d *tokenData) checkNewPIN(pin *secret.Bytes) error {
	lo, hi := d.pinLimits()
	if n := pin.Len(); n < lo || n > hi {
		return p11.Errorf(p11.CKR_PIN_LEN_RANGE, "a PIN of this token has %d to %d bytes, not %d", lo, hi, n)
	}
	return nil
}

// setLabel sets the token's label (PKCS#11 v3.1 §5.5.7, C_InitToken).
func (d *tokenData) setLabel(label string) error {
	switch {
	case len(label) > 32:
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a token label has at most 32 bytes, not %d", len(label))
	case !utf8.ValidString(label):
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token label is not UTF-8")
	case strings.ContainsRune(label, 0):
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "the token label holds a NUL byte")
	}
	d.setText(offLabel, 32, label)
	return nil
}

// info is the token's CK_TOKEN_INFO. Its text is cut of padding.
func (d *tokenData) info(now time.Time) p11.TokenInfo {
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
		Flags:           d.flags(),
		MaxSessions:     number(offSessions),
		MaxRWSessions:   number(offSessions + 8),
		MaxPINLen:       uint64(hi),
		MinPINLen:       uint64(lo),
		TotalPublicMem:  number(offMemory),
		FreePublicMem:   number(offMemory + 4),
		TotalPrivateMem: number(offMemory + 8),
		FreePrivateMem:  number(offMemory + 12),
		HardwareVersion: p11.Version{Major: d[offHardware], Minor: d[offHardware+1]},
		FirmwareVersion: p11.Version{Major: d[offFirmware], Minor: d[offFirmware+1]},
	}
	if i.Flags&p11.CKF_CLOCK_ON_TOKEN != 0 {
		i.UTCTime = now.UTC().Format("20060102150405") + "00"
	}
	return i
}
