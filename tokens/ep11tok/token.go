package ep11tok

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
	"p11fs/tokens/store"
	"p11fs/tokens/swtok"
)

// A token is a token directory, and the cards that have its keys.
type token struct {
	store.Veil // of the records of login sessions
	cards      *cards
	soft       *swtok.Crypto // completes what needs no card
	conf       conf
	name       string
	slot       uint32 // 0 where nobody numbers them
	log        *slog.Logger
	now        func() time.Time
	close      func() error // gives the transport back

	sessions *sessions
}

var (
	_ tokens.Token        = (*token)(nil)
	_ tokens.KeyGenerator = (*token)(nil)
	_ tokens.KeyWrapper   = (*token)(nil)
	_ tokens.KeyDeriver   = (*token)(nil)
	_ tokens.Adopter      = (*token)(nil)
	_ tokens.Changer      = (*token)(nil)
	_ tokens.Hider        = (*token)(nil)
	_ tokens.Calculator   = (*token)(nil)
	_ tokens.Watcher      = (*token)(nil)
	_ tokens.Offliner     = (*token)(nil)
	_ tokens.Rester       = (*token)(nil)
	_ tokens.SelfTester   = (*token)(nil)
	_ tokens.Describer    = (*token)(nil)
	_ tokens.Carded       = (*token)(nil)
	_ tokens.Sharer       = (*token)(nil)
	_ tokens.BatchCreator = (*token)(nil)

	_ tokens.SessionPINSetter = (*token)(nil)
)

// Name is tokens.Token.
func (t *token) Name() string { return t.name }

// Kind is tokens.Token.
func (t *token) Kind() string { return Kind }

// Close is tokens.Storage.
func (t *token) Close() error {
	t.sessions.endAll()
	return errors.Join(t.Store.Close(), t.close())
}

// Login is tokens.Admin: the cards are logged in to with the user.
func (t *token) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	l, err := t.Store.Login(ctx, user, pin)
	if err != nil || user != p11.CKU_USER || !t.sessions.wanted() {
		return l, err
	}
	bound, err := t.sessions.begin(ctx, l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return bound, nil
}

// Create is tokens.Objects.
func (t *token) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	if err := t.sessions.mayStay(attrs); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return t.Store.Create(ctx, attrs)
}

// CreateAll is tokens.BatchCreator.
func (t *token) CreateAll(ctx context.Context, list []p11.Attributes) ([]*tokens.Object, error) {
	for _, attrs := range list {
		if err := t.sessions.mayStay(attrs); err != nil {
			for _, a := range list {
				a.Wipe()
			}
			return nil, err
		}
	}
	return t.Store.CreateAll(ctx, list)
}

// Mechanisms is tokens.Crypto.
func (t *token) Mechanisms() []p11.MechanismInfo { return t.cards.Mechanisms() }

// Watch is tokens.Watcher.
func (t *token) Watch(changed func()) (stop func()) { return t.cards.Watch(changed) }

// Offline is tokens.Offliner: once it is time to ask a card again that did not answer, the
// next use is to do that.
func (t *token) Offline() error { return t.cards.May() }

// Away is tokens.Rester.
func (t *token) Away() (since time.Time, why error) { return t.cards.Away() }

// Arithmetic is tokens.Calculator.
func (t *token) Arithmetic() pkix.Arithmetic { return t.soft.Arithmetic() }

// Visibility is tokens.Hider.
func (t *token) Visibility(a p11.Attributes, at p11.AttributeType) tokens.Visibility {
	return securekey.Visibility(a, at)
}

// Describe is tokens.Describer: the domains, one a line.
func (t *token) Describe(ctx context.Context) []string {
	_ = t.cards.learn(ctx, true) // of cards that do not answer the lines say so
	return t.cards.lines(false)
}

// Cards is tokens.Carded.
func (t *token) Cards(ctx context.Context) []string {
	_ = t.cards.learn(ctx, true) // likewise
	return t.cards.lines(true)
}

// GenerateRandom is tokens.Crypto.
func (t *token) GenerateRandom(ctx context.Context, b []byte) error {
	return securekey.Random(b, func(n int) (got []byte, err error) {
		err = t.cards.ask(ctx, func() (err error) {
			got, err = ep11.GenerateRandom(ctx, t.cards.via, t.cards.of(nil), n)
			return err
		})
		return got, failed(err, nil)
	})
}

// SelfTest is tokens.SelfTester: a digest, random numbers, a key that is brought in, and a
// wrong MAC. A token without a card passes: its objects can be listed.
func (t *token) SelfTest(ctx context.Context) error {
	err := t.selfTest(ctx)
	if gone(err) {
		t.log.Warn("the card does not answer: objects are listed, and no key is used until it does", "token", t.name, "err", err)
		return nil
	}
	return err
}

