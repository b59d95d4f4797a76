package ccatok

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
)

// newToken is a token that is open, and its cards.
func newToken(t testing.TB) (*token, cards) {
	t.Helper()
	d := newCards(t)
	tok := open(t, place(t, t.TempDir()), d)
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	})
	return tok.(*token), d
}

// template is attributes of a key.
func template(class p11.ObjectClass, kt p11.KeyType, more ...p11.Attribute) p11.Attributes {
	a := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)}}
	return append(a, more...)
}

// adopted is a key that was given its values.
func adopted(t testing.TB, tok *token, a p11.Attributes) *tokens.Object {
	t.Helper()
	a, err := tok.Adopt(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	o := tokens.NewObject(tokens.NewHandle(), "", a)
	t.Cleanup(o.Drop)
	return o
}

// do is a whole operation, whose data comes in parts of n bytes.
func do(t testing.TB, tok *token, use p11.Flags, m p11.Mechanism, key *tokens.Object, data []byte, n int, signature []byte) ([]byte, error) {
	t.Helper()
	op, err := tok.Begin(t.Context(), use, m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	for len(data) > 0 {
		part := data[:min(n, len(data))]
		size := op.(tokens.Sizer).UpdateSize(len(part))
		x, err := op.Update(t.Context(), part)
		if err != nil {
			return nil, err
		}
		if len(x) != size {
			t.Errorf("a part of %d bytes gives %d, and %d were said", len(part), len(x), size)
		}
		out, data = append(out, x...), data[len(part):]
	}
	rest, err := op.Final(t.Context(), signature)
	return append(out, rest...), err
}

// TestParts compares ciphers and MACs in parts of all sorts with Go's library.
func TestParts(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	data := bytes.Repeat([]byte("this and that, "), 10000) // more than goes to the card at once
	value, iv := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{9}, 16)
	key := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}))
	block, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	whole := data[:len(data)/16*16]
	want := make([]byte, len(whole))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, whole)
	for _, n := range []int{1000, 4096, 7777, len(whole)} {
		m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(iv)}
		got, err := do(t, tok, p11.CKF_ENCRYPT, m, key, whole, n, nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("parts of %d: wrong, %v", n, err)
		}
		m.Type = p11.CKM_AES_CBC_PAD
		sealed, err := do(t, tok, p11.CKF_ENCRYPT, m, key, data, n, nil)
		if err != nil || !bytes.Equal(sealed[:len(want)], want) {
			t.Errorf("padded, parts of %d: wrong, %v", n, err)
		}
		if back, err := do(t, tok, p11.CKF_DECRYPT, m, key, sealed, n, nil); err != nil || !bytes.Equal(back, data) {
			t.Errorf("padded back, parts of %d: wrong, %v", n, err)
		}
	}
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(iv)}
	if _, err := do(t, tok, p11.CKF_ENCRYPT, m, key, data[:17], 5, nil); p11.RVOf(err) != p11.CKR_DATA_LEN_RANGE {
		t.Errorf("no whole block: %v", err)
	}
	secret := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}))
	h := hmac.New(sha256.New, value)
	h.Write(data)
	mac := h.Sum(nil)
	for _, n := range []int{63, 1000, 4096, len(data)} {
		got, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, secret, data, n, nil)
		if err != nil || !bytes.Equal(got, mac) {
			t.Errorf("MAC in parts of %d: %x, %v", n, got, err)
		}
		general := p11.Mechanism{Type: p11.CKM_SHA256_HMAC_GENERAL, Param: p11.MACLength(12)}
		if _, err := do(t, tok, p11.CKF_VERIFY, general, secret, data, n, mac[:12]); err != nil {
			t.Errorf("a part of the MAC: %v", err)
		}
	}
}

