package softcca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"errors"
	"log/slog"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/swtok"
)

// A testDomain is a domain of cards of its own.
type testDomain struct {
	*domain
	dir string
}

func newDomain(t testing.TB) testDomain { return newDomainOver(t, swtok.GoProvider()) }

func newDomainOver(t testing.TB, p swtok.Provider) testDomain {
	t.Helper()
	dir, a := t.TempDir(), card.APQN{Domain: 1}
	if err := MakeSet(dir, []card.APQN{a}); err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	cards := NewCards(set, p, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := cards.Close(); err != nil {
			t.Error(err)
		}
	})
	return testDomain{&domain{cards, a}, dir}
}

// Generate makes a key to come, and Set makes it the current one.
func (d testDomain) Generate(m Master) error { return d.set.Change(nil, m.String(), soft.ChangeNew) }

func (d testDomain) Set(m Master) error {
	return errors.Join(d.set.Change(nil, m.String(), soft.ChangeCommit), d.set.Change(nil, m.String(), soft.ChangeActivate))
}

func (d testDomain) Zeroise() (err error) {
	for _, m := range Masters() {
		err = errors.Join(err, d.set.Change(nil, m.String(), soft.ChangeZeroise))
	}
	return err
}

// aesEncrypt is a cipher of AES without a tag.
func aesEncrypt(d testDomain, rules, key, iv, text []byte) ([]byte, error) {
	_, out, err := d.CSNBSAE(context.Background(), rules, key, 0, iv, text, nil)
	return out, err
}

// rules is a rule array as programs write it.
func rules(words ...string) []byte { return cca.Rules(words).Bytes() }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A sample is one of each sort, with what it does under the master key of its domain.
type sample struct {
	name  string
	token []byte
	use   func(d testDomain, token []byte) ([]byte, error) // gives the same each time
	move  func(d testDomain, word string, token []byte) ([]byte, error)
	under Master
}

func samples(t testing.TB, d testDomain) []sample {
	t.Helper()
	ctx := context.Background()
	bytesOf := must[[]byte](t)
	text := bytes.Repeat([]byte("sixteen bytes ok"), 4)
	skeleton := bytesOf(d.CSNBKTB(ctx, rules("DATA"), rules("INTERNAL", "AES", "NO-KEY", "KEYLN24")))
	hmacSkeleton := bytesOf(d.CSNBKTB2(ctx, rules("INTERNAL", "HMAC", "MAC", "GENERATE")))
	part := bytesOf(d.CSNBKPI2(ctx, rules("HMAC", "FIRST", "MIN1PART"), 256, bytes.Repeat([]byte{7}, 32), hmacSkeleton))
	rsaValues := cca.RSAValues{Bits: 1024, E: []byte{1, 0, 1}}
	rsaSkeleton := bytesOf(d.CSNDPKB(ctx, rules("RSA-CRT", "KEY-MGMT"), append(rsaValues.Bytes(), make([]byte, 21)...)))
	curve := must[p11.Curve](t)(cca.CurveOf(0, 256))
	ecSkeleton := bytesOf(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve}.Bytes()))
	symmetric := func(r ...string) func(testDomain, string, []byte) ([]byte, error) {
		return func(d testDomain, word string, token []byte) ([]byte, error) {
			return d.CSNBKTC(ctx, rules(append([]string{word}, r...)...), token)
		}
	}
	pka := func(r ...string) func(testDomain, string, []byte) ([]byte, error) {
		return func(d testDomain, word string, token []byte) ([]byte, error) {
			return d.CSNDKTC(ctx, rules(append([]string{word}, r...)...), token)
		}
	}
	des3 := func(d testDomain, token []byte) ([]byte, error) {
		return d.CSNBENC(ctx, token, text, text[:8], rules("CBC"))
	}
	blank := []byte("        ")
	return []sample{
		{"aes", bytesOf(d.CSNBKGN(ctx, rules("OP"), rules("KEYLN24"), rules("AESTOKEN"), skeleton)),
			func(d testDomain, token []byte) ([]byte, error) {
				return aesEncrypt(d, rules("AES", "KEYIDENT", "INITIAL"), token, text[:16], text)
			}, symmetric("AES"), AES},
		{"des", bytesOf(d.CSNBKGN(ctx, rules("OP"), rules("KEYLN8"), rules("DATA"), nil)), des3, symmetric(), SYM},
		{"des2", bytesOf(d.CSNBCKM(ctx, rules("DES"), []byte("0123456789abcdef"))), des3, symmetric(), SYM},
		{"des3", bytesOf(d.CSNBKGN(ctx, rules("OP"), rules("KEYLN24"), rules("DATA"), nil)), des3, symmetric("DES"), SYM},
		{"hmac", bytesOf(d.CSNBKPI2(ctx, rules("HMAC", "COMPLETE"), 0, nil, append(part, make([]byte, 2000)...))),
			func(d testDomain, token []byte) ([]byte, error) {
				_, mac, err := d.CSNBHMG(ctx, rules("HMAC", "SHA-256", "ONLY"), token, text, make([]byte, chainSize))
				return mac, err
			}, func(d testDomain, word string, token []byte) ([]byte, error) {
				return d.CSNBKTC2(ctx, rules(word, "HMAC"), token)
			}, AES},
		{"hmac made there", bytesOf(d.CSNBKGN2(ctx, rules("HMAC", "OP"), 512, rules("TOKEN"), blank, hmacSkeleton)),
			func(d testDomain, token []byte) ([]byte, error) {
				_, mac, err := d.CSNBHMG(ctx, rules("HMAC", "SHA-512", "ONLY"), token, text, make([]byte, chainSize))
				return mac, err
			}, func(d testDomain, word string, token []byte) ([]byte, error) {
				return d.CSNBKTC2(ctx, rules(word, "HMAC"), token)
			}, AES},
		{"rsa", bytesOf(d.CSNDPKG(ctx, rules("MASTER"), rsaSkeleton)),
			func(d testDomain, token []byte) ([]byte, error) {
				return d.CSNDDSG(ctx, rules("PKCS-1.1"), token, []byte("what is signed"))
			}, pka(), APKA},
		{"ec", bytesOf(d.CSNDPKG(ctx, rules("MASTER"), ecSkeleton)),
			func(d testDomain, token []byte) ([]byte, error) {
				sig, err := d.CSNDDSG(ctx, rules("ECDSA"), token, bytes.Repeat([]byte{1}, 32))
				if err != nil {
					return nil, err
				}
				return nil, d.CSNDDSV(ctx, rules("ECDSA"), token, bytes.Repeat([]byte{1}, 32), sig)
			}, pka("ECC"), APKA},
	}
}

