package ep11tok

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

const (
	bothModes = "APQN_ANY STRICT_MODE VHSM_MODE"
	userPIN   = "1234abcd"
	cardsPIN  = "vhsm-pin"
)

// A house is a token whose keys are bound to logins, with its cards.
type house struct {
	*testing.T
	*token
	cards string // their directory
}

// newHouse makes one. Its user has a PIN, and so has the login that all share.
func newHouse(t *testing.T, b bed, dir string) *house {
	t.Helper()
	var cards string
	if b.via == nil {
		b.via, cards = softCard(t)
	}
	h := &house{t, b.token(t, dir), cards}
	if err := h.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "mine"); err != nil {
		t.Fatal(err)
	}
	so, err := h.Login(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN))
	if err == nil {
		err = errors.Join(h.InitPIN(t.Context(), so, tokentest.PIN(t, userPIN)), so.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if h.conf.vhsm {
		h.setPIN(cardsPIN)
	}
	return h
}

func (h *house) setPIN(pin string) {
	h.Helper()
	l, err := h.Login(h.Context(), p11.CKU_USER, tokentest.PIN(h, userPIN))
	if err != nil {
		h.Fatal(err)
	}
	if err := h.SetSessionPIN(h.Context(), tokentest.PIN(h, pin)); err != nil {
		h.Fatal(err)
	}
	if err := l.Close(); err != nil {
		h.Fatal(err)
	}
}

// login is a login, and the context of calls by who has it.
func (h *house) login() (tokens.Login, context.Context) {
	h.Helper()
	l, err := h.Login(h.Context(), p11.CKU_USER, tokentest.PIN(h, userPIN))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = l.Close() })
	return l, tokens.WithLogin(h.Context(), l)
}

// key makes a key, which is stored if it is to be in the token.
func (h *house) key(ctx context.Context, text string) (*tokens.Object, error) {
	h.Helper()
	a, err := p11.ParseTemplate("key-type=generic-secret value-len=32 sign=true verify=true class=secret-key sensitive=true extractable=true " + text)
	if err != nil {
		h.Fatal(err)
	}
	if a, err = h.GenerateKey(ctx, p11.Mechanism{Type: p11.CKM_GENERIC_SECRET_KEY_GEN}, a); err != nil {
		return nil, err
	}
	if a, err = h.Adopt(ctx, a); err != nil {
		h.Fatal(err)
	}
	if a.Bool(p11.CKA_TOKEN) {
		return h.Create(ctx, a)
	}
	return tokens.NewObject(tokens.NewHandle(), "", a), nil
}

func (h *house) must(ctx context.Context, text string) *tokens.Object {
	h.Helper()
	o, err := h.key(ctx, text)
	if err != nil {
		h.Fatal(err)
	}
	return o
}

// session is the identifier of that which a key is bound to.
func (h *house) session(o *tokens.Object) []byte {
	h.Helper()
	a, err := o.Acquire()
	if err != nil {
		h.Fatal(err)
	}
	defer o.Release()
	blob, _ := a.Get(p11.CKA_IBM_OPAQUE)
	return ep11.Blob(blob).Session()
}

// sign uses a key.
func (h *house) sign(o *tokens.Object) error {
	_, err := h.once(h.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o, []byte("data"), nil)
	return err
}

// wants checks how many logins the cards know at all domains together, and how many records
// there are.
func (h *house) wants(logins, records int) {
	h.Helper()
	files, err := filepath.Glob(filepath.Join(h.cards, "sessions", "*.*", "*"))
	if err != nil || len(files) != logins {
		h.Errorf("the cards know %d logins, not %d (%v): %v", len(files), logins, err, files)
	}
	list, err := h.hiddenOf(h.Context(), sessionRecord)
	if err != nil || len(list) != records {
		h.Errorf("there are %d records, not %d (%v)", len(list), records, err)
	}
}

