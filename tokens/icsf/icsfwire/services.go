package icsfwire

import (
	"slices"

	"p11fs/p11"
)

// The tags of fields.
const (
	listTag = tagSequence
	ctx0    = contextual
	ctx1    = contextual | 1
	ctx2    = contextual | 2
	ctx3    = contextual | 3
	ctx4    = contextual | 4
	group0  = contextual | constructed
	group1  = contextual | constructed | 1
)

// TokenRecordSize is the length of one record of TokenList.
const TokenRecordSize = 116

// ChainSize is the length of chain data, which a client sends back as it came.
const ChainSize = 128

// ListTokens asks for the tokens after the one that the handle names (TRL, rule TOKEN).
type ListTokens struct{ Room, Max int }

// ListObjects asks for the objects of a token that match, or for those after the one that the
// handle names (TRL, rule OBJECT).
type ListObjects struct {
	Room, Max int
	Template  p11.Attributes
}

// TokenList is its answer: records of TokenRecordSize, and their length.
type TokenList struct {
	Records []byte
	Length  int
}

// ObjectList is its answer: handles of HandleSize, and their length.
type ObjectList struct {
	Handles []byte
	Length  int
}

// CreateToken makes a token (TRC, rule TOKEN): manufacturer 32, model 16, serial number 16,
// four zeros.
type CreateToken struct{ Record []byte }

// CreateObject makes an object of the token that the handle names, or with rule COPY a copy of
// the object that it names (TRC, rule OBJECT).
type CreateObject struct{ Attributes p11.Attributes }

// Destroy destroys a token or an object (TRD, rules TOKEN and OBJECT).
type Destroy struct{}

// GetAttributes asks for all attributes of an object (GAV), in a buffer of a size.
type GetAttributes struct{ Room int }

// AttributeList is its answer: the attributes, and their size.
type AttributeList struct {
	Attributes p11.Attributes
	Size       int
}

// SetAttributes sets attributes of an object (SAV).
type SetAttributes struct{ Attributes p11.Attributes }

// GenerateKey makes a secret key (GSK); Parameters is a version of SSL or TLS, for a
// pre-master secret.
type GenerateKey struct {
	Attributes p11.Attributes
	Parameters []byte
}

// GeneratePair makes a pair of keys (GKP).
type GeneratePair struct{ Public, Private p11.Attributes }

// PrivateHandle is its answer, in a response with the handle of the public key.
type PrivateHandle struct{ Handle []byte }

// Encrypt encrypts (SKE; rules: cipher, mode, ONLY or INITIAL, CONTINUE, FINAL).
type Encrypt struct {
	IV, Chain, Text []byte
	Room            int
}

// Decrypt decrypts (SKD), likewise.
type Decrypt struct {
	IV, Chain, Text []byte
	Room            int
}

// Encrypted is Encrypt's answer. Length is that of the text, also where there was no room.
type Encrypted struct {
	Chain, Text []byte
	Length      int
}

// Decrypted is Decrypt's.
type Decrypted struct {
	Chain, Text []byte
	Length      int
}

// PrivateUse signs, or decrypts with rule DECRYPT (PKS).
type PrivateUse struct {
	Input []byte
	Room  int
}

// PrivateResult is its answer.
type PrivateResult struct {
	Output []byte
	Length int
}

// PublicEncrypt encrypts (PKV with rule ENCRYPT).
type PublicEncrypt struct {
	Clear []byte
	Room  int
}

// PublicVerify verifies (PKV).
type PublicVerify struct{ Signature, Data []byte }

// PublicResult is PublicEncrypt's answer.
type PublicResult struct {
	Output []byte
	Length int
}

// MAC computes an HMAC (HMG; rules: hash, ONLY or FIRST, MIDDLE, LAST).
type MAC struct {
	Text, Chain []byte
	Room        int
}

// MACResult is its answer.
type MACResult struct {
	Chain, MAC []byte
	Length     int
}

// VerifyMAC checks an HMAC (HMV), likewise.
type VerifyMAC struct{ Text, Chain, MAC []byte }

// VerifyMACResult is its answer.
type VerifyMACResult struct{ Chain []byte }

// Hash hashes and signs or verifies (OWH; rules: hash, SIGN-x or VER-x, ONLY or FIRST, MIDDLE,
// LAST). Signature is as long as the room for one that is made.
type Hash struct{ Text, Chain, Signature []byte }

// HashResult is its answer.
type HashResult struct {
	Chain, Signature []byte
	Length           int
}

// Wrap wraps the key that the handle names (WPK; rules: PKCS-1.2, or PKCS-8 and the cipher).
type Wrap struct {
	Key  []byte // the handle of the wrapping key
	Room int
	IV   []byte // which stock leaves empty
}

// Wrapped is its answer.
type Wrapped struct {
	Key    []byte
	Length int
}

// Unwrap unwraps with the key that the handle names (UWK).
type Unwrap struct {
	Wrapped, IV []byte
	Attributes  p11.Attributes
}

