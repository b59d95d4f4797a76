package engine

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// What C_ functions do to the session's active operation: which it needs, and
// which it leaves (PKCS#11 v3.1 §5.2, §5.8 to §5.15).
func TestActiveOperations(t *testing.T) {
	ctx := t.Context()
	fail := ""
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if method == fail {
			return p11.CKR_DEVICE_ERROR
		}
		return nil
	}})
	s := b.user(t)
	mac := create(t, s, macKey)
	aes := create(t, s, aesKey)
	m, cbc := mech(t, "sha256-hmac"), mech(t, "aes-cbc-pad,iv="+zeroIV)
	data := []byte("data")

	calls := map[string]func() error{
		"DigestInit":    func() error { return s.DigestInit(ctx, mech(t, "sha256")) },
		"Digest":        func() error { _, err := s.Digest(ctx, data, NoLimit); return err },
		"DigestQuery":   func() error { _, err := s.Digest(ctx, nil, 0); return err },
		"DigestUpdate":  func() error { return s.DigestUpdate(ctx, data) },
		"DigestFinal":   func() error { _, err := s.DigestFinal(ctx, NoLimit); return err },
		"SignInit":      func() error { return s.SignInit(ctx, m, mac) },
		"SignInitBad":   func() error { return s.SignInit(ctx, m, 1) },
		"Sign":          func() error { _, err := s.Sign(ctx, data, NoLimit); return err },
		"SignQuery":     func() error { _, err := s.Sign(ctx, nil, 0); return err },
		"SignUpdate":    func() error { return s.SignUpdate(ctx, data) },
		"SignFinal":     func() error { _, err := s.SignFinal(ctx, NoLimit); return err },
		"SignFinal5":    func() error { _, err := s.SignFinal(ctx, 5); return err },
		"VerifyInit":    func() error { return s.VerifyInit(ctx, m, mac) },
		"Verify":        func() error { return s.Verify(ctx, data, []byte("wrong")) },
		"VerifyUpdate":  func() error { return s.VerifyUpdate(ctx, data) },
		"VerifyFinal":   func() error { return s.VerifyFinal(ctx, make([]byte, 32)) },
		"EncryptInit":   func() error { return s.EncryptInit(ctx, cbc, aes) },
		"Encrypt":       func() error { _, err := s.Encrypt(ctx, data, NoLimit); return err },
		"Encrypt3":      func() error { _, err := s.Encrypt(ctx, data, 3); return err },
		"EncryptFinal3": func() error { _, err := s.EncryptFinal(ctx, 3); return err },
		"EncryptUpdate": func() error { _, err := s.EncryptUpdate(ctx, data, NoLimit); return err },
		"EncryptFinal":  func() error { _, err := s.EncryptFinal(ctx, NoLimit); return err },
		"DecryptInit":   func() error { return s.DecryptInit(ctx, cbc, aes) },
		"Decrypt":       func() error { _, err := s.Decrypt(ctx, data, NoLimit); return err },
		"CancelSign":    func() error { return s.SessionCancel(ctx, p11.CKF_SIGN) },
	}
	tests := []struct {
		name  string
		fail  string // the token's method that fails
		calls string // each with its RV, OK if none is given
	}{
		{"nothing active", "", "Digest:NOT DigestUpdate:NOT DigestFinal:NOT Sign:NOT SignUpdate:NOT SignFinal:NOT Verify:NOT VerifyUpdate:NOT VerifyFinal:NOT Encrypt:NOT EncryptUpdate:NOT EncryptFinal:NOT Decrypt:NOT"},
		{"one part", "", "DigestInit Digest Digest:NOT"},
		{"parts", "", "SignInit SignUpdate SignUpdate SignFinal SignFinal:NOT"},
		{"no parts", "", "SignInit SignFinal SignFinal:NOT"},
		{"twice", "", "SignInit SignInit:ACTIVE Sign"},
		{"a failed Init begins nothing", "", "SignInitBad:KEY SignInit Sign"},
		{"a failed Init leaves the active one", "", "SignInit SignInitBad:ACTIVE Sign"},
		{"kinds are independent", "", "SignInit DigestInit EncryptInit VerifyInit DecryptInit SignUpdate DigestUpdate SignFinal DigestFinal Encrypt Verify:LEN Decrypt:DATA"},
		{"one part after parts", "", "SignInit SignUpdate Sign:ACTIVE SignUpdate:NOT"},
		{"asking for the length ends nothing", "", "SignInit SignQuery:SMALL SignQuery:SMALL Sign DigestInit DigestQuery:SMALL Digest"},
		{"too little room ends nothing", "", "SignInit SignUpdate SignFinal5:SMALL SignFinal"},
		{"too little room for ciphertext", "", "EncryptInit Encrypt3:SMALL Encrypt3:SMALL Encrypt Encrypt:NOT"},
		{"too little room, then parts", "", "EncryptInit Encrypt3:SMALL EncryptUpdate EncryptFinal3:SMALL EncryptUpdate EncryptFinal3:SMALL EncryptFinal EncryptFinal:NOT"},
		{"a failed Update ends it", "Signature.Update", "SignInit SignUpdate:DEVICE SignFinal:NOT SignInit Sign:DEVICE SignFinal:NOT"},
		{"a failed Final ends it", "Signature.Final", "SignInit SignUpdate SignFinal:DEVICE SignFinal:NOT"},
		{"a failed check ends it", "", "VerifyInit VerifyUpdate VerifyFinal:SIG VerifyFinal:NOT VerifyInit Verify:LEN Verify:NOT"},
		{"a failed decryption ends it", "", "DecryptInit Decrypt:DATA Decrypt:NOT"},
		{"C_SessionCancel", "", "SignInit DigestInit CancelSign Sign:NOT Digest CancelSign"},
	}
	rvs := map[string]p11.RV{
		"OK": p11.CKR_OK, "NOT": p11.CKR_OPERATION_NOT_INITIALIZED, "ACTIVE": p11.CKR_OPERATION_ACTIVE,
		"KEY": p11.CKR_KEY_HANDLE_INVALID, "SMALL": p11.CKR_BUFFER_TOO_SMALL, "DEVICE": p11.CKR_DEVICE_ERROR,
		"SIG": p11.CKR_SIGNATURE_INVALID, "LEN": p11.CKR_SIGNATURE_LEN_RANGE, "DATA": p11.CKR_ENCRYPTED_DATA_LEN_RANGE,
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fail = tt.fail
			for i, c := range strings.Fields(tt.calls) {
				name, rv, ok := strings.Cut(c, ":")
				if !ok {
					rv = "OK"
				}
				if err := calls[name](); p11.RVOf(err) != rvs[rv] {
					t.Fatalf("call %d, %s: %v, want %v", i+1, name, err, rvs[rv])
				}
			}
			if n := b.Stats().Operations; n != 0 {
				t.Errorf("%d operations left", n)
			}
		})
	}
}

