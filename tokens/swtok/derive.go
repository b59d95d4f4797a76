package swtok

import (
	"context"
	"crypto/cipher"
	"crypto/sha3"
	"crypto/subtle"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
	"p11fs/tokens"
)

// DeriveKey makes a key of another, or its public half (PKCS#11 v3.1 §5.18.5, C_DeriveKey).
func (c *Crypto) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	made, _, err := c.JoinKeys(ctx, m, []*tokens.Object{base}, []p11.Attributes{template})
	if err != nil {
		return nil, err
	}
	return made[0], nil
}

// JoinKeys is DeriveKey where the parameter names more keys, or wants more.
func (c *Crypto) JoinKeys(ctx context.Context, m p11.Mechanism, keys []*tokens.Object, templates []p11.Attributes) ([]p11.Attributes, []byte, error) {
	u, err := c.call(m, p11.CKF_DERIVE)
	if err != nil {
		return nil, nil, err
	}
	if u.row.derivePublic != nil {
		public, err := u.row.derivePublic(u, keys[0], templates[0])
		return []p11.Attributes{public}, nil, err
	}
	_, some := m.Param.(p11.KeyMaker) // may leave some out
	wants := make([]wanted, len(templates))
	for i, t := range templates {
		if t == nil && some {
			continue
		}
		if wants[i], err = wantedOf(m, t); err != nil {
			return nil, nil, err
		}
	}
	held := make([]any, len(keys))
	u.closed = make([]bool, len(keys))
	for i, o := range keys {
		if o == nil {
			continue
		}
		if held[i], err = c.hold(o); err != nil {
			return nil, nil, err
		}
		defer o.Release()
		held[i] = within(ctx, held[i])
		a, err := o.Acquire()
		if err != nil {
			return nil, nil, err
		}
		defer o.Release()
		u.closed[i] = a.Bool(p11.CKA_SENSITIVE) || a.Has(p11.CKA_EXTRACTABLE) && !a.Bool(p11.CKA_EXTRACTABLE)
	}
	u.others = held[1:]
	values, out, err := u.deriveAll(held[0], wants)
	if err != nil {
		return nil, nil, err
	}
	made := make([]p11.Attributes, len(templates))
	for i, t := range templates {
		if t != nil || !some {
			made[i] = wants[i].fill(t, values[i])
		}
	}
	return made, out, nil
}

// deriveAll is the row's function, whichever it has.
func (u call) deriveAll(base any, wants []wanted) ([][]byte, []byte, error) {
	if u.row.deriveAll != nil {
		return u.row.deriveAll(u, base, wants)
	}
	value, err := u.row.derive(u, base, wants[0].kt, wants[0].n)
	return [][]byte{value}, nil, err
}

// publicHalf adds to template what the public half of a private key is. It does not trust
// the CKA_PUBLIC_KEY_INFO of the key, which a program may have changed.
func (u call) publicHalf(base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	a, err := base.Acquire()
	if err != nil {
		return nil, err
	}
	defer base.Release()
	if class, _ := a.Class(); class != p11.CKO_PRIVATE_KEY {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "only a private key has a public half")
	}
	private := a.Clone()
	private.Delete(p11.CKA_PUBLIC_KEY_INFO)
	if u.holder != nil {
		private.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY)) // it has the numbers of no more
	}
	whole, err := u.Adopt(context.Background(), private)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	defer whole.Wipe()
	info, _ := whole.Get(p11.CKA_PUBLIC_KEY_INFO)
	kt, _ := a.KeyType()
	public, err := pkix.PublicAttributes(info)
	if pqc.IsIBM(kt) {
		public = pkix.IBMAttributes(kt, info)
	}
	if err != nil {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the token knows no public half of %s keys", kt.Short())
	}
	return template.Merge(public), nil
}

// EncapsulateKey makes a secret key, and what tells it to the owner of public (PKCS#11
// v3.2 §5.18.8, C_EncapsulateKey).
func (c *Crypto) EncapsulateKey(_ context.Context, m p11.Mechanism, public *tokens.Object, template p11.Attributes) (ciphertext []byte, _ p11.Attributes, _ error) {
	u, err := c.call(m, p11.CKF_ENCAPSULATE)
	if err != nil {
		return nil, nil, err
	}
	attrs, err := u.secretFrom(public, template, func(key any, kt p11.KeyType, n int) (value []byte, err error) {
		ciphertext, value, err = u.row.encapsulate(u, key, kt, n)
		return value, err
	})
	return ciphertext, attrs, err
}

