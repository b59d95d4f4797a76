package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"p11fs/engine/grants"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// www is who has grants in these tests.
const www = 33

// grant has the engine go by these lines.
func (b *bench) grant(t testing.TB, lines ...string) {
	t.Helper()
	set := &grants.Set{}
	for _, line := range lines {
		g, err := grants.Parse(line, grants.Names{})
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		set.List = append(set.List, g)
	}
	b.SetGrants(set)
}

func (b *bench) hold(t testing.TB) {
	t.Helper()
	if err := b.slot.Hold(t.Context(), Owner{Door: "test"}, pin(t, "1234")); err != nil {
		t.Fatal(err)
	}
}

// service is a session of somebody without a login.
func (b *bench) service(t testing.TB, uid uint32) *Session {
	t.Helper()
	return b.session(t, b.NewApplication(Owner{UID: uid, GID: uid, Command: "svc"}, ForPrograms), rw)
}

// granted is a bench with a pair and secret keys, and a service that has grants.
func grantedBench(t *testing.T, lines ...string) (b *bench, s *Session) {
	t.Helper()
	b = newBench(t, hooks.Options{})
	maker := b.user(t)
	generateEC(t, maker, "token=true label=web id=0x01 verify=true", "token=true label=web id=0x01 sign=true derive=true")
	for _, k := range []string{" label=box", " label=other", " label=open extractable=true sensitive=false derive=true wrap=true unwrap=true"} {
		create(t, maker, aesKey+" token=true private=true encrypt=true decrypt=true"+k)
	}
	create(t, maker, "class=data token=true private=true label=web")
	create(t, maker, aesKey+" private=true label=web") // of its session
	b.grant(t, lines...)
	b.hold(t)
	return b, b.service(t, www)
}

func one(t testing.TB, s *Session, template string) p11.ObjectHandle {
	t.Helper()
	list, err := s.Find(t.Context(), tmpl(t, template))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %d objects, %v; want one", template, len(list), err)
	}
	return list[0]
}

func sign(t testing.TB, s *Session, key p11.ObjectHandle, mechanism string) error {
	t.Helper()
	if err := s.Init(t.Context(), p11.CKF_SIGN, mech(t, mechanism), key); err != nil {
		return err
	}
	_, err := s.Do(t.Context(), p11.CKF_SIGN, make([]byte, 32), nil, NoLimit)
	return err
}

const webGrant = "user=33 token=tok label=web functions=sign mechanisms=ecdsa,ecdsa-sha256"

// Who has a grant sees and uses that key, and nothing else that is private.
func TestGrants(t *testing.T) {
	ctx := t.Context()
	b, s := grantedBench(t, "user=33 token=tok label=web functions=sign mechanisms=ecdsa-sha256,ecdsa-sha384")
	list, err := s.Find(ctx, tmpl(t, "private=true"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%d private objects, %v; want the granted one", len(list), err)
	}
	key := list[0]
	if all, _ := s.Find(ctx, nil); len(all) != 2 {
		t.Errorf("%d objects: want the pair", len(all))
	}
	if infos, err := b.NewApplication(Owner{UID: www}, ForPeople).Objects(ctx, b.slot, nil); err != nil || len(infos) != 2 {
		t.Errorf("%d objects without a session, %v", len(infos), err)
	}
	if _, in := s.Application().LoggedIn(b.slot); in {
		t.Error("a grant is a login")
	}
	want(t, sign(t, s, key, "ecdsa-sha256"), p11.CKR_OK)
	for uid, is := range map[uint32]bool{www: false, 34: true} {
		if info, err := b.service(t, uid).Application().TokenInfo(ctx, b.slot); err != nil || info.Flags&p11.CKF_LOGIN_REQUIRED != 0 != is {
			t.Errorf("uid %d: a login is wanted: %v, %v", uid, !is, err)
		}
	}
	for name, c := range map[string]struct {
		rv   p11.RV
		call func() error
	}{
		"another mechanism": {p11.CKR_MECHANISM_INVALID, func() error { return sign(t, s, key, "ecdsa") }},
		"another function": {p11.CKR_KEY_FUNCTION_NOT_PERMITTED, func() error {
			peer := one(t, s, "class=public-key")
			point, err := s.GetAttributeValue(ctx, peer, p11.CKA_EC_POINT)
			if err != nil {
				return err
			}
			_, err = s.DeriveKey(ctx, p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point[0].Value}}, key, tmpl(t, "private=false"))
			return err
		}},
		"change":  {p11.CKR_ACTION_PROHIBITED, func() error { return s.SetAttributeValue(ctx, key, tmpl(t, "label=mine")) }},
		"destroy": {p11.CKR_ACTION_PROHIBITED, func() error { return s.DestroyObject(ctx, key) }},
		"copy": {p11.CKR_ACTION_PROHIBITED, func() error {
			_, err := s.CopyObject(ctx, key, tmpl(t, "private=true"))
			return err
		}},
		"wrap": {p11.CKR_KEY_UNEXTRACTABLE, func() error {
			own := create(t, s, aesKey+" wrap=true private=false")
			_, err := s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), own, key)
			return err
		}},
		"the security officer": {p11.CKR_OK, func() error {
			so := b.service(t, www)
			logIn(t, so, p11.CKU_SO, "87654321")
			if list, err := so.Find(ctx, tmpl(t, "private=true")); err != nil || len(list) != 0 {
				t.Errorf("the SO sees %d private objects, %v", len(list), err)
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) { want(t, c.call(), c.rv) })
	}
	for a, is := range map[p11.AttributeType]bool{
		p11.CKA_SIGN: true, p11.CKA_DERIVE: false, p11.CKA_SENSITIVE: true, p11.CKA_EXTRACTABLE: false, p11.CKA_MODIFIABLE: false, p11.CKA_COPYABLE: false, p11.CKA_DESTROYABLE: false,
	} {
		if flag(t, s, key, a) != is {
			t.Errorf("%s is %v to the service", a.Short(), !is)
		}
	}
	if r := get(t, s, key, p11.CKA_ALLOWED_MECHANISMS); !bytes.Equal(r.Value, append(p11.Ulong(p11.CKM_ECDSA_SHA256), p11.Ulong(p11.CKM_ECDSA_SHA384)...)) {
		t.Errorf("allowed mechanisms: %x", r.Value)
	}
	want(t, get(t, s, key, p11.CKA_VALUE).Err, p11.CKR_ATTRIBUTE_SENSITIVE)

	other := b.service(t, 34)
	checkAbsent(t, "another's granted key", other, key)
	if list, err := other.Find(ctx, tmpl(t, "private=true")); err != nil || len(list) != 0 {
		t.Errorf("another sees %d private objects, %v", len(list), err)
	}
}