// A result that did not fit is given in full to the call repeated with room.
func TestBufferTooSmall(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	aes := create(t, s, aesKey)
	ctr := mech(t, "aes-ctr,bits=128,counter="+zeroIV)
	data := []byte("0123456789")
	want(t, s.EncryptInit(ctx, ctr, aes), p11.CKR_OK)
	whole, err := s.Encrypt(ctx, data, NoLimit)
	want(t, err, p11.CKR_OK)

	want(t, s.EncryptInit(ctx, ctr, aes), p11.CKR_OK)
	var got []byte
	for _, part := range [][]byte{data[:4], data[4:]} {
		_, err := s.EncryptUpdate(ctx, part, 1)
		var small *BufferError
		if !errors.As(err, &small) || small.Need != len(part) {
			t.Fatalf("%v, want a need of %d", err, len(part))
		}
		out, err := s.EncryptUpdate(ctx, part, small.Need)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, out...)
	}
	if !bytes.Equal(got, whole) {
		t.Errorf("%x, want %x: a part was taken twice", got, whole)
	}
	_, err = s.EncryptFinal(ctx, 0)
	want(t, err, p11.CKR_OK)

	t.Run("a logout after too little room", func(t *testing.T) {
		want(t, s.EncryptInit(ctx, ctr, aes), p11.CKR_OK)
		_, err := s.Encrypt(ctx, data, 0)
		want(t, err, p11.CKR_BUFFER_TOO_SMALL)
		want(t, s.Logout(ctx), p11.CKR_OK)
		_, err = s.Encrypt(ctx, data, NoLimit)
		want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
	})
}

