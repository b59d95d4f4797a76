package ep11tok

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/securekey"
	"p11fs/tokens/tokentest"
)

// sitting is a token with a user who is logged in, and keys.
type sitting struct {
	*testing.T
	tok *token
	dir string // the token's
	set *soft.Set
}

func sit(t *testing.T, apqns ...card.APQN) *sitting {
	t.Helper()
	via, cards := softCard(t, apqns...)
	set, err := soft.OpenSet(cards)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	s := &sitting{T: t, dir: t.TempDir(), set: set}
	conf := "APQN_ANY"
	if len(apqns) > 0 {
		conf = allowed(apqns)
	}
	s.tok = bed{via: via, conf: conf}.token(t, s.dir)
	pin := func(s string) *secret.Bytes { return tokentest.PIN(t, s) }
	if err := s.tok.InitToken(t.Context(), pin("87654321"), "cards"); err != nil {
		t.Fatal(err)
	}
	so, err := s.tok.Login(t.Context(), p11.CKU_SO, pin("87654321"))
	if err == nil {
		err = s.tok.InitPIN(t.Context(), so, pin("userpin"))
	}
	if err == nil {
		err = so.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.login(s.tok)
	return s
}

func (s *sitting) login(tok *token) {
	s.Helper()
	l, err := tok.Login(s.Context(), p11.CKU_USER, tokentest.PIN(s.T, "userpin"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = l.Close() })
}

// wk changes the wrapping key of all domains, or of one.
func (s *sitting) wk(a *card.APQN, changes ...string) {
	s.Helper()
	for _, c := range changes {
		if err := s.set.Change(a, soft.WK, c); err != nil {
			s.Fatal(err)
		}
	}
}

func stored(text string) string { return text + " token=true private=true" }

// aes makes a stored key.
func (s *sitting) aes(label string) *tokens.Object {
	s.Helper()
	a, err := s.tok.GenerateKey(s.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, parse(s, stored("class=secret-key key-type=aes value-len=32 label="+label)))
	if err == nil {
		a, err = s.tok.Adopt(s.Context(), a)
	}
	if err != nil {
		s.Fatal(err)
	}
	o, err := s.tok.Create(s.Context(), a)
	if err != nil {
		s.Fatal(err)
	}
	return o
}

func parse(t testing.TB, text string) p11.Attributes {
	t.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// blobs are the blobs of the newest version of an object.
func (s *sitting) blobs(o *tokens.Object) map[p11.AttributeType][]byte {
	s.Helper()
	now, err := s.tok.ByHandle(o.Handle)
	if err != nil {
		s.Fatal(err)
	}
	a, err := now.Acquire()
	if err != nil {
		s.Fatal(err)
	}
	defer now.Release()
	m := make(map[p11.AttributeType][]byte)
	for _, t := range securekey.Blobs() {
		if v, ok := a.Get(t); ok {
			m[t] = bytes.Clone(v)
		}
	}
	return m
}

// encrypt encrypts a block with the newest version of a key.
func (s *sitting) encrypt(tok *token, o *tokens.Object) ([]byte, error) {
	s.Helper()
	now, err := tok.ByHandle(o.Handle)
	if err != nil {
		return nil, err
	}
	return tok.once(s.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, now, make([]byte, 16), nil)
}

func (s *sitting) mustEncrypt(o *tokens.Object, want []byte) []byte {
	s.Helper()
	got, err := s.encrypt(s.tok, o)
	if err != nil || want != nil && !bytes.Equal(got, want) {
		s.Fatalf("encrypted %x (%v), not %x", got, err, want)
	}
	return got
}

func (s *sitting) wantRV(err error, rv p11.RV) {
	s.Helper()
	if p11.RVOf(err) != rv {
		s.Errorf("%v, not %v", err, rv)
	}
}

// TestReencipher changes the wrapping key, cut off after each object, and keys go on to be
// used at every moment.
func TestReencipher(t *testing.T) {
	s := sit(t)
	ctx := t.Context()
	var keys []*tokens.Object
	var want [][]byte
	for _, label := range []string{"a", "b", "c"} {
		keys = append(keys, s.aes(label))
		want = append(want, s.mustEncrypt(keys[len(keys)-1], nil))
	}
	_, err := s.tok.Reencipher(ctx, nil)
	s.wantRV(err, p11.CKR_ACTION_PROHIBITED)
	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)

	// Each run ends after the first object that it changes.
	for round := range keys {
		cut, stop := context.WithCancel(ctx)
		seen := 0
		n, err := s.tok.Reencipher(cut, func(done, _ int) {
			if seen = done; done == round+1 {
				stop()
			}
		})
		stop()
		if n > 1 || round < len(keys)-1 && err == nil {
			t.Fatalf("round %d changed %d of %d (%v)", round, n, seen, err)
		}
		for i, k := range keys {
			if _, has := s.blobs(k)[p11.CKA_IBM_OPAQUE_REENC]; has != (i <= round) {
				t.Errorf("round %d: key %d has a next blob: %v", round, i, has)
			}
			s.mustEncrypt(k, want[i])
		}
	}
	if n, err := s.tok.Reencipher(ctx, nil); n != 0 || err != nil {
		t.Errorf("a run more changed %d (%v)", n, err)
	}
	_, err = s.tok.FinalizeReencipher(ctx, nil)
	s.wantRV(err, p11.CKR_ACTION_PROHIBITED)

	// Cancelled, there is nothing left of it; and once more.
	if n, err := s.tok.CancelReencipher(ctx, nil); n != 3 || err != nil {
		t.Errorf("cancelled %d (%v)", n, err)
	}
	if b := s.blobs(keys[0]); len(b) != 1 {
		t.Errorf("left are %d blobs", len(b))
	}
	if n, err := s.tok.Reencipher(ctx, nil); n != 3 || err != nil {
		t.Fatalf("changed %d (%v)", n, err)
	}
	old, next := s.blobs(keys[0])[p11.CKA_IBM_OPAQUE], s.blobs(keys[0])[p11.CKA_IBM_OPAQUE_REENC]
	s.wk(nil, soft.ChangeActivate)
	for i, k := range keys {
		s.mustEncrypt(k, want[i]) // with the blob that stands beside
	}
	fresh := s.aes("between")
	s.mustEncrypt(fresh, nil)
	if n, err := s.tok.FinalizeReencipher(ctx, nil); n != 3 || err != nil {
		t.Errorf("finalised %d (%v)", n, err)
	}
	b := s.blobs(keys[0])
	if !bytes.Equal(b[p11.CKA_IBM_OPAQUE], next) || !bytes.Equal(b[p11.CKA_IBM_OPAQUE_OLD], old) || b[p11.CKA_IBM_OPAQUE_REENC] != nil {
		t.Error("the blobs are not where they belong")
	}
	for i, k := range keys {
		s.mustEncrypt(k, want[i])
	}
	if n, err := s.tok.FinalizeReencipher(ctx, nil); n != 0 || err != nil {
		t.Errorf("finalised %d more (%v)", n, err)
	}
}

// TestOtherWK uses and imports keys after the wrapping key was changed without them.
func TestOtherWK(t *testing.T) {
	s := sit(t)
	key := s.aes("lost")
	s.mustEncrypt(key, nil)
	op, err := s.tok.Begin(t.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, key)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if _, err := op.Update(t.Context(), make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	brought := func() error {
		a := parse(t, "class=secret-key key-type=aes value=0x000102030405060708090a0b0c0d0e0f")
		a, err := s.tok.Adopt(t.Context(), a)
		if err != nil {
			return err
		}
		o := tokens.NewObject(tokens.NewHandle(), "", a)
		defer o.Drop()
		_, err = s.tok.once(t.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, o, make([]byte, 16), nil)
		return err
	}
	if err := brought(); err != nil {
		t.Fatal(err)
	}
	s.wk(nil, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	if err := brought(); err != nil {
		t.Errorf("with another wrapping key no key comes in: %v", err)
	}
	_, err = s.encrypt(s.tok, key)
	s.wantRV(err, p11.CKR_DEVICE_ERROR)
	if _, err := op.Update(t.Context(), make([]byte, 20)); p11.RVOf(err) != p11.CKR_DEVICE_ERROR && p11.RVOf(err) != p11.CKR_ENCRYPTED_DATA_INVALID {
		t.Errorf("an operation goes on under another wrapping key: %v", err)
	}
	if _, err := op.Final(t.Context(), nil); err == nil {
		t.Error("and ends well")
	}
	s.wk(nil, soft.ChangeZeroise)
	_, err = s.encrypt(s.tok, key)
	s.wantRV(err, p11.CKR_DEVICE_ERROR)
	s.wantRV(brought(), p11.CKR_DEVICE_ERROR)
}

// TestTwoDomains has two domains with one wrapping key, and then with two.
func TestTwoDomains(t *testing.T) {
	one, two := card.APQN{Adapter: 0, Domain: 1}, card.APQN{Adapter: 1, Domain: 2}
	s := sit(t, one, two)
	key := s.aes("a")
	want := s.mustEncrypt(key, nil)
	for _, a := range []card.APQN{one, two} {
		if err := s.set.SetOnline(a, false); err != nil {
			t.Fatal(err)
		}
		s.mustEncrypt(key, want)
		if err := s.set.SetOnline(a, true); err != nil {
			t.Fatal(err)
		}
	}
	s.wk(&one, soft.ChangeSeparate) // which now has another wrapping key
	s.mustEncrypt(key, want)        // at the other
	if err := s.tok.cards.learn(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	s.mustEncrypt(key, want)
	fresh := s.aes("b")
	if bytes.Equal(ep11.Blob(s.blobs(fresh)[p11.CKA_IBM_OPAQUE]).WKID(), ep11.Blob(s.blobs(key)[p11.CKA_IBM_OPAQUE]).WKID()) {
		t.Error("a new key is not of the first domain")
	}
	s.mustEncrypt(fresh, nil)
	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)
	_, err := s.tok.Reencipher(t.Context(), nil)
	s.wantRV(err, p11.CKR_ACTION_PROHIBITED)
}

// TestForgotten: keys for which nobody ran reencipher are told of, and the others come along.
func TestForgotten(t *testing.T) {
	s := sit(t)
	came := s.aes("came")
	want := s.mustEncrypt(came, nil)
	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)
	if n, err := s.tok.Reencipher(t.Context(), nil); n != 1 || err != nil {
		t.Fatalf("changed %d (%v)", n, err)
	}
	s.aes("since")
	s.wk(nil, soft.ChangeActivate)
	for _, moved := range []int{1, 0} {
		n, err := s.tok.FinalizeReencipher(t.Context(), nil)
		if n != moved || err == nil || !strings.Contains(err.Error(), "and 1 under none of the card") {
			t.Errorf("finalised %d (%v)", n, err)
		}
		s.mustEncrypt(came, want)
	}
}

// TestFinalizeOffline: what a domain that does not answer would make of the keys nobody knows.
func TestFinalizeOffline(t *testing.T) {
	one, two := card.APQN{Adapter: 0, Domain: 1}, card.APQN{Adapter: 1, Domain: 2}
	s := sit(t, one, two)
	key := s.aes("a")
	want := s.mustEncrypt(key, nil)
	s.wk(nil, soft.ChangeNew, soft.ChangeCommit)
	if n, err := s.tok.Reencipher(t.Context(), nil); n != 1 || err != nil {
		t.Fatalf("changed %d (%v)", n, err)
	}
	s.wk(nil, soft.ChangeActivate)
	if err := s.set.SetOnline(two, false); err != nil {
		t.Fatal(err)
	}
	_, err := s.tok.FinalizeReencipher(t.Context(), nil)
	s.wantRV(err, p11.CKR_DEVICE_REMOVED)
	s.mustEncrypt(key, want)
	if err := s.set.SetOnline(two, true); err != nil {
		t.Fatal(err)
	}
	if n, err := s.tok.FinalizeReencipher(t.Context(), nil); n != 1 || err != nil {
		t.Errorf("finalised %d (%v)", n, err)
	}
	s.mustEncrypt(key, want)
}

// TestCut has blobs that were cut at each length, and damaged ones, be none.
func TestCut(t *testing.T) {
	s := sit(t)
	key := s.aes("a")
	blob := s.blobs(key)[p11.CKA_IBM_OPAQUE]
	try := func(b []byte) error {
		a := parse(t, "class=secret-key key-type=aes value-len=32")
		a.Set(p11.CKA_IBM_OPAQUE, b)
		o := tokens.NewObject(tokens.NewHandle(), "", a)
		defer o.Drop()
		_, err := s.tok.once(t.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, o, make([]byte, 16), nil)
		return err
	}
	if err := try(bytes.Clone(blob)); err != nil {
		t.Fatal(err)
	}
	for n := range blob {
		if err := try(bytes.Clone(blob[:n])); err == nil || errors.Is(err, p11.CKR_DEVICE_REMOVED) {
			t.Fatalf("%d of %d bytes: %v", n, len(blob), err)
		}
		changed := bytes.Clone(blob)
		changed[n] ^= 1
		if err := try(changed); err == nil || errors.Is(err, p11.CKR_DEVICE_REMOVED) {
			t.Fatalf("with byte %d changed: %v", n, err)
		}
	}
}

// allowed is a configuration with these domains.
func allowed(apqns []card.APQN) string {
	text := "APQN_ALLOWLIST"
	for _, a := range apqns {
		text += fmt.Sprintf(" %d %d", a.Adapter, a.Domain)
	}
	return text + " END"
}

// TestOffline has a token be there while its card is not, and ask for it once a second.
func TestOffline(t *testing.T) {
	s := sit(t)
	key := s.aes("a")
	want := s.mustEncrypt(key, nil)
	calls := 0
	clock := time.Now()
	via := counted{s.tok.cards.via, &calls}
	away := func(on bool) {
		t.Helper()
		if err := s.set.SetOnline(s.set.APQNs()[0], !on); err != nil {
			t.Fatal(err)
		}
	}
	away(true)
	tok := bed{via: via, now: func() time.Time { return clock }}.token(t, s.dir)
	changes := 0
	defer tok.Watch(func() { changes++ })()
	if err := tok.SelfTest(t.Context()); err != nil {
		t.Errorf("without a card: %v", err)
	}
	s.login(tok)
	list, err := tok.Find(t.Context(), parse(t, "label=a"), true)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d objects (%v)", len(list), err)
	}
	if len(tok.Mechanisms()) < 20 || len(tok.Describe(t.Context())) == 0 {
		t.Error("nothing is known of a card that is away")
	}
	if lines := tok.Cards(t.Context()); !slices.Equal(lines, []string{"no card has answered yet"}) {
		t.Errorf("a card that is away is shown as %q", lines)
	}
	before := calls
	for range 5 {
		_, err = s.encrypt(tok, list[0])
		s.wantRV(err, p11.CKR_DEVICE_REMOVED)
	}
	if calls != before || tok.Offline() == nil {
		t.Errorf("the card was asked %d times in a second", calls-before)
	}
	clock = clock.Add(card.Retry)
	if since, why := tok.Away(); tok.Offline() != nil || why == nil || !since.Before(clock) {
		t.Errorf("the next use does not ask, or the card is there between two tries: %v, away since %v: %v", tok.Offline(), since, why)
	}
	_, err = s.encrypt(tok, list[0])
	s.wantRV(err, p11.CKR_DEVICE_REMOVED)
	if calls == before || tok.Offline() == nil {
		t.Error("the card is not asked again")
	}
	away(false)
	clock = clock.Add(card.Retry)
	if got, err := s.encrypt(tok, list[0]); err != nil || !bytes.Equal(got, want) || changes == 0 {
		t.Errorf("back it encrypts %x (%v), and %d were told", got, err, changes)
	}

	m, err := s.set.WrappingKey(s.set.APQNs()[0])
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("any.0001 online mode=ep11 serial=%s api=6 firmware=", s.set.Serial())
	wk := fmt.Sprintf(" wk=%x next=- control-points=ffff", m.Current[:wkvpSize])
	if lines := tok.Cards(t.Context()); len(lines) != 1 || !strings.HasPrefix(lines[0], shown) || !strings.Contains(lines[0], wk) {
		t.Errorf("the cards are shown as %q, not %s and %s", lines, shown, wk)
	}

	// It goes in the middle of an operation, and comes back.
	op, err := tok.Begin(t.Context(), p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, list[0])
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if _, err := op.Update(t.Context(), make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	away(true)
	_, err = op.Final(t.Context(), nil)
	s.wantRV(err, p11.CKR_DEVICE_REMOVED)
	s.wantRV(tok.GenerateRandom(t.Context(), make([]byte, 8)), p11.CKR_DEVICE_REMOVED)
	_, err = tok.Adopt(t.Context(), parse(t, "class=secret-key key-type=aes value=0x000102030405060708090a0b0c0d0e0f"))
	s.wantRV(err, p11.CKR_DEVICE_REMOVED)
	away(false)
	clock = clock.Add(card.Retry)
	if _, err := op.Final(t.Context(), nil); err != nil {
		t.Errorf("the operation does not end once the card is back: %v", err)
	}
}

// counted counts calls.
type counted struct {
	card.Transport
	n *int
}

func (c counted) Call(ctx context.Context, call *card.Call) error {
	*c.n++
	return c.Transport.Call(ctx, call)
}
