package soft

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/card/ep11"
)

// A wrappingKey is what seals the keys of a domain. It has no order of bytes.
type wrappingKey struct{ key []byte }

// derive makes a key for one purpose. salt may be nil.
func (w wrappingKey) derive(purpose string, salt []byte) []byte {
	k, err := hkdf.Key(sha256.New, w.key, salt, "p11fs software card: "+purpose, KeyLen)
	if err != nil {
		panic("soft: " + err.Error()) // the length is right
	}
	return k
}

// pattern is the verification pattern, of which the first bytes are the WKID.
func (w wrappingKey) pattern() []byte { return w.derive("verification pattern", nil) }

func (w wrappingKey) id() []byte { return w.pattern()[:ep11.WKIDLen] }

func (w wrappingKey) wipe() { secret.Wipe(w.key) }

// mac is over a blob or a public key.
func (w wrappingKey) mac(b []byte) []byte {
	k := w.derive("authentication", nil)
	defer secret.Wipe(k)
	m := hmac.New(sha256.New, k)
	m.Write(b)
	return m.Sum(nil)
}

// crypt encrypts or decrypts what is in a blob, in place.
func (w wrappingKey) crypt(iv, b []byte) {
	k := w.derive("encryption", iv)
	defer secret.Wipe(k)
	block, err := aes.NewCipher(k)
	if err != nil {
		panic("soft: " + err.Error()) // the length is right
	}
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(b, b)
}

// A key is an opened blob, or a public key.
type key struct {
	attrs   p11.Attributes // class, type and values
	bits    ep11.Bits
	session [ep11.SessionLen]byte // the login that it is of; zeros are none
	blob    ep11.Blob             // that it came in
}

func (k *key) wipe() { k.attrs.Wipe() }

func (k *key) class() p11.ObjectClass {
	c, _ := k.attrs.Class()
	return c
}

// seal makes the blob of a key.
func (w wrappingKey) seal(k *key, order binary.ByteOrder) ep11.Blob {
	inner := p11.EncodeTemplate(k.attrs)
	defer secret.Wipe(inner)
	b := make([]byte, ep11.BlobSealed, ep11.BlobSealed+len(inner)+ep11.MACLen)
	copy(b, k.session[:])
	copy(b[ep11.BlobWKID:], w.id())
	order.PutUint32(b[ep11.BlobAttributes+4:], uint32(k.bits))
	order.PutUint16(b[ep11.BlobVersion:], ep11.Version)
	iv := b[ep11.BlobIV:ep11.BlobSealed]
	rand.Read(iv)
	b = append(b, inner...)
	w.crypt(iv, b[ep11.BlobSealed:])
	return append(b, w.mac(b)...)
}

// open opens a blob, whichever order its numbers are in. The key is the caller's to wipe.
func (w wrappingKey) open(b ep11.Blob) (*key, error) {
	if len(b) < ep11.BlobSealed+ep11.MACLen || len(b) > ep11.MaxBlob {
		return nil, ep11.BlobError
	}
	order := orderOf(b[ep11.BlobVersion:])
	if order == nil {
		return nil, ep11.BlobError
	}
	if string(b.WKID()) != string(w.id()) {
		return nil, ep11.WKIDMismatch
	}
	end := len(b) - ep11.MACLen
	if !hmac.Equal(w.mac(b[:end]), b[end:]) {
		return nil, ep11.BlobError
	}
	inner := append([]byte{}, b[ep11.BlobSealed:end]...)
	defer secret.Wipe(inner)
	w.crypt(b[ep11.BlobIV:ep11.BlobSealed], inner)
	attrs, err := p11.DecodeTemplate(inner)
	if err != nil {
		return nil, ep11.BlobError
	}
	return &key{attrs: attrs, bits: ep11.Bits(order.Uint32(b[ep11.BlobAttributes+4:])), session: [ep11.SessionLen]byte(b), blob: b}, nil
}

// orderOf tells the order of a blob from its version.
func orderOf(b []byte) binary.ByteOrder {
	for _, o := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
		if o.Uint16(b) == ep11.Version {
			return o
		}
	}
	return nil
}

// What stands behind a public key that the card has made or taken in: OCTET STRINGs of
// these lengths.
const (
	trailSalt  = 8
	trailMode  = 8
	trailAttrs = 4 + 8 // a header with the version, and the bits
)

func octets(b []byte) []byte { return append([]byte{asn1.TagOctetString, byte(len(b))}, b...) }

// sealPublic puts the card's MAC behind a SubjectPublicKeyInfo.
func (w wrappingKey) sealPublic(spki []byte, bits ep11.Bits, session [ep11.SessionLen]byte, order binary.ByteOrder) ep11.Blob {
	salt, attrs := make([]byte, trailSalt), make([]byte, trailAttrs)
	rand.Read(salt)
	if attrs[0] = 0x10; order == binary.LittleEndian {
		attrs[0] = 0x01 // version 1 in the first four bits of the structure
	}
	order.PutUint32(attrs[8:], uint32(bits))
	b := append([]byte{}, spki...)
	for _, part := range [][]byte{w.id(), session[:], salt, make([]byte, trailMode), attrs} {
		b = append(b, octets(part)...)
	}
	return append(b, octets(w.mac(b))...)
}

// allPublic is what a public key without a MAC may do.
const allPublic = ep11.BitVerify | ep11.BitEncrypt | ep11.BitWrap | ep11.BitVerifyRecover | ep11.BitDerive | ep11.BitExtractable

// openPublic reads a public key, and what the card has put behind it.
func (w wrappingKey) openPublic(b ep11.Blob) (*key, error) {
	spki := b.SPKI()
	attrs, err := pkix.PublicAttributes(spki)
	if err != nil {
		return nil, ep11.BlobError
	}
	attrs.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
	k := &key{attrs: attrs, bits: allPublic, blob: b}
	rest := b[len(spki):]
	if len(rest) == 0 {
		return k, nil
	}
	id := b.WKID()
	if id == nil {
		return nil, ep11.BlobError
	}
	if string(id) != string(w.id()) {
		return nil, ep11.WKIDMismatch
	}
	const trail = 2 + ep11.WKIDLen + 2 + ep11.SessionLen + 2 + trailSalt + 2 + trailMode + 2 + trailAttrs + 2 + ep11.MACLen
	end := len(b) - ep11.MACLen
	if len(rest) != trail || !hmac.Equal(w.mac(b[:end-2]), b[end:]) {
		return nil, ep11.BlobError
	}
	field := rest[trail-2-ep11.MACLen-trailAttrs:]
	order := binary.ByteOrder(binary.BigEndian)
	if field[0] == 0x01 {
		order = binary.LittleEndian
	}
	k.bits = ep11.Bits(order.Uint32(field[8:]))
	copy(k.session[:], rest[2+ep11.WKIDLen+2:])
	return k, nil
}
