package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

const (
	p256Params  = "ec-params=secp256r1"
	p256Point   = "0x0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
	certificate = "class=certificate certificate-type=x-509 subject=0x3000 value=0x3000"
)

func TestCreateRules(t *testing.T) {
	tests := []struct {
		name, template string
		want           p11.RV
		names          string // the attribute at fault
	}{
		{"data", "class=data", p11.CKR_OK, ""},
		{"no class", "label=x", p11.CKR_TEMPLATE_INCOMPLETE, "class"},
		{"unknown class", "class=0x1234", p11.CKR_ATTRIBUTE_VALUE_INVALID, "class"},
		{"hardware feature", "class=hw-feature hw-feature-type=clock", p11.CKR_ATTRIBUTE_VALUE_INVALID, "class"},
		{"attribute of another class", "class=data modulus=0x01", p11.CKR_ATTRIBUTE_TYPE_INVALID, "modulus"},
		{"unique id given", "class=data unique-id=x", p11.CKR_ATTRIBUTE_READ_ONLY, "unique-id"},

		{"certificate", certificate, p11.CKR_OK, ""},
		{"certificate without type", "class=certificate subject=0x3000 value=0x3000", p11.CKR_TEMPLATE_INCOMPLETE, "certificate-type"},
		{"certificate of unknown type", "class=certificate certificate-type=0x99 value=0x3000", p11.CKR_ATTRIBUTE_VALUE_INVALID, "certificate-type"},
		{"certificate without subject", "class=certificate certificate-type=x-509 value=0x3000", p11.CKR_TEMPLATE_INCOMPLETE, "subject"},
		{"certificate without value", "class=certificate certificate-type=x-509 subject=0x3000", p11.CKR_TEMPLATE_INCOMPLETE, "value"},
		{"certificate by URL", "class=certificate certificate-type=x-509 subject=0x3000 url=http://example.org", p11.CKR_OK, ""},
		{"trusted by the user", certificate + " trusted=true", p11.CKR_ATTRIBUTE_READ_ONLY, "trusted"},
		{"untrusted by the user", certificate + " trusted=false", p11.CKR_OK, ""},
		{"dates", certificate + " start-date=2026-01-01 end-date=2027-01-01", p11.CKR_OK, ""},
		{"dates the wrong way round", certificate + " start-date=2027-01-01 end-date=2026-01-01", p11.CKR_TEMPLATE_INCONSISTENT, "end-date"},

		{"aes", aesKey, p11.CKR_OK, ""},
		{"expired key", aesKey + " end-date=2001-01-01", p11.CKR_OK, ""},
		{"aes without key type", "class=secret-key value=0x00", p11.CKR_TEMPLATE_INCOMPLETE, "key-type"},
		{"aes without value", "class=secret-key key-type=aes", p11.CKR_TEMPLATE_INCOMPLETE, "value"},
		{"aes of 5 bytes", "class=secret-key key-type=aes value=0x0001020304", p11.CKR_ATTRIBUTE_VALUE_INVALID, "value"},
		{"empty generic secret", "class=secret-key key-type=generic-secret value=0x", p11.CKR_ATTRIBUTE_VALUE_INVALID, "value"},
		{"right length", aesKey + " value-len=16", p11.CKR_OK, ""},
		{"wrong length", aesKey + " value-len=32", p11.CKR_TEMPLATE_INCONSISTENT, "value-len"},
		{"local", aesKey + " local=true", p11.CKR_ATTRIBUTE_READ_ONLY, "local"},
		{"always sensitive", aesKey + " always-sensitive=true", p11.CKR_ATTRIBUTE_READ_ONLY, "always-sensitive"},
		{"never extractable", aesKey + " never-extractable=true", p11.CKR_ATTRIBUTE_READ_ONLY, "never-extractable"},
		{"key gen mechanism", aesKey + " key-gen-mechanism=aes-key-gen", p11.CKR_ATTRIBUTE_READ_ONLY, "key-gen-mechanism"},
		{"trusted key by the user", aesKey + " trusted=true", p11.CKR_ATTRIBUTE_READ_ONLY, "trusted"},
		{"right check value", aesKey + " check-value=0xc6a13b", p11.CKR_OK, ""},
		{"wrong check value", aesKey + " check-value=0x000000", p11.CKR_ATTRIBUTE_VALUE_INVALID, "check-value"},
		{"no check value", aesKey + " check-value=0x", p11.CKR_OK, ""},
		{"unknown key type", "class=secret-key key-type=0x7777 value=0x00", p11.CKR_ATTRIBUTE_VALUE_INVALID, "key-type"},
		{"public attribute in a secret key", aesKey + " verify-recover=true", p11.CKR_ATTRIBUTE_TYPE_INVALID, "verify-recover"},

		{"rsa public without exponent", "class=public-key key-type=rsa modulus=0xc5", p11.CKR_TEMPLATE_INCOMPLETE, "public-exponent"},
		{"rsa public, of no use", "class=public-key key-type=rsa modulus=0x0001 public-exponent=0x010001", p11.CKR_OK, ""},
		{"rsa public, even modulus", "class=public-key key-type=rsa modulus=0xc4c4c4c4 public-exponent=0x03", p11.CKR_ATTRIBUTE_VALUE_INVALID, "modulus"},
		{"rsa public, zero modulus", "class=public-key key-type=rsa modulus=0x0000 public-exponent=0x03", p11.CKR_ATTRIBUTE_VALUE_INVALID, "modulus"},
		{"rsa public, wrong bits", "class=public-key key-type=rsa modulus=0xc4c4c4c5 public-exponent=0x03 modulus-bits=31", p11.CKR_TEMPLATE_INCONSISTENT, "modulus-bits"},
		{"ec private without params", "class=private-key key-type=ec value=0x01", p11.CKR_TEMPLATE_INCOMPLETE, "ec-params"},
		{"ec private", "class=private-key key-type=ec value=0x05 " + p256Params, p11.CKR_OK, ""},
		{"ec private, zero", "class=private-key key-type=ec value=0x00 " + p256Params, p11.CKR_ATTRIBUTE_VALUE_INVALID, "value"},
		{"ec private, too long", "class=private-key key-type=ec value=0x" + strings.Repeat("11", 33) + " " + p256Params, p11.CKR_ATTRIBUTE_VALUE_INVALID, "value"},
		{"ec public off the curve", "class=public-key key-type=ec ec-point=0x044104" + strings.Repeat("01", 64) + " " + p256Params, p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point"},
		{"ec public, no point", "class=public-key key-type=ec ec-point=0x77 " + p256Params, p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point"},
		{"ec public, curve by name", "class=public-key key-type=ec ec-params=0x1309736563703235367231 ec-point=" + p256Point, p11.CKR_OK, ""},
		{"ec public, garbage for a curve", "class=public-key key-type=ec ec-params=0xdeadbeef ec-point=" + p256Point, p11.CKR_DOMAIN_PARAMS_INVALID, "the curve"},
		{"ec public, implicit curve", "class=public-key key-type=ec ec-params=0x0500 ec-point=" + p256Point, p11.CKR_DOMAIN_PARAMS_INVALID, "the curve"},
		{"ec public, explicit garbage", "class=public-key key-type=ec ec-params=0x3000 ec-point=" + p256Point, p11.CKR_DOMAIN_PARAMS_INVALID, "the explicit curve parameters"},
		{"ec public, sect163k1", "class=public-key key-type=ec ec-params=0x06052b81040001 ec-point=" + p256Point, p11.CKR_CURVE_NOT_SUPPORTED, "the curve"},
		{"ec private, P-224", "class=private-key key-type=ec ec-params=secp224r1 value=0x05", p11.CKR_OK, ""},
		{"ec public, a curve of another type", "class=public-key key-type=ec ec-params=ed25519 ec-point=0x0420" + strings.Repeat("01", 32), p11.CKR_CURVE_NOT_SUPPORTED, "the curve"},
		{"Ed25519", "class=private-key key-type=ec-edwards ec-params=ed25519 value=0x" + strings.Repeat("01", 32), p11.CKR_OK, ""},
		{"rsa public of 16392 bits", "class=public-key key-type=rsa public-exponent=0x010001 modulus=0x" + strings.Repeat("ff", 2049), p11.CKR_ATTRIBUTE_VALUE_INVALID, "an RSA key of 16392 bits"},
		{"rsa public, exponent of 33 bits", "class=public-key key-type=rsa public-exponent=0x0100000001 modulus=0x" + strings.Repeat("ff", 128), p11.CKR_ATTRIBUTE_VALUE_INVALID, "public-exponent"},
		{"domain parameters", "class=domain-parameters key-type=dh prime=0x17 base=0x02", p11.CKR_OK, ""},
	}
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := b.Stats().SessionObjects
			_, err := s.CreateObject(t.Context(), tmpl(t, tt.template))
			want(t, err, tt.want)
			if err == nil {
				return
			}
			if !strings.HasPrefix(err.Error(), tt.names) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the reason is not one line that begins with %q: %q", tt.names, err)
			}
			if n := b.Stats().SessionObjects; n != before {
				t.Errorf("%d objects after a refusal, %d before", n, before)
			}
		})
	}
}

