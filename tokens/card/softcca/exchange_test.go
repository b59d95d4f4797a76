package softcca

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card/cca"
)

// aesToken is a key of AES that is known.
func aesToken(t testing.TB, d testDomain, key []byte) []byte {
	t.Helper()
	return must[[]byte](t)(d.CSNBCKM(context.Background(), rules("AES"), key))
}

// TestGCM compares with Go's library, and has a message come back only with its tag.
func TestGCM(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	value, iv, aad, text := bytes.Repeat([]byte{3}, 32), []byte("twelve bytes"), []byte("beside"), []byte("a message of no whole blocks")
	token := aesToken(t, d, value)
	gcm := must[cipher.AEAD](t)(cipher.NewGCM(must[cipher.Block](t)(aes.NewCipher(value))))
	want := gcm.Seal(nil, iv, text, aad)
	r := rules("AES", "GCM", "KEYIDENT", "ONLY")
	for _, n := range []int{4, 8, 12, 13, 16} {
		tag, out, err := d.CSNBSAE(ctx, r, token, n, iv, text, aad)
		if err != nil || !bytes.Equal(out, want[:len(text)]) || !bytes.Equal(tag, want[len(text):][:n]) {
			t.Errorf("a tag of %d bytes: %x, %x, %v", n, out, tag, err)
		}
		if back, err := d.CSNBSAD(ctx, r, token, tag, iv, out, aad); err != nil || !bytes.Equal(back, text) {
			t.Errorf("a tag of %d bytes: back %q, %v", n, back, err)
		}
		tag[0] ^= 1
		if back, err := d.CSNBSAD(ctx, r, token, tag, iv, out, aad); !errors.Is(err, cca.ErrTag) || back != nil {
			t.Errorf("another tag of %d bytes: %q, %v", n, back, err)
		}
	}
	for what, c := range map[string]struct {
		words []string
		n     int
		iv    []byte
		want  error
	}{
		"no tag":      {[]string{"AES", "GCM", "KEYIDENT", "ONLY"}, 0, iv, cca.ErrData},
		"a long tag":  {[]string{"AES", "GCM", "KEYIDENT", "ONLY"}, 1 << 40, iv, cca.ErrData},
		"no vector":   {[]string{"AES", "GCM", "KEYIDENT", "ONLY"}, 16, nil, cca.ErrData},
		"in parts":    {[]string{"AES", "GCM", "KEYIDENT", "FIRST"}, 16, iv, cca.ErrKeyword},
		"two ciphers": {[]string{"AES", "GCM", "CBC", "KEYIDENT", "ONLY"}, 16, iv, cca.ErrKeyword},
	} {
		if _, _, err := d.CSNBSAE(ctx, rules(c.words...), token, c.n, c.iv, text, aad); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := d.CSNBSAE(ctx, r, must[[]byte](t)(d.CSNBCKM(ctx, rules("DES"), value[:24])), 16, iv, text, aad); !errors.Is(err, cca.ErrToken) {
		t.Errorf("a key of DES: %v", err)
	}
}

// TestUnderRSA gives keys of AES and DES3 under one of RSA and takes them in again, each with
// Go's library on the other side. What is no key under PKCS #1 v1.5 is another key.
func TestUnderRSA(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	own := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	values := cca.RSAValues{Bits: 1024, N: own.N.Bytes(), E: []byte{1, 0, 1}, P: own.Primes[0].Bytes(), Q: own.Primes[1].Bytes(),
		DP: own.Precomputed.Dp.Bytes(), DQ: own.Precomputed.Dq.Bytes(), Inverse: own.Precomputed.Qinv.Bytes()}
	private := must[[]byte](t)(d.CSNDPKI(ctx, nil, must[[]byte](t)(d.CSNDPKB(ctx, rules("RSA-CRT", "KEY-MGMT"), values.Bytes()))))
	public := must[[]byte](t)(d.CSNDPKX(ctx, nil, private))
	oaep := func(h func() hash.Hash) func([]byte) ([]byte, error) {
		return func(b []byte) ([]byte, error) { return rsa.DecryptOAEP(h(), nil, own, b, nil) }
	}
	des3 := must[[]byte](t)(d.CSNBCKM(ctx, rules("DES"), []byte("0123456789abcdefghijklmn")))
	text := bytes.Repeat([]byte("sixteen bytes ok"), 2)
	for _, c := range []struct {
		words []string
		open  func([]byte) ([]byte, error)
	}{
		{[]string{"PKCS-1.2"}, func(b []byte) ([]byte, error) { return rsa.DecryptPKCS1v15(nil, own, b) }}, //nolint:staticcheck // what CCA has
		{[]string{"PKCSOAEP", "SHA-1"}, oaep(sha1.New)},
		{[]string{"PKCSOAEP", "SHA-256"}, oaep(sha256.New)},
	} {
		for _, n := range []int{16, 24, 32} {
			key := bytes.Repeat([]byte{byte(n)}, n)
			token, r := aesToken(t, d, key), rules(append([]string{"AES"}, c.words...)...)
			wrapped := must[[]byte](t)(d.CSNDSYX(ctx, r, token, public))
			if got, err := c.open(wrapped); err != nil || !bytes.Equal(got, key) {
				t.Errorf("%v: %x, %v", c.words, got, err)
			}
			back := must[[]byte](t)(d.CSNDSYI(ctx, r, wrapped, private))
			ecb := rules("AES", "ECB", "KEYIDENT", "INITIAL")
			if want, got := must[[]byte](t)(aesEncrypt(d, ecb, token, nil, text)), must[[]byte](t)(aesEncrypt(d, ecb, back, nil, text)); !bytes.Equal(got, want) {
				t.Errorf("%v: it comes back as another key of %d bytes", c.words, n)
			}
		}
		r := rules(append([]string{"DES"}, c.words...)...)
		back := must[[]byte](t)(d.CSNDSYI(ctx, r, must[[]byte](t)(d.CSNDSYX(ctx, r, des3, public)), private))
		want := must[[]byte](t)(d.CSNBENC(ctx, des3, text, text[:8], rules("CBC")))
		if got := must[[]byte](t)(d.CSNBENC(ctx, back, text, text[:8], rules("CBC"))); !bytes.Equal(got, want) {
			t.Errorf("%v: a key of DES3 comes back as another", c.words)
		}
	}
	sealed := must[[]byte](t)(rsa.EncryptPKCS1v15(rand.Reader, &own.PublicKey, []byte("no key"))) //nolint:staticcheck // what CCA has
	sealed[20] ^= 1
	if got, err := d.CSNDSYI(ctx, rules("AES", "PKCS-1.2"), sealed, private); err != nil {
		t.Errorf("what is no key tells so: %x, %v", got, err)
	}
	if got, err := d.CSNDSYI(ctx, rules("AES", "PKCSOAEP", "SHA-1"), sealed, private); !errors.Is(err, cca.ErrData) {
		t.Errorf("no OAEP: %x, %v", got, err)
	}
	for what, c := range map[string]struct {
		words       []string
		source, rsa []byte
	}{
		"another kind of key":  {[]string{"AES", "PKCS-1.2"}, des3, public},
		"a short key":          {[]string{"DES", "PKCS-1.2"}, must[[]byte](t)(d.CSNBCKM(ctx, rules("DES"), []byte("01234567"))), public},
		"no padding":           {[]string{"DES"}, des3, public},
		"another hash":         {[]string{"DES", "PKCSOAEP", "SHA-512"}, des3, public},
		"a word beside":        {[]string{"DES", "PKCS-1.2", "SHA-1"}, des3, public},
		"no key of RSA":        {[]string{"DES", "PKCS-1.2"}, des3, des3},
		"the private key left": {[]string{"DES", "PKCS-1.2"}, private, public},
	} {
		if got, err := d.CSNDSYX(ctx, rules(c.words...), c.source, c.rsa); err == nil {
			t.Errorf("%s gives %x", what, got)
		}
	}
	if got, err := d.CSNDSYI(ctx, rules("AES", "PKCS-1.2"), sealed, public); !errors.Is(err, cca.ErrToken) {
		t.Errorf("the public half opens: %x, %v", got, err)
	}
}

// x963 is the function of ANS X9.63 with SHA-256 for no more than one block.
func x963(z, party []byte, n int) []byte {
	h := sha256.New()
	h.Write(z)
	h.Write(binary.BigEndian.AppendUint32(nil, 1))
	h.Write(party)
	return h.Sum(nil)[:n]
}

// TestAgreement agrees on a key with Go's library.
func TestAgreement(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	curve := must[p11.Curve](t)(cca.CurveOf(0, 256))
	private := must[[]byte](t)(d.CSNDPKG(ctx, rules("MASTER"), must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR", "KEY-MGMT", "ECC-VER1"), cca.ECValues{Curve: curve}.Bytes()))))
	point := must[cca.PKA](t)(cca.ParsePKA(private)).Point
	peer := must[*ecdh.PrivateKey](t)(ecdh.P256().GenerateKey(rand.Reader))
	z := must[[]byte](t)(peer.ECDH(must[*ecdh.PublicKey](t)(ecdh.P256().NewPublicKey(point))))
	public := must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PUBL"), cca.ECValues{Curve: curve, Point: peer.PublicKey().Bytes()}.PublicBytes()))
	party, text := []byte("both of us"), []byte("sixteen bytes ok")
	skeleton := func(word string) []byte {
		return must[[]byte](t)(d.CSNBKTB(ctx, rules("DATA"), rules("INTERNAL", "AES", "NO-KEY", word)))
	}
	r := rules("DERIV02", "KEY-AES", "SHA-256")
	for word, n := range map[string]int{"KEYLN16": 16, "KEYLN24": 24, "KEYLN32": 32} {
		got := must[[]byte](t)(d.CSNDEDH(ctx, r, private, public, party, uint64(8*n), skeleton(word)))
		ecb := rules("AES", "ECB", "KEYIDENT", "INITIAL")
		if a, b := must[[]byte](t)(aesEncrypt(d, ecb, got, nil, text)), must[[]byte](t)(aesEncrypt(d, ecb, aesToken(t, d, x963(z, party, n)), nil, text)); !bytes.Equal(a, b) {
			t.Errorf("a key of %d bytes is another than Go's", n)
		}
	}
	other := must[[]byte](t)(d.CSNDPKG(ctx, rules("MASTER"), must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: must[p11.Curve](t)(cca.CurveOf(0, 384))}.Bytes()))))
	for what, c := range map[string]struct {
		words           []string
		private, public []byte
		bits            uint64
		skeleton        []byte
	}{
		"another length":  {[]string{"DERIV02", "KEY-AES", "SHA-256"}, private, public, 128, skeleton("KEYLN32")},
		"a key for one":   {[]string{"DERIV02", "KEY-AES", "SHA-256"}, private, public, 128, aesToken(t, d, text)},
		"another curve":   {[]string{"DERIV02", "KEY-AES", "SHA-256"}, private, other, 128, skeleton("KEYLN16")},
		"the public half": {[]string{"DERIV02", "KEY-AES", "SHA-256"}, public, public, 128, skeleton("KEYLN16")},
		"SHA-1":           {[]string{"DERIV02", "KEY-AES", "SHA-1"}, private, public, 128, skeleton("KEYLN16")},
		"no method":       {[]string{"KEY-AES", "SHA-256"}, private, public, 128, skeleton("KEYLN16")},
	} {
		if got, err := d.CSNDEDH(ctx, rules(c.words...), c.private, c.public, party, c.bits, c.skeleton); err == nil {
			t.Errorf("%s gives %x", what, got)
		}
	}
}

