package engine

import (
	"bytes"
	"context"
	"p11fs/tokens"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestGenerateKey(t *testing.T) {
	tests := []struct {
		name, mech, template string
		want                 p11.RV
	}{
		{"aes", "aes-key-gen", "value-len=32", p11.CKR_OK},
		{"aes into the token", "aes-key-gen", "value-len=16 token=true label=x", p11.CKR_OK},
		{"class and type said", "aes-key-gen", "class=secret-key key-type=aes value-len=16", p11.CKR_OK},
		{"generic secret", "generic-secret-key-gen", "value-len=20", p11.CKR_OK},
		{"sensitive", "generic-secret-key-gen", "value-len=20 sensitive=true", p11.CKR_OK},
		{"no length", "aes-key-gen", "", p11.CKR_TEMPLATE_INCOMPLETE},
		{"bad length", "aes-key-gen", "value-len=17", p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"length 0", "generic-secret-key-gen", "value-len=0", p11.CKR_ATTRIBUTE_VALUE_INVALID},
		{"value given", "aes-key-gen", "value-len=16 value=0x000102030405060708090a0b0c0d0e0f", p11.CKR_TEMPLATE_INCONSISTENT},
		{"other class", "aes-key-gen", "class=private-key value-len=16", p11.CKR_TEMPLATE_INCONSISTENT},
		{"other type", "aes-key-gen", "key-type=des3 value-len=16", p11.CKR_TEMPLATE_INCONSISTENT},
		{"pair mechanism", "ec-key-pair-gen", "value-len=16", p11.CKR_MECHANISM_INVALID},
		{"absent mechanism", "des3-key-gen", "", p11.CKR_MECHANISM_INVALID},
		{"local given", "aes-key-gen", "value-len=16 local=true", p11.CKR_ATTRIBUTE_READ_ONLY},
	}
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := s.GenerateKey(t.Context(), mech(t, tt.mech), tmpl(t, tt.template))
			want(t, err, tt.want)
			if err != nil {
				return
			}
			if !flag(t, s, h, p11.CKA_LOCAL) || flag(t, s, h, p11.CKA_ALWAYS_SENSITIVE) != flag(t, s, h, p11.CKA_SENSITIVE) || !flag(t, s, h, p11.CKA_NEVER_EXTRACTABLE) {
				t.Error("its history is not that of a generated key")
			}
			made := get(t, s, h, p11.CKA_KEY_GEN_MECHANISM)
			if !bytes.Equal(made.Value, p11.Ulong(mech(t, tt.mech).Type)) {
				t.Errorf("key-gen-mechanism %x, %v", made.Value, made.Err)
			}
		})
	}
	t.Run("without login", func(t *testing.T) {
		s := b.session(t, b.app(), rw)
		_, err := s.GenerateKey(t.Context(), mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))
		want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
		_, err = s.GenerateKey(t.Context(), mech(t, "aes-key-gen"), tmpl(t, "value-len=16 private=false"))
		want(t, err, p11.CKR_OK)
	})
}

func TestGenerateKeyPair(t *testing.T) {
	tests := []struct {
		name, mech, public, private string
		want                        p11.RV
	}{
		{"ec", "ec-key-pair-gen", p256Params, "", p11.CKR_OK},
		{"rsa", "rsa-pkcs-key-pair-gen", "modulus-bits=1024", "", p11.CKR_OK},
		{"rsa with exponent", "rsa-pkcs-key-pair-gen", "modulus-bits=1024 public-exponent=0x010001", "", p11.CKR_OK},
		{"ec without curve", "ec-key-pair-gen", "", "", p11.CKR_TEMPLATE_INCOMPLETE},
		{"rsa without bits", "rsa-pkcs-key-pair-gen", "", "", p11.CKR_TEMPLATE_INCOMPLETE},
		{"rsa too small", "rsa-pkcs-key-pair-gen", "modulus-bits=504", "", p11.CKR_KEY_SIZE_RANGE},
		{"key material in the private template", "ec-key-pair-gen", p256Params, "value=0x05", p11.CKR_TEMPLATE_INCONSISTENT},
		{"key material in the public template", "rsa-pkcs-key-pair-gen", "modulus-bits=1024 modulus=0x05", "", p11.CKR_TEMPLATE_INCONSISTENT},
		{"classes exchanged", "ec-key-pair-gen", p256Params + " class=private-key", "", p11.CKR_TEMPLATE_INCONSISTENT},
		{"attribute of the other half", "ec-key-pair-gen", p256Params, "verify=true", p11.CKR_ATTRIBUTE_TYPE_INVALID},
	}
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := b.Stats().SessionObjects
			pub, priv, err := s.GenerateKeyPair(t.Context(), mech(t, tt.mech), tmpl(t, tt.public), tmpl(t, tt.private))
			want(t, err, tt.want)
			if err != nil {
				if n := b.Stats().SessionObjects; n != before {
					t.Errorf("%d objects left over", n-before)
				}
				return
			}
			if a, b := get(t, s, pub, p11.CKA_PUBLIC_KEY_INFO), get(t, s, priv, p11.CKA_PUBLIC_KEY_INFO); len(a.Value) == 0 || !bytes.Equal(a.Value, b.Value) {
				t.Errorf("public-key-info of the halves: %x, %x", a.Value, b.Value)
			}
		})
	}
}

