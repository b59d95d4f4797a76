package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// wrappable is one private key of each sort that has a PKCS#8 form here.
func wrappable(t testing.TB) map[string]crypto.PrivateKey {
	t.Helper()
	keys := make(map[string]crypto.PrivateKey)
	var err error
	add := func(name string, k crypto.PrivateKey, e error) {
		if keys[name] = k; e != nil {
			err = e
		}
	}
	k, e := rsa.GenerateKey(rand.Reader, 1024)
	add("rsa", k, e)
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P521()} {
		k, e := ecdsa.GenerateKey(c, rand.Reader)
		add(c.Params().Name, k, e)
	}
	_, ed, e := ed25519.GenerateKey(rand.Reader)
	add("ed25519", ed, e)
	x, e := ecdh.X25519().GenerateKey(rand.Reader)
	add("x25519", x, e)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// What the standard library writes is read, and written back the same.
func TestPKCS8AgainstStandardLibrary(t *testing.T) {
	for name, k := range wrappable(t) {
		t.Run(name, func(t *testing.T) {
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			a, err := pkix.DecodePrivateKey(der)
			if err != nil {
				t.Fatal(err)
			}
			want, at := new(big.Int), p11.CKA_VALUE
			switch k := k.(type) {
			case *rsa.PrivateKey:
				want, at = k.D, p11.CKA_PRIVATE_EXPONENT
			case *ecdsa.PrivateKey:
				want.SetBytes(must(k.Bytes()))
			case ed25519.PrivateKey:
				want.SetBytes(k.Seed())
			case *ecdh.PrivateKey:
				want.SetBytes(k.Bytes())
			}
			if v, _ := a.Get(at); new(big.Int).SetBytes(v).Cmp(want) != 0 {
				t.Error("another key was read")
			}
			if again, err := pkix.EncodePrivateKey(a); err != nil || !bytes.Equal(again, der) {
				t.Errorf("%v, and %x is written as %x", err, der, again)
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzDecodePrivateKey(f *testing.F) {
	for _, k := range wrappable(f) {
		f.Add(must(x509.MarshalPKCS8PrivateKey(k)))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		a, err := pkix.DecodePrivateKey(der)
		if err != nil {
			return
		}
		if params, ok := a.Get(p11.CKA_EC_PARAMS); ok {
			if c, err := pkix.CurveOf(params); err != nil || c.Elliptic == nil && c.KeySize() == 0 {
				return // the point that such a key needs beside it is not kept
			}
		}
		// What parses prints back as a key that parses to the same.
		again, err := pkix.EncodePrivateKey(a)
		if err != nil {
			t.Fatalf("does not encode: %v", err)
		}
		b, err := pkix.DecodePrivateKey(again)
		if err != nil || !a.Match(b) {
			t.Fatalf("comes back as another key: %v", err)
		}
	})
}

// A bare point is taken for what it is also where it begins like the DER of an
// OCTET STRING.
func TestBarePoint(t *testing.T) {
	for _, test := range []struct {
		curve  elliptic.Curve
		name   string
		second byte // of the point, that makes it look so
	}{{elliptic.P256(), "secp256r1", 0x3f}, {elliptic.P384(), "secp384r1", 0x5f}} {
		t.Run(test.name, func(t *testing.T) {
			var point []byte
			for point == nil || point[1] != test.second {
				k, err := ecdsa.GenerateKey(test.curve, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				point = must(k.PublicKey.Bytes())
			}
			oid, _ := p11.CurveParams(test.name)
			named := append([]byte{0x13, byte(len(test.name))}, test.name...)
			for _, params := range [][]byte{oid, named} {
				var a p11.Attributes
				a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PUBLIC_KEY))
				a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC))
				a.Set(p11.CKA_EC_PARAMS, params)
				a.Set(p11.CKA_EC_POINT, point)
				if err := pkix.Complete(&a); err != nil {
					t.Fatal(err)
				}
				if got, _ := a.Get(p11.CKA_EC_POINT); !bytes.Equal(got, pkix.DERPoint(point)) {
					t.Errorf("%x was stored as %x", point, got)
				}
				if got, _ := a.Get(p11.CKA_EC_PARAMS); !bytes.Equal(got, oid) {
					t.Errorf("the curve %q was stored as %x", params, got)
				}
			}
		})
	}
}
