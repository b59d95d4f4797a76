package cca

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"p11fs/p11"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.ReplaceAll(s, "\n", ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The tokens of symmetric keys, byte for byte: the places are those of the CCA guide's
// tables "AES internal fixed-length key token" and "DES internal key token".
func symmetricTokens() map[string]string {
	return map[string]string{
		"aes 128": "01000000 04008000 0102030405060708" +
			"101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f" +
			"0000000000000000 0080 0020 deadbeef",
		"aes 256 skeleton": "01000000 04000000 0000000000000000" + strings.Repeat("00", 32) + "0000000000000000 0100 0000 00000000",
		"des":              "01000000 00008000 0102030405060708 1011121314151617 18191a1b1c1d1e1f" + strings.Repeat("00", 16) + "2021222324252627 00000000 deadbeef",
		"des3":             "01000000 01008000 0102030405060708 1011121314151617 18191a1b1c1d1e1f" + strings.Repeat("00", 16) + "2021222324252627 00000020 deadbeef",
	}
}

func TestSymmetric(t *testing.T) {
	want := map[string]Symmetric{
		"aes 128": {AES: true, Size: 16, Key: true}, "aes 256 skeleton": {AES: true, Size: 32},
		"des": {Size: 8, Key: true}, "des3": {Size: 24, Key: true},
	}
	for name, golden := range symmetricTokens() {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, golden)
			s, err := ParseSymmetric(b)
			if err != nil {
				t.Fatal(err)
			}
			w := want[name]
			if s.AES != w.AES || s.Size != w.Size || s.Key != w.Key || s.Key != (len(s.Wrapped) > 0) {
				t.Errorf("read %+v", s)
			}
			if got := s.Bytes(); !bytes.Equal(got, b) {
				t.Errorf("printed %x", got)
			}
			for n := range b {
				if _, err := ParseSymmetric(b[:n]); !errors.Is(err, ErrToken) {
					t.Errorf("%d bytes of it: %v", n, err)
				}
			}
		})
	}
	double := unhex(t, symmetricTokens()["des"])
	double[formByte] = 0x40
	if s, err := ParseSymmetric(double); err != nil || s.Size != 16 {
		t.Errorf("two keys by the control vector: %+v, %v", s, err)
	}
	for at, to := range map[int]byte{0: 2, symVersion: 5, symKeys: 0x30, symBits + 1: 0x88} {
		golden := "des3"
		if at == symBits+1 {
			golden = "aes 128"
		}
		b := unhex(t, symmetricTokens()[golden])
		b[at] = to
		if _, err := ParseSymmetric(b); !errors.Is(err, ErrToken) {
			t.Errorf("byte %d is %#x: %v", at, to, err)
		}
	}
}

func TestVariable(t *testing.T) {
	v := Variable{Key: true, Pattern: Pattern{1, 2, 3, 4, 5, 6, 7, 8}, Payload: []byte("under the master key")}
	b := v.Bytes()
	golden := "0100004c 05000000 0301 0102030405060708 0000000000000000 02 02 00 00 01 00 001a 0000 00 00 00a0 00 03 0002 02 c000 0000 03 000000000000" + hex.EncodeToString(v.Payload)
	if want := unhex(t, golden); !bytes.Equal(b, want) {
		t.Fatalf("%x\nis not\n%x", b, want)
	}
	got, err := ParseVariable(append(bytes.Clone(b), make([]byte, 2400)...)) // as the stock token gives it
	if err != nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("read %+v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseVariable(b[:n]); !errors.Is(err, ErrToken) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	for at := range varEnd {
		if varPattern <= at && at < varPattern+8 {
			continue
		}
		bad := bytes.Clone(b)
		bad[at] ^= 0x20
		if _, err := ParseVariable(bad); !errors.Is(err, ErrToken) {
			t.Errorf("byte %d is another: %v", at, err)
		}
	}
	if s, err := ParseVariable(Variable{}.Bytes()); err != nil || s.Key {
		t.Errorf("a skeleton: %+v, %v", s, err)
	}
}

func someRSA() PKA {
	return PKA{Private: true, N: append([]byte{0xc1}, bytes.Repeat([]byte{7}, 127)...), E: []byte{1, 0, 1}, Pattern: Pattern{9, 8, 7}, Sealed: []byte("sealed")}
}