// TestSessionsBind: which keys are bound to which session, and what becomes of them when it ends.
func TestSessionsBind(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bed{conf: bothModes}, t.TempDir())
	h.wants(0, 0)
	one, ctx := h.login()
	other, otherCtx := h.login()
	h.wants(3, 2) // theirs, and that of both
	mine, theirs := h.must(ctx, "token=false private=true"), h.must(otherCtx, "token=false private=true")
	kept, free := h.must(ctx, "token=true private=true"), h.must(ctx, "token=false private=false")
	if a, b, c := h.session(mine), h.session(theirs), h.session(kept); a == nil || b == nil || c == nil || bytes.Equal(a, b) || bytes.Equal(a, c) || h.session(free) != nil {
		t.Errorf("keys are bound to %x, %x, %x and %x", a, b, c, h.session(free))
	}
	for _, k := range []*tokens.Object{mine, theirs, kept, free} {
		if err := h.sign(k); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.key(t.Context(), "token=false private=true"); p11.RVOf(err) != p11.CKR_USER_NOT_LOGGED_IN {
		t.Errorf("a key of nobody's login: %v", err)
	}
	a, err := mine.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	copied := a.Clone()
	mine.Release()
	copied.SetBool(p11.CKA_TOKEN, true)
	if _, err := h.Create(t.Context(), copied); p11.RVOf(err) != p11.CKR_ATTRIBUTE_VALUE_INVALID {
		t.Errorf("a copy in the token of a key that ends with its login: %v", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	h.wants(2, 1)
	if err := h.sign(mine); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a key whose login has ended: %v", err)
	}
	if _, err := h.key(ctx, "token=false private=true"); p11.RVOf(err) != p11.CKR_USER_NOT_LOGGED_IN {
		t.Errorf("a new key of a login that has ended: %v", err)
	}
	for _, k := range []*tokens.Object{theirs, kept} {
		if err := h.sign(k); err != nil {
			t.Error(err)
		}
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	h.wants(0, 0)
	_, _ = h.login()
	again, err := h.Find(t.Context(), p11.Attributes{{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}}, true)
	if err != nil || len(again) != 1 {
		t.Fatalf("%d keys, %v", len(again), err)
	}
	if err := h.sign(again[0]); err != nil {
		t.Errorf("a key of the login that all share, at the next one: %v", err)
	}
}

// TestSessionsModes: with one of the words alone the keys of the other are not bound.
func TestSessionsModes(t *testing.T) {
	t.Parallel()
	for conf, want := range map[string][2]bool{
		"APQN_ANY": {false, false}, "APQN_ANY STRICT_MODE": {true, false}, "APQN_ANY VHSM_MODE": {true, true}, bothModes: {true, true},
	} {
		t.Run(conf, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, bed{conf: conf}, t.TempDir())
			_, ctx := h.login()
			for i, text := range []string{"token=false private=true", "token=true private=true", "token=false private=false", "token=true private=false"} {
				if bound := h.session(h.must(ctx, text)) != nil; bound != (i < 2 && want[i]) {
					t.Errorf("%s: bound: %v", text, bound)
				}
			}
		})
	}
}

// TestSessionsPair: of a pair the public half is bound only if it is private, too.
func TestSessionsPair(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bed{conf: "APQN_ANY VHSM_MODE"}, t.TempDir())
	l, ctx := h.login()
	for _, private := range []bool{false, true} {
		public, err := p11.ParseTemplate("class=public-key key-type=ec ec-params=secp256r1 verify=true token=true")
		if err != nil {
			t.Fatal(err)
		}
		public.SetBool(p11.CKA_PRIVATE, private)
		secretHalf, err := p11.ParseTemplate("class=private-key key-type=ec sign=true token=true private=true sensitive=true")
		if err != nil {
			t.Fatal(err)
		}
		pub, priv, err := h.GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, public, secretHalf)
		if err != nil {
			t.Fatal(err)
		}
		o, err := h.CreateAll(ctx, []p11.Attributes{pub, priv})
		if err != nil {
			t.Fatal(err)
		}
		if (h.session(o[0]) != nil) != private || h.session(o[1]) == nil {
			t.Errorf("private %v: the halves are bound to %x and %x", private, h.session(o[0]), h.session(o[1]))
		}
		m := p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}
		sig, err := h.once(ctx, p11.CKF_SIGN, m, o[1], []byte("data"), nil)
		if err != nil {
			t.Fatal(err)
		}
		check := func() error {
			_, err := h.once(t.Context(), p11.CKF_VERIFY, m, o[0], []byte("data"), sig)
			return err
		}
		if err := check(); err != nil {
			t.Error(err)
		}
		if private {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := check(); err != nil {
			t.Errorf("nobody is logged in: %v", err)
		}
		l, ctx = h.login()
	}
}

