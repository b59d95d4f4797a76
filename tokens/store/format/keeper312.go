package format

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/keywrap"
)

const (
	// masterKeySize312 is the length of the master key, for AES-256.
	masterKeySize312 = 32
	// maxIterations bounds what a file may ask for: a second or two, in which a login cannot
	// be interrupted. Nobody's files say more than Iterations.
	maxIterations = 1_000_000
	purposeSize   = 32
)

// Iterations is what OWASP recommends for PBKDF2 with HMAC-SHA-512. Stock makes 100,000
// and takes any number. Argon2id would serve better, and no stock program could read it.
const Iterations = 210_000

// A derivation is what a key is derived with from a PIN.
type derivation struct {
	iterations uint64
	salt       string
}

// newDerivation makes a salt, which begins with what it is for, as stock has it.
func (f v312) newDerivation(role p11.UserType, purpose string) (d derivation, err error) {
	who := "user"
	if role == p11.CKU_SO {
		who = "so"
	}
	purpose = who + "_" + purpose + "_purpose"
	salt := make([]byte, saltSize)
	copy(salt, purpose+strings.Repeat("_", purposeSize-len(purpose)))
	if _, err = io.ReadFull(f.rand, salt[purposeSize:]); err != nil {
		return d, fmt.Errorf("a new salt: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	return derivation{f.iterations, string(salt)}, nil
}

// key derives the key, which the caller closes.
func (d derivation) key(pin *secret.Bytes) (k *secret.Bytes, err error) {
	if d.iterations == 0 || d.iterations > maxIterations {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "a key is derived from a PIN with 1 to %d iterations, not %d", maxIterations, d.iterations)
	}
	var b []byte
	pin.Use(func(p []byte) {
		b, err = pbkdf2.Key(sha512.New, string(p), []byte(d.salt), int(d.iterations), pinKeySize)
	})
	if err != nil {
		return nil, fmt.Errorf("PBKDF2: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	return secret.New(b)
}

func (d derivation) print() string {
	return string(binary.LittleEndian.AppendUint64(nil, d.iterations)) + d.salt
}

func parseDerivation(s PINRecord) derivation {
	return derivation{binary.LittleEndian.Uint64([]byte(s[:8])), string(s[8 : 8+saltSize])}
}

// parseRecord312 takes a record apart. One of another length is that of no PIN.
func parseRecord312(r PINRecord) (login derivation, key string, wrap derivation) {
	if len(r) != loginSize+wrapSize {
		return login, "", wrap
	}
	return parseDerivation(r), string(r[8+saltSize : loginSize]), parseDerivation(r[loginSize:])
}

// isSet reports whether there is anything to derive with.
func (d derivation) isSet() bool { return d.iterations != 0 }

// NewToken is Keeper. The user has a record, and no PIN.
func (f v312) NewToken(ctx context.Context) (d TokenData, soFile []byte, err error) {
	master, err := f.NewMasterKey()
	if err != nil {
		return d, nil, err
	}
	defer master.Close()
	d = f.newData()
	for role, text := range map[p11.UserType]string{p11.CKU_SO: tokens.DefaultSOPIN, p11.CKU_USER: defaultUserPIN} {
		pin, err := secret.New([]byte(text))
		if err != nil {
			return d, nil, err
		}
		k, err := f.Make(ctx, role, pin, master, Kept{})
		_ = pin.Close()
		if err != nil {
			return d, nil, err
		}
		if d = f.WithPIN(d, role, k.Record); role == p11.CKU_SO {
			soFile = k.File
		}
	}
	return d, soFile, nil
}

// defaultUserPIN is what stock makes a new token's record of, and lets nobody log in
// with.
const defaultUserPIN = "12345678"

// NewMasterKey is Keeper.
func (f v312) NewMasterKey() (*secret.Bytes, error) {
	b := make([]byte, masterKeySize312)
	if _, err := io.ReadFull(f.rand, b); err != nil {
		secret.Wipe(b)
		return nil, fmt.Errorf("a new master key: %w (%w)", p11.CKR_FUNCTION_FAILED, err)
	}
	return secret.New(b)
}

// KeyFileSize is Keeper.
func (f v312) KeyFileSize() int { return wrappedKeySize }

// PINLimits is Keeper.
func (f v312) PINLimits(d TokenData) (shortest, longest int) { return d.pinLimits() }

// Open is Keeper. A PIN that opens the master key is right, whatever the record says:
// a change of PIN was cut off between the two files.
func (f v312) Open(_ context.Context, role p11.UserType, pin *secret.Bytes, k Kept) (o Opened, err error) {
	login, key, wrap := parseRecord312(k.Record)
	if !login.isSet() || !wrap.isSet() {
		return o, nil
	}
	// Both take their time, whether the PIN is right or wrong.
	var wrapErr error
	var wg sync.WaitGroup
	wg.Go(func() { o.Key, wrapErr = unwrap312(k.File, pin, wrap) })
	loginKey, err := login.key(pin)
	wg.Wait()
	if err == nil {
		err = wrapErr
	}
	if err != nil {
		_ = loginKey.Close()
		return o, err
	}
	defer loginKey.Close()
	loginKey.Use(func(b []byte) { o.Right = subtle.ConstantTimeCompare(b, []byte(key)) == 1 })
	if o.Right || o.Key == nil {
		return o, nil
	}
	record, err := f.record(role, pin, wrap)
	if err != nil {
		return o, err
	}
	o.Right = true
	o.Mended, o.Why = &Kept{Record: record, File: k.File}, "a change of PIN was cut off"
	return o, nil
}

// record makes the record of a PIN whose key file is wrapped by wrap.
func (f v312) record(role p11.UserType, pin *secret.Bytes, wrap derivation) (r PINRecord, err error) {
	login, err := f.newDerivation(role, "login")
	if err != nil {
		return "", err
	}
	key, err := login.key(pin)
	if err != nil {
		return "", err
	}
	defer key.Close()
	key.Use(func(b []byte) { r = PINRecord(login.print() + string(b) + wrap.print()) })
	return r, nil
}

// Make is Keeper. The salt of the key file stays as it is: it is in NVTOK.DAT, and where
// a change is cut off after the key file, the new PIN must still open that.
func (f v312) Make(_ context.Context, role p11.UserType, pin, master *secret.Bytes, old Kept) (k Kept, err error) {
	_, _, wrap := parseRecord312(old.Record)
	if !wrap.isSet() {
		if wrap, err = f.newDerivation(role, "wrap"); err != nil {
			return k, err
		}
	}
	var fileErr error
	var wg sync.WaitGroup
	wg.Go(func() { k.File, fileErr = wrap312(master, pin, wrap) })
	k.Record, err = f.record(role, pin, wrap)
	wg.Wait()
	if err == nil {
		err = fileErr
	}
	return k, err
}

// wrap312 is the contents of a master key file.
func wrap312(master, pin *secret.Bytes, d derivation) (file []byte, err error) {
	kek, err := d.cipher(pin)
	if err != nil {
		return nil, err
	}
	err = p11.Errorf(p11.CKR_GENERAL_ERROR, "the master key is closed")
	master.Use(func(key []byte) { file, err = keywrap.Wrap(kek, keywrap.IV, key) })
	return file, err
}

// unwrap312 opens the contents of a master key file. It returns nil if the PIN does not
// open them.
func unwrap312(file []byte, pin *secret.Bytes, d derivation) (*secret.Bytes, error) {
	kek, err := d.cipher(pin)
	if err != nil || len(file) != wrappedKeySize {
		return nil, err
	}
	key, err := keywrap.Unwrap(kek, keywrap.IV, file)
	if err != nil {
		return nil, nil
	}
	return secret.New(key)
}

// cipher is the AES that wraps a master key.
func (d derivation) cipher(pin *secret.Bytes) (cipher.Block, error) {
	kek, err := d.key(pin)
	if err != nil {
		return nil, err
	}
	defer kek.Close()
	return cipherOf(kek)
}

func cipherOf(key *secret.Bytes) (block cipher.Block, err error) {
	err = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the master key is closed")
	key.Use(func(b []byte) { block, err = aes.NewCipher(b) })
	return block, err
}

const wrappedKeySize = masterKeySize312 + 8