// Half a pair is not left over.
func TestKeyPairIsBothOrNeither(t *testing.T) {
	creates := 0
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if method == "Create" {
			if creates++; creates == 2 {
				return p11.CKR_DEVICE_MEMORY
			}
		}
		return nil
	}})
	s := b.user(t)
	_, _, err := s.GenerateKeyPair(t.Context(), mech(t, "ec-key-pair-gen"), tmpl(t, p256Params+" token=true"), tmpl(t, "token=true"))
	want(t, err, p11.CKR_DEVICE_MEMORY)
	list, err := s.Find(t.Context(), nil)
	if err != nil || len(list) != 0 {
		t.Errorf("%d objects left over, %v", len(list), err)
	}
}

func TestWrap(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	so := b.session(t, b.app(), rw)
	logIn(t, so, p11.CKU_SO, "87654321")
	s := b.user(t)
	m := mech(t, "aes-cbc-pad,iv="+zeroIV)
	wrapping := create(t, s, aesKey+" wrap=true unwrap=true")
	trusted := create(t, so, aesKey+" private=false token=true wrap=true trusted=true label=trusted")
	restricted := tmpl(t, aesKey+" wrap=true")
	restricted.Set(p11.CKA_WRAP_TEMPLATE, p11.EncodeTemplate(tmpl(t, "key-type=generic-secret")))
	picky, err := s.CreateObject(ctx, restricted)
	if err != nil {
		t.Fatal(err)
	}
	pub, priv := generateEC(t, s, "", "extractable=true")
	tests := []struct {
		name     string
		wrapping p11.ObjectHandle
		key      p11.ObjectHandle
		want     p11.RV
	}{
		{"secret key", wrapping, create(t, s, macKey+" extractable=true"), p11.CKR_OK},
		{"private key", wrapping, priv, p11.CKR_OK},
		{"public key", wrapping, pub, p11.CKR_KEY_NOT_WRAPPABLE},
		{"not extractable", wrapping, create(t, s, macKey), p11.CKR_KEY_UNEXTRACTABLE},
		{"wrap is false", create(t, s, aesKey+" wrap=false"), create(t, s, macKey+" extractable=true"), p11.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{"with trusted only", wrapping, create(t, s, macKey+" extractable=true wrap-with-trusted=true"), p11.CKR_KEY_NOT_WRAPPABLE},
		{"with trusted", trusted, create(t, s, macKey+" extractable=true wrap-with-trusted=true"), p11.CKR_OK},
		{"wrap template fits", picky, create(t, s, macKey+" extractable=true"), p11.CKR_OK},
		{"wrap template does not fit", picky, create(t, s, aesKey+" extractable=true"), p11.CKR_KEY_HANDLE_INVALID},
		{"no wrapping key", 1, priv, p11.CKR_WRAPPING_KEY_HANDLE_INVALID},
		{"no key", wrapping, 1, p11.CKR_KEY_HANDLE_INVALID},
		{"data", wrapping, create(t, s, "class=data"), p11.CKR_KEY_HANDLE_INVALID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := s.WrapKey(ctx, m, tt.wrapping, tt.key)
			want(t, err, tt.want)
			if (err == nil) != (len(out) > 0) {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
	}
}

func TestUnwrap(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	m := mech(t, "aes-cbc-pad,iv="+zeroIV)
	wrapping := create(t, s, aesKey+" wrap=true unwrap=true")
	_, priv := generateEC(t, s, "", "extractable=true")
	wrappedKey, err := s.WrapKey(ctx, m, wrapping, create(t, s, aesKey+" extractable=true"))
	if err != nil {
		t.Fatal(err)
	}
	wrappedPair, err := s.WrapKey(ctx, m, wrapping, priv)
	if err != nil {
		t.Fatal(err)
	}
	imposed := tmpl(t, aesKey+" unwrap=true")
	imposed.Set(p11.CKA_UNWRAP_TEMPLATE, p11.EncodeTemplate(tmpl(t, "extractable=false sign=true")))
	imposing, err := s.CreateObject(ctx, imposed)
	if err != nil {
		t.Fatal(err)
	}
	const aes = "class=secret-key key-type=aes"
	tests := []struct {
		name      string
		unwrapper p11.ObjectHandle
		wrapped   []byte
		template  string
		want      p11.RV
		holds     string // attributes of the new key
	}{
		{"secret key", wrapping, wrappedKey, aes, p11.CKR_OK, "extractable=true sensitive=false private=true local=false always-sensitive=false never-extractable=false value-len=16"},
		{"private key", wrapping, wrappedPair, "class=private-key key-type=ec", p11.CKR_OK, "sensitive=true sign=true"},
		{"length said", wrapping, wrappedKey, aes + " value-len=16", p11.CKR_OK, ""},
		{"wrong length said", wrapping, wrappedKey, aes + " value-len=32", p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"wrong type of key", wrapping, wrappedKey, "class=secret-key key-type=des3", p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"no key type", wrapping, wrappedKey, "class=secret-key", p11.CKR_TEMPLATE_INCOMPLETE, ""},
		{"no class", wrapping, wrappedKey, "key-type=aes", p11.CKR_TEMPLATE_INCOMPLETE, ""},
		{"value given", wrapping, wrappedKey, aes + " value=0x000102030405060708090a0b0c0d0e0f", p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"public key", wrapping, wrappedKey, "class=public-key key-type=ec", p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"damaged", wrapping, []byte("16 bytes, no key"), aes, p11.CKR_WRAPPED_KEY_INVALID, ""},
		{"unwrap is false", create(t, s, aesKey+" unwrap=false"), wrappedKey, aes, p11.CKR_KEY_FUNCTION_NOT_PERMITTED, ""},
		{"no unwrapping key", 1, wrappedKey, aes, p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID, ""},
		{"unwrap template", imposing, wrappedKey, aes, p11.CKR_OK, "extractable=false sign=true"},
		{"against the unwrap template", imposing, wrappedKey, aes + " extractable=true", p11.CKR_TEMPLATE_INCONSISTENT, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := b.Stats().SessionObjects
			h, err := s.UnwrapKey(ctx, m, tt.unwrapper, tt.wrapped, tmpl(t, tt.template))
			want(t, err, tt.want)
			if err != nil {
				if n := b.Stats().SessionObjects; n != before {
					t.Error("an object is left over")
				}
				return
			}
			for _, a := range tmpl(t, tt.holds) {
				if r := get(t, s, h, a.Type); !bytes.Equal(r.Value, a.Value) {
					t.Errorf("%s is %x, want %x (%v)", a.Type, r.Value, a.Value, r.Err)
				}
			}
		})
	}
}

func TestDerive(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv := generateEC(t, s, "", "derive=true")
	_, open := generateEC(t, s, "", "derive=true sensitive=false extractable=true")
	_, never := generateEC(t, s, "", "")
	point := get(t, s, pub, p11.CKA_EC_POINT).Value[2:]
	m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: point}}
	tests := []struct {
		name, template string
		base           p11.ObjectHandle
		want           p11.RV
		holds          string
	}{
		{"generic secret by default", "", priv, p11.CKR_OK, "key-type=generic-secret sensitive=false extractable=false always-sensitive=false never-extractable=true local=false value-len=32"},
		{"from an open key", "", open, p11.CKR_OK, "always-sensitive=false never-extractable=false"},
		{"open", "sensitive=false extractable=true", priv, p11.CKR_OK, "always-sensitive=false never-extractable=false"},
		{"aes", "key-type=aes value-len=16", priv, p11.CKR_OK, "key-type=aes value-len=16 encrypt=true"},
		{"aes of a bad length", "key-type=aes value-len=17", priv, p11.CKR_ATTRIBUTE_VALUE_INVALID, ""},
		{"derive is false", "", never, p11.CKR_KEY_FUNCTION_NOT_PERMITTED, ""},
		{"no base", "", 1, p11.CKR_KEY_HANDLE_INVALID, ""},
		{"value given", "value=0x01", priv, p11.CKR_TEMPLATE_INCONSISTENT, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := s.DeriveKey(ctx, m, tt.base, tmpl(t, tt.template))
			want(t, err, tt.want)
			if err != nil {
				return
			}
			for _, a := range tmpl(t, tt.holds) {
				if r := get(t, s, h, a.Type); !bytes.Equal(r.Value, a.Value) {
					t.Errorf("%s is %x, want %x (%v)", a.Type, r.Value, a.Value, r.Err)
				}
			}
		})
	}
}

