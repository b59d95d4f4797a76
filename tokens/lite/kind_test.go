package lite

import (
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/storetest"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

func none() swtok.Provider { return nil }

// openIn opens the token in dir, and gives it back with its lock.
func openIn(t *testing.T, k tokens.Kind, dir string, change func(*tokens.Place)) tokens.Token {
	t.Helper()
	lock, err := locks.Open(filepath.Join(t.TempDir(), "lock"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	p := tokens.Place{Name: "mine", Dir: dir, Lock: lock, Group: locks.NoGroup, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	change(&p)
	tok, err := k.Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	return tok
}

// TestToken runs the suite of all tokens.
func TestToken(t *testing.T) {
	k := NewKind(swtok.LoadProvider(slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	tokentest.Run(t, tokentest.Backend{
		SOPIN: "87654321",
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lock.Close() })
			tok := openIn(t, k, filepath.Join(dir, "token"), func(p *tokens.Place) { p.Create, p.Lock = true, lock })
			if tok.Name() != "mine" || tok.Kind() != Kind {
				t.Errorf("%s, %s", tok.Name(), tok.Kind())
			}
			return tok
		},
	})
}

// TestNew: a new token is called as stock's in each format.
func TestNew(t *testing.T) {
	k := newKind(swtok.GoProvider(), machine{}, none)
	for _, c := range []struct {
		format       p11.Version
		label, model string
	}{
		{p11.Version{}, "IBM ICA  PKCS #11", "IBM ICA"},
		{p11.Version{Major: 3, Minor: 12}, "icatok", "ICA"},
	} {
		dir := filepath.Join(t.TempDir(), "token")
		tok := openIn(t, k, dir, func(p *tokens.Place) { p.Create, p.Format = true, c.format })
		info, err := tok.Info(t.Context())
		if err != nil || info.Label != c.label || info.Model != c.model {
			t.Errorf("%+v, %v", info, err)
		}
		if err := tok.Close(); err != nil {
			t.Fatal(err)
		}
		if found := k.OwnFormat(dir); found != c.format {
			t.Errorf("the directory is taken for one of format %d.%d", found.Major, found.Minor)
		}
	}
}

// TestMainframe opens what stock's token made on a mainframe, signs with the key pair
// and makes another, and finds it when the directory is opened again.
func TestMainframe(t *testing.T) {
	k := newKind(swtok.LoadProvider(slog.New(slog.DiscardHandler)), machine{}, none)
	dir := storetest.Untar(t, "lite-be")
	open := func() tokens.Token {
		t.Helper()
		tok := openIn(t, k, dir, func(*tokens.Place) {})
		pin, err := secret.New([]byte(storetest.UserPIN))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pin.Close() }()
		if _, err := tok.Login(t.Context(), p11.CKU_USER, pin); err != nil {
			t.Fatal(err)
		}
		return tok
	}
	find := func(tok tokens.Token, class p11.ObjectClass, label string) *tokens.Object {
		t.Helper()
		var template p11.Attributes
		template.SetUlong(p11.CKA_CLASS, uint64(class))
		template.Set(p11.CKA_LABEL, []byte(label))
		found, err := tok.Find(t.Context(), template, true)
		if err != nil || len(found) != 1 {
			t.Fatalf("%d objects called %s, %v", len(found), label, err)
		}
		return found[0]
	}
	signs := func(tok tokens.Token, label string) {
		t.Helper()
		m := p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}
		calls := tokentest.Calls{Crypto: tok}
		s, err := calls.Sign(t.Context(), m, find(tok, p11.CKO_PRIVATE_KEY, label))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Update([]byte("a message")); err != nil {
			t.Fatal(err)
		}
		sig, err := s.Final()
		if err != nil {
			t.Fatal(err)
		}
		v, err := calls.Verify(t.Context(), m, find(tok, p11.CKO_PUBLIC_KEY, label))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if err := v.Update([]byte("a message")); err != nil {
			t.Fatal(err)
		}
		if err := v.Final(sig); err != nil {
			t.Errorf("the signature: %v", err)
		}
	}
	tok := open()
	signs(tok, "rsa1")
	pub, priv, err := tok.(tokens.KeyGenerator).GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN},
		keyTemplate(p11.CKO_PUBLIC_KEY, false, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1024))}}), keyTemplate(p11.CKO_PRIVATE_KEY, true, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, attrs := range []p11.Attributes{pub, priv} {
		if _, err := tok.Create(t.Context(), attrs); err != nil {
			t.Fatal(err)
		}
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	tok = open()
	signs(tok, "rsa1")
	signs(tok, "ours")
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
}

func keyTemplate(class p11.ObjectClass, private bool, more p11.Attributes) p11.Attributes {
	a := slices.Clone(more)
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, private)
	a.SetBool(p11.CKA_MODIFIABLE, true)
	a.Set(p11.CKA_LABEL, []byte("ours"))
	return a
}

