package store

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/storetest"
)

// TestBigEndian works on the directories that stock programs made on a big-endian
// machine: an RSA pair, an AES key and a data object, each with its common
// attributes.
func TestBigEndian(t *testing.T) {
	const text = "class=%s label=%s token=true private=%v modifiable=true"
	for _, tt := range []struct{ archive, kind, model, n string }{
		{"swtok-be", "swtok", "IBM SoftTok", "3"},
		{"lite-be", "lite", "IBM ICA", "1"},
	} {
		t.Run(tt.archive, func(t *testing.T) {
			cfg := config(t, storetest.Untar(t, tt.archive))
			cfg.Format = v38(t, tt.kind)
			s := openStore(t, cfg)
			if i := info(t, s); i.Model != tt.model || i.Flags != 0x44d || i.MinPINLen != 4 || i.MaxPINLen != 8 || i.FreePublicMem != p11.Unavailable {
				t.Errorf("%+v", i)
			}
			login(t, s, p11.CKU_USER, storetest.UserPIN)
			want := []string{
				fmt.Sprintf(text, "public-key", "rsa"+tt.n, false) + " key-type=rsa id=0x01 modulus-bits=2048 public-exponent=0x010001 verify=true",
				fmt.Sprintf(text, "private-key", "rsa"+tt.n, true) + " key-type=rsa id=0x01 public-exponent=0x010001 sign=true sensitive=true",
				fmt.Sprintf(text, "secret-key", "aes"+tt.n, false) + " key-type=aes id=0x02 value-len=32 encrypt=true extractable=false",
				fmt.Sprintf(text, "data", "dat"+tt.n, false) + " application=app",
			}
			objects := func() []*tokens.Object {
				t.Helper()
				os, err := s.Find(t.Context(), nil, true)
				if err != nil || len(damaged(s)) > 0 {
					t.Fatalf("damaged %v (%v)", damaged(s), err)
				}
				return os
			}
			os := objects()
			if len(os) != len(want) {
				t.Fatalf("%d objects", len(os))
			}
			for i, text := range want {
				template, err := p11.ParseTemplate(text)
				if err != nil {
					t.Fatal(err)
				}
				if a := attributesOf(t, os[i]); !a.Match(template) {
					t.Errorf("object %d is %v, want %s", i, a, text)
				}
			}
			if v, _ := attributesOf(t, os[2]).Get(p11.CKA_VALUE); len(v) != 32 {
				t.Errorf("the AES key has %d bytes", len(v))
			}
			signs(t, attributesOf(t, os[0]), attributesOf(t, os[1]))

			// It takes objects and another PIN, in its own order.
			bits := dataObject("new", "1", true)
			bits.SetUlong(p11.CKA_PRIME_BITS, 1024)
			o := create(t, s, bits)
			create(t, s, dataObject("new too", "2", false))
			if _, err := s.Update(t.Context(), os[3].Handle, relabel("changed")); err != nil {
				t.Fatal(err)
			}
			destroy(t, s, os[2])
			if err := s.SetPIN(t.Context(), p11.CKU_USER, pin(t, storetest.UserPIN), pin(t, "1357")); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			data, file := readFile(t, cfg.Dir, dataFile), readFile(t, cfg.Dir, objectsDir, o.Stored)
			if binary.BigEndian.Uint32(data[offFlags:]) != 0x44d || binary.BigEndian.Uint32(file) != uint32(len(file)) {
				t.Errorf("NVTOK.DAT %x, object file %x", data[offFlags:offFlags+4], file[:5])
			}
			s = openStore(t, cfg)
			login(t, s, p11.CKU_USER, "1357")
			var labels []string
			for _, o := range objects() {
				labels = append(labels, attributesOf(t, o).Label())
				if v, ok := attributesOf(t, o).Ulong(p11.CKA_PRIME_BITS); ok && v != 1024 {
					t.Errorf("a number came back as %d", v)
				}
			}
			if got := strings.Join(labels, ","); got != fmt.Sprintf("rsa%[1]s,rsa%[1]s,changed,new,new too", tt.n) {
				t.Errorf("objects %s", got)
			}
			so := login(t, s, p11.CKU_SO, storetest.SOPIN)
			if err := s.InitPIN(t.Context(), so, pin(t, "2468")); err != nil {
				t.Fatal(err)
			}
			if err := s.InitToken(t.Context(), pin(t, storetest.SOPIN), "empty"); err != nil {
				t.Fatal(err)
			}
			if data := readFile(t, cfg.Dir, dataFile); binary.BigEndian.Uint32(data[offFlags:]) != 0x80445 {
				t.Errorf("initialised: flags %x", data[offFlags:offFlags+4])
			}
		})
	}
}

