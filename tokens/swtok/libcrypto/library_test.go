//go:build cgo

package libcrypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"
)

func load(t testing.TB) *Library {
	l, err := Load("libcrypto.so.3")
	if err != nil {
		t.Skipf("no libcrypto of version 3: %v", err)
	}
	return l
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestCipher encrypts with GCM in parts, and compares with Go's.
func TestCipher(t *testing.T) {
	l := load(t)
	key, iv, aad, msg := make([]byte, 32), []byte("an iv of more than 12"), []byte("aad"), bytes.Repeat([]byte("message "), 1000)
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCMWithNonceSize(block, len(iv))
	want := gcm.Seal(nil, iv, msg, aad)
	c := must[*Cipher](t)(l.Cipher("AES-256-GCM"))
	s := must[*Stream](t)(c.New(key, iv, true, Number("ivlen", uint64(len(iv)))))
	defer s.Close()
	if err := s.Associate(aad); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for part := range bytes.Lines(bytes.ReplaceAll(msg, []byte(" "), []byte("\n"))) {
		got = must[[]byte](t)(s.Update(got, bytes.ReplaceAll(part, []byte("\n"), []byte(" "))))
	}
	got = must[[]byte](t)(s.Final(got))
	got = append(got, must[[]byte](t)(s.Tag(16))...)
	if !bytes.Equal(got, want) {
		t.Error("not what Go's has")
	}
	d := must[*Stream](t)(c.New(key, iv, false, Number("ivlen", uint64(len(iv))), Octets("tag", want[len(msg):])))
	defer d.Close()
	_ = d.Associate(aad)
	plain := must[[]byte](t)(d.Update(nil, want[:len(msg)]))
	plain = must[[]byte](t)(d.Final(plain))
	if !bytes.Equal(plain, msg) {
		t.Error("decrypts to something else")
	}
	d.Close() // which may be called again
	bad := must[*Stream](t)(c.New(key, iv, false, Number("ivlen", uint64(len(iv))), Octets("tag", make([]byte, 16))))
	defer bad.Close()
	plain = must[[]byte](t)(bad.Update(nil, want[:len(msg)]))
	if _, err := bad.Final(plain); err == nil {
		t.Error("a wrong tag is taken")
	}
	if _, err := l.Cipher("AES-256-NONE"); err == nil {
		t.Error("there is a cipher of any name")
	}
}

// TestMAC: RFC 4493 §4, example 2.
func TestMAC(t *testing.T) {
	l := load(t)
	m := must[*MAC](t)(l.MAC("CMAC"))
	sum := must[*MACState](t)(m.New(unhex("2b7e151628aed2a6abf7158809cf4f3c"), Text("cipher", "AES-128-CBC")))
	defer sum.Close()
	if err := sum.Update(unhex("6bc1bee22e409f96")); err != nil {
		t.Fatal(err)
	}
	early := must[[]byte](t)(sum.Result())
	if err := sum.Update(unhex("e93d7e117393172a")); err != nil {
		t.Fatal(err)
	}
	want := unhex("070a16b46b4d4144f79bdd9dd04a287c")
	if got := must[[]byte](t)(sum.Result()); !bytes.Equal(got, want) || bytes.Equal(early, want) {
		t.Errorf("%x and before %x, want %x", got, early, want)
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestKeys(t *testing.T) {
	l := load(t)
	k := must[*Key](t)(l.GenerateKey("EC", Text("group", "P-256")))
	d := must[map[string][]byte](t)(k.Data(Pair))
	digest := sha256.Sum256([]byte("x"))
	sig := must[[]byte](t)(k.Sign(80, digest[:]))
	pub := must[*ecdsa.PublicKey](t)(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), d["pub"]))
	if !ecdsa.VerifyASN1(pub, digest[:], sig) {
		t.Error("not a signature")
	}
	scalar := Int("priv", new(big.Int).SetBytes(d["priv"]))
	again := must[*Key](t)(l.NewKey("EC", Pair, Text("group", "P-256"), Octets("pub", d["pub"]), scalar))
	if !bytes.Equal(scalar.data, make([]byte, len(scalar.data))) {
		t.Error("the copy of a secret number is left")
	}
	if err := again.Verify(digest[:], sig); err != nil {
		t.Error(err)
	}
	if err := again.Verify(digest[:31], sig); err == nil {
		t.Error("the signature fits another digest")
	}
	if _, err := l.NewKey("EC", Public, Text("group", "P-256"), Octets("pub", append([]byte{4}, make([]byte, 64)...))); err == nil {
		t.Error("a point off the curve is taken")
	}
	peer := must[*Key](t)(l.GenerateKey("EC", Text("group", "P-256")))
	if a, b := must[[]byte](t)(k.Derive(32, peer)), must[[]byte](t)(peer.Derive(32, k)); !bytes.Equal(a, b) || len(a) != 32 {
		t.Errorf("%x and %x", a, b)
	}
	rsa := must[*Key](t)(l.GenerateKey("RSA", Number("bits", 2048)))
	pss := []Param{Text("pad-mode", "pss"), Text("digest", "SHA256"), Text("mgf1-digest", "SHA1"), Text("saltlen", "20")}
	sig = must[[]byte](t)(rsa.Sign(256, digest[:], pss...))
	if err := rsa.Verify(digest[:], sig, pss...); err != nil {
		t.Error(err)
	}
}

// TestGroup compares with Go's P-256, and has the base point of RFC 5639 §3.4.
func TestGroup(t *testing.T) {
	l := load(t)
	g := must[*Group](t)(l.Group("1.2.840.10045.3.1.7"))
	k := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	scalar, want := must[[]byte](t)(k.Bytes()), must[[]byte](t)(k.PublicKey.Bytes())
	if got := must[[]byte](t)(g.Multiply(scalar)); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	small := elliptic.MarshalCompressed(elliptic.P256(), k.X, k.Y)
	for _, encoded := range [][]byte{want, small} {
		if got := must[[]byte](t)(g.Point(encoded)); !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
	}
	off := bytes.Clone(want)
	off[64] ^= 1
	for _, bad := range [][]byte{nil, off, want[:64], {5}, make([]byte, 200)} {
		if p, err := g.Point(bad); err == nil {
			t.Errorf("%x is the point %x", bad, p)
		}
	}
	order := elliptic.P256().Params().N.Bytes()
	for _, bad := range [][]byte{nil, make([]byte, 32), order, bytes.Repeat([]byte{255}, 32), bytes.Repeat([]byte{1}, 200)} {
		if p, err := g.Multiply(bad); err == nil {
			t.Errorf("%x has the point %x", bad, p)
		}
	}
	if g, err := l.Group("1.2.3"); err == nil {
		t.Errorf("any number is a curve: %v", g)
	}
	if b, err := l.Group("1.3.36.3.3.2.8.1.1.7"); err == nil {
		x := unhex("8bd2aeb9cb7e57cb2c4b482ffc81b7afb9de27e1e3bd23c23a4453bd9ace3262")
		y := unhex("547ef835c3dac4fd97f8461a14611dc9c27745132ded8e545c1d54c72f046997")
		got := must[[]byte](t)(b.Multiply([]byte{1}))
		if want := slices.Concat([]byte{4}, x, y); !bytes.Equal(got, want) {
			t.Errorf("the base of brainpoolP256r1 is %x", got)
		}
	}
}

// BenchmarkGCM compares the ways to encrypt 1 KiB.
func BenchmarkGCM(b *testing.B) {
	l := load(b)
	c := must[*Cipher](b)(l.Cipher("AES-256-GCM"))
	key, iv, msg := make([]byte, 32), make([]byte, 12), make([]byte, 1024)
	buf := make([]byte, 0, 2048)
	b.Run("new", func(b *testing.B) {
		b.SetBytes(1024)
		for b.Loop() {
			s, _ := c.New(key, iv, true)
			_, _ = s.Update(buf, msg)
			_, _ = s.Final(buf)
			_, _ = s.Tag(16)
			s.Close()
		}
	})
	b.Run("go", func(b *testing.B) {
		b.SetBytes(1024)
		block, _ := aes.NewCipher(key)
		gcm, _ := cipher.NewGCM(block)
		for b.Loop() {
			gcm.Seal(buf[:0], iv, msg, nil)
		}
	})
}