// A question for the length, or too little room, leaves the operation where it was:
// any call may follow, with other data, and the ciphertext is that of those data from
// the IV on. A token's operation that knows no sizes, or cannot go on, is begun anew.
func TestNothingIsLeftOfALengthQuery(t *testing.T) {
	ctx := t.Context()
	whole, parts := []byte("one two three four five six"), [][]byte{[]byte("one two th"), []byte("ree four five"), []byte(" six")}
	for name, keep := range map[string]hooks.Options{
		"as the token is": {}, "no Sizer": {NoSizer: true}, "no Resumer": {NoResumer: true}, "neither": {NoSizer: true, NoResumer: true},
	} {
		b := newBench(t, keep)
		s := b.user(t)
		aes := create(t, s, aesKey)
		iv := "iv=00112233445566778899aabbccddeeff"
		for _, text := range []string{"aes-ctr,bits=128,counter=" + zeroIV, "aes-cbc-pad," + iv, "aes-gcm," + iv} {
			m := mech(t, text)
			for _, use := range []p11.Flags{p11.CKF_ENCRYPT, p11.CKF_DECRYPT} {
				for _, room := range []int{0, 1, OnlyLength} {
					t.Run(fmt.Sprint(name, ", ", text, ", ", use, ", room ", room), func(t *testing.T) {
						in, data := parts, whole
						want(t, s.Init(ctx, p11.CKF_ENCRYPT, m, aes), p11.CKR_OK)
						out, err := s.Do(ctx, p11.CKF_ENCRYPT, whole, nil, NoLimit)
						want(t, err, p11.CKR_OK)
						if use == p11.CKF_DECRYPT {
							in, data, out = [][]byte{out[:9], out[9:20], out[20:]}, out, whole
						}
						want(t, s.Init(ctx, use, m, aes), p11.CKR_OK)
						other := in[:1]
						if use == p11.CKF_DECRYPT {
							other = [][]byte{data} // only what is genuine has a length
						}
						want(t, errOf(s.Do(ctx, use, other[0], nil, room)), p11.CKR_BUFFER_TOO_SMALL)
						want(t, errOf(s.Do(ctx, use, data, nil, room)), p11.CKR_BUFFER_TOO_SMALL)
						var got []byte
						for _, part := range in {
							if room == OnlyLength {
								want(t, errOf(s.Update(ctx, use, []byte("some other data, and more of them"), room)), p11.CKR_BUFFER_TOO_SMALL)
								want(t, errOf(s.Update(ctx, use, part, room)), p11.CKR_BUFFER_TOO_SMALL)
							}
							piece, err := s.Update(ctx, use, part, NoLimit)
							want(t, err, p11.CKR_OK)
							got = append(got, piece...)
						}
						if room == OnlyLength {
							want(t, errOf(s.Update(ctx, use, []byte("some other data, and more of them"), room)), p11.CKR_BUFFER_TOO_SMALL)
							want(t, errOf(s.Final(ctx, use, nil, room)), p11.CKR_BUFFER_TOO_SMALL)
						}
						rest, err := s.Final(ctx, use, nil, NoLimit)
						want(t, err, p11.CKR_OK)
						if got = append(got, rest...); !bytes.Equal(got, out) {
							t.Errorf("%x, want %x", got, out)
						}
						want(t, s.Init(ctx, use, m, aes), p11.CKR_OK)
						want(t, errOf(s.Do(ctx, use, data, nil, room)), p11.CKR_BUFFER_TOO_SMALL)
						if got, err := s.Do(ctx, use, data, nil, len(out)); err != nil || !bytes.Equal(got, out) {
							t.Errorf("after a query: %x, %v, want %x", got, err, out)
						}
					})
				}
			}
		}
	}
}

