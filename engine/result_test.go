package engine

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// A Result is of the data so far, and the operation goes on to the Final of all
// of it.
func TestResult(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv := generateEC(t, s, "", "")
	aes := create(t, s, aesKey)
	data := bytes.Repeat([]byte("16 bytes a block"), 6)
	ends := []int{16, 48, len(data)}

	t.Run("digest", func(t *testing.T) {
		o, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		at := 0
		for _, end := range ends {
			want(t, errOf(o.Update(ctx, data[at:end])), p11.CKR_OK)
			at = end
			sum := sha256.Sum256(data[:end])
			for range 2 {
				if got, err := o.Result(ctx, nil); err != nil || !bytes.Equal(got, sum[:]) {
					t.Errorf("of %d bytes: %x, %v", end, got, err)
				}
			}
		}
		sum := sha256.Sum256(data)
		if got, err := o.Final(ctx, nil); err != nil || !bytes.Equal(got, sum[:]) {
			t.Errorf("%x, %v", got, err)
		}
		_, err = o.Result(ctx, nil)
		want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
	})
	t.Run("sign and verify", func(t *testing.T) {
		m := mech(t, "ecdsa-sha256")
		o, err := s.Begin(ctx, p11.CKF_SIGN, m, priv)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		v, err := s.Begin(ctx, p11.CKF_VERIFY, m, pub)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		at := 0
		var sig []byte
		for _, end := range ends {
			want(t, errOf(o.Update(ctx, data[at:end])), p11.CKR_OK)
			want(t, errOf(v.Update(ctx, data[at:end])), p11.CKR_OK)
			at = end
			if sig != nil {
				want(t, errOf(v.Result(ctx, sig)), p11.CKR_SIGNATURE_INVALID)
			}
			if sig, err = o.Result(ctx, nil); err != nil {
				t.Fatal(err)
			}
			want(t, errOf(v.Result(ctx, sig[1:])), p11.CKR_SIGNATURE_LEN_RANGE)
			want(t, errOf(v.Result(ctx, sig)), p11.CKR_OK)
		}
		if sig, err = o.Final(ctx, nil); err != nil {
			t.Fatal(err)
		}
		want(t, errOf(v.Final(ctx, sig)), p11.CKR_OK)
		want(t, errOf(v.Result(ctx, sig)), p11.CKR_OPERATION_NOT_INITIALIZED)
	})
	for _, m := range []string{"aes-cbc-pad,iv=" + zeroIV, "aes-ctr,bits=128,counter=" + zeroIV, "aes-gcm,iv=0x000000000000000000000000,tag=128"} {
		t.Run(m, func(t *testing.T) {
			e, err := s.Begin(ctx, p11.CKF_ENCRYPT, mech(t, m), aes)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			var out []byte
			at := 0
			for _, end := range ends {
				x, err := e.Update(ctx, data[at:end])
				want(t, err, p11.CKR_OK)
				out, at = append(out, x...), end
				rest, err := e.Result(ctx, nil)
				want(t, err, p11.CKR_OK)
				d, err := s.Begin(ctx, p11.CKF_DECRYPT, mech(t, m), aes)
				if err != nil {
					t.Fatal(err)
				}
				if plain := run(t, d, append(bytes.Clone(out), rest...)); !bytes.Equal(plain, data[:end]) {
					t.Errorf("of %d bytes: %q", end, plain)
				}
			}
			rest, err := e.Final(ctx, nil)
			want(t, err, p11.CKR_OK)
			secret := append(out, rest...)

			d, err := s.Begin(ctx, p11.CKF_DECRYPT, mech(t, m), aes)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			x, err := d.Update(ctx, secret[:21])
			want(t, err, p11.CKR_OK)
			out = x
			if _, err := d.Result(ctx, nil); err != nil { // no whole ciphertext, and no end
				want(t, d.stands(), p11.CKR_OK)
			}
			x, err = d.Update(ctx, secret[21:])
			want(t, err, p11.CKR_OK)
			out = append(out, x...)
			rest, err = d.Result(ctx, nil)
			if err != nil || !bytes.Equal(append(out, rest...), data) {
				t.Errorf("%q, %q, %v", out, rest, err)
			}
		})
	}
}

// A Result that panics in the token ends the operation, as any call does.
func TestPanicInResult(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if method == "Signature.Final" {
			panic("as the test wants it")
		}
		return nil
	}})
	s := b.user(t)
	o, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), create(t, s, macKey))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		_, _ = o.Result(ctx, nil)
	}()
	want(t, errOf(o.Update(ctx, []byte("x"))), p11.CKR_OPERATION_NOT_INITIALIZED)
	if n := b.Stats().Operations; n != 0 {
		t.Errorf("%d operations left", n)
	}
}
