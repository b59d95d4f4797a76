package mountd

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

func TestSelfTest(t *testing.T) {
	for name, provider := range map[string]swtok.Provider{
		"go":   swtok.GoProvider(),
		"best": swtok.LoadProvider(slog.New(slog.DiscardHandler)),
	} {
		t.Run(name, func(t *testing.T) {
			c := swtok.NewCrypto(provider, nil)
			begin := time.Now()
			if err := selfTest(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s took %v", provider.Name(), time.Since(begin))
		})
	}
}

// faulty is a token's cryptography with one thing broken.
type faulty struct {
	tokens.Crypto
	digest func(tokens.Digest) tokens.Digest
	sign   func([]byte) []byte
	verify func(error) error
	random func([]byte)
}

func (f faulty) Digest(ctx context.Context, m p11.Mechanism) (tokens.Digest, error) {
	d, err := f.Crypto.Digest(ctx, m)
	if err == nil && f.digest != nil {
		d = f.digest(d)
	}
	return d, err
}

type emptyDigest struct{ tokens.Digest }

func (emptyDigest) Update([]byte) error { return nil }

type badSignature struct {
	tokens.Signature
	change func([]byte) []byte
}

func (b badSignature) Final() ([]byte, error) {
	sig, err := b.Signature.Final()
	return b.change(sig), err
}

func (f faulty) Sign(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Signature, error) {
	s, err := f.Crypto.Sign(ctx, m, key)
	if err == nil && f.sign != nil {
		s = badSignature{s, f.sign}
	}
	return s, err
}

type badVerification struct {
	tokens.Verification
	change func(error) error
}

func (b badVerification) Final(sig []byte) error { return b.change(b.Verification.Final(sig)) }

func (f faulty) Verify(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Verification, error) {
	v, err := f.Crypto.Verify(ctx, m, key)
	if err == nil && f.verify != nil {
		v = badVerification{v, f.verify}
	}
	return v, err
}

func (f faulty) GenerateRandom(ctx context.Context, b []byte) error {
	if f.random != nil {
		f.random(b)
		return nil
	}
	return f.Crypto.GenerateRandom(ctx, b)
}

func TestSelfTestFindsFaults(t *testing.T) {
	good := swtok.NewCrypto(swtok.GoProvider(), nil)
	for _, c := range []struct {
		name string
		bad  faulty
		want string
	}{
		{"digest", faulty{digest: func(d tokens.Digest) tokens.Digest { return emptyDigest{d} }}, "SHA-256"},
		{"signature", faulty{sign: func(b []byte) []byte { b[0] ^= 1; return b }}, "HMAC"},
		{"RSA signature", faulty{sign: func(b []byte) []byte {
			if len(b) == 256 {
				b[255] ^= 1
			}
			return b
		}}, "RSA"},
		{"EC signature", faulty{sign: func(b []byte) []byte {
			if len(b) == 64 {
				b[63] ^= 1
			}
			return b
		}}, "ECDSA"},
		{"accepts all", faulty{verify: func(error) error { return nil }}, "RSA"},
		{"refuses all", faulty{verify: func(error) error { return p11.CKR_SIGNATURE_INVALID }}, "RSA"},
		{"fails otherwise", faulty{verify: func(err error) error {
			if err != nil {
				return errors.New("broken")
			}
			return nil
		}}, "RSA"},
		{"random repeats", faulty{random: func(b []byte) { clear(b); b[0] = 1 }}, "random"},
		{"random is zero", faulty{random: func(b []byte) { clear(b) }}, "random"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.bad.Crypto = good
			err := selfTest(t.Context(), c.bad)
			if err == nil || !strings.Contains(err.Error(), "self-test of "+c.want) {
				t.Errorf("got %v, want that %s failed", err, c.want)
			}
		})
	}
}