// TestImport brings keys of RSA and on curves in, and compares with Go's library. Nothing of
// their private values is left, and the public object's token does not sign.
func TestImport(t *testing.T) {
	t.Parallel()
	tok, d := newToken(t)
	digest := sha256.Sum256([]byte("message"))
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, ok := p11.CurveNamed("secp384r1")
	if !ok {
		t.Fatal("no P-384")
	}
	scalar, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	private := adopted(t, tok, template(p11.CKO_PRIVATE_KEY, p11.CKK_EC, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Clone(scalar)}))
	sig, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_ECDSA}, private, digest[:], 100, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, s := new(big.Int).SetBytes(sig[:48]), new(big.Int).SetBytes(sig[48:]); !ecdsa.Verify(&k.PublicKey, digest[:], r, s) {
		t.Error("Go's library refuses the signature")
	}
	a, err := private.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	blob, _ := a.Get(p11.CKA_IBM_OPAQUE)
	if a.Has(p11.CKA_VALUE) || bytes.Contains(blob, scalar) || len(blob) == 0 {
		t.Error("the private value is left")
	}
	private.Release()
	public := adopted(t, tok, template(p11.CKO_PUBLIC_KEY, p11.CKK_EC, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: curve.Params()},
		p11.Attribute{Type: p11.CKA_EC_POINT, Value: pkix.DERPoint(point)}, p11.Attribute{Type: p11.CKA_IBM_OPAQUE, Value: bytes.Clone(blob)}))
	if _, err := do(t, tok, p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_ECDSA}, public, digest[:], 100, sig); err != nil {
		t.Error(err)
	}
	if a, err = public.Acquire(); err != nil {
		t.Fatal(err)
	}
	defer public.Release()
	open, _ := a.Get(p11.CKA_IBM_OPAQUE)
	if parsed, err := cca.ParsePKA(open); err != nil || parsed.Private || !bytes.Equal(parsed.Point, point) {
		t.Errorf("the public object has %x, %v", open, err)
	}
	if _, err := cca.CSNDDSG(t.Context(), d, nil, keyword("ECDSA"), open, digest[:]); !errors.Is(err, cca.ErrToken) {
		t.Errorf("the public token signs: %v", err)
	}
}

// TestRefused gives the token keys that the card does not take.
func TestRefused(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	made, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	if err != nil {
		t.Fatal(err)
	}
	blob, _ := made.Get(p11.CKA_IBM_OPAQUE)
	opaque := func(b []byte) p11.Attribute { return p11.Attribute{Type: p11.CKA_IBM_OPAQUE, Value: bytes.Clone(b)} }
	twisted, _ := p11.CurveNamed("brainpoolp256t1")
	for name, a := range map[string]p11.Attributes{
		"a short HMAC key":         template(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, p11.Attribute{Type: p11.CKA_VALUE, Value: []byte("short")}),
		"a curve that it has not":  template(p11.CKO_PRIVATE_KEY, p11.CKK_EC, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: twisted.Params()}, p11.Attribute{Type: p11.CKA_VALUE, Value: bytes.Repeat([]byte{1}, 32)}),
		"another type":             template(p11.CKO_SECRET_KEY, p11.CKK_CHACHA20, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 32)}),
		"a token that is none":     template(p11.CKO_SECRET_KEY, p11.CKK_AES, opaque([]byte("token"))),
		"a token of another type":  template(p11.CKO_SECRET_KEY, p11.CKK_DES3, opaque(blob)),
		"a token of another class": template(p11.CKO_PRIVATE_KEY, p11.CKK_RSA, opaque(blob), p11.Attribute{Type: p11.CKA_MODULUS, Value: k.N.Bytes()}),
		"another length":           template(p11.CKO_SECRET_KEY, p11.CKK_AES, opaque(blob), p11.Attribute{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(16))}),
	} {
		if got, err := tok.Adopt(t.Context(), a); err == nil {
			t.Errorf("%s becomes %v", name, got)
		}
	}
	for name, c := range map[string]struct {
		m p11.MechanismType
		a p11.Attributes
	}{
		"no length":       {p11.CKM_AES_KEY_GEN, nil},
		"a wrong length":  {p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(17))}}},
		"a long HMAC key": {p11.CKM_GENERIC_SECRET_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(257))}}},
		"another class":   {p11.CKM_DES3_KEY_GEN, template(p11.CKO_PUBLIC_KEY, p11.CKK_DES3)},
		"a pair's":        {p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil},
	} {
		if got, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: c.m}, c.a); err == nil {
			t.Errorf("%s makes %v", name, got)
		}
	}
	for name, a := range map[string]p11.Attributes{
		"no size":          nil,
		"a large one":      {{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(8200))}},
		"another exponent": {{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}, {Type: p11.CKA_PUBLIC_EXPONENT, Value: []byte{5}}},
	} {
		if _, _, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, a, nil); err == nil {
			t.Errorf("%s makes a pair", name)
		}
	}
}

