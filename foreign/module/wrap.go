package module

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/keywrap"
)

// keySize is that of the AES key under which keys are wrapped.
const keySize = 32

// A wrapper brings keys out of a token that does not show their values. Its own key
// comes into being with the first of them.
type wrapper struct {
	c       calls
	slot    p11.SlotID
	session p11.SessionHandle

	begun bool
	err   error // that of begin
	key   p11.ObjectHandle
	value *secret.Bytes
	can   []p11.MechanismType
}

// begin makes the key: one of our value, or where the token takes none, one of its own.
func (w *wrapper) begin() error {
	if w.begun {
		return w.err
	}
	w.begun = true
	w.err = w.make()
	return w.err
}

func (w *wrapper) make() error {
	has, err := w.c.mechanisms(w.slot)
	if err != nil {
		return fmt.Errorf("the token's mechanisms: %w", err)
	}
	// The paddings of the second are RFC 5649's in some tokens, and others in some.
	for _, m := range []p11.MechanismType{p11.CKM_AES_CBC_PAD, p11.CKM_AES_KEY_WRAP_KWP, p11.CKM_AES_KEY_WRAP_PAD} {
		if slices.Contains(has, m) {
			w.can = append(w.can, m)
		}
	}
	if w.can == nil {
		return errors.New("the token wraps keys with no AES mechanism that p11fs opens")
	}
	value := make([]byte, keySize)
	_, _ = rand.Read(value) // which does not fail
	if w.key, err = w.c.bring(w.session, value); err != nil {
		secret.Wipe(value)
		var second error
		if w.key, second = w.c.generate(w.session, keySize); second != nil {
			return fmt.Errorf("the token makes no key that wraps: %w", errors.Join(err, second))
		}
		if value, err = w.c.get(w.session, w.key, p11.CKA_VALUE, keySize); err != nil {
			return fmt.Errorf("the key that wraps cannot be read: %w", err)
		}
	}
	w.value, err = secret.New(value)
	return err
}

func (w *wrapper) close() {
	if w.key != 0 {
		_ = w.c.destroy(w.session, w.key) // which the end of the session does too
	}
	_ = w.value.Close()
}

// open adds the value of a key.
func (w *wrapper) open(h p11.ObjectHandle, attrs *p11.Attributes) error {
	switch {
	case !attrs.Bool(p11.CKA_EXTRACTABLE):
		return errors.New("it is not extractable")
	case attrs.Bool(p11.CKA_WRAP_WITH_TRUSTED):
		return errors.New("it is extractable under a trusted key only")
	}
	if err := w.begin(); err != nil {
		return err
	}
	class, _ := attrs.Class()
	var failed error
	for _, m := range w.can {
		plain, err := w.wrapped(m, h)
		if err == nil {
			err = fill(attrs, class, plain, w.length(h))
			secret.Wipe(plain)
		}
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", m.Short(), err))
	}
	return fmt.Errorf("it cannot be wrapped: %w", failed)
}

// wrapped wraps a key, and opens what comes.
func (w *wrapper) wrapped(m p11.MechanismType, h p11.ObjectHandle) (plain []byte, err error) {
	var iv []byte
	if m == p11.CKM_AES_CBC_PAD {
		iv = make([]byte, aes.BlockSize)
		_, _ = rand.Read(iv) // which does not fail
	}
	out, err := w.c.wrap(w.session, m, iv, w.key, h, foreign.MaxObject)
	if err != nil {
		return nil, err
	}
	w.value.Use(func(key []byte) {
		var b cipher.Block
		if b, err = aes.NewCipher(key); err != nil {
			return
		}
		if iv == nil {
			plain, err = keywrap.UnwrapPadded(b, keywrap.PaddedIV, out)
			return
		}
		if len(out) == 0 || len(out)%aes.BlockSize != 0 {
			err = keywrap.ErrUnwrap
			return
		}
		cipher.NewCBCDecrypter(b, iv).CryptBlocks(out, out)
		pad := int(out[len(out)-1])
		if pad < 1 || pad > aes.BlockSize || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
			err = keywrap.ErrUnwrap
			return
		}
		plain = out[:len(out)-pad]
	})
	return plain, err
}

// length is that of a secret key, or -1.
func (w *wrapper) length(h p11.ObjectHandle) int {
	v, err := w.c.get(w.session, h, p11.CKA_VALUE_LEN, 8)
	if err == nil {
		v, err = fromNative(p11.CKA_VALUE_LEN, v)
	}
	if n, bad := p11.ToUlong(v); err == nil && bad == nil && n <= foreign.MaxObject {
		return int(n)
	}
	return -1
}

// trim takes off the zeros that some tokens (SoftHSM2) wrap with a key of n bytes, before
// the mechanism's own padding.
func trim(plain []byte, n int) ([]byte, error) {
	if n < 0 || n == len(plain) {
		return plain, nil
	}
	if n > len(plain) || len(plain)-n > 7 || len(bytes.Trim(plain[n:], "\x00")) > 0 {
		return nil, fmt.Errorf("what comes has %d bytes, and not %d", len(plain), n)
	}
	return plain[:n], nil
}

// ecValue is the number that is the private key, in PKCS#8 of one on an elliptic curve
// (RFC 5915 §3).
func ecValue(pkcs8 []byte) ([]byte, bool) {
	var info, sec1, key, value cryptobyte.String
	in := cryptobyte.String(pkcs8)
	ok := in.ReadASN1(&info, asn1.SEQUENCE) && info.SkipASN1(asn1.INTEGER) && info.SkipASN1(asn1.SEQUENCE) && info.ReadASN1(&sec1, asn1.OCTET_STRING) &&
		sec1.ReadASN1(&key, asn1.SEQUENCE) && key.SkipASN1(asn1.INTEGER) && key.ReadASN1(&value, asn1.OCTET_STRING) && len(value) > 0
	return value, ok
}

// fill takes the value out of what was wrapped: the bytes of a secret key, PKCS#8 of a
// private one. A secret key has n bytes, if that is known.
func fill(attrs *p11.Attributes, class p11.ObjectClass, plain []byte, n int) error {
	if class != p11.CKO_SECRET_KEY {
		var whole cryptobyte.String
		n = -1
		if in := cryptobyte.String(plain); in.ReadASN1Element(&whole, asn1.SEQUENCE) {
			n = len(whole)
		}
	}
	plain, err := trim(plain, n)
	if err != nil {
		return err
	}
	if class == p11.CKO_SECRET_KEY {
		attrs.Set(p11.CKA_VALUE, bytes.Clone(plain))
		return nil
	}
	list, err := pkix.Parse(pkix.PKCS8, plain, pkix.Options{})
	if kt, _ := attrs.KeyType(); err != nil && kt == p11.CKK_EC {
		if value, ok := ecValue(plain); ok { // of a curve whose points only a library makes
			attrs.Set(p11.CKA_VALUE, bytes.Clone(value))
			return nil
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		for _, o := range list {
			o.Wipe()
		}
	}()
	for _, o := range list {
		if c, _ := o.Class(); c != class {
			continue
		}
		was, _ := attrs.KeyType()
		if kt, _ := o.KeyType(); kt != was {
			return fmt.Errorf("what comes is a key of type %s, and not %s", kt.Short(), was.Short())
		}
		for _, t := range foreign.Types(class) {
			v, ok := o.Get(t)
			old, _ := attrs.Get(t)
			if ok && len(old) == 0 && t != p11.CKA_ID && t != p11.CKA_LABEL {
				attrs.Set(t, bytes.Clone(v))
			}
		}
		return nil
	}
	return errors.New("what comes holds no private key")
}