// A key that can be read by its owner cannot by who has it by a grant, in whatever way.
func TestGrantsGiveNoValue(t *testing.T) {
	ctx := t.Context()
	_, s := grantedBench(t, "user=33 token=tok label=open functions=encrypt,decrypt,wrap,unwrap,derive,sign")
	key := one(t, s, "label=open")
	want(t, get(t, s, key, p11.CKA_VALUE).Err, p11.CKR_ATTRIBUTE_SENSITIVE)
	for template, n := range map[string]int{"label=open sensitive=false": 0, "label=open value=0x000102030405060708090a0b0c0d0e0f": 0, "label=open value-len=16": 1} {
		if list, err := s.Find(ctx, tmpl(t, template)); err != nil || len(list) != n {
			t.Errorf("%s: %d objects, %v; want %d", template, len(list), err, n)
		}
	}
	want(t, s.Init(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0), p11.CKR_OK)
	want(t, s.DigestKey(ctx, key), p11.CKR_KEY_INDIGESTIBLE)
	own := create(t, s, aesKey+" wrap=true derive=true private=false")
	_, err := s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), own, key)
	want(t, err, p11.CKR_KEY_UNEXTRACTABLE)
	_, err = s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), key, key)
	want(t, err, p11.CKR_KEY_UNEXTRACTABLE)
	_, err = s.DeriveKey(ctx, p11.Mechanism{Type: p11.CKM_CONCATENATE_BASE_AND_KEY, Param: p11.OtherKey(key)}, own, tmpl(t, "private=false"))
	want(t, err, p11.CKR_ACTION_PROHIBITED)
	// What is cut out of it is as secret as it is.
	_, err = s.DeriveKey(ctx, mech(t, "extract-key-from-key,bit=0"), key, tmpl(t, "private=false value-len=8 sensitive=false extractable=true"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	part, err := s.DeriveKey(ctx, mech(t, "extract-key-from-key,bit=0"), key, tmpl(t, "private=false value-len=8"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, get(t, s, part, p11.CKA_VALUE).Err, p11.CKR_ATTRIBUTE_SENSITIVE)
	if flag(t, s, part, p11.CKA_EXTRACTABLE) {
		t.Error("a part of the key is extractable")
	}
}

// Without a login that is held grants give nothing; with its end, or without the grant, the
// next operation is refused, also where it has begun.
func TestGrantsEnd(t *testing.T) {
	ctx := context.Background()
	for name, end := range map[string]func(b *bench, maker *Session) error{
		"released":      func(b *bench, _ *Session) error { b.slot.Release("test"); return nil },
		"no grant":      func(b *bench, _ *Session) error { b.SetGrants(nil); return nil },
		"another grant": func(b *bench, _ *Session) error { b.grant(t, strings.Replace(webGrant, "web", "box", 1)); return nil },
		"less of it": func(b *bench, _ *Session) error {
			b.grant(t, strings.Replace(webGrant, ",ecdsa-sha256", "", 1))
			return nil
		},
		"another's":   func(b *bench, _ *Session) error { b.grant(t, strings.Replace(webGrant, "33", "34", 1)); return nil },
		"PIN changed": func(_ *bench, maker *Session) error { return maker.SetPIN(ctx, pin(t, "1234"), pin(t, "12345")) },
		"PIN set anew": func(b *bench, maker *Session) error {
			if err := maker.Logout(ctx); err != nil {
				return err
			}
			logIn(t, maker, p11.CKU_SO, "87654321")
			return maker.InitPIN(ctx, pin(t, "12345"))
		},
		"PIN locked": func(b *bench, _ *Session) error {
			s := b.service(t, 50)
			for range 3 {
				_ = s.Login(ctx, p11.CKU_USER, pin(t, "wrong")) // which locks it
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := grantedBench(t, webGrant, "user=35 token=tok label=box functions=encrypt")
			key := one(t, s, "class=private-key")
			maker := b.service(t, 50)
			if name != "PIN changed" && name != "PIN set anew" && name != "PIN locked" {
				maker = nil
			} else if name != "PIN locked" {
				logIn(t, maker, p11.CKU_USER, "1234")
			}
			generation := s.Application().LoginGeneration(b.slot)
			want(t, s.Init(ctx, p11.CKF_SIGN, mech(t, "ecdsa-sha256"), key), p11.CKR_OK)
			free, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "ecdsa-sha256"), key)
			if err != nil {
				t.Fatal(err)
			}
			defer free.Close()
			if err := end(b, maker); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Do(ctx, p11.CKF_SIGN, []byte("x"), nil, NoLimit); err == nil {
				t.Error("an operation goes on")
			}
			if _, err := free.Update(ctx, []byte("x")); err == nil {
				t.Error("an open file's operation goes on")
			}
			if err := sign(t, s, key, "ecdsa-sha256"); err == nil {
				t.Error("another one begins")
			}
			if s.Application().LoginGeneration(b.slot) == generation {
				t.Error("results that wait are still good")
			}
			if name != "less of it" {
				checkAbsent(t, "the key", s, key)
			}
		})
	}
}

