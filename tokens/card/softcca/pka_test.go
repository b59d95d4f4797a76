package softcca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"log/slog"
	"math/big"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/swtok"
)

// TestPKA compares what the card does with Go's library, with keys of both.
func TestPKA(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	own := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	values := cca.RSAValues{Bits: 1024, N: own.N.Bytes(), E: []byte{1, 0, 1}, P: own.Primes[0].Bytes(), Q: own.Primes[1].Bytes(),
		DP: own.Precomputed.Dp.Bytes(), DQ: own.Precomputed.Dq.Bytes(), Inverse: own.Precomputed.Qinv.Bytes()}
	skeleton := must[[]byte](t)(d.CSNDPKB(ctx, rules("RSA-CRT", "KEY-MGMT"), values.Bytes()))
	token := must[[]byte](t)(d.CSNDPKI(ctx, nil, append(skeleton, make([]byte, 100)...)))
	digest := sha256.Sum256([]byte("message"))
	info := append(bytes.Clone(pkix.DigestInfoPrefix(hashRow(t, p11.CKM_SHA256))), digest[:]...)
	sig := must[[]byte](t)(d.CSNDDSG(ctx, rules("PKCS-1.1"), token, info))
	if err := rsa.VerifyPKCS1v15(&own.PublicKey, crypto.SHA256, digest[:], sig); err != nil {
		t.Error(err)
	}
	public := must[[]byte](t)(d.CSNDPKX(ctx, nil, token))
	built := must[[]byte](t)(d.CSNDPKB(ctx, rules("RSA-PUBL"), append(cca.RSAValues{Bits: 1024, N: values.N, E: values.E}.PublicBytes(), 0, 0)))
	if !bytes.Equal(public, built) {
		t.Errorf("the public half is %x, and built %x", public, built)
	}
	for _, key := range [][]byte{token, public} {
		if err := d.CSNDDSV(ctx, rules("PKCS-1.1"), key, info, sig); err != nil {
			t.Error(err)
		}
		if err := d.CSNDDSV(ctx, rules("PKCS-1.1"), key, info[1:], sig); !errors.Is(err, cca.ErrSignature) {
			t.Errorf("a wrong signature: %v", err)
		}
		for _, r := range [][]byte{rules("PKCS-1.2"), rules("PKCSOAEP", "SHA-1"), rules("PKCSOAEP", "SHA-256")} {
			sealed := must[[]byte](t)(d.CSNDPKE(ctx, r, []byte("secret"), key))
			if back := must[[]byte](t)(d.CSNDPKD(ctx, r, sealed, token)); string(back) != "secret" {
				t.Errorf("%q back: %q", r, back)
			}
		}
	}
	if _, err := d.CSNDDSG(ctx, rules("PKCS-1.1"), public, info); !errors.Is(err, cca.ErrToken) {
		t.Errorf("a public token signs: %v", err)
	}
	number := new(big.Int).SetInt64(12345).FillBytes(make([]byte, 128))
	raw := must[[]byte](t)(d.CSNDPKD(ctx, rules("ZERO-PAD"), number, token))
	if want := new(big.Int).Exp(new(big.Int).SetBytes(number), own.D, own.N); want.Cmp(new(big.Int).SetBytes(raw)) != 0 {
		t.Errorf("the bare operation gives %x", raw)
	}
	values.Q[len(values.Q)-1] ^= 2
	skeleton = must[[]byte](t)(d.CSNDPKB(ctx, rules("RSA-CRT"), values.Bytes()))
	if _, err := d.CSNDPKI(ctx, nil, skeleton); !errors.Is(err, cca.ErrValues) {
		t.Errorf("numbers that make no key: %v", err)
	}
	for name, v := range map[string]cca.RSAValues{"exponent": {Bits: 1024, E: []byte{5}}, "any exponent": {Bits: 4096}} {
		skeleton = must[[]byte](t)(d.CSNDPKB(ctx, rules("RSA-CRT"), v.Bytes()))
		if _, err := d.CSNDPKG(ctx, rules("MASTER"), skeleton); !errors.Is(err, cca.ErrValues) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func hashRow(t testing.TB, m p11.MechanismType) p11.Hash {
	t.Helper()
	h, ok := p11.HashOf(m)
	if !ok {
		t.Fatal(m)
	}
	return h
}

// TestCurves makes, brings in and uses keys on each curve that the library has.
func TestCurves(t *testing.T) {
	p := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	d := newDomainOver(t, p)
	ctx := context.Background()
	tried := 0
	for kind, list := range map[byte][]int{0: {192, 224, 256, 384, 521}, 1: {160, 192, 224, 256, 320, 384, 512}, 3: {256}} {
		for _, bits := range list {
			curve := must[p11.Curve](t)(cca.CurveOf(kind, bits))
			if !p.HasCurve(curve) {
				continue
			}
			tried++
			t.Run(curve.Name, func(t *testing.T) {
				scalar, point, err := p.GenerateEC(curve)
				if err != nil {
					t.Fatal(err)
				}
				made := must[[]byte](t)(d.CSNDPKG(ctx, rules("MASTER"), must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve}.Bytes()))))
				brought := must[[]byte](t)(d.CSNDPKI(ctx, nil, must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve, Scalar: scalar, Point: point}.Bytes()))))
				digest := sha256.Sum256([]byte(curve.Name))
				for _, token := range [][]byte{made, brought} {
					sig := must[[]byte](t)(d.CSNDDSG(ctx, rules("ECDSA"), token, digest[:]))
					public := must[[]byte](t)(d.CSNDPKX(ctx, nil, token))
					if err := d.CSNDDSV(ctx, rules("ECDSA"), public, digest[:], sig); err != nil || len(sig) != 2*curve.Size() {
						t.Errorf("%d bytes, %v", len(sig), err)
					}
					k := must[cca.PKA](t)(cca.ParsePKA(public))
					if curve.Elliptic != nil {
						pub := must[*ecdsa.PublicKey](t)(ecdsa.ParseUncompressedPublicKey(curve.Elliptic, k.Point))
						if der := must[[]byte](t)(pkix.ECDSARawToDER(sig)); !ecdsa.VerifyASN1(pub, digest[:], der) {
							t.Error("Go's library refuses the signature")
						}
					}
				}
				point[len(point)-1] ^= 1
				if _, err := d.CSNDPKI(ctx, nil, must[[]byte](t)(d.CSNDPKB(ctx, rules("ECC-PAIR"), cca.ECValues{Curve: curve, Scalar: scalar, Point: point}.Bytes()))); !errors.Is(err, cca.ErrValues) {
					t.Errorf("another point: %v", err)
				}
			})
		}
	}
	if tried < 4 {
		t.Errorf("%d curves", tried)
	}
}

