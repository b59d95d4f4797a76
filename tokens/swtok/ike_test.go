package swtok

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// TestIKE2Vector is a vector of NIST's CAVP for IKEv2 with HMAC-SHA-1, as libreswan tests
// itself with it.
func TestIKE2Vector(t *testing.T) {
	const (
		ni, nr   = "32b50d5f4a3763f3", "9206a04b26564cb1"
		gir      = "4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52"
		girNew   = "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330"
		spi      = "34c9e7c1888687853ff77d760d2b2199"
		skeyseed = "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"
		rekeyed  = "63e81194946ebd05df7df5ebf5d8750056bf1f1d"
		dkm      = "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002" +
			"a2a63080e514a062768b76606f9fa5e992204fc5a670bde3f10d6b027113936a" +
			"5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd1119" +
			"8af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4"
	)
	c := NewCrypto(GoProvider(), nil)
	key := func(s string) *tokens.Object { return tokentest.Secret(t, p11.CKK_GENERIC_SECRET, tokentest.Hex(t, s)) }
	for _, v := range []struct {
		spec  string
		base  string
		other *tokens.Object
		want  string
	}{
		{"ike-prf-derive,data-as-key=true,ni=" + ni + ",nr=" + nr, gir, nil, skeyseed},
		{"ike2-prf-plus-derive,seed-data=" + ni + nr + spi, skeyseed, nil, dkm},
		{"ike2-prf-plus-derive,seed-key=1,seed-data=" + nr + spi, skeyseed, key(ni), dkm},
		{"ike-prf-derive,new-key=1,ni=" + ni + ",nr=" + nr, dkm[:40], key(girNew), rekeyed},
	} {
		got, err := derivedValues(t, c, parsed(t, v.spec+",prf=sha-1-hmac"), key(v.base), uint64(len(v.want)/2), v.other)
		if err != nil || fmt.Sprintf("%x", got[0]) != v.want {
			t.Errorf("%s: %x, %v, want %s", v.spec, got, err, v.want)
		}
	}
}

// TestIKECMAC has the vectors of RFC 4615 §4, of which those of other lengths than 16 bytes
// are what IKE has beside CKM_AES_CMAC.
func TestIKECMAC(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		if !c.provider.HasMode("CMAC") {
			return
		}
		for key, want := range map[string]string{
			"000102030405060708090a0b0c0d0e0fedcb": "84a348a4a45d235babfffc0d2b4da09a",
			"000102030405060708090a0b0c0d0e0f":     "980ae87b5f4c9c5214f5b6a8455e4c2d",
			"00010203040506070809":                 "290d9e112edb09ee141fcf64c0b72f3d",
		} {
			base := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, tokentest.Hex(t, key))
			got, err := derivedValues(t, c, parsed(t, "ike-prf-derive,prf=aes-cmac,ni=000102030405060708090a0b0c0d0e0f,nr=10111213"), base, 16, nil)
			if err != nil || fmt.Sprintf("%x", got[0]) != want {
				t.Errorf("%s: %x, %v, want %s", key, got, err, want)
			}
		}
	})
}

// TestIKE1 works the formulas of RFC 2409 §5, §5.5 and appendix B out with crypto/hmac.
func TestIKE1(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	secretKey := func(b []byte) *tokens.Object { return tokentest.Secret(t, p11.CKK_GENERIC_SECRET, b) }
	prf := func(key []byte, data ...[]byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(slices.Concat(data...))
		return m.Sum(nil)
	}
	skeyid, gxy, cky := []byte("skeyid"), []byte("g to the xy"), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	d := prf(skeyid, gxy, cky, []byte{0})
	a := prf(skeyid, d, gxy, cky, []byte{1})
	var long []byte
	for last := []byte{0}; len(long) < 70; long = append(long, last...) {
		last = prf(a, last)
	}
	quick := prf(d, gxy, []byte("extra"))
	quick = append(quick, prf(d, quick, gxy, []byte("extra"))...)
	for _, v := range []struct {
		name, spec string
		base       []byte
		others     []*tokens.Object
		want       []byte
	}{
		{"SKEYID_d", "ike1-prf-derive,shared-key=1,cky-i=0102030405060708,cky-r=090a0b0c0d0e0f10", skeyid, []*tokens.Object{secretKey(gxy), nil}, d},
		{"SKEYID_a", "ike1-prf-derive,shared-key=1,previous-key=2,cky-i=0102030405060708,cky-r=090a0b0c0d0e0f10,number=01", skeyid, []*tokens.Object{secretKey(gxy), secretKey(d)}, a},
		{"part of SKEYID_d", "ike1-prf-derive,shared-key=1,cky-i=0102030405060708,cky-r=090a0b0c0d0e0f10", skeyid, []*tokens.Object{secretKey(gxy), nil}, d[:16]},
		{"appendix B", "ike1-extended-derive", a, []*tokens.Object{nil}, long[:70]},
		{"long enough", "ike1-extended-derive", a, []*tokens.Object{nil}, a[:24]},
		{"longer than the key", "ike1-extended-derive", a[:16], []*tokens.Object{nil}, prf(a[:16], []byte{0})[:24]},
		{"quick mode", "ike1-extended-derive,shared-key=1,extra=\"extra\"", d, []*tokens.Object{secretKey(gxy)}, quick[:60]},
		{"quick mode, short", "ike1-extended-derive,extra=\"extra\"", d, []*tokens.Object{nil}, prf(d, []byte("extra"))[:16]},
	} {
		got, err := derivedValues(t, c, parsed(t, v.spec), secretKey(v.base), uint64(len(v.want)), v.others...)
		if err != nil || !bytes.Equal(got[0], v.want) {
			t.Errorf("%s: %x, %v, want %x", v.name, got, err, v.want)
		}
	}
}

func TestIKERefuses(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	base := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("a base key"))
	for _, v := range []struct {
		spec string
		n    uint64
		want p11.RV
	}{
		{"ike-prf-derive,ni=00,nr=00", sha256.Size, p11.CKR_OK},
		{"ike-prf-derive,ni=00,nr=00", 0, p11.CKR_OK},
		{"ike-prf-derive,ni=00,nr=00", 16, p11.CKR_KEY_SIZE_RANGE},
		{"ike-prf-derive,ni=00,nr=00,data-as-key=true,new-key=7", sha256.Size, p11.CKR_ARGUMENTS_BAD},
		{"ike-prf-derive,ni=00,nr=00,prf=aes-xcbc-mac", 16, p11.CKR_MECHANISM_PARAM_INVALID},
		{"ike2-prf-plus-derive,prf=sha-1-hmac", maxTurns * sha1.Size, p11.CKR_OK},
		{"ike2-prf-plus-derive,prf=sha-1-hmac", maxTurns*sha1.Size + 1, p11.CKR_KEY_SIZE_RANGE},
		{"ike2-prf-plus-derive", 0, p11.CKR_TEMPLATE_INCOMPLETE},
		{"ike1-extended-derive,extra=00", maxTurns*sha256.Size + 1, p11.CKR_KEY_SIZE_RANGE},
	} {
		_, err := derivedValues(t, c, parsed(t, v.spec), base, v.n, base)
		if p11.RVOf(err) != v.want {
			t.Errorf("%s: %v, want %v", v.spec, err, v.want)
		}
	}
	shared := parsed(t, "ike1-prf-derive,cky-i=00,cky-r=00")
	if err := shared.Validate(); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
		t.Errorf("without the shared key: %v", err)
	}
}