// DecapsulateKey makes the secret key that ciphertext tells the owner of private (PKCS#11
// v3.2 §5.18.9, C_DecapsulateKey).
func (c *Crypto) DecapsulateKey(ctx context.Context, m p11.Mechanism, private *tokens.Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_DECAPSULATE)
	if err != nil {
		return nil, err
	}
	return u.secretFrom(private, template, func(key any, kt p11.KeyType, n int) ([]byte, error) {
		value, err := u.row.decapsulate(u, within(ctx, key), ciphertext, kt, n)
		return value, translate(err, map[p11.RV]p11.RV{
			p11.CKR_ENCRYPTED_DATA_LEN_RANGE: p11.CKR_WRAPPED_KEY_LEN_RANGE,
			p11.CKR_ENCRYPTED_DATA_INVALID:   p11.CKR_WRAPPED_KEY_INVALID,
		})
	})
}

// secretFrom is the secret key of template whose value compute makes with the key of an
// object: of n bytes, or of its natural length if n is negative.
func (u call) secretFrom(o *tokens.Object, template p11.Attributes, compute func(key any, kt p11.KeyType, n int) ([]byte, error)) (p11.Attributes, error) {
	w, err := wantedOf(u.m, template)
	if err != nil {
		return nil, err
	}
	k, err := u.hold(o)
	if err != nil {
		return nil, err
	}
	defer o.Release()
	value, err := compute(k, w.kt, w.n)
	if err != nil {
		return nil, err
	}
	return w.fill(template, value), nil
}

// wanted is what a template wants of a derivation: a key of n bytes, or of its natural
// length if n is negative, or a data object.
type wanted struct {
	kt   p11.KeyType
	n    int
	data bool
}

func wantedOf(m p11.Mechanism, template p11.Attributes) (w wanted, err error) {
	class, kt, err := derivedKey(m, template)
	if err != nil {
		return wanted{}, err
	}
	n, err := secretLength(template, kt)
	return wanted{kt, n, class == p11.CKO_DATA}, err
}

// fill is the template with the value.
func (w wanted) fill(template p11.Attributes, value []byte) p11.Attributes {
	if w.data {
		template = template.Clone()
		template.Delete(p11.CKA_VALUE_LEN) // which data objects do not have
		template.Set(p11.CKA_VALUE, value)
		return template
	}
	if w.kt.BlockSize() == desBlock {
		setParity(value) // PKCS#11 v3.1 §6.20.5 and its likes: as DES keys have it
	}
	return withValue(template, w.kt, value)
}

// derivedKey says what a template wants of a derivation.
func derivedKey(m p11.Mechanism, template p11.Attributes) (class p11.ObjectClass, kt p11.KeyType, err error) {
	facts, _ := p11.MechanismFacts(m.Type)
	if class, _ := template.Class(); facts.Data && class == p11.CKO_DATA {
		return class, p11.CKK_GENERIC_SECRET, nil
	}
	class, kt, err = templateKey(template)
	switch {
	case err != nil:
	case facts.Data:
		err = p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s makes data objects", m.Type.Short())
	case class != p11.CKO_SECRET_KEY:
		err = p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes secret keys")
	}
	return class, kt, err
}

// secretBits are the sizes of secret keys that are derived from, in bits.
const secretBits = 8 * maxSecret

