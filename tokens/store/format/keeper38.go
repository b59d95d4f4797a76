package format

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"fmt"
	"io"
	"math/bits"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

const (
	// dataKeyLen is the length of the 3DES keys that everything is encrypted with.
	dataKeyLen = 24
	// keyIV is the CBC initialisation vector of master key files.
	keyIV = "12345678"
)

// NewToken is Keeper.
func (f v38) NewToken(context.Context) (d TokenData, soFile []byte, err error) {
	master, err := f.NewMasterKey()
	if err != nil {
		return d, nil, err
	}
	defer master.Close()
	pin, err := secret.New([]byte(tokens.DefaultSOPIN))
	if err != nil {
		return d, nil, err
	}
	defer pin.Close()
	soFile, err = f.wrap(master, pin)
	return f.newData(), soFile, err
}

// NewMasterKey is Keeper.
func (f v38) NewMasterKey() (*secret.Bytes, error) {
	b := make([]byte, f.kind.MasterKeyLen)
	if _, err := io.ReadFull(f.rand, b[:dataKeyLen]); err != nil {
		secret.Wipe(b)
		return nil, fmt.Errorf("a new master key: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	if f.kind.OddParity {
		for i, c := range b[:dataKeyLen] {
			if bits.OnesCount8(c)%2 == 0 {
				b[i] = c ^ 1
			}
		}
	}
	return secret.New(b)
}

// PINLimits is Keeper.
func (f v38) PINLimits(d TokenData) (shortest, longest int) { return d.pinLimits() }

func isText(pin *secret.Bytes, text string) (is bool) {
	pin.Use(func(b []byte) { is = string(b) == text })
	return is
}

// Open is Keeper.
//
// A PIN whose hash is not the token's but which opens the master key is right
// too: a change of PIN replaces two files, and was cut off between them. The SO's
// default PIN is no such proof, since stock C_InitToken wraps MK_SO under it
// whatever the SO's PIN is: such a file is opened with it, once the PIN is known to
// be right by its hash.
func (f v38) Open(_ context.Context, role p11.UserType, pin *secret.Bytes, k Kept) (o Opened, err error) {
	if o.Key, err = f.unwrap(k.File, pin); err != nil {
		return o, err
	}
	hash := hashOf(pin)
	o.Right = subtle.ConstantTimeCompare([]byte(hash), []byte(k.Record)) == 1
	switch {
	case !o.Right && o.Key != nil && !isText(pin, tokens.DefaultSOPIN):
		o.Right = true
		o.Mended, o.Why = &Kept{Record: hash, File: k.File}, "a change of PIN was cut off"
	case !o.Right:
		_ = o.Key.Close()
		o.Key = nil
	case o.Key == nil && role == p11.CKU_SO:
		if err = f.openDefault(&o, pin, k); err != nil {
			return o, err
		}
	case role == p11.CKU_USER && isZero(o.Key):
		o.Why = "MK_USER holds a key of zeros, as stock C_SetPIN in a public session leaves it: private objects made before cannot be read until the SO sets the user's PIN anew"
	}
	return o, nil
}

// openDefault opens MK_SO with the default PIN, and wraps the key under pin, the
// right one.
func (f v38) openDefault(o *Opened, pin *secret.Bytes, k Kept) error {
	def, err := secret.New([]byte(tokens.DefaultSOPIN))
	if err != nil {
		return err
	}
	defer def.Close()
	if o.Key, err = f.unwrap(k.File, def); o.Key == nil || err != nil {
		return err
	}
	file, err := f.wrap(o.Key, pin)
	if err != nil {
		return err
	}
	o.Mended, o.Why = &Kept{Record: k.Record, File: file}, "MK_SO was under the default PIN"
	return nil
}

// isZero reports whether a master key was never loaded when stock wrapped it: stock's
// C_SetPIN in a public session puts zeros in place of the key.
func isZero(master *secret.Bytes) (zero bool) {
	master.Use(func(b []byte) {
		zero = len(b) > 0 && subtle.ConstantTimeCompare(b, make([]byte, len(b))) == 1
	})
	return zero
}

// Make is Keeper.
func (f v38) Make(_ context.Context, _ p11.UserType, pin, master *secret.Bytes, _ Kept) (Kept, error) {
	file, err := f.wrap(master, pin)
	return Kept{Record: hashOf(pin), File: file}, err
}

func hashOf(pin *secret.Bytes) (r PINRecord) {
	pin.Use(func(b []byte) {
		h := sha1.Sum(b)
		r = PINRecord(h[:])
	})
	return r
}

// pinCipher is the 3DES that wraps a master key: its key is MD5 of the PIN and
// the first 8 bytes of that once more.
func pinCipher(pin *secret.Bytes) (cipher.Block, error) {
	var key [dataKeyLen]byte
	pin.Use(func(b []byte) {
		m := md5.Sum(b)
		copy(key[copy(key[:], m[:]):], m[:8])
		secret.Wipe(m[:])
	})
	defer secret.Wipe(key[:])
	return des.NewTripleDESCipher(key[:])
}

// KeyFileSize is Keeper: the key and its SHA-1, padded to whole blocks.
func (f v38) KeyFileSize() int {
	return (f.kind.MasterKeyLen+sha1.Size)/des.BlockSize*des.BlockSize + des.BlockSize
}

// wrap is the contents of a master key file.
func (f v38) wrap(master, pin *secret.Bytes) ([]byte, error) {
	block, err := pinCipher(pin)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, f.KeyFileSize())
	master.Use(func(key []byte) {
		h := sha1.Sum(key)
		b = append(append(b, key...), h[:]...)
	})
	if len(b) != f.kind.MasterKeyLen+sha1.Size {
		secret.Wipe(b)
		return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "the master key is closed")
	}
	n := f.KeyFileSize() - len(b)
	b = append(b, bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, []byte(keyIV)).CryptBlocks(b, b)
	return b, nil
}

// unwrap opens the contents of a master key file. It returns nil if pin does not
// open them.
func (f v38) unwrap(file []byte, pin *secret.Bytes) (*secret.Bytes, error) {
	if len(file) != f.KeyFileSize() {
		return nil, nil
	}
	block, err := pinCipher(pin)
	if err != nil {
		return nil, err
	}
	b := make([]byte, len(file))
	defer secret.Wipe(b)
	cipher.NewCBCDecrypter(block, []byte(keyIV)).CryptBlocks(b, file)
	key, rest := b[:f.kind.MasterKeyLen], b[f.kind.MasterKeyLen:]
	if h := sha1.Sum(key); subtle.ConstantTimeCompare(h[:], rest[:sha1.Size]) != 1 {
		return nil, nil
	}
	return secret.New(bytes.Clone(key))
}
