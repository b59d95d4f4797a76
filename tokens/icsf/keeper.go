package icsf

import (
	"context"
	"crypto/sha1"
	"crypto/subtle"
	"io"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/store/format"
)

// A keeper is format 3.8 of openCryptoki with the icsf token's files of keys, and its record
// behind the token's data. With SASL the PINs open nothing.
type keeper struct {
	format.Format
	sasl   bool
	record []byte
	rand   io.Reader
}

var _ format.Format = keeper{}

func newKeeper(c *icsffile.Config, path string, random io.Reader) keeper {
	kind := format.Kind{
		Name: Kind, Label: c.Name, Manufacturer: c.Manufacturer, Model: c.Model, MasterKeyLen: icsffile.MasterKeySize,
	}
	return keeper{format.V38(kind, random), c.Mech == icsffile.SASL, c.Record(path), random}
}

// size is that of the token's data, without the record.
func (k keeper) size() int { return int(k.Format.FileSize()) }

// FileSize is format.Data.
func (k keeper) FileSize() int64 { return k.Format.FileSize() + int64(len(k.record)) }

// cut returns the token's data in a file, whose record is that of its last configuration.
func (k keeper) cut(file []byte) []byte {
	if len(file) == k.size()+len(k.record) {
		return file[:k.size()]
	}
	return file
}

// Recognize is format.Format.
func (k keeper) Recognize(file []byte) (format.Format, error) {
	f, err := k.Format.Recognize(k.cut(file))
	k.Format = f
	return k, err
}

// ParseFile is format.Data.
func (k keeper) ParseFile(file []byte) (format.TokenData, error) {
	return k.Format.ParseFile(k.cut(file))
}

// PrintFile is format.Data.
func (k keeper) PrintFile(d format.TokenData) []byte {
	return append(k.Format.PrintFile(d), k.record...)
}

// Initialized is format.Data. The master key stays, since the server's password is under it,
// and so does the SO's PIN.
func (k keeper) Initialized(d format.TokenData) (format.TokenData, bool) {
	made, _ := k.Format.Initialized(d)
	return k.WithPIN(made, p11.CKU_SO, k.PIN(d, p11.CKU_SO)), false
}

// NewToken is format.Keeper. The SO's file is there already, from when the server's password
// was stored.
func (k keeper) NewToken(ctx context.Context) (format.TokenData, []byte, error) {
	d, _, err := k.Format.NewToken(ctx)
	return d, nil, err
}

// NewMasterKey is format.Keeper.
func (k keeper) NewMasterKey() (*secret.Bytes, error) {
	return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "the master key stays as it is")
}

// KeyFileSize is format.Keeper.
func (k keeper) KeyFileSize() int {
	if k.sasl {
		return 0
	}
	return icsffile.KeyFileSize
}

func hashOf(pin *secret.Bytes) (r format.PINRecord) {
	pin.Use(func(b []byte) {
		h := sha1.Sum(b)
		r = format.PINRecord(h[:])
	})
	return r
}

// Open is format.Keeper. A PIN that opens the master key is right, also where its hash is not
// yet the token's: a change of it was cut off between two files, or the SO has set it when the
// password was stored.
func (k keeper) Open(_ context.Context, _ p11.UserType, pin *secret.Bytes, kept format.Kept) (o format.Opened, err error) {
	hash := hashOf(pin)
	o.Right = subtle.ConstantTimeCompare([]byte(hash), []byte(kept.Record)) == 1
	if k.sasl {
		if o.Right {
			o.Key, err = secret.New(make([]byte, icsffile.MasterKeySize))
		}
		return o, err
	}
	if o.Key, err = icsffile.OpenMaster(kept.File, pin); err != nil {
		return o, err
	}
	isDefault := false
	pin.Use(func(b []byte) { isDefault = string(b) == tokens.DefaultSOPIN })
	switch {
	case o.Right || o.Key == nil:
	case isDefault: // stock's C_InitToken puts the key under it whatever the PIN is
		_ = o.Key.Close()
		o.Key = nil
	default:
		o.Right = true
		o.Mended, o.Why = &format.Kept{Record: hash, File: kept.File}, "a change of PIN was cut off, or this is the first use of the PIN"
	}
	return o, nil
}

// Make is format.Keeper.
func (k keeper) Make(_ context.Context, _ p11.UserType, pin, master *secret.Bytes, _ format.Kept) (format.Kept, error) {
	made := format.Kept{Record: hashOf(pin)}
	if k.sasl {
		return made, nil
	}
	var err error
	made.File, err = icsffile.SealMaster(k.rand, pin, master)
	return made, err
}