// TestChange uses keys of each sort while the master keys change: a key under the old one
// can be used and moved, one under the key to come can be made but not used, and without
// moving it is lost at the second change.
func TestChange(t *testing.T) {
	for i, s := range samples(t, newDomain(t)) {
		t.Run(s.name, func(t *testing.T) {
			d := newDomain(t)
			s := samples(t, d)[i]
			want := must[[]byte](t)(s.use(d, s.token))
			if err := d.Set(s.under); err == nil {
				t.Fatal("an empty register is set")
			}
			if _, err := s.move(d, "RTNMK", s.token); !errors.Is(err, cca.ErrNoKey) && !errors.Is(err, cca.ErrToken) {
				t.Fatalf("there is no key to come: %v", err)
			}
			if err := d.Generate(s.under); err != nil {
				t.Fatal(err)
			}
			ahead := must[[]byte](t)(s.move(d, "RTNMK", s.token))
			if _, err := s.use(d, ahead); !errors.Is(err, cca.ErrToken) {
				t.Errorf("a token of the key to come is used: %v", err)
			}
			if err := d.Set(s.under); err != nil {
				t.Fatal(err)
			}
			for what, token := range map[string][]byte{"made before": ahead, "of the old key": s.token} {
				if got, err := s.use(d, token); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %x, %v", what, got, err)
				}
			}
			moved := must[[]byte](t)(s.move(d, "RTCMK", s.token))
			if bytes.Equal(moved, s.token) {
				t.Error("the token is the same under another key")
			}
			if again := must[[]byte](t)(s.move(d, "RTCMK", moved)); !bytes.Equal(again, moved) {
				t.Error("a token of the current key is another behind it")
			}
			if err := errors.Join(d.Generate(s.under), d.Set(s.under)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.use(d, s.token); !errors.Is(err, cca.ErrToken) {
				t.Errorf("a token of a lost key: %v", err)
			}
			if got, err := s.use(d, moved); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the moved one: %x, %v", got, err)
			}
		})
	}
}

