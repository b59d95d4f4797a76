package integration

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"log/slog"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// TestICSFBeside has stock's icsf token and ours on one directory and one server at the same
// time: what one makes, changes and destroys the other uses and sees. It takes 4 s.
func TestICSFBeside(t *testing.T) {
	t.Parallel()
	h := newICSF(t)
	h.slotd()
	h.ok(h.with + "pkcs11-tool --module " + h.module + " --login --login-type so --so-pin 87654321 --init-pin --pin " + userPIN)
	tool := h.with + "pkcs11-tool --module " + h.module + " --login --pin " + userPIN + " "
	h.ok(tool + "--keypairgen --key-type rsa:2048 --label theirs --id 01 2>&1")

	tok := h.own(t)
	ctx := t.Context()
	l, err := tok.Login(ctx, p11.CKU_USER, tokentest.PIN(t, userPIN))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	one := func(label string, class p11.ObjectClass) *tokens.Object {
		t.Helper()
		found, err := tok.Find(ctx, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}, {Type: p11.CKA_CLASS, Value: p11.Ulong(class)}}, true)
		if err != nil || len(found) != 1 {
			t.Fatalf("%d objects are called %s, %v", len(found), label, err)
		}
		return found[0]
	}
	public := func(label string) *rsa.PublicKey {
		t.Helper()
		a, err := one(label, p11.CKO_PUBLIC_KEY).Acquire()
		if err != nil {
			t.Fatal(err)
		}
		defer one(label, p11.CKO_PUBLIC_KEY).Release()
		n, _ := a.Get(p11.CKA_MODULUS)
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
	}
	sum := sha256.Sum256([]byte("hello"))
	signs := func(label string) {
		t.Helper()
		op, err := tok.Begin(ctx, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, one(label, p11.CKO_PRIVATE_KEY))
		if err != nil {
			t.Fatal(err)
		}
		defer op.Close()
		_, err = op.Update(ctx, []byte("hello"))
		var sig []byte
		if err == nil {
			sig, err = op.Final(ctx, nil)
		}
		if err == nil {
			err = rsa.VerifyPKCS1v15(public(label), crypto.SHA256, sum[:], sig)
		}
		if err != nil {
			t.Errorf("ours signs by %s: %v", label, err)
		}
	}
	signs("theirs")

	// A key of ours, and stock's process that stays.
	yes := p11.Bool(true)
	common := p11.Attributes{{Type: p11.CKA_TOKEN, Value: yes}, {Type: p11.CKA_LABEL, Value: []byte("ours")}, {Type: p11.CKA_ID, Value: []byte{2}}}
	pub, priv, err := tok.(tokens.KeyGenerator).GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
		common.Merge(p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(2048))}, {Type: p11.CKA_VERIFY, Value: yes}}),
		common.Merge(p11.Attributes{{Type: p11.CKA_PRIVATE, Value: yes}, {Type: p11.CKA_SIGN, Value: yes}, {Type: p11.CKA_SENSITIVE, Value: yes}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []p11.Attributes{pub, priv} {
		if _, err := tok.Create(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	signs("ours")
	h.ok("export LD_PRELOAD=$PWD/shim.so")
	c := h.client(0)
	h.ok("unset LD_PRELOAD")
	c.want("login "+userPIN, "ok")
	for _, label := range []string{"ours", "theirs"} {
		answer := c.do("sign " + label + " hello 0x40")
		sig, ok := strings.CutPrefix(answer, "ok ")
		if !ok || rsa.VerifyPKCS1v15(public(label), crypto.SHA256, sum[:], fromHex(t, sig)) != nil {
			t.Errorf("stock signs by %s: %s", label, answer)
		}
	}

	// Objects come, change and go on either side.
	c.want("create note text 1", "ok")
	refresh := func() {
		t.Helper()
		if err := tok.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
	}
	later := func(what string, seen func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !seen(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
			refresh()
		}
	}
	count := func(label string) int {
		found, err := tok.Find(ctx, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	later("ours does not see what stock has made", func() bool { return count("note") == 1 })
	if _, err := tok.Update(ctx, one("note", p11.CKO_DATA).Handle, func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(p11.CKA_LABEL, []byte("renamed")), nil
	}); err != nil {
		t.Fatal(err)
	}
	c.want("value renamed", "ok text")
	c.want("destroy renamed", "ok")
	later("ours sees what stock has destroyed", func() bool { return count("renamed") == 0 })
	if err := tok.Destroy(ctx, one("ours", p11.CKO_PRIVATE_KEY).Handle, func(p11.Attributes) error { return nil }); err != nil {
		t.Fatal(err)
	}
	c.want("sign ours hello 0x40", "no key ours")
	c.end()
	h.ok("kill $slotd; wait $slotd; true")
	h.close()
}

// own opens our token on stock's directory.
func (h *icsfHost) own(t *testing.T) tokens.Token {
	t.Helper()
	h.ok("cp /etc/opencryptoki/" + icsfName + ".conf token.conf")
	lock, err := locks.Open(filepath.Join(workDir(t, "lock"), "token"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := icsf.NewKind(swtok.GoProvider(), "").Open(t.Context(), tokens.Place{
		Name: "icsf", Dir: filepath.Join(h.root, "icsf"), Config: filepath.Join(h.dir, "token.conf"), Lock: lock, Group: locks.NoGroup,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
		_ = lock.Close()
	})
	return tok
}