func TestRecover(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	pub, priv, err := s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := mech(t, "rsa-pkcs")
	want(t, s.SignRecoverInit(ctx, m, priv), p11.CKR_OK)
	want(t, s.SignRecoverInit(ctx, m, priv), p11.CKR_OPERATION_ACTIVE)
	_, err = s.SignRecover(ctx, []byte("data"), 10)
	want(t, err, p11.CKR_BUFFER_TOO_SMALL)
	sig, err := s.SignRecover(ctx, []byte("data"), 128)
	want(t, err, p11.CKR_OK)
	want(t, s.VerifyRecoverInit(ctx, m, priv), p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	want(t, s.VerifyRecoverInit(ctx, m, pub), p11.CKR_OK)
	data, err := s.VerifyRecover(ctx, sig, NoLimit)
	if err != nil || string(data) != "data" {
		t.Errorf("%q, %v", data, err)
	}
	_, err = s.VerifyRecover(ctx, sig, NoLimit)
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
}

func TestDualFunctions(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	aes, mac := create(t, s, aesKey), create(t, s, macKey)
	ctr, sha, hmac := mech(t, "aes-ctr,bits=128,counter="+zeroIV), mech(t, "sha256"), mech(t, "sha256-hmac")
	data := []byte("some data")
	ok := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			want(t, err, p11.CKR_OK)
		}
	}
	_, err := s.DigestEncryptUpdate(ctx, data, NoLimit)
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)

	ok(s.DigestInit(ctx, sha), s.EncryptInit(ctx, ctr, aes))
	secret, err := s.DigestEncryptUpdate(ctx, data, NoLimit)
	ok(err)
	digest, err := s.DigestFinal(ctx, NoLimit)
	ok(err)
	_, err = s.EncryptFinal(ctx, NoLimit)
	ok(err)

	ok(s.DigestInit(ctx, sha), s.DecryptInit(ctx, ctr, aes))
	_, err = s.DecryptDigestUpdate(ctx, secret, 3)
	want(t, err, p11.CKR_BUFFER_TOO_SMALL)
	plain, err := s.DecryptDigestUpdate(ctx, secret, NoLimit)
	ok(err)
	again, err := s.DigestFinal(ctx, NoLimit)
	ok(err)
	_, err = s.DecryptFinal(ctx, NoLimit)
	ok(err)
	if !bytes.Equal(plain, data) || !bytes.Equal(again, digest) {
		t.Errorf("%q, digest %x, want %x", plain, again, digest)
	}

	ok(s.SignInit(ctx, hmac, mac), s.EncryptInit(ctx, ctr, aes))
	secret, err = s.SignEncryptUpdate(ctx, data, NoLimit)
	ok(err)
	sig, err := s.SignFinal(ctx, NoLimit)
	ok(err)
	_, err = s.EncryptFinal(ctx, NoLimit)
	ok(err)

	ok(s.VerifyInit(ctx, hmac, mac), s.DecryptInit(ctx, ctr, aes))
	plain, err = s.DecryptVerifyUpdate(ctx, secret, NoLimit)
	ok(err, s.VerifyFinal(ctx, sig))
	_, err = s.DecryptFinal(ctx, NoLimit)
	ok(err)
	if !bytes.Equal(plain, data) {
		t.Errorf("%q", plain)
	}
}

// An operation that a logout has cut before it was the active one does not become it.
func TestCutBeforeItIsActive(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	o, err := s.beginParts(ctx, useOf(p11.CKF_SIGN), mech(t, "sha256-hmac"), create(t, s, macKey), true, false)
	want(t, err, p11.CKR_OK)
	want(t, s.Logout(ctx), p11.CKR_OK)
	want(t, s.activate(o), p11.CKR_USER_NOT_LOGGED_IN)
	if len(s.active) != 0 {
		t.Error("it is in the way of the next one")
	}
}