// Agree derives a key by Diffie-Hellman from the key that the handle names (DVK, rule
// PKCS-DH).
type Agree struct {
	Attributes p11.Attributes
	Public     []byte
}

// Master derives a master secret of SSL 3 (DVK, rule SSL-MS).
type Master struct {
	Attributes     p11.Attributes
	Client, Server []byte // random values
}

// Derived is the answer to both. Version is that of Master, in the first two bytes.
type Derived struct{ Version, Other []byte }

// KeyMaterial derives the keys of a connection of SSL or TLS (DMK, rules SSL-KM and TLS-KM).
// The lengths are in bits.
type KeyMaterial struct {
	Attributes               p11.Attributes
	Export                   bool
	MACBits, KeyBits, IVBits int
	Client, Server           []byte
}

// DerivedKeys is its answer: handles and initialisation vectors.
type DerivedKeys struct{ ClientMAC, ServerMAC, ClientKey, ServerKey, ClientIV, ServerIV []byte }

func (*ListTokens) service() Service      { return TRL }
func (*ListObjects) service() Service     { return TRL }
func (*TokenList) service() Service       { return TRL }
func (*ObjectList) service() Service      { return TRL }
func (*CreateToken) service() Service     { return TRC }
func (*CreateObject) service() Service    { return TRC }
func (*Destroy) service() Service         { return TRD }
func (*GetAttributes) service() Service   { return GAV }
func (*AttributeList) service() Service   { return GAV }
func (*SetAttributes) service() Service   { return SAV }
func (*GenerateKey) service() Service     { return GSK }
func (*GeneratePair) service() Service    { return GKP }
func (*PrivateHandle) service() Service   { return GKP }
func (*Encrypt) service() Service         { return SKE }
func (*Decrypt) service() Service         { return SKD }
func (*Encrypted) service() Service       { return SKE }
func (*Decrypted) service() Service       { return SKD }
func (*PrivateUse) service() Service      { return PKS }
func (*PrivateResult) service() Service   { return PKS }
func (*PublicEncrypt) service() Service   { return PKV }
func (*PublicVerify) service() Service    { return PKV }
func (*PublicResult) service() Service    { return PKV }
func (*MAC) service() Service             { return HMG }
func (*MACResult) service() Service       { return HMG }
func (*VerifyMAC) service() Service       { return HMV }
func (*VerifyMACResult) service() Service { return HMV }
func (*Hash) service() Service            { return OWH }
func (*HashResult) service() Service      { return OWH }
func (*Wrap) service() Service            { return WPK }
func (*Wrapped) service() Service         { return WPK }
func (*Unwrap) service() Service          { return UWK }
func (*Agree) service() Service           { return DVK }
func (*Master) service() Service          { return DVK }
func (*Derived) service() Service         { return DVK }
func (*KeyMaterial) service() Service     { return DMK }
func (*DerivedKeys) service() Service     { return DMK }

func (d *ListTokens) layout() []field {
	return []field{number(tagInteger, &d.Room), number(tagInteger, &d.Max)}
}

func (d *ListObjects) layout() []field {
	template := attributes(group0, &d.Template)
	template.optional = true
	return []field{number(tagInteger, &d.Room), number(tagInteger, &d.Max), template}
}

func (d *TokenList) layout() []field {
	return []field{octets(ctx0, &d.Records), number(tagInteger, &d.Length)}
}

func (d *ObjectList) layout() []field {
	return []field{octets(ctx1, &d.Handles), number(tagInteger, &d.Length)}
}

func (d *CreateToken) layout() []field  { return []field{octets(ctx0, &d.Record)} }
func (d *CreateObject) layout() []field { return []field{attributes(group1, &d.Attributes)} }
func (*Destroy) layout() []field        { return nil }
func (d *GetAttributes) layout() []field {
	return []field{number(tagInteger, &d.Room)}
}

func (d *AttributeList) layout() []field {
	return []field{attributes(listTag, &d.Attributes), number(tagInteger, &d.Size)}
}

func (d *SetAttributes) layout() []field {
	return []field{{attributes: &d.Attributes, whole: true}}
}

func (d *GenerateKey) layout() []field {
	return []field{attributes(listTag, &d.Attributes), octets(tagOctets, &d.Parameters)}
}

func (d *GeneratePair) layout() []field {
	return []field{attributes(listTag, &d.Public), attributes(listTag, &d.Private)}
}

func (d *PrivateHandle) layout() []field { return []field{{octets: &d.Handle, whole: true}} }

func (d *Encrypt) layout() []field {
	return []field{octets(ctx0, &d.IV), octets(tagOctets, &d.Chain), octets(tagOctets, &d.Text), number(tagInteger, &d.Room)}
}

func (d *Decrypt) layout() []field {
	return []field{octets(ctx0, &d.IV), octets(ctx2, &d.Chain), octets(ctx3, &d.Text), number(ctx4, &d.Room)}
}