// Another set that has the grant still ends nothing.
func TestGrantsStay(t *testing.T) {
	ctx := t.Context()
	b, s := grantedBench(t, webGrant)
	key := one(t, s, "class=private-key")
	want(t, s.Init(ctx, p11.CKF_SIGN, mech(t, "ecdsa-sha256"), key), p11.CKR_OK)
	b.grant(t, "user=40 token=tok label=box functions=encrypt", webGrant)
	if _, err := s.Do(ctx, p11.CKF_SIGN, []byte("x"), nil, NoLimit); err != nil {
		t.Error(err)
	}
	want(t, sign(t, s, key, "ecdsa-sha256"), p11.CKR_OK)
	// A login of its own sees all, and its end what the grant shows.
	logIn(t, s, p11.CKU_USER, "1234")
	if list, err := s.Find(ctx, tmpl(t, "private=true token=true")); err != nil || len(list) != 5 {
		t.Errorf("%d objects, %v", len(list), err)
	}
	want(t, s.Logout(ctx), p11.CKR_OK)
	want(t, sign(t, s, key, "ecdsa-sha256"), p11.CKR_OK)
}

func TestGrantsOfKeysThatWantThePIN(t *testing.T) {
	b := newBench(t, hooks.Options{})
	maker := b.user(t)
	generateEC(t, maker, "token=true label=card", "token=true label=card always-authenticate=true")
	const line = "user=33 token=tok label=card functions=sign"
	b.grant(t, line)
	b.hold(t)
	s := b.service(t, www)
	if list, err := s.Find(t.Context(), tmpl(t, "class=private-key")); err != nil || len(list) != 0 {
		t.Errorf("%d keys, %v", len(list), err)
	}
	b.grant(t, line+" always-authenticate=granted")
	key := one(t, s, "class=private-key")
	want(t, sign(t, s, key, "ecdsa-sha256"), p11.CKR_OK)
	mine := one(t, maker, "class=private-key")
	want(t, sign(t, maker, mine, "ecdsa-sha256"), p11.CKR_USER_NOT_LOGGED_IN)
}

