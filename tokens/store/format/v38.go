package format

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"

	"p11fs/p11"
	"p11fs/tokens"
)

// v38 is the format of openCryptoki 3.8.
type v38 struct {
	numbered
	kind  Kind
	order byteOrder // of the directory
	rand  io.Reader
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// V38 returns the format of openCryptoki 3.8 as new directories have it: in the
// machine's byte order.
func V38(k Kind, rand io.Reader) Format { return v38{kind: k, order: nativeOrder(), rand: rand} }

func nativeOrder() byteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

func (f v38) Foreign() bool { return f.order != nativeOrder() }

func (f v38) FileSize() int64 { return dataSize }

// Recognize is Format.
func (f v38) Recognize(file []byte) (Format, error) {
	if err := checkSize(file); err != nil {
		return nil, err
	}
	var err error
	if f.order, err = orderOf(file); err != nil {
		return nil, err
	}
	_, err = f.ParseFile(file)
	return f, err
}

func checkSize(b []byte) error {
	if len(b) < dataSize {
		return fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), dataSize)
	}
	if len(b) > dataSize {
		return otherFormat(b, "3.8", dataSize, "tokversion = 3.12")
	}
	return nil
}

// orderOf returns the byte order of token data: two of its numbers are known. One
// that has neither value, as no program leaves it but somebody may, says nothing.
func orderOf(b []byte) (byteOrder, error) {
	has := func(o byteOrder) bool {
		return o.Uint32(b[offMinPIN:]) == 4 || o.Uint32(b[offSwitches:]) == 1
	}
	switch little, big := has(binary.LittleEndian), has(binary.BigEndian); {
	case little && big:
		return nil, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT has numbers in both byte orders")
	case little:
		return binary.LittleEndian, nil
	case big:
		return binary.BigEndian, nil
	}
	return nil, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT does not hold a token's data")
}

// ParseFile is Data.
func (f v38) ParseFile(b []byte) (TokenData, error) { return parse(b, f.order) }

// PrintFile is Data.
func (f v38) PrintFile(d TokenData) []byte { return printData(d, f.order) }

// ParseSegment is Data.
func (f v38) ParseSegment(b []byte) (TokenData, error) { return parse(b, nativeOrder()) }

// PrintSegment is Data.
func (f v38) PrintSegment(d TokenData) []byte { return printData(d, nativeOrder()) }

func parse(b []byte, want byteOrder) (d TokenData, err error) {
	if err := checkSize(b); err != nil {
		return d, err
	}
	order, err := orderOf(b)
	if err != nil {
		return d, err
	}
	if order != want {
		return d, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "NVTOK.DAT is %v, and the token's other files are %v", order, want)
	}
	copy(d.b[:], b)
	if order == binary.BigEndian {
		d = d.turned()
	}
	return d, d.checkNext()
}

func printData(d TokenData, order byteOrder) []byte {
	if order == binary.BigEndian {
		d = d.turned()
	}
	return d.b[:dataSize]
}

// initialFlags are those of a token that was never initialised.
const initialFlags = p11.CKF_RNG | p11.CKF_LOGIN_REQUIRED | p11.CKF_CLOCK_ON_TOKEN |
	p11.CKF_USER_PIN_TO_BE_CHANGED | p11.CKF_SO_PIN_TO_BE_CHANGED

// newData is the data of a token that was never initialised.
func (f v38) newData() (d TokenData) {
	d.setFacts(f.kind, f.rand)
	d.SetFlags(initialFlags)
	for off := offSessions; off < offMaxPIN; off += 4 {
		d.setUint32(off, ^uint32(0))
	}
	d.setPINLimits(4, 8)
	d.b[offHardware], d.b[offFirmware] = 1, 1
	d.setHash(p11.CKU_USER, noPIN)
	def := sha1.Sum([]byte(tokens.DefaultSOPIN))
	d.setHash(p11.CKU_SO, PINRecord(def[:]))
	d.setNext(firstName())
	return d
}

// Initialized is Data: all is as in a new token, but an SO who has a PIN of their own
// need not change it, as stock would have it.
func (f v38) Initialized(old TokenData) (TokenData, bool) {
	d := f.newData()
	d.SetFlags(d.Flags()&(old.Flags()|^p11.CKF_SO_PIN_TO_BE_CHANGED) | p11.CKF_TOKEN_INITIALIZED)
	return d, true
}

// noPIN stands in place of the hash of a PIN that was never set.
const noPIN PINRecord = "00000000000000000000"

func hashOffset(role p11.UserType) int {
	if role == p11.CKU_SO {
		return offSOHash
	}
	return offUserHash
}

// setHash sets the hash of a PIN and the four zero bytes after it.
func (d *TokenData) setHash(role p11.UserType, r PINRecord) {
	off := hashOffset(role)
	clear(d.b[off+copy(d.b[off:off+sha1.Size], r) : off+24])
}

// PIN is Data: the hash.
func (f v38) PIN(d TokenData, role p11.UserType) PINRecord {
	off := hashOffset(role)
	return PINRecord(d.b[off : off+sha1.Size])
}

// WithPIN is Data.
func (f v38) WithPIN(d TokenData, role p11.UserType, r PINRecord) TokenData {
	d.setHash(role, r)
	return d
}

// UserPINSet is Data.
func (f v38) UserPINSet(d TokenData) bool { return f.PIN(d, p11.CKU_USER) != noPIN }
