package store

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"p11fs/p11"
	"p11fs/secret"
)

// An object file is a header of 5 bytes, the file's length (u32) and whether the
// object is private, and a body. The body of a public object is the flattened
// object; that of a private one is encrypted (seal).
//
// A flattened object is u32 class (0), u32 number of attributes, the name, and
// the attributes: u32 type, u32 zero, u32 length, value. Six attributes have
// their CK_ULONG stored in 4 bytes (narrow).
const (
	headerSize    = 5
	flatSize      = 16 // before the attributes
	attributeSize = 12 // before the value

	// maxAttributes bounds the attributes of one object; PKCS#11 v3.2 knows about
	// 150 types.
	maxAttributes = 1024
	// maxObjectFile bounds what is read into memory for one object, and so
	// what is written.
	maxObjectFile = 16 << 20
)

// errDamaged is wrapped by every error about the contents of an object file.
var errDamaged = errors.New("damaged object file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errDamaged}, args...)...)
}

// narrow says that a non-empty value of type t has 8 bytes in memory and 4 in
// the file.
func narrow(t p11.AttributeType) bool {
	switch t {
	case p11.CKA_CLASS, p11.CKA_CERTIFICATE_TYPE, p11.CKA_KEY_TYPE,
		p11.CKA_MODULUS_BITS, p11.CKA_VALUE_BITS, p11.CKA_VALUE_LEN:
		return true
	}
	return false
}

// flatten is the flattened form of an object.
func flatten(n name, attrs p11.Attributes) ([]byte, error) {
	if len(attrs) > maxAttributes {
		return nil, p11.Errorf(p11.CKR_DEVICE_MEMORY, "the object has more than %d attributes", maxAttributes)
	}
	size := flatSize
	for _, a := range attrs {
		size += attributeSize + len(a.Value)
		if size > maxObjectFile-headerSize {
			return nil, p11.Errorf(p11.CKR_DEVICE_MEMORY, "the object is larger than %d bytes", maxObjectFile)
		}
	}
	b := make([]byte, 8, size)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(attrs)))
	b = append(b, n[:]...)
	for _, a := range attrs {
		if uint64(a.Type) > math.MaxUint32 {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "attribute %v cannot be stored", a.Type)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(a.Type))
		b = binary.LittleEndian.AppendUint32(b, 0)
		if !narrow(a.Type) || len(a.Value) == 0 {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(a.Value)))
			b = append(b, a.Value...)
			continue
		}
		v, err := p11.ToUlong(a.Value)
		if err != nil || v > math.MaxUint32 {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the value of %v cannot be stored: it must be below 2^32", a.Type)
		}
		b = binary.LittleEndian.AppendUint32(b, 4)
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b, nil
}

// unflatten reads a flattened object to its end. The attributes share one
// buffer, and nothing of b is kept.
func unflatten(b []byte) (n name, attrs p11.Attributes, err error) {
	if len(b) < flatSize {
		return n, nil, damaged("%d bytes hold no object", len(b))
	}
	count := binary.LittleEndian.Uint32(b[4:])
	n, ok := parseName(string(b[8:16]))
	if !ok {
		return n, nil, damaged("no valid name inside")
	}
	b = b[flatSize:]
	if count > maxAttributes || int(count)*attributeSize > len(b) {
		return n, nil, damaged("%d attributes do not fit in %d bytes", count, len(b))
	}
	attrs = make(p11.Attributes, 0, count)
	values := make([]byte, 0, len(b)-int(count)*attributeSize+4*6)
	for range count {
		if len(b) < attributeSize {
			return n, nil, damaged("an attribute is cut off")
		}
		t := p11.AttributeType(binary.LittleEndian.Uint32(b))
		size := binary.LittleEndian.Uint32(b[8:])
		b = b[attributeSize:]
		if uint64(size) > uint64(len(b)) {
			return n, nil, damaged("the value of %v is cut off", t)
		}
		for _, a := range attrs {
			if a.Type == t {
				return n, nil, damaged("%v stands in it twice", t)
			}
		}
		from := len(values)
		values = append(values, b[:size]...)
		if narrow(t) && size != 0 {
			if size != 4 {
				return n, nil, damaged("the value of %v has %d bytes, not 4", t, size)
			}
			values = append(values, 0, 0, 0, 0)
		}
		attrs = append(attrs, p11.Attribute{Type: t, Value: values[from:len(values):len(values)]})
		b = b[size:]
	}
	if len(b) != 0 {
		return n, nil, damaged("%d bytes follow the attributes", len(b))
	}
	return n, attrs, nil
}