// derivations are the rows of what makes keys of secret keys.
func derivations() []row {
	derive := func(t p11.MechanismType, least, most uint64, f family) row {
		return row{p11.MechanismInfo{Type: t, MinKeySize: least, MaxKeySize: most, Flags: p11.CKF_DERIVE}, f}
	}
	return []row{
		derive(p11.CKM_CONCATENATE_BASE_AND_KEY, 8, secretBits, joined(func(u call, base []byte) ([]byte, []piece, error) {
			other, err := secretOf(u.others[0])
			return slices.Concat(base, other), []piece{{0, 0, len(base)}, {1, len(base), len(other)}}, err
		})),
		derive(p11.CKM_CONCATENATE_BASE_AND_DATA, 8, secretBits, joinedData(func(base, data []byte) ([]byte, piece) { return slices.Concat(base, data), piece{0, 0, len(base)} })),
		derive(p11.CKM_CONCATENATE_DATA_AND_BASE, 8, secretBits, joinedData(func(base, data []byte) ([]byte, piece) {
			return slices.Concat(data, base), piece{0, len(data), len(base)}
		})),
		derive(p11.CKM_XOR_BASE_AND_DATA, 8, secretBits, joinedData(func(base, data []byte) ([]byte, piece) {
			out := make([]byte, min(len(base), len(data)))
			subtle.XORBytes(out, base, data)
			return out, piece{0, 0, len(base)}
		})),
		derive(p11.CKM_EXTRACT_KEY_FROM_KEY, 8, secretBits, extracted()),
		derive(p11.CKM_SHAKE_128_KEY_DERIVATION, 8, maxSecretBits, shakeDerive(sha3.NewSHAKE128)),
		derive(p11.CKM_SHAKE_256_KEY_DERIVATION, 8, maxSecretBits, shakeDerive(sha3.NewSHAKE256)),
		derive(p11.CKM_DES_ECB_ENCRYPT_DATA, 8, 8, encryptedData()),
		derive(p11.CKM_DES_CBC_ENCRYPT_DATA, 8, 8, encryptedData()),
		derive(p11.CKM_DES3_ECB_ENCRYPT_DATA, 16, 24, encryptedData()),
		derive(p11.CKM_DES3_CBC_ENCRYPT_DATA, 16, 24, encryptedData()),
		derive(p11.CKM_AES_ECB_ENCRYPT_DATA, 16, 32, encryptedData()),
		derive(p11.CKM_AES_CBC_ENCRYPT_DATA, 16, 32, encryptedData()),
		derive(p11.CKM_SSL3_MASTER_KEY_DERIVE, masterSize, masterSize, masterDerive(true)),
		derive(p11.CKM_SSL3_MASTER_KEY_DERIVE_DH, masterSize, maxSecret, masterDerive(false)),
		derive(p11.CKM_SSL3_KEY_AND_MAC_DERIVE, masterSize, masterSize, keyMatDerive()),
		derive(p11.CKM_TLS_MASTER_KEY_DERIVE, masterSize, masterSize, masterDerive(true)),
		derive(p11.CKM_TLS_MASTER_KEY_DERIVE_DH, masterSize, maxSecret, masterDerive(false)),
		derive(p11.CKM_TLS_KEY_AND_MAC_DERIVE, masterSize, masterSize, keyMatDerive()),
		derive(p11.CKM_TLS12_MASTER_KEY_DERIVE, masterSize, masterSize, masterDerive(true)),
		derive(p11.CKM_TLS12_MASTER_KEY_DERIVE_DH, masterSize, maxSecret, masterDerive(false)),
		derive(p11.CKM_TLS12_EXTENDED_MASTER_KEY_DERIVE, masterSize, masterSize, masterDerive(true)),
		derive(p11.CKM_TLS12_EXTENDED_MASTER_KEY_DERIVE_DH, masterSize, maxSecret, masterDerive(false)),
		derive(p11.CKM_TLS12_KEY_AND_MAC_DERIVE, masterSize, masterSize, keyMatDerive()),
		derive(p11.CKM_TLS12_KEY_SAFE_DERIVE, masterSize, masterSize, keyMatDerive()),
		derive(p11.CKM_TLS_KDF, masterSize, maxSecret, tlsKDF()),
		derive(p11.CKM_TLS12_KDF, masterSize, maxSecret, tlsKDF()),
		derive(p11.CKM_HKDF_DERIVE, 8, secretBits, hkdfDerive()),
		derive(p11.CKM_HKDF_DATA, 8, secretBits, hkdfDerive()),
		derive(p11.CKM_SP800_108_COUNTER_KDF, 8, secretBits, kbkdfDerive()),
		derive(p11.CKM_SP800_108_FEEDBACK_KDF, 8, secretBits, kbkdfDerive()),
		derive(p11.CKM_SP800_108_DOUBLE_PIPELINE_KDF, 8, secretBits, kbkdfDerive()),
		derive(p11.CKM_IKE2_PRF_PLUS_DERIVE, 8, secretBits, ike2PRFPlus()),
		derive(p11.CKM_IKE_PRF_DERIVE, 8, secretBits, ikePRF()),
		derive(p11.CKM_IKE1_PRF_DERIVE, 8, secretBits, ike1PRF()),
		derive(p11.CKM_IKE1_EXTENDED_DERIVE, 8, secretBits, ike1Extended()),
	}
}

// A piece says where the n bytes of a key begin in what is made of it; the base key is
// number 0.
type piece struct{ key, at, n int }

