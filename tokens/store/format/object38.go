package format

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/sha1"
	"crypto/subtle"

	"p11fs/p11"
	"p11fs/secret"
)

// An object file is a header, the file's length (u32) and whether the object is
// private (u8), and a body. The body of a public object is its record; that of a
// private one is encrypted.
const fileHeader = 5

// objectIV is the CBC initialisation vector of private objects.
const objectIV = "10293847"

// tpmObjectIV is that of the tpm token, which has AES with a key of zeros.
const tpmObjectIV = ")#%&!*)^!()$&!&N"

// objects38 reads and writes the object files of a directory.
type objects38 struct {
	order byteOrder
	// ciphers open private objects; the first one seals them.
	ciphers []bodyCipher
}

// Objects is Format. The second cipher is that of objects which stock made while
// its master key was not loaded, and was zeros.
func (f v38) Objects(master *secret.Bytes) (Objects, error) {
	o := &objects38{order: f.order}
	if master == nil {
		return o, nil
	}
	if f.kind.zeroKey {
		block, err := aes.NewCipher(make([]byte, 32))
		o.ciphers = []bodyCipher{{block, tpmObjectIV, f.order}}
		return o, err
	}
	err := error(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the master key is closed"))
	master.Use(func(key []byte) {
		if len(key) < dataKeyLen {
			return
		}
		for _, k := range [][]byte{key[:dataKeyLen], make([]byte, dataKeyLen)} {
			var block cipher.Block
			if block, err = des.NewTripleDESCipher(k); err != nil {
				return
			}
			o.ciphers = append(o.ciphers, bodyCipher{block, objectIV, f.order})
		}
	})
	return o, err
}

// Seal is Objects. The file depends on nothing but the object.
func (o *objects38) Seal(n Name, attrs p11.Attributes, _ []byte) ([]byte, error) {
	return o.seal(n, attrs, isPrivate(attrs))
}

// isPrivate reports whether an object is private: without CKA_PRIVATE it is.
func isPrivate(attrs p11.Attributes) bool {
	return !attrs.Has(p11.CKA_PRIVATE) || attrs.Bool(p11.CKA_PRIVATE)
}

func (o *objects38) seal(n Name, attrs p11.Attributes, private bool) ([]byte, error) {
	if private && len(o.ciphers) == 0 {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a private object needs a login of the user")
	}
	record, err := printRecord(n, attrs, o.order)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(record)
	file := make([]byte, fileHeader, fileHeader+len(record))
	if private {
		file[4] = 1
		file = append(file, o.ciphers[0].seal(record)...)
	} else {
		file = append(file, record...)
	}
	if len(file) > MaxObjectFile {
		secret.Wipe(file)
		return nil, errTooLarge()
	}
	o.order.PutUint32(file, uint32(len(file)))
	return file, nil
}

// Open is Objects. The checks are stock's.
func (o *objects38) Open(n Name, file []byte) (private bool, attrs p11.Attributes, err error) {
	private, record, err := o.splitFile(file)
	if err != nil || private && len(o.ciphers) == 0 {
		return private, nil, err
	}
	if private {
		body := record
		for _, c := range o.ciphers {
			if record, err = c.open(body); err == nil {
				break
			}
		}
		if err != nil {
			return private, nil, err
		}
		defer secret.Wipe(record)
	}
	attrs, err = objectOf(n, record, private, o.order)
	return private, attrs, err
}

// objectOf is the object in a record, which must be that of the file.
func objectOf(n Name, record []byte, private bool, order byteOrder) (p11.Attributes, error) {
	inside, attrs, err := parseRecord(record, order)
	if err != nil {
		return nil, err
	}
	switch {
	case inside != n:
		err = damaged("it is that of %s", inside)
	case isPrivate(attrs) != private:
		err = damaged("its header and its CKA_PRIVATE disagree")
	default:
		if !attrs.Has(p11.CKA_PRIVATE) {
			attrs.SetBool(p11.CKA_PRIVATE, true)
		}
		return attrs, nil
	}
	attrs.Wipe()
	return nil, err
}

// splitFile splits an object file into privacy and body. Bytes after the length in
// the header are no part of it.
func (o *objects38) splitFile(file []byte) (private bool, body []byte, err error) {
	if len(file) < fileHeader {
		return false, nil, damaged("%d bytes hold no header", len(file))
	}
	total := o.order.Uint32(file)
	if total < fileHeader || uint64(total) > uint64(len(file)) {
		return false, nil, damaged("its header says %d bytes, there are %d", total, len(file))
	}
	switch file[4] {
	case 0:
	case 1:
		private = true
	default:
		return false, nil, damaged("it is neither public nor private but %d", file[4])
	}
	return private, file[fileHeader:total], nil
}

// A bodyCipher encrypts and decrypts the bodies of private objects: u32 length,
// record, SHA-1, padding, in CBC mode under a fixed initialisation vector.
type bodyCipher struct {
	block cipher.Block
	iv    string
	order byteOrder
}

func (c bodyCipher) seal(record []byte) []byte {
	size := c.block.BlockSize()
	b := make([]byte, 0, 4+len(record)+sha1.Size+size)
	b = c.order.AppendUint32(b, uint32(len(record)))
	b = append(b, record...)
	h := sha1.Sum(record)
	b = append(b, h[:]...)
	pad := size - len(b)%size
	b = append(b, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(c.block, []byte(c.iv)).CryptBlocks(b, b)
	return b
}

// open decrypts what seal made. The caller wipes the result.
func (c bodyCipher) open(body []byte) (record []byte, err error) {
	if len(body) == 0 || len(body)%c.block.BlockSize() != 0 {
		return nil, damaged("%d encrypted bytes are not whole blocks", len(body))
	}
	b := make([]byte, len(body))
	cipher.NewCBCDecrypter(c.block, []byte(c.iv)).CryptBlocks(b, body)
	if record, err = c.check(b); err != nil {
		secret.Wipe(b)
		return nil, err
	}
	return record, nil
}

// check finds the record in the decrypted body. As in stock, of the padding only
// the length counts.
func (c bodyCipher) check(b []byte) ([]byte, error) {
	pad := int(b[len(b)-1])
	if pad > len(b) || len(b)-pad < 4+sha1.Size {
		return nil, damaged("it does not decrypt")
	}
	n := c.order.Uint32(b)
	rest := b[4 : len(b)-pad]
	if uint64(n)+sha1.Size > uint64(len(rest)) {
		return nil, damaged("it does not decrypt")
	}
	if h := sha1.Sum(rest[:n]); subtle.ConstantTimeCompare(h[:], rest[n:n+sha1.Size]) != 1 {
		return nil, damaged("it does not decrypt: wrong checksum")
	}
	return rest[:n], nil
}
