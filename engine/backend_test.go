package engine_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/hooks"
)

// backends are the kinds of token that the same life is led with.
func backends() map[string]func(*testing.T) tokens.Token {
	return map[string]func(*testing.T) tokens.Token{
		"memory": func(*testing.T) tokens.Token {
			return hooks.New("tok", hooks.Options{Blank: true})
		},
		"swtok": func(t *testing.T) tokens.Token {
			dir := t.TempDir()
			lock, err := locks.Open(filepath.Join(dir, "LCK"), locks.NoGroup)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lock.Close() })
			tok, err := swtok.NewKind(swtok.LoadProvider(slog.New(slog.DiscardHandler))).Open(t.Context(), tokens.Place{Name: "tok", Dir: filepath.Join(dir, "tok"), Lock: lock, Create: true, Group: locks.NoGroup,
				Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			return tok
		},
	}
}

func pin(t *testing.T, text string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func parse(t *testing.T, text string) p11.Attributes {
	t.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return a
}

func mechanism(t *testing.T, text string) p11.Mechanism {
	t.Helper()
	m, err := p11.ParseMechanism(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLife leads the life of a token from its initialisation through all that
// keys are for, with each kind of token.
func TestLife(t *testing.T) {
	for name, open := range backends() {
		t.Run(name, func(t *testing.T) {
			tok := open(t)
			t.Cleanup(func() { ok(t, tok.Close()) })
			e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 0, Token: tok}}})
			ok(t, err)
			defer func() { ok(t, e.Close()) }()
			live(t, e)
		})
	}
}

func live(t *testing.T, e *engine.Engine) {
	ctx := t.Context()
	app := e.NewApplication(engine.Owner{UID: 1}, engine.ForPrograms)
	slot, err := e.SlotNamed("tok")
	ok(t, err)
	ok(t, app.InitToken(ctx, slot, pin(t, "87654321"), "life"))
	s, err := app.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	ok(t, err)
	ok(t, s.Login(ctx, p11.CKU_SO, pin(t, "87654321")))
	ok(t, s.InitPIN(ctx, pin(t, "1234")))
	ok(t, s.Logout(ctx))
	ok(t, s.Login(ctx, p11.CKU_USER, pin(t, "1234")))
	info, err := slot.TokenInfo(ctx)
	ok(t, err)
	if info.Label != "life" || info.Flags&p11.CKF_USER_PIN_INITIALIZED == 0 {
		t.Errorf("token %q, flags %v", info.Label, info.Flags)
	}

	for _, where := range []string{"token=false", "token=true"} {
		t.Run(where, func(t *testing.T) { use(t, s, where) })
	}
	handles, err := s.Find(ctx, parse(t, "label=life-key"))
	ok(t, err)
	// Each round leaves an RSA and an EC pair, an AES key and its unwrapped
	// copy, and a secret.
	if len(handles) != 14 {
		t.Errorf("%d objects, want 14", len(handles))
	}
	ok(t, s.Logout(ctx))
	handles, err = s.Find(ctx, nil)
	ok(t, err)
	if len(handles) != 4 {
		t.Errorf("%d public objects after logout, want the 4 public keys", len(handles))
	}
	ok(t, s.Login(ctx, p11.CKU_USER, pin(t, "1234")))
	handles, err = s.Find(ctx, parse(t, "label=life-key"))
	ok(t, err)
	if len(handles) != 9 {
		t.Errorf("%d objects after the next login, want 9", len(handles))
	}
	for _, h := range handles {
		ok(t, s.DestroyObject(ctx, h))
	}
}

