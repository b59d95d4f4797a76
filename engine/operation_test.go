package engine

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

const zeroIV = "0x00000000000000000000000000000000"

func TestFreeStandingOperations(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv := generateEC(t, s, "", "")
	aes := create(t, s, aesKey)
	data := []byte(strings.Repeat("data", 100))

	t.Run("digest", func(t *testing.T) {
		o, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		want(t, errOf(o.Update(ctx, data[:7])), p11.CKR_OK)
		want(t, errOf(o.Update(ctx, data[7:])), p11.CKR_OK)
		got, err := o.Final(ctx, nil)
		sum := sha256.Sum256(data)
		if err != nil || !bytes.Equal(got, sum[:]) {
			t.Errorf("%x, %v", got, err)
		}
		_, err = o.Final(ctx, nil)
		want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
		want(t, errOf(o.Update(ctx, data)), p11.CKR_OPERATION_NOT_INITIALIZED)
	})
	t.Run("sign and verify, many at once", func(t *testing.T) {
		var ops []*Operation
		for range 10 {
			o, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "ecdsa-sha256"), priv)
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			ops = append(ops, o)
		}
		if n := b.Stats().Operations; n != 10 {
			t.Errorf("%d operations, want 10", n)
		}
		for _, o := range ops {
			want(t, errOf(o.Update(ctx, data)), p11.CKR_OK)
		}
		for _, o := range ops {
			sig, err := o.Final(ctx, nil)
			if err != nil || len(sig) != o.Size() {
				t.Fatalf("%d bytes, %v", len(sig), err)
			}
			for _, bad := range []bool{false, true} {
				v, err := s.Begin(ctx, p11.CKF_VERIFY, mech(t, "ecdsa-sha256"), pub)
				if err != nil {
					t.Fatal(err)
				}
				want(t, errOf(v.Update(ctx, data)), p11.CKR_OK)
				if bad {
					want(t, errOf(v.Update(ctx, data)), p11.CKR_OK)
					want(t, errOf(v.Final(ctx, sig)), p11.CKR_SIGNATURE_INVALID)
				} else {
					want(t, errOf(v.Final(ctx, sig)), p11.CKR_OK)
				}
				v.Close()
			}
		}
		if n := b.Stats().Operations; n != 0 {
			t.Errorf("%d operations left", n)
		}
	})
	t.Run("encrypt and decrypt", func(t *testing.T) {
		for _, m := range []string{"aes-cbc-pad,iv=" + zeroIV, "aes-ctr,bits=128,counter=" + zeroIV, "aes-gcm,iv=0x000000000000000000000000,tag=128"} {
			e, err := s.Begin(ctx, p11.CKF_ENCRYPT, mech(t, m), aes)
			if err != nil {
				t.Fatal(err)
			}
			secret := run(t, e, data)
			d, err := s.Begin(ctx, p11.CKF_DECRYPT, mech(t, m), aes)
			if err != nil {
				t.Fatal(err)
			}
			if plain := run(t, d, secret); !bytes.Equal(plain, data) {
				t.Errorf("%s: %q", m, plain)
			}
		}
	})
}

func run(t *testing.T, o *Operation, data []byte) []byte {
	t.Helper()
	defer o.Close()
	var out []byte
	for len(data) > 0 {
		n := min(33, len(data))
		part, err := o.Update(t.Context(), data[:n])
		if err != nil {
			t.Fatal(err)
		}
		out, data = append(out, part...), data[n:]
	}
	rest, err := o.Final(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, rest...)
}