func TestSOSetsTrusted(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.app(), rw)
	logIn(t, s, p11.CKU_SO, "87654321")
	h := create(t, s, certificate+" token=true trusted=true")
	if !flag(t, s, h, p11.CKA_TRUSTED) {
		t.Error("trusted is not true")
	}
	h = create(t, s, certificate+" token=true")
	want(t, s.SetAttributeValue(t.Context(), h, tmpl(t, "trusted=true")), p11.CKR_OK)
	_, err := s.CreateObject(t.Context(), tmpl(t, "class=data private=true"))
	want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
}

// Which session may make what (PKCS#11 v3.1 §5.6, access to objects).
func TestCreateAccess(t *testing.T) {
	states := []struct {
		name  string
		flags p11.Flags
		user  p11.UserType
		pin   string
		// public session, private session, public token, private token
		want [4]p11.RV
	}{
		{"RO public", ro, 0, "", [4]p11.RV{p11.CKR_OK, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_SESSION_READ_ONLY, p11.CKR_USER_NOT_LOGGED_IN}},
		{"RW public", rw, 0, "", [4]p11.RV{p11.CKR_OK, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_OK, p11.CKR_USER_NOT_LOGGED_IN}},
		{"RO user", ro, p11.CKU_USER, "1234", [4]p11.RV{p11.CKR_OK, p11.CKR_OK, p11.CKR_SESSION_READ_ONLY, p11.CKR_SESSION_READ_ONLY}},
		{"RW user", rw, p11.CKU_USER, "1234", [4]p11.RV{p11.CKR_OK, p11.CKR_OK, p11.CKR_OK, p11.CKR_OK}},
		{"RW SO", rw, p11.CKU_SO, "87654321", [4]p11.RV{p11.CKR_OK, p11.CKR_USER_NOT_LOGGED_IN, p11.CKR_OK, p11.CKR_USER_NOT_LOGGED_IN}},
	}
	for _, st := range states {
		t.Run(st.name, func(t *testing.T) {
			b := newBench(t, hooks.Options{})
			s := b.session(t, b.app(), st.flags)
			if st.pin != "" {
				logIn(t, s, st.user, st.pin)
			}
			for i, template := range []string{"token=false private=false", "token=false private=true", "token=true private=false", "token=true private=true"} {
				_, err := s.CreateObject(t.Context(), tmpl(t, "class=data "+template))
				if got := p11.RVOf(err); got != st.want[i] {
					t.Errorf("%s: %v, want %v", template, err, st.want[i])
				}
			}
		})
	}
	t.Run("a read-only session changes no token object", func(t *testing.T) {
		b := newBench(t, hooks.Options{})
		h := create(t, b.session(t, b.app(), rw), "class=data token=true")
		s := b.session(t, b.app(), ro)
		want(t, s.SetAttributeValue(t.Context(), h, tmpl(t, "label=x")), p11.CKR_SESSION_READ_ONLY)
		want(t, s.DestroyObject(t.Context(), h), p11.CKR_SESSION_READ_ONLY)
		_, err := s.CopyObject(t.Context(), h, nil)
		want(t, err, p11.CKR_SESSION_READ_ONLY)
		_, err = s.CopyObject(t.Context(), h, tmpl(t, "token=false"))
		want(t, err, p11.CKR_OK)
	})
}