// TestOffline takes the card away in the middle of operations, and gives it back.
func TestOffline(t *testing.T) {
	t.Parallel()
	d := newCards(t)
	p := place(t, t.TempDir())
	now := time.Unix(1e9, 0)
	p.Now = func() time.Time { return now }
	tok := open(t, p, d).(*token)
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	})
	changes := 0
	defer tok.Watch(func() { changes++ })()
	online := func(on bool) {
		t.Helper()
		if err := d.set.SetOnline(card.APQN{Domain: 1}, on); err != nil {
			t.Fatal(err)
		}
	}
	key := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 20)}))
	m := p11.Mechanism{Type: p11.CKM_SHA256_HMAC}
	op, err := tok.Begin(t.Context(), p11.CKF_SIGN, m, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Update(t.Context(), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	online(false)
	if _, err := op.Final(t.Context(), nil); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("the card went before Final: %v", err)
	}
	op.Close()
	if tok.Offline() == nil || changes != 1 {
		t.Errorf("the token is online, %d changes", changes)
	}
	online(true)
	if _, err := do(t, tok, p11.CKF_SIGN, m, key, nil, 1, nil); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("asked again in the same second: %v", err)
	}
	now = now.Add(card.Retry)
	if _, err := do(t, tok, p11.CKF_SIGN, m, key, nil, 1, nil); err != nil || tok.Offline() != nil || changes != 2 {
		t.Errorf("the card is back: %v, %d changes", err, changes)
	}
	online(false)
	if err := tok.SelfTest(t.Context()); err != nil {
		t.Errorf("a token without a card is not served: %v", err)
	}
	if _, err := tok.Adopt(t.Context(), template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 16)})); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("a key comes in: %v", err)
	}
	if lines := tok.Describe(t.Context()); lines != nil {
		t.Errorf("a card that is away says %q", lines)
	}
	if lines := tok.Cards(t.Context()); !slices.Equal(lines, []string{"any offline"}) {
		t.Errorf("a card that is away is shown as %q", lines)
	}
	now = now.Add(card.Retry)
	online(true)
	if lines := tok.Describe(t.Context()); len(lines) != 2 {
		t.Errorf("the card says %q", lines)
	}
	shown(t, tok, d, "AES", "old=- next=-")
	d.change(t, softcca.AES, "new")
	shown(t, tok, d, "AES", "old=- next=NEW")
	d.change(t, softcca.AES, "commit", "activate", "new")
	shown(t, tok, d, "AES", "old=OLD next=NEW")
}

// shown compares the line on the card with the patterns of one of its master keys.
func shown(t *testing.T, tok *token, d cards, name, others string) {
	t.Helper()
	pattern := func(r softcca.Register) string {
		p, there, err := softcca.Pattern(d.set, d.set.APQNs()[0], softcca.AES, r)
		if err != nil || !there {
			return "-"
		}
		return fmt.Sprintf("%x", p)
	}
	others = strings.NewReplacer("OLD", pattern(softcca.Old), "NEW", pattern(softcca.New)).Replace(others)
	want := fmt.Sprintf("%s=%s %s", strings.ToLower(name), pattern(softcca.Current), others)
	lines := tok.Cards(t.Context())
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "any online mode=cca serial=") || !strings.Contains(lines[0], want) {
		t.Errorf("the cards are shown as %q, not %s", lines, want)
	}
}