// TestHostile gives each verb tokens that were changed, cut, or are of another card.
func TestHostile(t *testing.T) {
	d, other := newDomain(t), newDomain(t)
	for _, s := range samples(t, d) {
		t.Run(s.name, func(t *testing.T) {
			want := must[[]byte](t)(s.use(d, s.token))
			if _, err := s.use(other, s.token); !errors.Is(err, cca.ErrToken) {
				t.Errorf("another card: %v", err)
			}
			if _, err := s.use(d, nil); !errors.Is(err, cca.ErrToken) {
				t.Errorf("none: %v", err)
			}
			step := 1 + len(s.token)/150
			for n := 0; n < len(s.token); n += step {
				if _, err := s.use(d, s.token[:n]); !errors.Is(err, cca.ErrToken) {
					t.Fatalf("%d bytes of it: %v", n, err)
				}
				bad := bytes.Clone(s.token)
				bad[n] ^= 1
				if got, err := s.use(d, bad); err == nil && !bytes.Equal(got, want) {
					t.Fatalf("with byte %d changed it is another key", n)
				}
			}
			for _, r := range [][]byte{nil, rules("RTCMK", "RTNMK"), rules("RTCMK", "NOWORD"), rules("DES")} {
				if _, err := d.CSNBKTC(context.Background(), r, s.token); err == nil {
					t.Errorf("rules %q are taken", r)
				}
			}
		})
	}
}

// TestZeroise: nothing opens without master keys, and nothing is made.
func TestZeroise(t *testing.T) {
	d := newDomain(t)
	list := samples(t, d)
	if err := d.Zeroise(); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if _, err := s.use(d, s.token); !errors.Is(err, cca.ErrNoKey) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	if _, err := d.CSNBCKM(context.Background(), rules("AES"), make([]byte, 16)); !errors.Is(err, cca.ErrNoKey) {
		t.Errorf("a key is made: %v", err)
	}
}

// TestCiphers compares with Go's library.
func TestCiphers(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	text, iv := bytes.Repeat([]byte("some sixteen bytes"), 16)[:240], []byte("an iv of a block")
	for _, n := range []int{16, 24, 32} {
		key := bytes.Repeat([]byte{byte(n)}, n)
		token := must[[]byte](t)(d.CSNBCKM(ctx, rules("AES"), key))
		block := must[cipher.Block](t)(aes.NewCipher(key))
		want := make([]byte, len(text))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, text)
		for _, r := range [][]byte{rules("AES", "KEYIDENT", "INITIAL"), rules("AES", "CBC", "KEYIDENT")} {
			got := must[[]byte](t)(aesEncrypt(d, r, token, iv, text))
			if !bytes.Equal(got, want) {
				t.Errorf("aes of %d bytes: %x", n, got)
			}
			if back := must[[]byte](t)(d.CSNBSAD(ctx, r, token, nil, iv, got, nil)); !bytes.Equal(back, text) {
				t.Errorf("aes of %d bytes back: %x", n, back)
			}
		}
		for i := 0; i < len(text); i += 16 {
			block.Encrypt(want[i:], text[i:])
		}
		if got := must[[]byte](t)(aesEncrypt(d, rules("AES", "ECB", "KEYIDENT", "INITIAL"), token, nil, text)); !bytes.Equal(got, want) {
			t.Errorf("ecb of %d bytes: %x", n, got)
		}
		padded := must[[]byte](t)(aesEncrypt(d, rules("AES", "PKCS-PAD", "KEYIDENT"), token, iv, text[:17]))
		if back := must[[]byte](t)(d.CSNBSAD(ctx, rules("AES", "PKCS-PAD", "KEYIDENT"), token, nil, iv, padded, nil)); len(padded) != 32 || !bytes.Equal(back, text[:17]) {
			t.Errorf("padded: %d bytes, back %q", len(padded), back)
		}
		if _, err := aesEncrypt(d, rules("AES", "KEYIDENT", "INITIAL"), token, iv, text[:17]); !errors.Is(err, cca.ErrData) {
			t.Errorf("no whole block: %v", err)
		}
		if _, err := d.CSNBENC(ctx, token, text, iv[:8], rules("CBC")); !errors.Is(err, cca.ErrToken) {
			t.Errorf("an AES key encrypts as one of DES: %v", err)
		}
	}
	for _, key := range [][]byte{[]byte("01234567"), []byte("0123456789abcdef"), []byte("0123456789abcdefghijklmn")} {
		token := must[[]byte](t)(d.CSNBCKM(ctx, rules("DES"), key))
		block, err := des.NewTripleDESCipher(bytes.Repeat(key, 3)[:24]) // of 8 and 16 bytes the first keys again
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, len(text))
		cipher.NewCBCEncrypter(block, iv[:8]).CryptBlocks(want, text)
		got := must[[]byte](t)(d.CSNBENC(ctx, token, text, iv[:8], rules("CBC")))
		if back := must[[]byte](t)(d.CSNBDEC(ctx, token, got, iv[:8], rules("CBC"))); !bytes.Equal(got, want) || !bytes.Equal(back, text) {
			t.Errorf("des of %d bytes: %x, back %x", len(key), got, back)
		}
	}
}

