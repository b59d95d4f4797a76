package ep11

import (
	"bytes"
	"testing"

	"p11fs/p11"
)

// TestPoints names control points, and switches each.
func TestPoints(t *testing.T) {
	for _, p := range Points() {
		for _, name := range []string{p.Name, "XCP_CPB_" + p.Name} {
			if n, ok := PointOf(name); n != p.Number || !ok {
				t.Errorf("%s is %d, %v", name, n, ok)
			}
		}
		points := make([]byte, ControlPointBytes)
		SetPoint(points, p.Number, true)
		if !HasPoint(points, p.Number) || bytes.Equal(points, make([]byte, len(points))) {
			t.Errorf("%s is off in %x", p.Name, points)
		}
		if SetPoint(points, p.Number, false); !bytes.Equal(points, make([]byte, len(points))) {
			t.Errorf("%s is on in %x", p.Name, points)
		}
	}
	for _, none := range []string{"", "ALG", "1024", "-1"} {
		if n, ok := PointOf(none); ok {
			t.Errorf("%q is %d", none, n)
		}
	}
	if HasPoint(nil, 0) || HasPoint([]byte{0xff}, -1) || HasPoint([]byte{0xff}, 8) {
		t.Error("a point that there is not is on")
	}
}

// TestStrength has keys at the bounds of the strengths.
func TestStrength(t *testing.T) {
	const below, of80, of112, of128, of192, of256 = 23, 24, 25, 26, 27, 28
	for _, tt := range []struct {
		kt   p11.KeyType
		size uint64
		want int
	}{
		{p11.CKK_RSA, 1023, below}, {p11.CKK_RSA, 1024, of80}, {p11.CKK_RSA, 2047, of80}, {p11.CKK_RSA, 2048, of112}, {p11.CKK_RSA, 3072, of128},
		{p11.CKK_RSA, 7680, of192}, {p11.CKK_RSA, 16384, of256}, {p11.CKK_DSA, 1024, of80}, {p11.CKK_DH, 2048, of112},
		{p11.CKK_EC, 0, below}, {p11.CKK_EC, 192, of80}, {p11.CKK_EC, 224, of112}, {p11.CKK_EC, 256, of128}, {p11.CKK_EC, 384, of192}, {p11.CKK_EC, 521, of256},
		{p11.CKK_EC_EDWARDS, 255, of128}, {p11.CKK_EC_MONTGOMERY, 448, of192},
		{p11.CKK_DES, 8, below}, {p11.CKK_DES2, 16, of80}, {p11.CKK_DES3, 24, of112},
		{p11.CKK_AES, 16, of128}, {p11.CKK_AES, 24, of192}, {p11.CKK_AES, 32, of256},
		{p11.CKK_GENERIC_SECRET, 9, below}, {p11.CKK_GENERIC_SECRET, 10, of80}, {p11.CKK_SHA256_HMAC, 256, of256},
	} {
		if got := StrengthPoint(tt.kt, tt.size); got != tt.want {
			t.Errorf("a key of %s of %d: point %d, not %d", tt.kt.Short(), tt.size, got, tt.want)
		}
	}
}

// TestBounded switches strengths off, and looks at what is left of mechanisms.
func TestBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		off  []int
		m    p11.MechanismType
		has  [2]uint64
		want [2]uint64 // zeros for none
	}{
		"all on":             {nil, p11.CKM_RSA_PKCS, [2]uint64{512, 4096}, [2]uint64{512, 4096}},
		"RSA from 1024":      {[]int{23}, p11.CKM_RSA_PKCS, [2]uint64{512, 4096}, [2]uint64{1024, 4096}},
		"RSA from 2048":      {[]int{23, 24}, p11.CKM_RSA_PKCS, [2]uint64{512, 4096}, [2]uint64{2048, 4096}},
		"RSA below 3072":     {[]int{26}, p11.CKM_RSA_PKCS, [2]uint64{512, 4096}, [2]uint64{512, 3071}},
		"no RSA":             {[]int{23, 24, 25, 26}, p11.CKM_RSA_PKCS, [2]uint64{512, 4096}, [2]uint64{}},
		"a gap is inside":    {[]int{25}, p11.CKM_RSA_PKCS, [2]uint64{1024, 4096}, [2]uint64{1024, 4096}},
		"AES of 32":          {[]int{26, 27}, p11.CKM_AES_CBC, [2]uint64{16, 32}, [2]uint64{32, 32}},
		"AES to 24":          {[]int{28}, p11.CKM_AES_CBC, [2]uint64{16, 32}, [2]uint64{16, 24}},
		"no DES3":            {[]int{24, 25}, p11.CKM_DES3_CBC, [2]uint64{16, 24}, [2]uint64{}},
		"HMAC":               {[]int{23, 24}, p11.CKM_SHA256_HMAC, [2]uint64{8, 256}, [2]uint64{14, 256}},
		"a digest":           {[]int{23, 24, 25, 26, 27, 28}, p11.CKM_SHA256, [2]uint64{}, [2]uint64{}},
		"curves of 384 bits": {[]int{26, 25, 24, 23}, p11.CKM_ECDSA, [2]uint64{192, 521}, [2]uint64{384, 521}},
	} {
		t.Run(name, func(t *testing.T) {
			points := bytes.Repeat([]byte{0xff}, ControlPointBytes)
			for _, n := range tt.off {
				SetPoint(points, n, false)
			}
			got, ok := Bounded(points, p11.MechanismInfo{Type: tt.m, MinKeySize: tt.has[0], MaxKeySize: tt.has[1], Flags: p11.CKF_SIGN})
			if want := tt.want != [2]uint64{} || tt.has == [2]uint64{}; ok != want || ok && (got.MinKeySize != tt.want[0] || got.MaxKeySize != tt.want[1] || got.Flags != p11.CKF_SIGN) {
				t.Errorf("%v, %v", got, ok)
			}
		})
	}
}
