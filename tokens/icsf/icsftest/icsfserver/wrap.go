package icsfserver

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/icsf/icsfwire"
)

// wrap wraps the key that the request's handle names.
func (c *conn) wrap(r *icsfwire.Request, d *icsfwire.Wrap) ([]byte, error) {
	o, err := c.object(r.Handle)
	if err != nil {
		return nil, err
	}
	name, err := icsfwire.ParseHandle(d.Key)
	if err != nil {
		return nil, err
	}
	with, err := c.key(name, p11.CKA_WRAP)
	if err != nil {
		return nil, err
	}
	if !o.attrs.Bool(p11.CKA_EXTRACTABLE) {
		return nil, refused(unextractable)
	}
	value, err := o.wrappable()
	if err != nil {
		return nil, err
	}
	if len(r.Rules) == 1 && r.Rules[0] == "PKCS-1.2" {
		k, err := with.rsaPublic()
		if err != nil {
			return nil, err
		}
		out, err := rsa.EncryptPKCS1v15(rand.Reader, k, value) //nolint:staticcheck // what ICSF does
		if err != nil {
			return nil, refused(unwrappable)
		}
		return out, nil
	}
	b, err := with.wrapping(r.Rules)
	if err != nil {
		return nil, err
	}
	out := pad(slices.Clone(value), b.BlockSize())
	cipher.NewCBCEncrypter(b, make([]byte, b.BlockSize())).CryptBlocks(out, out)
	return out, nil
}

// wrapping is the cipher of a key that wraps as PKCS-8 and the second rule say. Its vector is
// zeros: clients send none.
func (o *object) wrapping(rules []string) (cipher.Block, error) {
	if len(rules) != 2 || rules[0] != "PKCS-8" {
		return nil, refused(badValue)
	}
	return o.block(rules[1])
}

// wrappable is the value of a secret key, or a private key as PKCS #8.
func (o *object) wrappable() ([]byte, error) {
	switch class, _ := o.attrs.Class(); class {
	case p11.CKO_SECRET_KEY:
		value, _ := o.attrs.Get(p11.CKA_VALUE)
		return value, nil
	case p11.CKO_PRIVATE_KEY:
		if der, err := pkix.EncodePrivateKey(o.attrs); err == nil {
			return der, nil
		}
	}
	return nil, refused(unwrappable)
}

// unwrap makes a key of what is wrapped under the key that the request's handle names.
func (c *conn) unwrap(r *icsfwire.Request, d *icsfwire.Unwrap) (icsfwire.Handle, error) {
	with, err := c.key(r.Handle, p11.CKA_UNWRAP)
	if err != nil {
		return "", err
	}
	var value []byte
	if len(r.Rules) == 1 && r.Rules[0] == "PKCS-1.2" {
		k, err := with.rsaPrivate()
		if err != nil {
			return "", err
		}
		if value, err = rsa.DecryptPKCS1v15(nil, k, d.Wrapped); err != nil { //nolint:staticcheck // what ICSF does
			return "", refused(badWrapped)
		}
	} else {
		b, err := with.wrapping(r.Rules)
		if err != nil {
			return "", err
		}
		if len(d.Wrapped)%b.BlockSize() != 0 {
			return "", refused(badWrapped)
		}
		value = slices.Clone(d.Wrapped)
		cipher.NewCBCDecrypter(b, make([]byte, b.BlockSize())).CryptBlocks(value, value)
		if value, err = unpad(value, b.BlockSize(), badWrapped); err != nil {
			return "", err
		}
	}
	a := d.Attributes
	if class, _ := a.Class(); class == p11.CKO_SECRET_KEY {
		a.Set(p11.CKA_VALUE, value)
		return c.add(r.Handle, a, false)
	}
	private, err := pkix.DecodePrivateKey(value)
	if err != nil {
		return "", refused(badWrapped)
	}
	return c.add(r.Handle, a.Merge(private), false)
}

// sslBytes are n bytes of SSL 3's derivation (RFC 6101 §6.1 and §6.2.2) from a secret.
func sslBytes(secret []byte, n int, seed ...[]byte) (out []byte) {
	for i := 1; len(out) < n; i++ {
		in := slices.Concat([]byte(strings.Repeat(string(rune('A'+i-1)), i)), secret, slices.Concat(seed...))
		inner := sha1.Sum(in)
		outer := md5.Sum(slices.Concat(secret, inner[:]))
		out = append(out, outer[:]...)
	}
	return out[:n]
}