func someEC(t testing.TB) PKA {
	c, err := CurveOf(kindPrime, 256)
	if err != nil {
		t.Fatal(err)
	}
	return PKA{Private: true, Curve: c, Point: append([]byte{4}, bytes.Repeat([]byte{5}, 64)...), Pattern: Pattern{9, 8, 7}, Sealed: []byte("sealed")}
}

// TestReaders reads tokens where openCryptoki does: 3.8 and 3.27 look elsewhere for the
// same.
func TestReaders(t *testing.T) {
	k := someRSA()
	b := k.Bytes()
	private := section(b[pkaHead:])
	public := private[private.u16(2):]
	for _, c := range []struct {
		what string
		ok   bool
	}{
		{"internal, with its length", b[0] == 0x1f && int(b[2])<<8|int(b[3]) == len(b)},
		{"3.8: the modulus at the end of the section", private.u16(64) == 128 && bytes.Equal(private[private.u16(2)-128:private.u16(2)], k.N)},
		{"3.27: section 0x31, modulus at 134", private[0] == 0x31 && private.u16(62) == 128 && bytes.Equal(private[134:134+128], k.N)},
		{"3.27: the pattern at 116", bytes.Equal(private[116:124], k.Pattern[:])},
		{"the public section, with the exponent", public[0] == 4 && public.u16(6) == 3 && bytes.Equal(public[12:15], k.E)},
		{"3.27: the bits in the public section", public.u16(8) == 1024},
	} {
		if !c.ok {
			t.Errorf("not so: %s", c.what)
		}
	}
	pub := section(k.Public())
	if pub[0] != 0x1e || pub[8] != 4 || pub.u16(8+10) != 128 {
		t.Errorf("a public token is %x", pub[:24])
	}
	e := someEC(t)
	b = e.Bytes()
	private = section(b[pkaHead:])
	public = private[private.u16(2):]
	if private[0] != 0x20 || private[4] != 1 || private[10] != 8 || private.u16(12) != 256 || !bytes.Equal(private[16:24], e.Pattern[:]) {
		t.Errorf("the private section of an EC key is %x", private)
	}
	if public[0] != 0x21 || public.u16(10) != 256 || public.u16(12) != 65 || !bytes.Equal(public[14:79], e.Point) {
		t.Errorf("the public section of an EC key is %x", public)
	}
}

// TestOtherCards reads the public half of tokens that other cards make.
func TestOtherCards(t *testing.T) {
	k := someRSA()
	for name, s := range map[string]section{
		"3.8, any section": append(append(make(section, 66), make(section, 300)...), k.N...),
		"3.27, 0x30":       append(append(make(section, meModulus), k.N...), make(section, 300)...),
	} {
		t.Run(name, func(t *testing.T) {
			s[0] = 0x08
			s[oldModulusLength+1] = 128
			if strings.Contains(name, "0x30") {
				s[0], s[meModulusLength+1] = sectionRSAME, 128
				copy(s[mePattern:], k.Pattern[:])
			}
			got, err := ParsePKA(join(pkaInternal, s, k.rsaSection(nil)))
			if err != nil || !bytes.Equal(got.N, k.N) || !bytes.Equal(got.E, k.E) || got.Sealed != nil {
				t.Errorf("read %+v, %v", got, err)
			}
		})
	}
}

func TestPKA(t *testing.T) {
	for name, k := range map[string]PKA{"rsa": someRSA(), "ec": someEC(t)} {
		t.Run(name, func(t *testing.T) {
			for _, b := range [][]byte{k.Bytes(), k.Public()} {
				got, err := ParsePKA(append(bytes.Clone(b), 0, 0))
				if err != nil || !bytes.Equal(got.Bytes(), b) || got.Private != (b[0] == 0x1f) {
					t.Errorf("read %+v, %v", got, err)
				}
				if got.Private && string(got.Sealed) != "sealed" {
					t.Errorf("sealed %q", got.Sealed)
				}
				for n := range b {
					if _, err := ParsePKA(b[:n]); err == nil {
						t.Errorf("%d bytes of it are read", n)
					}
				}
			}
			if bytes.Contains(k.Public(), []byte("sealed")) {
				t.Error("the public token has the private half")
			}
		})
	}
}

