package policy

import (
	"fmt"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// levels are openCryptoki's strengths by default.
func levels() []Level {
	return []Level{
		{112, 2048, 224, 112, 224, 112}, {128, 3072, 256, 128, 256, 128}, {192, 7680, 384, 192, 384, 192}, {256, 15360, 512, 256, 512, 256},
	}
}

func strong(n uint64) *Policy { return &Policy{Name: "policy.conf", Strength: n, Levels: levels()} }

func set[T comparable](list ...T) map[T]bool {
	s := map[T]bool{}
	for _, v := range list {
		s[v] = true
	}
	return s
}

func params(name string) string {
	b, _ := p11.CurveParams(name)
	return string(b)
}

// TestList looks at single mechanisms: what the policy leaves of them.
func TestList(t *testing.T) {
	const sign, cipher, wrap = p11.CKF_SIGN | p11.CKF_VERIFY, p11.CKF_ENCRYPT | p11.CKF_DECRYPT, p11.CKF_WRAP | p11.CKF_UNWRAP
	for _, c := range []struct {
		name string
		p    *Policy
		m    p11.MechanismInfo
		want string // of what is left; "" for nothing
	}{
		{"no policy", nil, p11.MechanismInfo{Type: p11.CKM_MD5, Flags: p11.CKF_DIGEST}, "0-0 digest"},
		{"strength 0", strong(0), p11.MechanismInfo{Type: p11.CKM_MD5, Flags: p11.CKF_DIGEST}, "0-0 digest"},
		{"named", &Policy{Mechanisms: set[p11.MechanismType](p11.CKM_MD5)}, p11.MechanismInfo{Type: p11.CKM_MD5, Flags: p11.CKF_DIGEST}, "0-0 digest"},
		{"not named", &Policy{Mechanisms: set[p11.MechanismType](p11.CKM_MD5)}, p11.MechanismInfo{Type: p11.CKM_SHA256, Flags: p11.CKF_DIGEST}, ""},
		{"none named", &Policy{Mechanisms: set[p11.MechanismType]()}, p11.MechanismInfo{Type: p11.CKM_SHA256, Flags: p11.CKF_DIGEST}, ""},
		{"short digest", strong(112), p11.MechanismInfo{Type: p11.CKM_SHA_1, Flags: p11.CKF_DIGEST}, ""},
		{"digest", strong(112), p11.MechanismInfo{Type: p11.CKM_SHA224, Flags: p11.CKF_DIGEST}, "0-0 digest"},
		{"RSA", strong(128), p11.MechanismInfo{Type: p11.CKM_RSA_PKCS, MinKeySize: 512, MaxKeySize: 4096, Flags: cipher | sign}, "3072-4096 encrypt,decrypt,sign,verify"},
		{"RSA too short", strong(192), p11.MechanismInfo{Type: p11.CKM_RSA_PKCS, MinKeySize: 512, MaxKeySize: 4096, Flags: cipher | sign}, ""},
		{"RSA with SHA-1", strong(192), p11.MechanismInfo{Type: p11.CKM_SHA1_RSA_PKCS, MinKeySize: 512, MaxKeySize: 16384, Flags: sign}, ""},
		{"RSA with SHA-1, weaker", strong(128), p11.MechanismInfo{Type: p11.CKM_SHA1_RSA_PKCS, MinKeySize: 512, MaxKeySize: 16384, Flags: sign}, "3072-16384 sign,verify"},
		{"EC", strong(192), p11.MechanismInfo{Type: p11.CKM_ECDSA, MinKeySize: 160, MaxKeySize: 521, Flags: sign | p11.CKF_EC_F_P}, "384-521 sign,verify"},
		{"no curve", &Policy{Curves: set[string]()}, p11.MechanismInfo{Type: p11.CKM_ECDSA, MinKeySize: 160, MaxKeySize: 521, Flags: sign}, ""},
		{"AES", strong(192), p11.MechanismInfo{Type: p11.CKM_AES_GCM, MinKeySize: 16, MaxKeySize: 32, Flags: cipher | wrap}, "24-32 encrypt,decrypt,wrap,unwrap"},
		{"XTS", strong(192), p11.MechanismInfo{Type: p11.CKM_AES_XTS, MinKeySize: 32, MaxKeySize: 64, Flags: cipher}, "48-64 encrypt,decrypt"},
		{"secret in bits", strong(112), p11.MechanismInfo{Type: p11.CKM_GENERIC_SECRET_KEY_GEN, MinKeySize: 80, MaxKeySize: 2048, Flags: p11.CKF_GENERATE}, "112-2048 generate"},
		{"DES", strong(112), p11.MechanismInfo{Type: p11.CKM_DES_CBC, MinKeySize: 8, MaxKeySize: 8, Flags: cipher}, ""},
		{"DES3", strong(112), p11.MechanismInfo{Type: p11.CKM_DES3_CBC, MinKeySize: 24, MaxKeySize: 24, Flags: cipher}, "24-24 encrypt,decrypt"},
		{"DES3 too weak", strong(128), p11.MechanismInfo{Type: p11.CKM_DES3_CBC, MinKeySize: 24, MaxKeySize: 24, Flags: cipher}, ""},
		{"MAC of half a block", strong(112), p11.MechanismInfo{Type: p11.CKM_AES_MAC, MinKeySize: 16, MaxKeySize: 32, Flags: sign}, ""},
		{"CMAC", strong(128), p11.MechanismInfo{Type: p11.CKM_AES_CMAC, MinKeySize: 16, MaxKeySize: 32, Flags: sign}, "16-32 sign,verify"},
		{"HMAC without sizes", strong(192), p11.MechanismInfo{Type: p11.CKM_SHA256_HMAC, Flags: sign}, "0-0 sign,verify"},
		{"HMAC too short", strong(192), p11.MechanismInfo{Type: p11.CKM_SHA_1_HMAC, Flags: sign}, ""},
		{"a derivation", strong(192), p11.MechanismInfo{Type: p11.CKM_SHA1_KEY_DERIVATION, MinKeySize: 8, MaxKeySize: 160, Flags: p11.CKF_DERIVE}, "8-160 derive"},
		{"lattices", strong(256), p11.MechanismInfo{Type: p11.CKM_ML_DSA, MinKeySize: 1312, MaxKeySize: 2592, Flags: sign}, "1312-2592 sign,verify"},
		{"no level is high enough", &Policy{Strength: 192, Levels: levels()[:2]}, p11.MechanismInfo{Type: p11.CKM_AES_GCM, MinKeySize: 16, MaxKeySize: 32, Flags: cipher}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			for _, m := range c.p.List([]p11.MechanismInfo{c.m}) {
				got = sizesOf(m) + " " + strings.Join(m.Uses(), ",")
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func sizesOf(m p11.MechanismInfo) string { return fmt.Sprintf("%d-%d", m.MinKeySize, m.MaxKeySize) }

func TestKey(t *testing.T) {
	p256 := &Policy{Name: "policy.conf", Curves: set(params("p256"))}
	for _, c := range []struct {
		name, attrs string
		p           *Policy
		why         string
	}{
		{"no key", "class=data", strong(256), ""},
		{"RSA", "class=public-key key-type=rsa modulus=0x80" + strings.Repeat("00", 255), strong(112), ""},
		{"RSA too short", "class=public-key key-type=rsa modulus=0x80" + strings.Repeat("00", 127), strong(112), "this one has 1024 bits"},
		{"RSA with zeros in front", "class=public-key key-type=rsa modulus=0x" + strings.Repeat("00", 128) + "80" + strings.Repeat("00", 127), strong(112), "this one has 1024 bits"},
		{"RSA without a modulus", "class=private-key key-type=rsa", strong(112), "this one has 0 bits"},
		{"DH", "class=private-key key-type=dh prime=0x80" + strings.Repeat("00", 127), strong(112), "1024 bits"},
		{"EC", "class=public-key key-type=ec ec-params=p256", strong(128), ""},
		{"EC too short", "class=public-key key-type=ec ec-params=p256", strong(192), "256 bits"},
		{"Ed25519", "class=public-key key-type=ec-edwards ec-params=ed25519", strong(128), ""},
		{"its curve", "class=public-key key-type=ec ec-params=p256", p256, ""},
		{"another curve", "class=public-key key-type=ec ec-params=p384", p256, "does not allow its curve"},
		{"AES", "class=secret-key key-type=aes value=0x" + strings.Repeat("00", 16), strong(128), ""},
		{"AES too short", "class=secret-key key-type=aes value=0x" + strings.Repeat("00", 16), strong(192), "128 bits"},
		{"AES without its value", "class=secret-key key-type=aes value-len=32", strong(256), ""},
		{"XTS", "class=secret-key key-type=aes-xts value=0x" + strings.Repeat("00", 32), strong(192), "128 bits"},
		{"DES3", "class=secret-key key-type=des3 value=0x" + strings.Repeat("00", 24), strong(128), "112 bits"},
		{"DES2", "class=secret-key key-type=des2 value=0x" + strings.Repeat("00", 16), strong(112), "80 bits"},
		{"HMAC", "class=secret-key key-type=sha256-hmac value=0x" + strings.Repeat("00", 10), strong(112), "80 bits"},
		{"lattices", "class=public-key key-type=ml-kem", strong(256), ""},
		{"unknown", "class=public-key key-type=gostr3410", strong(112), "0 bits"},
		{"unknown without a strength", "class=public-key key-type=gostr3410", strong(0), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			attrs, err := p11.ParseTemplate(c.attrs)
			if err != nil {
				t.Fatal(err)
			}
			why, curve := c.p.Key(attrs)
			if (why == "") != (c.why == "") || !strings.Contains(why, c.why) || curve != strings.Contains(c.why, "curve") {
				t.Errorf("%q, %v; want %q", why, curve, c.why)
			}
			if why, _ := (*Policy)(nil).Key(attrs); why != "" {
				t.Errorf("without a policy: %q", why)
			}
		})
	}
}

func TestSignature(t *testing.T) {
	const rsa3072 = "class=private-key key-type=rsa modulus=0x80"
	for _, c := range []struct {
		mech, key string
		strength  uint64
		why       string
	}{
		{"sha256-rsa-pkcs", rsa3072 + strings.Repeat("00", 383), 256, ""},
		{"sha224-rsa-pkcs", rsa3072 + strings.Repeat("00", 383), 256, "224 bits"},
		{"rsa-pkcs", rsa3072 + strings.Repeat("00", 383), 256, ""},
		{"ecdsa", "class=private-key key-type=ec ec-params=p224", 256, ""},
		{"ecdsa-sha1", "class=private-key key-type=ec ec-params=p521", 192, "160 bits"},
		{"sha256-hmac-general,mac=8", "class=secret-key key-type=generic-secret", 112, "64 bits"},
		{"sha256-hmac-general,mac=16", "class=secret-key key-type=generic-secret", 128, ""},
		{"aes-cmac", "class=secret-key key-type=aes", 192, "128 bits"},
		{"aes-mac", "class=secret-key key-type=aes", 112, "64 bits"},
		{"aes-mac", "class=secret-key key-type=aes", 0, ""},
	} {
		m, err := p11.ParseMechanism(c.mech)
		if err != nil {
			t.Fatal(err)
		}
		key, err := p11.ParseTemplate(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if why := strong(c.strength).Signature(m, key); (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s, strength %d: %q, want %q", c.mech, c.strength, why, c.why)
		}
	}
}

func TestParameter(t *testing.T) {
	p := &Policy{
		Name: "policy.conf", Strength: 192, Levels: levels(), Mechanisms: set[p11.MechanismType](p11.CKM_SHA256, p11.CKM_SHA512),
		MGFs: set[p11.MGF](p11.CKG_MGF1_SHA256), KDFs: set[p11.KDF](p11.CKD_SHA256_KDF),
	}
	for text, why := range map[string]string{
		"rsa-pkcs-oaep,hash=sha256":                         "",
		"rsa-pkcs-oaep":                                     "sha-1",
		"rsa-pkcs-oaep,hash=sha256,mgf=mgf1-sha512":         "mgf1-sha512",
		"rsa-pkcs-pss,hash=sha512":                          "mgf1-sha512",
		"sha256-rsa-pkcs-pss":                               "",
		"ecdh1-derive,kdf=sha256-kdf":                       "",
		"ecdh1-derive":                                      "the KDF null",
		"rsa-aes-key-wrap,hash=sha256":                      "",
		"rsa-aes-key-wrap,hash=sha384":                      "sha384",
		"rsa-aes-key-wrap,hash=sha256,bits=128":             "an AES key of 128 bits",
		"aes-gcm,iv=000000000000000000000000":               "",
		"aes-cbc,iv=00000000000000000000000000000000":       "",
		"sha256-hmac-general,mac=16":                        "",
		"aes-ctr,counter=00000000000000000000000000000000":  "",
		"aes-ccm,nonce=00000000000000,length=16,mac=8,aad=": "",
	} {
		m, err := p11.ParseMechanism(text)
		if err != nil {
			t.Fatal(err)
		}
		got := p.Parameter(m)
		if (got == "") != (why == "") || !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %q", text, got, why)
		}
		if got := (*Policy)(nil).Parameter(m); got != "" {
			t.Errorf("%s without a policy: %q", text, got)
		}
	}
}

func TestStore(t *testing.T) {
	old := tokens.Protection{Mechanisms: []p11.MechanismType{p11.CKM_DES3_CBC, p11.CKM_MD5}, Bits: 80}
	current := tokens.Protection{Mechanisms: []p11.MechanismType{p11.CKM_AES_GCM}, PRF: p11.CKP_PKCS5_PBKD2_HMAC_SHA512, Bits: 256}
	for _, c := range []struct {
		p    *Policy
		c    tokens.Protection
		want string
	}{
		{nil, old, ""},
		{strong(0), old, ""},
		{strong(112), old, "keys of 80 bits"},
		{strong(256), current, ""},
		{&Policy{Mechanisms: set[p11.MechanismType](p11.CKM_DES3_CBC)}, old, "CKM_MD5"},
		{&Policy{PRFs: set[p11.PBKDF2PRF]()}, current, "CKP_PKCS5_PBKD2_HMAC_SHA512"},
		{&Policy{PRFs: set[p11.PBKDF2PRF]()}, old, ""},
	} {
		if why := c.p.Store(c.c); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%v: %q, want %q", c.p, why, c.want)
		}
	}
}