func (t *token) selfTest(ctx context.Context) error {
	if err := t.cards.learn(ctx, false); err != nil {
		return err
	}
	for _, test := range []struct {
		name  string
		needs []p11.MechanismType
		run   func(context.Context) error
	}{
		{"SHA-256", []p11.MechanismType{p11.CKM_SHA256}, t.testDigest},
		{"AES-CBC", []p11.MechanismType{p11.CKM_AES_KEY_GEN, p11.CKM_AES_CBC, importMode}, t.testCBC},
		{"HMAC", []p11.MechanismType{p11.CKM_AES_KEY_GEN, p11.CKM_SHA256_HMAC, importMode}, t.testMAC},
		{"random numbers", nil, t.testRandom},
	} {
		if t.lacks(test.needs) {
			continue
		}
		if err := test.run(ctx); err != nil {
			return fmt.Errorf("self-test of %s failed: %w", test.name, err)
		}
	}
	return nil
}

func (t *token) lacks(needs []p11.MechanismType) bool {
	for _, m := range needs {
		if _, err := t.cards.info(m, ^p11.Flags(0)); err != nil {
			return true
		}
	}
	return false
}

// The known answers: of FIPS 180-4's example "abc", NIST SP 800-38A F.2.5 and RFC 4231 §4.3.
const (
	testSHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	testKey    = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
	testIV     = "000102030405060708090a0b0c0d0e0f"
	testPlain  = "6bc1bee22e409f96e93d7e117393172a"
	testCBC    = "f58c4c04d6e5f1ba779eabfb5f7bfbd6"
	testHMAC   = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
)

var (
	errWrongAnswer = errors.New("the answer is wrong")
	errBadAccepted = errors.New("a wrong signature was accepted")
)

// unhex decodes a constant of this package.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// once does a whole operation.
func (t *token) once(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object, data, signature []byte) ([]byte, error) {
	op, err := t.Begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	return op.(tokens.Placer).WholeInto(ctx, nil, data, signature)
}

func compare(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		err = errWrongAnswer
	}
	return err
}

func (t *token) testDigest(ctx context.Context) error {
	got, err := t.once(ctx, p11.CKF_DIGEST, p11.Mechanism{Type: p11.CKM_SHA256}, nil, []byte("abc"), nil)
	return compare(got, unhex(testSHA256), err)
}

// testObject brings a key of that value in.
func (t *token) testObject(ctx context.Context, kt p11.KeyType, value []byte) (*tokens.Object, error) {
	var a p11.Attributes
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	a.Set(p11.CKA_VALUE, value)
	a, err := t.Adopt(ctx, a)
	if err != nil {
		return nil, err
	}
	return tokens.NewObject(tokens.NewHandle(), "", a), nil
}

func (t *token) testCBC(ctx context.Context) error {
	key, err := t.testObject(ctx, p11.CKK_AES, unhex(testKey))
	if err != nil {
		return err
	}
	defer key.Drop()
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(unhex(testIV))}
	got, err := t.once(ctx, p11.CKF_ENCRYPT, m, key, unhex(testPlain), nil)
	if err := compare(got, unhex(testCBC), err); err != nil {
		return err
	}
	got, err = t.once(ctx, p11.CKF_DECRYPT, m, key, got, nil)
	return compare(got, unhex(testPlain), err)
}

func (t *token) testMAC(ctx context.Context) error {
	key, err := t.testObject(ctx, p11.CKK_GENERIC_SECRET, []byte("Jefe"))
	if err != nil {
		return err
	}
	defer key.Drop()
	m := p11.Mechanism{Type: p11.CKM_SHA256_HMAC}
	data := []byte("what do ya want for nothing?")
	got, err := t.once(ctx, p11.CKF_SIGN, m, key, data, nil)
	if err := compare(got, unhex(testHMAC), err); err != nil {
		return err
	}
	if _, err := t.once(ctx, p11.CKF_VERIFY, m, key, data, got); err != nil {
		return err
	}
	got[0] ^= 1
	switch _, err := t.once(ctx, p11.CKF_VERIFY, m, key, data, got); {
	case err == nil:
		return errBadAccepted
	case !errors.Is(err, p11.CKR_SIGNATURE_INVALID):
		return err
	}
	return nil
}

func (t *token) testRandom(ctx context.Context) error {
	var a, b []byte
	err := t.cards.ask(ctx, func() (err error) {
		if a, err = ep11.GenerateRandom(ctx, t.cards.via, t.cards.of(nil), 32); err == nil {
			b, err = ep11.GenerateRandom(ctx, t.cards.via, t.cards.of(nil), 32)
		}
		return err
	})
	if err == nil && (bytes.Equal(a, b) || bytes.Equal(a, make([]byte, 32))) {
		err = errors.New("the generator repeats itself")
	}
	return failed(err, nil)
}