// TestSessionsWrapped: keys that are brought in, unwrapped and derived are bound as those that
// are made, and bound keys wrap bound keys.
func TestSessionsWrapped(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bed{conf: bothModes}, t.TempDir())
	_, ctx := h.login()
	parse := func(text string) p11.Attributes {
		t.Helper()
		a, err := p11.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	adopt := func(a p11.Attributes, err error) *tokens.Object {
		t.Helper()
		if err == nil {
			a, err = h.Adopt(ctx, a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tokens.NewObject(tokens.NewHandle(), "", a)
	}
	kek := adopt(parse("class=secret-key key-type=aes token=true private=true wrap=true unwrap=true value=0x603deb1015ca71be2b73aef0857d7781"), nil)
	key := adopt(parse("class=secret-key key-type=generic-secret token=false private=true sign=true extractable=true value=0x00112233445566778899aabbccddeeff"), nil)
	m := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))}
	wrapped, err := h.WrapKey(ctx, m, kek, key)
	if err != nil {
		t.Fatal(err)
	}
	back := adopt(h.UnwrapKey(ctx, m, kek, wrapped, parse("class=secret-key key-type=generic-secret token=false private=true sign=true")))
	if k, s, b := h.session(kek), h.session(key), h.session(back); k == nil || s == nil || bytes.Equal(k, s) || !bytes.Equal(s, b) {
		t.Errorf("bound to %x, %x and %x", k, s, b)
	}
	if err := h.sign(back); err != nil {
		t.Error(err)
	}
}

// TestSessionsLost: a card that loses its logins, or was not there when somebody logged in, has
// them again at the next use, and nobody notices.
func TestSessionsLost(t *testing.T) {
	t.Parallel()
	list := []card.APQN{{Adapter: 0, Domain: 1}, {Adapter: 0, Domain: 2}}
	via, dir := softCard(t, list...)
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	online := func(a card.APQN, on bool) {
		t.Helper()
		if err := set.SetOnline(a, on); err != nil {
			t.Fatal(err)
		}
	}
	late := time.Duration(0)
	h := newHouse(t, bed{via: via, conf: "APQN_ALLOWLIST 0 1 0 2 END STRICT_MODE VHSM_MODE", now: func() time.Time { return time.Now().Add(late) }}, t.TempDir())
	h.cards = dir
	l, ctx := h.login()
	h.wants(4, 1)
	mine, kept := h.must(ctx, "token=false private=true"), h.must(ctx, "token=true private=true")
	use := func(what string) {
		t.Helper()
		for _, k := range []*tokens.Object{mine, kept} {
			if err := h.sign(k); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		h.must(ctx, "token=false private=true")
	}
	if err := os.RemoveAll(filepath.Join(dir, "sessions", "00.0001")); err != nil {
		t.Fatal(err)
	}
	use("a card has lost its logins")
	h.wants(4, 1)
	online(list[0], false)
	use("one card of two is gone")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.wants(2, 0)
	online(list[0], true)
	_, ctx = h.login()
	mine = h.must(ctx, "token=false private=true")
	if kept, err = h.ByName(kept.Name); err != nil {
		t.Fatal(err)
	}
	online(list[0], false)
	online(list[1], false)
	if err := h.sign(mine); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("no card is there: %v", err)
	}
	// Who logs in now has the objects, and keys when a card is back.
	_, otherCtx := h.login()
	if found, err := h.Find(t.Context(), nil, true); err != nil || len(found) != 1 {
		t.Errorf("%d objects, %v", len(found), err)
	}
	online(list[1], true)
	late += time.Minute
	if err := h.sign(h.must(otherCtx, "token=false private=true")); err != nil {
		t.Errorf("a card is back: %v", err)
	}
	use("a card is back")
}