// A wrong PIN holds nothing, and the login that is held keeps no token from being initialised.
func TestHold(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	want(t, b.slot.Hold(ctx, Owner{}, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
	if _, ok := b.slot.Held(); ok || b.slot.Release("x") {
		t.Error("held with a wrong PIN")
	}
	want(t, b.list()[1].Hold(ctx, Owner{}, pin(t, "1234")), p11.CKR_TOKEN_NOT_PRESENT)
	b.hold(t)
	b.hold(t) // again
	if n := b.token.Logins(); n != 1 {
		t.Errorf("%d logins, want one", n)
	}
	if since, ok := b.slot.Held(); !ok || since.IsZero() {
		t.Error("not held")
	}
	want(t, b.app().InitToken(ctx, b.slot, pin(t, "87654321"), "new"), p11.CKR_OK)
	if _, ok := b.slot.Held(); ok {
		t.Error("held although the token was initialised")
	}
}

// What is refused is logged with the line that grants it.
func TestGrantsLogged(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	token := hooks.New("tok", hooks.Options{})
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, Log: slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}
	create(t, b.user(t), aesKey+" token=true private=true encrypt=true label='a \"b\"'")
	const line = `user=33 token=tok label="a \"b\"" functions=encrypt mechanisms=aes-ctr`
	b.grant(t, line)
	b.hold(t)
	s := b.service(t, www)
	key := one(t, s, "class=secret-key")
	gcm := mech(t, "aes-gcm,iv=000102030405060708090a0b")
	want(t, s.Init(t.Context(), p11.CKF_ENCRYPT, gcm, key), p11.CKR_MECHANISM_INVALID)
	mu.Lock()
	text := out.String()
	mu.Unlock()
	_, quoted, ok := strings.Cut(text, " grant=")
	quoted, err = strconv.QuotedPrefix(quoted)
	if !ok || err != nil {
		t.Fatalf("no line: %s", text)
	}
	more, _ := strconv.Unquote(quoted)
	b.grant(t, line, more)
	want(t, s.Init(t.Context(), p11.CKF_ENCRYPT, gcm, key), p11.CKR_OK)
	if strings.Contains(text, "00010203") {
		t.Error("a key's value is in the log")
	}
}

// stamped is a token whose PIN somebody else may change.
type stamped struct {
	*hooks.Token
	stamp atomic.Pointer[string]
}

func (s *stamped) PINStamp(p11.UserType) string { return *s.stamp.Load() }

// A PIN that another process changes ends the login that the daemon holds; one that is made
// anew by the login itself does not.
func TestPINChangedElsewhere(t *testing.T) {
	token := &stamped{Token: hooks.New("tok", hooks.Options{})}
	set := func(s string) { token.stamp.Store(&s) }
	set("one")
	b := benchOf(t, token.Token, token, Limits{})
	create(t, b.user(t), aesKey+" token=true private=true encrypt=true label=web")
	b.grant(t, "user=33 token=tok label=web functions=encrypt,decrypt")
	b.hold(t)
	s := b.service(t, www)
	key := one(t, s, "label=web")
	gcm := mech(t, "aes-gcm,iv=000102030405060708090a0b")
	want(t, s.Init(t.Context(), p11.CKF_ENCRYPT, gcm, key), p11.CKR_OK)
	set("two")
	if _, err := s.Do(t.Context(), p11.CKF_ENCRYPT, []byte("x"), nil, NoLimit); err == nil {
		t.Error("an operation goes on")
	}
	checkAbsent(t, "the key", s, key)
	if _, ok := b.slot.Held(); ok {
		t.Error("still held")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Grants that come and go beside their use: nothing is used without one, and nothing is left.
func TestGrantsRace(t *testing.T) {
	ctx := t.Context()
	b, _ := grantedBench(t, webGrant)
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := b.service(t, www)
			for range 40 {
				list, err := s.Find(ctx, tmpl(t, "class=private-key"))
				if err != nil || len(list) > 1 {
					t.Errorf("%d keys, %v", len(list), err)
				}
				for _, h := range list {
					_ = sign(t, s, h, "ecdsa-sha256") // or refused
				}
				_ = s.SessionCancel(ctx, p11.CKF_SIGN) // or there is none
			}
		}()
	}
	set := b.grants.Load()
	for i := range 40 {
		switch i % 4 {
		case 0:
			b.SetGrants(nil)
		case 1:
			b.SetGrants(set)
		case 2:
			b.slot.Release("test")
		case 3:
			if err := b.slot.Hold(context.WithoutCancel(ctx), Owner{}, pin(t, "1234")); err != nil {
				t.Error(errors.Join(err))
			}
		}
	}
	wg.Wait()
}