// stockList is that of stock's ICA token on a machine that has all, in its order.
const stockList = `
RSA_PKCS_KEY_PAIR_GEN RSA_PKCS RSA_X_509 MD5_RSA_PKCS SHA1_RSA_PKCS RSA_PKCS_OAEP RSA_PKCS_PSS SHA256_RSA_PKCS SHA384_RSA_PKCS SHA512_RSA_PKCS
DES_KEY_GEN DES_ECB DES_CBC DES_CBC_PAD DES3_KEY_GEN DES3_ECB DES3_CBC DES3_MAC DES3_MAC_GENERAL DES3_CBC_PAD DES_OFB64 DES_CFB64 DES_CFB8
MD5 MD5_HMAC MD5_HMAC_GENERAL SHA_1 SHA_1_HMAC SHA_1_HMAC_GENERAL SHA256 SHA256_HMAC SHA256_HMAC_GENERAL SHA384 SHA384_HMAC SHA384_HMAC_GENERAL
SHA512 SHA512_HMAC SHA512_HMAC_GENERAL GENERIC_SECRET_KEY_GEN
AES_KEY_GEN AES_ECB AES_CBC AES_MAC AES_MAC_GENERAL AES_CBC_PAD AES_CTR AES_GCM AES_OFB AES_CFB64 AES_CFB8 AES_CFB128`

// TestList: the list begins as stock's, and then has the rest of the software token's in
// its order. What a machine does in hardware is flagged.
func TestList(t *testing.T) {
	list := func(m machine) []p11.MechanismInfo {
		c := swtok.NewCrypto(swtok.GoProvider(), nil)
		c.Arrange(m.arrange)
		return c.Mechanisms()
	}
	soft := swtok.NewCrypto(swtok.GoProvider(), nil).Mechanisms()
	plain := list(machine{})
	want := strings.Fields(stockList)
	if len(plain) != len(soft) || len(plain) < len(want) {
		t.Fatalf("%d mechanisms, and the software token has %d", len(plain), len(soft))
	}
	for i, name := range want {
		if got := plain[i].Type.String(); got != "CKM_"+name {
			t.Fatalf("%d is %s, and stock has %s there", i, got, name)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(soft), func(m p11.MechanismInfo) bool {
		return slices.Contains(want, strings.TrimPrefix(m.Type.String(), "CKM_"))
	})
	if !slices.Equal(rest, plain[len(want):]) {
		t.Error("behind stock's they are not the software token's in its order")
	}

	all := machine{aes: true, sha1: true, sha256: true, sha512: true, sha3: true, ecdsa: true, rsa: true}
	for _, c := range []struct {
		m   machine
		has string // some of those that are flagged
		not string
	}{
		{machine{}, "", "AES_ECB SHA_1 SHA512 ECDSA RSA_PKCS"},
		{machine{aes: true}, "AES_ECB AES_GCM AES_CFB64 AES_KEY_WRAP", "AES_KEY_GEN AES_ECB_ENCRYPT_DATA DES_ECB SHA256 ECDSA RSA_PKCS ECDH_AES_KEY_WRAP RSA_AES_KEY_WRAP"},
		{machine{sha256: true}, "SHA224 SHA256 SHA256_HMAC SHA224_HMAC_GENERAL", "SHA_1 SHA512 SHA3_256 AES_ECB SHA256_RSA_PKCS ECDSA_SHA256 SHA256_KEY_GEN"},
		{machine{ecdsa: true}, "ECDSA ECDSA_SHA256", "ECDH1_DERIVE EC_KEY_PAIR_GEN EDDSA SHA256"},
		{machine{rsa: true}, "RSA_PKCS RSA_X_509 SHA256_RSA_PKCS SHA256_RSA_PKCS_PSS", "RSA_PKCS_KEY_PAIR_GEN SHA256"},
		{all, "AES_CBC SHA_1 SHA384 SHA512_256 SHA3_512 ECDSA RSA_PKCS", "DES3_CBC MD5 MD5_HMAC DH_PKCS_DERIVE ML_DSA"},
	} {
		flagged := map[string]bool{}
		for _, info := range list(c.m) {
			if _, twice := flagged[info.Type.String()]; twice {
				t.Errorf("%s is there twice", info.Type)
			}
			flagged[info.Type.String()] = info.Flags&p11.CKF_HW != 0
		}
		for is, names := range map[bool]string{true: c.has, false: c.not} {
			for _, name := range strings.Fields(names) {
				if got, known := flagged["CKM_"+name]; !known || got != is {
					t.Errorf("%+v: %s is flagged %v, known %v", c.m, name, got, known)
				}
			}
		}
	}
}

func TestFacilities(t *testing.T) {
	const info = "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch 155\nfacilities      : 0 1 2 155\ncache0 : level=1 155\n"
	if f := []byte(info); !hasFacility(f, kdsa) || hasFacility(f, "15") || hasFacility([]byte("facilities : 0 1\n155\n"), kdsa) || hasFacility(nil, kdsa) {
		t.Error("the facilities are read wrongly")
	}
}

// TestNoCards: what cannot be loaded is no cards.
func TestNoCards(t *testing.T) {
	if findCards(swtok.GoProvider(), slog.New(slog.NewTextHandler(io.Discard, nil)), "libica.so.no-such") != nil {
		t.Error("cards of a library that is not there")
	}
}
