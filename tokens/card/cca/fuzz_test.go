package cca

import (
	"bytes"
	"testing"
)

// FuzzTokens gives each reader anything: what it reads prints as what reads the same.
func FuzzTokens(f *testing.F) {
	for _, s := range symmetricTokens() {
		f.Add(unhex(f, s))
	}
	v := Variable{Key: true, Payload: []byte("payload")}
	rsa, ec := someRSA(), someEC(f)
	edwards := PKA{Private: true, Point: bytes.Repeat([]byte{7}, 32), Sealed: []byte("sealed")}
	var err error
	if edwards.Curve, err = CurveOf(kindEdwards, 255); err != nil {
		f.Fatal(err)
	}
	values := RSAValues{Bits: 1024, N: rsa.N, E: rsa.E}
	for _, b := range [][]byte{
		v.Bytes(), rsa.Bytes(), rsa.Public(), ec.Bytes(), ec.Public(), values.Bytes(), values.PublicBytes(),
		ECValues{Curve: ec.Curve}.Bytes(), ECValues{Curve: ec.Curve, Point: ec.Point}.PublicBytes(), edwards.Bytes(), edwards.Public(), Skeleton{Rules{"RSA-CRT"}, values.Bytes()}.Bytes(), []byte("AES     CBC     "),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, ParseSymmetric, Symmetric.Bytes)
		again(t, b, ParseVariable, Variable.Bytes)
		again(t, b, ParsePKA, PKA.Bytes)
		again(t, b, ParseSkeleton, Skeleton.Bytes)
		again(t, b, ParseRSAValues, RSAValues.Bytes)
		again(t, b, ParseRSAPublicValues, RSAValues.PublicBytes)
		again(t, b, ParseECValues, ECValues.Bytes)
		again(t, b, ParseECPublicValues, ECValues.PublicBytes)
		again(t, b, ParseRules, Rules.Bytes)
	})
}

func again[T any](t *testing.T, b []byte, parse func([]byte) (T, error), print func(T) []byte) {
	t.Helper()
	v, err := parse(b)
	if err != nil {
		return
	}
	once := print(v)
	v, err = parse(once)
	if err != nil {
		t.Fatalf("%x prints as %x, which does not read: %v", b, once, err)
	}
	if twice := print(v); !bytes.Equal(once, twice) {
		t.Fatalf("%x prints as %x, and that as %x", b, once, twice)
	}
}