// TestEdwards makes and brings in keys of EdDSA, whose signatures Go's library knows.
func TestEdwards(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	curve := must[p11.Curve](t)(cca.CurveOf(2, 255))
	seed := bytes.Repeat([]byte{5}, ed25519.SeedSize)
	own := ed25519.NewKeyFromSeed(seed)
	values := cca.ECValues{Curve: curve, Scalar: seed, Point: own.Public().(ed25519.PublicKey)}
	brought := must[[]byte](t)(d.CSNDPKI(ctx, nil, must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), values.Bytes()))))
	made := must[[]byte](t)(d.CSNDPKG(ctx, rules("MASTER"), must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve}.Bytes()))))
	message, r := []byte("a message as it is"), rules("EDDSA", "ED-HASH", "MESSAGE")
	for _, token := range [][]byte{brought, made} {
		sig := must[[]byte](t)(d.CSNDDSG(ctx, r, token, message))
		public := must[[]byte](t)(d.CSNDPKX(ctx, nil, token))
		if k := must[cca.PKA](t)(cca.ParsePKA(public)); !ed25519.Verify(k.Point, message, sig) {
			t.Error("Go's library refuses the signature")
		}
		if err := d.CSNDDSV(ctx, r, public, message, sig); err != nil {
			t.Error(err)
		}
		if err := d.CSNDDSV(ctx, r, public, message[1:], sig); !errors.Is(err, cca.ErrSignature) {
			t.Errorf("another message: %v", err)
		}
		if _, err := d.CSNDDSG(ctx, rules("ECDSA"), token, message); !errors.Is(err, cca.ErrToken) {
			t.Errorf("it signs as on another curve: %v", err)
		}
	}
	if sig := must[[]byte](t)(d.CSNDDSG(ctx, r, brought, message)); !bytes.Equal(sig, ed25519.Sign(own, message)) {
		t.Errorf("another signature than Go's: %x", sig)
	}
	for _, words := range [][]string{{"EDDSA"}, {"EDDSA", "MESSAGE"}, {"EDDSA", "ED-HASH", "MESSAGE", "MESSAGE"}} {
		if _, err := d.CSNDDSG(ctx, rules(words...), brought, message); !errors.Is(err, cca.ErrKeyword) {
			t.Errorf("%v: %v", words, err)
		}
	}
	values.Point = bytes.Clone(values.Point)
	values.Point[0] ^= 1
	if _, err := d.CSNDPKI(ctx, nil, must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), values.Bytes()))); !errors.Is(err, cca.ErrValues) {
		t.Errorf("another point: %v", err)
	}
	ed448 := must[p11.Curve](t)(cca.CurveOf(2, 448))
	token := must[[]byte](t)(d.CSNDPKG(ctx, rules("MASTER"), must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: ed448}.Bytes()))))
	if sig := must[[]byte](t)(d.CSNDDSG(ctx, r, token, message)); len(sig) != 114 || d.CSNDDSV(ctx, r, token, message, sig) != nil {
		t.Errorf("Ed448: %d bytes", len(sig))
	}
}
