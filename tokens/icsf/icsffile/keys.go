package icsffile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"p11fs/secret"
)

// The sizes of the files of keys.
const (
	// MasterKeySize is that of the master key.
	MasterKeySize = 32
	// KeyFileSize is that of MK_SO and MK_USER: the number 64, a salt, and the master key
	// with its padding, encrypted.
	KeyFileSize = lengthSize + saltSize + MasterKeySize + aes.BlockSize
	// MaxPassword is the longest password of a server.
	MaxPassword = 80

	lengthSize = 4
	saltSize   = 16
	rounds     = 999
)

// deriveKey is the key of a PIN: stock's own sum of HMACs. It is not PBKDF2, of which it has
// neither the first block nor the last round.
func deriveKey(pin *secret.Bytes, salt []byte) (key []byte) {
	u := append(bytes.Clone(salt), 1)
	key = make([]byte, MasterKeySize)
	copy(key, u)
	pin.Use(func(p []byte) {
		h := hmac.New(sha256.New, p)
		for range rounds {
			h.Reset()
			h.Write(u)
			u = h.Sum(u[:0])
			for i, x := range u {
				key[i] ^= x
			}
		}
	})
	secret.Wipe(u)
	return key
}

// seal is the length of what follows, an initialisation vector, and data encrypted under a key.
func seal(key, iv, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	n := aes.BlockSize - len(data)%aes.BlockSize
	out := binary.NativeEndian.AppendUint32(nil, uint32(len(iv)+len(data)+n))
	out = append(out, iv...)
	out = secret.Append(secret.Append(out, data), bytes.Repeat([]byte{byte(n)}, n))
	text := out[lengthSize+len(iv):]
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	return out, nil
}

// unseal opens what seal made; ok is false where it is damaged, or the key another one.
func unseal(key, file []byte) (data []byte, ok bool, err error) {
	if len(file) < lengthSize+2*aes.BlockSize || len(file)%aes.BlockSize != lengthSize || uint64(binary.NativeEndian.Uint32(file)) != uint64(len(file)-lengthSize) {
		return nil, false, nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, false, err
	}
	iv, text := file[lengthSize:lengthSize+aes.BlockSize], bytes.Clone(file[lengthSize+aes.BlockSize:])
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	n := int(text[len(text)-1])
	if n == 0 || n > aes.BlockSize || bytes.Count(text[len(text)-n:], []byte{byte(n)}) != n {
		secret.Wipe(text)
		return nil, false, nil
	}
	return text[:len(text)-n], true, nil
}

// SealMaster is the contents of MK_SO or MK_USER: the master key under a PIN.
func SealMaster(random io.Reader, pin, master *secret.Bytes) (file []byte, err error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, err
	}
	key := deriveKey(pin, salt)
	defer secret.Wipe(key)
	if master.Len() != MasterKeySize {
		return nil, errors.New("the master key is closed")
	}
	master.Use(func(m []byte) { file, err = seal(key, salt, m) })
	return file, err
}

// OpenMaster opens MK_SO or MK_USER with a PIN. The key is nil where the PIN does not open it,
// or it is damaged.
func OpenMaster(file []byte, pin *secret.Bytes) (*secret.Bytes, error) {
	if len(file) != KeyFileSize {
		return nil, nil
	}
	key := deriveKey(pin, file[lengthSize:lengthSize+saltSize])
	defer secret.Wipe(key)
	m, ok, err := unseal(key, file)
	if !ok || err != nil || len(m) != MasterKeySize {
		secret.Wipe(m)
		return nil, err
	}
	return secret.New(m)
}

// SealPassword is the contents of RACF: the server's password under the master key.
func SealPassword(random io.Reader, master, password *secret.Bytes) (file []byte, err error) {
	if n := password.Len(); n == 0 || n > MaxPassword {
		return nil, errors.New("the password has no length that there is")
	}
	iv := make([]byte, aes.BlockSize)
	if _, err := io.ReadFull(random, iv); err != nil {
		return nil, err
	}
	master.Use(func(m []byte) {
		password.Use(func(p []byte) { file, err = seal(m, iv, p) })
	})
	return file, err
}

// MayBePassword says whether RACF can have so many bytes.
func MayBePassword(size int64) bool {
	return size >= lengthSize+2*aes.BlockSize && size <= lengthSize+aes.BlockSize+MaxPassword+aes.BlockSize && size%aes.BlockSize == lengthSize
}

// OpenPassword opens RACF. The password is nil where the key is another one, or the file
// damaged.
func OpenPassword(file []byte, master *secret.Bytes) (*secret.Bytes, error) {
	var p []byte
	var ok bool
	var err error
	master.Use(func(m []byte) { p, ok, err = unseal(m, file) })
	if !ok || err != nil || len(p) == 0 || len(p) > MaxPassword {
		secret.Wipe(p)
		return nil, err
	}
	return secret.New(p)
}

// The record that follows the token's data in NVTOK.DAT, which is a copy of the configuration:
// where each of its strings begins, with the room for a NUL.
const (
	RecordSize = 20752

	recordConf = 4
	recordURI  = recordConf + maxPath + 1
	recordDN   = recordURI + maxPath + 1
	recordCA   = recordDN + maxDN + 1
	recordCert = recordCA + maxPath + 1
	recordKey  = recordCert + maxPath + 1
	recordMech = 20748
)

// Record is that of a configuration, which stands in a file of that path.
func (c *Config) Record(path string) []byte {
	b := make([]byte, RecordSize)
	binary.NativeEndian.PutUint32(b, 1)
	copy(b[recordConf:recordURI-1], path)
	copy(b[recordURI:recordDN-1], c.URI)
	copy(b[recordDN:recordCA-1], c.BindDN)
	copy(b[recordCA:recordCert-1], c.CACert)
	copy(b[recordCert:recordKey-1], c.Cert)
	copy(b[recordKey:recordMech-1], c.Key)
	if c.Mech == SASL {
		binary.NativeEndian.PutUint32(b[recordMech:], 1)
	}
	return b
}
