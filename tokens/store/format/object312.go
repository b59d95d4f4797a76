package format

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/keywrap"
)

// An object file is a header and the object's record. The header of a public object is
// the version (u32), 0 (u8), 7 zeros and the record's length (u32). That of a private one
// is the version, 1, 3 zeros, the object's key wrapped with the master key, the
// initialisation vector (the object's name and a counter) and the length; the record
// is encrypted with AES-256-GCM, which authenticates the header too, and the tag follows.
const (
	publicHeader  = 16
	privateHeader = 64
	offWrapped    = 8
	offIV         = offWrapped + wrappedKeySize
	offLength     = offIV + ivSize
	ivSize        = 12
	tagSize       = 16
)

// objects312 reads and writes the object files of a directory.
type objects312 struct {
	master cipher.Block // nil: no private ones
	rand   io.Reader
}

// Objects is Format.
func (f v312) Objects(master *secret.Bytes) (_ Objects, err error) {
	o := objects312{rand: f.rand}
	if master != nil {
		o.master, err = cipherOf(master)
	}
	return o, err
}

// Seal is Objects. A private object has a new key each time it is written: then no
// initialisation vector can come twice with one key, also where a write that was cut off
// has left its bytes on the disk.
func (o objects312) Seal(n Name, attrs p11.Attributes, _ []byte) ([]byte, error) {
	private := isPrivate(attrs)
	if private && o.master == nil {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a private object needs a login of the user")
	}
	record, err := printRecord(n, attrs, binary.LittleEndian)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(record)
	if privateHeader+len(record)+tagSize > MaxObjectFile {
		return nil, errTooLarge()
	}
	if !private {
		file := make([]byte, publicHeader, publicHeader+len(record))
		binary.BigEndian.PutUint32(file, version312)
		binary.BigEndian.PutUint32(file[publicHeader-4:], uint32(len(record)))
		return append(file, record...), nil
	}
	key := make([]byte, masterKeySize312)
	defer secret.Wipe(key)
	if _, err := io.ReadFull(o.rand, key); err != nil {
		return nil, fmt.Errorf("a new object key: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	wrapped, err := keywrap.Wrap(o.master, keywrap.IV, key)
	if err != nil {
		return nil, err
	}
	gcm, err := gcmOf(key)
	if err != nil {
		return nil, err
	}
	file := make([]byte, privateHeader, privateHeader+len(record)+tagSize)
	binary.BigEndian.PutUint32(file, version312)
	file[4] = 1
	copy(file[offWrapped:], wrapped)
	copy(file[offIV:], n[:])
	binary.BigEndian.PutUint32(file[offIV+len(n):], 1)
	binary.BigEndian.PutUint32(file[offLength:], uint32(len(record)))
	return gcm.Seal(file, file[offIV:offLength], record, file), nil
}

func gcmOf(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Open is Objects.
func (o objects312) Open(n Name, file []byte) (private bool, attrs p11.Attributes, err error) {
	private, record, err := o.record(file)
	if err != nil || private && o.master == nil {
		return private, nil, err
	}
	if private {
		defer secret.Wipe(record)
	}
	attrs, err = objectOf(n, record, private, binary.LittleEndian)
	return private, attrs, err
}

// record is the record in an object file; nil of a private one without the master key.
func (o objects312) record(file []byte) (private bool, record []byte, err error) {
	if len(file) < publicHeader {
		return false, nil, damaged("%d bytes hold no object", len(file))
	}
	switch file[4] {
	case 0:
		record, err = counted(file[publicHeader:], lengthOrder(file).Uint32(file[publicHeader-4:]), 0)
		return false, record, err
	case 1:
		if len(file) < privateHeader {
			return true, nil, damaged("%d bytes hold no private object", len(file))
		}
		sealed, err := counted(file[privateHeader:], binary.BigEndian.Uint32(file[offLength:]), tagSize)
		if err != nil || o.master == nil {
			return true, nil, err
		}
		record, err = o.decrypt(file[:privateHeader], sealed)
		return true, record, err
	}
	return false, nil, damaged("it is neither public nor private")
}

// lengthOrder is the byte order of a public object's header: releases up to 3.14 wrote
// the machine's, and the version shows which.
func lengthOrder(file []byte) byteOrder {
	if binary.LittleEndian.Uint32(file) < binary.BigEndian.Uint32(file) {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// counted is what a header counts, and more bytes behind that.
func counted(b []byte, n uint32, more int) ([]byte, error) {
	if uint64(n)+uint64(more) > uint64(len(b)) {
		return nil, damaged("it is cut off: %d bytes follow the header, which counts %d", len(b), uint64(n)+uint64(more))
	}
	return b[:int(n)+more], nil
}

func (o objects312) decrypt(header, sealed []byte) ([]byte, error) {
	key, err := keywrap.Unwrap(o.master, keywrap.IV, header[offWrapped:offIV])
	if err != nil {
		return nil, damaged("its key does not unwrap")
	}
	defer secret.Wipe(key)
	gcm, err := gcmOf(key)
	if err != nil {
		return nil, err
	}
	record, err := gcm.Open(nil, header[offIV:offLength], sealed, header)
	if err != nil {
		return nil, damaged("it does not decrypt")
	}
	return record, nil
}
