package format

import (
	"encoding/binary"
	"fmt"
	"io"

	"p11fs/p11"
)

// v312 is the format of openCryptoki 3.12 to 3.27. Numbers are big endian in NVTOK.DAT
// and before an object, and little endian inside of one, whatever machine wrote them.
type v312 struct {
	numbered
	kind       Kind
	rand       io.Reader
	iterations uint64
}

// V312 returns the format of openCryptoki 3.12. iterations is the count of PBKDF2 for
// PINs that are set from now on, such as Iterations.
func V312(k Kind, rand io.Reader, iterations uint64) Format {
	return v312{kind: k, rand: rand, iterations: iterations}
}

// Where the fields lie that format 3.8 has not.
const (
	offVersion   = 232 // u32, and 4 bytes of padding
	offSOLogin   = 240 // u64 iterations, the salt, and the key that is derived
	offUserLogin = 344
	offSOWrap    = 448 // u64 iterations, and the salt
	offUserWrap  = 520
	dataSize312  = 592

	saltSize   = 64
	pinKeySize = 32
	loginSize  = 8 + saltSize + pinKeySize
	wrapSize   = 8 + saltSize
)

// version312 is what stands in files: tokversion, of which nobody looks at more than
// its byte order.
const version312 = 0x0003000c

const initialFlags312 = initialFlags | p11.CKF_DUAL_CRYPTO_OPERATIONS

// Foreign is Format.
func (f v312) Foreign() bool { return false }

// FileSize is Data.
func (f v312) FileSize() int64 { return dataSize312 }

// Recognize is Format.
func (f v312) Recognize(file []byte) (Format, error) {
	_, err := f.ParseFile(file)
	return f, err
}

// otherFormat is the error of an NVTOK.DAT that is not of the format which the slot
// declares. mend is the line to write where it is of the other one.
func otherFormat(b []byte, declared string, size int, mend string) error {
	if len(b) != dataSize && len(b) != dataSize312 {
		mend = "no format has that"
	}
	return p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT has %d bytes, format %s has %d: %s", len(b), declared, size, mend)
}

// ParseFile is Data.
func (f v312) ParseFile(b []byte) (TokenData, error) { return parse312(b, binary.BigEndian) }

// PrintFile is Data.
func (f v312) PrintFile(d TokenData) []byte { return print312(d, binary.BigEndian) }

// ParseSegment is Data.
func (f v312) ParseSegment(b []byte) (TokenData, error) { return parse312(b, nativeOrder()) }

// PrintSegment is Data.
func (f v312) PrintSegment(d TokenData) []byte { return print312(d, nativeOrder()) }

func parse312(b []byte, order byteOrder) (d TokenData, err error) {
	switch {
	case len(b) == dataSize || len(b) > dataSize312:
		return d, otherFormat(b, "3.12", dataSize312, "tokversion = 0.0")
	case len(b) < dataSize312:
		return d, fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), dataSize312)
	}
	copy(d.b[:], b)
	if order == binary.BigEndian {
		d = d.turned312()
	}
	if has := func(off int, v uint32) bool { return d.uint32(off) == v }; !has(offMinPIN, 4) && !has(offSwitches, 1) {
		return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT does not hold a token's data")
	}
	for _, off := range []int{offSOLogin, offUserLogin, offSOWrap, offUserWrap} {
		if n := binary.LittleEndian.Uint64(d.b[off:]); n > maxIterations {
			return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT asks for %d iterations of PBKDF2, and %d are the most", n, maxIterations)
		}
	}
	return d, d.checkNext()
}

func print312(d TokenData, order byteOrder) []byte {
	if order == binary.BigEndian {
		d = d.turned312()
	}
	return d.b[:]
}

func (d TokenData) turned312() TokenData {
	d = d.turned()
	binary.BigEndian.PutUint32(d.b[offVersion:], binary.LittleEndian.Uint32(d.b[offVersion:]))
	for _, off := range []int{offSOLogin, offUserLogin, offSOWrap, offUserWrap} {
		binary.BigEndian.PutUint64(d.b[off:], binary.LittleEndian.Uint64(d.b[off:]))
	}
	return d
}

// newData is the data of a token that was never initialised, but for the PINs.
func (f v312) newData() (d TokenData) {
	d.setFacts(f.kind, f.rand)
	d.SetFlags(initialFlags312)
	for off := offSessions + 4; off < offMaxPIN; off += 8 {
		d.setUint32(off, ^uint32(0))
	}
	d.setPINLimits(4, maxPIN)
	d.setUint32(offVersion, version312)
	return d
}

// To312 returns the data of a token of format 3.8 as one of format 3.12 has it, without
// PINs. All else stays, but that PINs may be longer.
func To312(d TokenData) TokenData {
	flags := d.Flags() &^ p11.CKF_USER_PIN_INITIALIZED
	if (v38{}).UserPINSet(d) {
		flags |= p11.CKF_USER_PIN_INITIALIZED
	}
	d.SetFlags(flags)
	d.setHash(p11.CKU_SO, "")
	d.setHash(p11.CKU_USER, "")
	d.setPINLimits(4, maxPIN)
	clear(d.b[dataSize:])
	d.setUint32(offVersion, version312)
	return d
}

// Initialized is Data: as stock has it, but with a new master key, so that nothing that
// was destroyed can be read from a copy of the disk.
func (f v312) Initialized(d TokenData) (TokenData, bool) {
	d.SetFlags(d.Flags()&^(p11.CKF_USER_PIN_INITIALIZED|p11.CKF_USER_PIN_LOCKED|
		p11.CKF_USER_PIN_FINAL_TRY|p11.CKF_USER_PIN_COUNT_LOW) | p11.CKF_TOKEN_INITIALIZED)
	return d, true
}

// places are where a role's two parts lie.
func places(role p11.UserType) (login, wrap int) {
	if role == p11.CKU_SO {
		return offSOLogin, offSOWrap
	}
	return offUserLogin, offUserWrap
}

// PIN is Data: what the login is compared with, and what the key that wraps the master
// key is made of.
func (f v312) PIN(d TokenData, role p11.UserType) PINRecord {
	login, wrap := places(role)
	return PINRecord(d.b[login:login+loginSize]) + PINRecord(d.b[wrap:wrap+wrapSize])
}

// WithPIN is Data. The hashes that a token has from its time as one of format 3.8 go.
func (f v312) WithPIN(d TokenData, role p11.UserType, r PINRecord) TokenData {
	login, wrap := places(role)
	copy(d.b[login:login+loginSize], r)
	copy(d.b[wrap:wrap+wrapSize], r[min(len(r), loginSize):])
	d.setHash(role, "")
	return d
}

// UserPINSet is Data. A token has a record of the user's PIN before there is one.
func (f v312) UserPINSet(d TokenData) bool { return d.Flags()&p11.CKF_USER_PIN_INITIALIZED != 0 }
