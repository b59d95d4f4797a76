package swtok

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

func TestSelfTest(t *testing.T) {
	for name, provider := range map[string]Provider{
		"go":   GoProvider(),
		"best": LoadProvider(slog.New(slog.DiscardHandler)),
	} {
		t.Run(name, func(t *testing.T) {
			c := NewCrypto(provider, nil)
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
	digest func(tokens.Operation) tokens.Operation
	sign   func([]byte) []byte
	verify func(error) error
	random func([]byte)
}

func (f faulty) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	o, err := f.Crypto.Begin(ctx, use, m, key)
	switch {
	case err != nil:
	case use == p11.CKF_DIGEST && f.digest != nil:
		o = f.digest(o)
	case use == p11.CKF_SIGN && f.sign != nil:
		o = badSignature{o, f.sign}
	case use == p11.CKF_VERIFY && f.verify != nil:
		o = badVerification{o, f.verify}
	}
	return o, err
}

type emptyDigest struct{ tokens.Operation }

func (emptyDigest) Update(context.Context, []byte) ([]byte, error) { return nil, nil }

type badSignature struct {
	tokens.Operation
	change func([]byte) []byte
}

func (b badSignature) Final(ctx context.Context, _ []byte) ([]byte, error) {
	sig, err := b.Operation.Final(ctx, nil)
	return b.change(sig), err
}

type badVerification struct {
	tokens.Operation
	change func(error) error
}

func (b badVerification) Final(ctx context.Context, sig []byte) ([]byte, error) {
	_, err := b.Operation.Final(ctx, sig)
	return nil, b.change(err)
}

func (f faulty) GenerateRandom(ctx context.Context, b []byte) error {
	if f.random != nil {
		f.random(b)
		return nil
	}
	return f.Crypto.GenerateRandom(ctx, b)
}

func TestSelfTestFindsFaults(t *testing.T) {
	good := NewCrypto(GoProvider(), nil)
	for _, c := range []struct {
		name string
		bad  faulty
		want string
	}{
		{"digest", faulty{digest: func(d tokens.Operation) tokens.Operation { return emptyDigest{d} }}, "SHA-256"},
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
		{"ML-DSA signature", faulty{sign: func(b []byte) []byte {
			if len(b) == 2420 {
				b[2419] ^= 1
			}
			return b
		}}, "ML-DSA"},
		{"EdDSA signature", faulty{sign: func(b []byte) []byte {
			if len(b) == 114 {
				b[0] ^= 1
			}
			return b
		}}, "EdDSA"},
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

// leakyKEM gives another secret than it encapsulates, or one for each wrong ciphertext.
type leakyKEM struct {
	*Crypto
	wrongCiphertext bool
}

func (k leakyKEM) DecapsulateKey(ctx context.Context, m p11.Mechanism, private *tokens.Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error) {
	a, err := k.Crypto.DecapsulateKey(ctx, m, private, ciphertext, template)
	if k.wrongCiphertext == (ciphertext[0] == 0 && ciphertext[1] == 0 && ciphertext[2] == 0) {
		a.Set(p11.CKA_VALUE, []byte("the same for all"))
	}
	return a, err
}

func TestSelfTestFindsFaultsOfMLKEM(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		err := selfTest(t.Context(), leakyKEM{NewCrypto(GoProvider(), nil), wrong})
		if err == nil || !strings.Contains(err.Error(), "self-test of ML-KEM") {
			t.Errorf("%v", err)
		}
	}
}