// TestMasterKeys uses a key while the master key changes: under the old one, with the token
// that somebody else has put beside it, and when it is lost.
func TestMasterKeys(t *testing.T) {
	t.Parallel()
	tok, d := newToken(t)
	value := make([]byte, 16)
	key := adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: value}))
	m := p11.Mechanism{Type: p11.CKM_AES_ECB}
	want, err := do(t, tok, p11.CKF_ENCRYPT, m, key, make([]byte, 16), 16, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	if got, err := do(t, tok, p11.CKF_ENCRYPT, m, key, make([]byte, 16), 16, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("under the old key: %x, %v", got, err)
	}
	a, err := key.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Release()
	blob, _ := a.Get(p11.CKA_IBM_OPAQUE)
	moved, err := tok.moved(t.Context(), toCurrent, blob)
	if err != nil {
		t.Fatal(err)
	}
	beside := a.Clone()
	beside.Set(p11.CKA_IBM_OPAQUE_REENC, moved)
	both := tokens.NewObject(tokens.NewHandle(), "", beside)
	defer both.Drop()
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	if got, err := do(t, tok, p11.CKF_ENCRYPT, m, both, make([]byte, 16), 16, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("with the token beside it: %x, %v", got, err)
	}
	if _, err := do(t, tok, p11.CKF_ENCRYPT, m, key, make([]byte, 16), 16, nil); p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !errors.Is(err, cca.ErrToken) {
		t.Errorf("a lost key: %v", err)
	}
}

// TestReencipher puts stored keys of each sort under another master key while they are used,
// is cut off on its way, and goes on.
func TestReencipher(t *testing.T) {
	t.Parallel()
	d := newCards(t)
	tok := open(t, place(t, t.TempDir()), d).(*token)
	defer func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx := t.Context()
	var list []*tokens.Object
	store := func(a p11.Attributes) {
		t.Helper()
		a.SetBool(p11.CKA_TOKEN, true)
		a.SetBool(p11.CKA_PRIVATE, false)
		o, err := tok.Create(ctx, a)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	length := p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(16))}}
	for _, c := range []struct {
		m p11.MechanismType
		a p11.Attributes
	}{{p11.CKM_AES_KEY_GEN, length}, {p11.CKM_DES3_KEY_GEN, nil}, {p11.CKM_GENERIC_SECRET_KEY_GEN, length}} {
		a, err := tok.GenerateKey(ctx, p11.Mechanism{Type: c.m}, c.a.Clone())
		if err == nil {
			a, err = tok.Adopt(ctx, a)
		}
		if err != nil {
			t.Fatal(err)
		}
		store(a)
	}
	curve, _ := p11.CurveNamed("secp256r1")
	pub, priv, err := tok.GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []p11.Attributes{pub, priv} {
		if a, err = tok.Adopt(ctx, a); err != nil {
			t.Fatal(err)
		}
		store(a)
	}
	if _, err := tok.Reencipher(ctx, nil); p11.RVOf(err) != p11.CKR_ACTION_PROHIBITED {
		t.Errorf("there is no next key: %v", err)
	}
	for _, m := range softcca.Masters() {
		d.change(t, m, soft.ChangeNew, soft.ChangeCommit)
	}
	cut, cancel := context.WithCancel(ctx)
	if _, err := tok.Reencipher(cut, func(done, _ int) {
		if done == 2 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	if n, err := tok.Reencipher(ctx, nil); err != nil || n != len(list)-1-2 {
		t.Errorf("%d keys, %v", n, err)
	}
	if _, err := tok.FinalizeReencipher(ctx, nil); p11.RVOf(err) != p11.CKR_ACTION_PROHIBITED {
		t.Errorf("the next key is not set: %v", err)
	}
	signs := func(what string) {
		t.Helper()
		o, err := tok.ByHandle(list[4].Handle)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_ECDSA}, o, make([]byte, 32), 32, nil)
		if err == nil {
			_, err = do(t, tok, p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_ECDSA}, list[3], make([]byte, 32), 32, sig)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	signs("before")
	for _, m := range softcca.Masters() {
		d.change(t, m, soft.ChangeActivate)
	}
	signs("set")
	if n, err := tok.FinalizeReencipher(ctx, nil); err != nil || n != len(list)-1 {
		t.Errorf("%d keys, %v", n, err)
	}
	for _, m := range softcca.Masters() {
		d.change(t, m, soft.ChangeNew, soft.ChangeCommit)
	}
	if _, err := tok.Reencipher(ctx, nil); err != nil {
		t.Error(err)
	}
	if n, err := tok.CancelReencipher(ctx, nil); err != nil || n != len(list)-1 {
		t.Errorf("%d keys, %v", n, err)
	}
	signs("cancelled")
}
