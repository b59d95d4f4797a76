package ep11

import (
	"encoding/asn1"
	"encoding/binary"

	"p11fs/p11"
)

// Where the fields of a key's blob are, whose numbers are in the program's byte order. All
// but these is the card's.
const (
	BlobSession    = 0  // 32 bytes: the login session that the key is of, or zeros
	BlobWKID       = 32 // 16 bytes: of the wrapping key
	BlobAttributes = 48 // 8 bytes: Bits
	BlobMode       = 56 // 8 bytes
	BlobVersion    = 64 // 2 bytes: Version
	BlobIV         = 66 // 14 bytes
	BlobSealed     = 80 // what is encrypted, and a MAC of MACLen bytes
	MACLen         = 32
	WKIDLen        = 16
	SessionLen     = 32

	Version = 0x1234 // of blobs
	// MaxBlob is how long a blob is at most, in bytes.
	MaxBlob = 16384
)

// TransportKey makes, by UnwrapKey, a public key with the card's MAC of one that has none
// (CKM_IBM_TRANSPORTKEY).
const TransportKey p11.MechanismType = 0x80020005

// A Blob is a key as a card gives it out, or the SubjectPublicKeyInfo of a public key.
type Blob []byte

// IsSPKI tells a public key from a blob, which never begins so.
func (b Blob) IsSPKI() bool { return len(b) > 0 && b[0] == 0x30 }

// WKID is the identifier of the wrapping key, nil where there is none: in a blob, or behind
// a public key that the card has a MAC on.
func (b Blob) WKID() []byte {
	if !b.IsSPKI() {
		if len(b) < BlobSealed+MACLen {
			return nil
		}
		return b[BlobWKID : BlobWKID+WKIDLen]
	}
	var spki asn1.RawValue
	rest, err := asn1.Unmarshal(b, &spki)
	if err != nil || len(rest) < 2+WKIDLen || rest[0] != asn1.TagOctetString || rest[1] != WKIDLen {
		return nil
	}
	return rest[2 : 2+WKIDLen]
}

// SPKI is the SubjectPublicKeyInfo without what a card puts behind it, nil for what is no
// public key.
func (b Blob) SPKI() []byte {
	var spki asn1.RawValue
	if _, err := asn1.Unmarshal(b, &spki); err != nil || !b.IsSPKI() {
		return nil
	}
	return spki.FullBytes
}

// Session is the identifier of the login session that a key is of, nil for none.
func (b Blob) Session() []byte {
	id := []byte(b)
	if b.WKID() == nil {
		return nil
	}
	if b.IsSPKI() { // it stands behind the WKID, likewise
		const behind = 2 + WKIDLen
		rest := b[len(b.SPKI()):]
		if len(rest) < behind+2+SessionLen || rest[behind] != asn1.TagOctetString || rest[behind+1] != SessionLen {
			return nil
		}
		id = rest[behind+2:]
	}
	if [SessionLen]byte(id) == [SessionLen]byte{} {
		return nil
	}
	return id[:SessionLen]
}

// Bits are the boolean attributes of a key.
type Bits uint32

// The bits.
const (
	BitExtractable Bits = 1 << iota
	BitNeverExtractable
	BitModifiable
	BitNeverModifiable
	BitRestrictable
	BitLocal
	BitAttributeBound
	BitUseAsData
	BitSign
	BitSignRecover
	BitDecrypt
	BitEncrypt
	BitDerive
	BitUnwrap
	BitWrap
	BitVerify
	BitVerifyRecover
	BitTrusted
	BitWrapWithTrusted
	BitRetained
	BitAlwaysRetained
	BitProtectedKeyExtractable
	BitProtectedKeyNeverExtractable
)

// BitOf is the bit of an attribute, 0 for one that has none.
func BitOf(t p11.AttributeType) Bits {
	switch t {
	case p11.CKA_EXTRACTABLE:
		return BitExtractable
	case p11.CKA_NEVER_EXTRACTABLE:
		return BitNeverExtractable
	case p11.CKA_MODIFIABLE:
		return BitModifiable
	case p11.CKA_IBM_NEVER_MODIFIABLE:
		return BitNeverModifiable
	case p11.CKA_IBM_RESTRICTABLE:
		return BitRestrictable
	case p11.CKA_LOCAL:
		return BitLocal
	case p11.CKA_IBM_ATTRBOUND:
		return BitAttributeBound
	case p11.CKA_IBM_USE_AS_DATA:
		return BitUseAsData
	case p11.CKA_SIGN:
		return BitSign
	case p11.CKA_SIGN_RECOVER:
		return BitSignRecover
	case p11.CKA_DECRYPT:
		return BitDecrypt
	case p11.CKA_ENCRYPT:
		return BitEncrypt
	case p11.CKA_DERIVE:
		return BitDerive
	case p11.CKA_UNWRAP:
		return BitUnwrap
	case p11.CKA_WRAP:
		return BitWrap
	case p11.CKA_VERIFY:
		return BitVerify
	case p11.CKA_VERIFY_RECOVER:
		return BitVerifyRecover
	case p11.CKA_TRUSTED:
		return BitTrusted
	case p11.CKA_WRAP_WITH_TRUSTED:
		return BitWrapWithTrusted
	case p11.CKA_IBM_RETAINKEY:
		return BitRetained
	case p11.CKA_IBM_PROTKEY_EXTRACTABLE:
		return BitProtectedKeyExtractable
	case p11.CKA_IBM_PROTKEY_NEVER_EXTRACTABLE:
		return BitProtectedKeyNeverExtractable
	}
	return 0
}

// BitsOf reads the bits of a blob that has numbers in that order.
func (b Blob) BitsOf(order binary.ByteOrder) Bits {
	if b.IsSPKI() || len(b) < BlobSealed+MACLen {
		return 0
	}
	return Bits(order.Uint32(b[BlobAttributes+4:]))
}