// TestSessionsWrappingKey: the wrapping key of a card changes under logins, and bound keys with it.
func TestSessionsWrappingKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bed{conf: bothModes}, t.TempDir())
	l, ctx := h.login()
	kept := h.must(ctx, "token=true private=true")
	set, err := soft.OpenSet(h.cards)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	change := func(step string) {
		t.Helper()
		if err := set.Change(nil, soft.WK, step); err != nil {
			t.Fatal(err)
		}
	}
	change(soft.ChangeNew)
	change(soft.ChangeCommit)
	if n, err := h.Reencipher(ctx, nil); n != 1 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	change(soft.ChangeActivate)
	if kept, err = h.ByHandle(kept.Handle); err != nil {
		t.Fatal(err)
	}
	if err := h.sign(kept); err != nil {
		t.Error(err)
	}
	if err := h.sign(h.must(ctx, "token=false private=true")); err != nil {
		t.Error(err)
	}
	if n, err := h.FinalizeReencipher(ctx, nil); n != 1 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.wants(0, 0)
}

// TestSessionsEnd: whatever ends a login ends its sessions.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *house, tokens.Login){
		"the token is closed": func(t *testing.T, h *house, _ tokens.Login) {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		},
		"the token is initialised": func(t *testing.T, h *house, l tokens.Login) {
			if err := h.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "new"); err != nil {
				t.Error(err)
			}
			if err := l.Valid(); err == nil {
				t.Error("the login goes on")
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		},
		"it is closed twice": func(t *testing.T, _ *house, l tokens.Login) {
			for range 2 {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, bed{conf: bothModes}, t.TempDir())
			l, ctx := h.login()
			h.must(ctx, "token=false private=true")
			h.wants(2, 1)
			end(t, h, l)
			if left, _ := filepath.Glob(filepath.Join(h.cards, "sessions", "*.*", "*")); len(left) > 0 {
				t.Errorf("the cards still know %v", left)
			}
		})
	}
}

// plant puts a record into the token, as the process pid would have it.
func (h *house) plant(pid uint32, change func(*p11.Attributes)) {
	h.Helper()
	id := bytes.Repeat([]byte{7}, recordID)
	blob, err := ep11.Login(h.Context(), h.token.cards.via, nil, []byte(strictPIN), strictNonce(id))
	if err != nil {
		h.Fatal(err)
	}
	a := hiddenObject(sessionRecord, sessionTitle, blob)
	a.Set(p11.CKA_LABEL, []byte(recordLabel))
	a.Set(p11.CKA_ID, id)
	a.Set(p11.CKA_APPLICATION, targetsOf(h.Order(), nil, []string{"P11FS"}))
	a.Set(p11.CKA_OWNER, binary.NativeEndian.AppendUint32(nil, pid))
	a.Set(p11.CKA_START_DATE, []byte("20260101"))
	if change != nil {
		change(&a)
	}
	if _, err := h.Store.Create(h.Context(), a); err != nil {
		h.Fatal(err)
	}
}