func TestCurves(t *testing.T) {
	for kind, bits := range map[byte][]int{kindPrime: {192, 224, 256, 384, 521}, kindBrainpool: {160, 192, 224, 256, 320, 384, 512}, kindEdwards: {255, 448}, kindKoblitz: {256}} {
		for _, n := range bits {
			c, err := CurveOf(kind, n)
			if err != nil || c.Bits != n || curveKind(c) != kind || !HasCurve(c) {
				t.Errorf("kind %d of %d bits is %q, %v", kind, n, c.Name, err)
			}
		}
	}
	if _, err := CurveOf(4, 256); !errors.Is(err, ErrValues) {
		t.Errorf("a kind that is none: %v", err)
	}
	if c, ok := p11.CurveNamed("x25519"); !ok || HasCurve(c) {
		t.Error("x25519 has a name")
	}
}

func TestValues(t *testing.T) {
	v := RSAValues{Bits: 1024, N: someRSA().N, E: []byte{3}, P: []byte{1}, Q: []byte{2, 2}, DP: []byte{3}, DQ: []byte{4}, Inverse: []byte{5, 5, 5}}
	b := v.Bytes()
	if want := unhex(t, "0400 0080 0001 0000 0001 0002 0001 0001 0003"); !bytes.Equal(b[:18], want) {
		t.Errorf("the lengths are %x", b[:18])
	}
	got, err := ParseRSAValues(append(bytes.Clone(b), make([]byte, 30)...))
	if err != nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("read %+v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseRSAValues(b[:n]); !errors.Is(err, ErrValues) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	public := RSAValues{Bits: 1024, N: v.N, E: v.E}
	if got, err := ParseRSAPublicValues(append(public.PublicBytes(), 0, 0)); err != nil || !bytes.Equal(got.N, v.N) || !bytes.Equal(got.E, v.E) {
		t.Errorf("read %+v, %v", got, err)
	}
	// What 3.8 gives to make a key: the bits, and an exponent in 24 bytes.
	make1 := unhex(t, "0800 0000 0003 0000 0000 0000 0000 0000 0000 010001"+strings.Repeat("00", 21))
	if got, err := ParseRSAValues(make1); err != nil || got.Bits != 2048 || !bytes.Equal(got.E, []byte{1, 0, 1}) {
		t.Errorf("read %+v, %v", got, err)
	}
	e := ECValues{Curve: someEC(t).Curve, Scalar: bytes.Repeat([]byte{1}, 32), Point: someEC(t).Point}
	if got, err := ParseECValues(append(e.Bytes(), 0)); err != nil || !bytes.Equal(got.Bytes(), e.Bytes()) {
		t.Errorf("read %+v, %v", got, err)
	}
	if got, err := ParseECValues(unhex(t, "0100 0200 00000000")); err != nil || got.Curve.Name != "brainpoolp512r1" || len(got.Scalar) > 0 {
		t.Errorf("read %+v, %v", got, err)
	}
	s := Skeleton{Rules{"RSA-CRT", "KEY-MGMT"}, b}
	back, err := ParseSkeleton(append(s.Bytes(), 0, 0, 0))
	if err != nil || !bytes.Equal(back.Bytes(), s.Bytes()) || back.Rules[1] != "KEY-MGMT" {
		t.Errorf("read %+v, %v", back, err)
	}
}

func TestRules(t *testing.T) {
	r, err := ParseRules([]byte("AES     KEYIDENTINITIAL "))
	if err != nil || len(r) != 3 || r[2] != "INITIAL" || string(r.Bytes()) != "AES     KEYIDENTINITIAL " {
		t.Errorf("%q, %v", r, err)
	}
	if _, err := ParseRules([]byte("AES")); !errors.Is(err, ErrKeyword) {
		t.Errorf("no whole keyword: %v", err)
	}
	if _, err := r.One("INITIAL", "KEYIDENT"); !errors.Is(err, ErrKeyword) {
		t.Errorf("two of a list: %v", err)
	}
	if k, err := r.One("DES", "AES"); err != nil || k != "AES" {
		t.Errorf("%q, %v", k, err)
	}
	if err := r.Only("AES", "INITIAL"); !errors.Is(err, ErrKeyword) {
		t.Errorf("one too many: %v", err)
	}
	if err := (Rules{"A", "A"}).Only("A"); !errors.Is(err, ErrKeyword) {
		t.Errorf("one twice: %v", err)
	}
}