func TestDefaults(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.NewApplication(Owner{UID: 1}, ForPeople), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	pub, priv := generateEC(t, s, "", "")
	tests := []struct {
		name    string
		h       p11.ObjectHandle
		yes, no []p11.AttributeType
		empty   []p11.AttributeType
	}{
		{"data", create(t, s, "class=data"),
			[]p11.AttributeType{p11.CKA_MODIFIABLE, p11.CKA_COPYABLE, p11.CKA_DESTROYABLE},
			[]p11.AttributeType{p11.CKA_TOKEN, p11.CKA_PRIVATE},
			[]p11.AttributeType{p11.CKA_LABEL, p11.CKA_APPLICATION, p11.CKA_OBJECT_ID, p11.CKA_VALUE}},
		{"certificate", create(t, s, certificate),
			[]p11.AttributeType{p11.CKA_MODIFIABLE},
			[]p11.AttributeType{p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_TRUSTED},
			[]p11.AttributeType{p11.CKA_ID, p11.CKA_ISSUER, p11.CKA_SERIAL_NUMBER}},
		{"imported secret key", create(t, s, aesKey),
			[]p11.AttributeType{p11.CKA_PRIVATE, p11.CKA_SENSITIVE, p11.CKA_ENCRYPT, p11.CKA_DECRYPT},
			[]p11.AttributeType{p11.CKA_EXTRACTABLE, p11.CKA_LOCAL, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_DERIVE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_SIGN, p11.CKA_VERIFY},
			[]p11.AttributeType{p11.CKA_ID, p11.CKA_START_DATE, p11.CKA_END_DATE}},
		{"generic secret", create(t, s, macKey),
			[]p11.AttributeType{p11.CKA_SIGN, p11.CKA_VERIFY},
			[]p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_DERIVE}, nil},
		{"generated public key", pub,
			[]p11.AttributeType{p11.CKA_LOCAL, p11.CKA_VERIFY},
			[]p11.AttributeType{p11.CKA_PRIVATE, p11.CKA_WRAP, p11.CKA_ENCRYPT, p11.CKA_VERIFY_RECOVER, p11.CKA_DERIVE},
			[]p11.AttributeType{p11.CKA_SUBJECT}},
		{"generated private key", priv,
			[]p11.AttributeType{p11.CKA_PRIVATE, p11.CKA_SENSITIVE, p11.CKA_LOCAL, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_SIGN},
			[]p11.AttributeType{p11.CKA_EXTRACTABLE, p11.CKA_UNWRAP, p11.CKA_DECRYPT, p11.CKA_SIGN_RECOVER, p11.CKA_DERIVE, p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED},
			[]p11.AttributeType{p11.CKA_SUBJECT}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, a := range tt.yes {
				if !flag(t, s, tt.h, a) {
					t.Errorf("%s is false", a)
				}
			}
			for _, a := range tt.no {
				if flag(t, s, tt.h, a) {
					t.Errorf("%s is true", a)
				}
			}
			for _, a := range tt.empty {
				if r := get(t, s, tt.h, a); r.Err != nil || len(r.Value) != 0 {
					t.Errorf("%s is %x, %v", a, r.Value, r.Err)
				}
			}
			if r := get(t, s, tt.h, p11.CKA_UNIQUE_ID); r.Err != nil || len(r.Value) == 0 {
				t.Errorf("unique id %q, %v", r.Value, r.Err)
			}
		})
	}
}