// TestSessionsSwept: what processes left that were killed goes with the next login, and nothing
// of one that lives.
func TestSessionsSwept(t *testing.T) {
	t.Parallel()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		pid           uint32
		change        func(*p11.Attributes)
		stays, logged int // records and logins that are left beside those of who logs in
	}{
		"of one that has ended":   {pid: uint32(ended.Process.Pid)},
		"of one that lives":       {pid: uint32(os.Getppid()), stays: 1, logged: 1},
		"of one before with ours": {pid: uint32(os.Getpid())},
		"of a number of none":     {pid: 1 << 31},
		"before the card's answer was written": {pid: 1 << 31, change: func(a *p11.Attributes) {
			a.Set(p11.CKA_VALUE, make([]byte, pinBlobSize))
		}},
		"of another wrapping key": {pid: 1 << 31, change: func(a *p11.Attributes) {
			v, _ := a.Get(p11.CKA_VALUE)
			v = bytes.Clone(v)
			v[pinBlobSize-1]++
			a.Set(p11.CKA_VALUE, v)
		}},
		"of stock's, whose number may be of another container": {pid: uint32(ended.Process.Pid), stays: 1, logged: 1, change: func(a *p11.Attributes) {
			a.Set(p11.CKA_LABEL, []byte{})
		}},
		"without an owner":           {change: func(a *p11.Attributes) { a.Delete(p11.CKA_OWNER) }},
		"that names too many cards":  {pid: 1 << 31, logged: 1, change: func(a *p11.Attributes) { a.Set(p11.CKA_APPLICATION, bytes.Repeat([]byte{0xff}, targetsSize)) }},
		"that is no record":          {pid: 1 << 31, logged: 1, change: func(a *p11.Attributes) { a.Set(p11.CKA_VALUE, []byte("short")) }},
		"public, which anybody made": {pid: 1 << 31, logged: 1, change: func(a *p11.Attributes) { a.SetBool(p11.CKA_PRIVATE, false) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, bed{conf: "APQN_ANY STRICT_MODE"}, t.TempDir())
			l, err := h.Store.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)) // without a session
			if err != nil {
				t.Fatal(err)
			}
			h.plant(tt.pid, tt.change)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, _ = h.login()
			h.wants(1+tt.logged, 1+tt.stays)
			if shown, err := h.Find(t.Context(), nil, true); err != nil || len(shown) != 0 {
				t.Errorf("%d objects show, %v", len(shown), err)
			}
			if public, private := h.Counts(); public != 0 || private != 0 {
				t.Errorf("%d public and %d private objects are counted", public, private)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSessionsSweptLater: what a process left at a card that does not answer stays until it does.
func TestSessionsSweptLater(t *testing.T) {
	t.Parallel()
	list := []card.APQN{{Adapter: 0, Domain: 1}, {Adapter: 0, Domain: 2}}
	via, dir := softCard(t, list...)
	h := newHouse(t, bed{via: via, conf: "APQN_ALLOWLIST 0 1 0 2 END STRICT_MODE"}, t.TempDir())
	h.cards = dir
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	l, err := h.Store.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
	if err != nil {
		t.Fatal(err)
	}
	h.plant(1<<31, func(a *p11.Attributes) { a.Set(p11.CKA_APPLICATION, targetsOf(h.Order(), list, nil)) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := set.SetOnline(list[0], false); err != nil {
		t.Fatal(err)
	}
	l, _ = h.login()
	h.wants(1+1, 1+1) // the planted one is at the first card, which is gone
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := set.SetOnline(list[0], true); err != nil {
		t.Fatal(err)
	}
	l, _ = h.login()
	defer l.Close()
	h.wants(2, 1) // its own at both
}

// TestSessionPIN: what the PIN of the login that all share has to be, and what becomes of keys when
// it is another.
func TestSessionPIN(t *testing.T) {
	t.Parallel()
	h := newHouse(t, bed{conf: "APQN_ANY"}, t.TempDir())
	h.conf.vhsm = true
	l, ctx := h.login()
	for _, pin := range []string{"", "1234567", "12345678901234567"} {
		if err := h.SetSessionPIN(ctx, tokentest.PIN(t, pin)); p11.RVOf(err) != p11.CKR_PIN_LEN_RANGE {
			t.Errorf("a PIN of %d bytes: %v", len(pin), err)
		}
	}
	if _, err := h.key(ctx, "token=true private=true"); p11.RVOf(err) != p11.CKR_USER_PIN_NOT_INITIALIZED {
		t.Errorf("a key without a PIN: %v", err)
	}
	if err := h.SetSessionPIN(ctx, tokentest.PIN(t, cardsPIN)); err != nil {
		t.Fatal(err)
	}
	kept := h.must(ctx, "token=true private=true")
	// The session is the one that stock's library asks for.
	want, err := ep11.Login(ctx, h.token.cards.via, nil, append([]byte(cardsPIN), make([]byte, mostPIN-len(cardsPIN))...), append([]byte{0, 0, 0, 0}, "VHSM-session"...))
	if err != nil || !bytes.Equal(h.session(kept), want[:ep11.SessionLen]) {
		t.Errorf("bound to %x, not %x (%v)", h.session(kept), want[:ep11.SessionLen], err)
	}
	if err := h.SetSessionPIN(ctx, tokentest.PIN(t, "other-one")); err != nil {
		t.Fatal(err)
	}
	if err := h.sign(kept); err != nil {
		t.Errorf("the login goes on as it was: %v", err)
	}
	uses := func(want p11.RV) {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, ctx = h.login()
		kept, err := h.ByHandle(kept.Handle)
		if err == nil {
			err = h.sign(kept)
		}
		if p11.RVOf(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	name := kept.Name
	again := func() {
		t.Helper()
		if kept, err = h.ByName(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, ctx = h.login()
	again()
	uses(p11.CKR_OBJECT_HANDLE_INVALID)
	again()
	if err := h.sign(kept); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a key of another PIN: %v", err)
	}
	if err := h.SetSessionPIN(ctx, tokentest.PIN(t, cardsPIN)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _ = h.login()
	again()
	if err := h.sign(kept); err != nil {
		t.Errorf("the PIN before is set again: %v", err)
	}
	if list, err := h.hiddenOf(ctx, vhsmPIN); err != nil || len(list) != 1 {
		t.Errorf("%d PINs are kept, %v", len(list), err)
	}
	for text, rv := range map[string]p11.RV{"class=data hidden=true": p11.CKR_ATTRIBUTE_TYPE_INVALID, "class=data hidden=false": p11.CKR_ATTRIBUTE_TYPE_INVALID} {
		a, err := p11.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Adopt(ctx, a); p11.RVOf(err) != rv {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSessionsApart: a key that somebody put from one token's directory into another's is of no
// use there, where both tokens bind their keys.
func TestSessionsApart(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	one, two := newHouse(t, bed{via: via, conf: "APQN_ANY VHSM_MODE"}, t.TempDir()), newHouse(t, bed{via: via, conf: "APQN_ANY VHSM_MODE"}, t.TempDir())
	two.setPIN("another one")
	_, ctx := one.login()
	_, otherCtx := two.login()
	key := one.must(ctx, "token=true private=true")
	two.must(otherCtx, "token=true private=true")
	if err := two.sign(key); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a key of another token's login: %v", err)
	}
	if err := one.sign(key); err != nil {
		t.Error(err)
	}
}

// TestSessionsToken runs the suite of all tokens where keys are bound to logins.
func TestSessionsToken(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN, Shown: securekey.Blobs(),
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			tok, err := bed{via: via, conf: bothModes}.open(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			return pinned{tok.(*token)}
		},
	})
}

// pinned is a token whose user gives the login that all share a PIN at once.
type pinned struct{ *token }

func (p pinned) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	if err := p.token.InitPIN(ctx, so, pin); err != nil {
		return err
	}
	l, err := p.Login(ctx, p11.CKU_USER, pin)
	if err != nil {
		return err
	}
	shared, err := secret.New([]byte(cardsPIN))
	if err != nil {
		return err
	}
	return errors.Join(p.SetSessionPIN(ctx, shared), shared.Close(), l.Close())
}

// TestTargets reads what it writes, and what stock of before serial numbers has.
func TestTargets(t *testing.T) {
	list := card.Target{{Adapter: 1, Domain: 2}, {Adapter: 255, Domain: 7}}
	serials := []string{"0123456789abcdef", "P11FS\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	b := targetsOf(binary.LittleEndian, list, serials)
	got, numbers, ok := readTargets(binary.LittleEndian, b)
	if !ok || !slices.Equal(got, list) || !slices.Equal(numbers, serials) || len(b) != 1028+2*16 {
		t.Errorf("%v, %q, %v of %d bytes", got, numbers, ok, len(b))
	}
	for i := 0; i < targetsSize; i += 2 { // as a machine of the other order has it
		b[i], b[i+1] = b[i+1], b[i]
	}
	if got, _, ok := readTargets(binary.BigEndian, b); !ok || !slices.Equal(got, list) {
		t.Errorf("of the other order: %v, %v", got, ok)
	}
	if got, numbers, ok := readTargets(binary.BigEndian, make([]byte, 1028)); !ok || got != nil || numbers != nil {
		t.Errorf("of any card: %v, %q, %v", got, numbers, ok)
	}
}

// FuzzTargets has what reads print back the same.
func FuzzTargets(f *testing.F) {
	f.Add(targetsOf(binary.BigEndian, card.Target{{Adapter: 1, Domain: 2}}, []string{"0123456789abcdef"}))
	f.Add(targetsOf(binary.BigEndian, nil, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, serials, ok := readTargets(binary.BigEndian, b)
		if !ok {
			return
		}
		again, numbers, ok := readTargets(binary.BigEndian, targetsOf(binary.BigEndian, list, serials))
		if !ok || !slices.Equal(again, list) || !slices.Equal(numbers, serials) {
			t.Errorf("%v %q became %v %q", list, serials, again, numbers)
		}
	})
}