func TestKeyRules(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv := generateEC(t, s, "", "")
	tests := []struct {
		name, mech string
		key        p11.ObjectHandle
		want       p11.RV
	}{
		{"sign", "sha256-hmac", create(t, s, macKey), p11.CKR_OK},
		{"sign is false", "sha256-hmac", create(t, s, macKey+" sign=false"), p11.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{"allowed mechanism", "sha256-hmac", create(t, s, macKey+" allowed-mechanisms=aes-cbc+sha256-hmac"), p11.CKR_OK},
		{"mechanism not allowed", "sha256-hmac", create(t, s, macKey+" allowed-mechanisms=aes-cbc+sha512-hmac"), p11.CKR_MECHANISM_INVALID},
		{"expired", "sha256-hmac", create(t, s, macKey+" end-date=2001-01-01"), p11.CKR_OK},
		{"mechanism absent", "sha512-hmac", create(t, s, macKey), p11.CKR_MECHANISM_INVALID},
		{"mechanism for something else", "aes-cbc-pad,iv=" + zeroIV, create(t, s, aesKey+" sign=true"), p11.CKR_MECHANISM_INVALID},
		{"no key", "sha256-hmac", create(t, s, "class=data"), p11.CKR_KEY_HANDLE_INVALID},
		{"public key", "ecdsa-sha256", pub, p11.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{"private key", "ecdsa-sha256", priv, p11.CKR_OK},
		{"wrong type of key", "ecdsa-sha256", create(t, s, macKey), p11.CKR_KEY_TYPE_INCONSISTENT},
		{"handle 0", "sha256-hmac", 0, p11.CKR_KEY_HANDLE_INVALID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := s.Begin(t.Context(), p11.CKF_SIGN, mech(t, tt.mech), tt.key)
			want(t, err, tt.want)
			if o != nil {
				o.Close()
			}
			want(t, s.SignInit(t.Context(), mech(t, tt.mech), tt.key), tt.want)
			want(t, s.SessionCancel(t.Context(), p11.CKF_SIGN), p11.CKR_OK)
		})
	}
}

func TestAlwaysAuthenticate(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	_, h := generateEC(t, s, "", "always-authenticate=true derive=true")
	m := mech(t, "ecdsa-sha256")
	t.Run("free-standing", func(t *testing.T) {
		o, err := s.Begin(ctx, p11.CKF_SIGN, m, h)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		want(t, errOf(o.Update(ctx, nil)), p11.CKR_USER_NOT_LOGGED_IN)
		want(t, o.Authenticate(ctx, pin(t, "9999")), p11.CKR_PIN_INCORRECT)
		_, err = o.Result(ctx, nil)
		want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
		want(t, o.Authenticate(ctx, pin(t, "1234")), p11.CKR_OK)
		want(t, errOf(o.Update(ctx, nil)), p11.CKR_OK)
		_, err = o.Result(ctx, nil)
		want(t, err, p11.CKR_OK)
		_, err = o.Final(ctx, nil)
		want(t, err, p11.CKR_OK)
	})
	t.Run("C_Login for the active operation", func(t *testing.T) {
		want(t, s.SignInit(ctx, m, h), p11.CKR_OK)
		want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, "1234")), p11.CKR_OK)
		_, err := s.Sign(ctx, []byte("x"), NoLimit)
		want(t, err, p11.CKR_OK)
		want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, "1234")), p11.CKR_OPERATION_NOT_INITIALIZED)
	})
	// PKCS#11 v3.1 §5.13.2: C_Sign "always terminates the active signing operation".
	t.Run("a C_ function without the PIN ends its operation", func(t *testing.T) {
		calls := map[string]func() error{
			"Sign":   func() error { return errOf(s.Sign(ctx, []byte("x"), NoLimit)) },
			"Update": func() error { return s.SignUpdate(ctx, []byte("x")) },
			"Final":  func() error { return errOf(s.SignFinal(ctx, NoLimit)) },
		}
		for name, call := range calls {
			t.Run(name, func(t *testing.T) {
				want(t, s.SignInit(ctx, m, h), p11.CKR_OK)
				want(t, errOf(s.Sign(ctx, nil, OnlyLength)), p11.CKR_BUFFER_TOO_SMALL)
				want(t, call(), p11.CKR_USER_NOT_LOGGED_IN)
				want(t, call(), p11.CKR_OPERATION_NOT_INITIALIZED)
				want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, "1234")), p11.CKR_OPERATION_NOT_INITIALIZED)
			})
		}
	})
	t.Run("no derivation", func(t *testing.T) {
		_, err := s.DeriveKey(ctx, mech(t, "ecdh1-derive,kdf=null,public=0x04"), h, nil)
		want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
	})
	if n := b.token.Logins(); n != 1 {
		t.Errorf("%d logins open, want 1", n)
	}
}

