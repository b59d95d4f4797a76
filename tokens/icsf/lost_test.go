package icsf

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/icsf/icsfwire"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

const (
	soPIN   = "so-pin-1"
	userPIN = "user-pin"
)

// newToken opens a token of a site.
func newToken(t *testing.T, s *site, dir string) *token {
	t.Helper()
	tok, err := newKind(swtok.GoProvider(), times{}, "").Open(t.Context(), s.place(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	})
	return tok.(*token)
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, tok tokens.Token, user p11.UserType, pin string) tokens.Login {
	t.Helper()
	l, err := tok.Login(t.Context(), user, tokentest.PIN(t, pin))
	noError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// withPINs gives a token its PINs.
func withPINs(t *testing.T, tok tokens.Token) {
	t.Helper()
	noError(t, tok.InitToken(t.Context(), tokentest.PIN(t, tokens.DefaultSOPIN), "label"))
	noError(t, tok.SetPIN(t.Context(), p11.CKU_SO, tokentest.PIN(t, tokens.DefaultSOPIN), tokentest.PIN(t, soPIN)))
	so := login(t, tok, p11.CKU_SO, soPIN)
	noError(t, tok.InitPIN(t.Context(), so, tokentest.PIN(t, userPIN)))
	noError(t, so.Close())
}

// key makes a key of the token.
func key(t *testing.T, tok *token, m p11.MechanismType, template p11.Attributes) *tokens.Object {
	t.Helper()
	template.SetBool(p11.CKA_TOKEN, true)
	template.SetBool(p11.CKA_PRIVATE, true)
	a, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: m}, template)
	noError(t, err)
	a, err = tok.Adopt(t.Context(), a)
	noError(t, err)
	o, err := tok.Create(t.Context(), a)
	noError(t, err)
	return o
}

// TestSimple has the PINs open the server's password: without a login nothing is asked of the
// server, and a login that it refuses is none.
func TestSimple(t *testing.T) {
	t.Parallel()
	s, dir := newSite(t, icsffile.Simple), t.TempDir()
	tok := newToken(t, s, dir)
	withPINs(t, tok)
	if got := s.server.Calls(icsfwire.TRL); got != 0 {
		t.Errorf("the first initialisation has asked the server %d times", got)
	}
	l := login(t, tok, p11.CKU_USER, userPIN)
	made := key(t, tok, p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	noError(t, l.Close())
	if public, private := tok.Counts(); public+private != 0 {
		t.Errorf("%d and %d objects are there after the logout", public, private)
	}
	_, err := tok.Create(t.Context(), p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)}, {Type: p11.CKA_TOKEN, Value: p11.Bool(true)}})
	if p11.RVOf(err) != p11.CKR_USER_NOT_LOGGED_IN {
		t.Errorf("an object without a login: %v", err)
	}
	again := newToken(t, s, dir)
	login(t, again, p11.CKU_USER, userPIN)
	if _, err := again.ByName(made.Name); err != nil {
		t.Errorf("the key is not there for another: %v", err)
	}

	// The files have the sizes that stock gives them, and open with the PINs.
	for name, size := range map[string]int64{"NVTOK.DAT": 20984, "MK_SO": 68, "MK_USER": 68, "RACF": 36} {
		if st, err := os.Stat(filepath.Join(dir, "token", name)); err != nil || st.Size() != size {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	file, err := os.ReadFile(filepath.Join(dir, "token", "MK_USER"))
	noError(t, err)
	master, err := icsffile.OpenMaster(file, tokentest.PIN(t, userPIN))
	if err != nil || master == nil {
		t.Fatalf("MK_USER does not open with the PIN: %v", err)
	}
	noError(t, master.Close())

	// A later initialisation destroys what is on the server.
	noError(t, tok.InitToken(t.Context(), tokentest.PIN(t, soPIN), "anew"))
	if got := len(s.server.Objects("TESTTOKEN")); got != 0 {
		t.Errorf("%d objects are left on the server", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "token", "MK_USER")); !os.IsNotExist(err) {
		t.Errorf("the user's key is left: %v", err)
	}
}

// TestAway takes the server away: nobody logs in, and C_InitToken changes nothing.
func TestAway(t *testing.T) {
	t.Parallel()
	s, dir := newSite(t, icsffile.Simple), t.TempDir()
	tok := newToken(t, s, dir)
	withPINs(t, tok)
	l := login(t, tok, p11.CKU_USER, userPIN)
	made := key(t, tok, p11.CKM_GENERIC_SECRET_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	s.server.Close()
	link, err := tok.conn.Link(t.Context())
	if err == nil {
		<-link.Lost()
	}
	noError(t, tok.Refresh(t.Context()))
	if _, err := tok.ByHandle(made.Handle); err != nil {
		t.Errorf("what is known is not listed while the server is away: %v", err)
	}
	if tok.conn.Failed() == nil {
		t.Error("the token does not say that its server is away")
	}
	noError(t, l.Close())
	if _, err := tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN)); p11.RVOf(err) == p11.CKR_OK || p11.RVOf(err) == p11.CKR_PIN_INCORRECT {
		t.Errorf("a login without a server: %v", err)
	}
	if err := tok.InitToken(t.Context(), tokentest.PIN(t, soPIN), "x"); err == nil {
		t.Error("the token is initialised without its server")
	}
	if info, err := tok.Info(t.Context()); err != nil || info.Label != "label" || info.Flags&p11.CKF_USER_PIN_INITIALIZED == 0 {
		t.Errorf("the token has become %+v, %v", info, err)
	}
}