func TestRandom(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.app(), ro)
	r, err := s.GenerateRandom(t.Context(), 100)
	if err != nil || len(r) != 100 || bytes.Equal(r, make([]byte, 100)) {
		t.Errorf("%x, %v", r, err)
	}
	_, err = s.GenerateRandom(t.Context(), -1)
	want(t, err, p11.CKR_ARGUMENTS_BAD)
	want(t, s.SeedRandom(t.Context(), r), p11.CKR_RANDOM_SEED_NOT_SUPPORTED)
}

// A session that ends while one key of a pair is stored leaves none in the token.
func TestKeyPairAtTheEndOfTheSession(t *testing.T) {
	ctx := t.Context()
	token := &afterCreate{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{})
	other, s := b.user(t), b.user(t)
	token.after = func() { want(t, s.Close(), p11.CKR_OK) }
	_, _, err := s.GenerateKeyPair(ctx, mech(t, "ec-key-pair-gen"), tmpl(t, "ec-params=secp256r1 label=left"), tmpl(t, "token=true label=left"))
	found, ferr := other.Find(ctx, tmpl(t, "label=left"))
	want(t, ferr, p11.CKR_OK)
	if err != nil && len(found) != 0 {
		t.Errorf("failed with %v, and %d objects are left", err, len(found))
	}
}

// afterCreate calls after once an object is stored.
type afterCreate struct {
	*hooks.Token
	after func()
}

func (t *afterCreate) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	o, err := t.Token.Create(ctx, attrs)
	t.after()
	return o, err
}