// inParts hashes and MACs a message that is cut at places, and checks the MAC mac.
func inParts(t *testing.T, d testDomain, hash string, token, message []byte, cuts []int, mac []byte) (digest, got []byte) {
	t.Helper()
	ctx := context.Background()
	hashChain, chain, check := make([]byte, chainSize), make([]byte, chainSize), make([]byte, chainSize)
	at := 0
	for i, to := range cuts {
		word := "MIDDLE"
		switch {
		case len(cuts) == 1:
			word = "ONLY"
		case i == 0:
			word = "FIRST"
		case i == len(cuts)-1:
			word = "LAST"
		}
		var errs [3]error
		hashChain, digest, errs[0] = d.CSNBOWH(ctx, rules(hash, word), message[at:to], hashChain)
		chain, got, errs[1] = d.CSNBHMG(ctx, rules("HMAC", hash, word), token, message[at:to], chain)
		check, errs[2] = d.CSNBHMV(ctx, rules("HMAC", hash, word), token, message[at:to], mac, check)
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		at = to
	}
	return digest, got
}

// TestHashes hashes and MACs a message in parts of all sorts.
func TestHashes(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	message := make([]byte, 1000)
	for i := range message {
		message[i] = byte(i * 7)
	}
	skeleton := must[[]byte](t)(d.CSNBKTB2(ctx, rules("INTERNAL", "NO-KEY", "HMAC", "MAC", "GENERATE")))
	for _, size := range []int{10, 32, 64, 65, 128, 129, 256} {
		key := bytes.Repeat([]byte{byte(size)}, size)
		token := must[[]byte](t)(d.CSNBKPI2(ctx, rules("HMAC", "FIRST", "MIN1PART"), uint64(8*size), key, skeleton))
		if _, _, err := d.CSNBHMG(ctx, rules("HMAC", "SHA-1", "ONLY"), token, message, make([]byte, chainSize)); !errors.Is(err, cca.ErrToken) {
			t.Errorf("a key that is not complete is used: %v", err)
		}
		token = must[[]byte](t)(d.CSNBKPI2(ctx, rules("HMAC", "COMPLETE"), 0, nil, token))
		for name, kind := range map[string]crypto.Hash{"SHA-1": crypto.SHA1, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512} {
			plain, mac := kind.New(), hmac.New(kind.New, key)
			plain.Write(message)
			mac.Write(message)
			want := mac.Sum(nil)
			for _, cuts := range [][]int{{1000}, {128, 1000}, {0, 256, 256, 640, 1000}, {896, 1000}} {
				digest, got := inParts(t, d, name, token, message, cuts, want)
				if !bytes.Equal(digest, plain.Sum(nil)) || !bytes.Equal(got, want) {
					t.Errorf("%s, a key of %d bytes, parts %v: %x, %x", name, size, cuts, digest, got)
				}
			}
			want[0] ^= 1
			if _, err := d.CSNBHMV(ctx, rules("HMAC", name, "ONLY"), token, message, want, make([]byte, chainSize)); !errors.Is(err, cca.ErrSignature) {
				t.Errorf("%s: a wrong MAC: %v", name, err)
			}
		}
	}
	key := must[[]byte](t)(d.CSNBKPI2(ctx, rules("HMAC", "COMPLETE"), 0, nil, must[[]byte](t)(d.CSNBKPI2(ctx, rules("HMAC", "FIRST"), 80, make([]byte, 10), skeleton))))
	chain, _, err := d.CSNBHMG(ctx, rules("HMAC", "SHA-256", "FIRST"), key, message[:64], make([]byte, chainSize))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		what  string
		words []string
		text  []byte
		chain []byte
	}{
		{"another hash", []string{"HMAC", "SHA-1", "LAST"}, nil, chain},
		{"a vector of nothing", []string{"HMAC", "SHA-256", "LAST"}, nil, make([]byte, chainSize)},
		{"a short vector", []string{"HMAC", "SHA-256", "LAST"}, nil, chain[:100]},
		{"no whole block", []string{"HMAC", "SHA-256", "MIDDLE"}, message[:63], chain},
	} {
		if _, _, err := d.CSNBHMG(ctx, rules(bad.words...), key, bad.text, bad.chain); !errors.Is(err, cca.ErrData) {
			t.Errorf("%s: %v", bad.what, err)
		}
	}
	if _, _, err := d.CSNBOWH(ctx, rules("SHA-256", "MIDDLE"), message[:63], make([]byte, chainSize)); !errors.Is(err, cca.ErrData) {
		t.Errorf("no whole block: %v", err)
	}
}
