//go:build cgo

package lite

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"p11fs/p11/pkix"
	"p11fs/tokens/swtok"
)

// A card is a library of libica's ABI that the test built.
type card struct{ library, calls string }

// newCard builds one of testdata/libica.c.
func newCard(t *testing.T, defines ...string) card {
	t.Helper()
	dir := t.TempDir()
	c := card{filepath.Join(dir, "libica.so"), filepath.Join(dir, "calls")}
	args := append([]string{"-shared", "-fPIC", "-w", "-o", c.library, `-DCALLS="` + c.calls + `"`}, defines...)
	if out, err := exec.Command("gcc", append(args, "testdata/libica.c", "-l:libcrypto.so.3")...).CombinedOutput(); err != nil {
		t.Skipf("needs gcc and libcrypto.so.3: %v: %s", err, out)
	}
	return c
}

// used says how many operations there were.
func (c card) used(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(c.calls)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(b)
}

// TestCards: every private operation but OAEP's is the card's, and gives what it is to.
// Where the card fails, or is wrong, software gives it.
func TestCards(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		name    string
		defines []string
	}{{"works", nil}, {"fails", []string{"-DFAILS"}}, {"is wrong", []string{"-DWRONG"}}} {
		t.Run(c.name, func(t *testing.T) {
			card := newCard(t, append(c.defines, "-DFLAGS=3")...)
			p := findCards(swtok.GoProvider(), quiet, card.library+".no-such", card.library)
			if p == nil {
				t.Fatal("the cards are not found")
			}
			for _, bits := range []int{1024, 1032, 2048} {
				for _, swapped := range []bool{false, true} {
					usesCard(t, p, card, bits, swapped)
				}
			}
		})
	}
	t.Run("has software alone", func(t *testing.T) {
		if p := findCards(swtok.GoProvider(), quiet, newCard(t, "-DFLAGS=1").library); p != nil {
			t.Error("that is taken for a card")
		}
	})
	t.Run("too long", func(t *testing.T) {
		card := newCard(t, "-DFLAGS=2")
		n := new(big.Int).SetBit(big.NewInt(1), 4103, 1)
		half := new(big.Int).SetBit(big.NewInt(1), 2050, 1)
		if key, err := findCards(noKeys{swtok.GoProvider()}, quiet, card.library).NewRSAPrivateKey(&pkix.RSANumbers{N: n, P: half, Q: half}); key != nil || err != nil {
			t.Errorf("a key of the card: %v", err)
		}
	})
}

// noKeys makes keys that are none.
type noKeys struct{ swtok.Provider }

func (noKeys) NewRSAPrivateKey(*pkix.RSANumbers) (swtok.RSAPrivateKey, error) { return nil, nil }

// usesCard works with a key of bits, whose second prime is the larger one if swapped.
func usesCard(t *testing.T, p swtok.Provider, c card, bits int, swapped bool) {
	t.Helper()
	k, err := swtok.GoProvider().GenerateRSA(t.Context(), bits, big.NewInt(65537))
	if err != nil {
		t.Fatal(err)
	}
	if (k.P.Cmp(k.Q) < 0) != swapped {
		k = &pkix.RSANumbers{N: k.N, E: k.E, D: k.D, P: k.Q, Q: k.P, DP: k.DQ, DQ: k.DP, QInv: new(big.Int).ModInverse(k.P, k.Q)}
	}
	soft, err := swtok.GoProvider().NewRSAPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := p.NewRSAPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	before := c.used(t)
	in := bytes.Repeat([]byte{5}, (bits+7)/8)
	in[0] = 0
	digest := sha256.Sum256(in)
	for what, sign := range map[string]func(swtok.RSAPrivateKey) ([]byte, error){
		"raw":   func(k swtok.RSAPrivateKey) ([]byte, error) { return k.Raw(in) },
		"PKCS1": func(k swtok.RSAPrivateKey) ([]byte, error) { return k.SignPKCS1(digest[:]) },
	} {
		got, err := sign(key)
		want, err2 := sign(soft)
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s of %d bits: %x, %v, want %x, %v", what, bits, got, err, want, err2)
		}
	}
	sig, err := key.SignPSS(crypto.SHA256, digest[:], 20)
	if err != nil {
		t.Fatal(err)
	}
	public := &rsa.PublicKey{N: k.N, E: int(k.E.Int64())}
	if err := rsa.VerifyPSS(public, crypto.SHA256, digest[:], sig, &rsa.PSSOptions{SaltLength: 20}); err != nil {
		t.Errorf("PSS of %d bits: %v", bits, err)
	}
	if n := c.used(t) - before; n != 3 {
		t.Errorf("the card did %d operations, want 3", n)
	}
	if _, err := key.Raw(bytes.Repeat([]byte{0xff}, len(in))); err == nil {
		t.Error("a number above the modulus is taken")
	}
	key.(interface{ Close() }).Close()
	soft.(interface{ Close() }).Close()
}