func TestDigestKey(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	open := create(t, s, macKey+" sensitive=false extractable=true")
	for _, tt := range []struct {
		name string
		key  p11.ObjectHandle
		want p11.RV
	}{
		{"open", open, p11.CKR_OK},
		{"sensitive", create(t, s, macKey), p11.CKR_KEY_INDIGESTIBLE},
		{"no key", 1, p11.CKR_KEY_HANDLE_INVALID},
		{"data", create(t, s, "class=data"), p11.CKR_KEY_HANDLE_INVALID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want(t, s.DigestInit(ctx, mech(t, "sha256")), p11.CKR_OK)
			want(t, s.DigestKey(ctx, tt.key), tt.want)
			got, err := s.DigestFinal(ctx, NoLimit)
			if tt.want == p11.CKR_KEY_HANDLE_INVALID {
				if sum := sha256.Sum256(nil); err != nil || !bytes.Equal(got, sum[:]) {
					t.Errorf("%x, %v: the digest did not go on", got, err)
				}
				return
			}
			if tt.want != p11.CKR_OK {
				want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
				return
			}
			sum := sha256.Sum256([]byte{0, 1, 2, 3, 4, 5, 6, 7})
			if !bytes.Equal(got, sum[:]) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}

// A verification that got its signature first is the active one, and is driven by its own
// functions alone.
func TestVerifySignature(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv := generateEC(t, s, "", "")
	m := mech(t, "ecdsa-sha256")
	data := []byte("some data")
	want(t, s.SignInit(ctx, m, priv), p11.CKR_OK)
	signature, err := s.Sign(ctx, data, NoLimit)
	want(t, err, p11.CKR_OK)
	begin := func(signature []byte) {
		t.Helper()
		want(t, s.VerifySignatureInit(ctx, m, pub, signature), p11.CKR_OK)
	}

	want(t, s.VerifySignature(ctx, data), p11.CKR_OPERATION_NOT_INITIALIZED)
	begin(signature)
	want(t, s.VerifySignatureInit(ctx, m, pub, signature), p11.CKR_OPERATION_ACTIVE)
	want(t, s.VerifyInit(ctx, m, pub), p11.CKR_OPERATION_ACTIVE)
	want(t, s.Verify(ctx, data, signature), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.VerifyUpdate(ctx, data), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.VerifyFinal(ctx, signature), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.VerifySignature(ctx, data), p11.CKR_OK)
	want(t, s.VerifySignatureFinal(ctx), p11.CKR_OPERATION_NOT_INITIALIZED)

	begin(signature)
	want(t, s.VerifySignatureUpdate(ctx, data[:3]), p11.CKR_OK)
	want(t, s.VerifySignatureUpdate(ctx, data[3:]), p11.CKR_OK)
	want(t, s.VerifySignatureFinal(ctx), p11.CKR_OK)
	begin(signature)
	want(t, s.VerifySignatureUpdate(ctx, data[:3]), p11.CKR_OK)
	want(t, s.VerifySignatureFinal(ctx), p11.CKR_SIGNATURE_INVALID)
	begin(signature[:62])
	want(t, s.VerifySignature(ctx, data), p11.CKR_SIGNATURE_INVALID)
	begin(nil)
	want(t, s.VerifySignature(ctx, data), p11.CKR_SIGNATURE_LEN_RANGE)
	want(t, s.VerifySignatureInit(ctx, m, pub, make([]byte, 65)), p11.CKR_SIGNATURE_LEN_RANGE)
	want(t, s.VerifySignature(ctx, data), p11.CKR_OPERATION_NOT_INITIALIZED)

	begin(signature)
	want(t, s.SessionCancel(ctx, p11.CKF_VERIFY), p11.CKR_OK)
	want(t, s.VerifyInit(ctx, m, pub), p11.CKR_OK)
	want(t, s.VerifySignature(ctx, data), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.VerifySignatureUpdate(ctx, data), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.Verify(ctx, data, signature), p11.CKR_OK)
}

// No session is asynchronous, and no operation validated.
func TestSessionsOfVersion32(t *testing.T) {
	b := newBench(t, hooks.Options{})
	app := b.app()
	_, err := app.OpenSession(t.Context(), b.slot, rw|p11.CKF_ASYNC_SESSION)
	want(t, err, p11.CKR_SESSION_ASYNC_NOT_SUPPORTED)
	s := b.session(t, app, ro)
	flags, err := s.ValidationFlags(p11.CKS_LAST_VALIDATION_OK)
	want(t, err, p11.CKR_OK)
	if flags != 0 {
		t.Errorf("validation flags %v", flags)
	}
	_, err = s.ValidationFlags(7)
	want(t, err, p11.CKR_ARGUMENTS_BAD)
	want(t, s.Close(), p11.CKR_OK)
	_, err = s.ValidationFlags(p11.CKS_LAST_VALIDATION_OK)
	want(t, err, p11.CKR_SESSION_HANDLE_INVALID)
}