func use(t *testing.T, s *engine.Session, where string) {
	ctx := t.Context()
	where += " label=life-key"
	msg := []byte("a message")
	rsaPub, rsaPriv, err := s.GenerateKeyPair(ctx, mechanism(t, "rsa-pkcs-key-pair-gen"),
		parse(t, where+" modulus-bits=2048"), parse(t, where))
	ok(t, err)
	ecPub, ecPriv, err := s.GenerateKeyPair(ctx, mechanism(t, "ec-key-pair-gen"),
		parse(t, where+" ec-params=secp256r1"), parse(t, where+" derive=true"))
	ok(t, err)
	aes, err := s.GenerateKey(ctx, mechanism(t, "aes-key-gen"), parse(t, where+" value-len=32 extractable=true wrap=true unwrap=true"))
	ok(t, err)
	secret, err := s.CreateObject(ctx, parse(t, where+" class=secret-key key-type=generic-secret value=0x000102030405060708090a0b0c0d0e0f"))
	ok(t, err)

	for _, c := range []struct {
		mech      string
		priv, pub p11.ObjectHandle
	}{
		{"sha256-rsa-pkcs", rsaPriv, rsaPub},
		{"sha256-rsa-pkcs-pss,salt=32", rsaPriv, rsaPub},
		{"ecdsa-sha256", ecPriv, ecPub},
		{"sha256-hmac", secret, secret},
	} {
		m := mechanism(t, c.mech)
		ok(t, s.SignInit(ctx, m, c.priv))
		sig, err := s.Sign(ctx, msg, engine.NoLimit)
		ok(t, err)
		ok(t, s.VerifyInit(ctx, m, c.pub))
		ok(t, s.Verify(ctx, msg, sig))
		sig[len(sig)/2] ^= 1
		ok(t, s.VerifyInit(ctx, m, c.pub))
		if err := s.Verify(ctx, msg, sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
			t.Errorf("%s: a damaged signature gives %v", c.mech, err)
		}
	}
	for _, c := range []struct {
		mech     string
		enc, dec p11.ObjectHandle
	}{
		{"rsa-pkcs-oaep,hash=sha256", rsaPub, rsaPriv},
		{"aes-cbc-pad,iv=0x00000000000000000000000000000000", aes, aes},
		{"aes-gcm,iv=0x000000000000000000000000,tag=128", aes, aes},
	} {
		m := mechanism(t, c.mech)
		ok(t, s.EncryptInit(ctx, m, c.enc))
		out, err := s.Encrypt(ctx, msg, engine.NoLimit)
		ok(t, err)
		ok(t, s.DecryptInit(ctx, m, c.dec))
		back, err := s.Decrypt(ctx, out, engine.NoLimit)
		ok(t, err)
		if !bytes.Equal(back, msg) {
			t.Errorf("%s: %q", c.mech, back)
		}
	}

	wrap := mechanism(t, "aes-cbc-pad,iv=0x00000000000000000000000000000000")
	wrapped, err := s.WrapKey(ctx, wrap, aes, aes)
	ok(t, err)
	_, err = s.UnwrapKey(ctx, wrap, aes, wrapped, parse(t, where+" class=secret-key key-type=aes"))
	ok(t, err)
	point, err := s.GetAttributeValue(ctx, ecPub, p11.CKA_EC_POINT)
	ok(t, err)
	ok(t, point[0].Err)
	derived, err := s.DeriveKey(ctx, p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point[0].Value[2:]}},
		ecPriv, parse(t, "key-type=aes value-len=16"))
	ok(t, err)
	ok(t, s.DestroyObject(ctx, derived))
	ok(t, s.SetAttributeValue(ctx, aes, parse(t, "id=0x0102")))
	found, err := s.Find(ctx, parse(t, "id=0x0102 "+where))
	ok(t, err)
	if len(found) != 1 || found[0] != aes {
		t.Errorf("found %v by the new id, want %v", found, aes)
	}
}

// What the software token keeps of a message counts in the account of the uid: a
// decryption that gives nothing before its end.
func TestKeptDataIsCounted(t *testing.T) {
	ctx := t.Context()
	tok := backends()["swtok"](t)
	t.Cleanup(func() { ok(t, tok.Close()) })
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 0, Token: tok}}})
	ok(t, err)
	defer func() { ok(t, e.Close()) }()
	slot, err := e.SlotNamed("tok")
	ok(t, err)
	s, err := e.NewApplication(engine.Owner{UID: 1}, engine.ForPrograms).OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	ok(t, err)
	key, err := s.CreateObject(ctx, parse(t, "class=secret-key key-type=aes private=false value=0x000102030405060708090a0b0c0d0e0f"))
	ok(t, err)
	before := e.Account(1).Held()
	digest, err := s.Begin(ctx, p11.CKF_DIGEST, mechanism(t, "sha256"), 0)
	ok(t, err)
	own := e.Account(1).Held() - before // what each operation takes, beside its parameter
	digest.Close()
	for _, c := range []struct {
		flag p11.Flags
		mech string
		kept int64
	}{
		{p11.CKF_DECRYPT, "aes-gcm,iv=0x000102030405060708090a0b", 1 << 20},
		{p11.CKF_ENCRYPT, "aes-gcm,iv=0x000102030405060708090a0b", 0},
		{p11.CKF_DECRYPT, "stream", 1 << 20},
		{p11.CKF_ENCRYPT, "stream", 1 << 20},
	} {
		o, err := s.Begin(ctx, c.flag, mechanism(t, c.mech), key)
		ok(t, err)
		_, err = o.Update(ctx, make([]byte, 1<<20))
		ok(t, err)
		if n := e.Account(1).Held() - before - own - int64(mechanism(t, c.mech).Bytes()); n != c.kept {
			t.Errorf("%v %s: %d bytes are counted, not %d", c.flag, c.mech, n, c.kept)
		}
		if c.kept > 0 {
			rest := 192<<20 - int(e.Account(1).Held()) - 1<<18
			ok(t, e.Account(1).Take(rest))
			_, err = o.Result(ctx, nil)
			if p11.RVOf(err) != p11.CKR_DEVICE_MEMORY { // its result may be as long
				t.Errorf("%v %s: %v where there is no room for the result", c.flag, c.mech, err)
			}
			e.Account(1).Give(rest)
		}
		o.Close()
		if n := e.Account(1).Held(); n != before {
			t.Errorf("%v %s: %d bytes are left over", c.flag, c.mech, n-before)
		}
	}
}
