package softcca

import (
	"context"
	"crypto/rand"
	"io"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/swtok"
)

// A Domain answers the verbs of one card. Its methods may be called by several goroutines
// at once.
type Domain struct {
	crypto *swtok.Crypto
	random io.Reader
	serial string
	dir    string // where the master keys are kept; empty: nowhere

	mu      sync.RWMutex // guards all below; nothing is locked under it
	keys    keys
	offline bool
}

var (
	_ cca.Card       = (*Domain)(nil)
	_ card.Transport = (*Domain)(nil)
)

// Call is card.Transport.
func (d *Domain) Call(ctx context.Context, c *card.Call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.RLock()
	offline := d.offline
	d.mu.RUnlock()
	if offline {
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the card is offline")
	}
	cca.Answer(ctx, c, d)
	return nil
}

// SetOffline has the domain answer no calls, or answer them again.
func (d *Domain) SetOffline(offline bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.offline = offline
}

// maxSerial is the length of a serial number.
const maxSerial = 8

// NewDomain makes a domain with new master keys, which are kept nowhere. Its serial number
// is of at most 8 characters.
func NewDomain(p swtok.Provider, serial string) (*Domain, error) {
	d := domain(p, serial)
	for _, m := range Masters() {
		key, err := newMaster(d.random)
		if err != nil {
			return nil, err
		}
		d.keys[m][Current] = key
	}
	return d, nil
}

func domain(p swtok.Provider, serial string) *Domain {
	return &Domain{crypto: swtok.NewCrypto(p, nil), random: rand.Reader, serial: serial[:min(len(serial), maxSerial)]}
}

// Close wipes the master keys.
func (d *Domain) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys.close()
}

// do is one operation over in with a key of these attributes, which are wiped.
func (d *Domain) do(ctx context.Context, use p11.Flags, m p11.Mechanism, key p11.Attributes, in, signature []byte) ([]byte, error) {
	o := tokens.NewObject(0, "", key)
	defer o.Drop()
	op, err := d.crypto.Begin(ctx, use, m, o)
	if err != nil {
		return nil, cardError(err)
	}
	defer op.Close()
	out, err := op.Update(ctx, in)
	if err != nil {
		return nil, cardError(err)
	}
	rest, err := op.Final(ctx, signature)
	if err != nil {
		secret.Wipe(out)
		return nil, cardError(err)
	}
	return secret.Append(out, rest), nil
}

// cardError is the error of a verb for one of the cryptography.
func cardError(err error) error {
	switch p11.RVOf(err) {
	case p11.CKR_SIGNATURE_INVALID, p11.CKR_SIGNATURE_LEN_RANGE:
		return cca.ErrSignature
	case p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE, p11.CKR_CURVE_NOT_SUPPORTED:
		return cca.ErrValues
	}
	return cca.ErrData
}

// attributes are those of a key object.
func attributes(class p11.ObjectClass, kt p11.KeyType, more ...p11.Attribute) p11.Attributes {
	return append(p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}, more...)
}