// TestLost cuts the connection while a key is used: a signature is asked for again, a message
// that is sent in parts is not, and a key that is made is not made twice.
func TestLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	secret := key(t, tok, p11.CKM_GENERIC_SECRET_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	public, private, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN},
		p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}, {Type: p11.CKA_TOKEN, Value: p11.Bool(true)}},
		p11.Attributes{{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(true)}})
	noError(t, err)
	point, _ := public.Get(p11.CKA_EC_POINT)
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point[2:])
	noError(t, err)
	priv, err := tok.Create(t.Context(), private)
	noError(t, err)
	// cut has the n-th request from now on cut off.
	cut := func(n int) {
		f := func(*icsfwire.Request) {
			if n--; n == 0 {
				s.server.Cut()
			}
		}
		s.before.Store(&f)
	}
	sum := sha256.Sum256([]byte("message"))
	sign := func(m p11.MechanismType, key *tokens.Object, between func(), parts ...[]byte) ([]byte, error) {
		o, err := tok.Begin(t.Context(), p11.CKF_SIGN, p11.Mechanism{Type: m}, key)
		noError(t, err)
		defer o.Close()
		for _, part := range parts {
			if _, err := o.Update(t.Context(), part); err != nil {
				return nil, err
			}
		}
		between()
		return o.Final(t.Context(), nil)
	}
	for name, between := range map[string]func(){"in the call": func() { cut(1) }, "before it": s.server.Cut} {
		before := s.server.Calls(icsfwire.PKS)
		sig, err := sign(p11.CKM_ECDSA_SHA256, priv, between, []byte("mess"), []byte("age"))
		if err != nil || !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
			t.Errorf("a signature, cut %s: %x, %v", name, sig, err)
		}
		if got := s.server.Calls(icsfwire.PKS) - before; got > 2 {
			t.Errorf("a signature, cut %s, takes %d calls", name, got)
		}
	}
	s.before.Store(nil)
	before := s.server.Calls(icsfwire.PKS)
	if _, err := sign(p11.CKM_ECDSA_SHA256, priv, func() {}, []byte("message")); err != nil || s.server.Calls(icsfwire.PKS) != before+1 {
		t.Errorf("a signature takes %d calls, %v", s.server.Calls(icsfwire.PKS)-before, err)
	}
	long := bytes.Repeat([]byte("x"), 3*maxKept)
	if _, err := sign(p11.CKM_SHA256_HMAC, secret, s.server.Cut, long); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("an HMAC in parts, cut between them: %v", err)
	}
	if mac, err := sign(p11.CKM_SHA256_HMAC, secret, func() {}, long); err != nil || len(mac) != crypto.SHA256.Size() {
		t.Errorf("an HMAC in parts: %x, %v", mac, err)
	}
	made := s.server.Calls(icsfwire.GSK)
	cut(1)
	if _, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}}); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a key whose making is cut off: %v", err)
	}
	if got := s.more(icsfwire.GSK, made); got != 1 {
		t.Errorf("a key whose making is cut off is made %d times", got)
	}
}