// seal encrypts a flattened object: u32 length, object, SHA-1, padding, in CBC
// mode under a fixed IV.
func (c objectCipher) seal(flat []byte) []byte {
	size := c.block.BlockSize()
	b := make([]byte, 0, 4+len(flat)+sha1.Size+size)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(flat)))
	b = append(b, flat...)
	h := sha1.Sum(flat)
	b = append(b, h[:]...)
	pad := size - len(b)%size
	b = append(b, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(c.block, []byte(c.iv)).CryptBlocks(b, b)
	return b
}

// open decrypts what seal made. The caller wipes the result.
func (c objectCipher) open(body []byte) (flat []byte, err error) {
	if len(body) == 0 || len(body)%c.block.BlockSize() != 0 {
		return nil, damaged("%d encrypted bytes are not whole blocks", len(body))
	}
	b := make([]byte, len(body))
	cipher.NewCBCDecrypter(c.block, []byte(c.iv)).CryptBlocks(b, body)
	if flat, err = checkOpened(b); err != nil {
		secret.Wipe(b)
		return nil, err
	}
	return flat, nil
}

// checkOpened finds the flattened object in the decrypted body. As in stock, of
// the padding only the length counts.
func checkOpened(b []byte) ([]byte, error) {
	pad := int(b[len(b)-1])
	if pad > len(b) || len(b)-pad < 4+sha1.Size {
		return nil, damaged("it does not decrypt")
	}
	n := binary.LittleEndian.Uint32(b)
	rest := b[4 : len(b)-pad]
	if uint64(n)+sha1.Size > uint64(len(rest)) {
		return nil, damaged("it does not decrypt")
	}
	if h := sha1.Sum(rest[:n]); subtle.ConstantTimeCompare(h[:], rest[n:n+sha1.Size]) != 1 {
		return nil, damaged("it does not decrypt: wrong checksum")
	}
	return rest[:n], nil
}

// parseHeader splits an object file into privacy and body. Bytes after the
// length in the header are no part of it.
func parseHeader(file []byte) (private bool, body []byte, err error) {
	if len(file) < headerSize {
		return false, nil, damaged("%d bytes hold no header", len(file))
	}
	total := binary.LittleEndian.Uint32(file)
	if total < headerSize || uint64(total) > uint64(len(file)) {
		return false, nil, damaged("its header says %d bytes, there are %d", total, len(file))
	}
	switch file[4] {
	case 0:
	case 1:
		private = true
	default:
		return false, nil, damaged("it is neither public nor private but %d", file[4])
	}
	return private, file[headerSize:total], nil
}

// encodeObject is the object file of attrs; c is needed for a private object.
func encodeObject(n name, private bool, attrs p11.Attributes, c objectCipher) ([]byte, error) {
	flat, err := flatten(n, attrs)
	if err != nil {
		return nil, err
	}
	file := make([]byte, headerSize, headerSize+len(flat))
	if private {
		file[4] = 1
		file = append(file, c.seal(flat)...)
		secret.Wipe(flat)
	} else {
		file = append(file, flat...)
	}
	if len(file) > maxObjectFile {
		return nil, p11.Errorf(p11.CKR_DEVICE_MEMORY, "the object is larger than %d bytes", maxObjectFile)
	}
	binary.LittleEndian.PutUint32(file, uint32(len(file)))
	return file, nil
}

// decodeObject reads the object file of n. The ciphers are tried in turn for
// a private one; the rest of the checks are stock's.
func decodeObject(n name, file []byte, ciphers ...objectCipher) (p11.Attributes, error) {
	private, flat, err := parseHeader(file)
	if err != nil {
		return nil, err
	}
	if private {
		body := flat
		err = damaged("it is private and there is no key")
		for _, c := range ciphers {
			if flat, err = c.open(body); err == nil {
				break
			}
		}
		if err != nil {
			return nil, err
		}
		defer secret.Wipe(flat)
	}
	inside, attrs, err := unflatten(flat)
	if err != nil {
		return nil, err
	}
	if inside != n {
		return nil, damaged("it is that of %s", inside)
	}
	// Without CKA_PRIVATE an object is private.
	if !attrs.Has(p11.CKA_PRIVATE) {
		attrs = append(attrs, p11.Attribute{Type: p11.CKA_PRIVATE, Value: p11.Bool(true)})
	}
	if attrs.Bool(p11.CKA_PRIVATE) != private {
		attrs.Wipe()
		return nil, damaged("its header and its CKA_PRIVATE disagree")
	}
	return attrs, nil
}
