package ccatok

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// A token is a token directory, whose keys a card has, and swtok's cryptography around
// them.
type token struct {
	*store.Store
	*swtok.Crypto
	link *link
	conf conf
	name string
	log  *slog.Logger
}

var (
	_ tokens.Token        = (*token)(nil)
	_ tokens.KeyGenerator = (*token)(nil)
	_ tokens.Adopter      = (*token)(nil)
	_ tokens.Hider        = (*token)(nil)
	_ tokens.Watcher      = (*token)(nil)
	_ tokens.Offliner     = (*token)(nil)
	_ tokens.SelfTester   = (*token)(nil)
	_ tokens.Describer    = (*token)(nil)
	_ tokens.Carded       = (*token)(nil)
	_ tokens.Sharer       = (*token)(nil)
)

// Name is tokens.Token.
func (t *token) Name() string { return t.name }

// Kind is tokens.Token.
func (t *token) Kind() string { return Kind }

// Close is tokens.Storage.
func (t *token) Close() error { return errors.Join(t.Store.Close(), t.link.via.Close()) }

// Watch is tokens.Watcher.
func (t *token) Watch(changed func()) (stop func()) { return t.link.Watch(changed) }

// Offline is tokens.Offliner: once it is time to ask a card again that did not answer, the
// next use is to do that.
func (t *token) Offline() error { return t.link.May() }

// Away is tokens.Rester.
func (t *token) Away() (since time.Time, why error) { return t.link.Away() }

// Describe is tokens.Describer.
func (t *token) Describe(ctx context.Context) []string { return t.link.describe(ctx) }

// Cards is tokens.Carded.
func (t *token) Cards(ctx context.Context) []string { return t.link.cards(ctx) }

// Visibility is tokens.Hider. Stock's public objects have the key token of the private half,
// with which whoever reads it can sign.
func (t *token) Visibility(a p11.Attributes, at p11.AttributeType) tokens.Visibility {
	if class, _ := a.Class(); class == p11.CKO_PUBLIC_KEY && slices.Contains(securekey.Blobs(), at) {
		blob, _ := a.Get(at)
		if k, err := cca.ParsePKA(blob); len(blob) > 0 && (err != nil || k.Private) {
			return tokens.Withheld
		}
	}
	return securekey.Visibility(a, at)
}

// GenerateRandom is tokens.Crypto.
func (t *token) GenerateRandom(ctx context.Context, b []byte) error {
	return securekey.Random(b, func(n int) (got []byte, err error) {
		err = t.link.call(ctx, func(via card.Transport) (err error) {
			got, err = cca.CSNBRNGL(ctx, via, nil, keyword("RANDOM"), n)
			return err
		})
		return got, err
	})
}

// SelfTest is tokens.SelfTester: keys of AES and HMAC are brought in and do what is known,
// and random numbers do not repeat. A token without a card passes: its objects can be
// listed.
func (t *token) SelfTest(ctx context.Context) error {
	for _, test := range []struct {
		name            string
		kt              p11.KeyType
		m               p11.Mechanism
		use             p11.Flags
		key, data, want string
	}{
		// NIST SP 800-38A F.2.5
		{"AES-CBC", p11.CKK_AES, p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(unhex("000102030405060708090a0b0c0d0e0f"))}, p11.CKF_ENCRYPT,
			"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "6bc1bee22e409f96e93d7e117393172a", "f58c4c04d6e5f1ba779eabfb5f7bfbd6"},
		// RFC 4231 §4.2
		{"HMAC", p11.CKK_GENERIC_SECRET, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, p11.CKF_SIGN,
			"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
	} {
		err := t.known(ctx, test.kt, test.m, test.use, unhex(test.key), unhex(test.data), unhex(test.want))
		switch {
		case p11.RVOf(err) == p11.CKR_DEVICE_REMOVED:
			t.log.Warn("the card does not answer: objects are listed, and no key is used until it does", "token", t.name, "err", err)
			return nil
		case err != nil:
			return fmt.Errorf("self-test of %s failed: %w", test.name, err)
		}
	}
	var a, b [32]byte
	if err := errors.Join(t.GenerateRandom(ctx, a[:]), t.GenerateRandom(ctx, b[:])); err != nil {
		return fmt.Errorf("self-test of random numbers failed: %w", err)
	}
	if a == b {
		return errors.New("self-test of random numbers failed: the generator repeats itself")
	}
	return nil
}

// unhex decodes a constant of this package.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// known compares what a key of known value does.
func (t *token) known(ctx context.Context, kt p11.KeyType, m p11.Mechanism, use p11.Flags, value, data, want []byte) error {
	var a p11.Attributes
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	a.Set(p11.CKA_VALUE, value)
	a, err := t.Adopt(ctx, a)
	if err != nil {
		return err
	}
	key := tokens.NewObject(tokens.NewHandle(), "", a)
	defer key.Drop()
	op, err := t.Begin(ctx, use, m, key)
	if err != nil {
		return err
	}
	defer op.Close()
	got, err := op.Update(ctx, data)
	if err != nil {
		return err
	}
	rest, err := op.Final(ctx, nil)
	if err == nil && !bytes.Equal(append(got, rest...), want) {
		err = errors.New("the answer is wrong")
	}
	return err
}