func (d *Encrypted) layout() []field     { return chained(&d.Chain, &d.Text, &d.Length) }
func (d *Decrypted) layout() []field     { return chained(&d.Chain, &d.Text, &d.Length) }
func (d *MACResult) layout() []field     { return chained(&d.Chain, &d.MAC, &d.Length) }
func (d *HashResult) layout() []field    { return chained(&d.Chain, &d.Signature, &d.Length) }
func (d *PrivateUse) layout() []field    { return measured(&d.Input, &d.Room) }
func (d *PrivateResult) layout() []field { return measured(&d.Output, &d.Length) }
func (d *PublicResult) layout() []field  { return measured(&d.Output, &d.Length) }
func (d *Wrapped) layout() []field       { return measured(&d.Key, &d.Length) }

func chained(chain, out *[]byte, length *int) []field {
	return append([]field{octets(tagOctets, chain)}, measured(out, length)...)
}

func measured(b *[]byte, n *int) []field {
	return []field{octets(tagOctets, b), number(tagInteger, n)}
}

func (d *PublicEncrypt) layout() []field {
	return []field{octets(tagOctets, &d.Clear), number(ctx0, &d.Room)}
}

func (d *PublicVerify) layout() []field {
	return []field{octets(tagOctets, &d.Signature), octets(ctx1, &d.Data)}
}

func (d *MAC) layout() []field { return chained(&d.Text, &d.Chain, &d.Room) }

func (d *VerifyMAC) layout() []field { return three(&d.Text, &d.Chain, &d.MAC) }
func (d *Hash) layout() []field      { return three(&d.Text, &d.Chain, &d.Signature) }

func three(a, b, c *[]byte) []field {
	return []field{octets(tagOctets, a), octets(tagOctets, b), octets(tagOctets, c)}
}

func (d *VerifyMACResult) layout() []field { return []field{{octets: &d.Chain, whole: true}} }

func (d *Wrap) layout() []field {
	return []field{octets(tagOctets, &d.Key), number(tagInteger, &d.Room), octets(tagOctets, &d.IV)}
}

func (d *Unwrap) layout() []field {
	return []field{octets(tagOctets, &d.Wrapped), octets(tagOctets, &d.IV), attributes(listTag, &d.Attributes)}
}

func (d *Agree) layout() []field {
	return []field{attributes(listTag, &d.Attributes), octets(ctx0, &d.Public)}
}

func (d *Master) layout() []field {
	return []field{attributes(listTag, &d.Attributes), {tag: group1, group: []field{octets(tagOctets, &d.Client), octets(tagOctets, &d.Server)}}}
}

func (d *Derived) layout() []field {
	version, other := octets(ctx1, &d.Version), octets(ctx0, &d.Other)
	version.optional, other.optional = true, true
	return []field{version, other}
}

func (d *KeyMaterial) layout() []field {
	return []field{attributes(listTag, &d.Attributes), {tag: group0, group: []field{
		{tag: tagBoolean, truth: &d.Export},
		number(tagInteger, &d.MACBits), number(tagInteger, &d.KeyBits), number(tagInteger, &d.IVBits),
		octets(tagOctets, &d.Client), octets(tagOctets, &d.Server),
	}}}
}

func (d *DerivedKeys) layout() []field {
	return []field{{tag: group0, group: append(three(&d.ClientMAC, &d.ServerMAC, &d.ClientKey), three(&d.ServerKey, &d.ClientIV, &d.ServerIV)...)}}
}

// newRequest is where the data of a request is read into: those of one service differ by the
// rules.
func newRequest(s Service, rules []string) (Data, error) {
	has := func(rule string) bool { return slices.Contains(rules, rule) }
	choose := func(first bool, a, b Data) Data {
		if first {
			return a
		}
		return b
	}
	switch s {
	case DMK:
		return &KeyMaterial{}, nil
	case DVK:
		return choose(has("SSL-MS"), &Master{}, &Agree{}), nil
	case GAV:
		return &GetAttributes{}, nil
	case GKP:
		return &GeneratePair{}, nil
	case GSK:
		return &GenerateKey{}, nil
	case HMG:
		return &MAC{}, nil
	case HMV:
		return &VerifyMAC{}, nil
	case OWH:
		return &Hash{}, nil
	case PKS:
		return &PrivateUse{}, nil
	case PKV:
		return choose(has("ENCRYPT"), &PublicEncrypt{}, &PublicVerify{}), nil
	case SAV:
		return &SetAttributes{}, nil
	case SKD:
		return &Decrypt{}, nil
	case SKE:
		return &Encrypt{}, nil
	case TRC:
		return choose(has("TOKEN"), &CreateToken{}, &CreateObject{}), nil
	case TRD:
		return &Destroy{}, nil
	case TRL:
		return choose(has("TOKEN"), &ListTokens{}, &ListObjects{}), nil
	case UWK:
		return &Unwrap{}, nil
	case WPK:
		return &Wrap{}, nil
	}
	return nil, bad("there is no " + s.String())
}