// sha1Of is the check value of what is no block cipher's key.
func sha1Of(s string) string {
	sum := sha1.Sum([]byte(s))
	return string(sum[:3])
}

func TestComputedAttributes(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	t.Run("secret key", func(t *testing.T) {
		h := create(t, s, aesKey)
		if r := get(t, s, h, p11.CKA_CHECK_VALUE); string(r.Value) != "\xc6\xa1\x3b" {
			t.Errorf("check value %x, %v", r.Value, r.Err)
		}
		if r := get(t, s, h, p11.CKA_VALUE_LEN); string(r.Value) != string(p11.Ulong[uint64](16)) {
			t.Errorf("value-len %x, %v", r.Value, r.Err)
		}
		if r := get(t, s, h, p11.CKA_KEY_GEN_MECHANISM); string(r.Value) != string(p11.Ulong(p11.Unavailable)) {
			t.Errorf("key-gen-mechanism %x, %v", r.Value, r.Err)
		}
		for text, check := range map[string]string{
			macKey: sha1Of("\x00\x01\x02\x03\x04\x05\x06\x07"),
			"class=secret-key key-type=sha256-hmac value=0x31":                sha1Of("1"),
			"class=secret-key key-type=des value=0x0123456789abcdef":          "\xd5\xd4\x4f",
			"class=secret-key key-type=chacha20 value=" + zeroIV + zeroIV[2:]: sha1Of(strings.Repeat("\x00", 32)),
			certificate: "",
		} {
			t.Run(text, func(t *testing.T) {
				h := create(t, s, text)
				if check == "" {
					check = sha1Of(string(get(t, s, h, p11.CKA_VALUE).Value))
				}
				if r := get(t, s, h, p11.CKA_CHECK_VALUE); string(r.Value) != check {
					t.Errorf("check value %x, %v, want %x", r.Value, r.Err, check)
				}
				_, err := s.CreateObject(t.Context(), tmpl(t, text+" check-value=0x000000"))
				want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
				want(t, get(t, s, create(t, s, text+` check-value=""`), p11.CKA_CHECK_VALUE).Err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
			})
		}
	})
	t.Run("allowed mechanisms", func(t *testing.T) {
		// All are allowed: an empty list, which is there.
		if r := get(t, s, create(t, s, aesKey), p11.CKA_ALLOWED_MECHANISMS); r.Err != nil || len(r.Value) != 0 {
			t.Errorf("%x, %v", r.Value, r.Err)
		}
		want(t, get(t, s, create(t, s, "class=data"), p11.CKA_ALLOWED_MECHANISMS).Err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
	})
	t.Run("keys of HMAC over each hash", func(t *testing.T) {
		create(t, s, "class=secret-key key-type=sha512-256-hmac value=0x00010203")
	})
	t.Run("an RSA key of n, e and d has its primes", func(t *testing.T) {
		h := create(t, s, "class=private-key key-type=rsa sensitive=false extractable=true public-exponent=0x010001 "+
			"modulus=0xbd806345329162cf29432f265cfc87b25b001a4c3203b57831bfaac9c0564d1aa4490365b1f5364fa2b7caae1bba442137d91f89e23c8563516abe8ced174f23 "+
			"private-exponent=0x51970aa6cb7bef581482f9b501ca34bea511a940ef33cb99418a2d858a0b5e4c80e4eb4487185566149bcf801c288b9d64871db5047623f29cdf92f508ea7249")
		if r := get(t, s, h, p11.CKA_PRIME_1); r.Err != nil || len(r.Value) == 0 {
			t.Errorf("%x, %v", r.Value, r.Err)
		}
	})
	t.Run("EC private key alone knows its public key", func(t *testing.T) {
		h := create(t, s, "class=private-key key-type=ec value=0x05 "+p256Params)
		info := get(t, s, h, p11.CKA_PUBLIC_KEY_INFO)
		if info.Err != nil || len(info.Value) != 91 {
			t.Errorf("public-key-info %x, %v", info.Value, info.Err)
		}
		// Programs ask a private key for its point.
		if r := get(t, s, h, p11.CKA_EC_POINT); r.Err != nil || len(r.Value) != 67 || !bytes.HasSuffix(info.Value, r.Value[2:]) {
			t.Errorf("ec-point %x, %v", r.Value, r.Err)
		}
	})
	t.Run("a compressed EC point becomes whole", func(t *testing.T) {
		pub, _ := generateEC(t, s, "", "")
		der := get(t, s, pub, p11.CKA_EC_POINT).Value
		x, y := der[3:35], der[35:]
		a := tmpl(t, "class=public-key key-type=ec "+p256Params)
		a.Set(p11.CKA_EC_POINT, append([]byte{4, 33, 2 + y[31]&1}, x...))
		h, err := s.CreateObject(t.Context(), a)
		want(t, err, p11.CKR_OK)
		if r := get(t, s, h, p11.CKA_EC_POINT); !bytes.Equal(r.Value, der) {
			t.Errorf("%x, %v, want %x", r.Value, r.Err, der)
		}
	})
	t.Run("pairs have ids", func(t *testing.T) {
		seen := map[string]bool{}
		for range 2 {
			pub, priv := generateEC(t, s, "", "")
			a, b := get(t, s, pub, p11.CKA_ID).Value, get(t, s, priv, p11.CKA_ID).Value
			point := get(t, s, pub, p11.CKA_EC_POINT).Value
			if sum := sha1.Sum(point[2:]); !bytes.Equal(a, sum[:]) || !bytes.Equal(a, b) || seen[string(a)] {
				t.Errorf("ids %x and %x", a, b)
			}
			seen[string(a)] = true
		}
		pub, priv := generateEC(t, s, `id=""`, "")
		if a, b := get(t, s, pub, p11.CKA_ID).Value, get(t, s, priv, p11.CKA_ID).Value; len(a)+len(b) != 0 {
			t.Errorf("ids %x and %x, and none was asked for", a, b)
		}
	})
	t.Run("a bare EC point becomes DER", func(t *testing.T) {
		pub, _ := generateEC(t, s, "", "")
		der := get(t, s, pub, p11.CKA_EC_POINT).Value
		a := tmpl(t, "class=public-key key-type=ec "+p256Params)
		a.Set(p11.CKA_EC_POINT, der[2:])
		h, err := s.CreateObject(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if r := get(t, s, h, p11.CKA_EC_POINT); string(r.Value) != string(der) {
			t.Errorf("%x, want %x", r.Value, der)
		}
	})
	t.Run("RSA primes are computed", func(t *testing.T) {
		k, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		all := rsaPrivateKey(k)
		a := tmpl(t, "class=private-key key-type=rsa sensitive=false extractable=true")
		for _, attr := range all[:3] {
			a.Set(attr.Type, attr.Value)
		}
		h, err := s.CreateObject(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		p := new(big.Int).SetBytes(get(t, s, h, p11.CKA_PRIME_1).Value)
		q := new(big.Int).SetBytes(get(t, s, h, p11.CKA_PRIME_2).Value)
		if new(big.Int).Mul(p, q).Cmp(k.N) != 0 {
			t.Error("the primes do not make the modulus")
		}
		wrong := a.With(p11.CKA_PRIVATE_EXPONENT, []byte{1, 2, 3})
		_, err = s.CreateObject(t.Context(), wrong)
		want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
		wrong = a.Merge(all).With(p11.CKA_COEFFICIENT, []byte{5})
		_, err = s.CreateObject(t.Context(), wrong)
		want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	})
}

// Every attribute that stock openCryptoki expects of an object is there.
func TestStockAttributeSet(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	rsaPub, rsaPriv, err := s.GenerateKeyPair(t.Context(), mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024"), tmpl(t, "sensitive=false extractable=true"))
	if err != nil {
		t.Fatal(err)
	}
	all := "class token private modifiable label"
	key := " key-type id start-date end-date derive local"
	tests := []struct {
		name  string
		h     p11.ObjectHandle
		attrs string
	}{
		{"data", create(t, s, "class=data"), all + " application value"},
		{"certificate", create(t, s, certificate), all + " certificate-type subject value id issuer serial-number"},
		{"rsa public", rsaPub, all + key + " subject encrypt verify verify-recover wrap modulus modulus-bits public-exponent"},
		{"rsa private", rsaPriv, all + key + " subject sensitive decrypt sign sign-recover unwrap extractable always-authenticate always-sensitive never-extractable modulus public-exponent private-exponent prime-1 prime-2 exponent-1 exponent-2 coefficient"},
		{"aes", create(t, s, aesKey+" sensitive=false extractable=true"), all + key + " sensitive encrypt decrypt sign verify wrap unwrap extractable always-sensitive never-extractable value"},
		{"generic secret", create(t, s, macKey+" sensitive=false extractable=true"), all + key + " sensitive encrypt decrypt wrap unwrap derive value value-len"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range strings.Fields(tt.attrs) {
				a, err := p11.ParseAttributeType(name)
				if err != nil {
					t.Fatal(err)
				}
				if r := get(t, s, tt.h, a); r.Err != nil {
					t.Errorf("%s: %v", name, r.Err)
				}
			}
		})
	}
}

func TestErrorsWrapTheRV(t *testing.T) {
	b := newBench(t, hooks.Options{})
	_, err := b.user(t).CreateObject(t.Context(), tmpl(t, "class=secret-key key-type=aes"))
	if !errors.Is(err, p11.CKR_TEMPLATE_INCOMPLETE) {
		t.Errorf("%v is not CKR_TEMPLATE_INCOMPLETE", err)
	}
}