// minTold is how many bytes of a key that is not to be read a key that is made of it has
// at least, if it has not all. Of fewer, all values can be tried: by the check value, or
// by a use of the new key; and so the whole key be found piece by piece.
const minTold = 16

// tells checks the pieces of keys in a new one of n bytes.
func (u call) tells(n int, pieces ...piece) error {
	for _, p := range pieces {
		told := min(n, p.at+p.n) - p.at
		if p.key < len(u.closed) && u.closed[p.key] && told > 0 && told < min(p.n, minTold) {
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%d bytes of a key that is not to be read can be guessed: a key made of it has %d of them or more", told, min(p.n, minTold))
		}
	}
	return nil
}

// joined is a family whose key is the leading end of what join makes of the value of
// the base key (PKCS#11 v3.1 §6.43).
func joined(join func(u call, base []byte) ([]byte, []piece, error)) family {
	return family{derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
		k, err := secretOf(base)
		if err != nil {
			return nil, err
		}
		out, pieces, err := join(u, k)
		length := n
		if n < 0 {
			length = len(out)
		}
		if err == nil {
			err = u.tells(length, pieces...)
		}
		if err != nil {
			wipe(out)
			return nil, err
		}
		return leading(out, n, kt)
	}}
}

// joinedData is joined with the data of the parameter.
func joinedData(join func(base, data []byte) ([]byte, piece)) family {
	return joined(func(u call, base []byte) ([]byte, []piece, error) {
		p, err := param[*p11.StringDataParams](u)
		if err != nil {
			return nil, nil, err
		}
		out, of := join(base, p.Data)
		return out, []piece{of}, nil
	})
}

// extracted is the family of CKM_EXTRACT_KEY_FROM_KEY (PKCS#11 v3.1 §6.43.7): bits of
// the base key, the first of which is the highest of its first byte; after the last
// one comes the first again.
func extracted() family {
	return family{derive: func(u call, base any, _ p11.KeyType, n int) ([]byte, error) {
		bit, err := param[p11.ExtractBit](u)
		if err != nil {
			return nil, err
		}
		k, err := secretOf(base)
		switch {
		case err != nil:
			return nil, err
		case n < 0:
			return nil, errNoLength
		case n > len(k):
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the key has %d bytes, fewer than value-len", len(k))
		case uint64(bit) >= uint64(8*len(k)):
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "bit= is below %d, the bits of the key, not %d", 8*len(k), uint64(bit))
		}
		if err := u.tells(n, piece{0, 0, len(k)}); err != nil {
			return nil, err
		}
		first, shift := int(bit/8), bit%8
		out := make([]byte, n)
		for i := range out {
			two := uint16(k[(first+i)%len(k)])<<8 | uint16(k[(first+i+1)%len(k)])
			out[i] = byte(two >> (8 - shift))
		}
		return out, nil
	}}
}

// errNoLength is the answer of a mechanism whose keys have no length of their own.
var errNoLength = p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key")

// shakeDerive is the family of SHAKE of the base key's value (PKCS#11 v3.1 §6.20.9),
// as long as the key is to be.
func shakeDerive(newSHAKE func() *sha3.SHAKE) family {
	return family{derive: func(_ call, base any, _ p11.KeyType, n int) ([]byte, error) {
		k, err := secretOf(base)
		switch {
		case err != nil:
			return nil, err
		case n < 0:
			return nil, errNoLength
		}
		h, out := newSHAKE(), make([]byte, n)
		defer h.Reset()
		_, _ = h.Write(k) // neither fails
		_, _ = h.Read(out)
		return out, nil
	}}
}

// encryptedData is the family of keys that are data, encrypted with ECB or CBC under
// the base key (PKCS#11 v3.1 §6.27).
func encryptedData() family {
	return family{derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
		k, err := keyOf[*cipherKey](base)
		if err != nil {
			return nil, err
		}
		var data []byte
		var mode cipher.BlockMode = ecb{k.Block(), false}
		switch p := u.m.Param.(type) {
		case *p11.StringDataParams:
			data = p.Data
		case *p11.CBCDataParams:
			data, mode = p.Data, k.CBCEncrypter(p.IV)
			defer closeMode(mode)
		default:
			_, err := param[*p11.StringDataParams](u)
			return nil, err
		}
		if len(data) == 0 || len(data)%k.Block().BlockSize() != 0 {
			return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "data= has a multiple of %d bytes, not %d", k.Block().BlockSize(), len(data))
		}
		out := make([]byte, len(data))
		mode.CryptBlocks(out, data)
		return leading(out, n, kt)
	}}
}