// TestLong has messages go to the server in parts, with what the key makes of them checked here.
func TestLong(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	value := []byte("a key that is known here")
	a, err := tok.Adopt(t.Context(), p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)}, {Type: p11.CKA_VALUE, Value: bytes.Clone(value)},
	})
	noError(t, err)
	if a.Has(p11.CKA_VALUE) {
		t.Error("the value of the key is here still")
	}
	o := tokens.NewSessionObject(tokens.NewHandle(), a, tok.Forget)
	for _, n := range []int{0, 1, maxKept, maxKept + 1, 3*maxKept + 5} {
		text := bytes.Repeat([]byte("y"), n)
		op, err := tok.Begin(t.Context(), p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o)
		noError(t, err)
		_, err = op.Update(t.Context(), text)
		noError(t, err)
		got, err := op.Final(t.Context(), nil)
		noError(t, err)
		op.Close()
		want := hmac.New(sha256.New, value)
		want.Write(text)
		if !hmac.Equal(got, want.Sum(nil)) {
			t.Errorf("the HMAC of %d bytes is wrong", n)
		}
		op, err = tok.Begin(t.Context(), p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, o)
		noError(t, err)
		_, err = op.Update(t.Context(), text)
		noError(t, err)
		got[0] ^= 1
		if _, err = op.Final(t.Context(), got); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
			t.Errorf("a wrong HMAC of %d bytes: %v", n, err)
		}
		op.Close()
	}
	o.Drop()
	tok.forgetting.Wait()
	if list := s.server.Objects("TESTTOKEN"); len(list) != 0 {
		t.Errorf("there are %q after the last use", list)
	}
	aes, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	noError(t, err)
	k := tokens.NewSessionObject(tokens.NewHandle(), aes, tok.Forget)
	defer k.Drop()
	text := bytes.Repeat([]byte("0123456789abcde"), 5000)
	m := p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV("an initial vector"[:16])}
	crypt := func(use p11.Flags, in []byte) []byte {
		op, err := tok.Begin(t.Context(), use, m, k)
		noError(t, err)
		defer op.Close()
		first, err := op.Update(t.Context(), in)
		noError(t, err)
		rest, err := op.Final(t.Context(), nil)
		noError(t, err)
		return append(first, rest...)
	}
	if back := crypt(p11.CKF_DECRYPT, crypt(p11.CKF_ENCRYPT, text)); !bytes.Equal(back, text) {
		t.Errorf("%d bytes become %d", len(text), len(back))
	}
}

// TestForged gives the token handles that it has not made.
func TestForged(t *testing.T) {
	t.Parallel()
	s := newSite(t, icsffile.SASL)
	tok := newToken(t, s, t.TempDir())
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	made := key(t, tok, p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}})
	a, err := made.Acquire()
	noError(t, err)
	forged := a.Clone()
	made.Release()
	if _, err := tok.Adopt(t.Context(), forged); p11.RVOf(err) != p11.CKR_ATTRIBUTE_TYPE_INVALID {
		t.Errorf("a handle of another key: %v", err)
	}
	tok.Forget(a)
	tok.forgetting.Wait()
	if len(s.server.Objects("TESTTOKEN")) != 1 {
		t.Error("a key of the token was forgotten")
	}
}

// TestTraced looks into the file of a trace, of all that a user does with a token.
func TestTraced(t *testing.T) {
	t.Parallel()
	s, dir := newSite(t, icsffile.Simple), t.TempDir()
	file := filepath.Join(dir, "trace")
	opened, err := newKind(swtok.GoProvider(), times{}, file).Open(t.Context(), s.place(t, dir))
	noError(t, err)
	tok := opened.(*token)
	withPINs(t, tok)
	login(t, tok, p11.CKU_USER, userPIN)
	value, text := []byte("16 secret bytes."), []byte("a message to all")
	a, err := tok.Adopt(t.Context(), p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_AES)},
		{Type: p11.CKA_LABEL, Value: []byte("label")}, {Type: p11.CKA_VALUE, Value: bytes.Clone(value)}, {Type: p11.CKA_EXTRACTABLE, Value: p11.Bool(true)},
	})
	noError(t, err)
	o, err := tok.Create(t.Context(), a.With(p11.CKA_TOKEN, p11.Bool(true)))
	noError(t, err)
	sealed := use(t, tok, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, o, text, len(text))
	if got := use(t, tok, p11.CKF_DECRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, o, sealed, len(sealed)); !bytes.Equal(got, text) {
		t.Errorf("decrypted %q", got)
	}
	noError(t, tok.Close())
	said, err := os.ReadFile(file)
	noError(t, err)
	if !bytes.Contains(said, []byte(hex.EncodeToString([]byte("label")))) || bytes.Count(said, []byte("\n")) < 8 {
		t.Errorf("the trace is\n%s", said)
	}
	for _, secret := range []string{string(value), string(text), string(sealed), password, soPIN, userPIN, tokens.DefaultSOPIN} {
		if bytes.Contains(said, []byte(hex.EncodeToString([]byte(secret)))) || bytes.Contains(said, []byte(secret)) {
			t.Errorf("the trace has %q", secret)
		}
	}
}