// signs signs with a private RSA key and verifies with the public one.
func signs(t *testing.T, public, private p11.Attributes) {
	t.Helper()
	number := func(a p11.Attributes, x p11.AttributeType) *big.Int {
		v, _ := a.Get(x)
		return new(big.Int).SetBytes(v)
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: number(private, p11.CKA_MODULUS), E: int(number(private, p11.CKA_PUBLIC_EXPONENT).Int64())},
		Primes:    []*big.Int{number(private, p11.CKA_PRIME_1), number(private, p11.CKA_PRIME_2)},
	}
	// Stock lite leaves the private exponent empty.
	phi := new(big.Int).Mul(new(big.Int).Sub(key.Primes[0], big.NewInt(1)), new(big.Int).Sub(key.Primes[1], big.NewInt(1)))
	if key.D = number(private, p11.CKA_PRIVATE_EXPONENT); key.D.Sign() == 0 {
		key.D.ModInverse(big.NewInt(int64(key.E)), phi)
	}
	if err := key.Validate(); err != nil {
		t.Fatalf("the private key: %v", err)
	}
	h := sha256.Sum256([]byte("a message"))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, h[:])
	if err != nil {
		t.Fatal(err)
	}
	pub := &rsa.PublicKey{N: number(public, p11.CKA_MODULUS), E: int(number(public, p11.CKA_PUBLIC_EXPONENT).Int64())}
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, h[:], sig); err != nil {
		t.Errorf("the signature: %v", err)
	}
}

// TestForeignOrderIsNotShared refuses to share a directory of another byte order with
// stock processes, which would write it in theirs.
func TestForeignOrderIsNotShared(t *testing.T) {
	archive := "swtok-be"
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		archive = "swtok"
	}
	cfg := config(t, storetest.Untar(t, archive))
	cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	before := tree(t, cfg.Dir)
	s, err := Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
	}
	wantRV(t, "Open", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
	if err == nil || !strings.Contains(err.Error(), "byte order") || tree(t, cfg.Dir) != before {
		t.Errorf("%v, or the directory changed", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Shared.Dir, "*")); len(left) > 0 {
		t.Errorf("%v was made", left)
	}
	// Nor one that takes the place of a shared one.
	cfg = freshConfig(t)
	cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	s = openStore(t, cfg)
	remove(t, cfg.Dir)
	rename(t, storetest.Untar(t, archive), cfg.Dir)
	wantRV(t, "Refresh", s.Refresh(t.Context()), p11.CKR_TOKEN_NOT_RECOGNIZED)
}

// TestOrderOfReplacement puts a directory of the other byte order in place of one
// that is open.
func TestOrderOfReplacement(t *testing.T) {
	s := openStore(t, freshConfig(t))
	for _, archive := range []string{"swtok-be", "swtok"} {
		remove(t, s.cfg.Dir)
		rename(t, storetest.Untar(t, archive), s.cfg.Dir)
		refresh(t, s)
		login(t, s, p11.CKU_USER, storetest.UserPIN)
		if len(contents(t, s)) < 4 || len(damaged(s)) > 0 {
			t.Errorf("%s: objects %q, damaged %v", archive, contents(t, s), damaged(s))
		}
	}
}