// TestFacility reads what the card tells where openCryptoki does.
func TestFacility(t *testing.T) {
	d, ctx := newDomain(t), context.Background()
	answer, _, err := d.CSUACFQ(ctx, rules("STATCCAE"))
	if err != nil || string(answer[8:16]) != "2       " || string(answer[56:64]) != "2       " || answer[0] != '1' {
		t.Fatalf("%q, %v", answer, err)
	}
	if err := d.Generate(AES); err != nil {
		t.Fatal(err)
	}
	if answer, _, err = d.CSUACFQ(ctx, rules("STATAES")); err != nil || string(answer[:24]) != "3       2       1       " {
		t.Fatalf("%q, %v", answer, err)
	}
	if answer, _, err = d.CSUACFQ(ctx, rules("STATCRD2")); err != nil || string(answer[112:120]) != d.set.Serial()[len(d.set.Serial())-8:] {
		t.Fatalf("%q, %v", answer, err)
	}
	_, data, err := d.CSUACFQ(ctx, rules("STATICSB"))
	if err != nil {
		t.Fatal(err)
	}
	for id, m := range map[byte]Master{0x07: SYM, 0x0b: AES, 0x0e: APKA} {
		at := bytes.Index(data, []byte{0, 12, 0x0f, id})
		p, there, err := Pattern(d.set, d.apqn, m, Current)
		if err != nil || !there {
			t.Fatal(there, err)
		}
		if at < 0 || !bytes.Equal(data[at+4:at+12], p[:]) {
			t.Errorf("%v is at %d", m, at)
		}
	}
	if _, _, err := d.CSUACFQ(ctx, rules("NOWORD")); !errors.Is(err, cca.ErrKeyword) {
		t.Errorf("a word that is none: %v", err)
	}
	for _, n := range []int{1, 8, maxRandom} {
		if b, err := d.CSNBRNGL(ctx, rules("RANDOM"), n); err != nil || len(b) != n || n > 1 && bytes.Equal(b, make([]byte, n)) {
			t.Errorf("%d random bytes: %d, %v", n, len(b), err)
		}
	}
	if _, err := d.CSNBRNGL(ctx, rules("RANDOM"), maxRandom+1); !errors.Is(err, cca.ErrBuffer) {
		t.Errorf("too many random bytes: %v", err)
	}
}