// tlsBytes are those of TLS 1.0 for the keys of a connection (RFC 2246 §5 and §6.3).
func tlsBytes(secret []byte, n int, seed ...[]byte) []byte {
	label := slices.Concat([]byte("key expansion"), slices.Concat(seed...))
	half := (len(secret) + 1) / 2
	expand := func(h func(b ...[]byte) []byte) (out []byte) {
		for a := h(label); len(out) < n; a = h(a) {
			out = append(out, h(a, label)...)
		}
		return out[:n]
	}
	out := expand(func(b ...[]byte) []byte {
		m := hmac.New(md5.New, secret[:half])
		m.Write(slices.Concat(b...))
		return m.Sum(nil)
	})
	for i, x := range expand(func(b ...[]byte) []byte {
		m := hmac.New(sha1.New, secret[len(secret)-half:])
		m.Write(slices.Concat(b...))
		return m.Sum(nil)
	}) {
		out[i] ^= x
	}
	return out
}

// master makes the master secret of SSL 3 from a pre-master secret, whose version it tells.
func (c *conn) master(h icsfwire.Handle, d *icsfwire.Master) (icsfwire.Handle, icsfwire.Data, error) {
	o, err := c.key(h, p11.CKA_DERIVE)
	if err != nil {
		return h, &icsfwire.Derived{Version: []byte{}}, err
	}
	value, _ := o.attrs.Get(p11.CKA_VALUE)
	if len(value) != preMasterSize {
		return h, &icsfwire.Derived{Version: []byte{}}, refused(wrongType)
	}
	a := d.Attributes
	a.Set(p11.CKA_VALUE, sslBytes(value, preMasterSize, d.Client, d.Server))
	made, err := c.add(h, a, false)
	return made, &icsfwire.Derived{Version: value[:2]}, err
}

// maxBits bounds each length of key material.
const maxBits = 2048

// keyMaterial makes the keys of a connection.
func (c *conn) keyMaterial(h icsfwire.Handle, rules []string, d *icsfwire.KeyMaterial) (icsfwire.Data, error) {
	none := &icsfwire.DerivedKeys{}
	o, err := c.key(h, p11.CKA_DERIVE)
	if err != nil {
		return none, err
	}
	value, _ := o.attrs.Get(p11.CKA_VALUE)
	for _, n := range []int{d.MACBits, d.KeyBits, d.IVBits} {
		if n < 0 || n > maxBits || n%8 != 0 {
			return none, refused(badValue)
		}
	}
	mac, key, iv := d.MACBits/8, d.KeyBits/8, d.IVBits/8
	derive := sslBytes
	if slices.Contains(rules, "TLS-KM") {
		derive = tlsBytes
	}
	if len(value) != preMasterSize {
		return none, refused(wrongType)
	}
	block := derive(value, 2*(mac+key+iv), d.Server, d.Client)
	take := func(n int) (b []byte) {
		b, block = block[:n], block[n:]
		return b
	}
	out := &icsfwire.DerivedKeys{}
	for _, part := range []struct {
		to  *[]byte
		n   int
		mac bool
	}{{&out.ClientMAC, mac, true}, {&out.ServerMAC, mac, true}, {&out.ClientKey, key, false}, {&out.ServerKey, key, false}} {
		if part.n == 0 {
			*part.to = icsfwire.Handle("").Print()
			continue
		}
		a := d.Attributes.Clone()
		if part.mac {
			a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_GENERIC_SECRET))
			for _, use := range []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP} {
				a.Delete(use)
			}
			a.SetBool(p11.CKA_SIGN, true)
			a.SetBool(p11.CKA_VERIFY, true)
		}
		a.Set(p11.CKA_VALUE, slices.Clone(take(part.n)))
		made, err := c.add(h, a, false)
		if err != nil {
			return none, err
		}
		*part.to = made.Print()
	}
	out.ClientIV, out.ServerIV = take(iv), take(iv)
	return out, nil
}
