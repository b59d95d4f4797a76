package softcca

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/swtok"
)

// Cards are the cards of a directory. What is changed there they take up at once. They may
// be used by several goroutines at once.
type Cards struct {
	set    *soft.Set
	crypto *swtok.Crypto
	random io.Reader
	log    *slog.Logger
}

var (
	_ cca.Card       = (*domain)(nil)
	_ card.Transport = (*Cards)(nil)
)

// NewCards returns the cards of a set, which is theirs.
func NewCards(set *soft.Set, p swtok.Provider, log *slog.Logger) *Cards {
	return &Cards{set: set, crypto: swtok.NewCrypto(p, nil), random: rand.Reader, log: log}
}

// Close closes the set.
func (c *Cards) Close() error { return c.set.Close() }

// Call has the first domain of the target that is online answer.
func (c *Cards) Call(ctx context.Context, call *card.Call) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a, online, ok := c.set.Pick(call.Target)
	if !ok || !online {
		call.Return = cca.ErrNoCard.Value()
		return nil
	}
	cca.Answer(ctx, call, &domain{c, a})
	c.log.Debug("software card: call", "function", call.Function.Name, "apqn", a, "code", call.Return>>32, "reason", uint32(call.Return))
	return nil
}

// A domain answers calls.
type domain struct {
	*Cards
	apqn card.APQN
}

// do is one operation over in with a key of these attributes, which are wiped.
func (d *domain) do(ctx context.Context, use p11.Flags, m p11.Mechanism, key p11.Attributes, in, signature []byte) ([]byte, error) {
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
